package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Lease6 is the IPv6 that an endpoint has beside its lease: an address that a DHCPv6
// server has granted, those that follow from the prefixes of routers, or both.
type Lease6 struct {
	Addrs   []netip.Prefix           `json:"addrs"`             // Docker shows the first
	Ends    map[netip.Addr]time.Time `json:"ends,omitempty"`    // of those by prefixes, if all are
	Managed bool                     `json:"managed,omitempty"` // the first is a server's
	Router  netip.Addr               `json:"router,omitzero"`   // of the default route, link-local
	DNS     []netip.Addr             `json:"dns,omitempty"`
	Server  string                   `json:"server,omitempty"` // its DUID

	From   time.Time `json:"from"`
	Renew  time.Time `json:"renew,omitzero"`
	Rebind time.Time `json:"rebind,omitzero"` // zero, as the one that follows: it never ends
	Expire time.Time `json:"expire,omitzero"`
}

// ErrNoIPv6 says that nobody on a segment gives IPv6 addresses.
var ErrNoIPv6 = errors.New("there is no IPv6 on the segment")

// How long is listened for IPv6 on a segment: routers may take half a second for an
// answer (RFC 4861, section 6.2.6), and the first question may get lost. Where none
// was heard lately, a container waits for one hardly longer than for its lease: Docker
// attaches the containers of a network one after the other.
const (
	listen6        = 1200 * time.Millisecond
	listen6Briefly = 50 * time.Millisecond
	quiet6For      = 5 * time.Minute
)

// quiet6 are the segments where no IPv6 was heard of lately.
type quiet6 struct {
	mu    sync.Mutex // guards the following
	since map[segment]time.Time
}

func (q *quiet6) listen(s segment, now time.Time) time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	if since, quiet := q.since[s]; quiet && now.Sub(since) < quiet6For {
		return listen6Briefly
	}
	return listen6
}

func (q *quiet6) set(s segment, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.since == nil {
		q.since = make(map[segment]time.Time)
	}
	for s, since := range q.since {
		if now.Sub(since) >= quiet6For {
			delete(q.since, s)
		}
	}
	q.since[s] = now
}

func (l *Lease6) ends(now time.Time) bool { return !l.Expire.IsZero() && !now.Before(l.Expire) }

// family are the addresses of an endpoint of one family.
func (e Endpoint) family(six bool) (list []netip.Prefix) {
	for _, a := range e.Addrs {
		if a.Addr().Is6() == six {
			list = append(list, a)
		}
	}
	return list
}

// Has4 tells whether an endpoint has IPv4, as while its lease holds.
func (e Endpoint) Has4() bool { return len(e.family(false)) > 0 }

// Has6 is the same for IPv6.
func (e Endpoint) Has6() bool { return len(e.family(true)) > 0 }

// LinkLocal is the link-local address of an endpoint where the driver looks for IPv6
// over its port, or found some. A fabric that guards ports has to answer for it: OVN
// 23.03 keeps what a container says of that address from those who ask (it lets only
// such answers pass whose hop limit is 225, a slip of the pen).
func (n Network) LinkLocal(ep Endpoint) (a netip.Addr, ok bool) {
	if !n.leases(ep) || n.SelfWired() || ep.Lease != nil && !ep.Has6() {
		return a, false
	}
	return ep.linkLocal()
}

// linkLocal is the link-local address by the MAC address.
func (ep Endpoint) linkLocal() (a netip.Addr, ok bool) {
	mac, err := net.ParseMAC(ep.MAC)
	if err != nil || len(mac) != 6 {
		return a, false
	}
	b := [16]byte{0xfe, 0x80, 8: mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]}
	return netip.AddrFrom16(b), true
}

// Askers are the source addresses with which DHCP is spoken for an endpoint that has
// lost what it had of a family and asks for more. A fabric that guards ports has to let
// them pass: with no address of a family at all, it would let either none or all pass.
func (ep Endpoint) Askers() (list []netip.Addr) {
	if ep.Lease != nil && !ep.Has4() {
		list = append(list, netip.IPv4Unspecified())
	}
	if a, ok := ep.linkLocal(); ok && ep.Lease6 != nil && !ep.Has6() {
		list = append(list, a)
	}
	return list
}

// acquire gets a lease, if possible of the address want, and looks for IPv6 meanwhile.
// There need not be any.
func (m *Manager) acquire(ctx context.Context, n Network, ep Endpoint, want netip.Addr) (l Lease, six *Lease6, err error) {
	ctx6, cancel := context.WithCancel(ctx)
	defer cancel()
	found := make(chan *Lease6, 1)
	go func() { found <- m.acquire6(ctx6, n, ep) }()
	l, err = m.inside.Acquire(ctx, n, ep, want)
	if err != nil {
		cancel()
	}
	six = <-found
	if err != nil && six != nil {
		ep.Lease6, ep.Addrs = six, six.Addrs
		m.giveBack6(n, ep)
	}
	return l, six, err
}

