package ovs

import (
	"fmt"
	"regexp"
	"slices"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// planVLAN gives cfg its tag on bridge b, which may not exist yet.
func planVLAN(f *Fabric, v ovsdb.View, b *bridge, cfg network.Config, others []network.Network) (network.Config, error) {
	switch cfg.VLANMode {
	case network.VLANNone, network.VLANTag:
		return cfg, checkTags(cfg, others)
	}
	if b != nil {
		for _, p := range foreignPorts(v, b) {
			if why := f.leadsOut(v, p); why != "" {
				return cfg, fmt.Errorf("option vlan=\"auto\": bridge %s has an uplink (port %s, %s), where a chosen tag would reach a real VLAN; allowed there are 1..4094 and none", b.Name, p.Name, why)
			}
		}
	}
	used := usedTags(v, b, cfg.Bridge, others)
	used[int(cfg.Mirroring().VLAN)] = true
	// From the top, out of the way of the numbers that people like to give.
	for tag := network.MaxVLAN; tag >= network.MinVLAN; tag-- {
		if !used[tag] {
			cfg.VLAN = uint16(tag)
			return cfg, nil
		}
	}
	return cfg, fmt.Errorf("option vlan=\"auto\": all %d VLANs of bridge %s are in use; use another bridge", network.MaxVLAN, cfg.Bridge)
}

// maxTold is how many networks that are in the way are named.
const maxTold = 3

// checkTags refuses tags that another network has to itself.
func checkTags(cfg network.Config, others []network.Network) error {
	var faults []string
	for _, o := range others {
		if o.Config.Bridge != cfg.Bridge || o.Config.VLANMode != network.VLANAuto {
			continue
		}
		if cfg.VLANMode == network.VLANTag && o.Config.VLAN == cfg.VLAN {
			faults = append(faults, fmt.Sprintf("option vlan=\"%d\": %s has this tag to itself on bridge %s (vlan=auto); allowed is any other", cfg.VLAN, o.Title(), cfg.Bridge))
		}
		if cfg.Trunk.Has(o.Config.VLAN) {
			faults = append(faults, fmt.Sprintf("option trunk=%q: %s has tag %d to itself on bridge %s (vlan=auto); allowed are others", cfg.Trunk, o.Title(), o.Config.VLAN, cfg.Bridge))
		}
	}
	if len(faults) == 0 {
		return nil
	}
	if more := len(faults) - maxTold; more > 0 {
		faults = append(faults[:maxTold], fmt.Sprintf("and so on for %d more networks", more))
	}
	return &network.OptionsError{Faults: faults}
}

// usedTags are the tags seen on any port of the bridge or promised to a network.
func usedTags(v ovsdb.View, b *bridge, name string, others []network.Network) map[int]bool {
	used := make(map[int]bool)
	if b != nil {
		for _, p := range portsOf(v, b) {
			if p.Tag != nil {
				used[*p.Tag] = true
			}
			for _, t := range p.Trunks {
				used[t] = true
			}
		}
	}
	for _, o := range others {
		if o.Config.Bridge != name {
			continue
		}
		use := func(vlan uint16, trunk network.VLANs) {
			used[int(vlan)] = true
			for _, t := range trunk {
				used[int(t)] = true
			}
		}
		use(o.Config.VLAN, o.Config.Trunk)
		used[int(o.Config.Mirroring().VLAN)] = true
		for _, ep := range o.Endpoints {
			if ep.VLAN != nil || ep.Trunk != nil {
				p := o.Port(*ep)
				use(p.VLAN, p.Trunk)
			}
		}
	}
	return used
}

// guestIDs are external_ids by which virtual machines and containers of others
// are known.
var guestIDs = []string{"container_id", "vm-id", "vm-uuid", "xs-vm-uuid", "iface-id", "attached-mac"}

// likeNIC matches the names that systems give to network cards. A host that is
// itself a container has such a veth as its uplink.
var likeNIC = regexp.MustCompile(`^(eth|en[opsx]|wl|ww|ib|bond|team)[0-9a-z]*[0-9]`)

// leadsOut tells whether a port of others leads out of this host, and why, in
// words. Ports of virtual machines (taps), of containers (veths) and the host's
// own (internal) do not.
func (f *Fabric) leadsOut(v ovsdb.View, p *port) string {
	i := findIface(v, p.Name)
	if i == nil {
		return "a bond"
	}
	switch i.Type {
	case "internal", "tap", "dpdkvhostuser", "dpdkvhostuserclient":
		return ""
	case "", "system", "afxdp", "afxdp-nonpmd":
	default:
		return "type " + i.Type // patch, tunnels, dpdk
	}
	for _, ids := range []map[string]string{p.ExternalIDs, i.ExternalIDs} {
		if slices.ContainsFunc(guestIDs, func(k string) bool { return ids[k] != "" }) {
			return ""
		}
	}
	info, ok, err := f.links.Get(p.Name)
	switch {
	case err != nil || !ok:
		return "" // nothing there that could lead anywhere
	case info.Kind == "tuntap", info.Kind == "tun", info.Kind == "veth" && !likeNIC.MatchString(p.Name):
		return ""
	}
	return "a network device of kind " + info.Kind
}
