package dockerwatch

import (
	"context"
	"encoding/json"
	"net/url"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// census plans when to list the containers that do not run. After one was
// created they are listed several times: networks are connected to it without
// an event before it starts.
type census struct {
	at   time.Time // zero: not planned
	step int
}

// censusPauses are the times between the listings after a container was created.
var censusPauses = []time.Duration{10 * time.Millisecond, 50 * time.Millisecond, 150 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second}

// soon starts the series of listings again.
func (c *census) soon() {
	at := time.Now().Add(censusPauses[0])
	if c.at.IsZero() || at.Before(c.at) {
		c.at = at
	}
	c.step = 0
}

func (c *census) next() (at time.Time, ok bool) { return c.at, !c.at.IsZero() }

// done plans the next listing of the series. Listing may take a tenth of the
// time at most, as visiting may.
func (c *census) done(took time.Duration) {
	c.step++
	if c.step >= len(censusPauses) {
		*c = census{}
		return
	}
	c.at = time.Now().Add(max(censusPauses[c.step], 10*took))
}

// count lists the containers that do not run, if that is due, and tells the
// sink. An answer that does not come leaves what was told before.
func (w *watcher) count(ctx context.Context) {
	if at, ok := w.census.next(); !ok || at.After(time.Now()) {
		return
	}
	start := time.Now()
	waiting, err := w.engine.waiting(ctx, w.nets)
	w.census.done(time.Since(start))
	if err != nil {
		w.Log.Debug("cannot list containers", "err", err)
		return
	}
	w.Sink.Waiting(waiting)
}

// waiting lists the containers that do not run and are on one of the networks.
// The engine answers from a snapshot, also while it starts containers.
func (e *engine) waiting(ctx context.Context, nets map[network.ID]string) ([]network.Waiting, error) {
	ids := make(map[string]network.ID, len(nets))
	names := make([]string, 0, len(nets))
	for id, name := range nets {
		if name != "" {
			ids[name] = id
			names = append(names, name)
		}
	}
	all := []network.Waiting{}
	if len(names) == 0 {
		return all, nil
	}
	filter, err := json.Marshal(map[string][]string{
		"network": names, "status": {"created", "exited", "restarting", "dead"},
	})
	if err != nil {
		return nil, err
	}
	var list []struct {
		ID              string
		NetworkSettings struct {
			Networks map[string]struct{ NetworkID string }
		}
	}
	path := "/containers/json?all=1&filters=" + url.QueryEscape(string(filter))
	if err := e.read(ctx, path, func(d *json.Decoder) error { return d.Decode(&list) }); err != nil {
		return nil, err
	}
	for _, c := range list {
		w := network.Waiting{Container: c.ID}
		for name, n := range c.NetworkSettings.Networks {
			// A container that never ran names its networks as its user did.
			id, ok := ids[name]
			if !ok {
				id = network.ID(n.NetworkID)
				_, ok = nets[id]
			}
			if ok {
				w.Networks = append(w.Networks, id)
			} else {
				w.Elsewhere = true
			}
		}
		all = append(all, w)
	}
	return all, nil
}
