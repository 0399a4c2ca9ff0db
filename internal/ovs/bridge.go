package ovs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// Default bridges: the second where OVN runs the first.
const (
	defaultBridge  = "br-int"
	fallbackBridge = "br-docker"
)

// keyRestored marks a bridge of others that was lost with the database and that
// this driver made again.
const keyRestored = "restored-by"

// Plan implements network.Fabric.
func (f *Fabric) Plan(n network.Network, others []network.Network) (network.Plan, error) {
	cfg := n.Config
	v, err := f.db.View()
	if err != nil {
		return network.Plan{}, err
	}
	r := root(v)
	if r == nil {
		return network.Plan{}, fmt.Errorf("database Open_vSwitch is empty")
	}
	integration := integrationBridge(r)
	if cfg.Bridge == "" {
		cfg.Bridge = defaultBridge
		if integration == defaultBridge || ovnHas(v, findBridge(v, defaultBridge)) {
			cfg.Bridge = fallbackBridge
		}
	}
	b := findBridge(v, cfg.Bridge)
	if err := f.checkBridge(v, r, cfg.Bridge, b); err != nil {
		return network.Plan{}, err
	}
	userspace := f.datapath(r) == netdev
	if b != nil {
		userspace = b.userspace()
	}
	if err := checkMTU("option", cfg.MTU, userspace); err != nil {
		return network.Plan{}, err
	}
	if cfg, err = planVLAN(f, v, b, cfg, others); err != nil {
		return network.Plan{}, err
	}
	if err := planMirror(v, b, cfg, others); err != nil {
		return network.Plan{}, err
	}
	owns := b != nil && ours(b.ExternalIDs)
	if b == nil {
		// One of others that is lost for the moment stays theirs.
		owns = !slices.ContainsFunc(others, func(o network.Network) bool {
			return o.Config.Bridge == cfg.Bridge && !o.OwnsBridge && o.Phase != network.PhaseDeleting
		})
	}
	return network.Plan{Config: cfg, OwnsBridge: owns}, nil
}

// CheckBridge implements network.Fabric.
func (f *Fabric) CheckBridge(name string) error {
	v, err := f.db.View()
	if err != nil || name == "" {
		return nil
	}
	r := root(v)
	if r == nil {
		return nil
	}
	return f.checkBridge(v, r, name, findBridge(v, name))
}

// checkBridge refuses OVN's bridge, and a new one whose name is taken.
func (f *Fabric) checkBridge(v ovsdb.View, r *openVSwitch, name string, b *bridge) error {
	if name == integrationBridge(r) || ovnHas(v, b) {
		return fmt.Errorf("option bridge=%q: this is OVN's integration bridge, which drops what OVN does not know; allowed is any other bridge, such as %s", name, fallbackBridge)
	}
	if b == nil {
		return f.checkFree(v, name)
	}
	return nil
}

// maxUserspaceMTU is the largest MTU for which a frame, with a tag of a
// container and one of the port, fits into the 16 bit offsets of ovs-vswitchd's
// packet buffers. A larger frame kills ovs-vswitchd (3.1 and 4.0 were tried).
const maxUserspaceMTU = 65500

func checkMTU(noun string, mtu int, userspace bool) error {
	if userspace && mtu > maxUserspaceMTU {
		return fmt.Errorf("%s mtu=\"%d\": Open vSwitch's userspace datapath cannot take such frames; allowed there are %d..%d", noun, mtu, network.MinMTU, maxUserspaceMTU)
	}
	return nil
}

// CheckMTU refuses one that the datapath of a bridge cannot take.
func (f *Fabric) CheckMTU(bridgeName string, mtu int) error {
	v, err := f.db.View()
	if err != nil {
		return err
	}
	b := findBridge(v, bridgeName)
	return checkMTU("option", mtu, b != nil && b.userspace())
}

// integrationBridge returns the name of OVN's bridge, empty where no OVN is
// configured (ovn-controller(8)).
func integrationBridge(r *openVSwitch) string {
	if r.ExternalIDs["ovn-remote"] == "" {
		return ""
	}
	if name := r.ExternalIDs["ovn-bridge"]; name != "" {
		return name
	}
	return defaultBridge
}

