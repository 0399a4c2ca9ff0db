//go:build linux

package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// trafficBinary is the program of ./traffic as seen in a host.
const trafficBinary = buildDir + "/traffic"

// buildTraffic compiles ./traffic into what every host sees, once.
var buildTraffic = sync.OnceValue(func() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(build, "traffic"), "./traffic")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build traffic: %w\n%s", err, out)
	}
	return nil
})

// pair is two containers that talk all the time.
type pair struct {
	h             *host
	a, b, network string
	pid           string // of ./traffic in the host
	file          string // its report
	seen          int    // packets lost that were reported before
}

// trafficReport is what ./traffic writes.
type trafficReport struct {
	Written    time.Time `json:"written"`
	Sent       int       `json:"sent"`
	Received   int       `json:"received"`
	Lost       int       `json:"lost"`
	LastAnswer time.Time `json:"last_answer"`
	Gaps       []struct {
		Start time.Time `json:"start"`
		End   time.Time `json:"end"`
	} `json:"gaps"`
}

// converse has two running containers talk until one of them ends.
func (h *host) converse(a, b, network string) *pair {
	h.t.Helper()
	p := &pair{h: h, a: a, b: b, network: network}
	p.follow()
	return p
}

// follow starts the talk anew if the containers are not those it is between.
func (p *pair) follow() {
	p.h.t.Helper()
	p.h.must(buildTraffic())
	if p.pid != "" && p.running() {
		return
	}
	p.file, p.seen = fmt.Sprintf("/run/traffic-%s-%s.json", p.a, p.b), 0
	p.pid = p.h.sh(fmt.Sprintf(`rm -f %[1]s
setsid %[2]s %[3]s %[4]s %[5]s %[6]s 7000 %[1]s </dev/null >%[1]s.log 2>&1 & echo $!`, p.file, trafficBinary,
		p.h.in(p.a).netns, p.h.in(p.b).netns, p.h.address(p.a, p.network), p.h.address(p.b, p.network)))
	p.h.eventually(p.a+" and "+p.b+" exchange packets", func() error { return p.talks(time.Time{}) })
}

// running tells whether the program goes on: it ends with the containers.
func (p *pair) running() bool {
	_, err := p.h.Run(p.h.ctx(), "kill", "-0", p.pid)
	return err == nil
}

func (p *pair) report() (r trafficReport, err error) {
	text, err := os.ReadFile(p.h.Path(p.file))
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	return r, err
}

// talks tells whether the pair exchanges packets now, and has done so after a
// time.
func (p *pair) talks(since time.Time) error {
	r, err := p.report()
	if err != nil {
		log, _ := os.ReadFile(p.h.Path(p.file + ".log"))
		return fmt.Errorf("%s and %s: %w %s", p.a, p.b, err, log)
	}
	switch silence := r.Written.Sub(r.LastAnswer); {
	case time.Since(r.Written) > 5*time.Second:
		return fmt.Errorf("%s and %s: their traffic ended at %s", p.a, p.b, r.Written)
	case !r.LastAnswer.After(since):
		return fmt.Errorf("%s and %s: no answer since %s", p.a, p.b, r.LastAnswer)
	case silence > 500*time.Millisecond:
		return fmt.Errorf("%s and %s: no answer for %s", p.a, p.b, silence)
	}
	return nil
}

// lost tells how many packets were lost since it was asked last, if anybody
// knows.
func (p *pair) lost() string {
	r, err := p.report()
	if err != nil {
		return "?"
	}
	lost := max(0, r.Lost-p.seen)
	p.seen = r.Lost
	return fmt.Sprint(lost)
}

// scene is a town whose pairs talk all the time.
type scene struct {
	*town
	pairs []*pair
}

// newScene settles a town, whose containers get further arguments, and starts
// the talk.
func newScene(t *testing.T, h *host, runArgs ...string) *scene {
	t.Helper()
	s := &scene{town: h.settle(runArgs...)}
	s.pairs = []*pair{h.converse("a1", "a2", "web"), h.converse("b1", "b2", "shop")}
	return s
}

