package network

import (
	"context"
	"errors"
	"slices"
	"time"
)

// dueFor6 is when something has to be done for the IPv6 of an endpoint, zero for
// never.
func dueFor6(ep Endpoint) time.Time {
	if ep.Lease6 == nil || ep.Phase != PhaseJoined {
		return time.Time{}
	}
	return ep.Lease6.Renew
}

// keepLease6 does what is due for the IPv6 of an endpoint, and returns when to try
// again if that failed.
func (m *Manager) keepLease6(ctx context.Context, id ID, ep Endpoint) (again time.Time) {
	e := m.entry(id)
	if e == nil {
		return time.Time{}
	}
	n := e.value()
	ep, ok := n.Endpoint(ep.ID)
	if !ok || ep.Phase != PhaseJoined || ep.Lease6 == nil {
		return time.Time{}
	}
	now := m.now()
	if alive, known := m.alive(ep.Sandbox); known && !alive {
		return now.Add(leaseAgain) // it will be swept
	}
	l, refused, err := m.again6(ctx, e, n, ep)
	if ctx.Err() != nil {
		return now.Add(leaseAgain)
	}
	if err == nil {
		err = m.settle6(ctx, e, ep.ID, l)
	}
	log := m.log.With("nid", id, "eid", ep.ID, "addrs", ep.Lease6.Addrs)
	began := now
	now = m.now()
	switch {
	case err == nil:
		return now.Add(leaseLeast)
	case refused:
		log.Debug("no new IPv6 addresses", "err", err)
		return now.Add(jitter(leaseRarely / 2))
	}
	log.Info("IPv6 addresses were not renewed", "expires", ep.Lease6.Expire, "err", err)
	left, next := ep.Lease6.left(now)
	if len(left.Addrs) < len(ep.Lease6.Addrs) {
		if err := m.settle6(ctx, e, ep.ID, left); err != nil {
			log.Warn("cannot take IPv6 addresses off a container", "left", left.Addrs, "err", err)
		}
	}
	if again = now.Add(jitter(leaseRarely)); !left.Expire.IsZero() {
		again = retryLease(Lease{Rebind: left.Rebind, Expire: left.Expire}, began, now)
	}
	if !next.IsZero() && next.Before(again) {
		again = next
	}
	return again
}

// left is what an endpoint still has when nobody answers, and when the next of it ends,
// zero for never. Something is left as long as the whole has not ended.
func (l Lease6) left(now time.Time) (left Lease6, next time.Time) {
	left = l
	left.Addrs = nil
	for _, a := range l.Addrs {
		end := l.Ends[a.Addr()]
		if !end.IsZero() && !end.After(now) {
			continue
		}
		left.Addrs = append(left.Addrs, a)
		if !end.IsZero() && (next.IsZero() || end.Before(next)) {
			next = end
		}
	}
	if len(left.Addrs) == 0 {
		return l, time.Time{}
	}
	return left, next
}

// again6 asks for what an endpoint has, and for anything if it has nothing any more or
// that was refused.
func (m *Manager) again6(ctx context.Context, e *entry, n Network, ep Endpoint) (l Lease6, refused bool, err error) {
	if ep.Has6() {
		if l, err = m.prolong6(ctx, n, ep, m.now()); !errors.Is(err, ErrLeaseRefused) {
			return l, false, err
		}
		m.log.Warn("IPv6 addresses are over: they are taken off the container", "nid", n.ID, "eid", ep.ID, "addrs", ep.Lease6.Addrs, "err", err)
		m.lose6(ctx, e, ep)
	}
	ask, cancel := context.WithTimeout(ctx, n.Config.DHCPTimeout)
	defer cancel()
	l, err = m.inside.Acquire6(ask, n, ep, leaseAsk)
	return l, true, err
}

// prolong6 asks for what an endpoint has. ErrLeaseRefused says that it is over.
func (m *Manager) prolong6(ctx context.Context, n Network, ep Endpoint, now time.Time) (Lease6, error) {
	l := ep.Lease6
	if l.ends(now) {
		return Lease6{}, ErrLeaseRefused
	}
	end := now.Add(leaseAsk)
	rebind := !l.Rebind.IsZero() && !now.Before(l.Rebind)
	for _, turn := range []time.Time{l.Rebind, l.Expire} {
		if turn.After(now) && end.After(turn) {
			end = turn
		}
	}
	ask, cancel := context.WithTimeout(ctx, end.Sub(now))
	defer cancel()
	return m.inside.Renew6(ask, n, ep, rebind)
}

// settle6 makes a container have what it was given anew.
func (m *Manager) settle6(ctx context.Context, e *entry, eid EndpointID, l Lease6) error {
	before, ok := e.value().Endpoint(eid)
	if !ok || before.Phase != PhaseJoined {
		return errGone
	}
	if err := m.adopt6(e, eid, l); err != nil {
		return err
	}
	n := e.value()
	ep, ok := n.Endpoint(eid)
	if !ok {
		return errGone
	}
	if slices.Equal(before.family(true), l.Addrs) {
		return nil
	}
	if before.Lease6.Addrs[0] != l.Addrs[0] {
		m.log.WarnContext(ctx, "the IPv6 address of a container changed, Docker goes on showing the old one", "nid", n.ID, "eid", eid, "old", before.Lease6.Addrs[0], "new", l.Addrs[0])
	}
	m.repair.add(n.ID, 0) // what the fabric knows of addresses
	old := before.Lease6
	if !before.Has6() {
		old = nil
	}
	err := m.inside.Configure6(ctx, n, ep, old)
	if err == nil {
		return nil
	}
	// The next try has to see the difference.
	if old == nil {
		m.lose6(ctx, e, ep)
		return err
	}
	return errors.Join(err, m.adopt6(e, eid, *old))
}

// lose6 takes IPv6 addresses that are over off a container.
func (m *Manager) lose6(ctx context.Context, e *entry, ep Endpoint) {
	err := m.readdress(e, ep.ID, true, nil, func(*Endpoint) {})
	if err == nil {
		n := e.value()
		bare := ep
		bare.setFamily(true, nil)
		m.repair.add(n.ID, 0)
		err = m.inside.Configure6(ctx, n, bare, ep.Lease6)
	}
	if err != nil && !errors.Is(err, errGone) {
		m.log.WarnContext(ctx, "cannot take IPv6 addresses off a container", "nid", ep.Network, "eid", ep.ID, "addrs", ep.Lease6.Addrs, "err", err)
	}
}
