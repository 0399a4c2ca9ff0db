//go:build linux

package integration

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// dockerd ends in every way, with and without --live-restore, with and without
// the driver, and containers are ended and disconnected by force.
func TestDockerFaults(t *testing.T) {
	oldAndNew(t, func(t *testing.T, h *host) {
		s := newScene(t, h, "--restart", "always")
		s.dockerdEnds("", s.restarted)
		s.containersEnd()
		s.disconnected()

		s.restarted("dockerd restarted with --live-restore", func() {
			h.must(h.StopDocker(h.ctx()))
			h.startDocker("--live-restore")
			h.driverAnswers()
		})
		s.dockerdEnds(", live-restore", s.survives)
		if h.form == service {
			s.dockerdAlone()
		}
		s.leave()
		h.expectClean()
	})
}

// dockerdEnds stops and kills dockerd. A managed plugin ends with it, unless it
// is killed or told to leave what runs alone.
func (s *scene) dockerdEnds(how string, check func(string, func())) {
	s.t.Helper()
	for _, end := range []struct {
		fault string
		does  func(context.Context) error
	}{
		{"dockerd TERM", s.StopDocker},
		{"dockerd KILL", s.KillDocker},
	} {
		check(end.fault+how, func() {
			s.must(end.does(s.ctx()))
			s.diagnoses("Docker is not reached", "systemctl restart docker")
			s.startDocker()
			s.driverAnswers()
		})
	}
}

// dockerdAlone restarts dockerd while there is no driver, which comes while
// dockerd looks for it, and after dockerd has given up.
func (s *scene) dockerdAlone() {
	s.t.Helper()
	s.survives("dockerd restarted without driver, live-restore", func() {
		s.stopDriver()
		s.must(s.StopDocker(s.ctx()))
		s.startDocker()
		s.startDriver()
	})
	s.restarted("dockerd restarted without driver", func() {
		s.must(s.StopDocker(s.ctx()))
		s.startDocker("--live-restore=false")
		s.must(s.StopDocker(s.ctx()))
		s.stopDriver()
		docker := background(func() error { return s.StartDocker(s.ctx(), s.dockerArgs...) })
		s.after(3*time.Second, docker)
		s.startDriver()
		s.must(<-docker)
	})
}

// containersEnd kills the first process of a container that Docker starts again
// and of one that stays ended.
func (s *scene) containersEnd() {
	s.t.Helper()
	s.restarted("init killed, --restart always", func() {
		pid := s.pid("a2")
		s.run("kill", "-9", pid)
		s.eventually("a2 runs again", func() error {
			out, err := s.Run(s.ctx(), "docker", "inspect", "-f", "{{.State.Running}} {{.State.Pid}}", "a2")
			if state := strings.Fields(out); err == nil && (state[0] != "true" || state[1] == pid) {
				err = fmt.Errorf("its state is %s", out)
			}
			return err
		})
	})
	s.container("xx", "web", "--ip", "10.1.0.99")
	s.survives("init killed, no restart policy", func() {
		s.run("kill", "-9", s.pid("xx"))
		s.eventually("xx has ended", func() error {
			if s.docker("inspect", "-f", "{{.State.Running}}", "xx") == "true" {
				return errors.New("it runs")
			}
			return nil
		})
	})
	s.docker("start", "xx")
	s.ping("xx", "a1")
	s.docker("rm", "-f", "xx")
}

func (h *host) pid(container string) string {
	h.t.Helper()
	return h.docker("inspect", "-f", "{{.State.Pid}}", container)
}

// disconnected takes a container off its network by force: when all is well, and
// when the driver cannot do what it is asked to.
func (s *scene) disconnected() {
	s.t.Helper()
	s.container("xx", "shop")
	disconnect := func() { s.docker("network", "disconnect", "-f", "shop", "xx") }
	for _, way := range []struct {
		how  string
		does func()
	}{
		{"", disconnect},
		{", no ovsdb-server", func() {
			s.must(s.KillOVSDB(s.ctx()))
			disconnect()
			s.must(s.StartOVSDB(s.ctx()))
		}},
		{", the driver can store nothing", func() { s.limited(3, disconnect) }},
	} {
		s.survives("disconnect -f"+way.how, way.does)
		s.docker("network", "connect", "shop", "xx")
		s.ping("xx", "b1")
	}
	s.docker("rm", "-f", "xx")
}
