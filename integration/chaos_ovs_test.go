//go:build linux && chaos

package integration

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Open vSwitch is away for a minute while calls arrive, and loses its database
// under a crowd.
func TestChaosOVS(t *testing.T) {
	s := newStorm(t, service, own)
	crowd := people(50)
	s.present(crowd, crowd)
	s.minutesAway()
	removed := slices.DeleteFunc(slices.Clone(crowd), func(name string) bool { return s.residents[name] != "" })
	s.present(removed, removed)
	s.survives("database wiped, 54 containers", func() { s.must(s.WipeOVSDB(s.ctx())) })
	s.reach(crowd)
	s.survives("database wiped twice and ovs-vswitchd killed, 54 containers", func() {
		s.must(s.WipeOVSDB(s.ctx()))
		s.after(time.Second, nil)
		s.must(s.KillVswitchd(s.ctx(), syscall.SIGKILL))
		s.must(s.WipeOVSDB(s.ctx()))
		s.must(s.StartVswitchd(s.ctx()))
	})
	s.reach(crowd)
	s.gone(crowd)
	s.end()
}

// minutesAway stops and ends each of the two daemons for a minute.
func (s *storm) minutesAway() {
	s.t.Helper()
	s.survives("ovs-vswitchd stopped for a minute, 30 calls", func() {
		s.must(s.KillVswitchd(s.ctx(), syscall.SIGSTOP))
		s.callsFor(time.Minute, "ovs-vswitchd", "x1")
		s.must(s.KillVswitchd(s.ctx(), syscall.SIGCONT))
	})
	s.survives("ovs-vswitchd dead for a minute, 30 calls", func() {
		s.must(s.KillVswitchd(s.ctx(), syscall.SIGKILL))
		s.callsFor(time.Minute, "ovs-vswitchd", "x2")
		s.must(s.StartVswitchd(s.ctx()))
	})
	s.survives("ovsdb-server dead for a minute, 30 calls", func() {
		s.must(s.KillOVSDB(s.ctx()))
		s.callsFor(time.Minute, "cannot reach database", "x3")
		s.must(s.StartOVSDB(s.ctx()))
	})
	s.survives("ovsdb-server stopped for a minute, 30 calls", func() {
		s.sh("kill -STOP $(cat /run/openvswitch/ovsdb-server.pid)")
		s.callsFor(time.Minute, "does not answer|transaction with|cannot reach database", "x4")
		s.sh("kill -CONT $(cat /run/openvswitch/ovsdb-server.pid)")
	})
}

// call is a docker command that arrives while something is away.
type call struct {
	name, cause string
	args        []string
	removes     bool
}

// calls are 30 of them. Those that make something must fail because of cause (one
// of several, told apart by |). Six remove containers, whose names begin with
// victims.
func (s *storm) calls(cause, victims string) (all []call) {
	for i := range 30 {
		c := call{name: fmt.Sprintf("w%d", i), cause: cause}
		switch i % 5 {
		case 1:
			c.args = []string{"network", "create", "-d", "ovs-container-network",
				"--subnet", fmt.Sprintf("10.70.%d.0/24", i), "--opt", "bridge=br-" + c.name, c.name}
		case 3:
			c.name, c.removes = fmt.Sprintf("%s%d", victims, i/5), true
			c.args = remove(c.name)
		default:
			c.args = s.start(c.name)
		}
		all = append(all, c)
	}
	return all
}

// callsFor has 30 calls arrive evenly in a time. Each ends soon, in the way it
// must.
func (s *storm) callsFor(during time.Duration, cause, victims string) {
	s.t.Helper()
	calls := s.calls(cause, victims)
	answers := make([]chan answer, len(calls))
	for i, c := range calls {
		answers[i] = make(chan answer, 1)
		go func() { answers[i] <- s.ask(c.name, c.args) }()
		s.after(during/time.Duration(len(calls)), nil)
	}
	var longest time.Duration
	var made []string
	for i, c := range calls {
		a := <-answers[i]
		longest = max(longest, a.took)
		if err := c.judge(a); err != nil {
			s.t.Error(err)
		}
		if c.removes {
			delete(s.residents, c.name)
		} else {
			made = append(made, c.name)
		}
	}
	s.t.Logf("the longest of %d calls took %.1f s", len(calls), longest.Seconds())
	s.all(made, remove, nil) // of networks there is nothing to remove
	for name := range strings.Lines(s.docker("network", "ls", "--format", "{{.Name}}")) {
		if name = strings.TrimSpace(name); slices.Contains(made, name) {
			s.t.Errorf("network %s was refused and is there", name)
		}
	}
}

// judge tells what is wrong with an answer.
func (c call) judge(a answer) error {
	const soon = 30 * time.Second
	named := slices.ContainsFunc(strings.Split(c.cause, "|"), func(word string) bool { return strings.Contains(a.out, word) })
	switch {
	case a.took > soon:
		return fmt.Errorf("docker %s took %s: %s", strings.Join(c.args, " "), a.took, a.out)
	case c.removes && a.err != nil:
		return fmt.Errorf("docker %s fails: %s", strings.Join(c.args, " "), a.out)
	case !c.removes && (a.err == nil || !named):
		return fmt.Errorf("docker %s must fail because of %s, but: %v %s", strings.Join(c.args, " "), c.cause, a.err, a.out)
	}
	return nil
}
