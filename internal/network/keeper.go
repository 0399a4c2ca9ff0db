package network

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Times of the keeper of leases.
const (
	leaseWorkers = 64               // exchanges at a time
	leaseAsk     = 5 * time.Second  // how long one exchange may take
	leaseAgain   = 10 * time.Second // the least time between two of one lease
	leaseRarely  = time.Minute      // and when there is no address at all
	leaseLeast   = time.Second      // and after one that succeeded, whatever times it says
)

// keeper remembers when leases are to be looked after.
type keeper struct {
	due  func(Endpoint) time.Time                                        // zero for never
	tend func(ctx context.Context, id ID, ep Endpoint) (again time.Time) // zero if it was done

	wake chan struct{} // capacity 1

	mu   sync.Mutex // guards the following
	busy map[EndpointID]bool
	next map[EndpointID]time.Time // after a try that failed
}

func (k *keeper) init(due func(Endpoint) time.Time, tend func(context.Context, ID, Endpoint) time.Time) {
	k.due, k.tend = due, tend
	k.wake = make(chan struct{}, 1)
	k.busy = make(map[EndpointID]bool)
	k.next = make(map[EndpointID]time.Time)
}

func (k *keeper) poke() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// dueFor is when something has to be done for the lease of an endpoint, zero for
// never.
func dueFor(ep Endpoint) time.Time {
	switch {
	case ep.Lease == nil:
	case ep.Phase == PhaseJoined && !ep.Has4():
		return ep.Lease.From // the time of the next try counts
	case ep.Phase == PhaseJoined:
		return ep.Lease.Renew
	case ep.Phase == PhaseParting:
		return ep.Release
	}
	return time.Time{}
}

// begin tells when the lease of ep is due, zero for never, and marks it busy if that is
// now.
func (k *keeper) begin(ep Endpoint, now time.Time) (due time.Time, mine bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.busy[ep.ID] {
		return time.Time{}, false
	}
	if due = k.due(ep); due.IsZero() {
		return due, false // also if it was to be tried again
	}
	if next, failed := k.next[ep.ID]; failed && next.After(due) {
		due = next
	}
	if due.After(now) {
		return due, false
	}
	k.busy[ep.ID] = true
	return due, true
}

func (k *keeper) end(id EndpointID, again time.Time) {
	k.mu.Lock()
	delete(k.busy, id)
	delete(k.next, id)
	if !again.IsZero() {
		k.next[id] = again
	}
	k.mu.Unlock()
	k.poke()
}

func (k *keeper) forget(id EndpointID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.next, id)
}

// runLeases looks after the leases of a keeper until ctx ends.
func (m *Manager) runLeases(ctx context.Context, k *keeper) error {
	var workers errgroup.Group
	workers.SetLimit(leaseWorkers)
	defer workers.Wait() //nolint:errcheck // the workers return no error
	next := newAlarm(0)
	defer next.stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.wake:
		case <-next.rung:
		}
		next.set(m.lookAfter(ctx, k, &workers))
	}
}

// lookAfter starts what is due now, and returns how long nothing else is.
func (m *Manager) lookAfter(ctx context.Context, k *keeper, workers *errgroup.Group) (wait time.Duration) {
	wait = time.Hour
	for _, n := range m.Networks() {
		if !n.Config.DHCP || n.Phase != PhaseActive {
			continue
		}
		now := m.now()
		for _, ep := range n.Endpoints {
			due, mine := k.begin(*ep, now)
			switch {
			case mine:
				workers.Go(func() error {
					k.end(ep.ID, k.tend(ctx, n.ID, *ep))
					return nil
				})
			case !due.IsZero():
				wait = min(wait, due.Sub(now))
			}
		}
	}
	return wait
}

// tend does what is due for an endpoint, and returns when to try again if that
// failed.
func (m *Manager) tend(ctx context.Context, id ID, ep Endpoint) (again time.Time) {
	if ep.Phase == PhaseParting {
		m.endParting(ctx, id, ep.ID)
		return time.Time{}
	}
	return m.keepLease(ctx, id, ep.ID)
}

