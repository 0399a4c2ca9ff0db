package dockerwatch

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

const (
	// debounce collects the events of containers that start together. One look
	// at a network tells of all of them.
	debounce = 150 * time.Millisecond
	// maxPace bounds how far debounce grows when looking is slow.
	maxPace = 5 * time.Second
	// unfinished is the pause before the one extra look at a network that has
	// an endpoint in the middle of its join.
	unfinished = 500 * time.Millisecond
	// failed is the pause before the next look at a network that could not be
	// inspected while the stream lives on.
	failed = 10 * time.Second
)

// visit is a look at a network that is to come.
type visit struct {
	at   time.Time
	last bool // do not come again for an unfinished join
}

// follow lists everything, calls ready, and then does what the inbox asks for
// until ctx ends or a listing fails. It never returns nil.
func (w *watcher) follow(ctx context.Context, in *inbox, ready func()) error {
	w.due, w.pace = map[network.ID]visit{}, debounce
	w.relist = time.NewTimer(ListEvery)
	defer w.relist.Stop()
	if err := w.list(ctx); err != nil {
		return err
	}
	ready()
	w.census.once()

	next := time.NewTimer(0)
	defer next.Stop()
	for {
		if at, ok := w.next(); ok {
			next.Reset(time.Until(at))
		} else {
			next.Stop()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-in.wake:
			w.take(ctx, in)
		case <-next.C:
			w.count(ctx)
			w.visit(ctx)
		case <-w.relist.C:
			if err := w.list(ctx); err != nil {
				return err
			}
		}
	}
}

// list asks for all networks, tells the sink, and plans a look at each of ours.
func (w *watcher) list(ctx context.Context) error {
	all, err := w.engine.networks(ctx)
	if err != nil {
		return err
	}
	known := make(map[network.ID]bool, len(all))
	w.nets = map[network.ID]bool{}
	for id, n := range all {
		known[id] = true
		if w.Ours(id) {
			w.nets[id] = true
			// A swarm network can be listed here and be inspected elsewhere only:
			// then this is all there is to learn.
			w.annotate(id, n.Name, nil)
			w.due[id] = visit{at: time.Now()}
		}
	}
	next := ListEvery
	if w.Sink.Known(ctx, w.name, known) {
		next = listSoon
	}
	w.relist.Reset(next)
	return nil
}

// take plans what events asked for.
func (w *watcher) take(ctx context.Context, in *inbox) {
	ids, all, created := in.take()
	if w.Quiet != nil && w.Quiet() && slices.ContainsFunc(created, func(id string) bool { return w.publishes(ctx, id) }) {
		w.census.soon()
	}
	if all {
		for id := range w.nets {
			w.plan(id)
		}
	}
	for id := range ids {
		if w.Ours(id) {
			w.nets[id] = true
			w.plan(id)
		}
	}
}

// plan makes sure that id is looked at soon. A look that is planned already is
// not put off, or containers that never stop starting would be never named.
func (w *watcher) plan(id network.ID) {
	at := time.Now().Add(w.pace)
	if v, ok := w.due[id]; ok && v.at.Before(at) {
		at = v.at
	}
	w.due[id] = visit{at: at}
}

// next says when the earliest visit is due.
func (w *watcher) next() (at time.Time, ok bool) {
	at, ok = w.census.next()
	for _, v := range w.due {
		if !ok || v.at.Before(at) {
			at, ok = v.at, true
		}
	}
	return at, ok
}

// visit inspects the networks that are due, one after the other.
//
// Inspecting costs the engine a walk over all endpoints of the network. When
// five hundred containers start, that must not become the load they wait for:
// looking takes a tenth of the time at most.
func (w *watcher) visit(ctx context.Context) {
	start := time.Now()
	hangs := false // the engine let a request time out: no use in trying the others now
	for id, v := range w.due {
		if v.at.After(start) {
			continue
		}
		if hangs {
			w.due[id] = visit{at: time.Now().Add(failed)}
			continue
		}
		delete(w.due, id)
		if err := w.inspect(ctx, id, v.last); err != nil {
			if ctx.Err() != nil {
				return
			}
			w.Log.Debug("cannot inspect network", "nid", id.Short(), "err", err)
			w.due[id] = visit{at: time.Now().Add(failed)}
			hangs = timedOut(err)
		}
	}
	w.pace = min(max(debounce, 10*time.Since(start)), maxPace)
}

// inspect looks at one network and tells the sink. A network that Docker does
// not have is no error.
func (w *watcher) inspect(ctx context.Context, id network.ID, last bool) error {
	n, err := w.engine.inspect(ctx, id)
	if errors.Is(err, errNotFound) {
		delete(w.nets, id)
		return nil
	}
	if err != nil {
		return err
	}
	eps, joining := n.endpoints()
	if joining && !last {
		w.due[id] = visit{at: time.Now().Add(unfinished), last: true}
	}
	w.annotate(id, n.Name, eps)
	return nil
}

// annotate passes on what was learned. A sink that fails is told again at the
// next listing.
func (w *watcher) annotate(id network.ID, name string, eps map[network.EndpointID]network.Container) {
	if err := w.Sink.Annotate(id, name, eps); err != nil {
		w.Log.Warn("cannot record names learned from Docker", "nid", id.Short(), "err", err)
	}
}
