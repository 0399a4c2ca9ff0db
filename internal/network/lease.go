package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"
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

// takenError says that what a server or a router gave is somebody else's in the segment.
type takenError struct{ error }

func taken(err error) bool { return errors.As(err, new(takenError)) }

// ends tells whether the lease is over.
func (l *Lease) ends(now time.Time) bool { return !l.Expire.IsZero() && !now.Before(l.Expire) }

// leases tells whether the driver gets a lease for ep. An observer cannot ask for one.
func (n Network) leases(ep Endpoint) bool { return n.Config.DHCP && !ep.Observer }

// leased has an endpoint that was just entered get its lease, if possible of an address
// kept for it, else of the one that Docker shows. Its port is made for that, its link is
// still here. On an error the endpoint is removed again.
func (m *Manager) leased(ctx context.Context, e *entry, ep Endpoint, kept netip.Addr) (Endpoint, error) {
	ctx, end := m.asking.begin(ctx, ep.ID)
	defer end()
	want := kept
	if i := slices.IndexFunc(ep.Booked, netip.Addr.Is4); !want.IsValid() && i >= 0 {
		want = ep.Booked[i]
	}
	err := m.takeLease(ctx, e, ep.ID, want)
	if err == nil {
		err = context.Cause(ctx) // the caller is gone and will not send DeleteEndpoint
	}
	if err == nil {
		if ep, ok := e.value().Endpoint(ep.ID); ok && ep.Phase != PhaseDeleting {
			return ep, nil
		}
		err = errGone
	}
	m.unjoin(ctx, e, ep)
	return Endpoint{}, err
}

func (m *Manager) takeLease(ctx context.Context, e *entry, id EndpointID, want netip.Addr) error {
	err := m.changeEndpoint(e, id, func(ep *Endpoint) {
		if ep.Phase == PhaseCreated { // and not being removed
			ep.Phase = PhaseJoining
		}
	})
	if err != nil {
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
	l, six, err := m.acquire(ask, n, ep, want)
	end()
	if err != nil {
		return fmt.Errorf("%w (dhcp.timeout is %s, %s)", err, n.Config.DHCPTimeout, segmentOf(n, ep))
	}
	if six != nil {
		if err := m.adopt6(e, id, *six); err != nil {
			if taken(err) { // another one goes on using it
				six = nil
			}
			m.giveBack(n, ep.with(&l, six))
			return err
		}
	}
	err = m.adopt(e, id, l)
	if err != nil && !taken(err) { // else another one goes on using it
		m.giveBack(n, ep.with(&l, nil))
	}
	return err
}

// asking are the leases that endpoints are being given.
type asking struct {
	mu sync.Mutex // guards the following
	of map[*ask]bool
}

type ask struct {
	id     EndpointID
	cancel context.CancelFunc
	done   chan struct{}
}

// begin notes that an endpoint is being given a lease, until end is called.
func (a *asking) begin(ctx context.Context, id EndpointID) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancel(ctx)
	one := &ask{id, cancel, make(chan struct{})}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.of == nil {
		a.of = make(map[*ask]bool)
	}
	a.of[one] = true
	return ctx, func() {
		cancel()
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.of, one)
		close(one.done)
	}
}

// stop ends that, and waits until it is over or ctx ends. What was granted in this
// moment is in the endpoint's record then and can be given back by its port.
func (a *asking) stop(ctx context.Context, id EndpointID) {
	var mine []*ask
	a.mu.Lock()
	for one := range a.of {
		if one.id == id {
			mine = append(mine, one)
		}
	}
	a.mu.Unlock()
	for _, one := range mine {
		one.cancel()
		select {
		case <-one.done:
		case <-ctx.Done():
		}
	}
}

// with is an endpoint as it would be with what was granted.
func (ep Endpoint) with(l *Lease, six *Lease6) Endpoint {
	ep.Lease, ep.Lease6, ep.Addrs = l, six, []netip.Prefix{l.Addr}
	if six != nil {
		ep.Addrs = append(ep.Addrs, six.Addrs...)
	}
	return ep
}

// adopt makes the address of a lease the endpoint's, unless somebody in its segment
// has it.
func (m *Manager) adopt(e *entry, id EndpointID, l Lease) error {
	l.Routes = l.sane()
	err := m.readdress(e, id, false, []netip.Prefix{l.Addr}, func(ep *Endpoint) { ep.Lease = &l })
	if taken(err) {
		return fmt.Errorf("the DHCP server %s gave an address to two: %w", l.Server, err)
	}
	return err
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
	switch n.Config.DHCPRelease {
	case ReleaseNever:
		return
	case ReleaseStable, ReleaseAfter:
		if ep.stable() {
			return
		}
	}
	m.giveBack6(n, ep)
	l := ep.Lease
	if l == nil || !ep.Has4() || l.ends(m.now()) {
		return
	}
	if err := m.inside.Release(n, ep); err != nil {
		m.log.Debug("a lease was not released and will run out", "nid", n.ID, "eid", ep.ID, "addr", l.Addr, "err", err)
	}
}
