package network

import (
	"context"
	"net/netip"
)

// part makes an endpoint that Docker deletes one that only has its lease, if that is
// to be kept for a while, and tells whether it did.
func (m *Manager) part(e *entry, ep Endpoint) bool {
	n, l := e.value(), ep.Lease
	at := m.now().Add(n.Config.DHCPGrace).UTC()
	switch {
	case n.Config.DHCPRelease != ReleaseAfter || !ep.stable() || n.Phase != PhaseActive || l == nil || !ep.Has4(),
		ep.Phase == PhaseDeleting || ep.Phase == PhaseParting, !l.Expire.IsZero() && at.After(l.Expire): // it will have run out by then
		return false
	}
	m.vacate(n, ep)
	err := m.changeEndpoint(e, ep.ID, func(ep *Endpoint) {
		ep.Phase, ep.Addrs, ep.Booked, ep.Sandbox, ep.Release = PhaseParting, nil, nil, "", at
	})
	if err != nil {
		m.log.Warn("a lease cannot be kept and will run out", "nid", n.ID, "eid", ep.ID, "addr", l.Addr, "err", err)
		return false
	}
	m.keeper.poke()
	return true
}

// returned forgets the parting endpoint whose container comes back as another one, and
// returns the address of its lease.
func (m *Manager) returned(e *entry, ep Endpoint) (kept netip.Addr) {
	for id, old := range e.value().Endpoints {
		if old.Phase == PhaseParting && (old.MAC == ep.MAC || ep.ClientID != "" && old.ClientID == ep.ClientID) {
			kept = old.Lease.Addr.Addr()
			m.kill(e, id)
		}
	}
	return kept
}

// endParting gives the lease of a parting endpoint back, over a port that is made
// for that, unless somebody else in its segment is the same to the server by now.
func (m *Manager) endParting(ctx context.Context, id ID, eid EndpointID) {
	e := m.entry(id)
	if e == nil {
		return
	}
	n := e.value()
	ep, ok := n.Endpoint(eid)
	if !ok || ep.Phase != PhaseParting {
		return
	}
	if ep.Lease.ends(m.now()) {
		m.kill(e, eid)
		return
	}
	ep.Addrs = []netip.Prefix{ep.Lease.Addr}
	if ep.Lease6 != nil {
		ep.Addrs = append(ep.Addrs, ep.Lease6.Addrs...)
	}
	evicted, err := m.occupy(n, ep)
	defer m.entered(eid)
	for _, other := range evicted {
		m.kill(e, other)
	}
	if err == nil {
		err = m.releaseAlone(ctx, e, ep)
	}
	if ctx.Err() != nil && err != nil {
		m.vacate(n, ep) // it is tried again after a restart
		return
	}
	if err != nil {
		m.log.Debug("a lease was not released and will run out", "nid", id, "eid", eid, "addr", ep.Lease.Addr, "err", err)
	}
	m.vacate(n, ep) // what its record may not have
	m.kill(e, eid)
}

func (m *Manager) releaseAlone(ctx context.Context, e *entry, ep Endpoint) error {
	ctx, cancel := context.WithTimeout(ctx, leaseAsk)
	defer cancel()
	if err := m.changeEndpoint(e, ep.ID, func(now *Endpoint) { now.Phase, now.Addrs = PhaseJoining, ep.Addrs }); err != nil {
		return err
	}
	if err := m.fabric.Ready(ctx, e.value().Config); err != nil {
		return err
	}
	if err := m.applyFor(ctx, e, ep.ID); err != nil {
		return err
	}
	if err := m.fabric.Await(ctx, e.value(), ep.ID); err != nil {
		return err
	}
	m.giveBack6(e.value(), ep)
	return m.inside.Release(e.value(), ep)
}
