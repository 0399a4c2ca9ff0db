package ovs

import (
	"maps"
	"slices"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// The modes of the ports that we make (ovs-vswitchd.conf.db(5), Port.vlan_mode).
//
// Without a mode a port with no tag is a trunk of all VLANs: an untagged container
// could then see and enter every VLAN of the bridge. As an access port with tag 0
// it is confined to untagged frames.
//
// A trunk takes what is in its list. A frame without a tag, or with that of VLAN 0,
// counts as one of VLAN 0, which is in no list of ours, so it is dropped. With a
// native VLAN such frames are of that, and leave it without a tag.
const (
	access = "access"
	trunk  = "trunk"
	native = "native-untagged"
)

// vlanColumns are those of a Port that say which VLANs it is in. Never is an empty
// list written for a trunk: that would be all VLANs.
func vlanColumns(p network.Port) ovsdb.Values {
	tag, mode := ovsdb.Set{GoSet: []any{}}, access
	trunks := ovsdb.Set{GoSet: make([]any, 0, len(p.Trunk))}
	for _, t := range p.Trunk {
		trunks.GoSet = append(trunks.GoSet, int(t))
	}
	switch {
	case len(p.Trunk) == 0:
		tag.GoSet = append(tag.GoSet, int(p.VLAN))
	case p.VLAN == 0:
		mode = trunk
	default:
		tag.GoSet, mode = append(tag.GoSet, int(p.VLAN)), native
	}
	return ovsdb.Values{"tag": tag, "vlan_mode": mode, "trunks": trunks}
}

// sameVLANs tells whether a port is in the VLANs in which it should be.
func sameVLANs(p *port, want network.Port) bool {
	mode, tag := access, p.Tag != nil && *p.Tag == int(want.VLAN)
	switch {
	case len(want.Trunk) == 0:
	case want.VLAN == 0:
		mode, tag = trunk, p.Tag == nil
	default:
		mode = native
	}
	if !tag || deref(p.VLANMode) != mode || len(p.Trunks) != len(want.Trunk) {
		return false
	}
	have := slices.Sorted(slices.Values(p.Trunks))
	return slices.EqualFunc(have, want.Trunk, func(a int, b uint16) bool { return a == int(b) })
}

// addBridge inserts a bridge with its own device.
func addBridge(root *openVSwitch, name, datapath string, ids map[string]string) []ovsdb.Operation {
	return []ovsdb.Operation{
		{Op: "insert", Table: "Interface", UUIDName: "brif", Row: ovsdb.Values{"name": name, "type": "internal"}},
		{Op: "insert", Table: "Port", UUIDName: "brport", Row: ovsdb.Values{"name": name, "interfaces": ovsdb.UUID{GoUUID: "brif"}}},
		{Op: "insert", Table: "Bridge", UUIDName: "br", Row: ovsdb.Values{
			"name": name, "datapath_type": datapath, "ports": ovsdb.UUIDs("brport"), "external_ids": ovsdb.StringMap(ids),
		}},
		{Op: "mutate", Table: "Open_vSwitch", Where: ovsdb.ByUUID(root.UUID), Mutations: []ovsdb.Mutation{
			{Column: "bridges", Mutator: "insert", Value: ovsdb.UUIDs("br")},
		}},
	}
}

// delBridge removes a bridge, if it still has exactly these ports.
func delBridge(root *openVSwitch, b *bridge) []ovsdb.Operation {
	return []ovsdb.Operation{
		ovsdb.Is("Bridge", ovsdb.ByUUID(b.UUID), ovsdb.Values{"ports": ovsdb.UUIDs(b.Ports...)}),
		{Op: "mutate", Table: "Open_vSwitch", Where: ovsdb.ByUUID(root.UUID), Mutations: []ovsdb.Mutation{
			{Column: "bridges", Mutator: "delete", Value: ovsdb.UUIDs(b.UUID)},
		}},
	}
}

// addPort inserts a port for a device on a bridge, if that bridge is still there:
// without the guard the rows would vanish and all seem well.
func addPort(bridgeName, device string, p network.Port, ep network.Endpoint) []ovsdb.Operation {
	row := ovsdb.Values{
		"name": device, "interfaces": ovsdb.UUID{GoUUID: "if" + device}, "external_ids": ovsdb.StringMap(p.ExternalIDs),
	}
	if p.Logical == "" {
		maps.Copy(row, vlanColumns(p))
	}
	return []ovsdb.Operation{
		ovsdb.Is("Bridge", ovsdb.ByName(bridgeName), ovsdb.Values{"name": bridgeName}),
		{Op: "insert", Table: "Interface", UUIDName: "if" + device, Row: ovsdb.Values{
			"name": device, "external_ids": ovsdb.StringMap(ifaceIDs(p, ep)),
		}},
		{Op: "insert", Table: "Port", UUIDName: "port" + device, Row: row},
		{Op: "mutate", Table: "Bridge", Where: ovsdb.ByName(bridgeName), Mutations: []ovsdb.Mutation{
			{Column: "ports", Mutator: "insert", Value: ovsdb.UUIDs("port" + device)},
		}},
	}
}

// ifaceIDs are the external_ids of a port's Interface. By iface-id OVN knows its
// logical switch port, by iface-id-ver that it is this endpoint and no other, by
// mirror-id that copies may go there (ovn-architecture(7), ovn-nb(5)).
func ifaceIDs(p network.Port, ep network.Endpoint) map[string]string {
	ids := with(p.ExternalIDs, network.KeyAttachedMAC, ep.MAC)
	if p.Logical != "" {
		ids["iface-id"], ids["iface-id-ver"] = p.Logical, string(ep.ID)
	}
	if p.Sink != "" {
		ids["mirror-id"] = p.Sink
	}
	return ids
}

// delPort takes a port off its bridge; its rows go with the last reference.
func delPort(b *bridge, portUUID string) ovsdb.Operation {
	return ovsdb.Operation{Op: "mutate", Table: "Bridge", Where: ovsdb.ByUUID(b.UUID), Mutations: []ovsdb.Mutation{
		{Column: "ports", Mutator: "delete", Value: ovsdb.UUIDs(portUUID)},
	}}
}

// setVLANs puts a port into the VLANs in which it should be.
func setVLANs(portUUID string, want network.Port) ovsdb.Operation {
	return ovsdb.Operation{Op: "update", Table: "Port", Where: ovsdb.ByUUID(portUUID), Row: vlanColumns(want)}
}

// reconfigure ends a transaction that ovs-vswitchd has to act on: it takes the
// next number, which cur_cfg reaches when ovs-vswitchd is done (the protocol of
// ovs-vsctl(8) without --no-wait).
func reconfigure(root *openVSwitch) *ovsdb.Seal {
	return &ovsdb.Seal{Operations: []ovsdb.Operation{
		{Op: "mutate", Table: "Open_vSwitch", Where: ovsdb.ByUUID(root.UUID), Mutations: []ovsdb.Mutation{
			{Column: "next_cfg", Mutator: "+=", Value: 1},
		}},
		{Op: "select", Table: "Open_vSwitch", Where: ovsdb.ByUUID(root.UUID), Columns: []string{"next_cfg"}},
	}}
}
