package dhcp

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/mdlayher/ndp"
)

// Lease6 is the IPv6 that a port has: an address that a server has granted, those
// that follow from the prefixes of routers (SLAAC), or both.
type Lease6 struct {
	Addrs   []netip.Prefix
	Ends    map[netip.Addr]time.Time // of those by prefixes, zero for never; not if Managed
	Managed bool                     // the first address is a server's
	Router  netip.Addr               // of the default route, link-local; invalid: none
	DNS     []netip.Addr

	Server string // DUID in hexadecimal digits; empty: there is no server

	From, Renew, Rebind, Expire time.Time // the last two are zero if it never ends
}

// lookAgain is when a router is asked again at the latest: its prefixes may live for
// weeks, and change.
const lookAgain = 30 * time.Minute

// prefixes are those that a router advertises.
func prefixes(ra *ndp.RouterAdvertisement) (list []*ndp.PrefixInformation) {
	for _, o := range ra.Options {
		if p, ok := o.(*ndp.PrefixInformation); ok && p.Prefix.Is6() && !p.Prefix.IsLinkLocalUnicast() && !p.Prefix.IsMulticast() {
			list = append(list, p)
		}
	}
	return list
}

// onLink is an address with its subnet, if a router says of that that it is on the
// link.
func onLink(ra *ndp.RouterAdvertisement, a netip.Addr) netip.Prefix {
	if ra != nil {
		for _, p := range prefixes(ra) {
			if n := netip.PrefixFrom(p.Prefix, int(p.PrefixLength)); p.OnLink && p.PrefixLength > 0 && n.Contains(a) {
				return netip.PrefixFrom(a, int(p.PrefixLength))
			}
		}
	}
	return netip.PrefixFrom(a, a.BitLen())
}

// most6 bounds what is made of advertisements, as the kernel does.
const most6 = 16

// together is what several routers say, as if it were one: all prefixes, and of the
// routers the one that is preferred, the first of equals (RFC 4861, section 6.3.4; RFC
// 4191, section 3.2).
func together(list []heard) heard {
	all := heard{router: &ndp.RouterAdvertisement{RouterSelectionPreference: ndp.Low}}
	for _, h := range list {
		if h.router.RouterLifetime > 0 && (!all.from.IsValid() || rank(h.router) > rank(all.router)) {
			all.from, all.router.RouterLifetime, all.router.RouterSelectionPreference = h.from, h.router.RouterLifetime, h.router.RouterSelectionPreference
		}
		all.router.ManagedConfiguration = all.router.ManagedConfiguration || h.router.ManagedConfiguration
		all.router.Options = append(all.router.Options, h.router.Options...)
	}
	return all
}

// rank is how much a router wants to be the default one.
func rank(ra *ndp.RouterAdvertisement) int {
	switch ra.RouterSelectionPreference {
	case ndp.High:
		return 1
	case ndp.Low:
		return -1
	}
	return 0
}

// advertised is what follows from the advertisements of routers alone. It has no
// addresses if they have no prefix to make them of. Ends has those too of which no
// address is to be made any more.
func advertised(h heard, mac net.HardwareAddr, at time.Time) Lease6 {
	ra := h.router
	l := Lease6{From: at, Ends: make(map[netip.Addr]time.Time)}
	if ra.RouterLifetime > 0 {
		l.Router = h.from
	}
	for _, p := range prefixes(ra) {
		// RFC 4862, section 5.5.3.
		if !p.AutonomousAddressConfiguration || p.PrefixLength != 64 || p.PreferredLifetime > p.ValidLifetime {
			continue
		}
		a := onLink(ra, withMAC(netip.PrefixFrom(p.Prefix, 64), mac))
		end := time.Time{}
		if p.ValidLifetime < ndp.Infinity {
			end = at.Add(p.ValidLifetime)
		}
		if before, twice := l.Ends[a.Addr()]; !twice || later(end, before) {
			l.Ends[a.Addr()] = end
		}
		if p.PreferredLifetime > 0 && !slices.Contains(l.Addrs, a) && len(l.Addrs) < most6 {
			l.Addrs = append(l.Addrs, a)
		}
	}
	for _, o := range ra.Options {
		if d, ok := o.(*ndp.RecursiveDNSServer); ok && d.Lifetime > 0 {
			l.DNS = append(l.DNS, d.Servers...)
		}
	}
	l.timesOf(at)
	return l
}

// later tells whether an end is after another one. Zero is never.
func later(a, b time.Time) bool { return !b.IsZero() && (a.IsZero() || a.After(b)) }

