package ovn

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// An observer gets its copies from a row of Mirror in the northbound database where that
// has the type local, and ovn-northd and ovn-controller here know it (all from OVN 23.06
// on; a cluster has the schema of its first new member, under an old northd): the sink
// is the mirror-id of the observer's port, and the logical switch ports to copy refer to
// the row in their mirror_rules, beside those of others. From that ovn-controller makes
// Open vSwitch's mirror. Elsewhere the fabric of bridges makes that itself.

const mirrorLocal = "local"

// chooseMirrors finds out whether OVN is to copy to the observers of this host. What
// does not answer has not changed.
func (f *Fabric) chooseMirrors(ctx context.Context, c *change) {
	if !c.watched() {
		return
	}
	if !c.view.Allows("Mirror", "type", mirrorLocal) {
		f.mirrors.Store(false)
		return
	}
	defer f.Outside(ctx, network.ForOVN)()
	version := f.controllerVersion(ctx)
	before := f.mirrors.Load() || len(ovsdb.All[*mirror](c.view)) > 0 // an earlier life of this daemon found out
	if !before && knowsLocal(version) {
		version = f.northdVersion(ctx)
	}
	if version == "" {
		f.mirrors.Store(before)
		return
	}
	f.mirrors.Store(knowsLocal(version))
}

// northdVersion is that of the active ovn-northd, empty if it does not say.
func (f *Fabric) northdVersion(ctx context.Context) string {
	rows, err := f.nb.Read(ctx, ovsdb.Query{Table: "NB_Global", Columns: []string{"options"}})
	if err != nil || len(rows) == 0 || len(rows[0]) == 0 {
		return ""
	}
	return pairsOf(rows[0][0]["options"])["northd_internal_version"]
}

// knowsLocal tells whether OVN of that version takes mirrors of type local for what they
// are. Before, ovn-controller made a port of that type in place of a tunnel.
func knowsLocal(version string) bool {
	var year, month int
	if n, _ := fmt.Sscanf(version, "%d.%d", &year, &month); n != 2 {
		return false
	}
	return year > 23 || year == 23 && month >= 6
}

// watched tells whether the network has, or had, an observer on this host.
func (c *change) watched() bool {
	for _, ep := range c.net.Endpoints {
		if ep.Observer {
			return true
		}
	}
	return len(mirrorsOf(c.view, c.net.ID)) > 0
}

// here is a network with what the fabric below has to know.
func (f *Fabric) here(n network.Network) network.Network {
	f.mu.Lock()
	defer f.mu.Unlock()
	n.CopiedByOVN = n.Config.OVN != nil && f.copied[n.ID]
	return n
}

// setCopied remembers that OVN has the mirrors of a network: what was only to be does
// not count, since an observer would have none.
func (f *Fabric) setCopied(id network.ID, yes bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !yes {
		delete(f.copied, id)
		return
	}
	f.copied[id] = true
}

// mirrorsOf are the rows for the observers of a network on this host, by name.
func mirrorsOf(v ovsdb.View, id network.ID) map[string]*mirror {
	found := make(map[string]*mirror)
	for _, m := range ovsdb.All[*mirror](v) {
		if m.ExternalIDs[network.KeyNetworkID] == string(id) {
			found[m.Name] = m
		}
	}
	return found
}

// wantedMirrors are the rows for the observers of c's network.
func (f *Fabric) wantedMirrors(c *change) (want []mirror) {
	if !f.mirrors.Load() || c.net.Phase == network.PhaseDeleting {
		return nil
	}
	filter := map[network.Direction]string{
		network.DirectionIn: "to-lport", network.DirectionOut: "from-lport", network.DirectionBoth: "both",
	}[c.net.Config.Mirroring().Direction]
	for _, ep := range c.net.Endpoints {
		if !ep.Observer || ep.Phase != network.PhaseJoining && ep.Phase != network.PhaseJoined {
			continue
		}
		sink, _ := ep.ID.Links()
		ids := c.net.Port(*ep).ExternalIDs
		ids[network.KeyHostID], ids[network.KeyHost] = f.cfg.HostID, c.chassis
		want = append(want, mirror{Name: c.net.MirrorName(sink), Type: mirrorLocal, Filter: filter, Sink: sink, ExternalIDs: ids})
	}
	return want
}

