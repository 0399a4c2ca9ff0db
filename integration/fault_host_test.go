//go:build linux

package integration

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// After power cuts everything is started in orders that a boot may take, and the
// containers are back by themselves.
func TestPowerCuts(t *testing.T) {
	t.Parallel()
	h := newHost(t, service, own)
	s := newScene(t, h, "--restart", "always")
	startOVS := func() { h.must(h.StartOVS(h.ctx())) }
	for _, order := range []struct {
		name string
		does func()
	}{
		{"Open vSwitch, Docker, driver", func() {
			h.must(h.StartOVSDB(h.ctx()))
			h.oldRows()
			startOVS()
			docker := background(func() error { return h.StartDocker(h.ctx()) })
			h.after(3*time.Second, docker)
			h.startDriver()
			h.must(<-docker)
		}},
		{"driver, Docker, Open vSwitch", func() {
			h.startDriver()
			docker := background(func() error { return h.StartDocker(h.ctx()) })
			h.after(5*time.Second, nil) // Docker's API may answer before
			startOVS()
			h.must(<-docker)
		}},
		{"Docker, driver, Open vSwitch", func() {
			docker := background(func() error { return h.StartDocker(h.ctx()) })
			h.after(3*time.Second, docker)
			h.startDriver()
			h.after(3*time.Second, nil)
			startOVS()
			h.must(<-docker)
		}},
		{"Docker, Open vSwitch, driver", func() {
			docker := background(func() error { return h.StartDocker(h.ctx()) })
			h.after(time.Second, docker)
			startOVS()
			h.after(time.Second, docker)
			h.startDriver()
			h.must(<-docker)
		}},
	} {
		s.restarted("power cut; "+order.name, func() {
			h.must(h.Kill())
			h.must(h.Boot(h.ctx()))
			order.does()
		})
	}
	s.leave()
	h.expectClean()
}

// oldRows checks that Open vSwitch remembers the ports whose links a power cut
// has taken: without them its scenario would prove less.
func (h *host) oldRows() {
	h.t.Helper()
	rows, err := h.ports()
	h.must(err)
	if links := h.sh("ip -o link"); len(rows) != 4 || strings.Contains(links, "ocn") {
		h.t.Fatalf("after the boot there are the rows %v and the links\n%s", rows, links)
	}
}

// linkLost takes the host's end of a container's link down and away.
func (s *scene) linkLost() {
	s.t.Helper()
	s.survives("link set down", func() { s.run("ip", "link", "set", s.portOf("a2", "web"), "down") })
	port := s.portOf("a2", "web")
	s.restarted("link deleted", func() {
		s.run("ip", "link", "del", port)
		s.eventually("status names the container", func() error {
			for _, n := range s.status().Networks {
				for _, e := range n.Ends {
					if e.Container == "a2" && n.Health == "degraded" && strings.Contains(e.Reason, "restart the container") {
						return nil
					}
				}
			}
			return errors.New(s.run(buildDir+"/ovs-container-network", "status"))
		})
		s.diagnoses("a2", "docker restart a2")
		s.docker("restart", "a2")
	})
}
