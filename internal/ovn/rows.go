package ovn

import (
	"maps"
	"slices"
	"strings"

	"github.com/ovn-kubernetes/libovsdb/model"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// The rows we read, with columns that every OVN since 20.03 has (ovn-nb(5)).
// Logical_Switch.ports is left out: it has a UUID for every port of the fleet.
type (
	logicalSwitch struct {
		UUID        string            `ovsdb:"_uuid"`
		Name        string            `ovsdb:"name"` // not unique by the schema
		OtherConfig map[string]string `ovsdb:"other_config"`
		ExternalIDs map[string]string `ovsdb:"external_ids"`
	}
	logicalPort struct {
		UUID         string            `ovsdb:"_uuid"`
		Name         string            `ovsdb:"name"`
		Type         string            `ovsdb:"type"`
		Addresses    []string          `ovsdb:"addresses"`
		PortSecurity []string          `ovsdb:"port_security"`
		Options      map[string]string `ovsdb:"options"`
		Tag          *int              `ovsdb:"tag"`
		DHCPv4       *string           `ovsdb:"dhcpv4_options"`
		DHCPv6       *string           `ovsdb:"dhcpv6_options"`
		ExternalIDs  map[string]string `ovsdb:"external_ids"`
	}
	logicalRouter struct {
		UUID        string            `ovsdb:"_uuid"`
		Name        string            `ovsdb:"name"` // not unique by the schema
		Ports       []string          `ovsdb:"ports"`
		Routes      []string          `ovsdb:"static_routes"`
		NAT         []string          `ovsdb:"nat"`
		ExternalIDs map[string]string `ovsdb:"external_ids"`
	}
	routerPort struct {
		UUID        string            `ovsdb:"_uuid"`
		Name        string            `ovsdb:"name"`
		MAC         string            `ovsdb:"mac"`
		Networks    []string          `ovsdb:"networks"`
		ExternalIDs map[string]string `ovsdb:"external_ids"`
	}
	staticRoute struct {
		UUID    string `ovsdb:"_uuid"`
		Prefix  string `ovsdb:"ip_prefix"`
		Nexthop string `ovsdb:"nexthop"`
	}
	natRow struct {
		UUID        string            `ovsdb:"_uuid"`
		Type        string            `ovsdb:"type"`
		LogicalIP   string            `ovsdb:"logical_ip"`
		ExternalIP  string            `ovsdb:"external_ip"`
		ExternalIDs map[string]string `ovsdb:"external_ids"`
	}
	dhcpOptions struct {
		UUID        string            `ovsdb:"_uuid"`
		CIDR        string            `ovsdb:"cidr"`
		Options     map[string]string `ovsdb:"options"`
		ExternalIDs map[string]string `ovsdb:"external_ids"`
	}
	// mirror is of OVN 22.12 and later.
	mirror struct {
		UUID        string            `ovsdb:"_uuid"`
		Name        string            `ovsdb:"name"`
		Type        string            `ovsdb:"type"`
		Filter      string            `ovsdb:"filter"`
		Sink        string            `ovsdb:"sink"`
		ExternalIDs map[string]string `ovsdb:"external_ids"`
	}
)

func (*logicalSwitch) Table() string { return "Logical_Switch" }
func (*logicalPort) Table() string   { return "Logical_Switch_Port" }
func (*dhcpOptions) Table() string   { return "DHCP_Options" }
func (*logicalRouter) Table() string { return "Logical_Router" }
func (*routerPort) Table() string    { return "Logical_Router_Port" }
func (*staticRoute) Table() string   { return "Logical_Router_Static_Route" }
func (*natRow) Table() string        { return "NAT" }
func (*mirror) Table() string        { return "Mirror" }

func (r *logicalSwitch) CloneModel() model.Model { c := r.clone(); return &c }
func (r *logicalPort) CloneModel() model.Model   { c := r.clone(); return &c }
func (r *dhcpOptions) CloneModel() model.Model   { c := r.clone(); return &c }
func (r *logicalRouter) CloneModel() model.Model { c := r.clone(); return &c }
func (r *routerPort) CloneModel() model.Model    { c := r.clone(); return &c }
func (r *staticRoute) CloneModel() model.Model   { c := *r; return &c }
func (r *natRow) CloneModel() model.Model        { c := r.clone(); return &c }
func (r *mirror) CloneModel() model.Model        { c := r.clone(); return &c }

func (r *logicalSwitch) CloneModelInto(m model.Model) { *m.(*logicalSwitch) = r.clone() }
func (r *logicalPort) CloneModelInto(m model.Model)   { *m.(*logicalPort) = r.clone() }
func (r *dhcpOptions) CloneModelInto(m model.Model)   { *m.(*dhcpOptions) = r.clone() }
func (r *logicalRouter) CloneModelInto(m model.Model) { *m.(*logicalRouter) = r.clone() }
func (r *routerPort) CloneModelInto(m model.Model)    { *m.(*routerPort) = r.clone() }
func (r *staticRoute) CloneModelInto(m model.Model)   { *m.(*staticRoute) = *r }
func (r *natRow) CloneModelInto(m model.Model)        { *m.(*natRow) = r.clone() }
func (r *mirror) CloneModelInto(m model.Model)        { *m.(*mirror) = r.clone() }

func (r logicalSwitch) clone() logicalSwitch {
	r.OtherConfig, r.ExternalIDs = maps.Clone(r.OtherConfig), maps.Clone(r.ExternalIDs)
	return r
}

func (r logicalPort) clone() logicalPort {
	r.Addresses, r.PortSecurity = slices.Clone(r.Addresses), slices.Clone(r.PortSecurity)
	r.Options, r.ExternalIDs = maps.Clone(r.Options), maps.Clone(r.ExternalIDs)
	r.Tag, r.DHCPv4, r.DHCPv6 = clonePointer(r.Tag), clonePointer(r.DHCPv4), clonePointer(r.DHCPv6)
	return r
}

func (r dhcpOptions) clone() dhcpOptions {
	r.Options, r.ExternalIDs = maps.Clone(r.Options), maps.Clone(r.ExternalIDs)
	return r
}

func (r logicalRouter) clone() logicalRouter {
	r.Ports, r.Routes, r.NAT = slices.Clone(r.Ports), slices.Clone(r.Routes), slices.Clone(r.NAT)
	r.ExternalIDs = maps.Clone(r.ExternalIDs)
	return r
}

func (r routerPort) clone() routerPort {
	r.Networks, r.ExternalIDs = slices.Clone(r.Networks), maps.Clone(r.ExternalIDs)
	return r
}

func (r natRow) clone() natRow {
	r.ExternalIDs = maps.Clone(r.ExternalIDs)
	return r
}

func (r mirror) clone() mirror {
	r.ExternalIDs = maps.Clone(r.ExternalIDs)
	return r
}

func clonePointer[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}

// Keys of external_ids that only rows of the northbound database have.
const (
	keyRole     = "role"   // what a row is that belongs to a switch, not to an endpoint
	keySwitch   = "switch" // the name of the switch that it belongs to
	keyVLAN     = "vlan"
	keySubnets  = "subnets"
	keyGateways = "gateways"

	keyRouter = "router"

	roleBook = "book" // see book.go
	rolePart = "part" // a port of a switch to its router or physical network
)

// tables are what is kept in the cache: all switches, but of ports only those of
// this host and those that are part of a switch, of mirrors only those of this host.
func tables(hostID string) []ovsdb.Table {
	s, p, d := &logicalSwitch{}, &logicalPort{}, &dhcpOptions{}
	r, rp, route, nat, m := &logicalRouter{}, &routerPort{}, &staticRoute{}, &natRow{}, &mirror{}
	mine := map[string]string{network.KeyOwner: network.Owner, network.KeyHostID: hostID}
	return []ovsdb.Table{
		{Row: s, Fields: []any{&s.Name, &s.OtherConfig, &s.ExternalIDs}},
		{
			Row: p, Fields: []any{&p.Name, &p.Type, &p.Addresses, &p.PortSecurity, &p.Options, &p.Tag, &p.DHCPv4, &p.DHCPv6, &p.ExternalIDs},
			Only: []ovsdb.Match{
				{Field: &p.ExternalIDs, Value: mine},
				{Field: &p.ExternalIDs, Value: map[string]string{network.KeyOwner: network.Owner, keyRole: rolePart}},
			},
		},
		{
			Row: d, Fields: []any{&d.CIDR, &d.Options, &d.ExternalIDs},
			Only: []ovsdb.Match{{Field: &d.ExternalIDs, Value: map[string]string{network.KeyOwner: network.Owner}}},
		},
		{Row: r, Fields: []any{&r.Name, &r.Ports, &r.Routes, &r.NAT, &r.ExternalIDs}},
		{Row: rp, Fields: []any{&rp.Name, &rp.MAC, &rp.Networks, &rp.ExternalIDs}},
		{Row: route, Fields: []any{&route.Prefix, &route.Nexthop}},
		{Row: nat, Fields: []any{&nat.Type, &nat.LogicalIP, &nat.ExternalIP, &nat.ExternalIDs}},
		{
			Row: m, Optional: true, Fields: []any{&m.Name, &m.Type, &m.Filter, &m.Sink, &m.ExternalIDs},
			Only: []ovsdb.Match{{Field: &m.ExternalIDs, Value: mine}},
		},
	}
}

// ours tells whether this driver, on any host, made the row.
func ours(ids map[string]string) bool { return ids[network.KeyOwner] == network.Owner }

// findSwitch returns the switch of that name, nil if there is none, and how many
// there are: names need not be unique.
func findSwitch(v ovsdb.View, name string) (found *logicalSwitch, n int) {
	for _, s := range ovsdb.All[*logicalSwitch](v) {
		if s.Name != name {
			continue
		}
		n++
		if found == nil || s.UUID < found.UUID {
			found = s
		}
	}
	return found, n
}

func findPort(v ovsdb.View, name string) *logicalPort {
	p, _ := ovsdb.Find(v, &logicalPort{Name: name})
	return p
}

// claims are the networks on all hosts that use a switch, by the key of each.
func (s *logicalSwitch) claims() map[string]string {
	found := make(map[string]string)
	for k, v := range s.ExternalIDs {
		if strings.HasPrefix(k, claimPrefix) {
			found[k] = v
		}
	}
	return found
}

const claimPrefix = "claim."

// claimKey names the claim of one network of one host on its switch.
func claimKey(hostID string, id network.ID) string { return claimPrefix + hostID + "." + id.Short() }
