package network

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"
)

// Annotate records what Docker's events told of a network and its endpoints:
// names and container ids. Unknown ids are ignored, equal values write nothing.
func (m *Manager) Annotate(id ID, name string, eps map[EndpointID]Container) error {
	e := m.entry(id)
	if e == nil {
		return nil
	}
	n := e.value()
	changed := false
	engine := m.engine()
	if name != "" && n.Name != name || engine != "" && n.Engine != engine {
		changed = true
		err := m.changeNetwork(e, false, func(n *Network) {
			n.Name, n.Engine = cmp.Or(name, n.Name), cmp.Or(engine, n.Engine)
		})
		if err != nil {
			return err
		}
	}
	for eid, c := range eps {
		ep, ok := n.Endpoint(eid)
		if !ok || ep.Phase == PhaseDeleting || ep.ContainerID == c.ID && ep.ContainerName == c.Name {
			continue
		}
		changed = true
		err := m.changeEndpoint(e, eid, func(ep *Endpoint) { ep.ContainerID, ep.ContainerName = c.ID, c.Name })
		if err != nil {
			return err
		}
	}
	if changed {
		m.repair.add(id, 0)
	}
	return nil
}

// Docker does not tell a driver that is away of a network that it removes. So
// lists of what it has are compared, with care: a network goes when it is missing
// from two complete lists, some time apart, of the same engine on the same data
// directory that had it before, and no container uses it.

// forgetAfter is the time between the first and the last list without a network.
const forgetAfter = 15 * time.Second

// Known takes a complete list of the networks that an engine has, and tells
// whether another one is wanted soon. engine names the engine with its data
// directory.
func (m *Manager) Known(ctx context.Context, engine string, ids map[ID]bool) (again bool) {
	m.docker.Store(&engine)
	for _, n := range m.Networks() {
		if n.Phase != PhaseActive {
			continue
		}
		if ids[n.ID] {
			m.sighted(n, engine)
			continue
		}
		first, suspect := m.missed(n, engine)
		switch {
		case !suspect:
		case m.now().Sub(first) < forgetAfter:
			again = true
		default:
			m.log.InfoContext(ctx, "removing a network that Docker removed while the driver was away", "nid", n.ID)
			if err := errors.Join(m.pools.Forget(n.ID), m.DeleteNetwork(ctx, n.ID)); err != nil {
				m.log.WarnContext(ctx, "cannot remove it", "nid", n.ID, "err", err)
			}
		}
	}
	return again
}

// sighted notes that an engine has the network.
func (m *Manager) sighted(n Network, engine string) {
	m.mu.Lock()
	delete(m.missing, n.ID)
	m.mu.Unlock()
	e := m.entry(n.ID)
	if e == nil || n.Engine == engine {
		return
	}
	if err := m.changeNetwork(e, false, func(n *Network) { n.Engine = engine }); err != nil {
		m.log.Warn("cannot record where a network belongs", "nid", n.ID, "err", err)
	}
}

// engine names the engine that is followed, or was followed last.
func (m *Manager) engine() string {
	if name := m.docker.Load(); name != nil {
		return *name
	}
	return ""
}

// missed notes that an engine does not have the network, and since when. It is
// no suspect if the engine was never seen to have it, if it is younger than the list may be,
// if it is a swarm's (Docker leaves those out when it does not reach its
// managers), or if a container uses it.
func (m *Manager) missed(n Network, engine string) (first time.Time, suspect bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	inUse := slices.ContainsFunc(n.SortedEndpoints(), func(ep Endpoint) bool {
		return ep.Phase != PhaseDeleting && ep.Phase != PhaseLeft && ep.Phase != PhaseParting
	})
	if n.Engine != engine || now.Sub(n.Created) < forgetAfter || len(n.ID) != 64 || inUse {
		delete(m.missing, n.ID)
		return now, false
	}
	if _, known := m.missing[n.ID]; !known {
		m.missing[n.ID] = now
	}
	return m.missing[n.ID], true
}

// Container is who uses an endpoint.
type Container struct{ ID, Name string }

// abandonAddrs frees the addresses of an endpoint that Docker forgot, unless a
// successor has them, or one that comes is to keep them.
func (m *Manager) abandonAddrs(n Network, ep Endpoint, keep []netip.Addr) {
	free := slices.DeleteFunc(slices.Clone(n.bookedFor(ep)), func(a netip.Addr) bool { return slices.Contains(keep, a) || m.Uses(n.ID, a) })
	if err := m.pools.Abandon(n.ID, free); err != nil {
		m.log.Warn("cannot free addresses", "nid", n.ID, "eid", ep.ID, "err", err)
	}
}

// bookedFor are the addresses that an IPAM driver has booked for an endpoint: its own,
// unless those come from outside.
func (n Network) bookedFor(ep Endpoint) []netip.Addr {
	if n.SelfWired() {
		return ep.Booked
	}
	return addrsOf(ep)
}

// Released tells the manager that Docker gives an address of the network back, and
// returns whether it is free then. It is not if a living endpoint has it: the call
// is late, of an endpoint that was given up before. An endpoint of which Docker may
// not know ends with it: its creation was not answered, and this is all that
// Docker says of it.
func (m *Manager) Released(id ID, addr netip.Addr) (free bool) {
	if e := m.entry(id); e != nil {
		n := e.value()
		for _, ep := range n.Endpoints {
			if ep.Unsure && ep.Phase == PhaseCreated && slices.Contains(n.bookedFor(*ep), addr) {
				m.kill(e, ep.ID)
			}
		}
	}
	return !m.Uses(id, addr)
}

// Uses tells whether an address of the network is booked for a living endpoint.
func (m *Manager) Uses(id ID, addr netip.Addr) bool {
	e := m.entry(id)
	if e == nil {
		return false
	}
	n := e.value()
	for _, ep := range n.Endpoints {
		if ep.Phase != PhaseDeleting && ep.Phase != PhaseLeft && slices.Contains(n.bookedFor(*ep), addr) {
			return true
		}
	}
	return false
}

// UsedAddrs are the addresses booked for the living endpoints of a network. known is false when they may be incomplete, and for a swarm's network:
// its addresses are booked for other hosts, too.
func (m *Manager) UsedAddrs(id ID) (used map[netip.Addr]bool, known bool) {
	e := m.entry(id)
	if e == nil || len(id) != 64 || e.value().Phase != PhaseActive {
		return nil, false
	}
	if slices.ContainsFunc(m.Damaged(), func(d Damage) bool { return d.Network == id }) {
		return nil, false
	}
	n := e.value()
	used = make(map[netip.Addr]bool, len(n.Endpoints))
	for _, ep := range n.Endpoints {
		if ep.Phase == PhaseLeft || ep.Phase == PhaseDeleting {
			continue // Docker gives its addresses back, or tried to
		}
		for _, a := range n.bookedFor(*ep) {
			used[a] = true
		}
	}
	return used, true
}

// addrsOf returns the bare addresses of an endpoint.
func addrsOf(ep Endpoint) []netip.Addr { return bare(ep.Addrs) }

// bare are addresses without the length of their prefix.
func bare(list []netip.Prefix) []netip.Addr {
	addrs := make([]netip.Addr, 0, len(list))
	for _, p := range list {
		addrs = append(addrs, p.Addr())
	}
	return addrs
}

// Has tells whether a network is known.
func (m *Manager) Has(id ID) bool { return m.entry(id) != nil }
