package ovn

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// keyLocalnet records the physical network of a switch.
const keyLocalnet = "localnet"

// switchTries bounds how often a change of a switch is tried again because another
// host changed it in the same moment.
const switchTries = 30

// breathe waits a moment before such a try, longer each time: the cache may not show
// yet what the other host did.
func breathe(ctx context.Context, try int) {
	if try == 0 {
		return
	}
	moment := time.NewTimer(rand.N(time.Millisecond << min(try, 6)))
	defer moment.Stop()
	select {
	case <-moment.C:
	case <-ctx.Done():
	}
}

// ensureSwitch returns the network's switch, made if it is missing, with this
// host's claim on it.
func (f *Fabric) ensureSwitch(ctx context.Context, n network.Network) (*logicalSwitch, error) {
	for try := range switchTries {
		breathe(ctx, try)
		v, err := f.nb.View()
		if err != nil {
			return nil, err
		}
		s, count := findSwitch(v, n.Config.OVN.Switch)
		if count > 1 {
			return nil, errAmbiguous(n.Config.OVN.Switch, count)
		}
		if s != nil {
			if n.Phase == network.PhaseCreating {
				if err := compatible(s, n); err != nil {
					return nil, err
				}
			}
			ops := f.claim(v, s, n)
			if len(ops) == 0 {
				return s, nil
			}
			err = f.write(ctx, ops)[0]
		} else {
			err = f.write(ctx, append(f.newSwitch(v, n), f.joinRouter(v, n, "switch")...))[0]
			if err == nil {
				f.log.InfoContext(ctx, "logical switch made", "nid", n.ID, "switch", n.Config.OVN.Switch)
			}
		}
		if err != nil && !changed(err, "Logical_Switch", "Logical_Switch_Port", "Logical_Router", "Logical_Router_Port", "DHCP_Options") {
			return nil, fmt.Errorf("cannot make logical switch %s: %w", n.Config.OVN.Switch, err)
		}
	}
	return nil, fmt.Errorf("cannot make logical switch %s: other hosts change it all the time", n.Config.OVN.Switch)
}

// newSwitch inserts the switch, unless another host was quicker.
func (f *Fabric) newSwitch(v ovsdb.View, n network.Network) []ovsdb.Operation {
	o := n.Config.OVN
	ids := maps.Clone(n.Config.ExternalIDs)
	if ids == nil {
		ids = make(map[string]string)
	}
	ids[network.KeyOwner] = network.Owner
	if n.Config.TenantID != "" {
		ids[network.KeyTenantID] = n.Config.TenantID
	}
	if n.Config.VLAN != 0 {
		ids[keyVLAN] = strconv.Itoa(int(n.Config.VLAN))
	}
	config := make(map[string]string)
	var subnets, gateways []string
	for _, s := range n.Subnets {
		subnets = append(subnets, s.Prefix.String())
		if s.Gateway.IsValid() {
			gateways = append(gateways, s.Gateway.String())
		}
		switch {
		case s.Prefix.Addr().Is4():
			config["subnet"] = s.Prefix.String()
		case s.Prefix.Bits() == 64:
			config["ipv6_prefix"] = s.Prefix.Addr().String()
		}
	}
	ids[keySubnets] = strings.Join(subnets, " ")
	if o.Router != "" {
		ids[keyRouter] = o.Router
	}
	ids[keyGateways] = strings.Join(gateways, " ")
	ids[claimKey(f.cfg.HostID, n.ID)] = f.chassisName()
	ops := []ovsdb.Operation{ovsdb.IsNot("Logical_Switch", ovsdb.ByName(o.Switch), ovsdb.Values{"name": o.Switch})}
	ports := ovsdb.Texts()
	if o.Localnet != "" {
		ids[keyLocalnet] = o.Localnet
		ops = append(ops, localnetPort("localnet", o.Switch, o.Localnet, n.Config.VLAN))
		ports = ovsdb.UUIDs("localnet")
	}
	ops = append(ops, missingServers(v, n)...)
	if b := findBook(v, o.Switch); b == nil {
		ops = append(ops, newBook(o.Switch, nil)...)
	} else { // of an earlier switch, or made for a pool
		ops = append(ops, ovsdb.Is("DHCP_Options", ovsdb.ByUUID(b.UUID), ovsdb.Values{"cidr": b.CIDR}))
	}
	return append(ops, ovsdb.Insert("Logical_Switch", "switch", ovsdb.Values{
		"name": o.Switch, "other_config": ovsdb.StringMap(config), "external_ids": ovsdb.StringMap(ids), "ports": ports,
	}))
}

