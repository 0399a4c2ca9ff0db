package ovs

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// A network has one row of Mirror for each destination: a port that its options
// name, a VLAN, and each container that observes it. A row selects single ports and
// never select_all: others may be on the bridge. One with no port to copy stays,
// since it also keeps its destination from sending into the bridge.

// maxMirrors is how many ovs-vswitchd takes of one bridge (MAX_MIRRORS).
const maxMirrors = 32

// keyMirror names what a mirror copies to, in its external_ids.
const keyMirror = "mirror"

// wantedMirror is a row as it should be.
type wantedMirror struct {
	name     string
	port     string // UUID, empty with a VLAN
	vlan     int
	src, dst []string // UUIDs of ports, sorted
	only     []int    // VLANs; none: all
	ids      map[string]string
	observer network.EndpointID // the destination, if it is a container
}

// vlanDest has a character that no name of a port may have: one can be named vlan900.
func vlanDest(vlan uint16) string { return fmt.Sprintf("vlan/%d", vlan) }

// wantedMirrors are the rows for n, as far as their destinations are there.
func wantedMirrors(v ovsdb.View, b *bridge, n network.Network) []wantedMirror {
	if b == nil || n.Phase == network.PhaseDeleting {
		return nil
	}
	cfg := n.Config.Mirroring()
	var want []wantedMirror
	add := func(dest string, m wantedMirror) {
		m.name, m.ids = n.MirrorName(dest), n.RowIDs()
		m.ids[keyMirror] = dest
		if m.observer != "" {
			m.ids[network.KeyEndpointID] = string(m.observer)
		}
		want = append(want, m)
	}
	if p := destination(v, b, cfg); p != nil {
		add(p.Name, wantedMirror{port: p.UUID})
	}
	if cfg.VLAN != 0 {
		add(vlanDest(cfg.VLAN), wantedMirror{vlan: int(cfg.VLAN)})
	}
	for _, ep := range n.Endpoints {
		if !ep.Observer || n.CopiedByOVN { // first: of a thousand endpoints few are
			continue
		}
		if p := attached(v, *ep); p != nil {
			add(p.Name, wantedMirror{port: p.UUID, observer: ep.ID, only: watched(*ep)})
		}
	}
	if len(want) == 0 {
		return nil
	}
	ports := mirroredPorts(v, n)
	for i := range want {
		if cfg.Direction != network.DirectionIn {
			want[i].src = ports // entering the bridge: what the container sends
		}
		if cfg.Direction != network.DirectionOut {
			want[i].dst = ports
		}
	}
	return want
}

// watched are the VLANs that the observer's own options choose.
func watched(ep network.Endpoint) (only []int) {
	if ep.Trunk == nil {
		return nil
	}
	for _, tag := range *ep.Trunk {
		only = append(only, int(tag))
	}
	return only
}

// destination is the port that mirror.dest names, nil if it is not on the bridge.
func destination(v ovsdb.View, b *bridge, cfg network.Mirror) *port {
	p := findPort(v, cfg.Port)
	if cfg.Port == "" || p == nil || ours(p.ExternalIDs) || !slices.Contains(b.Ports, p.UUID) {
		return nil
	}
	return p
}

// dead tells whether ovs-vswitchd has given up on all devices of a port.
func dead(v ovsdb.View, p *port) bool {
	return len(p.Interfaces) > 0 && !slices.ContainsFunc(p.Interfaces, func(uuid string) bool {
		i, ok := ovsdb.Find(v, &iface{UUID: uuid})
		return !ok || deref(i.Error) == "" && (i.OFPort == nil || *i.OFPort >= 0)
	})
}

// attached is the port of an endpoint that a container uses, nil if there is none.
func attached(v ovsdb.View, ep network.Endpoint) *port {
	if ep.Phase != network.PhaseJoining && ep.Phase != network.PhaseJoined {
		return nil
	}
	host, _ := ep.ID.Links()
	p := findPort(v, host)
	if p == nil || !ours(p.ExternalIDs) || p.ExternalIDs[network.KeyEndpointID] != string(ep.ID) {
		return nil
	}
	return p
}

// mirroredPorts are the ports of n whose packets are copied.
func mirroredPorts(v ovsdb.View, n network.Network) []string {
	var ports []string
	for _, ep := range n.Endpoints {
		if p := attached(v, *ep); p != nil && n.Config.Mirrored(*ep) {
			ports = append(ports, p.UUID)
		}
	}
	slices.Sort(ports)
	return ports
}

