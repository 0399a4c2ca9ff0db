package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Lease is what a DHCP server has granted an endpoint.
type Lease struct {
	Addr   netip.Prefix `json:"addr"`
	Router netip.Addr   `json:"router,omitzero"` // of the default route
	Routes []Route      `json:"routes,omitempty"`
	MTU    int          `json:"mtu,omitempty"`
	DNS    []netip.Addr `json:"dns,omitempty"`
	Domain string       `json:"domain,omitempty"`

	Server    netip.Addr `json:"server"`
	ServerMAC string     `json:"server_mac"` // the server's, or that of the relay before it

	From   time.Time `json:"from"`
	Renew  time.Time `json:"renew,omitzero"` // zero, as the two that follow: it never ends
	Rebind time.Time `json:"rebind,omitzero"`
	Expire time.Time `json:"expire,omitzero"`
}

// ErrLeaseRefused is the answer of a server to an address that must not be used any
// more.
var ErrLeaseRefused = errors.New("the DHCP server refused the address")

// Times of the keeper of leases.
const (
	leaseWorkers = 8                // exchanges at a time
	leaseAsk     = 5 * time.Second  // how long one exchange may take
	leaseAgain   = 10 * time.Second // the least time between two of one lease
	leaseRarely  = time.Minute      // and when there is no address at all
)

// ends tells whether the lease is over.
func (l *Lease) ends(now time.Time) bool { return !l.Expire.IsZero() && !now.Before(l.Expire) }

// leased has an endpoint that was just entered get its lease. Its port is made for
// that, its link is still here. On an error the endpoint is removed again.
func (m *Manager) leased(ctx context.Context, e *entry, ep Endpoint) (Endpoint, error) {
	err := m.takeLease(ctx, e, ep.ID)
	if err == nil {
		if ep, ok := e.value().Endpoint(ep.ID); ok && ep.Phase != PhaseDeleting {
			return ep, nil
		}
		err = errGone
	}
	m.unjoin(ctx, e, ep)
	return Endpoint{}, err
}

func (m *Manager) takeLease(ctx context.Context, e *entry, id EndpointID) error {
	if err := m.changeEndpoint(e, id, func(ep *Endpoint) { ep.Phase = PhaseJoining }); err != nil {
		return err
	}
	if err := m.fabric.Ready(ctx, e.value().Config); err != nil {
		return err
	}
	if err := m.applyFor(ctx, e, id); err != nil {
		return err
	}
	if err := m.fabric.Await(ctx, e.value(), id); err != nil {
		return err
	}
	n := e.value()
	ep, ok := n.Endpoint(id)
	if !ok {
		return errGone
	}
	ask, cancel := context.WithTimeout(ctx, n.Config.DHCPTimeout)
	defer cancel()
	end := Outside(ctx)
	l, err := m.inside.Acquire(ask, n, ep, netip.Addr{})
	end()
	if err != nil {
		return fmt.Errorf("%w (dhcp.timeout is %s, %s)", err, n.Config.DHCPTimeout, n.Config.segment())
	}
	return m.adopt(e, id, l)
}

// adopt makes the address of a lease the endpoint's, unless somebody in its segment
// has it.
func (m *Manager) adopt(e *entry, id EndpointID, l Lease) error {
	n := e.value()
	ep, ok := n.Endpoint(id)
	if !ok || ep.Phase == PhaseDeleting {
		return errGone
	}
	l.Routes = l.sane()
	old := ep
	ep.Addrs = []netip.Prefix{l.Addr}
	if !slices.Equal(old.Addrs, ep.Addrs) {
		evicted, err := m.occupy(n, ep)
		if err != nil {
			return fmt.Errorf("the DHCP server %s gave an address to two: %w", l.Server, err)
		}
		for _, other := range evicted {
			m.kill(e, other)
		}
		old.MAC = "" // that one stays
		m.vacate(n, old)
	}
	return m.changeEndpoint(e, id, func(ep *Endpoint) {
		ep.Addrs, ep.Lease = []netip.Prefix{l.Addr}, &l
	})
}

// sane are the routes of a lease that can be made: Docker starts no container if one
// of them fails. Its own subnet is routed already, and a router has to be on the link.
func (l Lease) sane() (routes []Route) {
	onLink := func(a netip.Addr) bool {
		return l.Addr.Contains(a) || slices.ContainsFunc(l.Routes, func(r Route) bool { return !r.Via.IsValid() && r.To.Contains(a) })
	}
	seen := make(map[netip.Prefix]bool)
	for _, r := range l.Routes {
		switch a := r.To.Addr(); {
		case seen[r.To], !a.Is4(), a.IsMulticast(), a.IsLoopback(), r.To == l.Addr.Masked(), r.Via.IsValid() && !onLink(r.Via):
			continue
		}
		seen[r.To] = true
		routes = append(routes, r)
	}
	return routes
}

