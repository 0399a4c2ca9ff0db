package main

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"

	"github.com/ovs-container-network/ovs-container-network/internal/ipam"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovn"
)

// pools lets the core tie networks to pools of our IPAM driver: those of this host
// and those that hosts share.
type pools struct {
	registry *ipam.Registry
	shared   *ovn.Pools
	networks func() []network.Network
	log      *slog.Logger
}

func (p pools) network(id network.ID) network.Network {
	all := p.networks()
	if i := slices.IndexFunc(all, func(n network.Network) bool { return n.ID == id }); i >= 0 {
		return all[i]
	}
	return network.Network{ID: id}
}

func (p pools) Claim(id network.ID, s network.Subnet, static bool) (bool, error) {
	if s.Space != ipam.AddressSpace && s.Space != ipam.GlobalAddressSpace {
		return false, nil
	}
	n := p.network(id)
	if ok, err := p.shared.Claim(context.Background(), n, s.Prefix); ok || err != nil {
		return ok, err
	}
	_, ok, err := p.registry.Claim(string(id), s.Prefix, s.Gateway, static)
	if ok || err != nil {
		return ok, err
	}
	return false, p.shared.Stray(n, s.Prefix)
}

// Unclaim has nothing to do for a shared pool: without its network it is as good as
// unclaimed, and Docker releases it in the same breath.
func (p pools) Unclaim(id network.ID) error { return p.registry.Unclaim(string(id)) }

func (p pools) Forget(id network.ID) error {
	return errors.Join(p.registry.Forget(string(id)), p.shared.Forget(context.Background(), id))
}

func (p pools) Entered(id network.ID, addrs []netip.Addr) (container string) {
	p.shared.Entered(id)
	return p.registry.Entered(string(id), addrs)
}

func (p pools) Abandon(id network.ID, addrs []netip.Addr) error {
	p.shared.Abandon(p.network(id), addrs)
	return p.registry.Abandon(string(id), addrs)
}

func (p pools) Audit(used func(network.ID) (map[netip.Addr]bool, bool)) error {
	freed, err := p.registry.Audit(usedBy(used))
	more, err2 := p.shared.Audit(context.Background(), used)
	for _, a := range append(freed, more...) {
		if !a.Addr.IsValid() {
			p.log.Info("freed a pool that no network has", "nid", a.Network, "pool", a.Pool)
			continue
		}
		p.log.Info("freed an address that no endpoint has", "nid", a.Network, "address", a.Addr)
	}
	return errors.Join(err, err2)
}

func usedBy(used func(network.ID) (map[netip.Addr]bool, bool)) func(string) (map[netip.Addr]bool, bool) {
	return func(id string) (map[netip.Addr]bool, bool) { return used(network.ID(id)) }
}

// addresses are all pools as Docker sees them.
type addresses struct {
	registry *ipam.Registry
	shared   *ovn.Pools
	manager  *network.Manager
}

func (a addresses) RequestPool(ctx context.Context, pool, subPool string, opts map[string]string, v6 bool) (ipam.Pool, error) {
	sw, shared := opts[ipam.OptionSwitch]
	if !shared {
		return a.registry.RequestPool(pool, subPool, opts, v6)
	}
	others := maps.Clone(opts)
	delete(others, ipam.OptionSwitch)
	if err := ipam.CheckOptions(others); err != nil {
		return ipam.Pool{}, err
	}
	return a.shared.RequestPool(ctx, sw, pool, subPool, v6)
}

func (a addresses) ReleasePool(ctx context.Context, id ipam.PoolID) error {
	if ovn.Shared(id) {
		return a.shared.ReleasePool(ctx, id)
	}
	return a.registry.ReleasePool(id)
}

func (a addresses) RequestAddress(ctx context.Context, id ipam.PoolID, req ipam.Request) (netip.Prefix, error) {
	if ovn.Shared(id) {
		return a.shared.RequestAddress(ctx, id, req)
	}
	return a.registry.RequestAddress(id, req)
}

// ReleaseAddress does not free the address of a living endpoint.
func (a addresses) ReleaseAddress(ctx context.Context, id ipam.PoolID, addr string) error {
	ip, err := netip.ParseAddr(addr)
	if n := a.networkOf(id); err == nil && n != "" && !a.manager.Released(n, ip) {
		return nil
	}
	if ovn.Shared(id) {
		return a.shared.ReleaseAddress(ctx, id, addr)
	}
	return a.registry.ReleaseAddress(id, addr)
}

// networkOf is the network that has a pool; empty if none has, or it is not known.
func (a addresses) networkOf(id ipam.PoolID) network.ID {
	if ovn.Shared(id) {
		return a.shared.Network(id)
	}
	p, _ := a.registry.Lookup(id)
	return network.ID(p.Network)
}
