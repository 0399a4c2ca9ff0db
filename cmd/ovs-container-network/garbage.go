package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/dockerwatch"
	"github.com/ovs-container-network/ovs-container-network/internal/ipam"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// piece is something that nobody owns any more.
type piece struct {
	Kind string `json:"kind"` // as docs/doctor.md has them
	Name string `json:"name"`
	Why  string `json:"why"`

	remove func(context.Context) error
}

// What is younger than these may belong to a call that is under way.
const (
	freshNetwork = 40 * time.Second
	freshPool    = 40 * time.Second
	freshAddress = 30 * time.Second
	// leftoverAge is how long a leftover may wait for the daemon to remove it by
	// itself before doctor speaks of it.
	leftoverAge = 10 * time.Minute
)

// garbage lists what nobody owns, of ports, links and bridges what looks so for
// at least age. What only Docker can tell is left out when it does not.
func (d *doctor) garbage(ctx context.Context, age time.Duration) []piece {
	var all []piece
	found, err := d.fabric.Leftovers(d.manager.Networks(), d.manager.Spares)
	if err != nil && !d.northboundAway() {
		return nil
	}
	for _, l := range found {
		since, seen := d.fabric.Suspected(l)
		if age > 0 && (!seen || time.Since(since) < age) {
			continue
		}
		all = append(all, pieces([]network.Leftover{l})...)
	}
	for _, a := range d.registry.IdleAddresses() {
		if time.Since(a.Since) < max(age, freshAddress) {
			continue
		}
		all = append(all, piece{"address", a.Addr.String(), "booked on network " + network.ID(a.Network).Short() + " for no endpoint",
			func(context.Context) error { return d.registry.ReleaseAddress(a.Pool, a.Addr.String()) }})
	}
	for _, a := range d.shared.Idle() {
		if time.Since(a.Since) < max(age, freshAddress) {
			continue
		}
		all = append(all, piece{"address", a.Addr.String(), "booked in a pool that hosts share, on network " + network.ID(a.Network).Short() + " for no endpoint",
			func(ctx context.Context) error { return d.shared.ReleaseAddress(ctx, a.Pool, a.Addr.String()) }})
	}
	seen, err := d.look(ctx)
	if err != nil {
		return all
	}
	all = append(all, d.lostNetworks(seen)...)
	all = append(all, d.lostRecords(seen)...)
	return append(all, d.lostPools(seen)...)
}

// northboundAway tells whether nothing but the northbound database cannot be looked
// at: what is on this host is known all the same.
func (d *doctor) northboundAway() bool {
	_, used, reached, _, _ := d.fabric.NB()
	connected, _, _ := d.fabric.State()
	return connected && used && !reached
}

func pieces(found []network.Leftover) (all []piece) {
	for _, l := range found {
		all = append(all, piece{l.Kind, l.Name, l.Why, l.Remove})
	}
	return all
}

// lostNetworks are those that Docker does not have, and no other engine either as
// far as is known, and no container uses.
func (d *doctor) lostNetworks(seen dockerwatch.Seen) (all []piece) {
	for _, n := range d.manager.Networks() {
		_, known := seen.Networks[n.ID]
		used := slices.ContainsFunc(n.SortedEndpoints(), func(e network.Endpoint) bool { return e.Phase == network.PhaseJoined })
		if known || used || n.Phase != network.PhaseActive || len(n.ID) != 64 || time.Since(n.Created) < freshNetwork {
			continue
		}
		if n.Engine != "" && n.Engine != seen.Engine {
			continue // it belongs to an engine, or a data directory, that is not in use now
		}
		all = append(all, piece{"network", cmpName(n), "Docker does not have it", func(ctx context.Context) error {
			return errors.Join(d.registry.Forget(string(n.ID)), d.manager.DeleteNetwork(ctx, n.ID))
		}})
	}
	return all
}

func cmpName(n network.Network) string {
	if n.Name != "" {
		return n.Name
	}
	return n.ID.Short()
}

// lostRecords are those that cannot be read, of networks that Docker does not
// have.
func (d *doctor) lostRecords(seen dockerwatch.Seen) (all []piece) {
	done := make(map[network.ID]bool)
	for _, r := range d.manager.Damaged() {
		if _, known := seen.Networks[r.Network]; known || len(r.Network) != 64 || done[r.Network] || d.manager.Has(r.Network) {
			continue
		}
		done[r.Network] = true
		all = append(all, piece{"record", r.Path, "cannot be read, and Docker does not have its network", func(ctx context.Context) error {
			return d.manager.DeleteNetwork(ctx, r.Network)
		}})
	}
	return all
}

// lostPools are those of no network, ours or another driver's.
func (d *doctor) lostPools(seen dockerwatch.Seen) (all []piece) {
	pools := d.registry.Pools()
	claimed := make(map[network.ID]bool)
	for _, p := range pools {
		claimed[network.ID(p.Network)] = true
	}
	for _, p := range pools {
		if p.Network != "" || time.Since(d.registry.Known(p.ID)) < freshPool || usedElsewhere(seen, p, claimed) {
			continue
		}
		all = append(all, piece{"pool", p.Prefix.String(), fmt.Sprintf("no network has it (%s)", p.ID), func(context.Context) error {
			return d.registry.ReleasePool(p.ID)
		}})
	}
	return all
}

// usedElsewhere tells whether a network of another driver may have the pool:
// Docker tells the subnets of a network, not its pools.
func usedElsewhere(seen dockerwatch.Seen, p ipam.Summary, claimed map[network.ID]bool) bool {
	for id, n := range seen.Networks {
		if !claimed[id] && n.IPAM != "default" && slices.Contains(n.Subnets, p.Prefix) {
			return true
		}
	}
	return false
}
