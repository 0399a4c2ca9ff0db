package ovn

import (
	"crypto/sha256"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// Names of what joins a switch and its router, pure functions of theirs. Ports of
// switches and of routers share one space of names in the southbound database.
func routerPortName(router, sw string) string { return router + "-to-" + sw }
func switchPortName(sw, router string) string { return sw + "-to-" + router }

// outsideName is the switch between a router and a physical network.
func outsideName(router, physical string) string { return router + "-out-" + physical }

// portMAC is that of a router port: locally administered, the same whoever makes
// it.
func portMAC(name string) string {
	sum := sha256.Sum256([]byte("router port " + name))
	mac := net.HardwareAddr(sum[:6])
	mac[0] = mac[0]&^1 | 2
	return mac.String()
}

func findRouter(v ovsdb.View, name string) (found *logicalRouter, n int) {
	for _, r := range ovsdb.All[*logicalRouter](v) {
		if r.Name == name {
			n++
			if found == nil || r.UUID < found.UUID {
				found = r
			}
		}
	}
	return found, n
}

func findRouterPort(v ovsdb.View, name string) *routerPort {
	p, _ := ovsdb.Find(v, &routerPort{Name: name})
	return p
}

// portsOfRouter are those that the cache has, in no order.
func portsOfRouter(v ovsdb.View, r *logicalRouter) (list []*routerPort) {
	for _, uuid := range r.Ports {
		if p, ok := ovsdb.Find(v, &routerPort{UUID: uuid}); ok {
			list = append(list, p)
		}
	}
	return list
}

// gateways are the addresses that the router takes on the network.
func gateways(n network.Network) (list []string) {
	for _, s := range n.Subnets {
		if s.Gateway.IsValid() {
			list = append(list, netip.PrefixFrom(s.Gateway, s.Prefix.Bits()).String())
		}
	}
	slices.Sort(list)
	return list
}

// planRouter refuses what cannot be joined to the router.
func planRouter(v ovsdb.View, n network.Network) error {
	o := n.Config.OVN
	if o.Router == "" {
		return nil
	}
	r, count := findRouter(v, o.Router)
	switch {
	case count > 1:
		return fmt.Errorf("%d logical routers are named %s: rename all but one (ovn-nbctl lr-list)", count, o.Router)
	case r == nil:
		return nil
	}
	own := routerPortName(o.Router, o.Switch)
	for _, p := range portsOfRouter(v, r) {
		for _, text := range p.Networks {
			has, err := netip.ParsePrefix(text)
			if err != nil {
				continue
			}
			for _, s := range n.Subnets {
				switch {
				case !has.Masked().Overlaps(s.Prefix):
				case p.Name != own:
					return fmt.Errorf("option ovn.router=%q: --subnet %s overlaps %s, which the router has on port %s; choose another subnet or router", o.Router, s.Prefix, has.Masked(), p.Name)
				case s.Gateway.IsValid() && has.Addr() != s.Gateway:
					return fmt.Errorf("option ovn.router=%q: the router's address on switch %s is %s, not %s; give --gateway %s", o.Router, o.Switch, has.Addr(), s.Gateway, has.Addr())
				}
			}
		}
	}
	if o.External != "" {
		if has := r.ExternalIDs[keyExternal]; has != "" && has != o.External {
			return fmt.Errorf("option ovn.external_network=%q: router %s has its way out on %s; leave the option out, or choose another router", o.External, o.Router, has)
		}
		if way := findRouterPort(v, routerPortName(o.Router, outsideName(o.Router, o.External))); way != nil {
			has, want := slices.Sorted(slices.Values(way.Networks)), slices.Sorted(slices.Values(prefixes(o.ExternalAddrs)))
			if !slices.Equal(has, want) {
				return fmt.Errorf("option ovn.external_address=%q: the address of router %s on %s is %s; give that", strings.Join(prefixes(o.ExternalAddrs), ","), o.Router, o.External, strings.Join(has, ","))
			}
			if has, want := r.ExternalIDs[keyChassis], strings.Join(o.GatewayChassis, ","); want != "" && has != want {
				return fmt.Errorf("option ovn.gateway_chassis=%q: those of router %s are %s; leave the option out, or change them (ovn-nbctl lrp-set-gateway-chassis %s CHASSIS PRIORITY)", want, o.Router, has, way.Name)
			}
			for _, next := range o.ExternalNext {
				if has := defaultRoute(v, r, next.Is4()); has != "" && has != next.String() {
					return fmt.Errorf("option ovn.external_gateway=%q: the default route of router %s leads to %s; give that, or leave the option out", next, o.Router, has)
				}
			}
		}
	}
	return nil
}

// What is recorded of a router's gateway port: its physical network, and the chassis
// that may have it.
const (
	keyExternal = "external_network"
	keyChassis  = "gateway_chassis"
)

// joinRouter returns what is missing between the switch and its router, the router
// and its way out included. swUUID may be a name that the transaction gives.
func (f *Fabric) joinRouter(v ovsdb.View, n network.Network, swUUID string) (ops []ovsdb.Operation) {
	o := n.Config.OVN
	if o.Router == "" {
		return nil
	}
	r, _ := findRouter(v, o.Router)
	rUUID := "router"
	if r != nil {
		rUUID = r.UUID
	} else {
		ops = append(ops, ovsdb.IsNot("Logical_Router", ovsdb.ByName(o.Router), ovsdb.Values{"name": o.Router}),
			ovsdb.Insert("Logical_Router", rUUID, ovsdb.Values{"name": o.Router, "external_ids": ovsdb.StringMap(map[string]string{network.KeyOwner: network.Owner})}))
	}
	own := routerPortName(o.Router, o.Switch)
	if findRouterPort(v, own) == nil {
		ops = append(ops, addRouterPort(rUUID, own, o.Switch, gateways(n), "inner", nil)...)
	}
	if findPort(v, switchPortName(o.Switch, o.Router)) == nil {
		ops = append(ops, addRouterSidePort(swUUID, switchPortName(o.Switch, o.Router), own, o.Switch, "inside")...)
	}
	if o.External != "" {
		ops = append(ops, f.wayOut(v, n, r, rUUID)...)
	}
	return ops
}

// addRouterPort makes a port of a router; chassis are those that may have it.
func addRouterPort(rUUID, name, sw string, networks []string, id string, chassis []string) []ovsdb.Operation {
	row := ovsdb.Values{
		"name": name, "mac": portMAC(name), "networks": ovsdb.Texts(networks...),
		"external_ids": ovsdb.StringMap(map[string]string{network.KeyOwner: network.Owner, keySwitch: sw}),
	}
	ops := []ovsdb.Operation{ovsdb.IsNot("Logical_Router_Port", ovsdb.ByName(name), ovsdb.Values{"name": name})}
	var refs []string
	for i, c := range chassis {
		ref := fmt.Sprintf("gc%d", i)
		refs = append(refs, ref)
		ops = append(ops, ovsdb.Insert("Gateway_Chassis", ref, ovsdb.Values{"name": name + "-" + c, "chassis_name": c, "priority": len(chassis) - i}))
	}
	if len(refs) > 0 {
		row["gateway_chassis"] = ovsdb.UUIDs(refs...)
	}
	return append(ops, ovsdb.Insert("Logical_Router_Port", id, row),
		ovsdb.Mutate("Logical_Router", routerIs(rUUID), ovsdb.Mutation{Column: "ports", Mutator: "insert", Value: ovsdb.UUIDs(id)}))
}

// routerIs selects a router by its UUID, also one that is being made.
func routerIs(uuid string) []ovsdb.Condition { return ovsdb.ByUUID(uuid) }

// addRouterSidePort makes the port of a switch that leads to a router.
func addRouterSidePort(swUUID, name, peer, sw, id string) []ovsdb.Operation {
	return []ovsdb.Operation{
		noPort(name),
		ovsdb.Insert("Logical_Switch_Port", id, ovsdb.Values{
			"name": name, "type": "router", "addresses": ovsdb.Texts("router"),
			"options":      ovsdb.StringMap(map[string]string{"router-port": peer, "nat-addresses": "router"}),
			"external_ids": ovsdb.StringMap(map[string]string{network.KeyOwner: network.Owner, keyRole: rolePart, keySwitch: sw}),
		}),
		ovsdb.Mutate("Logical_Switch", ovsdb.ByUUID(swUUID), ovsdb.Mutation{Column: "ports", Mutator: "insert", Value: ovsdb.UUIDs(id)}),
	}
}

// wayOut returns what is missing between the router and the physical network: a
// switch with a localnet port, the gateway port, routes and translation.
func (f *Fabric) wayOut(v ovsdb.View, n network.Network, r *logicalRouter, rUUID string) (ops []ovsdb.Operation) {
	o := n.Config.OVN
	sw := outsideName(o.Router, o.External)
	swUUID := "outside"
	if s, _ := findSwitch(v, sw); s != nil {
		swUUID = s.UUID
	} else {
		ops = append(ops, ovsdb.IsNot("Logical_Switch", ovsdb.ByName(sw), ovsdb.Values{"name": sw}),
			localnetPort("physical", sw, o.External, 0),
			ovsdb.Insert("Logical_Switch", swUUID, ovsdb.Values{
				"name": sw, "ports": ovsdb.UUIDs("physical"),
				"external_ids": ovsdb.StringMap(map[string]string{network.KeyOwner: network.Owner, keyRole: rolePart, keyRouter: o.Router}),
			}))
	}
	port := routerPortName(o.Router, sw)
	if findRouterPort(v, port) == nil {
		chassis := o.GatewayChassis
		if len(chassis) == 0 {
			chassis = []string{f.chassisName()}
		}
		ops = append(ops, addRouterPort(rUUID, port, sw, prefixes(o.ExternalAddrs), "outer", chassis)...)
		ops = append(ops, ovsdb.SetIDs("Logical_Router", rUUID, map[string]string{keyExternal: o.External, keyChassis: strings.Join(chassis, ",")}))
	}
	if findPort(v, switchPortName(sw, o.Router)) == nil {
		ops = append(ops, addRouterSidePort(swUUID, switchPortName(sw, o.Router), port, sw, "beyond")...)
	}
	for i, next := range o.ExternalNext {
		if r != nil && defaultRoute(v, r, next.Is4()) != "" {
			continue
		}
		to := everything(next.Is4())
		id := "route" + strconv.Itoa(i)
		ops = append(ops, ovsdb.Insert("Logical_Router_Static_Route", id, ovsdb.Values{
			"ip_prefix": to.String(), "nexthop": next.String(), "external_ids": ovsdb.StringMap(map[string]string{network.KeyOwner: network.Owner}),
		}), ovsdb.Mutate("Logical_Router", routerIs(rUUID), ovsdb.Mutation{Column: "static_routes", Mutator: "insert", Value: ovsdb.UUIDs(id)}))
	}
	if !o.SNAT {
		return ops
	}
	for i, s := range n.Subnets {
		out := addrOf(o.ExternalAddrs, s.Prefix.Addr().Is4())
		if !out.IsValid() || r != nil && hasNAT(v, r, s.Prefix.String()) {
			continue
		}
		id := "nat" + strconv.Itoa(i)
		ops = append(ops, ovsdb.Insert("NAT", id, ovsdb.Values{
			"type": "snat", "external_ip": out.String(), "logical_ip": s.Prefix.String(),
			"external_ids": ovsdb.StringMap(map[string]string{network.KeyOwner: network.Owner, keySwitch: o.Switch}),
		}), ovsdb.Mutate("Logical_Router", routerIs(rUUID), ovsdb.Mutation{Column: "nat", Mutator: "insert", Value: ovsdb.UUIDs(id)}))
	}
	return ops
}

func prefixes(list []netip.Prefix) (texts []string) {
	for _, p := range list {
		texts = append(texts, p.String())
	}
	return texts
}

func addrOf(list []netip.Prefix, four bool) netip.Addr {
	for _, p := range list {
		if p.Addr().Is4() == four {
			return p.Addr()
		}
	}
	return netip.Addr{}
}

// everything is where a default route leads.
func everything(four bool) netip.Prefix {
	if four {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// defaultRoute is the next hop of the router's default route, empty without one.
func defaultRoute(v ovsdb.View, r *logicalRouter, four bool) string {
	for _, uuid := range r.Routes {
		if route, ok := ovsdb.Find(v, &staticRoute{UUID: uuid}); ok && route.Prefix == everything(four).String() {
			return route.Nexthop
		}
	}
	return ""
}

func hasNAT(v ovsdb.View, r *logicalRouter, inside string) bool {
	return slices.ContainsFunc(r.NAT, func(uuid string) bool {
		n, ok := ovsdb.Find(v, &natRow{UUID: uuid})
		return ok && n.Type == "snat" && n.LogicalIP == inside
	})
}

// leaveRouters takes a switch that is going off the routers that this driver joined
// it to, and removes a router that this driver made when that was its last switch.
func leaveRouters(v ovsdb.View, sw string) (ops []ovsdb.Operation) {
	for _, r := range ovsdb.All[*logicalRouter](v) {
		var mine, rest []*routerPort
		var way []*routerPort // out
		for _, p := range portsOfRouter(v, r) {
			switch {
			case !ours(p.ExternalIDs):
				rest = append(rest, p)
			case p.ExternalIDs[keySwitch] == sw:
				mine = append(mine, p)
			case r.ExternalIDs[keyExternal] != "" && p.ExternalIDs[keySwitch] == outsideName(r.Name, r.ExternalIDs[keyExternal]):
				way = append(way, p)
			default:
				rest = append(rest, p)
			}
		}
		if len(mine) == 0 {
			continue
		}
		if len(rest) == 0 && ours(r.ExternalIDs) {
			ops = append(ops, ovsdb.Is("Logical_Router", ovsdb.ByUUID(r.UUID), ovsdb.Values{"ports": ovsdb.UUIDs(r.Ports...)}),
				ovsdb.Operation{Op: "delete", Table: "Logical_Router", Where: ovsdb.ByUUID(r.UUID)})
			for _, p := range way {
				if s, _ := findSwitch(v, p.ExternalIDs[keySwitch]); s != nil && s.ExternalIDs[keyRole] == rolePart {
					ops = append(ops, ovsdb.Operation{Op: "delete", Table: "Logical_Switch", Where: ovsdb.ByUUID(s.UUID)})
				}
			}
			continue
		}
		var gone []string
		for _, p := range mine {
			gone = append(gone, p.UUID)
		}
		ms := []ovsdb.Mutation{{Column: "ports", Mutator: "delete", Value: ovsdb.UUIDs(gone...)}}
		if nats := natsOf(v, r, sw); len(nats) > 0 {
			ms = append(ms, ovsdb.Mutation{Column: "nat", Mutator: "delete", Value: ovsdb.UUIDs(nats...)})
		}
		ops = append(ops, ovsdb.Mutate("Logical_Router", ovsdb.ByUUID(r.UUID), ms...))
	}
	return ops
}

func natsOf(v ovsdb.View, r *logicalRouter, sw string) (list []string) {
	for _, uuid := range r.NAT {
		if n, ok := ovsdb.Find(v, &natRow{UUID: uuid}); ok && ours(n.ExternalIDs) && n.ExternalIDs[keySwitch] == sw {
			list = append(list, uuid)
		}
	}
	return list
}

// Routes implements network.Fabric: what the network's router reaches beside the
// network itself.
func (f *Fabric) Routes(n network.Network) (list []netip.Prefix) {
	if n.Config.OVN == nil || n.Config.OVN.Router == "" {
		return nil
	}
	v, err := f.nb.View()
	if err != nil {
		return nil
	}
	r, _ := findRouter(v, n.Config.OVN.Router)
	if r == nil {
		return nil
	}
	for _, p := range portsOfRouter(v, r) {
		for _, text := range p.Networks {
			prefix, err := netip.ParsePrefix(text)
			if err != nil || slices.ContainsFunc(n.Subnets, func(s network.Subnet) bool { return s.Prefix.Overlaps(prefix) }) {
				continue
			}
			list = append(list, prefix.Masked())
		}
	}
	slices.SortFunc(list, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	return slices.Compact(list)
}
