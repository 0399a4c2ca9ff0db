package ipam

import (
	"net/netip"
	"slices"
	"time"
)

// Docker sends a call again for half a minute when the driver died over it. What
// the first try had booked already must not be in the way of the second: a pool
// without an owner, an address without an endpoint. And what Docker does not ask
// for again, because it died too, must not stay booked for ever.

const (
	retryTime = 40 * time.Second // dockerd tries again for 30 s
	idleTime  = 2 * time.Minute  // dockerd creates the endpoint in the same call in which it booked
)

// askedAgain returns a pool like the one that is asked for, if it was made by the
// last process and nothing has been done with it.
func (r *Registry) askedAgain(like Pool, v6 bool) (Pool, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.started) > retryTime {
		clear(r.begun)
	}
	for id := range r.begun {
		p := r.pools[id].value.Load()
		switch {
		case p == nil, p.Network != "", len(p.Addrs) > 0:
			delete(r.begun, id)
		case p.Auto != like.Auto, p.Range != like.Range, p.Auto && p.Prefix.Addr().Is6() != v6, !p.Auto && p.Prefix != like.Prefix:
		default:
			delete(r.begun, id)
			return p.clone(), true
		}
	}
	return Pool{}, false
}

// Loosen tells, once after the start, which addresses the endpoints of a network
// have. An address of its pools that is booked for no endpoint is given to the
// first who asks for it by name. known is false for a network of which that
// cannot be said.
func (r *Registry) Loosen(used func(network string) (addrs map[netip.Addr]bool, known bool)) {
	for _, p := range r.snapshot() {
		for _, a := range p.without(used) {
			r.mu.Lock()
			if r.loose[p.ID] == nil {
				r.loose[p.ID] = make(map[netip.Addr]bool)
			}
			r.loose[p.ID][a] = true
			r.mu.Unlock()
		}
	}
}

// withoutLoose is the pool without the address that is asked for by name, if that
// is a loose one.
func (r *Registry) withoutLoose(p Pool, req Request) Pool {
	a, err := netip.ParseAddr(req.Addr)
	if err != nil || req.Gateway {
		return p
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.loose[p.ID][a] {
		p, _ = p.release(a)
	}
	return p
}

// tighten notes that an address was booked or freed by this process.
func (r *Registry) tighten(id PoolID, a netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.loose[id], a)
}

// owe notes what Docker has given up and could not be freed, an address or, as the
// zero one, a pool. Docker does not ask again. The next audit tries it, and an
// address is given to who asks for it by name.
func (r *Registry) owe(id PoolID, a netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.loose[id] == nil {
		r.loose[id] = make(map[netip.Addr]bool)
	}
	r.loose[id][a] = true
	if r.idle[id] == nil {
		r.idle[id] = make(map[netip.Addr]time.Time)
	}
	r.idle[id][a] = time.Now().Add(-idleTime)
}

// owed tells whether the pool itself is to be freed.
func (r *Registry) owed(id PoolID) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.loose[id][netip.Addr{}]
}

// Idle is an address that is booked and that no endpoint has.
type Idle struct {
	Pool    PoolID     `json:"pool"`
	Network string     `json:"network"`
	Addr    netip.Addr `json:"address"`
	Since   time.Time  `json:"since"`
}

// Audit compares what is booked with the addresses of endpoints, as Loosen does,
// and frees what no endpoint has had at every audit of two minutes, of 40 s if the
// last process booked it; the same goes
// for pools whose network is gone. It returns the addresses that it freed, the
// zero one for a whole pool.
func (r *Registry) Audit(used func(network string) (addrs map[netip.Addr]bool, known bool)) (freed []Idle, err error) {
	now := time.Now()
	for _, p := range r.snapshot() {
		idle := p.without(used)
		whole := p.Orphan || r.owed(p.ID)
		if whole {
			idle = []netip.Addr{{}}
		}
		for _, i := range r.noteIdle(p, idle, now) {
			if whole {
				err = r.ReleasePool(p.ID)
			} else {
				err = r.ReleaseAddress(p.ID, i.Addr.String())
			}
			if err != nil {
				return freed, err
			}
			freed = append(freed, i)
		}
	}
	return freed, nil
}

// noteIdle remembers since when addresses are idle, and returns those that are
// for long enough.
func (r *Registry) noteIdle(p Pool, idle []netip.Addr, now time.Time) (ripe []Idle) {
	r.mu.Lock()
	defer r.mu.Unlock()
	since := r.idle[p.ID]
	if len(idle) == 0 {
		delete(r.idle, p.ID)
		return nil
	}
	next := make(map[netip.Addr]time.Time, len(idle))
	for _, a := range idle {
		at, seen := since[a]
		if !seen {
			at = now
		}
		next[a] = at
		limit := idleTime
		if r.loose[p.ID][a] { // booked by the last process: dockerd has to hurry
			limit = retryTime
		}
		if now.Sub(at) >= limit {
			ripe = append(ripe, Idle{p.ID, p.Network, a, at})
		}
	}
	r.idle[p.ID] = next
	return ripe
}

// IdleAddresses lists what the last Audit found and has not freed yet.
func (r *Registry) IdleAddresses() (list []Idle) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for id, addrs := range r.idle {
		e := r.pools[id]
		if e == nil {
			continue
		}
		p := e.value.Load()
		for a, at := range addrs {
			if p != nil && p.taken(a) {
				list = append(list, Idle{id, p.Network, a, at})
			}
		}
	}
	slices.SortFunc(list, func(a, b Idle) int { return a.Addr.Compare(b.Addr) })
	return list
}

// without are the addresses booked for endpoints that no endpoint has. There are
// none in a pool that no network of ours has claimed: another driver's network
// may use it.
func (p Pool) without(used func(string) (map[netip.Addr]bool, bool)) (idle []netip.Addr) {
	if p.Network == "" || p.Own == nil {
		return nil
	}
	for _, a := range p.Addrs {
		if _, own := slices.BinarySearchFunc(p.Own, a, netip.Addr.Compare); !own && a != p.Gateway {
			idle = append(idle, a)
		}
	}
	if len(idle) == 0 {
		return nil
	}
	addrs, known := used(p.Network)
	if !known {
		return nil
	}
	return slices.DeleteFunc(idle, func(a netip.Addr) bool { return addrs[a] })
}
