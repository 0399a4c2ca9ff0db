//go:build linux && chaos

package integration

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// patience is how long a docker command may take in a storm. dockerd itself
// tries for half a minute to reach a driver that is away, at each of the calls
// that a command needs.
const patience = 4 * time.Minute

// storm is a scene with room for a crowd.
type storm struct {
	*scene
	args []string // of the containers
}

// newStorm sets a scene on a host of one kind. Containers get further arguments.
func newStorm(t *testing.T, f form, on suite, args ...string) *storm {
	t.Helper()
	s := &storm{newScene(t, newHost(t, f, on), args...), args}
	s.network("crowd", "--subnet", "10.50.0.0/23", "--opt", "bridge=br-crowd", "--opt", "gateway_mode=none",
		"--ipam-driver", "ovs-container-network")
	return s
}

// people are the names of n containers. None may be the beginning of an id: docker
// takes it for one when there is no container of that name.
func people(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("x%d", i))
	}
	return names
}

// homeOf is the network of a container of the crowd: half of them have one of
// their own, the others live where the pairs talk.
func homeOf(name string) string {
	if name[len(name)-1]%2 == 0 {
		return "crowd"
	}
	return "shop"
}

func (s *storm) start(name string) []string {
	args := []string{"run", "-d", "--name", name, "--network", homeOf(name)}
	return append(append(args, s.args...), "lab")
}

func remove(name string) []string { return []string{"rm", "-f", name} }

// hexes are what makes one reason look like two.
var hexes = regexp.MustCompile(`[0-9a-f]{8,64}`)

// answer is how a docker command ended.
type answer struct {
	name, out string
	err       error
	took      time.Duration
}

// ask runs a docker command that may fail, but must end.
func (s *storm) ask(name string, args []string) answer {
	ctx, cancel := context.WithTimeout(s.ctx(), patience)
	defer cancel()
	begun := time.Now()
	out, err := s.Run(ctx, append([]string{"docker"}, args...)...)
	if ctx.Err() != nil {
		out = "it hangs: " + out
	}
	return answer{name, strings.TrimSpace(out), err, time.Since(begun)}
}

// all runs a docker command for each name in parallel and meanwhile something
// else, which can ask how many have not ended. It returns the names of those
// that failed.
func (s *storm) all(names []string, command func(name string) []string, meanwhile func(left func() int)) (failed []string) {
	s.t.Helper()
	answers := make(chan answer, len(names))
	for _, name := range names {
		go func() { answers <- s.ask(name, command(name)) }()
	}
	if meanwhile != nil {
		meanwhile(func() int { return len(names) - len(answers) })
	}
	var longest time.Duration
	reasons := map[string]int{}
	for range names {
		a := <-answers
		longest = max(longest, a.took)
		if a.err == nil {
			continue
		}
		failed = append(failed, a.name)
		if strings.HasPrefix(a.out, "it hangs") {
			s.t.Errorf("docker %s: %s", strings.Join(command(a.name), " "), a.out)
		}
		_, reason, daemon := strings.Cut(a.out, "Error response from daemon: ")
		if !daemon {
			reason = a.out
		}
		if len(reasons) < 5 {
			reasons[hexes.ReplaceAllString(strings.ReplaceAll(reason, a.name, "NAME"), "ID")]++
		}
	}
	s.t.Logf("%d of %d failed, the longest took %.1f s", len(failed), len(names), longest.Seconds())
	for reason, n := range reasons {
		s.t.Logf("as may be, %d times: %s", n, reason)
	}
	slices.Sort(failed)
	return failed
}

// when waits until the driver has so many endpoints more than at first, or all
// commands have ended: what failed is not among them.
func (s *storm) when(reached func(endpoints int) bool, left func() int) (inTime bool) {
	s.t.Helper()
	s.within(patience, "the storm is where something should break", func() error {
		st, err := s.askStatus()
		n := 0
		for _, net := range st.Networks {
			n += len(net.Ends)
		}
		inTime = left() > 0
		if inTime && (err != nil || !reached(n)) {
			return fmt.Errorf("%d endpoints, %d commands have not ended: %v", n, left(), err)
		}
		return nil
	})
	return inTime
}

// present has every container of the crowd run, however its start went, and
// makes them residents.
func (s *storm) present(names, failed []string) {
	s.t.Helper()
	s.all(failed, remove, nil)
	if again := s.all(failed, s.start, nil); len(again) > 0 {
		s.t.Errorf("repeated, the starts of %s fail again", again)
	}
	for _, name := range names {
		s.residents[name] = homeOf(name)
	}
	s.reach(names)
}

// reach checks that every container of the crowd reaches somebody.
func (s *storm) reach(names []string) {
	s.t.Helper()
	partner := map[string]string{"shop": s.address("b1", "shop")}
	for _, name := range names {
		home := homeOf(name)
		if partner[home] == "" {
			partner[home] = s.address(name, home)
			continue
		}
		s.within(talkAgain, name+" reaches somebody on "+home, func() error {
			_, err := s.Run(s.ctx(), "docker", "exec", name, "ping", "-c", "1", "-W", "1", partner[home])
			return err
		})
	}
}

// gone removes what is left of a crowd.
func (s *storm) gone(names []string) {
	s.t.Helper()
	if failed := s.all(names, remove, nil); len(failed) > 0 {
		s.t.Errorf("the removal of %s fails", failed)
	}
	for _, name := range names {
		delete(s.residents, name)
	}
}

// end removes everything.
func (s *storm) end() {
	s.t.Helper()
	var networks []string
	for name, network := range s.residents {
		s.docker("rm", "-f", name)
		if !slices.Contains(networks, network) {
			networks = append(networks, network)
		}
	}
	if !slices.Contains(networks, "crowd") {
		networks = append(networks, "crowd")
	}
	for _, network := range networks {
		s.removeNetwork(network)
	}
	s.within(exactAgain, "nothing is left over", func() error {
		if left := strings.TrimSpace(s.leftovers()); left != "" {
			return errors.New(left)
		}
		return nil
	})
}
