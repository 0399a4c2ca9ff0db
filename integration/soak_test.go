//go:build linux && soak

package integration

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Flags of the soak test, after -args.
var (
	soakDuration = flag.Duration("duration", 30*time.Minute, "how long the soak test goes on")
	soakSteps    = flag.Int("steps", 0, "end the soak test after that many steps, 0 for no limit")
	soakSeed     = flag.Uint64("seed", 0, "repeats the choices of a soak test, 0 for new ones")
	soakForm     = flag.String("form", string(service), "how the driver runs: service, plugin")
	soakSuite    = flag.String("suite", "", "the system of the host: empty for the machine's own, sid")
	soakFaults   = flag.Float64("faults", 0.35, "share of the steps in which something breaks")
)

// TestSoak does what users do, at random, several things at a time, while all
// kinds of things break, and compares what is with what must be.
func TestSoak(t *testing.T) {
	s := newSoak(t)
	s.roll()
	s.say("seed %d, %s, %s on %q", s.seed, *soakDuration, s.form, s.on)
	s.prepare()
	for !s.over() {
		s.step++
		s.roll()
		s.doStep()
		s.progress()
	}
	s.clear()
	s.summary("passed")
}

// soak is a host on which everything happens. All choices of a step come from
// one source, made of the seed and the number of the step: a step that went
// differently does not change those after it more than it must.
type soak struct {
	*host
	model
	seed  uint64
	step  int
	rng   *rand.Rand
	begun time.Time

	lastFault  time.Time
	liveDocker bool   // dockerd runs with --live-restore
	bystanders string // those of others, as they were made
	worries    map[string]worry
	lastSaid   time.Time

	history []string
	log     *os.File
	count   map[string]int
	longest map[string]time.Duration
}

func newSoak(t *testing.T) *soak {
	t.Helper()
	s := &soak{
		model: newModel(), seed: *soakSeed, begun: time.Now(), lastSaid: time.Now(),
		worries: map[string]worry{}, count: map[string]int{}, longest: map[string]time.Duration{},
	}
	if s.seed == 0 {
		s.seed = uint64(time.Now().UnixNano()) % 1e9
	}
	dir := filepath.Join("..", "build", "results", fmt.Sprintf("soak-%d", s.seed))
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		s.log, err = os.Create(filepath.Join(dir, "steps"))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.log.Close() })
	s.host = newHost(t, form(*soakForm), suite(*soakSuite))
	t.Cleanup(func() {
		if t.Failed() {
			s.failed(dir)
		}
	})
	return s
}

// roll takes the dice of this step.
func (s *soak) roll() { s.rng = rand.New(rand.NewPCG(s.seed, uint64(s.step))) }

func (s *soak) over() bool {
	return time.Since(s.begun) > *soakDuration || *soakSteps > 0 && s.step >= *soakSteps
}

// say prints a line at once: a soak test is watched.
func (s *soak) say(format string, args ...any) {
	line := fmt.Sprintf("%7s  %s", time.Since(s.begun).Round(time.Second), fmt.Sprintf(format, args...))
	fmt.Println(line)
	fmt.Fprintln(s.log, line)
}

// note remembers what was done.
func (s *soak) note(format string, args ...any) {
	line := fmt.Sprintf("%s %7.1f step %d: %s", time.Now().UTC().Format("15:04:05.000"), time.Since(s.begun).Seconds(), s.step, fmt.Sprintf(format, args...))
	fmt.Fprintln(s.log, line)
	if s.history = append(s.history, line); len(s.history) > 120 {
		s.history = s.history[1:]
	}
}

// progress says every half minute how far the test is.
func (s *soak) progress() {
	if time.Since(s.lastSaid) < 30*time.Second {
		return
	}
	s.lastSaid = time.Now()
	s.say("step %d, %d networks, %d containers (%d run), done: %s", s.step, len(s.nets), len(s.boxes), s.runningBoxes(), s.counts())
}

func (s *soak) counts() string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(s.count)) {
		all = append(all, fmt.Sprintf("%s %d", k, s.count[k]))
	}
	return strings.Join(all, ", ")
}

