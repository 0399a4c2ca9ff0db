package ipam

import (
	"net/netip"
	"slices"
)

// booking is an address that was booked for an endpoint which has not been
// created yet.
type booking struct {
	pool PoolID
	addr netip.Addr
	name string // of its container; empty: the engine does not tell
}

func (b booking) is(id PoolID, a netip.Addr) bool { return b.pool == id && b.addr == a }

// Docker books the addresses of an endpoint, IPv4 and then IPv6, and creates it,
// all under one lock of the network. If the second booking fails, it forgets the
// first one (libnetwork's own IPAM loses an address that way, too). So what was
// booked for a network since its last endpoint belongs to the request under way,
// and is given back when that fails.

// Entered tells that an endpoint of the network is being created with these
// addresses: what was booked belongs to it now, and Docker gives it back itself. It
// returns the name of the container for which they were booked by this process, empty
// if that is not known. The addresses decide, since a request may have come to nothing
// without a word.
func (r *Registry) Entered(network string, addrs []netip.Addr) (name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := slices.DeleteFunc(r.booked[network], func(b booking) bool { return !slices.Contains(addrs, b.addr) })
	delete(r.booked, network)
	for i, b := range list {
		if i > 0 && b.name != name {
			return ""
		}
		name = b.name
	}
	return name
}

// book notes an address booked in p for a container.
func (r *Registry) book(p Pool, addr netip.Addr, name string) {
	if p.Network == "" {
		return // of the network's own: gateway and aux addresses
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.booked[p.Network] = append(r.booked[p.Network], booking{p.ID, addr, name})
}

// freed notes that an address is booked for nobody any more.
func (r *Registry) freed(id PoolID, a netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for network, list := range r.booked { // those to which an endpoint is being added now
		r.booked[network] = slices.DeleteFunc(list, func(b booking) bool { return b.is(id, a) })
	}
}

// unbook gives back what was booked for the endpoint whose request in the pool
// id has failed.
func (r *Registry) unbook(id PoolID) {
	p, ok := r.Lookup(id)
	if !ok || p.Network == "" {
		return
	}
	r.mu.Lock()
	list := r.booked[p.Network]
	delete(r.booked, p.Network)
	r.mu.Unlock()
	for _, b := range list {
		if b.pool != id {
			// What cannot be stored now stays booked: an address too few is no
			// harm, one given twice would be.
			_ = r.ReleaseAddress(b.pool, b.addr.String())
		}
	}
}

// Abandon frees addresses of an endpoint that Docker has given up without a
// word, in the pools of its network. An address that is booked for the next
// endpoint at this moment stays.
func (r *Registry) Abandon(network string, addrs []netip.Addr) error {
	r.mu.RLock()
	booked := slices.Clone(r.booked[network])
	r.mu.RUnlock()
	for _, p := range r.snapshot() {
		if p.Network != network {
			continue
		}
		for _, a := range addrs {
			if a == p.Gateway || slices.ContainsFunc(booked, func(b booking) bool { return b.is(p.ID, a) }) {
				continue
			}
			if err := r.ReleaseAddress(p.ID, a.String()); err != nil {
				return err
			}
		}
	}
	return nil
}
