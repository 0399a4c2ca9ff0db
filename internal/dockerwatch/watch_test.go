package dockerwatch

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

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
		"no id": `[` + item + `,{"Name":"red"}]`, "huge": `[{"Name":"` + strings.Repeat("x", 5000) + `","Id":"1"}]`,
	} {
		t.Run(name, func(t *testing.T) {
			play(t, false, func(t *testing.T, s *scene) {
				s.engine.maxBody = 4096
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
