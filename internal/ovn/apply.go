package ovn

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// change is one Apply under way.
type change struct {
	net     network.Network
	view    ovsdb.View
	sw      *logicalSwitch // nil: it is gone, and not wanted
	book    *dhcpOptions
	chassis string   // the name of this host's
	more    int      // ports that were found room for
	rules   []string // UUIDs of mirrors that new ports refer to
	errs    map[network.EndpointID]error
	tended  []network.Endpoint // looked at, not settled before
}

// Apply implements network.Fabric: first what the fleet shall know, then the ports
// of this host. What the northbound database does not take is not attached; what
// is attached stays so while that database is away.
func (f *Fabric) Apply(ctx context.Context, n network.Network) error {
	if n.Config.OVN == nil {
		return f.Fabric.Apply(ctx, n)
	}
	f.start()
	mark := f.settled.Mark()
	tended := f.settled.Unsettled(n)
	errs, err := f.publish(ctx, n, tended)
	if err != nil && n.Phase == network.PhaseCreating {
		return err
	}
	here := f.here(n)
	here.Endpoints = maps.Clone(n.Endpoints)
	for _, ep := range tended {
		if err != nil && errs[ep.ID] == nil && needsNB(ep) {
			errs[ep.ID] = err
		}
		if errs[ep.ID] != nil && ep.Phase == network.PhaseJoining {
			delete(here.Endpoints, ep.ID)
		}
	}
	f.settled.Settle(n, tended, func(id network.EndpointID) bool { return errs[id] == nil && err == nil }, mark)
	return merged(errs, f.Fabric.Apply(ctx, here))
}

// needsNB tells whether an endpoint is not right without a change of the
// northbound database.
func needsNB(ep network.Endpoint) bool {
	return ep.Phase == network.PhaseJoining || ep.Phase == network.PhaseDeleting
}

