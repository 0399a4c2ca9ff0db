package network_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/ovs-container-network/ovs-container-network/internal/network"
)

// An endpoint that nobody uses is removed by itself, but not before any start or
// stop of a container would have come to its end.
func TestSweep(t *testing.T) {
	type times struct{ stays, gone time.Duration } // it is there after stays, and not after gone
	const never = 0
	for name, c := range map[string]struct {
		unjoined bool
		young    bool // joined at this moment
		spoil    func(r *rig)
		times    times
	}{
		"never joined": {unjoined: true, times: times{2*time.Minute - time.Second, 2*time.Minute + 15*time.Second}},
		"left":         {spoil: func(r *rig) { r.leave("n", "a") }, times: times{19 * time.Second, 35 * time.Second}},
		"container and link gone": {spoil: func(r *rig) {
			r.kill(sandbox("a"))
			r.loseLink("a")
		}, times: times{19 * time.Second, 35 * time.Second}},
		"container gone, link there": {spoil: func(r *rig) { r.kill(sandbox("a")) }, times: times{5*time.Minute - time.Second, 5*time.Minute + 15*time.Second}},
		"container gone, its end back": {spoil: func(r *rig) {
			r.kill(sandbox("a"))
			r.fabric.with(func(f *fakeFabric) { f.home[eid("a")] = true })
		}, times: times{19 * time.Second, 35 * time.Second}},
		"no container yet, both ends here": {young: true, spoil: func(r *rig) {
			r.kill(sandbox("a"))
			r.fabric.with(func(f *fakeFabric) { f.home[eid("a")] = true })
		}, times: times{time.Minute - time.Second, time.Minute + 15*time.Second}},
		"container there, its end back": {spoil: func(r *rig) { r.fabric.with(func(f *fakeFabric) { f.home[eid("a")] = true }) }, times: times{time.Hour, never}},
		"link gone, container there":    {spoil: func(r *rig) { r.loseLink("a") }, times: times{time.Hour, never}},
		"not to be seen":                {spoil: func(r *rig) { r.hide(sandbox("a")); r.loseLink("a") }, times: times{time.Hour, never}},
		"all well":                      {spoil: func(*rig) {}, times: times{time.Hour, never}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.create("n", "10.0.0.0/24")
				r.endpoint("n", "a", "10.0.0.2/24")
				if !c.unjoined {
					r.must(nil, r.tryJoin("n", "a"))
					if !c.young {
						time.Sleep(time.Minute)
					}
					c.spoil(r)
				}
				time.Sleep(c.times.stays)
				synctest.Wait()
				if ep, ok := r.findEndpoint("a"); !ok || ep.Phase == PhaseDeleting {
					t.Errorf("gone before %v", c.times.stays)
				}
				if c.times.gone == never {
					return
				}
				time.Sleep(c.times.gone - c.times.stays)
				synctest.Wait()
				if _, ok := r.findEndpoint("a"); ok {
					t.Errorf("still there after %v", c.times.gone)
				}
				r.check()
			})
		})
	}
}

// loseLink takes the host end of an endpoint's link away.
func (r *rig) loseLink(name string) {
	host, _ := eid(name).Links()
	r.fabric.with(func(f *fakeFabric) { delete(f.links, host) })
}

// A container that comes back to life in time keeps its endpoint, and its next
// absence counts from its own beginning.
func TestSweepForgetsRecovery(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24")
		r.join("n", "a", "10.0.0.2/24")
		for range 10 {
			r.kill(sandbox("a"))
			time.Sleep(4 * time.Minute)
			r.revive(sandbox("a"))
			time.Sleep(time.Minute)
		}
		if _, ok := r.findEndpoint("a"); !ok {
			t.Error("the endpoint is gone")
		}
		r.check()
	})
}

// An endpoint that takes its time to join is not swept while it does.
func TestSweepSparesJoining(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24")
		r.endpoint("n", "a", "10.0.0.2/24")
		r.kill(sandbox("a")) // not made yet
		r.downFabric()
		r.fabric.budget = time.Hour
		result := make(chan error, 1)
		go func() { result <- r.tryJoin("n", "a") }()
		time.Sleep(10 * time.Minute)
		r.up()
		time.Sleep(time.Hour)
		r.revive(sandbox("a"))
		if err := <-result; err != nil {
			t.Error(err)
		}
	})
}

// A network that is removed while the sweep looks at it does no harm.
func TestSweepMeetsDelete(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24")
		r.join("n", "a", "10.0.0.2/24")
		r.kill(sandbox("a"))
		r.loseLink("a")
		start := time.Now()
		r.stop()
		r.looked = func() {
			if time.Since(start) > 20*time.Second && r.Has(nid("n")) {
				r.DeleteNetwork(context.Background(), nid("n"))
			}
		}
		r.run()
		time.Sleep(2 * time.Minute)
		r.settle()
		r.empty()
	})
}

// An address that Docker gave to a new endpoint while the sweep looks at its last
// holder is not freed.
func TestSweepMeetsSuccessor(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24")
		r.join("n", "a", "10.0.0.2/24")
		r.kill(sandbox("a"))
		r.loseLink("a")
		start := time.Now()
		r.stop()
		r.looked = func() {
			if _, there := r.findEndpoint("b"); there || time.Since(start) < 25*time.Second {
				return
			}
			r.looked = nil
			r.deleteEndpoint("n", "a")
			r.endpoint("n", "b", "10.0.0.2/24")
		}
		r.run()
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := r.pools.abandoned(); got != "" {
			t.Errorf("freed %q", got)
		}
		if _, there := r.findEndpoint("b"); !there {
			t.Error("the successor is gone")
		}
		r.check()
	})
}