// mirrorsOf are the rows that were made for a network, by name. Of several with one
// name all but one are strays.
func mirrorsOf(v ovsdb.View, id network.ID) (byName map[string]*mirror, strays []*mirror) {
	byName = make(map[string]*mirror)
	for _, m := range ovsdb.All[*mirror](v) {
		switch {
		case !ours(m.ExternalIDs) || m.ExternalIDs[network.KeyNetworkID] != string(id):
		case byName[m.Name] != nil:
			strays = append(strays, m)
		default:
			byName[m.Name] = m
		}
	}
	return byName, strays
}

// copyPackets makes the mirrors of a network what they should be, after its ports.
// It returns the number of the configuration that has them, 0 if nothing changed.
func (f *Fabric) copyPackets(ctx context.Context, c *change) (target int, err error) {
	f.awaitPort(c.net)
	// A port or a destination may go between the look and the write.
	for try := 1; ; try++ {
		target, err = f.copyOnce(ctx, c)
		var refused *ovsdb.TransactError
		if !errors.As(err, &refused) || try == 3 {
			return target, err
		}
	}
}

func (f *Fabric) copyOnce(ctx context.Context, c *change) (target int, err error) {
	v, err := f.db.View()
	if err != nil {
		return 0, err
	}
	b := findBridge(v, c.net.Config.Bridge)
	want := wantedMirrors(v, b, c.net)
	have, strays := mirrorsOf(v, c.net.ID)
	made := madeByOVN(v, c.net)
	looked, lags := f.lagging(v, c.net.ID, made)
	room := 0
	if b != nil {
		room = maxMirrors - len(b.Mirrors)
	}
	c.refuseObservers(made, room)
	if len(want)+len(have)+len(made) == 0 && !lags {
		return 0, nil
	}
	var ops []ovsdb.Operation
	for _, m := range append(strays, spoilt(made)...) {
		ops = append(ops, delMirror(m.UUID)...)
	}
	var fresh []wantedMirror
	for _, w := range want {
		m := have[w.name]
		delete(have, w.name)
		switch {
		case made[w.name] != nil: // it is waited for its end, which wakes us: two would double each copy
			if m != nil {
				ops = append(ops, delMirror(m.UUID)...)
			}
		case m == nil:
			fresh = append(fresh, w)
		case !slices.Contains(b.Mirrors, m.UUID):
			ops = append(ops, delMirror(m.UUID)...)
			fresh = append(fresh, w)
		default:
			ops = append(ops, mendMirror(m, w)...)
		}
	}
	for _, m := range have {
		if unknownObserver(m, c.net) {
			continue
		}
		ops = append(ops, delMirror(m.UUID)...)
		room++
	}
	for i, w := range fresh {
		if room--; room < 0 {
			if w.observer != "" {
				c.errs[w.observer] = fullError(b)
			}
			continue
		}
		ops = append(ops, addMirror(b, fmt.Sprintf("mirror%d", i), w)...)
	}
	if len(ops) > 0 || lags {
		ops = append(ops, revalidate(v, c.net)...)
	}
	if len(ops) == 0 {
		f.noteLooked(c.net.ID, looked)
		return 0, nil
	}
	sealed, err := f.write(ctx, ops, reconfigure(c.root))
	if err != nil {
		return 0, err
	}
	f.noteLooked(c.net.ID, looked)
	f.step("mirrors written", len(ops))
	return nextCfg(sealed), nil
}

func fullError(b *bridge) error {
	return fmt.Errorf("bridge %s has %d mirrors, more Open vSwitch does not take", b.Name, maxMirrors)
}

// refuseObservers refuses those that start when there is no room for their mirrors, where
// OVN makes these: nobody else would tell.
// ovn-controller makes no mirror of nothing, so room is taken by those that wait, too.
func (c *change) refuseObservers(made map[string]*mirror, room int) {
	if !c.net.CopiedByOVN || c.bridge == nil {
		return
	}
	for _, phase := range []network.Phase{network.PhaseJoined, network.PhaseJoining} {
		for _, ep := range c.net.SortedEndpoints() {
			host, _ := ep.ID.Links()
			if !ep.Observer || ep.Phase != phase || made[c.net.MirrorName(host)] != nil {
				continue
			}
			if room--; room < 0 && phase == network.PhaseJoining {
				c.errs[ep.ID] = fullError(c.bridge)
			}
		}
	}
}

