//go:build linux

package main

import (
	"math"
	"strings"
	"testing"
)

const exposition = `# TYPE ocn_call_seconds histogram
ocn_call_seconds_bucket{call="NetworkDriver.Join",result="ok",le="0.001"} 10
ocn_call_seconds_bucket{call="NetworkDriver.Join",result="ok",le="0.01"} 90
ocn_call_seconds_bucket{call="NetworkDriver.Join",result="ok",le="+Inf"} 100
ocn_call_seconds_sum{call="NetworkDriver.Join",result="ok"} 1.5
ocn_call_seconds_count{call="NetworkDriver.Join",result="ok"} 100
# TYPE ocn_ovsdb_transactions_total counter
ocn_ovsdb_transactions_total{result="ok"} 3
ocn_ovsdb_transactions_total{result="failed"} 1
`

func TestMetrics(t *testing.T) {
	s, err := parseMetrics(strings.NewReader(exposition))
	if err != nil {
		t.Fatal(err)
	}
	if got := s.total(writes); got != 4 {
		t.Errorf("total is %v, want 4", got)
	}
	h := s.histogram(wholeCall, "NetworkDriver.Join")
	for q, want := range map[float64]float64{0.05: 0.0005, 0.1: 0.001, 0.5: 0.0055, 0.99: 0.01} {
		if got := h.quantile(q); math.Abs(got-want) > 1e-9 {
			t.Errorf("quantile(%v) is %v, want %v", q, got, want)
		}
	}
	if h.mean() != 0.015 {
		t.Errorf("mean is %v, want 0.015", h.mean())
	}
	s.add(s.since(scrape{}))
	if twice := s.histogram(wholeCall, "NetworkDriver.Join"); twice.Count != 200 || twice.quantile(0.5) != h.quantile(0.5) {
		t.Errorf("twice the same is %+v", twice)
	}
	if d := s.since(s).histogram(wholeCall, "NetworkDriver.Join"); d.Count != 0 || !math.IsNaN(d.quantile(0.5)) {
		t.Errorf("nothing was counted, but the difference is %+v", d)
	}
}
