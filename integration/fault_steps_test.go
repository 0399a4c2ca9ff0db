//go:build linux

package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// faultyDir holds the build whose steps can be made fatal (faults.go of the
// command), as seen in a host.
const faultyDir = buildDir + "/faulty"

var buildFaulty = sync.OnceValue(func() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "build", "-tags", "faults", "-o",
		filepath.Join(build, "faulty", "ovs-container-network"), "../cmd/ovs-container-network")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build with fault points: %w\n%s", err, out)
	}
	return nil
})

// Files of the build with fault points, in the host.
const (
	stepsFile = "/run/ocn-steps" // every step that was reached
	fatalFile = "/run/ocn-fatal" // the step that is fatal
)

// supervise runs the build with fault points in place of the driver, and starts
// it again whenever it has died.
func (h *host) supervise() {
	h.t.Helper()
	h.must(buildFaulty())
	h.stopDriver()
	h.sh(fmt.Sprintf(`setsid sh -c 'while :; do
OCN_FAULT_RECORD=%s OCN_FAULT_AT=%s %s/ovs-container-network serve --log-level debug; sleep 0.1; done' </dev/null >>/var/log/ocn.log 2>&1 &`,
		stepsFile, fatalFile, faultyDir))
	h.driverAnswers()
}

// act is a docker command of a life, with what is left when it is done.
type act struct {
	name string
	args []string
	undo []string // what makes room for it again when it failed
}

// life is the life of a network and of a container on another network, where
// others talk.
func life(network string, create, run []string) []act {
	return []act{
		{
			"network create", // on another bridge each time, lest one that waits for its end shares it
			append(append([]string{"network", "create", "-d", "ovs-container-network", "--opt", "bridge=br-ROUND"}, create...), "third"),
			nil,
		},
		{"run", append(append([]string{"run", "-d", "--name", "x3", "--network", network}, run...), "lab"), []string{"rm", "-f", "x3"}},
		{"rm", []string{"rm", "-f", "x3"}, nil},
		{"network rm", []string{"network", "rm", "third"}, nil},
	}
}

// of is the act of a round.
func (a act) of(round string) act {
	a.args = slices.Clone(a.args)
	for i := range a.args {
		a.args[i] = strings.ReplaceAll(a.args[i], "ROUND", round)
	}
	return a
}

// The driver dies at every step of everything that it does, while others talk,
// and is started again at once. Every docker command ends soon, with success or
// an error; what failed succeeds when it is repeated; nothing is lost or left.
func TestDiesAtEveryStep(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		on   suite
		acts []act
	}{
		{"our-ipam", own, life("shop", []string{"--subnet", "10.9.0.0/24", "--ipam-driver", "ovs-container-network"}, []string{"--ip", "10.2.0.33"})},
		{"docker-ipam-new-engine", newer, life("web", []string{"--subnet", "10.9.0.0/24"}, nil)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			acts := c.acts
			h := newHost(t, service, c.on)
			h.supervise()
			f := &fatal{scene: newScene(t, h), slow: map[string]string{}}
			steps := f.record(acts)
			for i := range slices.MaxFunc(steps, func(a, b []string) int { return len(a) - len(b) }) {
				for j, a := range acts {
					step := ""
					if i < len(steps[j]) {
						step = steps[j][i]
					}
					f.dies(a.of(fmt.Sprint(i)), step)
				}
			}
			f.report(steps)
			f.leave()
			h.expectClean()
		})
	}
}

// fatal is a scene in which the driver dies.
type fatal struct {
	*scene
	slow   map[string]string // what was not exact soon, by the point it came from
	failed []string          // docker commands
	took   time.Duration     // the longest command
}

// record does everything once and returns the steps of each act.
func (f *fatal) record(acts []act) (steps [][]string) {
	f.t.Helper()
	for _, a := range acts {
		a = a.of("first")
		f.sh(": > " + stepsFile)
		f.docker(a.args...)
		f.within(talkAgain, "all is exact", f.exact)
		read := func() []string { return strings.Fields(f.sh("cat " + stepsFile)) }
		seen := read()
		f.eventually("nothing more is done", func() error {
			was := len(seen)
			f.after(500*time.Millisecond, nil)
			if seen = read(); len(seen) != was {
				return errors.New("more was done")
			}
			return nil
		})
		var distinct []string
		for _, s := range seen {
			if !slices.Contains(distinct, s) {
				distinct = append(distinct, s)
			}
		}
		f.t.Logf("%s: %d steps: %s", a.name, len(distinct), strings.Join(distinct, " "))
		steps = append(steps, distinct)
	}
	return steps
}

