package dockerapi

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// contentType is what the engine asks for (moby pkg/plugins).
const contentType = "application/vnd.docker.plugins.v1.2+json"

// callTimeout bounds every call. It stays below the 30 s after which dockerd
// gives up on a managed plugin, and above the longest wait for Open vSwitch at
// boot (24 s).
const callTimeout = 28 * time.Second

// maxBody bounds a request: the largest real ones list a container's ports.
const maxBody = 4 << 20

// Networks is what the network driver asks of the core.
type Networks interface {
	CreateNetwork(ctx context.Context, req network.CreateRequest) error
	DeleteNetwork(ctx context.Context, id network.ID) error
	CreateEndpoint(ctx context.Context, req network.EndpointRequest) (network.Endpoint, error)
	DeleteEndpoint(ctx context.Context, id network.ID, eid network.EndpointID) error
	Join(ctx context.Context, req network.JoinRequest) (network.Joined, error)
	Leave(ctx context.Context, id network.ID, eid network.EndpointID) error
}

// Server answers Docker. The zero value does not work: all fields are required but Metrics.
type Server struct {
	Networks Networks
	IPAM     Addresses
	Log      *slog.Logger
	// OtherLinks tells whether the sandbox at a path has an interface besides
	// the loopback. An error means that it cannot be seen.
	OtherLinks func(sandbox string) (bool, error)
	Metrics    *Metrics // nil: nobody looks at them
}

// Metrics is what is counted of Docker's calls.
type Metrics struct {
	Calls  *prometheus.HistogramVec // seconds, by call and result
	Own    *prometheus.HistogramVec // the same without the waits for what is outside the daemon
	Active prometheus.Gauge
}

// NewMetrics makes the metrics, of which nothing has been counted.
func NewMetrics() *Metrics {
	return &Metrics{
		Calls: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "ocn_call_seconds", Help: "Calls of Docker.", Buckets: network.Buckets(),
		}, []string{"call", "result"}),
		Own: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "ocn_call_own_seconds", Help: "Calls of Docker that succeeded, without the waits for ovsdb-server, ovs-vswitchd and the disk.", Buckets: network.Buckets(),
		}, []string{"call"}),
		Active: prometheus.NewGauge(prometheus.GaugeOpts{Name: "ocn_calls_active", Help: "Calls of Docker that are being answered."}),
	}
}

// count notes a call that has ended.
func (m *Metrics) count(call string, took, outside time.Duration, err error) {
	if err != nil {
		m.Calls.WithLabelValues(call, "error").Observe(took.Seconds())
		return
	}
	m.Calls.WithLabelValues(call, "ok").Observe(took.Seconds())
	m.Own.WithLabelValues(call).Observe(max(0, took-outside).Seconds())
}

// Handler returns the handler for both protocols.
func (s *Server) Handler() http.Handler {
	if s.Metrics == nil {
		s.Metrics = NewMetrics()
	}
	mux := http.NewServeMux()
	handle(s, mux, "Plugin.Activate", func(context.Context, empty) (any, error) {
		return map[string][]string{"Implements": {"NetworkDriver", "IpamDriver"}}, nil
	})
	s.networkDriver(mux)
	s.ipamDriver(mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		// The engine takes 404 as "not supported" for the calls it can do without.
		reply(w, http.StatusNotFound, map[string]string{"Err": "unknown call " + r.URL.Path})
	})
	return mux
}

// empty is the request of calls without an argument.
type empty struct{}

// handle registers one call: decode, answer, encode. A panic is answered as an
// error, so that one bad request cannot stop the daemon.
func handle[Req, Resp any](s *Server, mux *http.ServeMux, call string, answer func(context.Context, Req) (Resp, error)) {
	_, takesNothing := any(*new(Req)).(empty)
	mux.HandleFunc("POST /"+call, func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		id := requestID()
		log := s.Log.With("req", id, "call", call)
		var outside network.Stopwatch
		ctx, cancel := context.WithTimeout(network.WithStopwatch(r.Context(), &outside), callTimeout)
		defer cancel()
		s.Metrics.Active.Inc()
		defer s.Metrics.Active.Dec()
		var err error
		defer func() {
			if p := recover(); p != nil {
				log.Error("panic", "panic", p, "stack", string(debug.Stack()))
				err = errors.New("internal error")
			}
			if err != nil {
				log.Warn("call failed", "err", err, "took", time.Since(start))
				reply(w, http.StatusInternalServerError, map[string]string{"Err": fmt.Sprintf("%v (request %s)", err, id)})
			}
			s.Metrics.count(call, time.Since(start), outside.Total(), err)
		}()
		var req Req
		if !takesNothing {
			if err = decode(r, &req); err != nil {
				return
			}
		}
		var resp Resp
		if resp, err = answer(ctx, req); err != nil {
			return
		}
		log.Debug("call", "took", time.Since(start))
		reply(w, http.StatusOK, resp)
	})
}

func requestID() string {
	var raw [4]byte
	rand.Read(raw[:]) //nolint:errcheck // never fails (crypto/rand)
	return hex.EncodeToString(raw[:])
}

// decode reads the argument of a call. dockerd repeats a call that timed out
// with an empty body; that must not pass for a request about everything.
func decode(r *http.Request, into any) error {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	switch {
	case err != nil:
		return fmt.Errorf("cannot read the request: %w", err)
	case len(body) == 0:
		return errors.New("the driver ended or took too long in the middle of this call: run the command again (dockerd has repeated the call, with an empty request)")
	case len(body) > maxBody:
		return fmt.Errorf("the request has more than %d bytes", maxBody)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("cannot understand the request: %w", err)
	}
	return nil
}

func reply(w http.ResponseWriter, status int, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		status, text = http.StatusInternalServerError, []byte(`{"Err":"cannot encode the answer"}`)
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	w.Write(text) //nolint:errcheck // the caller is gone: nobody to tell
}

// checkID refuses what cannot be an id of Docker: it becomes a file name.
func checkID(what, id string) error {
	if id == "" {
		return fmt.Errorf("the request names no %s", what)
	}
	if len(id) > 128 || strings.Trim(id, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_") != "" {
		return fmt.Errorf("%q is no %s id", id, what)
	}
	return nil
}