// keepLease does what is due for a lease, and returns when to try again if that
// failed.
func (m *Manager) keepLease(ctx context.Context, id ID, eid EndpointID) (again time.Time) {
	e := m.entry(id)
	if e == nil {
		return time.Time{}
	}
	n := e.value()
	ep, ok := n.Endpoint(eid)
	if !ok || ep.Phase != PhaseJoined || ep.Lease == nil {
		return time.Time{}
	}
	log := m.log.With("nid", id, "eid", eid, "addr", ep.Lease.Addr)
	now := m.now()
	if alive, known := m.alive(ep.Sandbox); known && !alive {
		return now.Add(leaseAgain) // it will be swept
	}
	had := ep.Has4()
	err := ErrLeaseRefused
	var l Lease
	if had && !ep.Lease.ends(now) {
		l, err = m.askAgain(ctx, n, ep, now)
	}
	refused := errors.Is(err, ErrLeaseRefused)
	if err != nil && refused {
		// It is over, and its address perhaps somebody else's by the time that one
		// server or another has answered. The same one, if that can be had.
		if had {
			log.Warn("a lease is over: its address is taken off the container", "err", err)
			m.loseAddress(ctx, e, ep)
		}
		ask, cancel := context.WithTimeout(ctx, n.Config.DHCPTimeout)
		l, err = m.inside.Acquire(ask, n, ep, ep.Lease.Addr.Addr())
		cancel()
	}
	if ctx.Err() != nil {
		return now.Add(leaseAgain)
	}
	if err == nil {
		err = m.settleLease(ctx, e, eid, l)
	}
	began := now
	now = m.now()
	switch {
	case err == nil:
		return now.Add(leaseLeast)
	case refused:
		log.Debug("no new lease", "err", err)
		return now.Add(jitter(leaseRarely / 2))
	}
	log.Info("a lease was not renewed", "expires", ep.Lease.Expire, "err", err)
	return retryLease(*ep.Lease, began, now)
}

// askAgain renews a lease, or has any server do it.
func (m *Manager) askAgain(ctx context.Context, n Network, ep Endpoint, now time.Time) (Lease, error) {
	end := now.Add(leaseAsk)
	all := !now.Before(ep.Lease.Rebind)
	if !all && end.After(ep.Lease.Rebind) {
		end = ep.Lease.Rebind
	}
	if !ep.Lease.Expire.IsZero() && end.After(ep.Lease.Expire) {
		end = ep.Lease.Expire
	}
	ctx, cancel := context.WithTimeout(ctx, end.Sub(now))
	defer cancel()
	return m.inside.Renew(ctx, n, ep, all)
}

// retryLease tells when to ask again for a lease that was not renewed: after half
// of what is left, and at its turning points (RFC 2131, section 4.4.5). The try that
// failed began at began.
func retryLease(l Lease, began, now time.Time) time.Time {
	until := l.Rebind
	if !began.Before(until) {
		until = l.Expire
	}
	at := now.Add(max(until.Sub(now)/2, leaseAgain))
	if at.After(until) {
		at = until
	}
	return at
}

// settleLease makes a container have what was granted anew.
func (m *Manager) settleLease(ctx context.Context, e *entry, eid EndpointID, l Lease) error {
	before, ok := e.value().Endpoint(eid)
	if !ok || before.Phase != PhaseJoined {
		return errGone
	}
	if err := m.adopt(e, eid, l); err != nil {
		return err
	}
	n := e.value()
	ep, ok := n.Endpoint(eid)
	if !ok {
		return errGone
	}
	l = *ep.Lease // what of it can be made
	old := before.Lease
	if !before.Has4() {
		old = nil
	}
	if old != nil && old.Addr == l.Addr && old.Router == l.Router && slices.Equal(old.Routes, l.Routes) {
		return m.inside.Configure(ctx, n, ep, nil) // if something of it went missing
	}
	if before.Lease.Addr != l.Addr {
		m.log.WarnContext(ctx, "the address of a container changed, Docker goes on showing the old one", "nid", n.ID, "eid", eid, "old", before.Lease.Addr, "new", l.Addr)
	}
	m.repair.add(n.ID, 0) // what the fabric knows of addresses
	err := m.inside.Configure(ctx, n, ep, old)
	if err == nil {
		return nil
	}
	// The next try has to see the difference.
	if old == nil {
		m.loseAddress(ctx, e, ep)
		return err
	}
	return errors.Join(err, m.adopt(e, eid, *old))
}

// loseAddress takes the address of a lease that is over off a container.
func (m *Manager) loseAddress(ctx context.Context, e *entry, ep Endpoint) {
	n := e.value()
	err := m.readdress(e, ep.ID, false, nil, func(*Endpoint) {})
	if err == nil {
		bare := ep
		bare.setFamily(false, nil)
		m.repair.add(n.ID, 0)
		err = m.inside.Configure(ctx, n, bare, ep.Lease)
	}
	if err != nil {
		m.log.WarnContext(ctx, "cannot take an address off a container", "nid", n.ID, "eid", ep.ID, "addr", ep.Lease.Addr, "err", err)
	}
}
