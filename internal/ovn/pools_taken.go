package ovn

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// takenError says who has an address, as the book puts it; empty: a request that is
// under way.
type takenError struct {
	addr netip.Addr
	by   string
}

func (e *takenError) Error() string { return fmt.Sprintf("address %s is taken: %s", e.addr, e.by) }

// conflict tells who has an address that is to be booked; nil if that is nobody, or
// an earlier request of which the answer was lost.
func (p *Pools) conflict(v ovsdb.View, b *dhcpOptions, h handle, a netip.Addr, purpose string) error {
	who, port := b.ExternalIDs[ipKey(a)], b.ExternalIDs[a.String()]
	by, _ := bookedBy(who)
	e := entry{h.sw, ipKey(a)}
	_, made := p.made[e]
	doing, busy := p.busy[e]
	_, host := bookedBy(port)
	switch {
	case busy && (doing == "" || doing != purpose):
		return &takenError{addr: a}
	case who != "" && who == purpose:
		return nil
	case port != "" && (host != p.f.cfg.HostID || p.living(h.sw)[a]):
		return &takenError{a, port}
	case who == "" && made: // the book is one of before
		return &takenError{a, h.id + " " + h.host}
	case who == "" && purpose == "" && gatewayOf(v, h.sw, a):
		return &takenError{a, forGateway}
	case who == "", by == h.id && !made && !p.living(h.sw)[a]:
		return nil
	}
	return &takenError{a, who}
}

// gatewayOf tells whether an address was recorded as a gateway of a switch.
func gatewayOf(v ovsdb.View, sw string, a netip.Addr) bool {
	s, _ := findSwitch(v, sw)
	return s != nil && slices.Contains(s.gateways(), a)
}

// living are the addresses that endpoints of this host have on a switch.
func (p *Pools) living(sw string) map[netip.Addr]bool {
	addrs := make(map[netip.Addr]bool)
	for _, n := range p.networks() {
		if n.Config.OVN == nil || n.Config.OVN.Switch != sw {
			continue
		}
		for _, ep := range n.Endpoints {
			if ep.Phase == network.PhaseDeleting || ep.Phase == network.PhaseLeft {
				continue
			}
			for _, a := range ep.Addrs {
				addrs[a.Addr()] = true
			}
		}
	}
	return addrs
}

// takenLocked are the addresses of a pool that cannot be chosen, sorted: booked, had
// by a port, busy, or of OVN itself.
func (p *Pools) takenLocked(v ovsdb.View, b *dhcpOptions, h handle) (list []netip.Addr) {
	add := func(text string) {
		if a, err := netip.ParseAddr(text); err == nil && h.prefix.Contains(a) {
			list = append(list, a)
		}
	}
	for key := range b.ExternalIDs {
		if text, ok := strings.CutPrefix(key, ipPrefix); ok {
			add(text)
		} else if rest, ok := strings.CutPrefix(key, refPrefix); ok {
			text, _, _ := strings.Cut(rest, " ")
			add(text)
		} else if !ofPools(key) {
			add(key)
		}
	}
	for e := range p.busy {
		if e.sw == h.sw {
			add(strings.TrimPrefix(e.key, ipPrefix))
		}
	}
	for e := range p.made { // the book may be one of before
		if e.sw == h.sw {
			add(strings.TrimPrefix(e.key, ipPrefix))
		}
	}
	for _, d := range partsOf(v, h.sw) {
		add(d.Options["server_id"])
	}
	if s, _ := findSwitch(v, h.sw); s != nil {
		list = append(list, s.gateways()...)
	}
	list = slices.DeleteFunc(list, func(a netip.Addr) bool { return !h.prefix.Contains(a) })
	slices.SortFunc(list, netip.Addr.Compare)
	return slices.Compact(list)
}

// explain says for a person why an address cannot be booked.
func (f *Fabric) explain(ctx context.Context, v ovsdb.View, b *dhcpOptions, e *takenError) error {
	sw := b.ExternalIDs[keySwitch]
	flag := "--ip"
	if e.addr.Is6() {
		flag = "--ip6"
	}
	who, host := bookedBy(e.by)
	_, booking := b.handle(who)
	switch {
	case e.by == "":
		return fmt.Errorf("address %s is just being booked or released on logical switch %s: try again", e.addr, sw)
	case e.by == forGateway:
		return fmt.Errorf("address %s is a gateway on logical switch %s: give another with %s", e.addr, sw, flag)
	case e.by == forAux:
		return fmt.Errorf("address %s is set aside on logical switch %s (--aux-address): give another with %s", e.addr, sw, flag)
	case booking:
		return fmt.Errorf("address %s is already booked on host %s on logical switch %s, for a container that starts or has just ended: give another with %s",
			e.addr, hostName(v, host), sw, flag)
	}
	container, where := f.owner(ctx, who, host)
	return fmt.Errorf("address %s is already used by %s on %s on logical switch %s: give another with %s", e.addr, container, where, sw, flag)
}

// hostName is what a host is called by its claims on switches.
func hostName(v ovsdb.View, hostID string) string {
	for _, s := range ovsdb.All[*logicalSwitch](v) {
		for _, name := range s.claimsOf(hostID) {
			return name
		}
	}
	return hostID
}

// elsewhere returns an error if an address of an endpoint is booked in the pool of
// the switch, but not by this host.
func (f *Fabric) elsewhere(ctx context.Context, v ovsdb.View, b *dhcpOptions, ep network.Endpoint) error {
	for _, p := range ep.Addrs {
		who := b.ExternalIDs[ipKey(p.Addr())]
		by, host := bookedBy(who)
		if h, known := b.handle(by); known {
			host = h.host
		}
		if who != "" && host != f.cfg.HostID {
			return f.explain(ctx, v, b, &takenError{p.Addr(), who})
		}
	}
	return nil
}
