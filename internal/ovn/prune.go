package ovn

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// unsettleEvery is the least time between two looks at what events say is in
// order.
const unsettleEvery = 4 * time.Minute

// Prune implements network.Fabric: of the northbound database, what this host
// left there.
func (f *Fabric) Prune(ctx context.Context, keep []network.Network, spare func(network.ID, network.EndpointID) bool) (again bool, err error) {
	now := time.Now()
	if last := time.Unix(f.shaken.Load(), 0); now.Sub(last) >= unsettleEvery {
		f.shaken.Store(now.Unix())
		f.settled.Clear()
	}
	again, err = f.Fabric.Prune(ctx, keep, spare)
	found, nbErr := f.leftovers(keep, spare)
	for _, l := range f.suspect.Ripe(found, now) {
		f.log.Info("removing a leftover", "kind", l.Kind, "name", l.Name, "why", l.Why)
		if err := l.Remove(ctx); err != nil {
			f.log.Warn("cannot remove a leftover", "kind", l.Kind, "name", l.Name, "err", err)
		}
	}
	return again || len(found) > 0, errors.Join(err, nbErr)
}

// Leftovers lists those of both fabrics; see ovs.Fabric.Leftovers.
func (f *Fabric) Leftovers(keep []network.Network, spare func(network.ID, network.EndpointID) bool) ([]network.Leftover, error) {
	here, err := f.Fabric.Leftovers(keep, spare)
	if err != nil {
		return nil, err
	}
	there, err := f.leftovers(keep, spare)
	return append(here, there...), err
}

// Suspected tells since when a leftover has looked like one at every look of
// Prune; false when the last one did not see it.
func (f *Fabric) Suspected(l network.Leftover) (since time.Time, ok bool) {
	if since, ok := f.suspect.Since(l); ok {
		return since, ok
	}
	return f.Fabric.Suspected(l)
}

// leftovers are those in the northbound database, of this host alone. While that
// was never needed, there are none.
func (f *Fabric) leftovers(keep []network.Network, spare func(network.ID, network.EndpointID) bool) (found []network.Leftover, err error) {
	if !f.used.Load() {
		return nil, nil
	}
	v, err := f.nb.View()
	if err != nil {
		return nil, err
	}
	wanted := make(map[string]bool) // names of ports
	claims := make(map[string]bool) // keys of claims
	for _, n := range keep {
		if n.Config.OVN == nil {
			continue
		}
		claims[claimKey(f.cfg.HostID, n.ID)] = true
		for id := range n.Endpoints {
			port, _ := id.Links()
			wanted[port] = true
		}
	}
	leftover := func(kind, name, why string, remove func(context.Context) error) {
		found = append(found, network.Leftover{Kind: kind, Name: name, Why: why, Remove: remove})
	}
	for _, p := range ovsdb.All[*logicalPort](v) {
		id, eid := network.ID(p.ExternalIDs[network.KeyNetworkID]), network.EndpointID(p.ExternalIDs[network.KeyEndpointID])
		if p.ExternalIDs[network.KeyHostID] != f.cfg.HostID || wanted[p.Name] || spare(id, eid) || f.InUse(eid) {
			continue
		}
		leftover("logical port", p.Name, fmt.Sprintf("of an endpoint %s that is not known", eid.Short()), func(ctx context.Context) error {
			return f.write(ctx, []ovsdb.Operation{removePort(p.UUID)})[0]
		})
	}
	for _, m := range f.strayMirrors(v, keep, spare) {
		leftover("logical mirror", m.Name, "for an observer that is not known", func(ctx context.Context) error {
			return f.write(ctx, []ovsdb.Operation{delMirror(m.UUID)})[0]
		})
	}
	for _, s := range ovsdb.All[*logicalSwitch](v) {
		for key := range s.claimsOf(f.cfg.HostID) {
			if claims[key] || spare("", "") {
				continue
			}
			leftover("claim", s.Name+" "+key, "on a logical switch, of a network that is not known", func(ctx context.Context) error {
				return f.unclaim(ctx, s.Name, key)
			})
		}
	}
	for _, d := range ovsdb.All[*dhcpOptions](v) {
		if d.ExternalIDs[keyRole] != roleBook {
			continue
		}
		for key, who := range d.ExternalIDs {
			port, host, ok := strings.Cut(who, " ")
			if !ok || ofPools(key) || host != f.cfg.HostID || wanted[port] || spare("", "") {
				continue
			}
			leftover("address", key, "in the book of logical switch "+d.ExternalIDs[keySwitch]+", of an endpoint that is not known", func(ctx context.Context) error {
				return f.write(ctx, []ovsdb.Operation{strike(d, map[string]string{key: who})})[0]
			})
		}
	}
	return found, nil
}

// ofHost tells whether a claim is of a host.
func ofHost(key, hostID string) bool { return strings.HasPrefix(key, claimPrefix+hostID+".") }
