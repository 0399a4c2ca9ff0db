package network_test

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	. "github.com/ovs-container-network/ovs-container-network/internal/network"
)

// rewrite changes records behind the daemon's back.
func (r *rig) rewrite(network string, change func(*Network), endpoints map[string]func(*Endpoint)) {
	for _, n := range r.store.load() {
		if n.ID != nid(network) {
			continue
		}
		if change != nil {
			change(&n)
		}
		r.must(nil, r.store.PutNetwork(n, true))
		for name, change := range endpoints {
			ep, _ := n.Endpoint(eid(name))
			change(&ep)
			r.must(nil, r.store.PutEndpoint(ep, true))
		}
	}
}

// What the last process left in any phase ends as Docker knows it: what it was
// told to be there is there, what it was told to have failed or to be gone is
// gone, whether the switch still has it or not.
func TestRestart(t *testing.T) {
	phase := func(p Phase) func(*Endpoint) { return func(ep *Endpoint) { ep.Phase = p } }
	for name, c := range map[string]struct {
		network  Phase
		endpoint Phase
		stays    bool // the network
		attached bool // the endpoint has its port
		gone     bool // the endpoint is gone
	}{
		"all well":            {PhaseActive, PhaseJoined, true, true, false},
		"creating":            {PhaseCreating, "", false, false, true},
		"network tombstone":   {PhaseDeleting, PhaseJoined, false, false, true},
		"half removed":        {PhaseDeleting, PhaseDeleting, false, false, true},
		"created":             {PhaseActive, PhaseCreated, true, false, false},
		"joining":             {PhaseActive, PhaseJoining, true, false, false},
		"left":                {PhaseActive, PhaseLeft, true, false, true},
		"endpoint tombstone":  {PhaseActive, PhaseDeleting, true, false, true},
		"unknown to the file": {PhaseActive, "", true, false, true},
	} {
		for _, wiped := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/wiped=%v", name, wiped), func(t *testing.T) {
				inBubble(t, func(t *testing.T, r *rig) {
					r.create("n", "10.0.0.0/24")
					if c.endpoint != "" {
						r.join("n", "a", "10.0.0.2/24")
					}
					r.stop()
					endpoints := map[string]func(*Endpoint){}
					if c.endpoint != "" {
						endpoints["a"] = phase(c.endpoint)
					}
					r.rewrite("n", func(n *Network) { n.Phase = c.network }, endpoints)
					if wiped {
						r.fabric.with(func(f *fakeFabric) { clear(f.ports); clear(f.bridges) })
					}
					r.load()
					r.run()
					r.settle()
					r.check()
					if n, ok := r.find("n"); ok != c.stays || ok && n.Phase != PhaseActive {
						t.Errorf("the network is there: %v, %s", ok, n.Phase)
					}
					if _, ok := r.findEndpoint("a"); ok == c.gone {
						t.Errorf("the endpoint is there: %v", ok)
					}
					if got := strings.Contains(r.fabric.String(), "port "); got != c.attached {
						t.Errorf("there is a port: %v", got)
					}
					if !c.stays {
						r.empty()
					}
					// The address is held by who has it, and free otherwise.
					if c.stays && c.attached {
						refused(t, r.tryEndpoint("n", "b", "10.0.0.2/24"), "already used")
					} else if c.stays {
						r.join("n", "b", "10.0.0.2/24")
						r.settle()
						r.check()
					}
				})
			})
		}
	}
}

// What a dying process left half-way works when Docker asks again.
func TestAskedAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24")
		r.endpoint("n", "a", "10.0.0.2/24")
		r.join("n", "b", "10.0.0.3/24")
		r.stop()
		r.rewrite("n", nil, map[string]func(*Endpoint){
			"a": func(ep *Endpoint) { ep.Phase, ep.Sandbox = PhaseJoining, sandbox("a") },
			"b": func(ep *Endpoint) { ep.Phase = PhaseJoining },
		})
		r.load()
		r.run()
		for _, name := range []string{"a", "b"} {
			r.must(nil, r.tryEndpoint("n", name, map[string]string{"a": "10.0.0.2/24", "b": "10.0.0.3/24"}[name]))
			r.must(nil, r.tryJoin("n", name))
		}
		time.Sleep(5 * time.Minute)
		r.settle()
		r.check()
		for _, name := range []string{"a", "b"} {
			if ep, _ := r.findEndpoint(name); ep.Phase != PhaseJoined {
				t.Errorf("endpoint %s is %q", name, ep.Phase)
			}
		}
	})
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24", "vlan=7")
		r.stop()
		r.rewrite("n", func(n *Network) { n.Phase = PhaseCreating }, nil)
		r.load()
		r.run()
		r.create("n", "10.0.0.0/24", "vlan=7")
		r.settle()
		r.join("n", "a", "10.0.0.2/24")
		r.check()
	})
}

