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
	select {
	case f.reaper <- struct{}{}:
	default:
	}
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
		if !f.reapAll() {
			retry.Reset(reapRetry)
		}
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
		networks[d.network] = true
	}
	left := len(f.doomed)
	f.mu.Unlock()
	for id := range networks {
		f.dirty(id)
	}
	return left == 0
}
