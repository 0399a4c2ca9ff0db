package network

import "time"

// alarm wakes a loop at a time. It is a function that fills a channel, and no channel
// of a timer's, and what is due at once rings without a timer: a timer that is due
// when it is set or looked at runs right there, and of two that do so at once in a
// bubble of testing/synctest the race detector of Go 1.26 loses its memory, since all
// timers of a bubble share one context.
type alarm struct {
	rung  chan struct{} // capacity 1
	timer *time.Timer
}

func newAlarm(d time.Duration) *alarm {
	a := &alarm{rung: make(chan struct{}, 1)}
	a.timer = time.AfterFunc(time.Hour, a.ring)
	a.set(d)
	return a
}

// set has it ring after d, instead of when it was to before.
func (a *alarm) set(d time.Duration) {
	if d > 0 {
		a.timer.Reset(d)
		return
	}
	a.timer.Stop()
	a.ring()
}

func (a *alarm) stop() { a.timer.Stop() }

// ring may be called by anybody. Two times before the loop looks are one.
func (a *alarm) ring() {
	select {
	case a.rung <- struct{}{}:
	default:
	}
}
