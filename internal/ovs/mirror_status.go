package ovs

import (
	"context"
	"fmt"
	"slices"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// observeMirrors tells of each destination what is copied to it, and if nothing is,
// why. A network that has no mirror.* option and no observer has none.
func observeMirrors(v ovsdb.View, b *bridge, n network.Network) (list []network.MirrorStatus) {
	cfg := n.Config.Mirroring()
	if b == nil || n.Phase == network.PhaseDeleting {
		return nil
	}
	have, _ := mirrorsOf(v, n.ID)
	made := madeByOVN(v, n)
	nothing := func(s *network.MirrorStatus) {
		s.Idle, s.Mend = "no container is copied", []string{"start a container on the network that does not observe itself"}
	}
	status := func(dest, to string, observer bool) network.MirrorStatus {
		s := network.MirrorStatus{Name: n.MirrorName(dest), To: to, Direction: cfg.Direction}
		m := have[s.Name]
		if m == nil {
			m = made[s.Name]
		}
		switch {
		case m == nil && observer && n.CopiedByOVN && len(mirroredPorts(v, n)) == 0:
			nothing(&s) // ovn-controller makes no mirror of nothing
		case m == nil && observer && n.CopiedByOVN && len(b.Mirrors) < maxMirrors:
			s.Idle, s.Mend = "ovn-controller has not made its mirror", []string{"ovn-nbctl list Mirror " + s.Name, "tail /var/log/ovn/ovn-controller.log"}
		case m == nil || !slices.Contains(b.Mirrors, m.UUID):
			s.Idle, s.Mend = "Open vSwitch has no mirror for it", []string{"ovs-vsctl list Mirror", "see what the daemon's log says of it"}
			if len(b.Mirrors) >= maxMirrors {
				s.Idle, s.Mend = fmt.Sprintf("bridge %s has %d mirrors, more Open vSwitch does not take", b.Name, maxMirrors), []string{"remove other mirrors: ovs-vsctl list Mirror"}
			}
		default:
			s.Ports = max(len(m.SelectSrc), len(m.SelectDst))
			if s.Ports == 0 {
				nothing(&s)
			}
		}
		return s
	}
	if cfg.Port != "" {
		s := status(cfg.Port, "port "+cfg.Port, false)
		switch p := destination(v, b, cfg); {
		case p == nil:
			s.Idle, s.Mend = fmt.Sprintf("bridge %s has no port %s", b.Name, cfg.Port), []string{fmt.Sprintf("ovs-vsctl add-port %s %s", b.Name, cfg.Port)}
		case dead(v, p):
			s.Idle, s.Mend = fmt.Sprintf("port %s of bridge %s has no device that works", p.Name, b.Name), []string{"ovs-vsctl --columns=name,type,error list Interface " + p.Name}
		}
		list = append(list, s)
	}
	if cfg.VLAN != 0 {
		list = append(list, status(vlanDest(cfg.VLAN), fmt.Sprintf("vlan %d", cfg.VLAN), false))
	}
	for _, ep := range n.SortedEndpoints() {
		if ep.Observer && (ep.Phase == network.PhaseJoining || ep.Phase == network.PhaseJoined) {
			host, _ := ep.ID.Links()
			s := status(host, ep.Title(), true)
			s.Endpoint = ep.ID
			list = append(list, s)
		}
	}
	if len(list) == 0 && n.Config.Mirror != nil {
		list = append(list, network.MirrorStatus{
			To: "nobody", Direction: cfg.Direction, Idle: "there is no destination",
			Mend: []string{"attach a container with mirror.dest=self"},
		})
	}
	missing := missingContainers(n)
	for i := range list {
		list[i].Missing = missing
	}
	return list
}

// missingContainers are those that mirror.ports names and that are not there.
func missingContainers(n network.Network) (missing []string) {
	there := make(map[string]bool, len(n.Endpoints))
	for _, ep := range n.Endpoints {
		if !ep.Observer {
			there[ep.ContainerName] = true
		}
	}
	for _, name := range n.Config.Mirroring().Containers {
		if !there[name] {
			missing = append(missing, name)
		}
	}
	return missing
}

// Copied is what was copied through a mirror.
type Copied struct{ Packets, Bytes uint64 }

// Copied counts what was copied, by the name of the mirror. One of which Open
// vSwitch has not counted anything yet is missing.
func (f *Fabric) Copied(ctx context.Context) (map[string]Copied, error) {
	rows, err := f.db.Select(ctx, "Mirror", nil, "name", "external_ids", "statistics")
	if err != nil {
		return nil, err
	}
	counts := make(map[string]Copied, len(rows))
	for _, r := range rows {
		name, _ := r["name"].(string)
		ids, _ := r["external_ids"].(ovsdb.Map)
		stats, _ := r["statistics"].(ovsdb.Map)
		packets, counted := number(stats.GoMap["tx_packets"])
		bytes, _ := number(stats.GoMap["tx_bytes"])
		of := ids.GoMap[network.KeyOwner] == network.Owner || ids.GoMap["ovn-owned"] == "true"
		if of && counted {
			counts[name] = Copied{packets, bytes}
		}
	}
	return counts, nil
}

func number(v any) (n uint64, ok bool) {
	switch v := v.(type) {
	case int:
		return uint64(max(v, 0)), true
	case float64:
		return uint64(max(v, 0)), true
	}
	return 0, false
}
