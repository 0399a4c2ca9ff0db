//go:build linux && chaos

package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// dockerd is killed in the middle of 50 starts.
func TestChaosDockerd(t *testing.T) {
	s := newStorm(t, service, own, "--restart", "always")
	crowd := people(50)
	base := s.endpoints()
	kill := func() {
		s.all(crowd, s.start, func(left func() int) {
			if !s.when(func(n int) bool { return n >= base+15 }, left) {
				s.t.Error("all had started before dockerd was killed")
			}
			s.must(s.KillDocker(s.ctx()))
			s.startDocker()
			s.driverAnswers()
		})
	}
	s.restarted("dockerd killed in the middle of 50 starts", func() { kill(); s.present(crowd, s.notRunning(crowd)) })
	s.gone(crowd)
	s.restarted("dockerd restarted with --live-restore", func() {
		s.must(s.StopDocker(s.ctx()))
		s.startDocker("--live-restore")
		s.driverAnswers()
	})
	s.survives("dockerd killed in the middle of 50 starts, live-restore", func() { kill(); s.present(crowd, s.notRunning(crowd)) })
	s.gone(crowd)
	s.end()
}

// notRunning are those of the crowd that do not run. Which of the containers that
// dockerd was starting when it died it takes up again is its matter: some run
// whose command failed.
func (s *storm) notRunning(crowd []string) (not []string) {
	s.t.Helper()
	runs := strings.Fields(s.docker("ps", "--format", "{{.Names}}"))
	for _, name := range crowd {
		if !slices.Contains(runs, name) {
			not = append(not, name)
		}
	}
	s.t.Logf("%d of %d do not run", len(not), len(crowd))
	return not
}

// All containers of a crowd end at once, or lose their network at once.
func TestChaosContainers(t *testing.T) {
	s := newStorm(t, service, own)
	crowd := people(50)
	s.present(crowd, crowd)
	s.initsKilled(crowd, false)
	s.disconnectedAtOnce(crowd)
	s.gone(crowd)
	s.args = []string{"--restart", "always"}
	s.present(crowd, crowd)
	s.initsKilled(crowd, true)
	s.gone(crowd)
	s.end()
}

// initsKilled kills the first process of each container at once. Those that
// Docker does not start again are started.
func (s *storm) initsKilled(crowd []string, always bool) {
	s.t.Helper()
	pidsOf := func() map[string]string {
		pids := map[string]string{}
		out := s.docker(append([]string{"inspect", "-f", "{{.Name}} {{.State.Pid}}"}, crowd...)...)
		for line := range strings.Lines(out) {
			name, pid, _ := strings.Cut(strings.TrimSpace(line), " ")
			pids[strings.TrimPrefix(name, "/")] = pid
		}
		return pids
	}
	fault := "the inits of 50 containers killed"
	if always {
		fault += ", --restart always"
	}
	s.survives(fault, func() {
		old := pidsOf()
		kill := []string{"kill", "-9"}
		for _, pid := range old {
			kill = append(kill, pid)
		}
		s.run(kill...)
		s.within(patience, "all have ended, and run again if they are to", func() error {
			for name, pid := range pidsOf() {
				if pid == old[name] || always == (pid == "0") {
					return fmt.Errorf("%s has process %s", name, pid)
				}
			}
			return nil
		})
		if !always {
			if failed := s.all(crowd, func(name string) []string { return []string{"start", name} }, nil); len(failed) > 0 {
				s.t.Errorf("%s do not start again", failed)
			}
		}
	})
	s.reach(crowd)
}

// disconnectedAtOnce takes all off their networks by force, and connects them
// again.
func (s *storm) disconnectedAtOnce(crowd []string) {
	s.t.Helper()
	s.survives("50 disconnect -f at once", func() {
		failed := s.all(crowd, func(name string) []string { return []string{"network", "disconnect", "-f", homeOf(name), name} }, nil)
		if len(failed) > 0 {
			s.t.Errorf("%s are not disconnected", failed)
		}
		for _, name := range crowd {
			delete(s.residents, name)
		}
	})
	failed := s.all(crowd, func(name string) []string { return []string{"network", "connect", homeOf(name), name} }, nil)
	if len(failed) > 0 {
		s.t.Errorf("%s are not connected again", failed)
	}
	for _, name := range crowd {
		s.residents[name] = homeOf(name)
	}
	s.reach(crowd)
}
