package ovn

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// chooseTries bounds how often another address is tried because another host was
// quicker.
const chooseTries = 50

// Choose implements network.Fabric: the lowest address of each subnet of the switch
// that is in nobody's use, as far as its book tells.
func (f *Fabric) Choose(ctx context.Context, n network.Network, ep network.Endpoint) (chosen []netip.Prefix, err error) {
	if n.Config.OVN == nil {
		return f.Fabric.Choose(ctx, n, ep)
	}
	if _, err := f.ensureSwitch(ctx, n); err != nil {
		return nil, err
	}
	port, _ := ep.ID.Links()
	for range chooseTries {
		v, err := f.nb.View()
		if err != nil {
			return nil, err
		}
		book := findBook(v, n.Config.OVN.Switch)
		if book == nil {
			return nil, fmt.Errorf("the book of addresses of logical switch %s was removed", n.Config.OVN.Switch)
		}
		chosen = chosen[:0]
		entries := make(map[string]string)
		for _, s := range n.Logical() {
			a, err := free(s, book.ExternalIDs, f.reserved(n))
			if err != nil {
				return nil, err
			}
			chosen = append(chosen, netip.PrefixFrom(a, s.Prefix.Bits()))
			entries[a.String()] = port + " " + f.cfg.HostID
		}
		err = f.write(ctx, enter(book, entries))[0]
		if err == nil || !changed(err, "DHCP_Options") {
			return chosen, err
		}
	}
	return nil, fmt.Errorf("no address of logical switch %s could be booked: other hosts were quicker %d times", n.Config.OVN.Switch, chooseTries)
}

// reserved are addresses that OVN itself has on the switch.
func (f *Fabric) reserved(n network.Network) map[string]bool {
	taken := make(map[string]bool)
	for _, w := range servers(n) {
		taken[w.options["server_id"]] = true
	}
	for _, g := range gateways(n) {
		a, _, _ := strings.Cut(g, "/")
		taken[a] = true
	}
	for _, s := range n.Logical() {
		taken[s.Gateway.String()] = true
	}
	return taken
}

// free returns the lowest address that is not taken. In IPv4 the first and the last
// are no host's, in IPv6 the first (RFC 4291, section 2.6.1).
func free(s network.Subnet, book map[string]string, reserved map[string]bool) (netip.Addr, error) {
	for a := s.Prefix.Masked().Addr().Next(); s.Prefix.Contains(a); a = a.Next() {
		if book[a.String()] != "" || book[ipKey(a)] != "" || reserved[a.String()] {
			continue
		}
		if next := a.Next(); a.Is4() && !s.Prefix.Contains(next) {
			break // the broadcast address
		}
		return a, nil
	}
	return netip.Addr{}, fmt.Errorf("no free address in subnet %s of the logical switch", s.Prefix)
}
