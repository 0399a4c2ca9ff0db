package ovn

import (
	"context"
	"fmt"
	"slices"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// What OVN can tell apart with VXLAN, whose 24 bits of VNI hold the switch and the
// port (ovn-architecture(7); ovn-northd gives the keys from 1 on). A switch or port
// beyond gets no key, and no word about it.
const (
	maxVXLANSwitches = 1<<12 - 1
	maxVXLANPorts    = 1<<11 - 1
)

// checkRoom refuses a switch that OVN has no key for.
func (f *Fabric) checkRoom(v ovsdb.View, encaps []string) error {
	if !slices.Contains(encaps, string(network.EncapVXLAN)) {
		return nil
	}
	if n := len(ovsdb.All[*logicalSwitch](v)) + len(ovsdb.All[*logicalRouter](v)); n >= maxVXLANSwitches {
		return fmt.Errorf("there are %d logical switches and routers, and OVN with VXLAN has room for %d: join one that exists, or use Geneve on all chassis", n, maxVXLANSwitches)
	}
	return nil
}

// checkPorts refuses an endpoint whose port OVN has no key for. The ports are counted
// by the server: a client with VXLAN asks for them at each connect, others never.
func (f *Fabric) checkPorts(ctx context.Context, c *change, ep network.Endpoint) error {
	chassis, err := f.Chassis()
	if err != nil || c.sw == nil || ep.Observer || !slices.Contains(encaps(chassis), string(network.EncapVXLAN)) {
		return err
	}
	if name, _ := ep.ID.Links(); findPort(c.view, name) != nil {
		return nil
	}
	rows, err := f.nb.Select(ctx, "Logical_Switch", ovsdb.ByUUID(c.sw.UUID), "ports")
	if err != nil || len(rows) == 0 {
		return err
	}
	if n := len(uuidsOf(rows[0]["ports"])) + c.more; n >= maxVXLANPorts {
		return fmt.Errorf("logical switch %s has %d ports, and OVN with VXLAN has room for %d: use another switch, or Geneve on all chassis", c.sw.Name, n, maxVXLANPorts)
	}
	c.more++ // it is written together with others
	return nil
}
