package network

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Inside does what is left to the driver at the container's end of a link. Its
// methods may be called concurrently, and again with the same arguments.
type Inside interface {
	// Wire brings the container's end of ep's link into ep.Sandbox, names it ethN
	// there and sets it up; at once if it is in there already.
	Wire(ctx context.Context, ep Endpoint) error

	// Acquire gets a lease for ep over its own port, if possible of the address want.
	// It asks until ctx ends.
	Acquire(ctx context.Context, n Network, ep Endpoint, want netip.Addr) (Lease, error)
	// Renew has ep's lease prolonged by its server, or by any if all is set. The error
	// is an ErrLeaseRefused if its address must not be used any more.
	Renew(ctx context.Context, n Network, ep Endpoint, all bool) (Lease, error)
	// Release gives ep's lease back.
	Release(n Network, ep Endpoint) error
	// Configure makes the container have the address and routes of ep's lease, and
	// not those of old any more if it has no part in them. Without addresses of ep it
	// has none.
	Configure(ctx context.Context, n Network, ep Endpoint, old *Lease) error

	// Acquire6 gets what IPv6 there is for ep; it may run beside Acquire. The error is
	// an ErrNoIPv6 if none was heard of for the time listen.
	Acquire6(ctx context.Context, n Network, ep Endpoint, listen time.Duration) (Lease6, error)
	// Renew6, Release6 and Configure6 are for IPv6 what their namesakes are for a lease.
	// Release6 is called for what a server has granted. Routes are none of Configure6's
	// business: the container's kernel hears of routers.
	Renew6(ctx context.Context, n Network, ep Endpoint, all bool) (Lease6, error)
	Release6(n Network, ep Endpoint) error
	Configure6(ctx context.Context, n Network, ep Endpoint, old *Lease6) error
}

// Engines up to 27 make the sandbox of a starting container after its Join, a
// moment before its first process runs, and do not tell. It is looked for at short
// intervals while such a container starts, and not at all otherwise.
const (
	wireLook = 2 * time.Millisecond
	wireWait = startGrace
)

// wiring are the endpoints whose sandbox is waited for.
type wiring struct {
	mu   sync.Mutex // guards the following
	todo map[EndpointID]wire
	wake chan struct{} // capacity 1
}

type wire struct {
	network ID
	since   time.Time
	err     error // of the last try
}

func (w *wiring) init() {
	w.todo = make(map[EndpointID]wire)
	w.wake = make(chan struct{}, 1)
}

func (w *wiring) add(id ID, eid EndpointID, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.todo[eid] = wire{network: id, since: now}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// list is what is to be tried. It stays until it is done.
func (w *wiring) list() map[EndpointID]wire {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.todo)
}

func (w *wiring) set(eid EndpointID, to wire) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, there := w.todo[eid]; there {
		w.todo[eid] = to
	}
}

func (w *wiring) done(eid EndpointID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.todo, eid)
}

// wire brings the link of an endpoint into its sandbox, now or as soon as there is
// one.
func (m *Manager) wire(ctx context.Context, e *entry, eid EndpointID) error {
	ep, ok := e.value().Endpoint(eid)
	if !ok {
		return errGone
	}
	if alive, known := m.alive(ep.Sandbox); !known {
		return fmt.Errorf("the sandbox %s cannot be seen from here: give the network --ipam-driver null", ep.Sandbox)
	} else if !alive {
		m.wiring.add(ep.Network, eid, m.now())
		return nil
	}
	return m.bringIn(ctx, e.value(), ep)
}

// bringIn brings a link into its sandbox, with its lease.
func (m *Manager) bringIn(ctx context.Context, n Network, ep Endpoint) error {
	if err := m.inside.Wire(ctx, ep); err != nil || ep.Lease == nil {
		return err
	}
	return m.inside.Configure(ctx, n, ep, nil)
}

// runWiring brings links into sandboxes that were not there at the Join.
func (m *Manager) runWiring(ctx context.Context) error {
	look := newAlarm(0)
	defer look.stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.wiring.wake:
		case <-look.rung:
		}
		todo := m.wiring.list()
		for _, eid := range slices.Sorted(maps.Keys(todo)) {
			m.tryWire(ctx, eid, todo[eid])
		}
		if len(todo) > 0 {
			look.set(wireLook)
		}
	}
}

// tryWire does one of them, if its sandbox is there by now.
func (m *Manager) tryWire(ctx context.Context, eid EndpointID, w wire) {
	e := m.entry(w.network)
	if e == nil {
		m.wiring.done(eid)
		return
	}
	ep, ok := e.value().Endpoint(eid)
	if !ok || ep.Phase != PhaseJoined && ep.Phase != PhaseJoining {
		m.wiring.done(eid)
		return
	}
	err := errors.New("it did not appear")
	if alive, _ := m.alive(ep.Sandbox); alive {
		if err = m.bringIn(ctx, e.value(), ep); err == nil {
			m.log.Debug("a link was brought into its sandbox", "nid", w.network, "eid", eid, "after", m.now().Sub(w.since))
			m.wiring.done(eid)
			return
		}
	}
	w.err = err
	if m.now().Sub(w.since) > wireWait {
		m.log.Warn("a container is without its link", "nid", w.network, "eid", eid, "sandbox", ep.Sandbox, "err", w.err)
		m.wiring.done(eid)
		return
	}
	m.wiring.set(eid, w)
}