// watch makes the mirrors of a network what they should be, and the ports that are there
// refer to them; new ones refer to c.rules from the start.
func (f *Fabric) watch(ctx context.Context, c *change) error {
	have := mirrorsOf(c.view, c.net.ID)
	want := f.wantedMirrors(c)
	if len(have)+len(want) == 0 {
		f.setCopied(c.net.ID, false)
		return nil
	}
	if len(want) > 0 {
		if err := f.Yield(ctx, c.net); err != nil {
			return err
		}
	}
	var groups [][]ovsdb.Operation // one for each observer
	var owners []network.EndpointID
	add := func(m mirror, ops ...ovsdb.Operation) {
		if len(ops) > 0 {
			groups, owners = append(groups, ops), append(owners, network.EndpointID(m.ExternalIDs[network.KeyEndpointID]))
		}
	}
	for _, w := range want {
		if m := have[w.Name]; m != nil {
			add(w, mendMirror(m, w)...)
		} else {
			add(w, ovsdb.Insert("Mirror", "mirror", ovsdb.Values{
				"name": w.Name, "type": w.Type, "filter": w.Filter, "sink": w.Sink, "index": 0, "external_ids": ovsdb.StringMap(w.ExternalIDs),
			}))
		}
		delete(have, w.Name)
	}
	for _, m := range have {
		if c.net.Endpoints[network.EndpointID(m.ExternalIDs[network.KeyEndpointID])] == nil && c.net.Phase != network.PhaseDeleting {
			continue // its record may not be readable: Prune's
		}
		add(*m, delMirror(m.UUID))
	}
	if len(groups) > 0 {
		for i, err := range f.write(ctx, groups...) {
			if err != nil {
				c.errs[owners[i]] = fmt.Errorf("cannot make its mirror on logical switch %s: %w", c.net.Config.OVN.Switch, err)
			}
		}
		v, err := f.nb.View()
		if err != nil {
			return err
		}
		c.view = v
	}
	for _, w := range want {
		if m, ok := ovsdb.Find(c.view, &mirror{Name: w.Name}); ok {
			c.rules = append(c.rules, m.UUID)
		}
	}
	f.setCopied(c.net.ID, len(c.rules) > 0)
	ops, err := f.refer(ctx, c)
	if err == nil && len(ops) > 0 {
		err = f.write(ctx, ops)[0]
	}
	return err
}

// blame makes a fault of the mirrors one of the observers: the others need no mirror to
// work. It is false if there are none.
func (c *change) blame(err error) (blamed bool) {
	for _, ep := range c.net.Endpoints {
		if ep.Observer {
			c.errs[ep.ID], blamed = err, true
		}
	}
	return blamed
}

// mendMirror returns what differs between a row and what it should be.
func mendMirror(m *mirror, w mirror) (ops []ovsdb.Operation) {
	if m.Type != w.Type || m.Filter != w.Filter || m.Sink != w.Sink {
		ops = append(ops, ovsdb.Operation{Op: "update", Table: "Mirror", Where: ovsdb.ByUUID(m.UUID), Row: ovsdb.Values{"type": w.Type, "filter": w.Filter, "sink": w.Sink}})
	}
	if !holds(m.ExternalIDs, w.ExternalIDs) {
		ops = append(ops, ovsdb.SetIDs("Mirror", m.UUID, w.ExternalIDs))
	}
	return ops
}

// delMirror removes a row. References to it end with it.
func delMirror(uuid string) ovsdb.Operation {
	return ovsdb.Operation{Op: "delete", Table: "Mirror", Where: ovsdb.ByUUID(uuid)}
}

// refer returns what has to change for exactly the ports that are copied to refer to the
// mirrors. Older databases have no such column, so it is not in the cache.
func (f *Fabric) refer(ctx context.Context, c *change) (ops []ovsdb.Operation, err error) {
	if len(c.rules) == 0 {
		return nil, nil
	}
	wanted := make(map[string]string) // UUIDs of ports by name
	for _, ep := range c.net.Endpoints {
		name, _ := ep.ID.Links()
		if p := findPort(c.view, name); p != nil && c.copies(*ep) {
			wanted[name] = p.UUID
		}
	}
	queries := make([]ovsdb.Query, len(c.rules))
	for i, rule := range c.rules {
		queries[i] = ovsdb.Query{
			Table: "Logical_Switch_Port", Columns: []string{"_uuid", "name"},
			Where: []ovsdb.Condition{{Column: "mirror_rules", Function: "includes", Value: ovsdb.UUIDs(rule)}},
		}
	}
	rows, err := f.nb.Read(ctx, queries...)
	if err != nil {
		return nil, err
	}
	for i, rule := range c.rules {
		mutate := func(port string, m ovsdb.Mutation) {
			m.Column, m.Value = "mirror_rules", ovsdb.UUIDs(rule)
			ops = append(ops, ovsdb.Mutate("Logical_Switch_Port", ovsdb.ByUUID(port), m))
		}
		refers := make(map[string]bool, len(rows[i]))
		for _, r := range rows[i] {
			name := textOf(r["name"])
			refers[name] = true
			if wanted[name] == "" {
				for _, uuid := range uuidsOf(r["_uuid"]) {
					mutate(uuid, ovsdb.Mutation{Mutator: "delete"})
				}
			}
		}
		for name, uuid := range wanted {
			if !refers[name] {
				mutate(uuid, ovsdb.Mutation{Mutator: "insert"})
			}
		}
	}
	return ops, nil
}

// copies tells whether the port of an endpoint is to refer to the mirrors.
func (c *change) copies(ep network.Endpoint) bool {
	return (ep.Phase == network.PhaseJoining || ep.Phase == network.PhaseJoined) && c.net.Config.Mirrored(ep)
}

// strayMirrors are the rows of this host for endpoints that are not known.
func (f *Fabric) strayMirrors(v ovsdb.View, keep []network.Network, spare func(network.ID, network.EndpointID) bool) (strays []*mirror) {
	for _, m := range ovsdb.All[*mirror](v) {
		id, eid := network.ID(m.ExternalIDs[network.KeyNetworkID]), network.EndpointID(m.ExternalIDs[network.KeyEndpointID])
		known := slices.ContainsFunc(keep, func(n network.Network) bool { return n.ID == id && n.Endpoints[eid] != nil })
		if !known && !spare(id, eid) && !f.InUse(eid) {
			strays = append(strays, m)
		}
	}
	slices.SortFunc(strays, func(a, b *mirror) int { return strings.Compare(a.Name, b.Name) })
	return strays
}
