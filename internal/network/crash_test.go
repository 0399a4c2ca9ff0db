package network_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	. "github.com/ovs-container-network/ovs-container-network/internal/network"
)

var errDead = errors.New("the process is dead")

// dying lets so many steps pass that leave the process - writes of records,
// changes of the switch - and stops all that come after.
type dying struct {
	mu   sync.Mutex
	left int
	died bool
}

func (d *dying) step() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.left == 0 {
		d.died = true
		return errDead
	}
	d.left--
	return nil
}

// Killed at any step of any call, the next process finds the state before the
// call or the one after it, and nothing in between.
func TestCrash(t *testing.T) {
	for name, c := range map[string]struct {
		before func(r *rig)
		call   func(r *rig) error
		is     func(r *rig) bool // the call has had its effect
		effect bool              // what is returns when the call was answered
	}{
		"create network": {
			before: func(*rig) {},
			call:   func(r *rig) error { return r.tryCreate("n", "10.0.0.0/24") },
			is:     func(r *rig) bool { return r.Has(nid("n")) }, effect: true,
		},
		"create endpoint": {
			before: func(r *rig) { r.create("n", "10.0.0.0/24") },
			call:   func(r *rig) error { return r.tryEndpoint("n", "a", "10.0.0.2/24") },
			is:     func(r *rig) bool { _, ok := r.findEndpoint("a"); return ok }, effect: true,
		},
		"join": {
			before: func(r *rig) { r.create("n", "10.0.0.0/24"); r.endpoint("n", "a", "10.0.0.2/24") },
			call:   func(r *rig) error { return r.tryJoin("n", "a") },
			is:     func(r *rig) bool { ep, _ := r.findEndpoint("a"); return ep.Phase == PhaseJoined }, effect: true,
		},
		"leave": {
			before: func(r *rig) { r.create("n", "10.0.0.0/24"); r.join("n", "a", "10.0.0.2/24") },
			call:   func(r *rig) error { return r.Leave(r.t.Context(), nid("n"), eid("a")) },
			// The next process deletes it: Docker does so next.
			is: func(r *rig) bool { _, ok := r.findEndpoint("a"); return ok }, effect: false,
		},
		"delete endpoint": {
			before: func(r *rig) { r.create("n", "10.0.0.0/24"); r.join("n", "a", "10.0.0.2/24") },
			call:   func(r *rig) error { return r.DeleteEndpoint(r.t.Context(), nid("n"), eid("a")) },
			is:     func(r *rig) bool { _, ok := r.findEndpoint("a"); return ok }, effect: false,
		},
		"delete network": {
			before: func(r *rig) {
				r.create("n", "10.0.0.0/24")
				r.join("n", "a", "10.0.0.2/24")
				r.endpoint("n", "b", "10.0.0.3/24")
			},
			call: func(r *rig) error { return r.DeleteNetwork(r.t.Context(), nid("n")) },
			is:   func(r *rig) bool { return r.Has(nid("n")) }, effect: false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			for steps, died := 0, true; died; steps++ {
				t.Run(fmt.Sprint(steps), func(t *testing.T) {
					inBubble(t, func(t *testing.T, r *rig) {
						r.create("other", "10.9.0.0/24")
						r.join("other", "o", "10.9.0.2/24")
						c.before(r)
						r.settle()
						d := &dying{left: steps}
						r.mortal(d)
						err := c.call(r)
						r.settle()
						d.mu.Lock()
						died = d.died
						d.mu.Unlock()
						r.stop()
						r.mortal(nil)
						r.load()
						r.run()
						r.settle()
						r.check()
						if !died && (err != nil || c.is(r) != c.effect) {
							t.Errorf("answered %v, has its effect: %v", err, c.is(r) == c.effect)
						}
						if ep, ok := r.findEndpoint("o"); !ok || ep.Phase != PhaseJoined {
							t.Errorf("the other endpoint is %s", ep.Phase)
						}
						// Docker was told of a failure: it forgets the endpoint and its container.
						if died && r.Has(nid("n")) {
							r.kill(sandbox("a"))
							r.loseLink("a")
							time.Sleep(5 * time.Minute)
							r.settle()
							if n, _ := r.find("n"); len(n.Endpoints) > 0 {
								t.Errorf("%d endpoints are left", len(n.Endpoints))
							}
							r.check()
							r.delete("n")
							r.settle()
						}
						r.delete("other")
						if !died {
							r.delete("n")
						}
						r.settle()
						r.empty()
					})
				})
				if steps > 30 {
					t.Fatal("the call never ends")
				}
			}
		})
	}
}

// mortal lets the process die; nil makes the next one immortal.
func (r *rig) mortal(d *dying) {
	step := func() error { return nil }
	if d != nil {
		step = d.step
	}
	r.fabric.with(func(f *fakeFabric) { f.step = step })
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	r.store.fail = func(_, _ string) error { return step() }
}
