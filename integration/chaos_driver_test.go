//go:build linux && chaos

package integration

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// The driver dies again and again in the middle of storms, and is away for
// minutes.
func TestChaosDriver(t *testing.T) {
	s := newStorm(t, service, own)
	crowd := people(50)
	s.killedAmong50(crowd)
	s.flaps(people(30))
	s.awayForMinutes()
	s.end()
}

// The engine runs the driver, and starts it when it has died.
func TestChaosPlugin(t *testing.T) {
	s := newStorm(t, plugin, own)
	crowd := people(50)
	s.killedAmong50(crowd)
	s.present(crowd, crowd)
	s.survives("database wiped, 54 containers", func() { s.must(s.WipeOVSDB(s.ctx())) })
	s.reach(crowd)
	s.initsKilled(crowd, false)
	s.gone(crowd)
	s.end()
}

// killedAmong50 kills the driver three times in the middle of 50 starts, and of
// 50 stops.
func (s *storm) killedAmong50(crowd []string) {
	s.t.Helper()
	base := s.endpoints()
	strike := func(left func() int, at []int, sign int) {
		for _, n := range at {
			if s.when(func(endpoints int) bool { return sign*(endpoints-base) >= sign*n }, left) {
				s.killDriver()
				s.driverBack()
			}
		}
	}
	s.survives("driver killed 3 times in the middle of 50 starts", func() {
		failed := s.all(crowd, s.start, func(left func() int) { strike(left, []int{4, 16, 32}, 1) })
		s.present(crowd, failed)
	})
	s.survives("driver killed 3 times in the middle of 50 stops", func() {
		failed := s.all(crowd, remove, func(left func() int) { strike(left, []int{45, 30, 15}, -1) })
		s.gone(failed)
		for _, name := range crowd {
			delete(s.residents, name)
		}
	})
}

// flaps kills the driver every two seconds for a minute, while others start and
// stop containers.
func (s *storm) flaps(crowd []string) {
	s.t.Helper()
	s.survives("driver killed every 2 s for a minute during starts and stops of 30", func() {
		var wg sync.WaitGroup
		stop := make(chan struct{})
		answers := make(chan answer, 10000)
		for _, name := range crowd {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					answers <- s.ask(name, s.start(name))
					answers <- s.ask(name, remove(name))
				}
			})
		}
		deaths := 0
		for begun := time.Now(); time.Since(begun) < time.Minute; deaths++ {
			s.after(2*time.Second, nil)
			s.killDriver()
			s.driverBack()
		}
		close(stop)
		wg.Wait()
		s.sumUp(fmt.Sprintf("%d deaths", deaths), answers)
		s.gone(crowd)
	})
}

// driverBack has a driver run again that was killed. An engine starts its plugin
// by itself, but gives up one that dies within half a second of that.
func (s *storm) driverBack() {
	if s.form == plugin {
		s.driverAnswers()
		s.after(2*time.Second, nil)
		return
	}
	s.startDriver()
}

// sumUp tells how commands ended, and fails if one did not.
func (s *storm) sumUp(what string, answers chan answer) {
	s.t.Helper()
	done, failed := 0, 0
	var longest time.Duration
	for len(answers) > 0 {
		a := <-answers
		longest = max(longest, a.took)
		switch {
		case a.err == nil:
			done++
		case strings.HasPrefix(a.out, "it hangs"):
			s.t.Errorf("%s: %s", a.name, a.out)
		default:
			failed++
		}
	}
	s.t.Logf("%s: %d commands succeeded, %d failed, the longest took %.1f s", what, done, failed, longest.Seconds())
}

// awayForMinutes stops the driver, and meanwhile containers end in every way and
// networks are removed.
func (s *storm) awayForMinutes() {
	s.t.Helper()
	crowd := people(20)
	s.present(crowd[:10], crowd[:10])
	s.args = []string{"--restart", "always"}
	s.present(crowd[10:], crowd[10:])
	s.args = nil
	s.network("idle1", "--subnet", "10.61.0.0/24", "--opt", "bridge=br-idle", "--ipam-driver", "ovs-container-network")
	s.network("idle2", "--subnet", "10.62.0.0/24")
	removed := []string{"x0", "x1", "x2", "x10", "x11", "x12", "idle1", "idle2"}
	crashed := []string{"x3", "x4", "x5", "x6", "x13", "x14", "x15", "x16"}
	s.survives("driver away for 3 minutes, containers and networks removed, 8 containers crash", func() {
		pids := s.docker(append([]string{"inspect", "-f", "{{.State.Pid}}"}, crashed...)...)
		s.stopDriver()
		begun := time.Now()
		s.run(append([]string{"kill", "-9"}, strings.Fields(pids)...)...)
		failed := s.all(removed, func(name string) []string {
			if strings.HasPrefix(name, "idle") {
				return []string{"network", "rm", name}
			}
			return remove(name)
		}, nil)
		s.after(max(0, 3*time.Minute-time.Since(begun)), nil)
		s.startDriver()
		if len(failed) > 0 {
			s.t.Errorf("without the driver the removal of %s fails", failed)
		}
		for _, name := range removed {
			delete(s.residents, name)
		}
		s.within(exactAgain, "what crashed starts again", func() error {
			_, err := s.Run(s.ctx(), append([]string{"docker", "start"}, crashed...)...)
			return err
		})
	})
	left := slices.DeleteFunc(crowd, func(name string) bool { return slices.Contains(removed, name) })
	s.reach(left)
	s.gone(left)
}
