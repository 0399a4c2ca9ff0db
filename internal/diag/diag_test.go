package diag

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func finds(f ...Finding) func(context.Context) []Finding {
	return func(context.Context) []Finding { return f }
}

// A failed check explains those that need it, directly or not; the others run.
func TestGraph(t *testing.T) {
	ran := map[string]bool{}
	check := func(name string, found []Finding, needs ...string) Check {
		return Check{Name: name, Asks: name + "?", Needs: needs, Run: func(context.Context) []Finding { ran[name] = true; return found }}
	}
	r := Run(t.Context(), []Check{
		check("a", nil),
		check("b", []Finding{{Cause: "broken"}}, "a"),
		check("c", nil, "a", "b"),
		check("d", nil, "c"),
		check("e", []Finding{{Cause: "slow", Severity: Advice}}, "a"),
		check("f", nil, "e"),
	})
	want := []Result{
		{"a", "a?", OK, ""}, {"b", "b?", Failed, ""}, {"c", "c?", Skipped, "b"}, {"d", "d?", Skipped, "b"},
		{"e", "e?", OK, ""}, {"f", "f?", OK, ""},
	}
	if diff := cmp.Diff(want, r.Checks); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	found := []Finding{{Check: "b", Severity: Fault, Cause: "broken"}, {Check: "e", Severity: Advice, Cause: "slow"}}
	if diff := cmp.Diff(found, r.Findings); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if r.Healthy || r.Faults() != 1 || ran["c"] || ran["d"] || !ran["f"] {
		t.Errorf("healthy %v, %d faults, ran %v", r.Healthy, r.Faults(), ran)
	}
}

// Advice alone leaves all healthy.
func TestAdviceIsHealthy(t *testing.T) {
	r := Run(t.Context(), []Check{{Name: "a", Run: finds(Finding{Severity: Advice, Cause: "x"})}})
	if !r.Healthy || r.Checks[0].State != OK || !strings.Contains(r.Text(), "ADVICE: a: x") || !strings.Contains(r.Text(), "Nothing is wrong") {
		t.Errorf("got %+v\n%s", r, r.Text())
	}
}

// A check that is cut off is a fault, whatever it returned.
func TestCutOff(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := Run(ctx, []Check{{Name: "a", Run: func(ctx context.Context) []Finding { cancel(); <-ctx.Done(); return nil }}})
	if r.Healthy || r.Faults() != 1 || !strings.Contains(r.Findings[0].Cause, "did not end") {
		t.Errorf("got %+v", r)
	}
}

// The text shows each check, each finding with what was seen and what mends it.
func TestText(t *testing.T) {
	r := Run(t.Context(), []Check{
		{Name: "switch", Asks: "does the switch answer?", Run: finds(Finding{
			Subject: "br0", Cause: "it does not", Evidence: []string{"no socket"}, Mend: []string{"systemctl restart switch"},
		})},
		{Name: "ports", Asks: "are the ports there?", Needs: []string{"switch"}, Run: finds()},
	})
	want := `switch         does the switch answer? failed
ports          are the ports there? skipped, see switch

FAULT: switch, br0: it does not
    seen: no socket
    mend: systemctl restart switch

1 fault.
`
	if diff := cmp.Diff(want, r.Text()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
