package network

import "sync"

// Settled remembers which endpoints a fabric found in order, and in which
// revision, so that an Apply looks only at the others. Every event that concerns
// an endpoint forgets it. Its methods may be called concurrently.
type Settled struct {
	mu      sync.Mutex // guards the following
	settled map[EndpointID]revisions
	events  uint64                // number of events so far
	touched map[EndpointID]uint64 // the last event of an endpoint since it was settled
}

// revisions are those of a network and one of its endpoints.
type revisions struct{ network, endpoint uint64 }

// NewSettled makes a Settled that has found nothing yet.
func NewSettled() *Settled {
	return &Settled{settled: make(map[EndpointID]revisions), touched: make(map[EndpointID]uint64)}
}

// Mark is the present moment, for Settle.
func (s *Settled) Mark() (mark uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.events
}

// Touch has an endpoint looked at again.
func (s *Settled) Touch(id EndpointID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events++
	s.touched[id] = s.events
	delete(s.settled, id)
}

// Clear has every endpoint looked at again.
func (s *Settled) Clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events++
	for id := range s.settled {
		s.touched[id] = s.events
	}
	clear(s.settled)
}

// Unsettled returns the endpoints of n that have to be looked at. All that an Apply
// costs for the others is this loop.
func (s *Settled) Unsettled(n Network) (list []Endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, ep := range n.Endpoints {
		if ep.Rev == 0 || s.settled[id] != (revisions{n.Rev, ep.Rev}) {
			list = append(list, *ep)
		}
	}
	return list
}

// Settle remembers the endpoints that are in order, as ok tells, unless something
// happened to them since mark.
func (s *Settled) Settle(n Network, tended []Endpoint, ok func(EndpointID) bool, mark uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ep := range tended {
		if ep.Phase == PhaseDeleting || !ok(ep.ID) {
			delete(s.settled, ep.ID)
			if ep.Phase == PhaseDeleting {
				delete(s.touched, ep.ID)
			}
			continue
		}
		if s.touched[ep.ID] > mark {
			continue
		}
		delete(s.touched, ep.ID)
		s.settled[ep.ID] = revisions{n.Rev, ep.Rev}
	}
}
