//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

// apiWidth is how many calls of the API are under way at once: with more, the
// engine's own queues are what is measured.
const apiWidth = 50

// programs are what works when containers start.
var programs = []string{driverName, "ovs-vswitchd", "ovsdb-server", "dockerd", "containerd"}

// A crowd starts and removes n containers p1..pn at once, in two ways.
type crowd struct {
	start  func(ctx context.Context, n int, network string) (failed int)
	remove func(ctx context.Context, n int) (failed int)
}

// commands starts one docker command for each container, all at once, as the
// peers were measured.
func (s *stage) commands() crowd {
	all := func(ctx context.Context, n int, command string) (failed int) {
		out, err := s.Shell(ctx, fmt.Sprintf(`
cd /tmp; : >failed; : >errors
for i in $(seq %d); do { docker %s >/dev/null 2>>errors || echo $i >>failed; } & done
wait
wc -l <failed; head -n 3 errors`, n, command))
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			return n
		}
		count, errors, _ := strings.Cut(strings.TrimSpace(out), "\n")
		fmt.Sscan(count, &failed)
		if failed > 0 {
			fmt.Fprintf(os.Stderr, "bench: docker %s: %d of %d failed: %s\n", command, failed, n, errors)
		}
		return failed
	}
	return crowd{
		start: func(ctx context.Context, n int, network string) int {
			return all(ctx, n, "run -d --name p$i --network "+network+" lab")
		},
		remove: func(ctx context.Context, n int) int { return all(ctx, n, "rm -f p$i") },
	}
}

// calls does the same by the engine's API.
func (s *stage) calls() crowd {
	all := func(n int, what string, f func(name string) error) int {
		failed, err := many(n, apiWidth, func(i int) error { return f(fmt.Sprint("p", i+1)) })
		if failed > 0 {
			fmt.Fprintf(os.Stderr, "bench: %s: %d of %d failed: %v\n", what, failed, n, err)
		}
		return failed
	}
	return crowd{
		start: func(ctx context.Context, n int, network string) int {
			return all(n, "start", func(name string) error { return s.api.start(ctx, name, network) })
		},
		remove: func(ctx context.Context, n int) int {
			return all(n, "remove", func(name string) error { return s.api.remove(ctx, name) })
		},
	}
}

// storm starts n containers of one network at once, and removes them at once.
func storm(n int, way func(*stage) crowd) func(*stage, context.Context) error {
	return func(s *stage, ctx context.Context) error {
		c := way(s)
		for round := range s.storms {
			i := 0
			err := shuffled([]kind{bridge, none, bare}, func(k kind) error {
				i++
				return s.oneStorm(ctx, n, k, round*3+i, c)
			})
			if err != nil {
				return err
			}
		}
		return nil
	}
}

func (s *stage) oneStorm(ctx context.Context, n int, k kind, number int, c crowd) error {
	// A name of its own: Docker can count the endpoints wrong when many are
	// removed at once, and then refuses to remove the network.
	network := fmt.Sprint("n", number)
	if err := s.docker(ctx, k.createArgs(network, number, 22)...); err != nil {
		return err
	}
	if err := pause(ctx); err != nil {
		return err
	}
	starts, removals := fmt.Sprint(n, " parallel starts"), fmt.Sprint(n, " parallel removals")
	before, err := metrics(ctx, s.Host)
	if err != nil {
		return err
	}
	spent := s.cpus(ctx, programs...)
	begin := time.Now()
	failed := c.start(ctx, n, network)
	s.sample(starts, k.column, time.Since(begin))
	for i, now := range s.cpus(ctx, programs...) {
		s.value(starts+", CPU s of "+programs[i], k.column, (now - spent[i]).Seconds())
	}
	if _, err := s.Run(ctx, "docker", "exec", "p1", "ping", "-c", "1", "-w", "10", fmt.Sprint("p", n)); k.driver != floorDriver && err != nil {
		fmt.Fprintln(os.Stderr, "bench: the first container does not reach the last:", err)
		failed++
	}
	s.value(starts+", failed", k.column, float64(failed))

	begin = time.Now()
	failed = c.remove(ctx, n)
	s.sample(removals, k.column, time.Since(begin))
	s.value(removals+", failed", k.column, float64(failed))
	if k.driver == none.driver {
		after, err := metrics(ctx, s.Host)
		if err != nil {
			return err
		}
		s.driver(fmt.Sprint(n, " parallel"), after.since(before))
	}
	left, err := s.leftovers(ctx)
	if err != nil {
		return err
	}
	s.value(removals+", left over", k.column, left)
	stuck := 0.0
	if err := s.docker(ctx, "network", "rm", network); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stuck = 1
	}
	s.value(removals+", network not removable", k.column, stuck)
	return nil
}

// leftovers counts what is there for endpoints when there is no container any
// more: ports of ours, ends of veth pairs, records of endpoints. What goes
// within half a minute is none.
func (s *stage) leftovers(ctx context.Context) (left float64, err error) {
	limit := time.Now().Add(30 * time.Second)
	for {
		out, err := s.Shell(ctx, `{
ovs-vsctl --timeout=10 --bare --columns=name find Port external_ids:owner=ovs-container-network | grep . | sed 's/^/port /'
ip -o link show type veth
find /var/lib/ovs-container-network/networks -path '*/endpoints/*' -type f
} | wc -l`)
		if err != nil {
			return 0, err
		}
		fmt.Sscan(out, &left)
		if left == 0 || time.Now().After(limit) {
			return left, nil
		}
		if err := sleep(ctx, 500*time.Millisecond); err != nil {
			return 0, err
		}
	}
}
