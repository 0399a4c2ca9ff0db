package dockerwatch

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// Seen is what Docker has, at one moment.
type Seen struct {
	Engine   string // as given to Sink.Known
	Networks map[network.ID]SeenNetwork
}

// SeenNetwork is one network of any driver.
type SeenNetwork struct {
	Name, Driver, IPAM string
	Subnets            []netip.Prefix
	Endpoints          map[network.EndpointID]network.Container // of running containers; only of the networks asked for
}

// Look asks Docker at host once for all its networks, and for the endpoints of
// those of which want says so. It is for a person who asks, and never called
// while Docker waits for an answer of ours.
func Look(ctx context.Context, host string, want func(network.ID, SeenNetwork) bool) (Seen, error) {
	e, err := newEngine(host)
	if err != nil {
		return Seen{}, err
	}
	defer e.close()
	if err := e.absent(); err != nil {
		return Seen{}, err
	}
	if _, err := e.ping(ctx); err != nil {
		return Seen{}, err
	}
	s := Seen{Networks: map[network.ID]SeenNetwork{}}
	if s.Engine, err = e.name(ctx); err != nil {
		return Seen{}, err
	}
	all, err := e.networks(ctx)
	if err != nil {
		return Seen{}, err
	}
	for id, l := range all {
		n := SeenNetwork{Name: l.Name, Driver: l.Driver, IPAM: l.IPAM.Driver}
		for _, c := range l.IPAM.Config {
			if p, err := netip.ParsePrefix(c.Subnet); err == nil {
				n.Subnets = append(n.Subnets, p.Masked())
			}
		}
		if want(id, n) {
			i, err := e.inspect(ctx, id)
			switch {
			case errors.Is(err, errNotFound): // removed meanwhile, or a swarm's that is not here
			case err != nil:
				return Seen{}, fmt.Errorf("network %s: %w", l.Name, err)
			default:
				n.Endpoints, _ = i.endpoints()
			}
		}
		s.Networks[id] = n
	}
	return s, nil
}

// Ping tells whether Docker answers at host.
func Ping(ctx context.Context, host string) error {
	e, err := newEngine(host)
	if err != nil {
		return err
	}
	defer e.close()
	_, err = e.ping(ctx)
	return err
}