// Limits of what survives waits for.
const (
	talkAgain = time.Minute
	// What Docker was in the middle of, the driver undoes only when it is sure that
	// nobody asks for it again, which may take two minutes.
	exactAgain = 150 * time.Second
)

// survives breaks something in f, and mends it there unless the driver is to do
// that, while the pairs talk. Afterwards all must be as before: the pairs talk,
// new containers start and talk, everything is exact and doctor is content.
func (s *scene) survives(fault string, f func()) {
	s.t.Helper()
	s.t.Log("fault:", fault)
	s.lost()
	f()
	s.healed(fault, time.Now())
}

// restarted is survives for a fault after which the containers are started again.
func (s *scene) restarted(fault string, f func()) {
	s.t.Helper()
	s.t.Log("fault:", fault)
	s.lost()
	f()
	since := time.Now()
	for name := range s.residents {
		s.within(talkAgain, "container "+name+" runs", func() error {
			out, err := s.Run(s.ctx(), "docker", "inspect", "-f", "{{.State.Running}}{{.NetworkSettings.SandboxKey}}", name)
			if err == nil && !strings.HasPrefix(out, "true/") {
				err = fmt.Errorf("docker says %s", out)
			}
			return err
		})
	}
	for _, p := range s.pairs {
		p.follow()
	}
	s.healed(fault, since)
}

// lost tells how many packets each pair has lost since it was asked last.
func (s *scene) lost() string {
	s.t.Helper()
	var lost []string
	for _, p := range s.pairs {
		lost = append(lost, fmt.Sprintf("%s-%s %s", p.a, p.b, p.lost()))
	}
	return strings.Join(lost, ", ")
}

// healed waits until all is well and reports what the fault cost.
func (s *scene) healed(fault string, since time.Time) {
	s.t.Helper()
	outcome := "not healed"
	took := func() string { return fmt.Sprintf("%.1f", time.Since(since).Seconds()) }
	talk := "never"
	defer func() { s.note(fault, talk, outcome) }()
	s.within(talkAgain, "all pairs talk after: "+fault, func() error {
		var errs []error
		for _, p := range s.pairs {
			errs = append(errs, p.talks(since))
		}
		return errors.Join(errs...)
	})
	talk = took()
	s.newcomers()
	var left error
	defer func() {
		if left != nil {
			outcome = strings.ReplaceAll(left.Error(), "\n", "; ")
		}
	}()
	s.within(exactAgain, "everything is exact after: "+fault, func() error {
		left = errors.Join(s.exact(), s.inOrder())
		return left
	})
	outcome = "none after " + took() + " s"
	s.healthy()
}

// newcomers starts containers on both networks, which talk to the old ones.
func (s *scene) newcomers() {
	s.t.Helper()
	for _, old := range []string{"a1", "b1"} {
		s.container("guest", s.residents[old])
		s.ping("guest", old)
		s.ping(old, "guest")
		s.docker("rm", "-f", "guest")
	}
}

// faultsFile is the table of all faults.
const faultsFile = "../build/results/faults"

var faultsMu sync.Mutex // one line at a time

// note logs a line of the table: fault, packets lost, seconds until all talked
// again, what was left over, where.
func (s *scene) note(fault, talk, outcome string) {
	s.t.Helper()
	on := "own"
	if s.on != own {
		on = string(s.on)
	}
	line := strings.Join([]string{fault, s.lost(), talk, outcome, string(s.form) + " " + on}, " | ")
	s.t.Log(line)
	faultsMu.Lock()
	defer faultsMu.Unlock()
	err := os.MkdirAll(filepath.Dir(faultsFile), 0o755)
	if err == nil {
		err = appendTo(faultsFile, line+"\n")
	}
	if err != nil {
		s.t.Errorf("cannot note the fault: %v", err)
	}
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
