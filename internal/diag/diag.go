// Package diag runs a graph of checks and tells what is wrong, why, and what
// mends it. A check of which a parent failed is not run: the parent explains it.
// It knows nothing of networks and switches; a check is a function.
package diag

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Severity says how much a finding matters.
type Severity string

const (
	// Fault is something that does not work, or will not when it is needed.
	Fault Severity = "fault"
	// Advice is something that works and could be better.
	Advice Severity = "advice"
)

// Finding is one thing that is wrong.
type Finding struct {
	Check    string   `json:"check"`
	Subject  string   `json:"subject,omitempty"` // the one of many that it is about
	Severity Severity `json:"severity"`
	Cause    string   `json:"cause"`
	Evidence []string `json:"evidence,omitempty"` // what was seen
	Mend     []string `json:"mend,omitempty"`     // commands, or what to do
}

// Check is one node of the graph.
type Check struct {
	Name  string
	Asks  string   // the question that it answers, for a person
	Needs []string // checks that come before it in the list, without which it says nothing
	// Run returns what is wrong; Check and, where empty, Severity (a fault) are
	// filled in. A check that ctx ended is a fault of its own.
	Run func(ctx context.Context) []Finding
}

// State is how a check ended.
type State string

const (
	OK      State = "ok"
	Failed  State = "failed"  // it found a fault
	Skipped State = "skipped" // a check that it needs did not end ok
)

// Result is what became of a check.
type Result struct {
	Check   string `json:"check"`
	Asks    string `json:"asks"`
	State   State  `json:"state"`
	Because string `json:"because,omitempty"` // the failed check that explains a skipped one
}

// Report is what a run found.
type Report struct {
	Healthy  bool      `json:"healthy"` // no fault was found, and nothing was skipped
	Checks   []Result  `json:"checks"`
	Findings []Finding `json:"findings"`
}

// limit bounds one check.
const limit = 10 * time.Second

// Run runs the checks one after the other, in their order.
func Run(ctx context.Context, checks []Check) Report {
	r := Report{Healthy: true, Checks: []Result{}, Findings: []Finding{}}
	blame := make(map[string]string, len(checks)) // the check that explains one that did not end ok
	for _, c := range checks {
		result := Result{Check: c.Name, Asks: c.Asks, State: OK}
		if i := slices.IndexFunc(c.Needs, func(n string) bool { return blame[n] != "" }); i >= 0 {
			result.State, result.Because = Skipped, blame[c.Needs[i]]
			blame[c.Name] = result.Because
		} else if found := run(ctx, c); len(found) > 0 {
			r.Findings = append(r.Findings, found...)
			if slices.ContainsFunc(found, func(f Finding) bool { return f.Severity == Fault }) {
				result.State = Failed
				blame[c.Name] = c.Name
			}
		}
		r.Healthy = r.Healthy && result.State == OK
		r.Checks = append(r.Checks, result)
	}
	return r
}

// run returns the findings of one check, complete.
func run(ctx context.Context, c Check) []Finding {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	found := c.Run(ctx)
	if ctx.Err() != nil {
		found = append(found, Finding{Cause: fmt.Sprintf("the check did not end within %s", limit)})
	}
	for i := range found {
		found[i].Check = c.Name
		if found[i].Severity == "" {
			found[i].Severity = Fault
		}
	}
	return found
}

// Text is the report for a person.
func (r Report) Text() string {
	var b strings.Builder
	for _, c := range r.Checks {
		mark := string(c.State)
		if c.State == Skipped {
			mark = "skipped, see " + c.Because
		}
		fmt.Fprintf(&b, "%-14s %s %s\n", c.Check, c.Asks, mark)
	}
	for _, f := range r.Findings {
		name := f.Check
		if f.Subject != "" {
			name += ", " + f.Subject
		}
		fmt.Fprintf(&b, "\n%s: %s: %s\n", strings.ToUpper(string(f.Severity)), name, f.Cause)
		for _, e := range f.Evidence {
			fmt.Fprintf(&b, "    seen: %s\n", e)
		}
		for _, m := range f.Mend {
			fmt.Fprintf(&b, "    mend: %s\n", m)
		}
	}
	switch faults := r.Faults(); {
	case r.Healthy:
		b.WriteString("\nNothing is wrong.\n")
	case faults == 1:
		b.WriteString("\n1 fault.\n")
	default:
		fmt.Fprintf(&b, "\n%d faults.\n", faults)
	}
	return b.String()
}

// Faults counts the findings that are faults.
func (r Report) Faults() (n int) {
	for _, f := range r.Findings {
		if f.Severity == Fault {
			n++
		}
	}
	return n
}
