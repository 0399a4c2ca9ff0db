package ovn

import (
	"fmt"
	"net/netip"

	"github.com/ovs-container-network/ovs-container-network/internal/ipam"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// prefix is that of the pool of a switch and a family.
func (p *Pools) prefix(v ovsdb.View, sw, asked string, v6 bool) (netip.Prefix, error) {
	has, err := p.known(v, sw, v6)
	switch {
	case err != nil:
		return has, err
	case asked == "" && has.IsValid():
		return has, nil
	case asked == "":
		return ipam.Automatic(sw, allPrefixes(v), v6)
	}
	want, _, err := ipam.ParseSubnet(asked, "", v6)
	if err != nil || !has.IsValid() || want == has {
		return want, err
	}
	return want, fmt.Errorf("--subnet %s: the pool of logical switch %s is %s on all hosts; give --subnet %s, or leave it out", want, sw, has, has)
}

// known is the prefix that the pool of a switch has already. What the switch itself
// says is stronger: a network could not join it with another.
func (p *Pools) known(v ovsdb.View, sw string, v6 bool) (has netip.Prefix, err error) {
	if b := findBook(v, sw); b != nil {
		has, _ = netip.ParsePrefix(b.ExternalIDs[familyKey(v6)])
	}
	s, count := findSwitch(v, sw)
	if count > 1 {
		return has, errAmbiguous(sw, count)
	}
	if s == nil {
		return has, nil
	}
	for _, sub := range s.subnets() {
		if sub.Addr().Is6() == v6 {
			return sub, nil
		}
	}
	return has, nil
}

// allPrefixes are those of all switches and pools.
func allPrefixes(v ovsdb.View) (list []netip.Prefix) {
	for _, s := range ovsdb.All[*logicalSwitch](v) {
		list = append(list, s.subnets()...)
	}
	for _, d := range ovsdb.All[*dhcpOptions](v) {
		for _, six := range []bool{false, true} {
			if p, err := netip.ParsePrefix(d.ExternalIDs[familyKey(six)]); err == nil {
				list = append(list, p)
			}
		}
	}
	return list
}

// tired returns an error when Docker has got enough pools that it did not use.
func (p *Pools) tired(h handle, automatic bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.auto[h.pair()]
	switch {
	case p.now().Sub(r.at) > repeatTime:
		delete(p.auto, h.pair())
	case automatic && r.count >= maxRepeats:
		return fmt.Errorf("the pool of logical switch %s is %s, and Docker does not take it since a route of this host overlaps it: give --subnet %s if that is meant or, for a new switch, another",
			h.sw, h.prefix, h.prefix)
	}
	return nil
}

// used notes that Docker goes on with what it was given.
func (p *Pools) used(h handle) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.auto, h.pair())
}
