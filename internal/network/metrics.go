package network

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics is what the core counts.
type Metrics struct {
	Repair prometheus.Histogram // seconds of one look of the repair loop at one network
	Waits  *prometheus.HistogramVec
}

// Buckets of all durations, in seconds: 0.1 ms to 13 s, each 1.3 times the one
// before, so that a percentile read from them is right within a seventh.
func Buckets() []float64 { return prometheus.ExponentialBuckets(0.0001, 1.3, 46) }

// NewMetrics makes the metrics, of which nothing has been counted.
func NewMetrics() *Metrics {
	return &Metrics{
		Repair: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "ocn_repair_seconds", Help: "One look of the repair loop at one network.", Buckets: Buckets(),
		}),
		Waits: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "ocn_wait_seconds", Help: "One wait for something outside the daemon.", Buckets: Buckets(),
		}, []string{"for"}),
	}
}

// What is waited for outside the daemon.
const (
	ForOVSDB    = "ovsdb"
	ForVswitchd = "vswitchd"
	ForDisk     = "disk"

	ForNorthbound = "northbound" // OVN's northbound database
	ForOVN        = "ovn"        // northd and ovn-controller, until a port is installed
)

// Stopwatch adds up how long something waited for what is outside this process.
// Its methods may be called concurrently; waits that overlap count once.
type Stopwatch struct {
	mu    sync.Mutex // guards the following
	total time.Duration
	depth int
	since time.Time // of the wait under way, if depth > 0
}

// Total is the time so far, that of a wait under way included.
func (s *Stopwatch) Total() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.depth > 0 {
		return s.total + time.Since(s.since)
	}
	return s.total
}

func (s *Stopwatch) start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.depth == 0 {
		s.since = time.Now()
	}
	s.depth++
}

func (s *Stopwatch) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.depth--; s.depth == 0 {
		s.total += time.Since(s.since)
	}
}

func (s *Stopwatch) add(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total += d
}

type stopwatchKey struct{}

// WithStopwatch has the waits of a call added up in s.
func WithStopwatch(ctx context.Context, s *Stopwatch) context.Context {
	return context.WithValue(ctx, stopwatchKey{}, s)
}

// Outside tells the stopwatch of the call that it waits for something outside
// this process from now on, until the returned function is called.
func Outside(ctx context.Context) (end func()) {
	s, ok := ctx.Value(stopwatchKey{}).(*Stopwatch)
	if !ok {
		return func() {}
	}
	s.start()
	return s.stop
}

// disk is Outside for a synced write.
func (m *Manager) disk(ctx context.Context) (end func()) {
	stop, start := Outside(ctx), time.Now()
	return func() {
		stop()
		m.metrics.Waits.WithLabelValues(ForDisk).Observe(time.Since(start).Seconds())
	}
}
