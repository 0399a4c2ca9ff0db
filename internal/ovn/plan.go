package ovn

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// Plan implements network.Fabric.
func (f *Fabric) Plan(n network.Network, others []network.Network) (network.Plan, error) {
	if n.Config.OVN == nil {
		return f.Fabric.Plan(n, others)
	}
	cfg := n.Config
	c, err := f.Chassis()
	if err != nil {
		return network.Plan{}, err
	}
	if cfg.Bridge != "" && cfg.Bridge != c.Bridge {
		return network.Plan{}, fmt.Errorf("option bridge=%q: a network with ovn.switch is on OVN's bridge; allowed is %s, or leave the option out", cfg.Bridge, c.Bridge)
	}
	cfg.Bridge = c.Bridge
	if err := f.CheckMirror(cfg); err != nil {
		return network.Plan{}, err
	}
	if err := checkEncap(c, cfg.OVN.Encap); err != nil {
		return network.Plan{}, err
	}
	if cfg.MTU == 0 {
		if cfg.MTU, err = f.mtu(c, cfg.OVN.Encap); err != nil {
			return network.Plan{}, err
		}
	}
	if err := f.CheckMTU(cfg.Bridge, cfg.MTU); err != nil {
		return network.Plan{}, err
	}
	v, err := f.nb.View()
	if err != nil {
		return network.Plan{}, err
	}
	s, count := findSwitch(v, cfg.OVN.Switch)
	if cfg.IPAM == network.IPAMOVN && len(n.Subnets) == 0 {
		if cfg.OVN, err = borrow(s, cfg.OVN); err != nil {
			return network.Plan{}, err
		}
		n.Config = cfg
	}
	switch {
	case count > 1:
		return network.Plan{}, errAmbiguous(cfg.OVN.Switch, count)
	case s == nil:
		if err := f.checkRoom(v, encaps(c)); err != nil {
			return network.Plan{}, err
		}
	default:
		if err := errors.Join(compatible(s, n), compatibleServers(v, n)); err != nil {
			return network.Plan{}, err
		}
		if tag := s.vlan(); tag != 0 {
			cfg.VLANMode, cfg.VLAN = network.VLANTag, tag
		}
	}
	return network.Plan{Config: cfg}, planRouter(v, n)
}

// borrow has a network without subnets take those of its switch.
func borrow(s *logicalSwitch, o *network.OVN) (*network.OVN, error) {
	if s == nil || len(s.subnets()) == 0 {
		return o, fmt.Errorf("option ipam=\"ovn\": logical switch %s does not exist or has no subnet, so there is no address to choose; give --subnet and another IPAM driver than null", o.Switch)
	}
	c := *o
	c.Subnets = nil
	for _, p := range s.subnets() {
		sub := network.Subnet{Prefix: p}
		for text := range strings.SplitSeq(s.ExternalIDs[keyGateways], " ") {
			if a, err := netip.ParseAddr(text); err == nil && p.Contains(a) {
				sub.Gateway = a
			}
		}
		c.Subnets = append(c.Subnets, sub)
	}
	return &c, nil
}

// vlan is the recorded tag of the switch, 0 for none.
func (s *logicalSwitch) vlan() uint16 {
	tag, _ := strconv.ParseUint(s.ExternalIDs[keyVLAN], 10, 16)
	return uint16(tag)
}

// subnets are those of the switch: what was recorded when this driver made it,
// else what OVN's own address management would use.
func (s *logicalSwitch) subnets() (list []netip.Prefix) {
	texts := strings.Split(s.ExternalIDs[keySubnets], " ")
	if !ours(s.ExternalIDs) {
		texts = []string{s.OtherConfig["subnet"]}
		if p := s.OtherConfig["ipv6_prefix"]; p != "" {
			texts = append(texts, strings.TrimSuffix(p, "/64")+"/64") // OVN knows no other length
		}
	}
	for _, t := range texts {
		if p, err := netip.ParsePrefix(t); err == nil {
			list = append(list, p.Masked())
		}
	}
	return list
}

// compatible tells whether a network can join a switch.
func compatible(s *logicalSwitch, n network.Network) error {
	o := n.Config.OVN
	for _, sub := range n.Subnets {
		if err := compatibleSubnet(s, sub.Prefix); err != nil {
			return err
		}
	}
	if n.Config.VLANMode == network.VLANTag && n.Config.VLAN != s.vlan() {
		has := "no VLAN"
		if s.vlan() != 0 {
			has = fmt.Sprintf("VLAN %d", s.vlan())
		}
		return fmt.Errorf("option vlan=\"%d\": logical switch %s has %s; leave the option out, or choose another switch", n.Config.VLAN, s.Name, has)
	}
	for _, w := range []struct{ option, want, has, what string }{
		{"ovn.localnet", o.Localnet, s.ExternalIDs[keyLocalnet], "physical network"},
		{"ovn.router", o.Router, s.ExternalIDs[keyRouter], "router"},
	} {
		switch {
		case w.want == "" || w.want == w.has:
		case !ours(s.ExternalIDs):
			return fmt.Errorf("option %s=%q: logical switch %s was not made by this driver, which leaves it as it is; leave the option out, or choose another switch", w.option, w.want, s.Name)
		case w.has == "":
			return fmt.Errorf("option %s=%q: logical switch %s was made without a %s; leave the option out, or choose another switch", w.option, w.want, s.Name, w.what)
		default:
			return fmt.Errorf("option %s=%q: the %s of logical switch %s is %s; leave the option out, or choose another switch", w.option, w.want, w.what, s.Name, w.has)
		}
	}
	return nil
}

func compatibleSubnet(s *logicalSwitch, want netip.Prefix) error {
	has := s.subnets()
	same := slices.DeleteFunc(slices.Clone(has), func(p netip.Prefix) bool { return p.Addr().Is4() != want.Addr().Is4() })
	switch {
	case slices.Contains(same, want), len(same) == 0 && !ours(s.ExternalIDs):
		return nil
	case len(same) == 0 && len(has) > 0:
		return fmt.Errorf("option ovn.switch=%q: the switch has subnet %s and none of the family of %s", s.Name, has[0], want)
	case len(same) == 0:
		return nil // its addresses are managed elsewhere
	}
	advice := "--subnet " + same[0].String()
	if want.Addr().Is6() {
		advice = "--ipv6 " + advice
	}
	return fmt.Errorf("option ovn.switch=%q: the switch has subnet %s, not %s; give %s", s.Name, same[0], want, advice)
}