// merged adds what went wrong here to what the northbound database refused.
func merged(errs map[network.EndpointID]error, err error) error {
	var partial *network.ApplyError
	if err != nil && !errors.As(err, &partial) {
		return err
	}
	if partial != nil {
		for id, err := range partial.Endpoints {
			if errs[id] == nil {
				errs[id] = err
			}
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return &network.ApplyError{Endpoints: errs}
}

// publish makes the northbound database hold the switch and the ports of these
// endpoints. errs is never nil.
func (f *Fabric) publish(ctx context.Context, n network.Network, eps []network.Endpoint) (errs map[network.EndpointID]error, err error) {
	errs = make(map[network.EndpointID]error)
	here, err := f.named()
	if err != nil {
		return errs, err
	}
	var s *logicalSwitch
	if n.Phase != network.PhaseDeleting {
		if s, err = f.ensureSwitch(ctx, n); err != nil {
			return errs, err
		}
	}
	v, err := f.nb.View()
	if err != nil {
		return errs, err
	}
	if s == nil {
		s, _ = findSwitch(v, n.Config.OVN.Switch)
	}
	c := &change{net: n, view: v, sw: s, chassis: here, book: findBook(v, n.Config.OVN.Switch), errs: errs, tended: eps}
	f.chooseMirrors(ctx, c)
	if err := f.watch(ctx, c); err != nil && !c.blame(err) {
		return errs, err
	}
	var groups [][]ovsdb.Operation
	var owners []network.Endpoint
	for _, ep := range eps {
		if ep.Phase == network.PhaseJoining && c.book != nil {
			if err := errors.Join(f.elsewhere(ctx, v, c.book, ep), f.checkPorts(ctx, c, ep)); err != nil {
				errs[ep.ID] = err
				continue
			}
		}
		ops, err := f.planPort(c, ep)
		if err != nil {
			errs[ep.ID] = err
		}
		if len(ops) > 0 {
			groups, owners = append(groups, ops), append(owners, ep)
		}
	}
	if len(groups) == 0 {
		return errs, nil
	}
	for i, err := range f.write(ctx, groups...) {
		if err != nil {
			err = f.retry(ctx, c, owners[i], err)
		}
		if err != nil {
			errs[owners[i].ID] = err
		}
	}
	return errs, nil
}

// retry explains why the database refused an endpoint, and tries once more without
// what an earlier life of this host left in the way.
func (f *Fabric) retry(ctx context.Context, c *change, ep network.Endpoint, refused error) error {
	if !changed(refused, "DHCP_Options") || c.book == nil {
		return refused
	}
	entries := f.entries(ep)
	stale, err := f.stale(ctx, c.book, entries)
	if err != nil {
		return err
	}
	ops, err := f.planPort(c, ep)
	if err != nil {
		return err
	}
	clear := []ovsdb.Operation{strike(c.book, stale)}
	// Their ports too: of two with one address OVN would forward to either.
	for _, name := range slices.Compact(slices.Sorted(maps.Values(stale))) {
		name, _, _ = strings.Cut(name, " ")
		if p := findPort(c.view, name); p != nil && p.ExternalIDs[network.KeyHostID] == f.cfg.HostID {
			clear = append(clear, removePort(p.UUID))
		}
	}
	return f.write(ctx, append(clear, ops...))[0]
}

// planPort returns what has to change for one endpoint.
func (f *Fabric) planPort(c *change, ep network.Endpoint) ([]ovsdb.Operation, error) {
	name, _ := ep.ID.Links()
	p := findPort(c.view, name)
	switch ep.Phase {
	case network.PhaseJoining, network.PhaseJoined:
	default:
		return f.delPort(c, p, ep), nil
	}
	if c.sw == nil || c.book == nil {
		return nil, fmt.Errorf("logical switch %s vanished while the port was being made", c.net.Config.OVN.Switch)
	}
	if p != nil && p.ExternalIDs[network.KeyEndpointID] != string(ep.ID) {
		return nil, fmt.Errorf("the name %s is taken by another logical switch port", name)
	}
	entries := f.entries(ep)
	if ep.Observer { // OVN does not know its port, but its address is in use
		if holds(c.book.ExternalIDs, entries) {
			return nil, nil
		}
		return enter(c.book, entries), nil
	}
	want := f.port(c, ep)
	if p != nil {
		var ops []ovsdb.Operation
		if !holds(c.book.ExternalIDs, entries) {
			ops = enter(c.book, entries)
		}
		return append(ops, mend(p, want)...), nil
	}
	ops := append([]ovsdb.Operation{ovsdb.Is("Logical_Switch", ovsdb.ByUUID(c.sw.UUID), ovsdb.Values{"name": c.sw.Name})}, enter(c.book, entries)...)
	row := want.values()
	if c.copies(ep) && len(c.rules) > 0 {
		row["mirror_rules"] = ovsdb.UUIDs(c.rules...)
	}
	return append(ops,
		ovsdb.Insert("Logical_Switch_Port", name, row),
		ovsdb.Mutate("Logical_Switch", ovsdb.ByUUID(c.sw.UUID), ovsdb.Mutation{Column: "ports", Mutator: "insert", Value: ovsdb.UUIDs(name)}),
	), nil
}

// delPort removes the port of an endpoint and its addresses from the book. p is nil
// if there is no port.
func (f *Fabric) delPort(c *change, p *logicalPort, ep network.Endpoint) (ops []ovsdb.Operation) {
	if p != nil && p.ExternalIDs[network.KeyEndpointID] == string(ep.ID) {
		ops = append(ops, removePort(p.UUID))
	}
	if c.book == nil {
		return ops
	}
	mine := f.entries(ep)
	maps.DeleteFunc(mine, func(k, v string) bool { return c.book.ExternalIDs[k] != v })
	if len(mine) > 0 {
		ops = append(ops, strike(c.book, mine))
	}
	return ops
}

// removePort takes a port off its switch, whichever that is; the row goes with the
// last reference.
func removePort(uuid string) ovsdb.Operation {
	return ovsdb.Mutate("Logical_Switch", []ovsdb.Condition{{Column: "ports", Function: "includes", Value: ovsdb.UUIDs(uuid)}},
		ovsdb.Mutation{Column: "ports", Mutator: "delete", Value: ovsdb.UUIDs(uuid)})
}

// port is what the endpoint's logical switch port shall be.
func (f *Fabric) port(c *change, ep network.Endpoint) logicalPort {
	name, _ := ep.ID.Links()
	p := c.net.Port(ep)
	addrs := make([]string, 0, len(ep.Addrs)+1)
	for _, a := range ep.Addrs {
		addrs = append(addrs, a.Addr().String())
	}
	slices.SortFunc(addrs, func(a, b string) int { return strings.Count(a, ":") - strings.Count(b, ":") })
	address := strings.Join(append([]string{ep.MAC}, addrs...), " ")
	ids := p.ExternalIDs
	ids[network.KeyHostID], ids[network.KeyHost] = f.cfg.HostID, c.chassis
	want := logicalPort{
		Name: name, Addresses: []string{address}, ExternalIDs: ids,
		// Both, so that a port that is on two hosts for a moment is bound where it
		// belongs, and to this endpoint's interface (ovn-nb(5)).
		Options: map[string]string{"requested-chassis": c.chassis, "iface-id-ver": string(ep.ID)},
	}
	if a, ok := c.net.LinkLocal(ep); ok {
		want.Addresses[0] += " " + a.String()
	}
	if p.Secure {
		guard := address
		for _, a := range ep.Askers() {
			guard += " " + a.String()
		}
		want.PortSecurity = []string{guard}
	}
	if c.net.Config.IPAM == network.IPAMOVN {
		for role, ref := range map[string]**string{roleDHCP4: &want.DHCPv4, roleDHCP6: &want.DHCPv6} {
			if d := findPart(c.view, c.sw.Name, role); d != nil {
				*ref = &d.UUID
			}
		}
	}
	return want
}

func (p logicalPort) values() ovsdb.Values {
	return ovsdb.Values{
		"name": p.Name, "addresses": ovsdb.Texts(p.Addresses...), "port_security": ovsdb.Texts(p.PortSecurity...),
		"options": ovsdb.StringMap(p.Options), "external_ids": ovsdb.StringMap(p.ExternalIDs),
		"dhcpv4_options": reference(p.DHCPv4), "dhcpv6_options": reference(p.DHCPv6),
	}
}

// reference is a set of at most one UUID.
func reference(uuid *string) ovsdb.Set {
	if uuid == nil {
		return ovsdb.UUIDs()
	}
	return ovsdb.UUIDs(*uuid)
}

// mend returns what differs between a port and what it should be.
func mend(p *logicalPort, want logicalPort) (ops []ovsdb.Operation) {
	row := ovsdb.Values{}
	if !slices.Equal(p.Addresses, want.Addresses) {
		row["addresses"] = ovsdb.Texts(want.Addresses...)
	}
	if !slices.Equal(p.PortSecurity, want.PortSecurity) {
		row["port_security"] = ovsdb.Texts(want.PortSecurity...)
	}
	if !holds(p.Options, want.Options) {
		options := maps.Clone(p.Options)
		if options == nil {
			options = make(map[string]string)
		}
		maps.Copy(options, want.Options)
		row["options"] = ovsdb.StringMap(options)
	}
	if !equal(p.DHCPv4, want.DHCPv4) {
		row["dhcpv4_options"] = reference(want.DHCPv4)
	}
	if !equal(p.DHCPv6, want.DHCPv6) {
		row["dhcpv6_options"] = reference(want.DHCPv6)
	}
	if len(row) > 0 {
		ops = append(ops, ovsdb.Operation{Op: "update", Table: "Logical_Switch_Port", Where: ovsdb.ByUUID(p.UUID), Row: row})
	}
	if !holds(p.ExternalIDs, want.ExternalIDs) {
		ops = append(ops, ovsdb.SetIDs("Logical_Switch_Port", p.UUID, want.ExternalIDs))
	}
	return ops
}

func equal(a, b *string) bool { return a == b || a != nil && b != nil && *a == *b }