// addMirror inserts a mirror, if the bridge is still there.
func addMirror(b *bridge, id string, w wantedMirror) []ovsdb.Operation {
	row := ovsdb.Values{
		"name": w.name, "select_src_port": ovsdb.UUIDs(w.src...), "select_dst_port": ovsdb.UUIDs(w.dst...), "select_vlan": numbers(w.only), "external_ids": ovsdb.StringMap(w.ids),
	}
	if w.port != "" {
		row["output_port"] = ovsdb.UUID{GoUUID: w.port}
	} else {
		row["output_vlan"] = w.vlan
	}
	return []ovsdb.Operation{
		ovsdb.Is("Bridge", ovsdb.ByUUID(b.UUID), ovsdb.Values{"name": b.Name}),
		{Op: "insert", Table: "Mirror", UUIDName: id, Row: row},
		{Op: "mutate", Table: "Bridge", Where: ovsdb.ByUUID(b.UUID), Mutations: []ovsdb.Mutation{
			{Column: "mirrors", Mutator: "insert", Value: ovsdb.UUIDs(id)},
		}},
	}
}

// keyQinQ says with which type a port of mode dot1q-tunnel tags frames; we make none.
const keyQinQ = "qinq-ethtype"

// revalidate has ovs-vswitchd look at all its flows again, in the transaction that
// changes mirrors. Open vSwitch 3.1 does not by itself: packets of a flow that it has
// go on to be copied, or not to be copied, for as long as the flow is in use. It does
// when the type of tag of any port changes, also of one that uses none.
func revalidate(v ovsdb.View, n network.Network) []ovsdb.Operation {
	var chosen *port
	for _, ep := range n.Endpoints {
		if p := attached(v, *ep); p != nil && (chosen == nil || ep.Observer) { // of others the MACs are forgotten
			chosen = p
		}
	}
	if chosen == nil {
		return nil
	}
	change := ovsdb.Mutation{Column: "other_config", Mutator: "insert", Value: ovsdb.StringMap(map[string]string{keyQinQ: "802.1q"})}
	if chosen.OtherConfig[keyQinQ] != "" {
		change = ovsdb.Mutation{Column: "other_config", Mutator: "delete", Value: ovsdb.Set{GoSet: []any{keyQinQ}}}
	}
	return []ovsdb.Operation{{Op: "mutate", Table: "Port", Where: ovsdb.ByUUID(chosen.UUID), Mutations: []ovsdb.Mutation{change}}}
}

// mendMirror returns what differs between a mirror and what it should be. Ports are
// added and taken away one by one: of a thousand, one is new.
func mendMirror(m *mirror, w wantedMirror) (ops []ovsdb.Operation) {
	row := ovsdb.Values{}
	if m.SelectAll {
		row["select_all"] = false
	}
	if !slices.Equal(slices.Sorted(slices.Values(m.SelectVLAN)), w.only) {
		row["select_vlan"] = numbers(w.only)
	}
	if deref(m.OutputPort) != w.port {
		row["output_port"] = ovsdb.UUIDs()
		if w.port != "" {
			row["output_port"] = ovsdb.UUIDs(w.port)
		}
	}
	if deref(m.OutputVLAN) != w.vlan {
		row["output_vlan"] = ovsdb.Set{GoSet: []any{}}
		if w.vlan != 0 {
			row["output_vlan"] = w.vlan
		}
	}
	if len(row) > 0 {
		ops = append(ops, ovsdb.Operation{Op: "update", Table: "Mirror", Where: ovsdb.ByUUID(m.UUID), Row: row})
	}
	var changes []ovsdb.Mutation
	for _, s := range []struct {
		column     string
		have, want []string
	}{{"select_src_port", m.SelectSrc, w.src}, {"select_dst_port", m.SelectDst, w.dst}} {
		if less := without(s.have, s.want); len(less) > 0 {
			changes = append(changes, ovsdb.Mutation{Column: s.column, Mutator: "delete", Value: ovsdb.UUIDs(less...)})
		}
		if more := without(s.want, s.have); len(more) > 0 {
			changes = append(changes, ovsdb.Mutation{Column: s.column, Mutator: "insert", Value: ovsdb.UUIDs(more...)})
		}
	}
	if len(changes) > 0 {
		ops = append(ops, ovsdb.Operation{Op: "mutate", Table: "Mirror", Where: ovsdb.ByUUID(m.UUID), Mutations: changes})
	}
	if !contains(m.ExternalIDs, w.ids) {
		ops = append(ops, ovsdb.SetIDs("Mirror", m.UUID, w.ids))
	}
	return ops
}

func numbers(list []int) ovsdb.Set {
	set := ovsdb.Set{GoSet: make([]any, 0, len(list))}
	for _, n := range list {
		set.GoSet = append(set.GoSet, n)
	}
	return set
}

