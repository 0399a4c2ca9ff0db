//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
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

// tries is how often a run is begun: a machine that is busy with other things
// may let one fail, which says nothing of the way.
const tries = 3

// measure returns the rate at which one stream arrives, in Gbit/s.
func (w *way) measure(ctx context.Context, protocol string, length time.Duration) (rate float64, err error) {
	if w.spins {
		if err := w.host.KillVswitchd(ctx, syscall.SIGCONT); err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, w.pause(ctx)) }()
	}
	for range tries {
		if rate, err = w.once(ctx, protocol, length); err == nil {
			break
		}
	}
	return rate, err
}

// serve is the script that starts the server, when the last one is gone and the
// way is open: an ovs-vswitchd that was stopped needs a moment.
const serve = `
await() { for i in $(seq 100); do "$@" && return; sleep 0.1; done; echo "in vain: $*"; exit 1; }
open() { nsenter --net=%[1]s ping -c 1 -W 1 %[2]s >/dev/null; }
listens() { nsenter --net=%[3]s ss -Hltn sport = :5201 | grep -q .; }
gone() { ! listens; }
await open
await gone
nsenter --net=%[3]s iperf3 -s -1 -D
await listens
`

func (w *way) once(ctx context.Context, protocol string, length time.Duration) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, length+30*time.Second)
	defer cancel()
	if _, err := w.host.Shell(ctx, fmt.Sprintf(serve, w.client, w.addr, w.server)); err != nil {
		return 0, err
	}
	args := []string{"nsenter", "--net=" + w.client, "iperf3", "--json", "--connect-timeout", "5000",
		"-c", w.addr, "-t", fmt.Sprint(int(length.Seconds()))}
	if protocol == "udp" {
		args = append(args, "-u", "-b", "0")
	}
	out, err := w.host.Run(ctx, args...)
	if err != nil {
		return 0, errors.Join(err, w.clear())
	}
	return received(protocol, out)
}

// clear ends a server that nobody talked to.
func (w *way) clear() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := w.host.Shell(ctx, fmt.Sprintf("nsenter --net=%s ss -Hltnp sport = :5201 | sed -n 's/.*pid=\\([0-9]*\\).*/\\1/p' | xargs -r kill", w.server))
	return err
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
