package network

import (
	"context"
	"errors"
	"maps"
	"time"
)

// applyTimeout bounds one Apply. It is above every wait the fabric does itself.
const applyTimeout = 40 * time.Second

// round is one run of Apply that several callers share.
type round struct {
	done chan struct{}
	err  error
}

// apply has reality made equal the value of e by an Apply that starts after
// this call, and returns its result. Calls that arrive while one is under way
// share the next, so that a crowd of containers costs a few transactions.
//
// An Apply that was started is finished even if every caller gives up.
func (m *Manager) apply(ctx context.Context, e *entry) error {
	e.roundMu.Lock()
	if e.next == nil {
		e.next = &round{done: make(chan struct{})}
	}
	r := e.next
	if !e.running {
		e.running = true
		m.rounds.Go(func() { m.runRounds(context.WithoutCancel(ctx), e) })
	}
	e.roundMu.Unlock()

	if s, ok := ctx.Value(stopwatchKey{}).(*Stopwatch); ok {
		before := e.outside.Total()
		defer func() { s.add(e.outside.Total() - before) }()
	}
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// applyFor is apply, for a caller that cares for one endpoint only.
func (m *Manager) applyFor(ctx context.Context, e *entry, id EndpointID) error {
	err := m.apply(ctx, e)
	var partial *ApplyError
	if errors.As(err, &partial) {
		return partial.Endpoints[id]
	}
	return err
}

func (m *Manager) runRounds(ctx context.Context, e *entry) {
	for {
		e.roundMu.Lock()
		r := e.next
		e.next = nil
		if r == nil {
			e.running = false
			e.roundMu.Unlock()
			return
		}
		e.roundMu.Unlock()
		r.err = m.applyOnce(ctx, e)
		close(r.done)
	}
}

// applyOnce runs Apply and forgets the endpoints whose removal it finished.
func (m *Manager) applyOnce(ctx context.Context, e *entry) error {
	ctx, cancel := context.WithTimeout(WithStopwatch(ctx, &e.outside), applyTimeout)
	defer cancel()
	n := e.value()
	err := m.fabric.Apply(ctx, n)
	var partial *ApplyError
	if err != nil && !errors.As(err, &partial) {
		return err
	}
	failed := make(map[EndpointID]error)
	if partial != nil {
		maps.Copy(failed, partial.Endpoints)
	}
	for _, ep := range n.Endpoints {
		if ep.Phase != PhaseDeleting || failed[ep.ID] != nil {
			continue
		}
		if err := m.dropEndpoint(e, *ep); err != nil {
			failed[ep.ID] = err
		}
	}
	if len(failed) > 0 {
		return &ApplyError{Endpoints: failed}
	}
	return nil
}
