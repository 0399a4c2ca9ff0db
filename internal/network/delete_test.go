package network_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/ovs-container-network/ovs-container-network/internal/network"
)

func (r *rig) deleteEndpoint(network, name string) {
	r.t.Helper()
	if err := r.DeleteEndpoint(context.Background(), nid(network), eid(name)); err != nil {
		r.t.Error(err)
	}
}

func (r *rig) delete(network string) {
	r.t.Helper()
	if err := r.DeleteNetwork(context.Background(), nid(network)); err != nil {
		r.t.Error(err)
	}
}

// Taking away is success for what is unknown, a second time, and in any order;
// in the end nothing is left.
func TestDeleteAnyOrder(t *testing.T) {
	steps := map[rune]func(r *rig){
		'L': func(r *rig) { r.leave("n", "a") },
		'E': func(r *rig) { r.deleteEndpoint("n", "a") },
		'N': func(r *rig) { r.delete("n") },
	}
	for _, order := range []string{"LEN", "EN", "ELN", "LLEENN", "ENLEN", "N", "LN", "NEL", "NN", "NLEN"} {
		for _, pause := range []bool{false, true} {
			inBubble(t, func(t *testing.T, r *rig) {
				for _, step := range order {
					steps[step](r)
				}
				r.empty()
				r.create("n", "10.0.0.0/24")
				r.join("n", "a", "10.0.0.2/24")
				r.join("n", "b", "10.0.0.3/24")
				r.endpoint("n", "c", "10.0.0.4/24")
				for _, step := range order {
					steps[step](r)
					if pause {
						r.settle()
					}
				}
				r.settle()
				if t.Failed() {
					t.Log("order", order)
				}
				r.empty()
			})
		}
	}
}

// A deleted endpoint has no port when the answer is given.
func TestDeleteEndpoint(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24")
		r.join("n", "a", "10.0.0.2/24")
		r.join("n", "b", "10.0.0.3/24")
		r.leave("n", "a")
		r.deleteEndpoint("n", "a")
		if got := strings.Count(r.fabric.String(), "port "); got != 1 {
			t.Errorf("%d ports, want 1:\n%s", got, r.fabric)
		}
		r.settle()
		if _, there := r.findEndpoint("a"); there {
			t.Error("the endpoint is there")
		}
		r.check()
	})
}

// What cannot be removed now is remembered, also by the next process, and removed
// as soon as the switch is back. Docker, which would ignore an error, gets none.
func TestDeleteWhileUnreachable(t *testing.T) {
	for name, c := range map[string]struct {
		restart, network bool
	}{"endpoint": {}, "endpoint, restart": {restart: true}, "network": {network: true}, "network, restart": {restart: true, network: true}} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.create("n", "10.0.0.0/24")
				r.join("n", "a", "10.0.0.2/24")
				r.downFabric()
				if c.network {
					r.delete("n")
				} else {
					r.deleteEndpoint("n", "a")
				}
				r.settle()
				if ep, ok := r.findEndpoint("a"); !ok || ep.Phase != PhaseDeleting {
					t.Errorf("got %+v, want a tombstone", ep)
				}
				if !strings.Contains(r.store.String(), `"phase":"deleting"`) {
					t.Errorf("nothing is remembered:\n%s", r.store)
				}
				if c.restart {
					r.restart()
				}
				time.Sleep(time.Hour)
				r.up()
				r.settle()
				if c.network {
					r.empty()
				} else if _, ok := r.findEndpoint("a"); ok {
					t.Error("the endpoint is there")
				}
				r.check()
			})
		})
	}
}

// A disk that refuses writes loses no removal.
func TestDeleteWithBadDisk(t *testing.T) {
	for _, ops := range [][]string{{"PutEndpoint"}, {"PutNetwork"}, {"DeleteEndpoint"}, {"DeleteNetwork"}, {"PutEndpoint", "PutNetwork"}, nil} {
		for _, network := range []bool{false, true} {
			inBubble(t, func(t *testing.T, r *rig) {
				r.create("n", "10.0.0.0/24")
				r.join("n", "a", "10.0.0.2/24")
				r.join("n", "b", "10.0.0.3/24")
				r.store.failOn(ops...)
				// Docker ignores an error of these, so there may be one.
				if network {
					r.DeleteNetwork(t.Context(), nid("n"))
				} else {
					r.DeleteEndpoint(t.Context(), nid("n"), eid("a"))
				}
				r.settle()
				r.store.mend()
				time.Sleep(2 * time.Minute)
				r.settle()
				if network {
					r.empty()
				} else if _, ok := r.findEndpoint("a"); ok {
					t.Errorf("%v: the endpoint is there", ops)
				}
				r.check()
			})
		}
	}
}

