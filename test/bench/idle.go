//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// endpoints100 measures what the driver needs when nothing happens: alone, and
// with 100 endpoints.
func (s *stage) endpoints100(ctx context.Context) error {
	s.value("resident memory, KiB", "idle", s.memory(ctx))
	if err := s.docker(ctx, none.createArgs(none.net(), 0, 22)...); err != nil {
		return err
	}
	if failed := s.calls().start(ctx, 100, none.net()); failed > 0 {
		return fmt.Errorf("%d of 100 containers do not start", failed)
	}
	return s.quiet(ctx, "100 endpoints")
}

// quietTime is long enough to see a thousandth of a core.
const quietTime = 20 * time.Second

// quiet measures memory and CPU while nothing happens, and what a look costs.
func (s *stage) quiet(ctx context.Context, column string) error {
	if err := sleep(ctx, 5*time.Second); err != nil {
		return err
	}
	s.value("resident memory, KiB", column, s.memory(ctx))
	driver, vswitchd := s.cpu(ctx, driverName), s.cpu(ctx, "ovs-vswitchd")
	if err := sleep(ctx, quietTime); err != nil {
		return err
	}
	driver, vswitchd = s.cpu(ctx, driverName)-driver, s.cpu(ctx, "ovs-vswitchd")-vswitchd
	s.value("CPU when nothing happens, % of a core", column, percent(driver))
	s.value("CPU of ovs-vswitchd when nothing happens, % of a core", column, percent(vswitchd))
	return s.looks(ctx, column)
}

func percent(d time.Duration) float64 { return float64(d) / float64(quietTime) * 100 }

// looks measures what it costs the driver to look at all its networks: after an
// event at one port, as in the periodic pass, which takes what was in order for
// being so; and after the loss of the connection to the database, which makes
// it look at every endpoint. Neither may write.
func (s *stage) looks(ctx context.Context, column string) error {
	kinds := []struct {
		what, event string
		times       int
	}{
		{"a look after an event", `ovs-vsctl --timeout=10 set Port $(ovs-vsctl --timeout=10 --bare --columns=name find Port external_ids:owner=ovs-container-network | grep . | head -n 1) external_ids:bench=$(date +%N)`, 10},
		{"a look at everything", "ovs-appctl -t ovsdb-server ovsdb-server/reconnect", 3},
	}
	for _, k := range kinds {
		before, err := metrics(ctx, s.Host)
		if err != nil {
			return err
		}
		cpu := s.cpu(ctx, driverName)
		for range k.times {
			if _, err := s.Shell(ctx, k.event); err != nil {
				return err
			}
			// Beyond the delay that lets events come together.
			if err := pause(ctx); err != nil {
				return err
			}
		}
		s.value(k.what+": CPU, ms", column, float64((s.cpu(ctx, driverName)-cpu).Milliseconds())/float64(k.times))
		after, err := metrics(ctx, s.Host)
		if err != nil {
			return err
		}
		d := after.since(before)
		s.driver(column+", "+k.what, d)
		if h := d.histogram(lookTime, ""); h.Count > 0 {
			s.value(k.what+": time, ms", column, h.Sum*1000/float64(k.times))
			s.value(k.what+": networks looked at", column, h.Count/float64(k.times))
			s.value(k.what+": transactions", column, d.total(writes))
		} else {
			fmt.Fprintln(os.Stderr, "bench: the driver does not tell how long it looks")
		}
	}
	return nil
}

const driverName = "ovs-container-network"

// memory is the driver's resident memory in KiB.
func (s *stage) memory(ctx context.Context) (kib float64) {
	out, _ := s.Shell(ctx, "awk '/^VmRSS/ {print $2}' /proc/$(pidof -s "+driverName+")/status")
	fmt.Sscan(out, &kib)
	return kib
}

// cpu is the CPU time of a program so far.
func (s *stage) cpu(ctx context.Context, program string) time.Duration {
	return s.cpus(ctx, program)[0]
}

// cpus is the CPU time of programs so far, with that of what they ran. The
// kernel counts it in hundredths of a second.
func (s *stage) cpus(ctx context.Context, programs ...string) []time.Duration {
	out, _ := s.Shell(ctx, "for p in "+strings.Join(programs, " ")+"; do awk '{print $14+$15+$16+$17}' /proc/$(pidof -s $p)/stat; done")
	spent := make([]time.Duration, len(programs))
	for i, text := range strings.Fields(out) {
		ticks, _ := strconv.Atoi(text)
		spent[i] = time.Duration(ticks) * 10 * time.Millisecond
	}
	return spent
}
