//go:build linux

package main

import (
	"context"
	"fmt"
)

// networkCounts are how many networks there are when connect is measured.
func (s settings) networkCounts() []int { return []int{1, 100, s.most} }

// perHolder is on how many networks one container holds an endpoint. Docker asks
// for all endpoints of a container whenever one is added.
const perHolder = 10

// manyNetworks times connect on a host with 1, 100 and 1,000 networks, each with
// an endpoint.
//
// Docker's own driver has at most 100: it runs iptables a dozen times for each
// bridge, ever more slowly as the rules grow.
func manyNetworks(k kind) func(*stage, context.Context) error {
	return func(s *stage, ctx context.Context) error {
		counts := s.networkCounts()
		if k.driver == bridge.driver {
			counts = counts[:2]
		}
		if err := s.crowd(ctx, counts[len(counts)-1]/perHolder+1); err != nil {
			return err
		}
		made := 0
		for _, count := range counts {
			for ; made < count; made++ {
				if err := s.held(ctx, k, made); err != nil {
					return err
				}
			}
			if err := pause(ctx); err != nil {
				return err
			}
			which := networks(count)
			if err := s.probes(ctx, k, which); err != nil {
				return err
			}
			if err := s.oneMore(ctx, k, made, which); err != nil {
				return err
			}
		}
		if k.driver == none.driver {
			return s.quiet(ctx, networks(made))
		}
		return nil
	}
}

// held makes a network with an endpoint. The first is where the probe goes.
func (s *stage) held(ctx context.Context, k kind, i int) error {
	name := k.net()
	if i > 0 {
		name = fmt.Sprint(name, i)
	}
	if err := s.api.createNetwork(ctx, name, k, i, 24); err != nil {
		return err
	}
	return s.api.connect(ctx, name, fmt.Sprint("h", 1+i/perHolder))
}

// oneMore times the making and the removal of a network beside the others.
func (s *stage) oneMore(ctx context.Context, k kind, number int, which string) error {
	for range s.rounds {
		if err := s.timed("create, "+which, k.column, func() error {
			return s.api.createNetwork(ctx, "more", k, number, 24)
		}); err != nil {
			return err
		}
		if err := s.timed("remove, "+which, k.column, func() error { return s.api.removeNetwork(ctx, "more") }); err != nil {
			return err
		}
	}
	return nil
}

// networks is how the tables call the state with so many of them.
func networks(n int) string { return fmt.Sprint(n, " networks") }
