package dockerapi

import (
	"context"
	"maps"
	"sync"
	"time"
)

// endGap lies between the answers to two DeleteEndpoint calls of a network. Docker (seen
// with 20.10) counts the endpoints of a network in a record that can lose a decrement
// when two of them end within the time of a write to dockerd's disk; the network is in
// use for ever then, until dockerd starts again (moby#42119: "has active endpoints").
// Endpoints whose ports go in one transaction would be answered within microseconds:
// of 12 that ended at once, that was the end of every third to twentieth network.
const endGap = 50 * time.Millisecond

// longestGap is how long an answer waits at most: of hundreds that end at once, the
// last ones go together.
const longestGap = 5 * time.Second

// spacing has answers go out one after the other.
type spacing[K comparable] struct {
	gap time.Duration

	mu   sync.Mutex
	next map[K]time.Time // when the next answer may go
}

// wait returns when it is an answer's turn, at once if there was none for a while or
// too many wait, and when ctx is done.
func (s *spacing[K]) wait(ctx context.Context, key K) {
	rest := time.Until(s.turn(key))
	if rest <= 0 {
		return
	}
	timer := time.NewTimer(rest)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (s *spacing[K]) turn(key K) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	turn := time.Now()
	maps.DeleteFunc(s.next, func(_ K, at time.Time) bool { return !at.After(turn) })
	if at, busy := s.next[key]; busy {
		if at.Sub(turn) > longestGap {
			return turn
		}
		turn = at
	}
	if s.next == nil {
		s.next = make(map[K]time.Time)
	}
	s.next[key] = turn.Add(s.gap)
	return turn
}
