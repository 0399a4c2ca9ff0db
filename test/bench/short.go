//go:build linux

package main

import "context"

// networks times docker network create and rm: on a bridge that other networks
// keep, and of the first and last network of a bridge, which make and remove it.
func (s *stage) networks(ctx context.Context) error {
	kept := kind{"kept", "ovs-container-network", []string{"bridge=br-kept"}}
	first := kind{"first", "ovs-container-network", []string{"bridge=br-first"}}
	if err := s.docker(ctx, kept.createArgs("keep", 0, 24)...); err != nil {
		return err
	}
	for range s.rounds {
		err := shuffled([]kind{bridge, kept, first, bare}, func(k kind) error {
			if err := s.timed("network create", k.column, func() error { return s.docker(ctx, k.createArgs("n", 1, 24)...) }); err != nil {
				return err
			}
			return s.timed("network rm", k.column, func() error { return s.docker(ctx, "network", "rm", "n") })
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// connects times the API's connect and disconnect of a running container.
func (s *stage) connects(ctx context.Context) error {
	kinds := []kind{bridge, none, external, gateway, bare}
	return s.with(ctx, kinds, 24, func() error {
		for range s.rounds {
			err := shuffled(kinds, func(k kind) error {
				if err := s.lonely(ctx, "cc"); err != nil {
					return err
				}
				if err := s.probe(ctx, k.net(), "cc", "", k.column); err != nil {
					return err
				}
				return s.docker(ctx, "rm", "-f", "cc")
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// lonely starts a container that is on no network. One of network none cannot
// join another.
func (s *stage) lonely(ctx context.Context, name string) error {
	if err := s.api.start(ctx, name, "none"); err != nil {
		return err
	}
	return s.api.disconnect(ctx, "none", name)
}

// probe times one connect and one disconnect of a container that is on no
// network. suffix distinguishes the measurements.
func (s *stage) probe(ctx context.Context, network, container, suffix, column string) error {
	err := s.timed("connect"+suffix, column, func() error { return s.api.connect(ctx, network, container) })
	if err != nil {
		return err
	}
	return s.timed("disconnect"+suffix, column, func() error { return s.api.disconnect(ctx, network, container) })
}

// noNetwork is the column of containers on Docker's network none.
const noNetwork = "no network"

// runs times docker run and rm -f, with network none as what any container
// costs.
func (s *stage) runs(ctx context.Context) error {
	kinds := []kind{bridge, none, external, gateway, bare, bareGateway}
	type target struct{ column, network string }
	networks := []target{{noNetwork, "none"}}
	for _, k := range kinds {
		networks = append(networks, target{k.column, k.net()})
	}
	return s.with(ctx, kinds, 24, func() error {
		for range s.rounds {
			err := shuffled(networks, func(t target) error {
				if err := s.timed("run", t.column, func() error {
					return s.docker(ctx, "run", "-d", "--name", "cc", "--network", t.network, "lab")
				}); err != nil {
					return err
				}
				return s.timed("rm -f", t.column, func() error { return s.docker(ctx, "rm", "-f", "cc") })
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}