// ovnHas tells whether ovn-controller has taken a bridge over: it keeps its
// notes in the bridge's external_ids. As long as it was told of no database, it
// makes the bridge all the same, as one that forwards nothing.
func ovnHas(v ovsdb.View, b *bridge) bool {
	if b == nil {
		return false
	}
	if deref(b.FailMode) == secure && !ours(b.ExternalIDs) && len(portsOf(v, b)) == 0 {
		return true
	}
	for k := range b.ExternalIDs {
		if strings.HasPrefix(k, "ovn-") || strings.HasPrefix(k, "ct-zone-") {
			return true
		}
	}
	return false
}

// checkFree refuses a new bridge whose name something else has.
func (f *Fabric) checkFree(v ovsdb.View, name string) error {
	if p := findPort(v, name); p != nil {
		return fmt.Errorf("option bridge=%q: a port of that name exists on another Open vSwitch bridge; choose another name", name)
	}
	info, ok, err := f.links.Get(name)
	if err != nil {
		return err
	}
	if ok {
		return fmt.Errorf("option bridge=%q: a network device of that name exists (%s) and is not an Open vSwitch bridge; choose another name", name, info.Kind)
	}
	return nil
}

// ensureBridge returns the network's bridge, made if it is missing, with the
// view that shows it. It returns nil for a network that no longer needs one.
func (f *Fabric) ensureBridge(ctx context.Context, n network.Network) (*bridge, ovsdb.View, error) {
	v, err := f.db.View()
	if err != nil {
		return nil, v, err
	}
	b := findBridge(v, n.Config.Bridge)
	if b != nil && deref(b.DatapathID) != "" || n.Phase == network.PhaseDeleting {
		return b, v, f.reclaim(ctx, v, n, b)
	}
	if n.Config.OVN != nil {
		return f.awaitBridge(ctx, n.Config.Bridge)
	}
	r := root(v)
	if r == nil {
		return nil, v, fmt.Errorf("database Open_vSwitch is empty")
	}
	target := 0
	if b != nil {
		// It is there and was not made: is ovs-vswitchd there at all?
		sealed, err := f.write(ctx, nil, reconfigure(r))
		if err != nil {
			return nil, v, err
		}
		target = nextCfg(sealed)
	} else {
		sealed, err := f.write(ctx, f.newBridge(r, n), reconfigure(r))
		if err != nil {
			// Another network may have made it in the same moment.
			if b = findBridge(v, n.Config.Bridge); b == nil {
				return nil, v, fmt.Errorf("cannot make bridge %s: %w", n.Config.Bridge, err)
			}
		} else {
			target = nextCfg(sealed)
			f.log.Info("bridge made", "bridge", n.Config.Bridge, "owned", n.OwnsBridge)
			f.step("bridge made", 1)
		}
	}
	err = f.taken(ctx, target, func(v ovsdb.View) bool {
		b = findBridge(v, n.Config.Bridge)
		return b != nil && deref(b.DatapathID) != ""
	})
	switch {
	case err != nil:
		return nil, v, fmt.Errorf("bridge %s is not ready: %w", n.Config.Bridge, err)
	case b == nil:
		return nil, v, fmt.Errorf("bridge %s vanished while it was being made", n.Config.Bridge)
	case deref(b.DatapathID) == "":
		return nil, v, fmt.Errorf("bridge %s is not ready: ovs-vswitchd could not make it with datapath_type=%q (see ovs-vswitchd.log)", b.Name, b.DatapathType)
	}
	return b, v, nil
}

// OwnBridge is the name of OVN's bridge where a bridge of ours has the usual one.
const OwnBridge = "br-ovn"

