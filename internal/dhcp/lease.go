package dhcp

import (
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Lease is what a server has granted.
type Lease struct {
	Addr   netip.Prefix
	Router netip.Addr // of the default route; invalid: none
	Routes []Route
	MTU    int          // 0: the server says nothing
	DNS    []netip.Addr // servers
	Domain string

	Server    netip.Addr
	ServerMAC string // the server's, or that of the relay before it

	From, Renew, Rebind, Expire time.Time // the last three are zero if it never ends
}

// Route is one beside the default route.
type Route struct {
	To  netip.Prefix
	Via netip.Addr // invalid: its hosts are on the link
}

// forever is the lease time of a lease without end (RFC 2131, section 3.3).
const forever = 0xffffffff * time.Second

// leaseOf reads what a server granted at that time.
func leaseOf(ack *dhcpv4.DHCPv4, serverMAC net.HardwareAddr, at time.Time) Lease {
	l := Lease{
		Server: addrOf(ack.ServerIdentifier()), ServerMAC: serverMAC.String(), From: at,
		Domain: ack.DomainName(), DNS: addrsOf(ack.DNS()),
	}
	addr := addrOf(ack.YourIPAddr)
	l.Addr = netip.PrefixFrom(addr, prefixLen(ack.SubnetMask(), addr))
	if mtu := ack.Options.Get(dhcpv4.OptionInterfaceMTU); len(mtu) == 2 {
		l.MTU = int(mtu[0])<<8 | int(mtu[1])
	}
	if routers := addrsOf(ack.Router()); len(routers) > 0 {
		l.Router = routers[0]
	}
	if routes := ack.ClasslessStaticRoute(); len(routes) > 0 {
		l.Router = netip.Addr{} // it is among them, or there is none (RFC 3442)
		for _, r := range routes {
			ones, _ := r.Dest.Mask.Size()
			via := addrOf(r.Router)
			if via.IsValid() && via.IsUnspecified() {
				via = netip.Addr{}
			}
			if ones == 0 {
				l.Router = via
				continue
			}
			l.Routes = append(l.Routes, Route{netip.PrefixFrom(addrOf(r.Dest.IP), ones).Masked(), via})
		}
	}
	whole := ack.IPAddressLeaseTime(forever)
	if whole >= forever {
		return l
	}
	// RFC 2131, section 4.4.5. What makes no sense is not taken.
	whole = max(whole, time.Second)
	late := whole / 8 * 7 // in this order: there is not room for the other
	renew, rebind := ack.IPAddressRenewalTime(whole/2), ack.IPAddressRebindingTime(late)
	if rebind <= 0 || rebind > whole {
		rebind = late
	}
	if renew <= 0 || renew > rebind {
		renew = min(whole/2, rebind)
	}
	l.Renew, l.Rebind, l.Expire = at.Add(renew), at.Add(rebind), at.Add(whole)
	return l
}

// prefixLen is the length of a mask; without one, that of the address's class.
func prefixLen(mask net.IPMask, addr netip.Addr) int {
	if ones, bits := mask.Size(); bits == 32 && ones > 0 {
		return ones
	}
	if ones, _ := net.IP(addr.AsSlice()).DefaultMask().Size(); ones > 0 {
		return ones
	}
	return addr.BitLen()
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

func addrsOf(ips []net.IP) (list []netip.Addr) {
	for _, ip := range ips {
		if a := addrOf(ip); a.IsValid() && !a.IsUnspecified() {
			list = append(list, a)
		}
	}
	return list
}