// gateway is the default route of a lease with what it takes to reach it.
func (l Lease) gateway() (via netip.Addr, first []Route) {
	direct := slices.ContainsFunc(l.Routes, func(r Route) bool { return !r.Via.IsValid() && r.To.Contains(l.Router) })
	if l.Router.IsValid() && !l.Addr.Contains(l.Router) && !direct {
		first = []Route{{To: netip.PrefixFrom(l.Router, l.Router.BitLen())}}
	}
	return l.Router, first
}

// stable tells whether the server will know the container again when it comes back.
func (ep Endpoint) stable() bool { return ep.ClientID != "" || ep.OwnMAC }

// giveBack releases the lease of an endpoint whose container goes, once, if its
// network is to.
func (m *Manager) giveBack(n Network, ep Endpoint) {
	l := ep.Lease
	if l == nil || len(ep.Addrs) == 0 || l.ends(m.now()) {
		return
	}
	switch n.Config.DHCPRelease {
	case ReleaseNever:
		return
	case ReleaseStable, ReleaseAfter:
		if ep.stable() {
			return
		}
	}
	if err := m.inside.Release(n, ep); err != nil {
		m.log.Debug("a lease was not released and will run out", "nid", n.ID, "eid", ep.ID, "addr", l.Addr, "err", err)
	}
}

// part makes an endpoint that Docker deletes one that only has its lease, if that is
// to be kept for a while, and tells whether it did.
func (m *Manager) part(e *entry, ep Endpoint) bool {
	n, l := e.value(), ep.Lease
	at := m.now().Add(n.Config.DHCPGrace).UTC()
	switch {
	case n.Config.DHCPRelease != ReleaseAfter || !ep.stable() || n.Phase != PhaseActive || l == nil || len(ep.Addrs) == 0,
		ep.Phase == PhaseDeleting || ep.Phase == PhaseParting, !l.Expire.IsZero() && at.After(l.Expire): // it will have run out by then
		return false
	}
	m.vacate(n, ep)
	err := m.changeEndpoint(e, ep.ID, func(ep *Endpoint) { ep.Phase, ep.Addrs, ep.Sandbox, ep.Release = PhaseParting, nil, "", at })
	if err != nil {
		m.log.Warn("a lease cannot be kept and will run out", "nid", n.ID, "eid", ep.ID, "addr", l.Addr, "err", err)
		return false
	}
	m.keeper.poke()
	return true
}

// returned forgets the parting endpoint whose container comes back as another one.
func (m *Manager) returned(e *entry, ep Endpoint) {
	for id, old := range e.value().Endpoints {
		if old.Phase == PhaseParting && (old.MAC == ep.MAC || ep.ClientID != "" && old.ClientID == ep.ClientID) {
			m.kill(e, id)
		}
	}
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
	ep.Addrs = []netip.Prefix{ep.Lease.Addr}
	evicted, err := m.occupy(n, ep)
	for _, other := range evicted {
		m.kill(e, other)
	}
	if err == nil && !ep.Lease.ends(m.now()) {
		err = m.releaseAlone(ctx, e, ep)
	}
	if ctx.Err() != nil && err != nil {
		m.vacate(n, ep) // it is tried again after a restart
		return
	}
	if err != nil {
		m.log.Debug("a lease was not released and will run out", "nid", id, "eid", eid, "addr", ep.Lease.Addr, "err", err)
	}
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
	return m.inside.Release(e.value(), ep)
}

// keeper remembers when leases are to be looked after.
type keeper struct {
	wake chan struct{} // capacity 1

	mu   sync.Mutex // guards the following
	busy map[EndpointID]bool
	next map[EndpointID]time.Time // after a try that failed
}

func (k *keeper) init() {
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
	case ep.Phase == PhaseJoined:
		return ep.Lease.Renew
	case ep.Phase == PhaseParting:
		return ep.Release
	}
	return time.Time{}
}

