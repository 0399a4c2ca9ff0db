package ovs

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// Where OVN copies to observers (network.Network.CopiedByOVN), ovn-controller writes
// the row of each, named as ours would be: from a mirror of the northbound database, as
// soon as there is a port to copy. It takes the row away with the last such port, and at
// each start, for a moment. Here is what remains to do: there is one row for an
// observer, not two, the flows in use follow it, and a start waits for it.

// madeByOVN are the rows for the observers of n that ovn-controller has written, by name.
func madeByOVN(v ovsdb.View, n network.Network) map[string]*mirror {
	made := make(map[string]*mirror)
	for _, m := range ovsdb.All[*mirror](v) {
		if m.ofOVN() && strings.HasPrefix(m.Name, n.MirrorName("")) {
			made[m.Name] = m
		}
	}
	return made
}

// ofOVN tells whether ovn-controller has written a row, for an observer.
func (r *mirror) ofOVN() bool {
	return r.ExternalIDs["ovn-owned"] == "true" && strings.HasPrefix(r.Name, network.LinkPrefix+"-")
}

// spoilt are the rows that somebody has changed where ovn-controller does not look: it
// has to write them anew.
func spoilt(made map[string]*mirror) (list []*mirror) {
	for _, m := range made {
		if m.SelectAll || len(m.SelectVLAN) > 0 || m.OutputVLAN != nil {
			list = append(list, m)
		}
	}
	return list
}

// Yield removes the rows of ours for observers of n: where OVN is about to write one, two
// would double each copy.
func (f *Fabric) Yield(ctx context.Context, n network.Network) error {
	v, err := f.db.View()
	if err != nil {
		return err
	}
	have, _ := mirrorsOf(v, n.ID)
	var ops []ovsdb.Operation
	for _, m := range have {
		if m.ExternalIDs[network.KeyEndpointID] != "" && !unknownObserver(m, n) {
			ops = append(ops, delMirror(m.UUID)...)
		}
	}
	if len(ops) == 0 {
		return nil
	}
	_, err = f.write(ctx, ops, nil)
	return err
}

// lagging tells whether flows in use may not follow the rows of ovn-controller: it
// writes them in its own time, and Open vSwitch 3.1 does not look at its flows then. All
// versions that have Mirror.filter (3.4) do. looked is what the rows are now.
func (f *Fabric) lagging(v ovsdb.View, id network.ID, made map[string]*mirror) (looked string, lags bool) {
	if v.Has("Mirror", "filter") {
		return "", false
	}
	var rows []string
	for _, m := range made {
		rows = append(rows, fmt.Sprint(m.UUID, slices.Sorted(slices.Values(m.SelectSrc)), slices.Sorted(slices.Values(m.SelectDst)), deref(m.OutputPort)))
	}
	slices.Sort(rows)
	looked = strings.Join(rows, " ")
	f.mu.Lock()
	defer f.mu.Unlock()
	return looked, looked != f.looked[id]
}

// noteLooked remembers for which rows of ovn-controller flows were looked at.
func (f *Fabric) noteLooked(id network.ID, looked string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if looked == "" {
		delete(f.looked, id)
		return
	}
	f.looked[id] = looked
}

// mirrorChanged has the network looked at whose row has come, changed or gone.
func (f *Fabric) mirrorChanged(m *mirror) {
	switch {
	case ours(m.ExternalIDs):
		f.dirty(network.ID(m.ExternalIDs[network.KeyNetworkID]))
	case m.ofOVN():
		v, err := f.db.View()
		if err != nil {
			return
		}
		if p, ok := ovsdb.Find(v, &port{UUID: deref(m.OutputPort)}); ok && ours(p.ExternalIDs) {
			f.dirty(network.ID(p.ExternalIDs[network.KeyNetworkID]))
		}
	}
}

// uncopied names the mirror that does not copy an endpoint yet, or if that is an
// observer, does not copy for it; empty if there is none. An observer that is still
// starting is waited for by itself alone.
func uncopied(v ovsdb.View, n network.Network, ep network.Endpoint) string {
	if !n.CopiedByOVN || !ep.Observer && !n.Config.Mirrored(ep) {
		return ""
	}
	made := madeByOVN(v, n)
	for _, o := range n.Endpoints {
		if !o.Observer || o.ID != ep.ID && (ep.Observer || o.Phase != network.PhaseJoined) {
			continue
		}
		sink := attached(v, *o)
		if sink == nil {
			continue
		}
		want := []string{}
		for _, e := range n.Endpoints {
			if !ep.Observer && e.ID != ep.ID {
				continue
			}
			if p := attached(v, *e); p != nil && n.Config.Mirrored(*e) && installed(findIface(v, p.Name)) {
				want = append(want, p.UUID)
			}
		}
		name := n.MirrorName(sink.Name)
		if m := made[name]; len(want) > 0 && (m == nil || deref(m.OutputPort) != sink.UUID || !m.selects(want, n.Config.Mirroring().Direction)) {
			return name
		}
	}
	return ""
}

// selects tells whether all these ports are copied.
func (r *mirror) selects(ports []string, d network.Direction) bool {
	return (d == network.DirectionIn || len(without(ports, r.SelectSrc)) == 0) &&
		(d == network.DirectionOut || len(without(ports, r.SelectDst)) == 0)
}