// dies does an act in which the driver dies at a step, or does not.
func (f *fatal) dies(a act, step string) {
	f.t.Helper()
	point := a.name + " at " + step
	pid := f.driverPID()
	if step != "" {
		f.sh(fmt.Sprintf("rm -f %[1]s.hit; echo %[2]s > %[1]s.new; mv %[1]s.new %[1]s", fatalFile, step))
	}
	begun := time.Now()
	out, err := f.Run(f.ctx(), append([]string{"timeout", "60", "docker"}, a.args...)...)
	took := time.Since(begun)
	f.took = max(f.took, took)
	if took > 40*time.Second {
		f.t.Errorf("%s: docker needed %s", point, took)
	}
	if step != "" {
		f.hit(point, pid)
	}
	f.driverAnswers()
	if err != nil {
		if !strings.Contains(out, "Driver.") || strings.Contains(out, "EOF") {
			f.t.Errorf("%s: docker is told nothing that helps: %s", point, out)
		}
		f.failed = append(f.failed, fmt.Sprintf("%s (%.1f s): %s", point, took.Seconds(), strings.TrimSpace(out)))
		f.again(a, point)
	}
	f.settles(point)
}

// again repeats what failed.
func (f *fatal) again(a act, point string) {
	f.t.Helper()
	begun := time.Now()
	tries := 0
	f.within(exactAgain, a.name+" succeeds when it is repeated", func() error {
		if a.undo != nil {
			f.docker(a.undo...)
		}
		tries++
		out, err := f.Run(f.ctx(), append([]string{"docker"}, a.args...)...)
		if err != nil && tries == 1 {
			f.t.Errorf("%s: repeated at once, it fails: %s", point, out)
		}
		return err
	})
	if tries > 1 {
		f.t.Logf("%s: succeeds only after %s", point, time.Since(begun))
	}
}

// hit waits until the driver has died.
func (f *fatal) hit(point, pid string) {
	f.t.Helper()
	deadline := time.Now().Add(3 * time.Second)
	for f.driverPID() == pid {
		if time.Now().After(deadline) {
			f.t.Logf("%s: not reached this time", point)
			f.sh("rm -f " + fatalFile)
			return
		}
	}
}

// settles checks that all talk and all is exact soon, but for what earlier points
// have left for later.
func (f *fatal) settles(point string) {
	f.t.Helper()
	since := time.Now()
	f.within(talkAgain, "all pairs talk after "+point, func() error {
		return errors.Join(f.pairs[0].talks(since), f.pairs[1].talks(since))
	})
	deadline := time.Now().Add(3 * time.Second)
	for {
		var fresh []string
		if err := f.exact(); err != nil {
			for _, line := range strings.Split(err.Error(), "\n") {
				if f.slow[line] == "" {
					fresh = append(fresh, line)
				}
			}
		}
		if len(fresh) == 0 {
			return
		}
		if time.Now().After(deadline) {
			f.t.Logf("%s: still after %s:\n%s", point, time.Since(since), strings.Join(fresh, "\n"))
			for _, line := range fresh {
				f.slow[line] = point
			}
			return
		}
	}
}

// report checks that what was left for later goes by itself within seconds, but
// for pools and addresses that Docker might still ask for, which gc takes away.
func (f *fatal) report(steps [][]string) {
	f.t.Helper()
	f.within(talkAgain, "all is exact but pools", func() error {
		err := f.exact()
		if err == nil {
			return nil
		}
		if rest := slices.DeleteFunc(strings.Split(err.Error(), "\n"), aboutPools); len(rest) > 0 {
			return errors.New(strings.Join(rest, "\n"))
		}
		return nil
	})
	f.t.Log(f.run(faultyDir+"/ovs-container-network", "gc"))
	f.within(10*time.Second, "all is exact after gc", f.exact)
	f.works()
	f.healthy()
	n := 0
	for _, s := range steps {
		n += len(s)
	}
	f.t.Logf("%d fault points, the longest docker command %s, %d failed, lost: %s, slow: %d", n, f.took, len(f.failed), f.lost(), len(f.slow))
	for _, s := range f.failed {
		f.t.Log("failed: ", s)
	}
}

// aboutPools tells whether a line of exact is about something that was booked.
func aboutPools(line string) bool {
	return strings.HasPrefix(line, "pool is left over") || strings.HasPrefix(line, "address in pool")
}