// begin tells when the lease of ep is due, and marks it busy if that is now.
func (k *keeper) begin(ep Endpoint, now time.Time) (due time.Time, mine bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.busy[ep.ID] {
		return time.Time{}, false
	}
	due = dueFor(ep)
	if next, failed := k.next[ep.ID]; failed && next.After(due) {
		due = next
	}
	if dueFor(ep).IsZero() || due.After(now) {
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

// runLeases looks after all leases until ctx ends.
func (m *Manager) runLeases(ctx context.Context) error {
	var workers errgroup.Group
	workers.SetLimit(leaseWorkers)
	defer workers.Wait() //nolint:errcheck // the workers return no error
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.keeper.wake:
		case <-timer.C:
		}
		now, wait := m.now(), time.Hour
		for _, n := range m.Networks() {
			if !n.Config.DHCP || n.Phase != PhaseActive {
				continue
			}
			for _, ep := range n.Endpoints {
				due, mine := m.keeper.begin(*ep, now)
				if !mine {
					if !due.IsZero() {
						wait = min(wait, due.Sub(now))
					}
					continue
				}
				workers.Go(func() error {
					if ep.Phase == PhaseParting {
						m.endParting(ctx, n.ID, ep.ID)
						m.keeper.end(ep.ID, time.Time{})
						return nil
					}
					m.keeper.end(ep.ID, m.keepLease(ctx, n.ID, ep.ID))
					return nil
				})
			}
		}
		timer.Reset(wait)
	}
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
	had := len(ep.Addrs) > 0
	err := ErrLeaseRefused
	var l Lease
	if had && !ep.Lease.ends(now) {
		l, err = m.askAgain(ctx, n, ep, now)
	}
	refused := errors.Is(err, ErrLeaseRefused)
	if err != nil && refused {
		// It is over. The same address, if that can be had.
		if had && !ep.Lease.ends(now) {
			log.Warn("the DHCP server took a lease back", "err", err)
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
	now = m.now()
	switch {
	case err == nil:
		return time.Time{}
	case refused:
		if ep, ok := e.value().Endpoint(eid); ok && len(ep.Addrs) > 0 {
			log.Warn("a lease ran out and no server prolongs it: its address is taken off the container", "err", err)
			m.loseAddress(ctx, e, ep)
		}
		return now.Add(jitter(leaseRarely / 2))
	}
	log.Info("a lease was not renewed", "expires", ep.Lease.Expire, "err", err)
	return retryLease(*ep.Lease, now)
}

// askAgain renews a lease, or has any server do it.
func (m *Manager) askAgain(ctx context.Context, n Network, ep Endpoint, now time.Time) (Lease, error) {
	end := now.Add(leaseAsk)
	if !ep.Lease.Expire.IsZero() && end.After(ep.Lease.Expire) {
		end = ep.Lease.Expire
	}
	ctx, cancel := context.WithTimeout(ctx, end.Sub(now))
	defer cancel()
	return m.inside.Renew(ctx, n, ep, !now.Before(ep.Lease.Rebind))
}

// retryLease tells when to ask again for a lease that was not renewed: after half
// of what is left, and at its turning points (RFC 2131, section 4.4.5).
func retryLease(l Lease, now time.Time) time.Time {
	until := l.Rebind
	if !now.Before(until) {
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
	if !ok {
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
	if len(before.Addrs) == 0 {
		old = nil
	}
	if old != nil && old.Addr == l.Addr && old.Router == l.Router && slices.Equal(old.Routes, l.Routes) {
		return nil
	}
	if before.Lease.Addr != l.Addr {
		m.log.WarnContext(ctx, "the address of a container changed, Docker goes on showing the old one", "nid", n.ID, "eid", eid, "old", before.Lease.Addr, "new", l.Addr)
	}
	m.repair.add(n.ID, 0) // what the fabric knows of addresses
	return m.inside.Configure(ctx, n, ep, old)
}

// loseAddress takes the address of a lease that is over off a container.
func (m *Manager) loseAddress(ctx context.Context, e *entry, ep Endpoint) {
	n := e.value()
	gone := ep
	gone.MAC = ""
	m.vacate(n, gone)
	err := m.changeEndpoint(e, ep.ID, func(ep *Endpoint) { ep.Addrs = nil })
	if err == nil {
		bare := ep
		bare.Addrs = nil
		m.repair.add(n.ID, 0)
		err = m.inside.Configure(ctx, n, bare, ep.Lease)
	}
	if err != nil {
		m.log.WarnContext(ctx, "cannot take an address off a container", "nid", n.ID, "eid", ep.ID, "addr", ep.Lease.Addr, "err", err)
	}
}