// reclaim puts right a bridge of ours that ovn-controller has taken. It does so as
// soon as it is installed, before anybody has told it of a database, and the bridge
// forwards nothing any more. While OVN is not set up, it gets a bridge of its own.
func (f *Fabric) reclaim(ctx context.Context, v ovsdb.View, n network.Network, b *bridge) error {
	r := root(v)
	if r == nil || b == nil || !ours(b.ExternalIDs) || n.Config.OVN != nil || deref(b.FailMode) != secure {
		return nil
	}
	if integrationBridge(r) == b.Name {
		return fmt.Errorf("OVN was set up to use bridge %s of plain networks, and it forwards nothing any more: give OVN another (ovs-vsctl set Open_vSwitch . external_ids:ovn-bridge=%s)", b.Name, OwnBridge)
	}
	ops := []ovsdb.Operation{{Op: "update", Table: "Bridge", Where: ovsdb.ByUUID(b.UUID), Row: ovsdb.Values{"fail_mode": ovsdb.Set{GoSet: []any{}}}}}
	if r.ExternalIDs["ovn-remote"] == "" && b.Name == defaultBridge {
		ops = append(ops, ovsdb.Operation{Op: "mutate", Table: "Open_vSwitch", Where: ovsdb.ByUUID(r.UUID), Mutations: []ovsdb.Mutation{
			{Column: "external_ids", Mutator: "insert", Value: ovsdb.StringMap(map[string]string{"ovn-bridge": OwnBridge})},
		}})
	}
	if _, err := f.write(ctx, ops, reconfigure(r)); err != nil {
		return fmt.Errorf("cannot take bridge %s back from ovn-controller: %w", b.Name, err)
	}
	f.log.WarnContext(ctx, "ovn-controller had taken a bridge of plain networks, and has one of its own now", "bridge", b.Name, "ovn_bridge", OwnBridge)
	return nil
}

// awaitBridge waits for OVN's bridge, which ovn-controller makes.
func (f *Fabric) awaitBridge(ctx context.Context, name string) (b *bridge, v ovsdb.View, err error) {
	defer f.Outside(ctx, network.ForVswitchd)()
	budget, cancel := context.WithTimeout(ctx, f.db.Budget(f.served.Load()))
	defer cancel()
	err = f.db.Wait(budget, func(now ovsdb.View) (bool, error) {
		v, b = now, findBridge(now, name)
		return b != nil && deref(b.DatapathID) != "", nil
	})
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		err = fmt.Errorf("bridge %s is not there: ovn-controller makes it; does it run? (systemctl status ovn-controller)", name)
	}
	return b, v, err
}

// newBridge inserts the network's bridge, with the mark if it is to be ours. A
// bridge of others that was lost is made again so that containers talk, and
// stays theirs.
func (f *Fabric) newBridge(r *openVSwitch, n network.Network) []ovsdb.Operation {
	ids := map[string]string{keyRestored: network.Owner}
	if n.OwnsBridge {
		ids = map[string]string{network.KeyOwner: network.Owner}
	}
	return addBridge(r, n.Config.Bridge, f.datapath(r), ids)
}

// datapath is the type for a new bridge: the kernel's where it is there. That
// ovs-vswitchd lists a type does not say that it works (it always lists
// system), so the kernel is asked.
func (f *Fabric) datapath(r *openVSwitch) string {
	if f.links.HasKernelDatapath() && (len(r.DatapathTypes) == 0 || slices.Contains(r.DatapathTypes, system)) {
		return system
	}
	return netdev
}

// Remove implements network.Fabric.
func (f *Fabric) Remove(ctx context.Context, n network.Network, keepBridge bool) error {
	v, err := f.db.View()
	if err != nil {
		return err
	}
	b := findBridge(v, n.Config.Bridge)
	if b == nil {
		return nil
	}
	var ops []ovsdb.Operation
	for _, p := range portsOf(v, b) {
		if ours(p.ExternalIDs) && p.ExternalIDs[network.KeyNetworkID] == string(n.ID) {
			ops = append(ops, delPort(b, p.UUID))
		}
	}
	if len(ops) > 0 {
		if _, err := f.write(ctx, ops, nil); err != nil {
			return err
		}
	}
	if keepBridge || !n.OwnsBridge {
		return nil
	}
	return f.removeBridge(ctx, n.Config.Bridge)
}

// removeBridge removes a bridge that carries our mark and has no port left.
func (f *Fabric) removeBridge(ctx context.Context, name string) error {
	v, err := f.db.View()
	if err != nil {
		return err
	}
	b, r := findBridge(v, name), root(v)
	if b == nil || r == nil || !ours(b.ExternalIDs) || ovnHas(v, b) || len(portsOf(v, b)) > 0 {
		return nil
	}
	f.reapBridge(name) // first: from the commit on its device is nobody's
	if _, err := f.write(ctx, delBridge(r, b), reconfigure(r)); err != nil {
		return fmt.Errorf("cannot remove bridge %s: %w", name, err)
	}
	f.log.Info("bridge removed", "bridge", name)
	f.step("bridge removed", 1)
	return nil
}
