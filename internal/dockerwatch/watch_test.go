package dockerwatch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
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

func TestStormIsOneLook(t *testing.T) {
	play(t, true, func(t *testing.T, s *scene) {
		var want strings.Builder
		for i := range 100 {
			fmt.Fprintf(&want, " c%03d", i)
			s.Run(fmt.Sprintf("c%03d", i), "blue")
			after(time.Millisecond)
		}
		after(debounce)
		s.learned(t, "blue:"+want.String())
		s.count(t, "inspect", 1, 1)
	})
}

// Containers that never stop starting do not put the look off.
func TestSteadyStream(t *testing.T) {
	play(t, true, func(t *testing.T, s *scene) {
		for i := range 100 {
			s.Run(fmt.Sprint(i), "blue")
			after(debounce / 3)
		}
		s.count(t, "inspect", 20, 35)
	})
}

func TestSlowEngineIsSpared(t *testing.T) {
	play(t, true, func(t *testing.T, s *scene) {
		s.set(func() {
			s.spoil = func(http.ResponseWriter, string) bool { <-time.After(200 * time.Millisecond); return false }
		})
		for i := range 600 {
			s.Run(fmt.Sprint(i), "blue")
			after(100 * time.Millisecond)
		}
		s.count(t, "inspect", 20, 32) // in one minute, a tenth of it
	})
}

func TestUnfinishedJoin(t *testing.T) {
	play(t, true, func(t *testing.T, s *scene) {
		eid := s.begin("web", "blue")
		s.Run("db", "blue")
		after(debounce)
		s.learned(t, "blue: db")
		// Joined, and the event is lost.
		s.set(func() { _, n := s.findLocked("blue"); n.eps[eid].joined = true })
		after(unfinished)
		s.learned(t, "blue: db web")
		s.requests("inspect")

		s.begin("never", "blue")
		s.Run("last", "blue")
		after(time.Minute)
		s.learned(t, "blue: db last web")
		s.count(t, "inspect", 2, 2)
	})
}

func TestBootIsWaitedOut(t *testing.T) {
	play(t, false, func(t *testing.T, s *scene) {
		up := make(chan struct{})
		s.set(func() { s.booted = up })
		s.start(t)
		after(5 * time.Minute)
		s.learned(t, "")
		s.Run("web", "blue")
		close(up)
		after(2 * time.Second)
		s.learned(t, "blue: web")
		s.stop()
		if n := strings.Count(s.log.String(), "\n"); n != 1 {
			t.Errorf("log has %d lines, want one:\n%s", n, &s.log)
		}
	})
}

func TestStreamBreaks(t *testing.T) {
	play(t, true, func(t *testing.T, s *scene) {
		for i := range 5 {
			s.breakStreams()
			s.Run(fmt.Sprint(i), "blue")
			after(maxBackoff)
		}
		s.learned(t, "blue: 0 1 2 3 4")
		if n := s.listings(); n != 6 {
			t.Errorf("%d listings, want 6", n)
		}
	})
}

func TestOutage(t *testing.T) {
	play(t, true, func(t *testing.T, s *scene) {
		set := func(down bool) { s.mem.mu.Lock(); s.mem.down = down; s.mem.mu.Unlock() }
		after(time.Hour)
		set(true)
		s.breakStreams()
		after(time.Hour)
		s.Run("web", "blue")
		set(false)
		after(maxBackoff)
		s.learned(t, "blue: web")
		// A success resets the backoff.
		after(time.Minute)
		s.breakStreams()
		s.Run("db", "blue")
		after(minBackoff)
		s.learned(t, "blue: db web")
		s.stop()
		if n := strings.Count(s.log.String(), "\n"); n != 5 {
			t.Errorf("log has %d lines, want connected, lost, connected, lost, connected:\n%s", n, &s.log)
		}
	})
}

func TestSilence(t *testing.T) {
	play(t, true, func(t *testing.T, s *scene) {
		s.requests("ping")
		s.requests("events")
		after(time.Hour + time.Second)
		s.count(t, "list", 12, 12)
		s.count(t, "inspect", 12, 12)
		s.count(t, "ping", 0, 0)
		s.count(t, "events", 0, 0)
	})
}

func TestOnlyOursAreInspected(t *testing.T) {
	play(t, true, func(t *testing.T, s *scene) {
		s.set(func() {
			for id := range s.old {
				s.emitLocked("network", "connect", string(id), nil)
			}
			s.emitLocked("network", "connect", "", nil)
		})
		after(time.Minute)
		s.count(t, "inspect", 0, 0)
	})
}

func TestSwarmNetworkElsewhere(t *testing.T) {
	play(t, true, func(t *testing.T, s *scene) {
		s.CreateNetwork("far")
		s.set(func() { _, n := s.findLocked("far"); n.away = true })
		after(ListEvery)
		s.learned(t, "blue:\nfar:")
		if n := s.listings(); n != 2 {
			t.Errorf("%d listings, want 2: a network that is elsewhere must not end the session", n)
		}
	})
}

func TestInspectFails(t *testing.T) {
	for name, hang := range map[string]time.Duration{"at once": 0, "by silence": deadline + 2*time.Second} {
		t.Run(name, func(t *testing.T) {
			play(t, true, func(t *testing.T, s *scene) {
				s.CreateNetwork("red")
				after(time.Second)
				s.set(func() {
					s.spoil = func(w http.ResponseWriter, kind string) bool {
						if kind == "inspect" {
							<-time.After(hang)
							refuse(w, http.StatusInternalServerError, "database is locked")
						}
						return kind == "inspect"
					}
				})
				s.Run("web", "blue")
				s.Run("db", "red")
				after(deadline + time.Second)
				s.set(func() { s.spoil = nil })
				after(failed + debounce)
				s.learned(t, "blue: web\nred: db")
				if n := s.listings(); n != 1 {
					t.Errorf("%d listings, want 1: the session lives on", n)
				}
			})
		})
	}
}