func (s *soak) summary(outcome string) {
	s.say("soak %s: seed %d, %d steps in %s, %s on %q; %s", outcome, s.seed, s.step, time.Since(s.begun).Round(time.Second), s.form, s.on, s.counts())
	var slow []string
	for _, k := range slices.Sorted(maps.Keys(s.longest)) {
		slow = append(slow, fmt.Sprintf("%s %.0f s", k, s.longest[k].Seconds()))
	}
	s.say("longest until all was exact again: %s", strings.Join(slow, ", "))
}

// failed prints how it came to that, and keeps the logs of the host.
func (s *soak) failed(dir string) {
	for _, line := range s.history {
		fmt.Println(line)
	}
	for _, log := range []string{"/var/log/ocn.log", "/var/log/dockerd.log", "/var/log/openvswitch/ovs-vswitchd.log", "/var/log/openvswitch/ovsdb-server.log"} {
		if text, err := os.ReadFile(s.Path(log)); err == nil {
			os.WriteFile(filepath.Join(dir, filepath.Base(log)), text, 0o644)
		}
	}
	s.summary("FAILED")
	s.say("to repeat: -args -seed %d -form %s -suite %q; steps and logs are in %s", s.seed, s.form, s.on, dir)
}

// doStep does one to eight things at once, most often without anything that
// breaks, and looks whether all is as it must be.
func (s *soak) doStep() {
	breaks := s.rng.Float64() < *soakFaults
	n := 1
	if s.rng.IntN(4) == 0 || breaks && s.maybe(50) {
		n = 2 + s.rng.IntN(7)
	}
	ops := s.drawOps(n)
	var broken *fault
	if breaks {
		broken = s.drawFault(ops)
		for _, o := range ops {
			o.delay = time.Duration(s.rng.IntN(1500)) * time.Millisecond
		}
	}
	results := s.start(ops)
	if broken != nil {
		delay := time.Duration(s.rng.IntN(1000)) * time.Millisecond
		s.note("fault: %s, after %s", broken.name, delay)
		s.after(delay, nil)
		s.count["fault "+broken.name]++
		s.lastFault = time.Now()
		broken.does()
		s.lastFault = time.Now()
	}
	for range ops {
		s.ended(<-results, broken != nil)
	}
	if broken != nil {
		s.lastFault = time.Now()
		s.adopt(ops, broken)
	}
	s.check()
}

// outcome is how an operation ended.
type outcome struct {
	*op
	out  string
	err  error
	took time.Duration
}

func (s *soak) start(ops []*op) chan outcome {
	results := make(chan outcome, len(ops))
	for _, o := range ops {
		s.note("after %s: %s", o.delay, o)
		go func() {
			select {
			case <-time.After(o.delay):
			case <-s.ctx().Done():
			}
			begun := time.Now()
			r := outcome{op: o}
			for _, cmd := range o.cmds {
				if r.out, r.err = s.Run(s.ctx(), cmd...); r.err != nil {
					break
				}
			}
			r.took = time.Since(begun)
			results <- r
		}()
	}
	return results
}

// ended takes an operation's result into the model. It may only fail while
// something was broken.
func (s *soak) ended(r outcome, broken bool) {
	s.t.Helper()
	s.count[r.kind]++
	if r.err == nil {
		s.note("done in %.1f s: %s", r.took.Seconds(), r.op)
		r.done()
		return
	}
	s.note("failed in %.1f s: %s: %s", r.took.Seconds(), r.op, strings.TrimSpace(r.out))
	switch {
	case r.took > 110*time.Second:
		s.t.Fatalf("step %d: it hangs: %s: %s", s.step, r.op, r.out)
	case broken:
		s.count["failed beside a fault"]++
	case strings.Contains(r.out, "has active endpoints"), strings.Contains(r.out, "id already in use"):
		s.miscounted(r)
	default:
		s.t.Fatalf("step %d: it fails though nothing is broken: %s: %s", s.step, r.op, r.out)
	}
}

// miscounted restarts a dockerd that has lost count of a network's endpoints, as
// those of Docker 20.10 do when containers of it end in parallel, or does not start
// a container any more in whose start it was killed: containerd has that still.
func (s *soak) miscounted(r outcome) {
	s.t.Helper()
	s.count["engine lost count"]++
	s.must(s.StopDocker(s.ctx()))
	s.startDocker()
	s.driverAnswers()
	for _, cmd := range r.cmds {
		s.run(cmd...)
	}
	r.done()
	s.adopt(nil, &fault{docker: true, restarts: !s.liveDocker})
}
