//go:build linux && chaos

package integration

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// The power is cut in the middle of 30 starts, and everything is started in an
// order that a boot may take.
func TestChaosPower(t *testing.T) {
	s := newStorm(t, service, own, "--restart", "always")
	seed := uint64(time.Now().UnixNano()) % 1e6
	t.Logf("the orders are those of seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 3 {
		order := newBootOrder(rng)
		s.restarted(fmt.Sprintf("power cut in the middle of 30 starts; %s", order), func() {
			crowd := people(30)
			base := s.endpoints()
			s.all(crowd, s.start, func(left func() int) {
				if !s.when(func(n int) bool { return n >= base+8 }, left) {
					s.t.Error("all had started before the power was cut")
				}
				s.must(s.Kill())
			})
			s.must(s.Boot(s.ctx()))
			s.bootIn(order)
			s.present(crowd, s.notRunning(crowd))
			s.gone(crowd)
		})
	}
	s.end()
}

// bootOrder is what is started, and how long after the one before.
type bootOrder []struct {
	what  string
	pause time.Duration
}

func newBootOrder(rng *rand.Rand) bootOrder {
	order := make(bootOrder, 3)
	for i, j := range rng.Perm(3) {
		order[i].what = []string{"driver", "Docker", "Open vSwitch"}[j]
		order[i].pause = time.Duration(rng.IntN(3000)) * time.Millisecond
	}
	return order
}

func (o bootOrder) String() string {
	return fmt.Sprintf("%s, after %s %s, after %s %s", o[0].what, o[1].pause, o[1].what, o[2].pause, o[2].what)
}

func (s *storm) bootIn(order bootOrder) {
	s.t.Helper()
	var docker chan error
	for i, o := range order {
		if i > 0 {
			s.after(o.pause, nil)
		}
		switch o.what {
		case "driver":
			s.startDriver()
		case "Docker":
			docker = background(func() error { return s.StartDocker(s.ctx(), s.dockerArgs...) })
		default:
			s.must(s.StartOVS(s.ctx()))
		}
	}
	s.must(<-docker)
}
