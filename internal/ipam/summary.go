package ipam

import (
	"net/netip"
	"slices"
	"time"
)

// Summary says how full a pool is.
type Summary struct {
	ID      PoolID       `json:"id"`
	Prefix  netip.Prefix `json:"prefix"`
	Range   netip.Prefix `json:"range,omitzero"`
	Gateway netip.Addr   `json:"gateway,omitzero"`
	Network string       `json:"network,omitempty"`
	Static  bool         `json:"static,omitempty"`
	// Used and Total count the addresses that can be chosen automatically, those
	// of Range or, without one, of Prefix: when equal, the next request without
	// an address fails. Total stops at the largest uint64.
	Used  uint64 `json:"used"`
	Total uint64 `json:"total"`
}

// Pools lists every stored pool in order of creation.
func (r *Registry) Pools() []Summary {
	var list []Summary
	for _, p := range r.snapshot() {
		used, total := p.usage()
		list = append(list, Summary{
			ID: p.ID, Prefix: p.Prefix, Range: p.Range, Gateway: p.Gateway,
			Network: p.Network, Static: p.Static, Used: used, Total: total,
		})
	}
	return list
}

// Lookup answers one pool with all its addresses, and whether there is such.
func (r *Registry) Lookup(id PoolID) (Pool, bool) {
	if e := r.entry(id); e != nil {
		if p := e.value.Load(); p != nil {
			return p.clone(), true
		}
	}
	return Pool{}, false
}

// Known tells when this process made or loaded a pool; now, if it has not got it.
func (r *Registry) Known(id PoolID) time.Time {
	if e := r.entry(id); e != nil {
		return e.since
	}
	return time.Now()
}

// snapshot is every stored pool in order of creation.
func (r *Registry) snapshot() []Pool {
	r.mu.RLock()
	list := make([]Pool, 0, len(r.pools))
	for _, e := range r.pools {
		if p := e.value.Load(); p != nil {
			list = append(list, *p)
		}
	}
	r.mu.RUnlock()
	slices.SortFunc(list, bySeq)
	return list
}

// clone is for callers outside, who may do with Addrs what they like.
func (p Pool) clone() Pool {
	p.Addrs = append(make([]netip.Addr, 0, len(p.Addrs)), p.Addrs...)
	return p
}

// Capacity is the number of addresses of a subnet that machines may have, the
// gateway included.
func Capacity(prefix netip.Prefix) uint64 {
	prefix = prefix.Masked()
	return count(first(prefix), last(prefix))
}