// without returns the elements of a that are not in b.
func without(a, b []string) (rest []string) {
	in := make(map[string]bool, len(b))
	for _, s := range b {
		in[s] = true
	}
	for _, s := range a {
		if !in[s] {
			rest = append(rest, s)
		}
	}
	return rest
}

// unknownObserver tells whether a mirror copies to an endpoint of which nothing is
// known, such as one whose record cannot be read: Prune takes both together, once its
// container has ended.
func unknownObserver(m *mirror, n network.Network) bool {
	id := network.EndpointID(m.ExternalIDs[network.KeyEndpointID])
	return id != "" && n.Phase != network.PhaseDeleting && n.Endpoints[id] == nil && deref(m.OutputPort) != ""
}

// delMirror takes a mirror off its bridge, whichever that is; the row goes with the
// last reference.
func delMirror(uuid string) []ovsdb.Operation {
	return []ovsdb.Operation{{
		Op: "mutate", Table: "Bridge", Where: []ovsdb.Condition{{Column: "mirrors", Function: "includes", Value: ovsdb.UUIDs(uuid)}},
		Mutations: []ovsdb.Mutation{{Column: "mirrors", Mutator: "delete", Value: ovsdb.UUIDs(uuid)}},
	}}
}

// mirrorsInto removes the mirrors that copy into a port of ours which goes: they would
// stay, and silently do nothing; those of OVN while ovn-controller does not run.
func mirrorsInto(v ovsdb.View, portUUID string) (ops []ovsdb.Operation) {
	for _, m := range ovsdb.All[*mirror](v) {
		if (ours(m.ExternalIDs) || m.ofOVN()) && deref(m.OutputPort) == portUUID {
			ops = append(ops, delMirror(m.UUID)...)
		}
	}
	return ops
}

// strayMirrors are the mirrors of ours of networks that are not known. Those of
// known networks are Apply's.
func strayMirrors(v ovsdb.View, keep []network.Network, spare func(network.ID, network.EndpointID) bool) (strays []*mirror) {
	for _, m := range ovsdb.All[*mirror](v) {
		id := network.ID(m.ExternalIDs[network.KeyNetworkID])
		known := slices.ContainsFunc(keep, func(n network.Network) bool { return n.ID == id })
		if ours(m.ExternalIDs) && !known && !spare(id, "") {
			strays = append(strays, m)
		}
	}
	return strays
}

// CheckMirror refuses destinations that cannot work on the network's bridge. It only
// reads and never waits.
func (f *Fabric) CheckMirror(cfg network.Config) error {
	v, err := f.db.View()
	if err != nil {
		return err
	}
	return planMirror(v, findBridge(v, cfg.Bridge), cfg, nil)
}

// planMirror refuses destinations that cannot work.
func planMirror(v ovsdb.View, b *bridge, cfg network.Config, others []network.Network) error {
	m := cfg.Mirroring()
	if p := findPort(v, m.Port); m.Port != "" && p != nil {
		if on := bridgeOf(v, p.UUID); on != nil && (b == nil || on.UUID != b.UUID) {
			return fmt.Errorf("option mirror.dest=%q: this port is on bridge %s, and the network is on %s; allowed is a port of that one", m.Port, on.Name, cfg.Bridge)
		}
	}
	for _, o := range others {
		if m.VLAN != 0 && o.Config.Bridge == cfg.Bridge && o.Config.VLANMode == network.VLANAuto && o.Config.VLAN == m.VLAN {
			return fmt.Errorf("option mirror.vlan=\"%d\": %s has this tag to itself on bridge %s (vlan=auto); allowed is any other", m.VLAN, o.Title(), cfg.Bridge)
		}
	}
	return nil
}

// awaitPort remembers which port of others a network copies to, for when it appears.
func (f *Fabric) awaitPort(n network.Network) {
	name := n.Config.Mirroring().Port
	f.mu.Lock()
	defer f.mu.Unlock()
	if name == "" || n.Phase == network.PhaseDeleting {
		delete(f.awaited, n.ID)
		return
	}
	f.awaited[n.ID] = name
}

// portAppeared has the networks looked at that copy to a port.
func (f *Fabric) portAppeared(p *port) {
	f.mu.Lock()
	var ids []network.ID
	for id, name := range f.awaited {
		if name == p.Name {
			ids = append(ids, id)
		}
	}
	f.mu.Unlock()
	if len(ids) > 0 {
		f.dirty(ids...)
	}
}
