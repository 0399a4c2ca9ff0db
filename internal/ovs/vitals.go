package ovs

import (
	"slices"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// Backlog is the number of changes in the database that ovs-vswitchd has not
// taken, 0 when that is not known.
func (f *Fabric) Backlog() int {
	v, err := f.db.View()
	if err != nil {
		return 0
	}
	r := root(v)
	if r == nil {
		return 0
	}
	return max(0, r.NextCfg-r.CurCfg)
}

// Transactions is how many were sent to the database so far.
func (f *Fabric) Transactions() uint64 { return f.db.Transactions() }

// Endpoint is where the database is.
func (f *Fabric) Endpoint() string { return f.db.Endpoint() }

// FreeTags is how many VLANs of a bridge are left for networks with vlan=auto.
func (f *Fabric) FreeTags(name string, all []network.Network) (int, error) {
	v, err := f.db.View()
	if err != nil {
		return 0, err
	}
	used := usedTags(v, findBridge(v, name), name, all)
	free := 0
	for tag := network.MinVLAN; tag <= network.MaxVLAN; tag++ {
		if !used[tag] {
			free++
		}
	}
	return free, nil
}

// Unshielded lists the ports of the userspace datapath, among those of networks,
// whose frames the host's own stack sees: somebody flushed the rule set.
func (f *Fabric) Unshielded(all []network.Network) ([]string, error) {
	v, err := f.db.View()
	if err != nil {
		return nil, err
	}
	var hosts []string
	for _, n := range all {
		if b := findBridge(v, n.Config.Bridge); b == nil || !b.userspace() {
			continue
		}
		for _, ep := range n.Endpoints {
			host, _ := ep.ID.Links()
			if _, linked := f.deviceOf(host); linked && ep.Phase == network.PhaseJoined {
				hosts = append(hosts, host)
			}
		}
	}
	if len(hosts) == 0 {
		return nil, nil
	}
	have, err := f.links.Shielded()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(hosts, func(h string) bool { return have[h] }), nil
}

// Userspace lists the bridges of networks that are of the userspace datapath.
func (f *Fabric) Userspace(all []network.Network) (bridges []string) {
	v, err := f.db.View()
	if err != nil {
		return nil
	}
	for _, b := range ovsdb.All[*bridge](v) {
		used := slices.ContainsFunc(all, func(n network.Network) bool { return n.Config.Bridge == b.Name })
		if used && b.userspace() {
			bridges = append(bridges, b.Name)
		}
	}
	slices.Sort(bridges)
	return bridges
}