func (m *Manager) acquire6(ctx context.Context, n Network, ep Endpoint) *Lease6 {
	if n.SelfWired() {
		return nil // engines up to 27 take IPv6 off links that they do not know
	}
	seg := segmentOf(n, ep)
	listen := m.quiet6.listen(seg, m.now())
	l, err := m.inside.Acquire6(ctx, n, ep, listen)
	switch {
	case err == nil:
		return &l
	case ctx.Err() != nil:
	case errors.Is(err, ErrNoIPv6):
		if listen == listen6 {
			m.quiet6.set(seg, m.now())
		}
	default:
		m.log.WarnContext(ctx, "a container starts without IPv6", "nid", n.ID, "eid", ep.ID, "err", err)
	}
	return nil
}

// adopt6 makes the addresses of IPv6 the endpoint's, unless somebody in its segment
// has one of them.
func (m *Manager) adopt6(e *entry, id EndpointID, l Lease6) error {
	err := m.readdress(e, id, true, l.Addrs, func(ep *Endpoint) { ep.Lease6 = &l })
	if taken(err) {
		return fmt.Errorf("an IPv6 address is given to two: %w", err)
	}
	return err
}

// readdress gives an endpoint other addresses of one family, and sets what comes with
// them.
func (m *Manager) readdress(e *entry, id EndpointID, six bool, addrs []netip.Prefix, set func(*Endpoint)) error {
	n := e.value()
	ep, ok := n.Endpoint(id)
	if !ok || ep.Phase == PhaseDeleting {
		return errGone
	}
	gone := ep
	gone.MAC = "" // that one stays
	gone.Addrs = slices.DeleteFunc(ep.family(six), func(old netip.Prefix) bool {
		return slices.ContainsFunc(addrs, func(a netip.Prefix) bool { return a.Addr() == old.Addr() })
	})
	defer m.entered(id)
	if !slices.Equal(ep.family(six), addrs) {
		ep.Addrs = addrs
		evicted, err := m.occupy(n, ep)
		if err != nil {
			return takenError{err}
		}
		for _, other := range evicted {
			m.kill(e, other)
		}
		m.vacate(n, gone)
	}
	err := m.changeEndpoint(e, id, func(ep *Endpoint) {
		ep.setFamily(six, addrs)
		set(ep)
	})
	now, ok := e.value().Endpoint(id)
	switch {
	case err == nil && (!ok || now.Phase == PhaseDeleting):
		m.vacate(n, ep) // whoever removed it knew nothing of these addresses
		return errGone
	case err != nil && ok:
		ep.MAC = ""
		m.vacate(n, ep)
		_, again := m.occupy(n, now) // those of its record
		err = errors.Join(err, again)
	}
	return err
}

// setFamily replaces the addresses of one family. IPv4 comes first.
func (e *Endpoint) setFamily(six bool, addrs []netip.Prefix) {
	if six {
		e.Addrs = slices.Concat(e.family(false), addrs)
	} else {
		e.Addrs = slices.Concat(addrs, e.family(true))
	}
}

// giveBack6 releases what a server has granted to an endpoint.
func (m *Manager) giveBack6(n Network, ep Endpoint) {
	l := ep.Lease6
	if l == nil || !l.Managed || !ep.Has6() || l.ends(m.now()) {
		return
	}
	if err := m.inside.Release6(n, ep); err != nil {
		m.log.Debug("an IPv6 address was not released and will run out", "nid", n.ID, "eid", ep.ID, "addr", l.Addrs[0], "err", err)
	}
}

// joined6 adds the default route of IPv6 to what dockerd has to do. Up to 27 it finds
// a link-local router only by a route to it. Of two links of a container with the same
// router the second has none: that route can be there once, and the container's kernel
// makes a default route by itself.
func (m *Manager) joined6(n Network, ep Endpoint, j *Joined) {
	if ep.Lease6 == nil || !ep.Has6() || !ep.Lease6.Router.IsValid() || n.Config.Gateway != GatewayExternal || n.Config.Internal || m.reaches6(ep) {
		return
	}
	j.Gateway6 = ep.Lease6.Router
	j.Routes = append(j.Routes, Route{To: netip.PrefixFrom(j.Gateway6, j.Gateway6.BitLen())})
}

// reaches6 tells whether the container of an endpoint reaches a router of that address
// over another link.
func (m *Manager) reaches6(ep Endpoint) bool {
	for _, n := range m.Networks() {
		for id, other := range n.Endpoints {
			if id != ep.ID && other.Sandbox == ep.Sandbox && ep.Sandbox != "" && other.Lease6 != nil && other.Lease6.Router == ep.Lease6.Router {
				return true
			}
		}
	}
	return false
}
