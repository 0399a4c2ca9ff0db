package ovn

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// lifeTime is how long a chassis is given to show that it lives, and northd to ask
// it.
const lifeTime = 5 * time.Second

// Retire lists what the chassis of a host that is gone has left in both databases,
// in the order in which it is to be removed. A chassis that lives is refused, and
// one of which that cannot be told, unless force says that it is known to be gone.
func (f *Fabric) Retire(ctx context.Context, name string, force bool) ([]network.Leftover, error) {
	c, err := f.Chassis()
	if err != nil {
		return nil, err
	}
	if name == c.Name() || name == f.cfg.HostID {
		return nil, fmt.Errorf("%s is this host: a chassis is retired from another one", name)
	}
	f.start()
	if err := f.nb.Ready(ctx); err != nil {
		return nil, err
	}
	fleet, err := f.Fleet(ctx)
	if err != nil {
		return nil, err
	}
	m, registered := fleet.Find(name)
	if registered && !force {
		if err := f.dead(ctx, fleet, m); err != nil {
			return nil, err
		}
	}
	found, err := f.estate(ctx, name)
	if err != nil {
		return nil, err
	}
	if registered {
		found = append(found, network.Leftover{
			Kind: "chassis", Name: name, Why: "it is to be retired; " + m.Life(time.Now()),
			Remove: func(ctx context.Context) error { return f.deregister(ctx, name) },
		})
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("there is no chassis %s, and nothing in the northbound database is of it; there are %s", name, strings.Join(fleet.names(), ", "))
	}
	return found, nil
}

// dead returns nil if a chassis does not answer, else why it must not be retired.
func (f *Fabric) dead(ctx context.Context, fleet Fleet, m Member) error {
	cannot := func(why string) error {
		return fmt.Errorf("it cannot be told whether chassis %s lives: %s; if you know that it is gone, give --force", m.Name, why)
	}
	if fleet.Mute {
		return cannot("chassis are told not to answer (option enable_chassis_nb_cfg_update)")
	}
	switch err := f.Sync(ctx, lifeTime); {
	case errors.Is(err, ErrNorthd):
		return cannot(err.Error())
	case err != nil:
		return err
	}
	fleet, err := f.awaitFleet(ctx, lifeTime, func(fleet Fleet) bool {
		now, there := fleet.Find(m.Name)
		return !there || now.Behind == 0
	})
	if err != nil {
		return err
	}
	if now, there := fleet.Find(m.Name); there && now.Behind == 0 {
		return fmt.Errorf("chassis %s lives, it has just answered: stop ovn-controller and the driver on host %s first, or give --force", m.Name, now.Hostname)
	}
	return nil
}

// Life says what is known of a chassis' life, for a person.
func (m Member) Life(now time.Time) string {
	if m.Seen.IsZero() {
		return "it was never seen to live"
	}
	return fmt.Sprintf("its last sign of life was %s ago", max(0, now.Sub(m.Seen)).Round(time.Second))
}

func (f Fleet) names() (list []string) {
	for _, m := range f.Chassis {
		list = append(list, m.Name)
	}
	return list
}

// giveBack takes a handle out of a book, again if another host changed that.
func (f *Fabric) giveBack(ctx context.Context, sw, id string) (err error) {
	for range switchTries {
		if err = f.releaseHandle(ctx, sw, id); err == nil || !changed(err, "DHCP_Options") {
			return err
		}
	}
	return err
}

