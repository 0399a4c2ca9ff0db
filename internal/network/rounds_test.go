package network_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/ovs-container-network/ovs-container-network/internal/network"
)

// crowd makes endpoints of the network n, not joined, with an address each.
func (r *rig) crowd(count int) []string {
	r.t.Helper()
	r.create("n", "10.0.0.0/16")
	var names []string
	for i := range count {
		name := fmt.Sprint(i)
		r.endpoint("n", name, fmt.Sprintf("10.0.%d.%d/16", i/200+1, i%200+1))
		names = append(names, name)
	}
	return names
}

// Joins that come while the switch is busy with one share the next Apply, and
// each gets its own result.
func TestJoinsShareApplies(t *testing.T) {
	const count = 100
	for _, failing := range []int{0, 10} {
		inBubble(t, func(t *testing.T, r *rig) {
			names := r.crowd(count)
			before := len(r.applies("n"))
			for _, name := range names[:failing] {
				r.fabric.failing[eid(name)] = fmt.Errorf("no room for endpoint number %s", name)
			}
			release := r.fabric.hold()
			results := make([]error, count)
			var all sync.WaitGroup
			for i, name := range names {
				all.Go(func() { results[i] = r.tryJoin("n", name) })
			}
			synctest.Wait()
			release()
			all.Wait()
			for i, err := range results {
				if i >= failing {
					if err != nil {
						t.Errorf("endpoint %d: %v", i, err)
					}
				} else if err == nil || !strings.HasSuffix(err.Error(), "number "+names[i]) {
					t.Errorf("endpoint %d: got %v, want its own failure", i, err)
				}
			}
			// Each failure may cost one more, to take back what was begun.
			if n := len(r.applies("n")) - before; n > 3+2*failing {
				t.Errorf("%d Applies for %d Joins of which %d fail", n, count, failing)
			}
			r.fabric.with(func(f *fakeFabric) { clear(f.failing) })
			r.Dirty()
			r.settle()
			r.check()
			if n, _ := r.find("n"); len(n.Endpoints) != count-failing {
				t.Errorf("%d endpoints, want %d", len(n.Endpoints), count-failing)
			}
		})
	}
}

// A Join is answered by an Apply that began after it, not by one under way that
// did not know of it.
func TestJoinIsNotAnsweredEarly(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.crowd(2)
		release := r.fabric.hold()
		first, second := make(chan error, 1), make(chan error, 1)
		go func() { first <- r.tryJoin("n", "0") }()
		synctest.Wait()
		go func() { second <- r.tryJoin("n", "1") }()
		synctest.Wait()
		releaseSecond := r.fabric.hold()
		release()
		if err := <-first; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if r.fabric.gateClosed() {
			t.Fatal("the second Apply did not come")
		}
		select {
		case err := <-second:
			t.Errorf("answered (%v) before an Apply could know of it", err)
		default:
		}
		releaseSecond()
		if err := <-second; err != nil {
			t.Error(err)
		}
		r.check()
	})
}

// gateClosed tells whether nobody is held up.
func (f *fakeFabric) gateClosed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, busy := range f.busy {
		if busy {
			return false
		}
	}
	return true
}

// An Apply that was begun is finished even if every caller gives up, and one who
// gives up takes nothing from the others.
func TestApplyOutlivesCallers(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.crowd(3)
		release := r.fabric.hold()
		errs := make(chan error, 2)
		ctx, cancel := context.WithCancelCause(t.Context())
		for _, name := range []string{"0", "1"} {
			go func() {
				_, err := r.Join(ctx, JoinRequest{Network: nid("n"), ID: eid(name), Sandbox: sandbox(name)})
				errs <- err
			}()
			synctest.Wait() // the first of them begins the Apply
		}
		patient := make(chan error, 1)
		go func() { patient <- r.tryJoin("n", "2") }()
		synctest.Wait()
		cancel(errors.New("the engine hung up"))
		for range 2 {
			refused(t, <-errs, "the engine hung up")
		}
		release()
		if err := <-patient; err != nil {
			t.Error(err)
		}
		r.settle()
		r.check()
		if n, _ := r.find("n"); len(n.Endpoints) != 1 {
			t.Errorf("%d endpoints, want 1", len(n.Endpoints))
		}
	})
}

// A record that cannot be removed is the trouble of its own endpoint, not of
// those that share the Apply with it.
func TestStaleRecordHurtsNobodyElse(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.fabric.linger = 0
		r.crowd(2)
		r.must(nil, r.tryJoin("n", "0"))
		release := r.fabric.hold()
		joined := make(chan error, 1)
		r.Dirty(nid("n"))
		time.Sleep(time.Second)
		synctest.Wait() // an Apply is under way; the next two calls share one
		go func() { joined <- r.tryJoin("n", "1") }()
		go r.DeleteEndpoint(context.Background(), nid("n"), eid("0"))
		synctest.Wait()
		r.store.failOn("DeleteEndpoint")
		release()
		if err := <-joined; err != nil {
			t.Errorf("the Join of another endpoint: %v", err)
		}
		r.settle()
		// As long as the record stays, so does the tombstone.
		if ep, ok := r.findEndpoint("0"); !ok || ep.Phase != PhaseDeleting {
			t.Errorf("got %+v", ep)
		}
		// The failed removal does not make later Joins fail either.
		r.endpoint("n", "late", "10.0.9.9/16")
		r.must(nil, r.tryJoin("n", "late"))
		r.store.mend()
		time.Sleep(2 * time.Minute)
		r.check()
		if _, ok := r.findEndpoint("0"); ok {
			t.Error("the endpoint is still there")
		}
	})
}

// One broken endpoint keeps no other from being repaired or removed.
func TestOneBrokenEndpoint(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		for i, name := range r.crowd(5) {
			r.must(nil, r.tryJoin("n", name))
			if i == 2 {
				r.fabric.with(func(f *fakeFabric) { f.failing[eid(name)] = errors.New("broken") })
			}
		}
		r.fabric.with(func(f *fakeFabric) { clear(f.ports) })
		r.deleteEndpoint("n", "0")
		r.Dirty()
		r.settle()
		if got := strings.Count(r.fabric.String(), "port "); got != 3 {
			t.Errorf("%d ports, want 3:\n%s", got, r.fabric)
		}
		if _, ok := r.findEndpoint("0"); ok {
			t.Error("the deleted endpoint is there")
		}
		// Deleting the broken one is not finished before its fault is gone.
		r.deleteEndpoint("n", "2")
		r.settle()
		if _, ok := r.findEndpoint("2"); !ok {
			t.Error("the tombstone was forgotten")
		}
		r.fabric.with(func(f *fakeFabric) { clear(f.failing) })
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		r.check()
	})
}