// Nothing that Docker was told is lost by a power cut: records are synced before
// an answer, and what was not answered is undone.
func TestPowerCut(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24", "tenant_id=blue")
		r.endpoint("n", "a", "10.0.0.2/24", "vlan=7", "external_ids=k=v")
		before := r.Networks()
		r.stop()
		r.store.powerCut()
		r.load()
		if diff := cmp.Diff(before, r.Networks(), sameNetworks); diff != "" {
			t.Errorf("(-before +after):\n%s", diff)
		}
	})
}

// A change that was not synced may be lost by a power cut, but not what it
// changed: the network and the endpoint are there.
func TestPowerCutAfterJoin(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24")
		r.join("n", "a", "10.0.0.2/24")
		r.must(nil, r.Annotate(nid("n"), "blue", nil))
		r.stop()
		r.store.powerCut()
		r.fabric.with(func(f *fakeFabric) { clear(f.links) }) // containers are gone as well
		r.kill(sandbox("a"))
		r.load()
		r.run()
		r.settle()
		if _, ok := r.find("n"); !ok {
			t.Error("the network is lost")
		}
		// Docker starts the container again, with a new endpoint.
		r.join("n", "b", "10.0.0.2/24")
		time.Sleep(3 * time.Minute)
		r.check()
	})
}

// Calls that come before the repair loop has begun are not taken for leftovers of
// the last process.
func TestCallsBeforeRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.create("old", "10.1.0.0/24")
		r.endpoint("old", "a", "10.1.0.2/24")
		r.load()
		release := r.fabric.hold()
		errs := make(chan error, 2)
		go func() { errs <- r.tryCreate("n", "10.0.0.0/24") }()
		go func() { errs <- r.tryJoin("old", "a") }()
		synctest.Wait()
		r.run()
		r.settle()
		release()
		for range 2 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		r.settle()
		r.check()
		if ep, _ := r.findEndpoint("a"); ep.Phase != PhaseJoined || len(r.Networks()) != 2 {
			t.Errorf("got %v", r.Networks())
		}
	})
}

// A manager without records and without calls does nothing at all.
func TestIdle(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		time.Sleep(time.Hour)
		r.deleteEndpoint("n", "a")
		r.leave("n", "a")
		r.delete("n")
		if r.store.writes != 0 || len(r.fabric.applies) != 0 || r.fabric.plans != 0 {
			t.Errorf("%d writes, %d applies, %d plans", r.store.writes, len(r.fabric.applies), r.fabric.plans)
		}
		r.empty()
	})
}

// Run ends when it is told to, after the last Apply has ended.
func TestRunEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24")
		release := r.fabric.hold()
		go r.tryCreate("m", "10.0.1.0/24")
		synctest.Wait()
		ended := make(chan struct{})
		go func() { r.stop(); close(ended) }()
		time.Sleep(time.Second)
		select {
		case <-ended:
			t.Error("Run ended before Apply")
		default:
		}
		release()
		<-ended
	})
}

// The manager works without a clock or a loop of its own.
func TestManagerAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFabric(t), newStore(t)
		m := NewManager(Options{
			Fabric: f, Store: s, Pools: &fakePools{claimed: map[ID]int{}, static: map[ID]bool{}}, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
			SandboxAlive: func(string) (bool, bool) { return true, true },
		}, nil)
		if err := m.CreateNetwork(t.Context(), CreateRequest{ID: nid("n"), Subnets: subnets("10.0.0.0/24")}); err != nil {
			t.Error(err)
		}
		if err := m.DeleteNetwork(t.Context(), nid("n")); err != nil || f.String() != "" || s.String() != "" {
			t.Errorf("%v, left: %s %s", err, f, s)
		}
	})
}