// The bridge goes with its last network, and only if it is ours.
func TestBridgeGoesWithLastNetwork(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("a", "10.0.0.0/24", "bridge=br0")
		r.create("b", "10.0.0.0/24", "bridge=br0")
		r.create("c", "10.0.0.0/24", "bridge=br1")
		r.delete("a")
		if got := r.fabric.String(); got != "bridge br0 ours=true\nbridge br1 ours=true" {
			t.Errorf("after the first: %s", got)
		}
		r.delete("b")
		if got := r.fabric.String(); got != "bridge br1 ours=true" {
			t.Errorf("after the last: %s", got)
		}
		r.fabric.with(func(f *fakeFabric) { f.bridges["theirs"] = false })
		r.create("d", "10.0.0.0/24", "bridge=theirs")
		if n, _ := r.find("d"); n.OwnsBridge {
			t.Error("a bridge that stood before counts as ours")
		}
		r.delete("d")
		if got := r.fabric.String(); !strings.Contains(got, "bridge theirs ours=false") {
			t.Errorf("the foreign bridge is gone: %s", got)
		}
	})
}

// Two networks of one bridge that go at the same moment leave no bridge, and one
// that comes meanwhile has its own.
func TestDeletesAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		names := []string{"a", "b", "c", "d"}
		for _, name := range names {
			r.create(name, "10.0.0.0/24")
			r.join(name, "ep-"+name, "10.0.0.2/24")
		}
		done := make(chan error, 2*len(names))
		for _, name := range names {
			go func() { done <- r.DeleteNetwork(context.Background(), nid(name)) }()
			go func() { done <- r.DeleteEndpoint(context.Background(), nid(name), eid("ep-"+name)) }()
		}
		for range 2 * len(names) {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		r.settle()
		r.empty()
	})
}

// A network that is deleted while a repair of it is under way leaves nothing,
// whatever the repair does at its end.
func TestDeleteWhileApplying(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24")
		r.fabric.with(func(f *fakeFabric) { delete(f.bridges, "br-int") }) // lost, a repair has to come
		release := r.fabric.hold()
		r.Dirty(nid("n"))
		time.Sleep(time.Second)
		synctest.Wait()
		done := make(chan error, 1)
		go func() { done <- r.DeleteNetwork(context.Background(), nid("n")) }()
		synctest.Wait()
		release()
		if err := <-done; err != nil {
			t.Error(err)
		}
		r.settle()
		r.empty()
	})
}

// An endpoint that is deleted while its Join is under way is gone when both have
// answered.
func TestDeleteWhileJoining(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24")
		r.endpoint("n", "a", "10.0.0.2/24")
		release := r.fabric.hold()
		done := make(chan error, 2)
		go func() { r.tryJoin("n", "a"); done <- nil }()
		synctest.Wait()
		go func() { done <- r.DeleteEndpoint(context.Background(), nid("n"), eid("a")) }()
		synctest.Wait()
		release()
		if err := errors.Join(<-done, <-done); err != nil {
			t.Error(err)
		}
		r.settle()
		if _, there := r.findEndpoint("a"); there {
			t.Error("the endpoint is there")
		}
		r.check()
	})
}

// A network that is deleted while it is being made is gone when both have
// answered, and its creation failed.
func TestDeleteWhileCreating(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		release := r.fabric.hold()
		created, deleted := make(chan error, 1), make(chan error, 1)
		go func() { created <- r.tryCreate("n", "10.0.0.0/24") }()
		synctest.Wait()
		go func() { deleted <- r.DeleteNetwork(context.Background(), nid("n")) }()
		synctest.Wait()
		release()
		if err := <-created; err == nil {
			t.Error("the creation succeeded")
		}
		if err := <-deleted; err != nil {
			t.Error(err)
		}
		r.settle()
		r.empty()
	})
}
