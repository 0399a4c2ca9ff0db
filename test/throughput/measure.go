//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"syscall"
	"time"
)

// pause stops ovs-vswitchd of a way that would disturb the others.
func (w *way) pause(ctx context.Context) error {
	if !w.spins {
		return nil
	}
	return w.host.KillVswitchd(ctx, syscall.SIGSTOP)
}

// measure returns the rate at which one stream arrives, in Gbit/s.
func (w *way) measure(ctx context.Context, protocol string, length time.Duration) (float64, error) {
	if w.spins {
		if err := w.host.KillVswitchd(ctx, syscall.SIGCONT); err != nil {
			return 0, err
		}
		defer w.pause(ctx) //nolint:errcheck // shows in the next figure only
	}
	// Until it answers: a stopped ovs-vswitchd needs a moment.
	_, err := w.host.Shell(ctx, fmt.Sprintf(`
for i in $(seq 50); do nsenter --net=%s ping -c 1 -W 1 %s >/dev/null && break; done
nsenter --net=%s iperf3 -s -1 -D
sleep 0.3`, w.client, w.addr, w.server))
	if err != nil {
		return 0, err
	}
	args := []string{"nsenter", "--net=" + w.client, "iperf3", "--json", "--connect-timeout", "5000",
		"-c", w.addr, "-t", fmt.Sprint(int(length.Seconds()))}
	if protocol == "udp" {
		args = append(args, "-u", "-b", "0")
	}
	limit, cancel := context.WithTimeout(ctx, length+20*time.Second)
	defer cancel()
	out, err := w.host.Run(limit, args...)
	if err != nil {
		return 0, err
	}
	return received(protocol, out)
}

// received reads from iperf3's report how much arrived, in Gbit/s.
func received(protocol, report string) (float64, error) {
	type sum struct {
		Bytes   float64
		Seconds float64
		Lost    float64 `json:"lost_percent"`
	}
	var r struct {
		Error string
		End   struct {
			Sum      sum
			Received sum `json:"sum_received"`
		}
	}
	if err := json.Unmarshal([]byte(report), &r); err != nil {
		return 0, fmt.Errorf("iperf3 says %q: %w", report, err)
	}
	s := r.End.Received
	if protocol == "udp" {
		s = r.End.Sum
		s.Bytes *= 1 - s.Lost/100
	}
	if r.Error != "" || s.Seconds == 0 {
		return 0, fmt.Errorf("iperf3 says %s", report)
	}
	return s.Bytes * 8 / s.Seconds / 1e9, nil
}