// noPort makes the transaction fail if somebody else was quicker: names of ports are
// unique.
func noPort(name string) ovsdb.Operation {
	return ovsdb.IsNot("Logical_Switch_Port", ovsdb.ByName(name), ovsdb.Values{"name": name})
}

// localnetName is the port of a switch to its physical network.
func localnetName(sw string) string { return sw + "-localnet" }

func localnetPort(id, sw, physical string, vlan uint16) ovsdb.Operation {
	row := ovsdb.Values{
		"name": localnetName(sw), "type": "localnet", "addresses": ovsdb.Texts("unknown"),
		"options": ovsdb.StringMap(map[string]string{"network_name": physical}),
		"external_ids": ovsdb.StringMap(map[string]string{
			network.KeyOwner: network.Owner, keyRole: rolePart, keySwitch: sw,
		}),
	}
	if vlan != 0 {
		row["tag"] = int(vlan)
	}
	return ovsdb.Insert("Logical_Switch_Port", id, row)
}

// claim enters this host's claim on a switch that exists, and puts back what the
// switch lacks: the database may be an old copy of itself. A switch that this
// driver did not make is left as it is.
func (f *Fabric) claim(v ovsdb.View, s *logicalSwitch, n network.Network) []ovsdb.Operation {
	var ops []ovsdb.Operation
	there := ovsdb.Is("Logical_Switch", ovsdb.ByUUID(s.UUID), ovsdb.Values{"name": s.Name})
	key := claimKey(f.cfg.HostID, n.ID)
	if _, has := s.ExternalIDs[key]; !has && ours(s.ExternalIDs) {
		ops = append(ops, there, ovsdb.SetIDs("Logical_Switch", s.UUID, map[string]string{key: f.chassisName()}))
	}
	if findBook(v, s.Name) == nil {
		ops = append(append(ops, there), newBook(s.Name, nil)...)
	}
	if lacking := missingServers(v, n); len(lacking) > 0 {
		ops = append(append(ops, there), lacking...)
	}
	if ours(s.ExternalIDs) && s.ExternalIDs[keyLocalnet] != "" && findPort(v, localnetName(s.Name)) == nil {
		ops = append(ops, there, noPort(localnetName(s.Name)), localnetPort("localnet", s.Name, s.ExternalIDs[keyLocalnet], s.vlan()),
			ovsdb.Mutate("Logical_Switch", ovsdb.ByUUID(s.UUID), ovsdb.Mutation{Column: "ports", Mutator: "insert", Value: ovsdb.UUIDs("localnet")}))
	}
	if joined := f.joinRouter(v, n, s.UUID); len(joined) > 0 {
		ops = append(append(ops, there), joined...)
	}
	return ops
}

// Remove implements network.Fabric: with the last claim goes a switch that this
// driver made, unless ports of others are on it.
func (f *Fabric) Remove(ctx context.Context, n network.Network, keepBridge bool) error {
	if n.Config.OVN == nil {
		return f.Fabric.Remove(ctx, n, keepBridge)
	}
	f.start()
	if err := f.nb.Ready(ctx); err != nil {
		return err
	}
	if err := f.unclaim(ctx, n.Config.OVN.Switch, claimKey(f.cfg.HostID, n.ID)); err != nil {
		return fmt.Errorf("cannot leave logical switch %s: %w", n.Config.OVN.Switch, err)
	}
	return f.Fabric.Remove(ctx, n, true)
}

