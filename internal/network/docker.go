package network

import (
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
	if name != "" && n.Name != name {
		changed = true
		if err := m.changeNetwork(e, false, func(n *Network) { n.Name = name }); err != nil {
			return err
		}
	}
	for eid, c := range eps {
		ep, ok := n.Endpoints[eid]
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

// Known takes a complete list of the networks that Docker has. One of ours that
// is missing is only reported: Docker may run on another data directory today.
func (m *Manager) Known(ids map[ID]bool) { m.docker.Store(&ids) }

// forgotten tells whether Docker does not have the network any more. Networks
// that are younger than the list cannot be told, nor can those of a swarm, which
// Docker leaves out when it does not reach its managers.
func (m *Manager) forgotten(n Network) bool {
	listed := m.docker.Load()
	return listed != nil && !(*listed)[n.ID] && len(n.ID) == 64 && m.now().Sub(n.Created) > safetyNet+time.Minute
}

// Container is who uses an endpoint.
type Container struct{ ID, Name string }

// abandonAddrs frees the addresses of an endpoint that Docker forgot.
func (m *Manager) abandonAddrs(id ID, ep Endpoint) {
	if err := m.pools.Abandon(id, addrsOf(ep)); err != nil {
		m.log.Warn("cannot free addresses", "nid", id, "eid", ep.ID, "err", err)
	}
}

// Uses tells whether a living endpoint of the network has the address.
func (m *Manager) Uses(id ID, addr netip.Addr) bool {
	e := m.entry(id)
	if e == nil {
		return false
	}
	for _, ep := range e.value().Endpoints {
		if ep.Phase != PhaseDeleting && ep.Phase != PhaseLeft && slices.Contains(addrsOf(ep), addr) {
			return true
		}
	}
	return false
}

// addrsOf returns the bare addresses of an endpoint.
func addrsOf(ep Endpoint) []netip.Addr {
	addrs := make([]netip.Addr, 0, len(ep.Addrs))
	for _, p := range ep.Addrs {
		addrs = append(addrs, p.Addr())
	}
	return addrs
}

// Has tells whether a network is known.
func (m *Manager) Has(id ID) bool { return m.entry(id) != nil }
