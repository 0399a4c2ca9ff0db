package network

import (
	"context"
	"sync"
	"time"
)

// LeftoverGrace is how long something must look like a leftover before it is
// removed: never on the strength of one look.
const LeftoverGrace = 30 * time.Second

// Leftover is something with this driver's mark that belongs to nothing.
type Leftover struct {
	Kind   string // port, mirror, link, bridge, chain, logical port, logical switch …
	Name   string
	Why    string
	Remove func(context.Context) error // what is gone already is a success
	Sure   bool                        // one look tells enough
}

func (l Leftover) String() string { return l.Kind + " " + l.Name }

// Suspects remembers since when things have looked like leftovers. The zero value
// is ready; its methods may be called concurrently.
type Suspects struct {
	mu    sync.Mutex // guards since
	since map[string]time.Time
}

// Ripe notes what looks like a leftover now, and returns what did at every look
// for long enough.
func (s *Suspects) Ripe(found []Leftover, now time.Time) (ripe []Leftover) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := make(map[string]time.Time, len(found))
	for _, l := range found {
		since, known := s.since[l.String()]
		if !known {
			since = now
		}
		next[l.String()] = since
		if known && now.Sub(since) >= LeftoverGrace || l.Sure {
			ripe = append(ripe, l)
		}
	}
	s.since = next
	return ripe
}

// Since tells since when a leftover has looked like one at every look; false when
// the last one did not see it.
func (s *Suspects) Since(l Leftover) (since time.Time, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	since, ok = s.since[l.String()]
	return since, ok
}
