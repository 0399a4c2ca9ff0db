package dockerwatch

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// memory is a network in memory, so that time can be synctest's.
type memory struct {
	conns chan net.Conn
	mu    sync.Mutex
	down  bool // nobody listens
}

func (m *memory) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	m.mu.Lock()
	down := m.down
	m.mu.Unlock()
	if down {
		return nil, errors.New("connection refused")
	}
	near, far := net.Pipe()
	select {
	case m.conns <- far:
		return near, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (m *memory) Accept() (net.Conn, error) {
	if c, ok := <-m.conns; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (m *memory) Close() error   { close(m.conns); return nil }
func (m *memory) Addr() net.Addr { return &net.UnixAddr{Name: "memory", Net: "unix"} }

// scene is a fake engine and a watcher in a bubble of time.
type scene struct {
	*fakeEngine
	*recorder
	mem    *memory
	log    bytes.Buffer // read after stop
	engine *engine
	stop   func()
}

// play runs f in a bubble with an engine that has the network "blue", already
// followed if now is true.
func play(t *testing.T, now bool, f func(t *testing.T, s *scene)) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeEngine(t)
		s := &scene{fakeEngine: fake, recorder: newRecorder(fake.Networks()), mem: &memory{conns: make(chan net.Conn)}}
		fake.CreateNetwork("blue")
		t.Cleanup(fake.serve(s.mem))
		s.engine, _ = newEngine("tcp://docker:2375")
		s.engine.transport.DialContext = s.mem.dial
		if now {
			s.start(t)
			after(time.Second) // events of the same moment are replayed
			s.learned(t, "blue:")
			s.requests("inspect")
			s.requests("list")
		}
		f(t, s)
	})
}

func (s *scene) start(t *testing.T) {
	w := newWatcher(Config{Sink: s.recorder, Ours: s.ours, Log: slog.New(slog.NewTextHandler(&s.log, nil))}, s.engine)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.run(ctx) }()
	s.stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(s.stop)
}

func (s *scene) learned(t *testing.T, want string) {
	t.Helper()
	if got := s.String(); got != want {
		t.Errorf("learned:\n%s\nwant:\n%s", got, want)
	}
}

func (s *scene) count(t *testing.T, kind string, least, most int) {
	t.Helper()
	if n := s.requests(kind); n < least || n > most {
		t.Errorf("%d requests to %s, want %d to %d", n, kind, least, most)
	}
}

// after lets time pass and what it set off come to rest.
func after(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}