func TestIncompleteListing(t *testing.T) {
	item := `{"Name":"blue","Id":"1"}`
	for name, body := range map[string]string{
		"empty": ``, "none": `[]`, "null": `null`, "object": item, "cut": `[` + item, "cut in item": `[` + item + `,{"Na`,
		"no id": `[` + item + `,{"Name":"red"}]`, "huge": `[{"Name":"` + strings.Repeat("x", maxBody) + `","Id":"1"}]`,
	} {
		t.Run(name, func(t *testing.T) {
			play(t, false, func(t *testing.T, s *scene) {
				s.spoil = func(w http.ResponseWriter, kind string) bool {
					if kind == "list" {
						fmt.Fprint(w, body)
					}
					return kind == "list"
				}
				s.start(t)
				after(20 * time.Second)
				if n := s.listings(); n != 0 {
					t.Errorf("a listing of %.40s was believed", body)
				}
				s.set(func() { s.spoil = nil })
				after(maxBackoff)
				s.learned(t, "blue:")
			})
		})
	}
}

func TestVersions(t *testing.T) {
	for _, v := range []struct{ oldest, newest string }{{"1.12", "1.24"}, {"1.12", "1.41"}, {"1.44", "1.52"}, {"1.12", ""}, {"1.12", "../1"}} {
		play(t, false, func(t *testing.T, s *scene) {
			s.oldest, s.newest = v.oldest, v.newest
			if older(v.newest, minAPI) { // names no version, and speaks all
				s.spoil = func(w http.ResponseWriter, kind string) bool { s.newest = "1.30"; return false }
			}
			s.start(t)
			after(10 * time.Second)
			s.learned(t, "blue:")
		})
	}
}

// A sink that cannot store is told again and ends nothing.
func TestSinkFails(t *testing.T) {
	play(t, true, func(t *testing.T, s *scene) {
		s.recorder.mu.Lock()
		s.err = errors.New("disk full")
		s.recorder.mu.Unlock()
		after(2*ListEvery + time.Second)
		if n := s.listings(); n != 3 {
			t.Errorf("%d listings, want 3", n)
		}
	})
}

func TestSocketAppears(t *testing.T) {
	play(t, false, func(t *testing.T, s *scene) {
		s.engine.socket = filepath.Join(t.TempDir(), "docker.sock")
		s.start(t)
		after(time.Hour)
		s.learned(t, "")
		if err := os.WriteFile(s.engine.socket, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		after(absentEvery)
		s.learned(t, "blue:")
	})
}

// TestRestart is an engine that goes and comes back with its socket.
func TestRestart(t *testing.T) {
	f := newFakeEngine(t)
	socket := filepath.Join(t.TempDir(), "docker.sock")
	serve := func() func() {
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		return f.serve(l)
	}
	stop := serve()
	restart := func(d docker) { stop(); d.Run("web", "blue"); stop = serve() }
	show(t, f, "unix://"+socket, func(d docker) { d.CreateNetwork("blue") }, restart, "blue: web")
	stop()
}

func TestHosts(t *testing.T) {
	for host, ok := range map[string]bool{
		"unix:///run/docker.sock": true, "tcp://127.0.0.1:2375": true, "tcp://[::1]:2375/": true,
		"": false, "/run/docker.sock": false, "unix://": false, "tcp://127.0.0.1": false, "ssh://me@there": false,
	} {
		if _, err := newEngine(host); (err == nil) != ok {
			t.Errorf("host %q: %v", host, err)
		}
	}
}

func FuzzEvents(f *testing.F) {
	f.Add([]byte(`{"Type":"network","Action":"connect","Actor":{"ID":"n1","Attributes":{"container":"c1"}},"timeNano":1}` + "\n"))
	f.Add([]byte(`{"Type":"container","Action":"rename","Actor":{"ID":"c1"}}` + "\n\n{}\n"))
	f.Add([]byte(`{"Type":"network","Action":7}`))
	f.Fuzz(func(t *testing.T, stream []byte) {
		in := newInbox()
		if readEvents(bytes.NewReader(stream), in) == nil {
			t.Error("a stream ended without an error")
		}
		ids, all := in.take()
		if _, ok := ids[""]; ok || len(ids) > maxInbox {
			t.Errorf("%d networks to look at, one without id: %v", len(ids), ok)
		}
		if woken := len(in.wake) == 1; woken != (all || len(ids) > 0) {
			t.Errorf("woken %v for %d networks, all %v", woken, len(ids), all)
		}
	})
}

func TestInboxIsBounded(t *testing.T) {
	in := newInbox()
	for i := range 2*maxInbox + 1 {
		e := event{Type: "network", Action: "create"}
		e.Actor.ID = fmt.Sprint(i)
		in.put(e)
	}
	ids, all := in.take()
	if len(ids) > maxInbox || !all {
		t.Errorf("%d networks, all %v", len(ids), all)
	}
	if _, ok := ids[network.ID(fmt.Sprint(2*maxInbox))]; !ok {
		t.Error("the newest network is lost")
	}
}
