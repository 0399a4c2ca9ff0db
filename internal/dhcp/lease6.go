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
// that follow from the prefixes of a router (SLAAC), or both.
type Lease6 struct {
	Addrs   []netip.Prefix
	Managed bool       // the first address is a server's
	Router  netip.Addr // of the default route, link-local; invalid: none
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

// advertised is what follows from the advertisement of a router alone. It has no
// addresses if the router has no prefix to make them of.
func advertised(h heard, mac net.HardwareAddr, at time.Time) Lease6 {
	ra := h.router
	l := Lease6{From: at}
	if ra.RouterLifetime > 0 {
		l.Router = h.from
	}
	whole := time.Duration(0)
	for _, p := range prefixes(ra) {
		// RFC 4862, section 5.5.3.
		if !p.AutonomousAddressConfiguration || p.PrefixLength != 64 || p.ValidLifetime <= 0 || p.PreferredLifetime <= 0 || p.PreferredLifetime > p.ValidLifetime {
			continue
		}
		if a := onLink(ra, withMAC(netip.PrefixFrom(p.Prefix, 64), mac)); !slices.Contains(l.Addrs, a) {
			l.Addrs = append(l.Addrs, a)
		}
		whole = max(whole, p.ValidLifetime)
	}
	for _, o := range ra.Options {
		if d, ok := o.(*ndp.RecursiveDNSServer); ok && d.Lifetime > 0 {
			l.DNS = append(l.DNS, d.Servers...)
		}
	}
	l.Renew = at.Add(min(whole/2, lookAgain))
	if whole < ndp.Infinity {
		l.Rebind, l.Expire = at.Add(whole/8*7), at.Add(whole)
	}
	return l
}

// soonest is the shortest that what a router advertises makes of the time that is left
// of an address: two hours or that time, so that nobody ends it by one packet (RFC 4862,
// section 5.5.3 e).
func (l Lease6) soonest(old Lease6, now time.Time) Lease6 {
	rest := 2 * time.Hour
	if !old.Expire.IsZero() {
		rest = min(rest, old.Expire.Sub(now))
	}
	if !l.Expire.IsZero() && l.Expire.Sub(now) < rest {
		l.Expire = now.Add(rest)
		l.Rebind, l.Renew = l.Expire, now.Add(min(rest/2, lookAgain))
	}
	return l
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
