package ovs

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// Backlog is the number of changes in the database that ovs-vswitchd has not
// taken, 0 when that is not known.
func (f *Fabric) Backlog() int {
	v, err := f.db.View()
	if err != nil {
		return 0
	}
	r := root(v)
	if r == nil {
		return 0
	}
	return max(0, r.NextCfg-r.CurCfg)
}

// Transactions is how many were sent to the database so far.
func (f *Fabric) Transactions() uint64 { return f.db.Transactions() }

// Endpoint is where the database is.
func (f *Fabric) Endpoint() string { return f.db.Endpoint() }

// FreeTags is how many VLANs of a bridge are left for networks with vlan=auto.
func (f *Fabric) FreeTags(name string, all []network.Network) (int, error) {
	v, err := f.db.View()
	if err != nil {
		return 0, err
	}
	used := usedTags(v, findBridge(v, name), name, all)
	free := 0
	for tag := network.MinVLAN; tag <= network.MaxVLAN; tag++ {
		if !used[tag] {
			free++
		}
	}
	return free, nil
}

// Unshielded lists our ports of the userspace datapath whose frames the host's
// own stack sees: somebody flushed the rule set.
func (f *Fabric) Unshielded() ([]string, error) {
	v, err := f.db.View()
	if err != nil {
		return nil, err
	}
	var hosts []string
	for _, b := range ovsdb.All[*bridge](v) {
		if !b.userspace() {
			continue
		}
		for _, p := range portsOf(v, b) {
			if dev, linked := f.deviceOf(p.Name); ours(p.ExternalIDs) && linked && dev.up {
				hosts = append(hosts, p.Name)
			}
		}
	}
	if len(hosts) == 0 {
		return nil, nil
	}
	have, err := f.links.Shielded()
	if err != nil || have == nil {
		return nil, err
	}
	return slices.DeleteFunc(hosts, func(h string) bool { return have[h] }), nil
}

// shieldAgain puts back what a firewall has flushed with all other tables.
func (f *Fabric) shieldAgain() error {
	bare, err := f.Unshielded()
	if err != nil || len(bare) == 0 {
		return err
	}
	f.log.Warn("putting back the nftables chains that somebody removed", "ports", len(bare))
	return f.links.Shield(bare)
}

// flushPause lets a firewall finish what it replaces.
const flushPause = 500 * time.Millisecond

// runShields puts the shields back when their table was removed. The driver
// removes it, too, with the last of them.
func (f *Fabric) runShields(ctx context.Context) error {
	flushed := make(chan struct{}, 1)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		err := f.links.WatchShields(ctx, func() {
			select {
			case flushed <- struct{}{}:
			default:
			}
		})
		if err != nil && ctx.Err() == nil {
			f.log.Warn("a flushed rule set is only noticed after a while", "err", err)
		}
		return nil
	})
	g.Go(func() error {
		pause := time.NewTimer(time.Hour)
		defer pause.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-flushed:
				pause.Reset(flushPause)
			case <-pause.C:
				if err := f.shieldAgain(); err != nil {
					f.log.Warn("cannot put the nftables chains back", "err", err)
				}
			}
		}
	})
	return g.Wait()
}

// Userspace lists the bridges of networks that are of the userspace datapath.
func (f *Fabric) Userspace(all []network.Network) (bridges []string) {
	v, err := f.db.View()
	if err != nil {
		return nil
	}
	for _, b := range ovsdb.All[*bridge](v) {
		used := slices.ContainsFunc(all, func(n network.Network) bool { return n.Config.Bridge == b.Name })
		if used && b.userspace() {
			bridges = append(bridges, b.Name)
		}
	}
	slices.Sort(bridges)
	return bridges
}
