//go:build linux

package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Open vSwitch's daemons end, hang and lose their database, and what they hold
// is changed by hand.
func TestOVSFaults(t *testing.T) {
	oldAndNew(t, func(t *testing.T, h *host) {
		h.must(h.KillVswitchd(h.ctx(), syscall.SIGTERM))
		h.sh("ovs-vswitchd --monitor --pidfile --detach --log-file -vconsole:off -vsyslog:off")
		s := newScene(t, h)
		s.vswitchdEnds()
		s.ovsdbEnds()
		s.changedByHand()
		s.nameTaken()
		s.linkLost()
		s.leave()
		h.expectClean()
	})
}

// vswitchdEnds crashes ovs-vswitchd, whose monitor starts it again; kills it,
// which the monitor takes for a wish; and lets it hang.
func (s *scene) vswitchdEnds() {
	s.t.Helper()
	const pidFile = "/run/openvswitch/ovs-vswitchd.pid"
	s.survives("ovs-vswitchd SEGV", func() {
		old, err := os.ReadFile(s.Path(pidFile))
		s.must(err)
		s.must(s.KillVswitchd(s.ctx(), syscall.SIGSEGV))
		s.eventually("its monitor starts ovs-vswitchd", func() error {
			pid, err := os.ReadFile(s.Path(pidFile))
			if err == nil && string(pid) == string(old) {
				err = fmt.Errorf("its pid is %s still", pid)
			}
			return err
		})
	})
	s.survives("ovs-vswitchd KILL", func() {
		s.must(s.KillVswitchd(s.ctx(), syscall.SIGKILL))
		s.diagnoses("ovs-vswitchd", "not running", "systemctl restart openvswitch-switch")
		s.callsFail("ovs-vswitchd")
		s.must(s.StartVswitchd(s.ctx()))
	})
	s.survives("ovs-vswitchd hangs", func() {
		s.must(s.KillVswitchd(s.ctx(), syscall.SIGSTOP))
		s.callsFail("ovs-vswitchd")
		s.diagnoses("ovs-vswitchd", "not answer", "systemctl restart openvswitch-switch")
		s.must(s.KillVswitchd(s.ctx(), syscall.SIGCONT))
	})
}

// ovsdbEnds kills ovsdb-server, lets it hang, and empties its database.
func (s *scene) ovsdbEnds() {
	s.t.Helper()
	s.survives("ovsdb-server KILL", func() {
		s.must(s.KillOVSDB(s.ctx()))
		s.diagnoses("ovsdb-server", "connection refused", "systemctl restart openvswitch-switch")
		s.callsFail("cannot reach database")
		s.must(s.StartOVSDB(s.ctx()))
	})
	s.survives("ovsdb-server hangs", func() {
		s.sh("kill -STOP $(cat /run/openvswitch/ovsdb-server.pid)")
		s.callsFail("does not answer|transaction with")
		s.diagnoses("ovsdb-server", "not answer", "systemctl restart openvswitch-switch")
		s.sh("kill -CONT $(cat /run/openvswitch/ovsdb-server.pid)")
	})
	s.survives("database wiped", func() { s.must(s.WipeOVSDB(s.ctx())) })
}

// changedByHand removes what the driver made in Open vSwitch, bit by bit.
func (s *scene) changedByHand() {
	s.t.Helper()
	s.survives("bridge deleted", func() { s.ovs("del-br", "br-int") })
	s.survives("port deleted", func() { s.ovs("del-port", s.portOf("a2", "web")) })
}

// nameTaken gives a port of somebody else the name of one of ours.
func (s *scene) nameTaken() {
	s.t.Helper()
	port := s.portOf("a2", "web")
	s.survives("port name taken", func() {
		s.stopDriver()
		s.ovs("del-port", port)
		s.ovs("add-port", "br-int", port, "tag=7", "external_ids:owner=netops")
		theirs := func() string { return s.ovs("get", "Port", port, "_uuid", "tag", "external_ids") }
		before := theirs()
		s.startDriver()
		s.diagnoses(port, "ovs-vsctl del-port "+port)
		s.eventually("status names the port", func() error {
			for _, n := range s.status().Networks {
				for _, e := range n.Ends {
					if e.Container == "a2" && e.Health == "degraded" && strings.Contains(e.Reason, port) {
						return nil
					}
				}
			}
			return errors.New(s.run(buildDir+"/ovs-container-network", "status"))
		})
		if after := theirs(); after != before {
			s.t.Errorf("the port of somebody else was\n%s\nand is\n%s", before, after)
		}
		s.ovs("del-port", port)
	})
}

// callsFail has calls arrive together while something that all of them need is
// away: each fails with the cause (one of several, told apart by |) long before
// dockerd would lose patience, after 30 seconds. A container that ran can be
// removed all the same.
func (s *scene) callsFail(cause string) {
	s.t.Helper()
	calls := map[string][]string{
		"w1":  {"run", "-d", "--name", "w1", "--network", "web", "lab"},
		"w2":  {"run", "-d", "--name", "w2", "--network", "web", "lab"},
		"s1":  {"run", "-d", "--name", "s1", "--network", "shop", "lab"},
		"new": {"network", "create", "--driver", "ovs-container-network", "--subnet", "10.9.0.0/24", "--opt", "bridge=br-new", "new"},
	}
	type answer struct{ call, text string }
	answers := make(chan answer, len(calls))
	ctx, cancel := context.WithTimeout(s.ctx(), 20*time.Second)
	defer cancel()
	for call, args := range calls {
		go func() {
			out, err := s.Run(ctx, append([]string{"docker"}, args...)...)
			switch {
			case ctx.Err() != nil:
				out = "it hangs"
			case err == nil:
				out = "it succeeds"
			}
			answers <- answer{call, out}
		}()
	}
	for range calls {
		a := <-answers
		found := false
		for word := range strings.SplitSeq(cause, "|") {
			found = found || strings.Contains(a.text, word)
		}
		if !found {
			s.t.Errorf("docker %s must fail because of %s, but: %s", strings.Join(calls[a.call], " "), cause, a.text)
		}
	}
	s.docker("rm", "-f", "w1", "w2", "s1")
	if out := s.docker("network", "ls", "-q", "-f", "name=new"); out != "" {
		s.docker("network", "rm", "new")
		s.t.Error("a network that was refused is there")
	}
}
