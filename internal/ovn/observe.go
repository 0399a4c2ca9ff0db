package ovn

import (
	"fmt"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

const healthDegraded = "degraded"

// Observe implements network.Fabric.
func (f *Fabric) Observe(n network.Network) network.Status {
	s := f.Fabric.Observe(f.here(n))
	if n.Config.OVN == nil {
		return s
	}
	problem := func(mend []string, format string, args ...any) {
		s.Health = healthDegraded
		s.Problems = append(s.Problems, network.Problem{Cause: fmt.Sprintf(format, args...), Mend: mend, Logical: true})
	}
	if note := f.tooLarge(n); note != "" {
		s.Notes = append(s.Notes, note)
	}
	v, err := f.nb.View()
	if err != nil {
		problem([]string{"see whether the OVN central runs (systemctl status ovn-central)"}, "%v", err)
		return s
	}
	sw, count := findSwitch(v, n.Config.OVN.Switch)
	switch {
	case count > 1:
		problem(nil, "%v", errAmbiguous(n.Config.OVN.Switch, count))
	case sw == nil:
		problem([]string{"ovn-nbctl show " + n.Config.OVN.Switch}, "logical switch %s does not exist", n.Config.OVN.Switch)
	default:
		if err := compatible(sw, n); err != nil {
			problem(nil, "%v", err)
		}
	}
	for id, p := range n.Endpoints {
		e := s.Endpoints[id]
		name, _ := id.Links()
		if p.Phase == network.PhaseJoined && !p.Observer && e.Health != healthDegraded && findPort(v, name) == nil {
			e.Health, e.Reason, s.Health = healthDegraded, "its logical switch port "+name+" does not exist", healthDegraded
			s.Endpoints[id] = e
		}
	}
	return s
}

// tooLarge tells of packets that the network allows and a tunnel has no room for;
// empty if there are none, or no tunnel: those on a physical network go there.
func (f *Fabric) tooLarge(n network.Network) string {
	c, err := f.Chassis()
	if err != nil || n.Config.OVN.Localnet != "" || lonely(c) {
		return ""
	}
	room, err := f.mtu(c, n.Config.OVN.Encap)
	if err != nil || n.Config.MTU <= room {
		return ""
	}
	return fmt.Sprintf("mtu %d is more than the tunnel leaves (%d): large packets to other hosts are dropped", n.Config.MTU, room)
}
