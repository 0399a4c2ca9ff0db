package network

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Times of the repair loop. Repair is driven by events; the safety net only
// catches an event that was lost.
const (
	repairWorkers  = 4
	repairDelay    = 200 * time.Millisecond // lets the events of one change come together
	repairMaxDelay = time.Minute
	safetyNet      = 5 * time.Minute
	firstNet       = 10 * time.Second
	lookAgain      = 35 * time.Second // at what may be a leftover
	lookSoon       = 5 * time.Second  // after an event that may have made one
	sweepEvery     = 10 * time.Second

	unjoinedGrace = 2 * time.Minute  // CreateEndpoint without Join: dockerd died between them
	retryGrace    = 35 * time.Second // the same of an endpoint that an earlier process made: dockerd tries to reach us for 30 s
	goneGrace     = 20 * time.Second // sandbox and link gone: nobody will tell us any more
	homeGrace     = time.Minute      // the same of a young one with both ends here: perhaps not moved yet, on engines up to 27
	lostGrace     = 5 * time.Minute  // sandbox gone, but its end of the link is somewhere
)

// repairQueue holds the networks to look at, each with the earliest time.
type repairQueue struct {
	mu   sync.Mutex
	due  map[ID]time.Time
	wake chan struct{} // capacity 1
}

func (q *repairQueue) init() {
	q.due = make(map[ID]time.Time)
	q.wake = make(chan struct{}, 1)
}

// add asks for a repair of id after delay, or sooner if it is asked for already.
func (q *repairQueue) add(id ID, delay time.Duration) {
	at := time.Now().Add(max(delay, repairDelay))
	q.mu.Lock()
	defer q.mu.Unlock()
	if old, ok := q.due[id]; ok && old.Before(at) {
		return
	}
	q.due[id] = at
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take returns the networks that are due, and how long until the next is.
func (q *repairQueue) take() (ids []ID, wait time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	wait = time.Hour
	now := time.Now()
	for id, at := range q.due {
		if left := at.Sub(now); left > 0 {
			wait = min(wait, left)
			continue
		}
		ids = append(ids, id)
		delete(q.due, id)
	}
	return ids, wait
}

// Dirty asks for a repair of networks whose reality may have changed. No ids
// means all of them. An id that is not known asks for a look for leftovers.
func (m *Manager) Dirty(ids ...ID) {
	if len(ids) == 0 {
		for _, n := range m.Networks() {
			m.repair.add(n.ID, 0)
		}
		return
	}
	for _, id := range ids {
		m.repair.add(id, 0)
	}
}

// Run repairs until ctx ends, and returns when every Apply has ended.
func (m *Manager) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.runRepairs(ctx) })
	g.Go(func() error { return m.runSweeps(ctx) })
	g.Go(func() error { return m.runWiring(ctx) })
	g.Go(func() error { return m.runLeases(ctx, &m.keeper) })
	g.Go(func() error { return m.runLeases(ctx, &m.keeper6) })
	err := g.Wait()
	m.rounds.Wait()
	return err
}

func (m *Manager) runRepairs(ctx context.Context) error {
	var workers errgroup.Group
	workers.SetLimit(repairWorkers)
	defer workers.Wait() //nolint:errcheck // the workers return no error
	next := newAlarm(0)
	defer next.stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.repair.wake:
		case <-next.rung:
		}
		ids, wait := m.repair.take()
		for _, id := range ids {
			workers.Go(func() error {
				m.repairOne(ctx, id)
				return nil
			})
		}
		next.set(wait)
	}
}

// failureLog remembers what went wrong last, so that a fault that stays is
// logged once and tried ever more rarely.
type failureLog struct {
	mu    sync.Mutex // guards the following
	last  map[ID]error
	count map[ID]int
}

// of returns what went wrong at the last repair of a network.
func (f *failureLog) of(id ID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last[id]
}

// note returns whether err is news, and the time to wait before the next try.
func (f *failureLog) note(id ID, err error) (news bool, wait time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		news = f.last[id] != nil
		delete(f.last, id)
		delete(f.count, id)
		return news, 0
	}
	news = f.last[id] == nil || f.last[id].Error() != err.Error()
	f.last[id] = err
	f.count[id]++
	wait = min(repairMaxDelay, time.Second<<min(f.count[id]-1, 6))
	return news, wait
}

