package ovs

import (
	"context"
	"errors"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/link"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// doomed is a link to be removed.
type doomed struct {
	host, alias string
	network     network.ID
}

// reapRetry is the pause after a link that could not be removed.
const reapRetry = 2 * time.Second

// reap has a link removed in the background. The kernel needs 15 ms and more
// for one, and hardly more for hundreds; nobody should wait for that.
func (f *Fabric) reap(d doomed) {
	f.mu.Lock()
	f.doomed[d.host] = d
	f.mu.Unlock()
	f.wakeReaper()
}

func (f *Fabric) wakeReaper() {
	select {
	case f.reaper <- struct{}{}:
	default:
	}
}

// reapBridge has the device of a removed bridge looked at once ovs-vswitchd must
// have removed it.
func (f *Fabric) reapBridge(name string) {
	f.mu.Lock()
	f.bridges[name] = time.Now().Add(bridgeGrace)
	f.mu.Unlock()
	f.wakeReaper()
}

// bridgeGrace is the time in which ovs-vswitchd removes the device of a bridge,
// if it is there.
const bridgeGrace = 2 * time.Second

// reapBridges removes the devices of removed bridges that are still there, and
// tells when to look again. On the userspace datapath the device is a persistent
// tap: if ovs-vswitchd did not run when its bridge was removed, it never looks
// at it again. A tap that a program has open is left alone.
func (f *Fabric) reapBridges() time.Duration {
	f.mu.Lock()
	due := make([]string, 0, len(f.bridges))
	next := time.Hour
	for name, at := range f.bridges {
		if left := time.Until(at); left > 0 {
			next = min(next, left)
			continue
		}
		due = append(due, name)
		delete(f.bridges, name)
	}
	f.mu.Unlock()
	for _, name := range due {
		v, err := f.db.View()
		if err != nil { // nobody can tell: later
			f.mu.Lock()
			f.bridges[name] = time.Now().Add(reapRetry)
			f.mu.Unlock()
			next = min(next, reapRetry)
			continue
		}
		if findPort(v, name) != nil {
			continue // made again meanwhile
		}
		if err := f.links.DeleteIdleTap(name); err != nil {
			f.log.Warn("cannot remove the device of a bridge that is gone", "device", name, "err", err)
		}
	}
	return next
}

// runReaper removes what was handed to reap, together what came together, and
// reports the networks as changed.
func (f *Fabric) runReaper(ctx context.Context) error {
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.reaper:
		case <-retry.C:
		}
		next := f.reapBridges()
		if !f.reapAll() {
			next = min(next, reapRetry)
		}
		retry.Reset(next)
	}
}

// reapAll tells whether every link went.
func (f *Fabric) reapAll() bool {
	f.mu.Lock()
	batch := make(map[string]doomed, len(f.doomed))
	aliases := make(map[string]string, len(f.doomed))
	for host, d := range f.doomed {
		batch[host], aliases[host] = d, d.alias
	}
	f.mu.Unlock()
	if len(batch) == 0 {
		return true
	}
	failed := f.links.DeleteAll(aliases)
	f.step("links removed", len(batch))
	networks := make(map[network.ID]bool)
	f.mu.Lock()
	for host, d := range batch {
		err := failed[host]
		if err != nil && !errors.Is(err, link.ErrForeign) {
			f.log.Warn("cannot remove a link", "link", host, "err", err)
			continue
		}
		delete(f.doomed, host)
		delete(f.devices, host)
		if d.network != "" {
			networks[d.network] = true
		}
	}
	left := len(f.doomed)
	f.mu.Unlock()
	for id := range networks {
		f.dirty(id)
	}
	return left == 0
}