// estate is what a host has in the northbound database: mirrors, ports, addresses, then
// claims, with the last of which a switch goes.
func (f *Fabric) estate(ctx context.Context, chassis string) (found []network.Leftover, err error) {
	v, err := f.nb.View()
	if err != nil {
		return nil, err
	}
	ports, err := f.rowsOf(ctx, "Logical_Switch_Port", network.KeyHost, chassis)
	if err != nil {
		return nil, err
	}
	var mirrors []ownRow
	if v.Has("Mirror") {
		if mirrors, err = f.rowsOf(ctx, "Mirror", network.KeyHost, chassis); err != nil {
			return nil, err
		}
	}
	hosts := make(map[string]bool) // ids of those that had the name
	for _, p := range append(slices.Clone(ports), mirrors...) {
		hosts[p.ids[network.KeyHostID]] = true
	}
	switches := slices.SortedFunc(maps.Values(ovsdb.All[*logicalSwitch](v)), func(a, b *logicalSwitch) int { return strings.Compare(a.Name, b.Name) })
	for _, s := range switches {
		for key, name := range s.claims() {
			if name == chassis {
				hosts[hostOf(key)] = true
			}
		}
	}
	delete(hosts, f.cfg.HostID) // this host had the name once
	for id := range hosts {
		lives, err := f.renamed(ctx, id, chassis)
		if err != nil {
			return nil, err
		}
		if lives {
			delete(hosts, id)
		}
	}
	leftover := func(kind, name, why string, remove func(context.Context) error) {
		found = append(found, network.Leftover{Kind: kind, Name: name, Why: why, Remove: remove})
	}
	for _, m := range mirrors {
		if hosts[m.ids[network.KeyHostID]] {
			leftover("logical mirror", m.name, "of "+title(m.ids)+" on host "+chassis, func(ctx context.Context) error {
				return f.write(ctx, []ovsdb.Operation{delMirror(m.uuid)})[0]
			})
		}
	}
	for _, p := range ports {
		if !hosts[p.ids[network.KeyHostID]] {
			continue
		}
		leftover("logical port", p.name, "of "+title(p.ids)+" on host "+chassis, func(ctx context.Context) error {
			return f.write(ctx, []ovsdb.Operation{removePort(p.uuid)})[0]
		})
	}
	for _, d := range books(v) {
		sw := d.ExternalIDs[keySwitch]
		for _, key := range slices.Sorted(maps.Keys(d.ExternalIDs)) {
			who := d.ExternalIDs[key]
			if _, host, ok := strings.Cut(who, " "); ok && hosts[host] && !ofPools(key) {
				leftover("address", key, "in the book of logical switch "+sw+", of host "+chassis, func(ctx context.Context) error {
					return f.write(ctx, []ovsdb.Operation{strike(d, map[string]string{key: who})})[0]
				})
			}
		}
		for _, h := range d.handles() {
			if hosts[h.host] {
				leftover("pool", sw+" "+h.id, fmt.Sprintf("the part that a network on host %s has in pool %s, with its addresses", chassis, h.prefix), func(ctx context.Context) error {
					return f.giveBack(ctx, sw, h.id)
				})
			}
		}
	}
	for _, s := range switches {
		claims := s.claims()
		for _, key := range slices.Sorted(maps.Keys(claims)) {
			if hosts[hostOf(key)] {
				leftover("claim", s.Name+" "+key, "on a logical switch, of a network on host "+chassis, func(ctx context.Context) error {
					return f.unclaim(ctx, s.Name, key)
				})
			}
		}
	}
	return found, nil
}

// ownRow is a port or a mirror of this driver on any host.
type ownRow struct {
	uuid, name string
	ids        map[string]string
}

// rowsOf are all rows of this driver with a value in their external_ids.
func (f *Fabric) rowsOf(ctx context.Context, table, key, value string) (list []ownRow, err error) {
	rows, err := f.nb.Read(ctx, ovsdb.Query{
		Table: table, Columns: []string{"_uuid", "name", "external_ids"},
		Where: []ovsdb.Condition{{Column: "external_ids", Function: "includes", Value: ovsdb.StringMap(map[string]string{network.KeyOwner: network.Owner, key: value})}},
	})
	if err != nil {
		return nil, err
	}
	for _, r := range rows[0] {
		for _, uuid := range uuidsOf(r["_uuid"]) {
			list = append(list, ownRow{uuid, textOf(r["name"]), pairsOf(r["external_ids"])})
		}
	}
	slices.SortFunc(list, func(a, b ownRow) int { return strings.Compare(a.name, b.name) })
	return list, nil
}

// renamed tells whether a host has ports under another name than this one: what it
// claimed under its old name is still its own.
func (f *Fabric) renamed(ctx context.Context, hostID, chassis string) (bool, error) {
	ports, err := f.rowsOf(ctx, "Logical_Switch_Port", network.KeyHostID, hostID)
	return slices.ContainsFunc(ports, func(p ownRow) bool { return p.ids[network.KeyHost] != chassis }), err
}

// hostOf is the id of the host that made a claim.
func hostOf(key string) string {
	host, _, _ := strings.Cut(strings.TrimPrefix(key, claimPrefix), ".")
	return host
}

// title names who has a port, for a person.
func title(ids map[string]string) string {
	if name := ids[network.KeyContainerName]; name != "" {
		return "container " + name
	}
	return "endpoint " + network.EndpointID(ids[network.KeyEndpointID]).Short()
}

// deregister takes a chassis out of the southbound database, as ovn-sbctl
// chassis-del does. Its ports are free then, and nobody sends to it any more.
func (f *Fabric) deregister(ctx context.Context, name string) error {
	return f.visitSouth(ctx, func(s *ovsdb.Session) error {
		ops := []ovsdb.Operation{{Op: "delete", Table: "Chassis", Where: ovsdb.ByName(name)}}
		if s.Has("Chassis_Private") {
			ops = append(ops, ovsdb.Operation{Op: "delete", Table: "Chassis_Private", Where: ovsdb.ByName(name)})
		}
		_, err := s.Transact(ctx, ops...)
		var refused *ovsdb.TransactError
		if errors.As(err, &refused) {
			return fmt.Errorf("%w; run on the central: ovn-sbctl chassis-del %s", err, name)
		}
		return err
	})
}
