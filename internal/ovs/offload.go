package ovs

import (
	"fmt"
	"strings"

	"github.com/ovs-container-network/ovs-container-network/internal/link"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// keyTSO is the setting of ovs-vswitchd's userspace datapath by which containers
// may leave checksums and the segmentation of TCP to whoever sends a frame on
// (other_config of Open_vSwitch, since 2.14 without DPDK).
//
// What the database says is what new links are made for. While ovs-vswitchd runs
// the two can differ, and that does no harm: one that was started without the
// setting passes nothing at all from the moment it is set until its restart, and
// one that was started with it keeps it until then; a link that offloads nothing
// works in both. So links outlive the one change that matters: the setting is
// taken away and ovs-vswitchd restarted, and TCP of a container that still
// offloads has no checksums. Nobody else can turn that off in the container, so
// it is reported.
const keyTSO = "userspace-tso-enable"

// Acceleration is what the userspace datapath of this host takes off containers.
type Acceleration struct {
	TSO                bool   // userspace-tso-enable is set in the database
	TunnelsWithOffload bool   // tunnels take such segments: since 3.5
	Version            string // of Open vSwitch, as its start script wrote it down
}

// Acceleration tells what the database says of it. Nothing is known, and all is
// off, without a connection.
func (f *Fabric) Acceleration() Acceleration {
	v, err := f.db.View()
	if err != nil {
		return Acceleration{}
	}
	return acceleration(root(v))
}

func acceleration(r *openVSwitch) Acceleration {
	if r == nil {
		return Acceleration{}
	}
	version := deref(r.Version)
	return Acceleration{
		TSO:                strings.EqualFold(r.OtherConfig[keyTSO], "true"),
		TunnelsWithOffload: atLeast(version, 3, 5),
		Version:            version,
	}
}

// atLeast compares a version such as 3.1.0. One that cannot be read is old.
func atLeast(version string, major, minor int) bool {
	var a, b int
	if n, _ := fmt.Sscanf(version, "%d.%d", &a, &b); n != 2 {
		return false
	}
	return a > major || a == major && b >= minor
}

// offloadOn is what new links of a bridge may leave to the switch.
func offloadOn(v ovsdb.View, b *bridge) link.Offload {
	switch {
	case b == nil || !b.userspace():
		return link.OffloadAll
	case offloadFault(v, b) != "":
		return link.OffloadNone
	}
	return link.OffloadTCP
}

// offloadFault tells what does not work for a container that leaves checksums
// and segments to a bridge of the userspace datapath, empty if all works.
func offloadFault(v ovsdb.View, b *bridge) string {
	a := acceleration(root(v))
	if !a.TSO {
		return "its TCP and UDP do not work: it was started with offloads on, and " + keyTSO + " of Open vSwitch is off now"
	}
	if port := unfit(v, b, a.drops); port != "" {
		return fmt.Sprintf("its TCP and UDP do not pass port %s: it was started with offloads on, which this version of Open vSwitch drops there", port)
	}
	return ""
}

// drops tells whether interfaces of a type drop what is not finished. Before 3.5
// tunnels do ("Tunneling packets with HW offload flags is not supported"), and
// before 3.3 whatever is not a device of the kernel. AF_XDP does, as seen up to
// 4.0.
func (a Acceleration) drops(kind string) bool {
	switch kind {
	case "", system, "internal", "tap", "patch":
		return false
	case "afxdp", "afxdp-nonpmd":
		return true
	}
	return !a.TunnelsWithOffload
}

// unfit returns a port of the bridge that drops what is not finished, or one
// that can be reached through patch ports. Which bridge a patch port leads to is
// not looked at: any such port of the host counts then.
func unfit(v ovsdb.View, b *bridge, drops func(kind string) bool) string {
	ports, ifaces := ovsdb.All[*port](v), ovsdb.All[*iface](v)
	patched := false
	for _, p := range b.Ports {
		if ports[p] == nil {
			continue
		}
		for _, uuid := range ports[p].Interfaces {
			i := ifaces[uuid]
			if i == nil {
				continue
			}
			if drops(i.Type) {
				return i.Name
			}
			patched = patched || i.Type == "patch"
		}
	}
	for _, i := range ifaces {
		if patched && drops(i.Type) {
			return i.Name
		}
	}
	return ""
}

// staleOffload tells what is wrong with containers on a bridge that were started
// with offloads on, empty if nothing is.
func staleOffload(v ovsdb.View, b *bridge) string {
	if b == nil || !b.userspace() {
		return ""
	}
	if fault := offloadFault(v, b); fault != "" {
		return fault + ": restart the container"
	}
	return ""
}

// port is the port that an endpoint needs, with the mark of a link that offloads.
func (f *Fabric) port(c *change, ep network.Endpoint) network.Port {
	p := c.net.Port(ep)
	host, _ := ep.ID.Links()
	dev, _ := f.deviceOf(host)
	if ep.Phase == network.PhaseJoining { // it is being made, events may lag behind
		dev.offloaded = c.offload() == link.OffloadTCP
	}
	if dev.offloaded {
		p.ExternalIDs[network.KeyOffload] = "on"
	}
	return p
}
