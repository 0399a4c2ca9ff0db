package ipam

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
)

// Claim ties a pool to the network being created with it and answers which. It
// is the newest one with that prefix nobody has claimed, preferably with the
// same gateway, since prefix and gateway are all that Docker tells of a pool
// when it creates a network. False means there is none, as with another IPAM
// driver: ask only when the network names one of our address spaces.
//
// A network that has such a pool already gets the same answer. Claims of one
// network must not run concurrently; those of different ones may, and two
// networks created at the same moment with equal subnet and gateway may get
// each other's pool, which look the same to both.
func (r *Registry) Claim(network string, prefix netip.Prefix, gateway netip.Addr, static bool) (PoolID, bool, error) {
	if network == "" {
		return "", false, errors.New("cannot claim a pool for a network without an id")
	}
	for _, id := range r.candidates(network, prefix.Masked(), gateway) {
		won := false
		err := r.change(id, func(p Pool) (Pool, bool, error) {
			if p.Network != "" && p.Network != network { // another claim was quicker
				return p, false, nil
			}
			won = true
			changed := p.Network != network || p.Static != static
			if p.Network == "" {
				p.Own = append([]netip.Addr{}, p.Addrs...) // no endpoint yet: gateway and aux addresses
			}
			p.Network, p.Static, p.Orphan = network, static, false
			return p, changed, nil
		})
		if errors.Is(err, errAbsent) {
			continue
		}
		if err != nil {
			return "", false, err
		}
		if won {
			return id, true, nil
		}
	}
	return "", false, nil
}

// candidates are the pools network may claim, best first.
func (r *Registry) candidates(network string, prefix netip.Prefix, gateway netip.Addr) []PoolID {
	rank := func(p Pool) int {
		switch {
		case p.Network == network:
			return 0
		case p.Gateway == gateway:
			return 1
		}
		return 2
	}
	pools := slices.DeleteFunc(r.snapshot(), func(p Pool) bool {
		return p.Prefix != prefix || p.Network != "" && p.Network != network
	})
	slices.SortFunc(pools, func(a, b Pool) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(b.Seq, a.Seq))
	})
	var ids []PoolID
	for _, p := range pools {
		ids = append(ids, p.ID)
	}
	return ids
}

// Unclaim unties the pools of a network that was removed or could not be
// created. Pools and addresses stay until Docker releases them, which it does in
// the same breath, or until Audit finds that it did not. None is a success.
func (r *Registry) Unclaim(network string) error {
	if network == "" {
		return nil
	}
	var faults []error
	for _, p := range r.snapshot() {
		if p.Network != network {
			continue
		}
		err := r.change(p.ID, func(p Pool) (Pool, bool, error) {
			changed := p.Network == network
			if changed {
				p.Network, p.Static, p.Own, p.Orphan = "", false, nil, true
			}
			return p, changed, nil
		})
		if err != nil && !errors.Is(err, errAbsent) {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

// Forget releases the pools of a network with all their addresses: Docker
// removed it and will not release them. Unknown is a success.
func (r *Registry) Forget(network string) error {
	var errs []error
	for _, p := range r.snapshot() {
		if p.Network == network {
			errs = append(errs, r.ReleasePool(p.ID))
		}
	}
	return errors.Join(errs...)
}
