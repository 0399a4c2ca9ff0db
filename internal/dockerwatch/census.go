package dockerwatch

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"slices"
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

// censusPauses are the times between the listings after a container was created:
// dense while it is likely to start, so that a start finds a list of its own time.
var censusPauses = []time.Duration{
	10 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 150 * time.Millisecond, 150 * time.Millisecond,
	200 * time.Millisecond, 300 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second,
}

// soon starts the series of listings again.
func (c *census) soon() {
	at := time.Now().Add(censusPauses[0])
	if c.at.IsZero() || at.Before(c.at) {
		c.at = at
	}
	c.step = 0
}

// once plans a single listing.
func (c *census) once() { *c = census{at: time.Now(), step: len(censusPauses) - 1} }

// again plans one more listing, after the pause at which a start can be waited
// for.
func (c *census) again() { *c = census{at: time.Now().Add(time.Second), step: len(censusPauses) - 1} }

func (c *census) next() (at time.Time, ok bool) { return c.at, !c.at.IsZero() }

// done plans the next listing of the series. Listing may take a third of the
// time at most: a series is short.
func (c *census) done(took time.Duration) {
	c.step++
	if c.step >= len(censusPauses) {
		*c = census{}
		return
	}
	c.at = time.Now().Add(max(censusPauses[c.step], 2*took))
}

// count lists the containers that do not run, if that is due, and tells the
// sink. An answer that does not come leaves what was told before.
func (w *watcher) count(ctx context.Context) {
	if at, ok := w.census.next(); !ok || at.After(time.Now()) {
		return
	}
	asked := time.Now()
	waiting, err := w.waiting(ctx)
	w.census.done(time.Since(asked))
	if err != nil {
		w.Log.Debug("cannot list containers", "err", err)
		return
	}
	_, more := w.census.next()
	suspects := w.Sink.Waiting(asked, waiting, more)
	if !more && slices.ContainsFunc(suspects, func(id string) bool { return w.publishes(ctx, id) }) {
		// It may be started at any time, and be connected to a network before,
		// of which there is no event: so it is kept an eye on.
		w.census.again()
		w.Sink.Waiting(asked, waiting, true)
	}
}

// publishes tells whether a container asks for ports to be published, and
// remembers it: that never changes.
func (w *watcher) publishes(ctx context.Context, id string) bool {
	if yes, known := w.ports[id]; known {
		return yes
	}
	yes, certain := w.engine.mayPublish(ctx, id)
	if certain {
		if len(w.ports) >= maxInbox {
			clear(w.ports)
		}
		w.ports[id] = yes
	}
	return yes
}

// waiting lists the containers that do not run and are on networks of ours. The
// engine answers from a snapshot, also while it starts containers.
func (w *watcher) waiting(ctx context.Context) ([]network.Waiting, error) {
	all := []network.Waiting{}
	nets, err := w.engine.networks(ctx)
	if err != nil {
		return nil, err
	}
	byName := make(map[string]network.ID, len(nets))
	var ours []string
	for id, n := range nets {
		byName[n.Name] = id
		if w.Ours(id) {
			ours = append(ours, n.Name)
		}
	}
	if len(ours) == 0 {
		return all, nil
	}
	list, err := w.engine.stopped(ctx, ours)
	if err != nil {
		return nil, err
	}
	for _, c := range list {
		entry := network.Waiting{Container: c.ID}
		for name := range c.NetworkSettings.Networks {
			switch id, known := byName[name]; {
			case !known:
				entry.Elsewhere = true // made or removed at this moment: nobody can say
			case w.Ours(id):
				entry.Networks = append(entry.Networks, id)
			default:
				entry.Elsewhere = entry.Elsewhere || nets[id].publishes()
			}
		}
		all = append(all, entry)
	}
	return all, nil
}

// inspectTime bounds the look at a container that was just created. The engine
// answers in a millisecond, unless the container is starting already.
const inspectTime = 200 * time.Millisecond

// mayPublish tells whether a container asks for ports to be published. What the
// engine does not tell in time counts as yes, without being certain.
func (e *engine) mayPublish(ctx context.Context, id string) (yes, certain bool) {
	ctx, cancel := context.WithTimeout(ctx, inspectTime)
	defer cancel()
	var c struct {
		HostConfig struct {
			PortBindings    map[string]json.RawMessage
			PublishAllPorts bool
		}
	}
	err := e.read(ctx, "/containers/"+url.PathEscape(id)+"/json", func(d *json.Decoder) error { return d.Decode(&c) })
	if errors.Is(err, errNotFound) {
		return false, true
	}
	return err != nil || c.HostConfig.PublishAllPorts || len(c.HostConfig.PortBindings) > 0, err == nil
}

// container is what the listing says of one.
type container struct {
	ID              string
	NetworkSettings struct {
		Networks map[string]json.RawMessage // by name, also when it never ran
	}
}

// stopped lists the containers that do not run and are on one of the networks.
func (e *engine) stopped(ctx context.Context, networks []string) (list []container, err error) {
	filter, err := json.Marshal(map[string][]string{
		"network": networks, "status": {"created", "exited", "restarting", "dead"},
	})
	if err != nil {
		return nil, err
	}
	path := "/containers/json?all=1&filters=" + url.QueryEscape(string(filter))
	err = e.read(ctx, path, func(d *json.Decoder) error { return d.Decode(&list) })
	return list, err
}