// A repair that fails is tried again, ever more rarely but once a minute at the
// least, and at once when there is news.
func TestBackoff(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24")
		time.Sleep(15 * time.Second) // the look at everything after the start
		r.fabric.with(func(f *fakeFabric) { f.failNet = errors.New("broken") })
		r.Dirty()
		r.settle()
		start := time.Now()
		r.fabric.with(func(f *fakeFabric) { clear(f.applies) })
		time.Sleep(30 * time.Minute)
		tries := r.applies("n")
		if len(tries) < 30 || len(tries) > 50 {
			t.Errorf("%d tries in 30 minutes", len(tries))
		}
		last, gap := start, time.Duration(0)
		for i, at := range tries {
			if at.Sub(last) > time.Minute+time.Second {
				t.Errorf("try %d came after %v", i, at.Sub(last))
			}
			if i > 0 && i < 5 && at.Sub(last) < gap {
				t.Errorf("try %d came after %v, sooner than the one before it (%v)", i, at.Sub(last), gap)
			}
			last, gap = at, at.Sub(last)
		}
		r.fabric.with(func(f *fakeFabric) { f.failNet = nil; clear(f.bridges); clear(f.applies) })
		r.Dirty(nid("n"))
		time.Sleep(time.Second)
		synctest.Wait()
		r.check() // the bridge is there again
		time.Sleep(time.Minute)
		if n := len(r.applies("n")); n < 1 || n > 2 { // the safety net may have come by once
			t.Errorf("%d tries after success, want 1", n)
		}
		// The next trouble begins with short pauses again.
		r.fabric.with(func(f *fakeFabric) { f.failNet = errors.New("broken"); clear(f.applies) })
		r.Dirty()
		time.Sleep(10 * time.Second)
		if n := len(r.applies("n")); n < 3 {
			t.Errorf("%d tries in the first 10 seconds", n)
		}
	})
}

// Events of one change come together in one repair, and no ids means all.
func TestDirty(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24")
		r.create("m", "10.0.0.0/24")
		r.settle()
		r.fabric.with(func(f *fakeFabric) { clear(f.applies) })
		for range 100 {
			r.Dirty(nid("n"))
			time.Sleep(time.Millisecond)
		}
		r.Dirty(nid("unknown"))
		r.settle()
		if n, m := len(r.applies("n")), len(r.applies("m")); n != 1 || m != 0 {
			t.Errorf("%d and %d repairs, want 1 and 0", n, m)
		}
		r.fabric.with(func(f *fakeFabric) { clear(f.bridges) })
		r.Dirty()
		r.settle()
		r.check()
	})
}

// Events that never end do not put a repair off, nor does one that is planned for
// later.
func TestDirtyWithoutEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24")
		time.Sleep(15 * time.Second) // the look at everything after the start
		synctest.Wait()
		before := len(r.applies("n"))
		for range 100 {
			r.Dirty(nid("n"))
			time.Sleep(100 * time.Millisecond)
		}
		synctest.Wait()
		if n := len(r.applies("n")) - before; n < 20 || n > 60 {
			t.Errorf("%d repairs in 10 seconds of events", n)
		}
	})
}

// One network that cannot be repaired keeps no other from it, nor do many.
func TestRepairsDoNotWaitForEachOther(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("a", "10.0.0.0/24", "bridge=br0")
		r.create("b", "10.0.0.0/24", "bridge=br1")
		r.settle()
		release := r.fabric.hold()
		r.Dirty(nid("a"))
		time.Sleep(time.Second)
		synctest.Wait()
		r.fabric.with(func(f *fakeFabric) { f.gate = nil; delete(f.bridges, "br1") })
		r.Dirty(nid("b"))
		r.settle()
		r.check()
		release()
	})
}

// An event that was lost is made up for: everything is looked at soon after the
// start and every few minutes.
func TestSafetyNet(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24")
		time.Sleep(12500 * time.Millisecond)
		synctest.Wait()
		if r.prunes() != 1 {
			t.Errorf("%d looks for leftovers after the start, want 1", r.prunes())
		}
		r.fabric.with(func(f *fakeFabric) { clear(f.bridges); f.bridges["left-over"] = true })
		time.Sleep(6*time.Minute + 10*time.Second)
		synctest.Wait()
		r.check()
		r.fabric.with(func(f *fakeFabric) { clear(f.applies); f.prunes = nil })
		time.Sleep(time.Hour)
		if n, p := len(r.applies("n")), r.prunes(); n < 9 || n > 13 || p != n {
			t.Errorf("%d repairs and %d looks for leftovers in an idle hour", n, p)
		}
	})
}

// An event of something that nobody knows has leftovers looked for soon, and a
// flood of them now and then.
func TestUnknownIsLookedAt(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		time.Sleep(time.Minute)
		before := r.prunes()
		r.Dirty(nid("unknown"))
		time.Sleep(10 * time.Second)
		if n := r.prunes() - before; n != 1 {
			t.Errorf("%d looks after an event, want 1", n)
		}
		before = r.prunes()
		for range 100 {
			r.Dirty(nid("unknown"))
			time.Sleep(time.Second)
		}
		if n := r.prunes() - before; n < 10 || n > 20 {
			t.Errorf("%d looks in 100 seconds of events", n)
		}
	})
}
