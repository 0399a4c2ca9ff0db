package ovs

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// Prune implements network.Fabric.
func (f *Fabric) Prune(ctx context.Context, keep []network.Network, spare func(network.ID, network.EndpointID) bool) (again bool, err error) {
	f.unsettleAll()
	if err := f.shieldAgain(); err != nil {
		return false, err
	}
	found, err := f.Leftovers(keep, spare)
	if err != nil {
		return false, err
	}
	ripe := f.suspect.Ripe(found, f.now())
	for _, l := range ripe {
		f.log.Info("removing a leftover", "kind", l.Kind, "name", l.Name, "why", l.Why)
		if err := l.Remove(ctx); err != nil {
			f.log.Warn("cannot remove a leftover", "kind", l.Kind, "name", l.Name, "err", err)
		}
	}
	return len(found) > 0, nil
}

// unsettleEvery is the least time between two looks at what events say is in
// order.
const unsettleEvery = 4 * time.Minute

func (f *Fabric) unsettleAll() {
	f.mu.Lock()
	due := time.Since(f.shaken) >= unsettleEvery
	if due {
		f.shaken = time.Now()
	}
	f.mu.Unlock()
	if due {
		f.settled.Clear()
	}
}

// Leftovers lists what carries this driver's mark and belongs to nothing in keep,
// as seen now; see Prune for spare. What a running container still uses is not
// listed.
func (f *Fabric) Leftovers(keep []network.Network, spare func(network.ID, network.EndpointID) bool) ([]network.Leftover, error) {
	v, err := f.db.View()
	if err != nil {
		return nil, err
	}
	// Before the links: a chain is made after its link, whose name is never used
	// again, so one without a link is no longer needed.
	shields, err := f.links.Shielded()
	if err != nil {
		return nil, err
	}
	wanted := make(map[string]bool)
	bridges := make(map[string]bool)
	for _, n := range keep {
		bridges[n.Config.Bridge] = true
		for id := range n.Endpoints {
			host, _ := id.Links()
			wanted[host] = true
		}
	}
	all, err := f.links.List()
	if err != nil {
		return nil, err
	}
	here := make(map[string]bool, len(all))
	for _, l := range all {
		here[l.Name] = true
	}
	var found []network.Leftover
	leftover := func(kind, name, why string, remove func(context.Context) error) {
		found = append(found, network.Leftover{Kind: kind, Name: name, Why: why, Remove: remove, Sure: kind == "chain"})
	}
	stale := make(map[string]bool)    // ports by UUID
	used := make(map[network.ID]bool) // networks with a port that a container still uses
	for _, p := range ovsdb.All[*port](v) {
		id, eid := network.ID(p.ExternalIDs[network.KeyNetworkID]), network.EndpointID(p.ExternalIDs[network.KeyEndpointID])
		if !ours(p.ExternalIDs) || wanted[p.Name] || spare(id, eid) {
			continue
		}
		if f.inUse(eid, here) {
			used[id] = true
			continue
		}
		if b := bridgeOf(v, p.UUID); b != nil {
			stale[p.UUID] = true
			leftover("port", p.Name, fmt.Sprintf("on bridge %s, of an endpoint %s that is not known", b.Name, eid.Short()),
				func(ctx context.Context) error {
					_, err := f.write(ctx, append(mirrorsInto(v, p.UUID), delPort(b, p.UUID)), nil)
					return err
				})
		}
	}
	for _, m := range strayMirrors(v, keep, spare) {
		if used[network.ID(m.ExternalIDs[network.KeyNetworkID])] {
			continue
		}
		leftover("mirror", m.Name, "of a network that is not known", func(ctx context.Context) error {
			_, err := f.write(ctx, delMirror(m.UUID), nil)
			return err
		})
	}
	for _, l := range all {
		eid, marked := strings.CutPrefix(l.Alias, network.Owner+" ")
		id := network.EndpointID(eid)
		if !marked || wanted[l.Name] || spare("", id) || f.inUse(id, here) {
			continue
		}
		leftover("link", l.Name, fmt.Sprintf("of an endpoint %s that is not known", id.Short()),
			func(context.Context) error { return f.links.Delete(l.Name, l.Alias) })
	}
	for _, b := range ovsdb.All[*bridge](v) {
		kept := slices.ContainsFunc(portsOf(v, b), func(p *port) bool { return !stale[p.UUID] })
		if ours(b.ExternalIDs) && !bridges[b.Name] && !spare("", "") && !kept {
			leftover("bridge", b.Name, "made by this driver, of no network that is known",
				func(ctx context.Context) error { return f.removeBridge(ctx, b.Name) })
		}
	}
	for host := range shields {
		if !here[host] {
			leftover("chain", host, "in the nftables table "+network.Owner+", of a link that is gone",
				func(context.Context) error {
					return f.links.PruneShields(func(h string) bool { return h != host })
				})
		}
	}
	// A bridge goes after its ports.
	slices.SortFunc(found, func(a, b network.Leftover) int {
		if a.Kind == "bridge" != (b.Kind == "bridge") {
			return map[bool]int{true: 1, false: -1}[a.Kind == "bridge"]
		}
		return strings.Compare(a.String(), b.String())
	})
	return found, nil
}

// InUse tells whether a container may still use the endpoint's link, as far as link
// events told.
func (f *Fabric) InUse(id network.EndpointID) bool {
	host, peer := id.Links()
	_, linked := f.deviceOf(host)
	_, home := f.deviceOf(peer)
	return linked && !home
}

// inUse tells whether a container may still use the endpoint's link: the host
// end is here and the other end is not, so it is inside a container.
func (f *Fabric) inUse(id network.EndpointID, here map[string]bool) bool {
	host, peer := id.Links()
	return here[host] && !here[peer]
}

// Suspected tells since when a leftover has looked like one at every look of
// Prune; false when the last one did not see it.
func (f *Fabric) Suspected(l network.Leftover) (since time.Time, ok bool) { return f.suspect.Since(l) }
