package ovn

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// Clash is something about the port of an endpoint that neither its row nor its
// switch shows alone.
type Clash struct {
	Endpoint network.EndpointID
	Address  string // an address or MAC address that another port of the switch has
	Other    string // that port
	Whose    string // who has it, for a person; empty: not this driver's
	Astray   bool   // nothing else: the port is on another switch
}

// portsAtOnce bounds how many ports are held in memory at a time.
const portsAtOnce = 500

// Clashes looks at all ports of a network's switch, also at those that the cache
// leaves out, for addresses that OVN would give to two.
func (f *Fabric) Clashes(ctx context.Context, n network.Network) (found []Clash, err error) {
	v, err := f.nb.View()
	if err != nil {
		return nil, err
	}
	s, count := findSwitch(v, n.Config.OVN.Switch)
	if count != 1 {
		return nil, nil // Observe says so
	}
	rows, err := f.nb.Read(ctx, ovsdb.Query{Table: "Logical_Switch", Where: ovsdb.ByUUID(s.UUID), Columns: []string{"ports"}})
	if err != nil || len(rows[0]) == 0 {
		return nil, err
	}
	ports := uuidsOf(rows[0][0]["ports"])
	slices.Sort(ports)
	holders := make(map[string]network.EndpointID) // by address
	mine := make(map[string]bool)                  // UUIDs of ports
	for _, ep := range n.SortedEndpoints() {
		name, _ := ep.ID.Links()
		p := findPort(v, name)
		if p == nil || ep.Phase != network.PhaseJoined {
			continue
		}
		mine[p.UUID] = true
		if _, there := slices.BinarySearch(ports, p.UUID); !there {
			found = append(found, Clash{Endpoint: ep.ID, Astray: true})
		}
		holders[ep.MAC] = ep.ID
		for _, a := range ep.Addrs {
			holders[a.Addr().String()] = ep.ID
		}
	}
	if len(holders) == 0 {
		return nil, nil
	}
	ports = slices.DeleteFunc(ports, func(uuid string) bool { return mine[uuid] })
	for some := range slices.Chunk(ports, portsAtOnce) {
		clashes, err := f.clashesWith(ctx, some, holders)
		if err != nil {
			return found, err
		}
		found = append(found, clashes...)
	}
	return found, nil
}

func (f *Fabric) clashesWith(ctx context.Context, ports []string, holders map[string]network.EndpointID) (found []Clash, err error) {
	queries := make([]ovsdb.Query, len(ports))
	for i, uuid := range ports {
		queries[i] = ovsdb.Query{Table: "Logical_Switch_Port", Where: ovsdb.ByUUID(uuid), Columns: []string{"name", "addresses", "dynamic_addresses", "external_ids"}}
	}
	results, err := f.nb.Read(ctx, queries...)
	if err != nil {
		return nil, err
	}
	for _, rows := range results {
		for _, r := range rows {
			for _, a := range addressesOf(append(stringsOf(r["addresses"]), stringsOf(r["dynamic_addresses"])...)) {
				id, held := holders[a]
				if !held {
					continue
				}
				c := Clash{Endpoint: id, Address: a, Other: textOf(r["name"])}
				if ids := pairsOf(r["external_ids"]); ours(ids) {
					c.Whose = title(ids) + " on host " + ids[network.KeyHost]
				}
				found = append(found, c)
			}
		}
	}
	return found, nil
}

// addressesOf are the single addresses in a port's (ovn-nb(5), addresses), each in
// the one form that it has with us.
func addressesOf(texts []string) (list []string) {
	for _, t := range texts {
		for word := range strings.FieldsSeq(t) {
			if mac, err := net.ParseMAC(word); err == nil {
				list = append(list, mac.String())
			} else if ip, err := netip.ParseAddr(word); err == nil {
				list = append(list, ip.String())
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// stringsOf reads a set of strings as the library decodes it: one alone is no set.
func stringsOf(v any) (list []string) {
	switch v := v.(type) {
	case string:
		return []string{v}
	case ovsdb.Set:
		for _, e := range v.GoSet {
			list = append(list, textOf(e))
		}
	}
	return list
}