func (m *Manager) repairOne(ctx context.Context, id ID) {
	e := m.entry(id)
	if e == nil {
		m.failures.note(id, nil)
		select {
		case m.look <- struct{}{}: // something of it may be left
		default:
		}
		return
	}
	start := time.Now()
	defer func() { m.metrics.Repair.Observe(time.Since(start).Seconds()) }()
	var err error
	if e.value().Phase == PhaseDeleting {
		err = m.finishNetwork(ctx, e)
	} else {
		err = m.apply(ctx, e)
	}
	if ctx.Err() != nil || errors.Is(err, ErrLingering) {
		return // of the second, the fabric will tell
	}
	news, wait := m.failures.note(id, err)
	switch {
	case err != nil:
		m.repair.add(id, wait)
		if news {
			m.log.Warn("network is not as it should be", "nid", id, "err", err)
		}
	case news:
		m.log.Info("network is in order again", "nid", id)
	}
}

// runSweeps looks for endpoints that died without Docker telling us, and now
// and then has everything looked at.
func (m *Manager) runSweeps(ctx context.Context) error {
	gone := make(map[EndpointID]time.Time)
	sweep := newAlarm(sweepEvery)
	defer sweep.stop()
	var everything time.Time // when all networks are to be looked at, too
	first := jitter(firstNet)
	net, due := newAlarm(first), time.Now().Add(first)
	defer net.stop()
	cast := func(d time.Duration) {
		d = jitter(d)
		due = time.Now().Add(d)
		net.set(d)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-sweep.rung:
			sweep.set(sweepEvery)
			m.sweep(gone)
			if err := m.pools.Audit(m.UsedAddrs); err != nil {
				m.log.Warn("cannot free addresses that nobody uses", "err", err)
			}
		case <-net.rung:
			if !time.Now().Before(everything) {
				everything = time.Now().Add(safetyNet)
				m.Dirty()
			}
			again, err := m.fabric.Prune(ctx, m.Networks(), m.Spares)
			if err != nil {
				m.log.Debug("cannot look for leftovers", "err", err)
			}
			if again {
				cast(lookAgain)
			} else {
				cast(max(lookSoon, time.Until(everything)))
			}
		case <-m.look:
			if time.Until(due) > lookSoon {
				cast(lookSoon)
			}
		}
	}
}

func jitter(d time.Duration) time.Duration {
	return d + rand.N(d/5)
}

// sweep removes endpoints whose container is gone for longer than any start or
// stop takes. gone remembers since when.
func (m *Manager) sweep(gone map[EndpointID]time.Time) {
	now := m.now()
	seen := make(map[EndpointID]bool)
	for _, n := range m.Networks() {
		if n.Phase != PhaseActive {
			continue
		}
		for _, p := range n.Endpoints {
			ep := *p
			reason := m.deadReason(n, ep)
			if reason == "" {
				continue
			}
			seen[ep.ID] = true
			if _, known := gone[ep.ID]; !known {
				gone[ep.ID] = now
			}
			if now.Sub(gone[ep.ID]) < m.grace(n, ep) {
				continue
			}
			m.log.Info("removing an endpoint that nobody uses any more", "nid", n.ID, "eid", ep.ID, "reason", reason)
			if e := m.entry(n.ID); e != nil {
				m.kill(e, ep.ID)
				m.abandonAddrs(n, ep, nil)
			}
		}
	}
	for id := range gone {
		if !seen[id] {
			delete(gone, id)
		}
	}
}

// deadReason says why ep looks dead, empty if it does not.
func (m *Manager) deadReason(_ Network, ep Endpoint) string {
	switch ep.Phase {
	case PhaseCreated:
		return "never joined"
	case PhaseJoining:
		if ep.Sandbox == "" {
			return "never joined" // it was given its lease
		}
	case PhaseLeft:
		return "left and was not deleted"
	case PhaseJoined:
		if alive, known := m.alive(ep.Sandbox); known && !alive {
			return "its sandbox is gone"
		}
	}
	return ""
}

// grace is how long an endpoint must look dead before it is taken for dead.
func (m *Manager) grace(n Network, ep Endpoint) time.Duration {
	switch ep.Phase {
	case PhaseCreated, PhaseJoining:
		if ep.Unsure {
			return retryGrace
		}
		return unjoinedGrace
	case PhaseLeft:
		return goneGrace // Docker deletes what has left at once
	}
	switch seen := m.fabric.Observe(n).Endpoints[ep.ID]; {
	case !seen.Linked:
		return goneGrace
	case seen.Home && m.now().Sub(ep.Changed) < homeGrace:
		return homeGrace
	case seen.Home:
		return goneGrace
	}
	return lostGrace
}
