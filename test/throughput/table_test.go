//go:build linux

package main

import "testing"

func TestReceived(t *testing.T) {
	for _, c := range []struct {
		protocol, report string
		want             float64 // 0: an error
	}{
		{"tcp", `{"end":{"sum_sent":{"bytes":9e9,"seconds":2},"sum_received":{"bytes":2e9,"seconds":2}}}`, 8},
		{"udp", `{"end":{"sum":{"bytes":4e9,"seconds":2,"lost_percent":25}}}`, 12},
		{"tcp", `{"end":{},"error":"unable to connect to server"}`, 0},
		{"tcp", `{"end":{}}`, 0},
		{"udp", `iperf3: usage`, 0},
	} {
		got, err := received(c.protocol, c.report)
		if got != c.want || (err == nil) != (c.want != 0) {
			t.Errorf("%s %s: %v, %v", c.protocol, c.report, got, err)
		}
	}
}

func TestRatio(t *testing.T) {
	// A machine that is slow in one round is slow for both.
	tab := table{"tcp": {"a": {1, 10, 3, 4}, "b": {2, 20, 6, 1}}}
	if got := tab.ratio("tcp", "a", "b"); got != 0.5 {
		t.Errorf("got %v", got)
	}
	if got := tab.ratio("tcp", "a", "absent"); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
}
