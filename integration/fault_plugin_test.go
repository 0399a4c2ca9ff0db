//go:build linux

package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// The driver is killed, stopped and replaced while containers talk: they do not
// notice.
func TestFaultsDriver(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		if (k.form == plugin) != (k.on == newer) {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, k.form, k.on)
			s := newScene(t, h)
			s.survives("driver killed", func() {
				h.killDriver()
				if h.form == service {
					h.diagnoses("the daemon is not running", "systemctl restart ovs-container-network")
					h.startDriver()
				}
				h.driverAnswers()
			})
			s.killedAmongStarts()
			s.killedAmongStops()
			s.survives("two drivers at once", s.second)
			if h.form == service {
				s.stoppedMeanwhile()
			}
			s.upgrade()
			s.leave()
			h.expectClean()
		})
	}
}

// crowdOf are the names of n more containers.
func crowdOf(n int) (crowd []string) {
	for i := range n {
		crowd = append(crowd, fmt.Sprintf("x%d", i))
	}
	return crowd
}

func (s *scene) killedAmongStarts() {
	s.t.Helper()
	crowd := crowdOf(6)
	start := func(name string) []string { return []string{"run", "-d", "--name", name, "--network", "shop", "lab"} }
	s.survives("driver killed in the middle of 6 starts", func() {
		failed := s.atOnce(crowd, start, func(left func() int) {
			s.eventually("some of them are there", func() error {
				if n := s.endpoints(); n < 4+2 {
					return fmt.Errorf("%d endpoints", n)
				}
				return nil
			})
			s.crash(left)
		})
		s.t.Logf("%d of 6 starts failed", len(failed))
		for _, name := range failed {
			s.docker("rm", "-f", name)
			s.docker(start(name)...)
		}
		for _, name := range crowd {
			s.residents[name] = "shop"
			s.ping(name, "b1")
		}
	})
}

func (s *scene) killedAmongStops() {
	s.t.Helper()
	crowd := crowdOf(6)
	remove := func(name string) []string { return []string{"rm", "-f", name} }
	s.survives("driver killed in the middle of 6 stops", func() {
		failed := s.atOnce(crowd, remove, func(left func() int) {
			// They are quick: it is looked more often than eventually does.
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for s.endpoints() > 4+5 && left() > 0 {
				<-tick.C
			}
			s.crash(left)
		})
		s.t.Logf("%d of 6 stops failed", len(failed))
		for _, name := range failed {
			s.docker(remove(name)...)
		}
		for _, name := range crowd {
			delete(s.residents, name)
		}
	})
}

// second starts another daemon, which refuses, and the first does not notice.
func (s *scene) second() {
	s.t.Helper()
	started := s.status().Started
	s.refuses()
	if again := s.status().Started; !again.Equal(started) {
		s.t.Errorf("the daemon was started at %s, want %s", again, started)
	}
}

// stoppedMeanwhile removes containers and a network while the driver is away.
func (s *scene) stoppedMeanwhile() {
	s.t.Helper()
	s.network("idle", "--subnet", "10.3.0.0/24", "--opt", "bridge=br-idle", "--ipam-driver", "ovs-container-network")
	gone := []string{"x0", "x1"}
	s.container("x0", "web")
	s.container("x1", "shop")
	s.survives("containers and a network removed while the driver was away", func() {
		s.stopDriver()
		// At once: dockerd tries for half a minute to tell the driver of each.
		s.atOnce(append(gone, "idle"), func(name string) []string {
			if name == "idle" {
				return []string{"network", "rm", name}
			}
			return []string{"rm", "-f", name}
		}, nil)
		s.startDriver()
	})
}

func (s *scene) upgrade() {
	s.t.Helper()
	s.survives("driver replaced by a newer build", func() {
		if s.form == plugin {
			s.docker("plugin", "create", nextTag, nextDir)
			s.docker("plugin", "disable", "-f", pluginTag)
			s.docker("plugin", "enable", nextTag)
			s.docker("plugin", "rm", pluginTag)
		} else {
			const binary = "/usr/local/bin/ovs-container-network"
			s.run("install", "-m", "755", nextDir+"/rootfs/ovs-container-network", binary)
			s.stopDriver()
			s.startService(binary)
		}
		s.driverAnswers()
		if got := s.status().Version; got != "0.0.2" {
			s.t.Errorf("version %s is running, want 0.0.2", got)
		}
	})
}

// The driver starts before what it needs.
func TestFaultsOrder(t *testing.T) {
	t.Parallel()
	h := newHost(t, service, own)
	h.must(h.StopDocker(h.ctx()))
	h.startDocker("--live-restore")
	s := newScene(t, h)
	s.survives("driver started before dockerd", func() {
		h.stopDriver()
		h.must(h.StopDocker(h.ctx()))
		h.startDriver()
		h.startDocker()
	})
	s.survives("driver started before Open vSwitch", func() {
		h.stopDriver()
		h.must(h.StopOVS(h.ctx()))
		h.startDriver()
		h.diagnoses("ovsdb-server is not reached", "db.sock", "systemctl restart openvswitch-switch")
		run := background(func() error {
			_, err := h.Run(h.ctx(), "docker", "run", "-d", "--name", "x0", "--network", "web", "lab")
			return err
		})
		h.eventually("the driver is asked for the container", func() error {
			_, err := h.Shell(h.ctx(), "docker ps -a --format '{{.Names}}' | grep -qx x0")
			return err
		})
		h.must(h.StartOVS(h.ctx()))
		h.must(<-run)
		h.ping("x0", "a1")
		h.docker("rm", "-f", "x0")
	})
	s.leave()
	h.expectClean()
}

// refused runs a docker command that must fail with a reason, and what it left
// is removed.
func (s *scene) refused(reason string, args ...string) {
	s.t.Helper()
	if out := s.dockerFails(args...); !strings.Contains(out, reason) {
		s.t.Errorf("docker %s is told %s, want %q", strings.Join(args, " "), out, reason)
	}
	if args[0] == "run" {
		s.docker("rm", "-f", args[3])
	}
}