// timesOf sets when prefixes are due: at half of the time of the first that ends. All
// is over with the last.
func (l *Lease6) timesOf(at time.Time) {
	l.Renew, l.Rebind, l.Expire = at.Add(lookAgain), time.Time{}, at
	for _, a := range l.Addrs {
		end := l.Ends[a.Addr()]
		if half := at.Add(end.Sub(at) / 2); !end.IsZero() && half.Before(l.Renew) {
			l.Renew = half
		}
		if later(end, l.Expire) {
			l.Expire = end
		}
	}
	if !l.Expire.IsZero() {
		l.Rebind = at.Add(l.Expire.Sub(at) / 8 * 7)
	}
}

// after adds to what routers advertise now what they did before: that holds until its
// own end, whoever is silent or has other prefixes by now (RFC 4862, section 5.5.4). An
// end comes no nearer than two hours by one packet (section 5.5.3 e).
func (l Lease6) after(old Lease6, now time.Time) Lease6 {
	got := l
	got.From, got.Addrs, got.Ends = now, nil, make(map[netip.Addr]time.Time)
	for _, a := range old.Addrs {
		end, known := old.Ends[a.Addr()]
		if !known {
			end = old.Expire // a record of an older version
		}
		if says, again := l.Ends[a.Addr()]; again {
			least := now.Add(2 * time.Hour)
			if later(least, end) {
				least = end
			}
			if end = says; later(least, end) {
				end = least
			}
			if i := slices.IndexFunc(l.Addrs, func(b netip.Prefix) bool { return a.Addr() == b.Addr() }); i >= 0 {
				a = l.Addrs[i]
			}
		}
		if end.IsZero() || end.After(now) {
			got.Addrs, got.Ends[a.Addr()] = append(got.Addrs, a), end
		}
	}
	for _, a := range l.Addrs {
		if _, had := got.Ends[a.Addr()]; !had && len(got.Addrs) < most6 {
			got.Addrs, got.Ends[a.Addr()] = append(got.Addrs, a), l.Ends[a.Addr()]
		}
	}
	if old.Router.IsValid() {
		got.Router = old.Router // the container's kernel knows the others by now
	}
	got.timesOf(now)
	return got
}

// granted6 reads what a server granted to the association of a port.
func granted6(reply *dhcpv6.Message, id [4]byte, ra *ndp.RouterAdvertisement, at time.Time) (Lease6, error) {
	l := Lease6{Managed: true, From: at}
	server := reply.Options.ServerID()
	if server == nil {
		return l, fmt.Errorf("the DHCPv6 server does not say who it is")
	}
	l.Server = hex.EncodeToString(server.ToBytes())
	if err := fault(reply.Options.Status()); err != nil {
		return l, err
	}
	for _, ia := range reply.Options.IANA() {
		if ia.IaId != id {
			continue
		}
		if err := fault(ia.Options.Status()); err != nil {
			return l, err
		}
		for _, a := range ia.Options.Addresses() {
			addr := addrOf(a.IPv6Addr)
			if a.ValidLifetime <= 0 || !addr.Is6() || addr.IsUnspecified() || addr.IsMulticast() || addr.IsLoopback() || addr.IsLinkLocalUnicast() || fault(a.Options.Status()) != nil {
				continue
			}
			l.Addrs = []netip.Prefix{onLink(ra, addr)}
			l.times(ia.T1, ia.T2, min(a.PreferredLifetime, a.ValidLifetime), a.ValidLifetime)
			l.DNS = addrsOf(reply.Options.DNS())
			return l, nil
		}
	}
	return l, fmt.Errorf("%w (no address is in its answer)", ErrRefused)
}

// fault is the error of a status that is none of success.
func fault(s *dhcpv6.OptStatusCode) error {
	if s == nil || s.StatusCode == iana.StatusSuccess {
		return nil
	}
	return fmt.Errorf("%w (DHCPv6 %v: %q)", ErrRefused, s.StatusCode, s.StatusMessage)
}

// times sets when a lease is due (RFC 8415, section 14.2). What makes no sense is
// not taken.
func (l *Lease6) times(renew, rebind, preferred, valid time.Duration) {
	if preferred <= 0 {
		preferred = valid
	}
	if valid >= forever {
		l.Renew = l.From.Add(lookAgain)
		return
	}
	if rebind <= 0 || rebind > valid {
		rebind = preferred / 5 * 4 // in this order: there is not room for the other
	}
	if renew <= 0 || renew > rebind {
		renew = min(preferred/2, rebind)
	}
	l.Renew, l.Rebind, l.Expire = l.From.Add(renew), l.From.Add(rebind), l.From.Add(valid)
}

// with adds to what a server granted what a router advertises.
func (l Lease6) with(ra Lease6) Lease6 {
	l.Router = ra.Router
	for _, a := range ra.Addrs {
		if !slices.ContainsFunc(l.Addrs, func(b netip.Prefix) bool { return a.Addr() == b.Addr() }) {
			l.Addrs = append(l.Addrs, a)
		}
	}
	if len(l.DNS) == 0 {
		l.DNS = ra.DNS
	}
	return l
}
