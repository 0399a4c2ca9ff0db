//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
)

// sizes are how many endpoints a network has when its last one is measured.
func (s settings) sizes() []int { return []int{10, 100, s.most} }

// growth times the connect of the 10th, 100th and 1,000th container of one
// network. The containers run before, so that nothing but connect is measured,
// and one driver's are disconnected before the next one's turn, so that none
// pays for another.
func (s *stage) growth(ctx context.Context) error {
	if err := s.crowd(ctx, s.most); err != nil {
		return err
	}
	for i, k := range []kind{bridge, none, bare} {
		if err := s.grow(ctx, k, i); err != nil {
			return err
		}
	}
	return nil
}

// crowd starts containers h0..hN-1 that are on no network. h0 is the probe.
func (s *stage) crowd(ctx context.Context, n int) error {
	failed, err := many(n, apiWidth, func(i int) error { return s.lonely(ctx, fmt.Sprint("h", i)) })
	if err != nil {
		return fmt.Errorf("%d of %d containers do not start: %w", failed, n, err)
	}
	return pause(ctx)
}

func (s *stage) grow(ctx context.Context, k kind, number int) error {
	fmt.Fprintf(os.Stderr, "bench: growth, %s\n", k.column)
	if err := s.api.createNetwork(ctx, k.net(), k, number, 22); err != nil {
		return err
	}
	on := 1 // the holders h1..h(on-1) are connected
	for _, size := range s.sizes() {
		failed, err := many(size-on, apiWidth, func(i int) error {
			return s.api.connect(ctx, k.net(), fmt.Sprint("h", on+i))
		})
		s.value("growth, connects failed", k.column, float64(failed))
		if failed > size/100 {
			return fmt.Errorf("%d of %d containers cannot be connected to %s: %w", failed, size-on, k.net(), err)
		}
		on = size
		if err := pause(ctx); err != nil {
			return err
		}
		if err := s.probes(ctx, k, nth(size)+" container"); err != nil {
			return err
		}
		if k.driver == none.driver {
			if err := s.handProbes(ctx, nth(size)+" container"); err != nil {
				return err
			}
		}
	}
	if k.driver == none.driver {
		if err := s.allOfThem(ctx, k); err != nil {
			return err
		}
	}
	err := s.timed(fmt.Sprint(s.most, " disconnects"), k.column, func() error {
		_, err := many(s.most-1, apiWidth, func(i int) error {
			return s.api.disconnect(ctx, k.net(), fmt.Sprint("h", i+1))
		})
		return err
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
	left, err := s.leftovers(ctx)
	if err != nil {
		return err
	}
	s.value("growth, left over", k.column, left)
	if err := s.api.removeNetwork(ctx, k.net()); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err) // Docker's count, as in storms
	}
	return nil
}

// probes connects the probe to a network again and again.
func (s *stage) probes(ctx context.Context, k kind, which string) error {
	before, err := metrics(ctx, s.Host)
	if err != nil {
		return err
	}
	for range s.rounds {
		if err := s.probe(ctx, k.net(), "h0", ", "+which, k.column); err != nil {
			return err
		}
	}
	after, err := metrics(ctx, s.Host)
	if err != nil {
		return err
	}
	if k.driver == none.driver {
		s.driver(which, after.since(before))
	}
	return nil
}

// handProbes attaches a veth to the driver's bridge by hand: ovs-vsctl too
// returns when ovs-vswitchd has taken the port, which takes the longer the more
// ports there are.
func (s *stage) handProbes(ctx context.Context, which string) error {
	if _, err := s.Shell(ctx, "ip link add v-hand up type veth peer name v-hand-peer"); err != nil {
		return err
	}
	for range s.rounds {
		err := s.timed("connect, "+which, byHand, func() error {
			_, err := s.Run(ctx, "ovs-vsctl", "add-port", "br-int", "v-hand", "tag=7")
			return err
		})
		if err != nil {
			return err
		}
		if _, err := s.Run(ctx, "ovs-vsctl", "del-port", "br-int", "v-hand"); err != nil {
			return err
		}
	}
	_, err := s.Shell(ctx, "ip link del v-hand")
	return err
}

// allOfThem measures what all the endpoints cost when nothing happens.
func (s *stage) allOfThem(ctx context.Context, k kind) error {
	if err := s.api.connect(ctx, k.net(), "h0"); err != nil {
		return err
	}
	if err := s.quiet(ctx, endpoints(s.most)); err != nil {
		return err
	}
	return s.api.disconnect(ctx, k.net(), "h0")
}

// nth is how the tables call a size.
func nth(n int) string { return fmt.Sprint(n, "th") }

// endpoints is how the tables call the state with so many of them.
func endpoints(n int) string { return fmt.Sprint(n, " endpoints") }
