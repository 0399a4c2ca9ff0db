package ovs

import (
	"fmt"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// Health words of network.Status.
const (
	healthOK       = "ok"
	healthDegraded = "degraded"
	healthDetached = "detached"
	healthRemoving = "removing"
)

// removalTime is how long a removal may take before it counts as a fault.
const removalTime = 10 * time.Second

// Observe implements network.Fabric.
func (f *Fabric) Observe(n network.Network) network.Status {
	s := network.Status{Health: healthOK, Endpoints: make(map[network.EndpointID]network.EndpointStatus, len(n.Endpoints))}
	problem := func(mend []string, format string, args ...any) {
		s.Health = healthDegraded
		s.Problems = append(s.Problems, network.Problem{Cause: fmt.Sprintf(format, args...), Mend: mend})
	}
	v, err := f.db.View()
	if err != nil {
		problem(nil, "%v", err)
		for id := range n.Endpoints {
			host, _ := id.Links()
			_, linked := f.deviceOf(host)
			s.Endpoints[id] = network.EndpointStatus{Port: host, Linked: linked, Health: healthDegraded, Reason: "the switch cannot be reached"}
		}
		return s
	}
	b := findBridge(v, n.Config.Bridge)
	switch {
	case b == nil:
		problem([]string{"systemctl restart openvswitch-switch"}, "bridge %s does not exist", n.Config.Bridge)
	default:
		s.Datapath = system
		if b.userspace() {
			s.Datapath = netdev
		}
		if deref(b.DatapathID) == "" {
			problem([]string{"systemctl restart openvswitch-switch", "grep " + b.Name + " /var/log/openvswitch/ovs-vswitchd.log"},
				"bridge %s was not made by ovs-vswitchd", b.Name)
		}
		if b.ExternalIDs[keyRestored] == network.Owner {
			done := fmt.Sprintf("ovs-vsctl remove bridge %s external_ids %s", b.Name, keyRestored)
			problem([]string{"set the bridge up again (uplinks, settings)", done},
				"bridge %s of others was lost and made again without its settings: set it up again, then run %s", b.Name, done)
		}
		if n.Config.VLANMode == network.VLANAuto {
			for _, p := range foreignPorts(v, b) {
				if why := f.leadsOut(v, p); why != "" {
					problem([]string{
						"docker network rm, and create it again with --opt vlan=N or vlan=none",
						fmt.Sprintf("or keep the VLAN off the uplink: ovs-vsctl set port %s trunks=... (the report stays)", p.Name),
					}, "bridge %s got an uplink (port %s, %s): the automatic VLAN %d now reaches it", b.Name, p.Name, why, n.Config.VLAN)
				}
			}
		}
	}
	s.Mirrors = observeMirrors(v, b, n)
	if f.silent.Load() {
		problem([]string{"systemctl restart openvswitch-switch"}, "ovs-vswitchd does not act on changes")
	}
	stale := staleOffload(v, b)
	for id, p := range n.Endpoints {
		ep := *p
		host, peer := id.Links()
		dev, linked := f.deviceOf(host)
		_, home := f.deviceOf(peer)
		e := network.EndpointStatus{Port: host, Linked: linked, Home: home, Health: healthOK}
		i := findIface(v, host)
		if i != nil {
			e.OFPort = deref(i.OFPort)
		}
		switch verdict, _ := judge(i); {
		case ep.Phase == network.PhaseDeleting:
			e.Health, e.Reason = healthRemoving, "is being removed"
			if time.Since(ep.Changed) > removalTime {
				e.Health, e.Mend = healthDegraded, []string{"see what the daemon's log says of " + host, "ovs-vsctl show"}
			}
		case ep.Phase != network.PhaseJoined:
			e.Health, e.Reason = healthDetached, string(ep.Phase)
		case !linked:
			e.Health, e.Reason, e.Mend = healthDegraded, "its link is gone: restart the container", []string{"docker restart " + containerOf(ep)}
		case !dev.up:
			e.Health, e.Reason, e.Mend = healthDegraded, "its link is down", []string{"ip link set " + host + " up"}
		case verdict != nil:
			e.Health, e.Reason, e.Mend = healthDegraded, verdict.Error(), []string{"ovs-vsctl list Interface " + host, "docker restart " + containerOf(ep)}
		case n.Config.OVN != nil && !ep.Observer && !installed(i):
			e.Health, e.Reason, e.Mend = healthDegraded, "OVN has not installed its flows", []string{"ovs-vsctl list Interface " + host, "ovn-nbctl show " + n.Config.OVN.Switch, "tail /var/log/ovn/ovn-controller.log"}
		case dev.offloaded && stale != "":
			e.Health, e.Reason, e.Mend = healthDegraded, stale, []string{"docker restart " + containerOf(ep)}
		}
		if e.Health == healthDegraded {
			s.Health = healthDegraded
		}
		s.Endpoints[id] = e
	}
	return s
}

// containerOf names the container of an endpoint in a command.
func containerOf(ep network.Endpoint) string {
	if ep.ContainerName != "" {
		return ep.ContainerName
	}
	return "the container of endpoint " + ep.ID.Short()
}
