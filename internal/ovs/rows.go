package ovs

import (
	"maps"
	"slices"

	"github.com/ovn-kubernetes/libovsdb/model"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// The rows we read, with the columns that every Open vSwitch since 2.13 has
// (ovs-vswitchd.conf.db(5)). Copies are deep: the cache applies a change of a
// set or a map in place, to its copy.
type (
	openVSwitch struct {
		UUID          string            `ovsdb:"_uuid"`
		Bridges       []string          `ovsdb:"bridges"`
		CurCfg        int               `ovsdb:"cur_cfg"`
		NextCfg       int               `ovsdb:"next_cfg"`
		DatapathTypes []string          `ovsdb:"datapath_types"`
		Version       *string           `ovsdb:"ovs_version"`
		OtherConfig   map[string]string `ovsdb:"other_config"`
		ExternalIDs   map[string]string `ovsdb:"external_ids"`
	}
	bridge struct {
		UUID         string            `ovsdb:"_uuid"`
		Name         string            `ovsdb:"name"`
		Ports        []string          `ovsdb:"ports"`
		DatapathType string            `ovsdb:"datapath_type"`
		DatapathID   *string           `ovsdb:"datapath_id"` // set once the bridge really exists
		FailMode     *string           `ovsdb:"fail_mode"`
		Mirrors      []string          `ovsdb:"mirrors"`
		ExternalIDs  map[string]string `ovsdb:"external_ids"`
	}
	port struct {
		UUID        string            `ovsdb:"_uuid"`
		Name        string            `ovsdb:"name"`
		Interfaces  []string          `ovsdb:"interfaces"`
		Tag         *int              `ovsdb:"tag"`
		Trunks      []int             `ovsdb:"trunks"`
		VLANMode    *string           `ovsdb:"vlan_mode"`
		OtherConfig map[string]string `ovsdb:"other_config"`
		ExternalIDs map[string]string `ovsdb:"external_ids"`
	}
	iface struct {
		UUID        string            `ovsdb:"_uuid"`
		Name        string            `ovsdb:"name"`
		Type        string            `ovsdb:"type"`
		OFPort      *int              `ovsdb:"ofport"`
		Error       *string           `ovsdb:"error"`
		ExternalIDs map[string]string `ovsdb:"external_ids"`
	}
	// Not its statistics, which ovs-vswitchd writes all the time.
	mirror struct {
		UUID        string            `ovsdb:"_uuid"`
		Name        string            `ovsdb:"name"`
		SelectAll   bool              `ovsdb:"select_all"`
		SelectSrc   []string          `ovsdb:"select_src_port"`
		SelectDst   []string          `ovsdb:"select_dst_port"`
		SelectVLAN  []int             `ovsdb:"select_vlan"`
		OutputPort  *string           `ovsdb:"output_port"`
		OutputVLAN  *int              `ovsdb:"output_vlan"`
		ExternalIDs map[string]string `ovsdb:"external_ids"`
	}
	ssl struct {
		UUID        string `ovsdb:"_uuid"`
		PrivateKey  string `ovsdb:"private_key"`
		Certificate string `ovsdb:"certificate"`
		CACert      string `ovsdb:"ca_cert"`
	}
)

func (*openVSwitch) Table() string { return "Open_vSwitch" }
func (*bridge) Table() string      { return "Bridge" }
func (*port) Table() string        { return "Port" }
func (*iface) Table() string       { return "Interface" }
func (*mirror) Table() string      { return "Mirror" }
func (*ssl) Table() string         { return "SSL" }

func (r *openVSwitch) CloneModel() model.Model { c := r.clone(); return &c }
func (r *bridge) CloneModel() model.Model      { c := r.clone(); return &c }
func (r *port) CloneModel() model.Model        { c := r.clone(); return &c }
func (r *iface) CloneModel() model.Model       { c := r.clone(); return &c }
func (r *mirror) CloneModel() model.Model      { c := r.clone(); return &c }
func (r *ssl) CloneModel() model.Model         { c := *r; return &c }

func (r *openVSwitch) CloneModelInto(m model.Model) { *m.(*openVSwitch) = r.clone() }
func (r *bridge) CloneModelInto(m model.Model)      { *m.(*bridge) = r.clone() }
func (r *port) CloneModelInto(m model.Model)        { *m.(*port) = r.clone() }
func (r *iface) CloneModelInto(m model.Model)       { *m.(*iface) = r.clone() }
func (r *mirror) CloneModelInto(m model.Model)      { *m.(*mirror) = r.clone() }
func (r *ssl) CloneModelInto(m model.Model)         { *m.(*ssl) = *r }

func (r openVSwitch) clone() openVSwitch {
	r.Bridges, r.DatapathTypes = slices.Clone(r.Bridges), slices.Clone(r.DatapathTypes)
	r.Version, r.OtherConfig, r.ExternalIDs = clonePointer(r.Version), maps.Clone(r.OtherConfig), maps.Clone(r.ExternalIDs)
	return r
}

func (r bridge) clone() bridge {
	r.Ports, r.DatapathID, r.ExternalIDs = slices.Clone(r.Ports), clonePointer(r.DatapathID), maps.Clone(r.ExternalIDs)
	r.FailMode, r.Mirrors = clonePointer(r.FailMode), slices.Clone(r.Mirrors)
	return r
}

func (r mirror) clone() mirror {
	r.SelectSrc, r.SelectDst, r.SelectVLAN = slices.Clone(r.SelectSrc), slices.Clone(r.SelectDst), slices.Clone(r.SelectVLAN)
	r.OutputPort, r.OutputVLAN, r.ExternalIDs = clonePointer(r.OutputPort), clonePointer(r.OutputVLAN), maps.Clone(r.ExternalIDs)
	return r
}

func (r port) clone() port {
	r.Interfaces, r.Tag, r.Trunks = slices.Clone(r.Interfaces), clonePointer(r.Tag), slices.Clone(r.Trunks)
	r.VLANMode, r.OtherConfig, r.ExternalIDs = clonePointer(r.VLANMode), maps.Clone(r.OtherConfig), maps.Clone(r.ExternalIDs)
	return r
}

func (r iface) clone() iface {
	r.OFPort, r.Error, r.ExternalIDs = clonePointer(r.OFPort), clonePointer(r.Error), maps.Clone(r.ExternalIDs)
	return r
}

func clonePointer[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}

func tables() []ovsdb.Table {
	o, b, p, i, m, s := &openVSwitch{}, &bridge{}, &port{}, &iface{}, &mirror{}, &ssl{}
	return []ovsdb.Table{
		{Row: o, Fields: []any{&o.Bridges, &o.CurCfg, &o.NextCfg, &o.DatapathTypes, &o.Version, &o.OtherConfig, &o.ExternalIDs}},
		{Row: b, Fields: []any{&b.Name, &b.Ports, &b.DatapathType, &b.DatapathID, &b.FailMode, &b.Mirrors, &b.ExternalIDs}},
		{Row: p, Fields: []any{&p.Name, &p.Interfaces, &p.Tag, &p.Trunks, &p.VLANMode, &p.OtherConfig, &p.ExternalIDs}},
		{Row: i, Fields: []any{&i.Name, &i.Type, &i.OFPort, &i.Error, &i.ExternalIDs}},
		{Row: m, Fields: []any{&m.Name, &m.SelectAll, &m.SelectSrc, &m.SelectDst, &m.SelectVLAN, &m.OutputPort, &m.OutputVLAN, &m.ExternalIDs}},
		{Row: s, Fields: []any{&s.PrivateKey, &s.Certificate, &s.CACert}},
	}
}

// userspace tells whether a bridge is one of the userspace datapath.
func (r *bridge) userspace() bool { return r.DatapathType == netdev }

// The two datapath types (ovs-vswitchd.conf.db(5), Bridge.datapath_type). An
// empty one means system.
const (
	system = "system"
	netdev = "netdev"
)

// secure is the fail mode of a bridge that forwards nothing by itself
// (ovs-vswitchd.conf.db(5), Bridge.fail_mode). ovn-controller sets it.
const secure = "secure"

// ours tells whether this driver made the row.
func ours(ids map[string]string) bool { return ids[network.KeyOwner] == network.Owner }

// root returns the one row of Open_vSwitch, nil before `ovs-vsctl init`.
func root(v ovsdb.View) *openVSwitch {
	for _, r := range ovsdb.All[*openVSwitch](v) {
		return r
	}
	return nil
}

func findBridge(v ovsdb.View, name string) *bridge {
	r, _ := ovsdb.Find(v, &bridge{Name: name})
	return r
}

func findPort(v ovsdb.View, name string) *port {
	r, _ := ovsdb.Find(v, &port{Name: name})
	return r
}

func findIface(v ovsdb.View, name string) *iface {
	r, _ := ovsdb.Find(v, &iface{Name: name})
	return r
}

// bridgeOf returns the bridge that has the port, nil if none has.
func bridgeOf(v ovsdb.View, portUUID string) *bridge {
	for _, b := range ovsdb.All[*bridge](v) {
		if slices.Contains(b.Ports, portUUID) {
			return b
		}
	}
	return nil
}

// portsOf returns the ports of a bridge, without the one that is the bridge's
// own device.
func portsOf(v ovsdb.View, b *bridge) []*port {
	all := ovsdb.All[*port](v)
	ports := make([]*port, 0, len(b.Ports))
	for _, uuid := range b.Ports {
		if p := all[uuid]; p != nil && p.Name != b.Name {
			ports = append(ports, p)
		}
	}
	return ports
}

// foreignPorts returns the ports of a bridge that others made.
func foreignPorts(v ovsdb.View, b *bridge) []*port {
	return slices.DeleteFunc(portsOf(v, b), func(p *port) bool { return ours(p.ExternalIDs) })
}

// contains tells whether have holds every pair of want.
func contains(have, want map[string]string) bool {
	for k, v := range want {
		if got, ok := have[k]; !ok || got != v {
			return false
		}
	}
	return true
}

func with(ids map[string]string, key, value string) map[string]string {
	ids = maps.Clone(ids)
	ids[key] = value
	return ids
}