// unclaim takes a claim back.
func (f *Fabric) unclaim(ctx context.Context, name, key string) error {
	for try := range switchTries {
		breathe(ctx, try)
		v, err := f.nb.View()
		if err != nil {
			return err
		}
		s, _ := findSwitch(v, name)
		if s == nil || !ours(s.ExternalIDs) {
			if err := f.dropParts(ctx, v, name); err == nil || !changed(err, "DHCP_Options") {
				return err
			}
			continue
		}
		claims := s.claims()
		_, has := claims[key]
		delete(claims, key)
		var ops []ovsdb.Operation
		if len(claims) == 0 {
			if ops, err = f.delSwitch(ctx, v, s); err != nil {
				return err
			}
		}
		last := len(ops) > 0
		if !last {
			if !has {
				return nil
			}
			ops = []ovsdb.Operation{ovsdb.Mutate("Logical_Switch", ovsdb.ByUUID(s.UUID), ovsdb.Mutation{Column: "external_ids", Mutator: "delete", Value: ovsdb.Texts(key)})}
		}
		err = f.write(ctx, ops)[0]
		switch {
		case err == nil && last, err != nil && !changed(err, "Logical_Switch", "DHCP_Options", "Logical_Router"):
			return err
		}
		// Once more, also when the claim is gone: another host may have left in the
		// same moment, and of the two the later one sees that nobody is left.
	}
	return errors.New("other hosts change it all the time")
}

// delSwitch removes a switch that nobody claims any more with all that belongs to
// it, if it still has no claim and no other port; nil if others have ports on it.
func (f *Fabric) delSwitch(ctx context.Context, v ovsdb.View, s *logicalSwitch) ([]ovsdb.Operation, error) {
	rows, err := f.nb.Select(ctx, "Logical_Switch", ovsdb.ByUUID(s.UUID), "ports")
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	ports := uuidsOf(rows[0]["ports"])
	for _, uuid := range ports {
		p, known := ovsdb.Find(v, &logicalPort{UUID: uuid})
		if !known || p.ExternalIDs[keyRole] == "" {
			f.log.InfoContext(ctx, "logical switch stays: it has other ports", "switch", s.Name)
			return nil, nil
		}
	}
	ops := []ovsdb.Operation{
		ovsdb.Is("Logical_Switch", ovsdb.ByUUID(s.UUID), ovsdb.Values{"external_ids": ovsdb.StringMap(s.ExternalIDs), "ports": ovsdb.UUIDs(ports...)}),
		{Op: "delete", Table: "Logical_Switch", Where: ovsdb.ByUUID(s.UUID)},
	}
	for _, d := range partsOf(v, s.Name) {
		if d.ExternalIDs[keyRole] == roleBook {
			if d.pooled() {
				continue // it goes with the last of its pools
			}
			ops = append(ops, unchanged(d))
		}
		ops = append(ops, ovsdb.Operation{Op: "delete", Table: "DHCP_Options", Where: ovsdb.ByUUID(d.UUID)})
	}
	return append(ops, leaveRouters(v, s.Name)...), nil
}

// uuidsOf reads a set of UUIDs as the library decodes it: one alone is no set.
func uuidsOf(v any) (list []string) {
	switch v := v.(type) {
	case ovsdb.UUID:
		return []string{v.GoUUID}
	case ovsdb.Set:
		for _, e := range v.GoSet {
			if id, ok := e.(ovsdb.UUID); ok {
				list = append(list, id.GoUUID)
			}
		}
	}
	return list
}

// named returns the name of this host's chassis. It is in every port: with another one
// OVN would let go of the containers, so nothing is written while it is not known.
func (f *Fabric) named() (string, error) {
	c, err := f.Chassis()
	if err == nil && c.Name() == "" {
		err = errors.New("external_ids:system-id, by which OVN knows this host, is not set in Open vSwitch")
	}
	return c.Name(), err
}

// chassisName is what this host is called in messages on other hosts.
func (f *Fabric) chassisName() string {
	c, err := f.Chassis()
	if err != nil || c.Name() == "" {
		return f.cfg.HostID
	}
	return c.Name()
}
