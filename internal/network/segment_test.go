package network_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/ovs-container-network/ovs-container-network/internal/network"
)

// In one segment nobody gets an address or a MAC that another has, whatever their
// networks; the refusal names the holder. In another segment they may.
func TestDuplicates(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("one", "10.0.0.0/24", "bridge=br0", "vlan=7")
		r.create("two", "10.0.1.0/24", "bridge=br0", "vlan=7")
		r.create("far", "10.0.0.0/24", "bridge=br0", "vlan=8")
		req := endpointRequest("one", "a", "10.0.0.2/24")
		req.MAC = "02:00:00:00:00:01"
		if _, err := r.CreateEndpoint(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		if err := r.tryJoin("one", "a"); err != nil {
			t.Fatal(err)
		}
		if err := r.Annotate(nid("one"), "tenant1", map[EndpointID]Container{eid("a"): {ID: "c1", Name: "web"}}); err != nil {
			t.Fatal(err)
		}
		holder := []string{"is already used by container web on network tenant1", "bridge br0", "vlan 7"}
		for _, network := range []string{"one", "two"} {
			refused(t, r.tryEndpoint(network, "b", "10.0.0.2/24"), append(holder, "address 10.0.0.2")...)
			req := endpointRequest(network, "b", "10.0.0.3/24")
			req.MAC = "02-00-00-00-00-01"
			_, err := r.CreateEndpoint(t.Context(), req)
			refused(t, err, append(holder, "MAC address 02:00:00:00:00:01")...)
		}
		// An attachment's own VLAN takes it to another segment, and into one.
		r.endpoint("one", "moved", "10.0.0.2/24", "vlan=9")
		r.endpoint("far", "there", "10.0.0.2/24")
		refused(t, r.tryEndpoint("far", "back", "10.0.0.2/24", "vlan=7"), holder...)
		r.settle()
		r.check()
	})
}

// An address is free again as soon as its endpoint is deleted, though its port
// may stay for a while.
func TestAddressIsFreeAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24")
		r.join("n", "a", "10.0.0.2/24")
		r.downFabric()
		if err := r.DeleteEndpoint(t.Context(), nid("n"), eid("a")); err != nil {
			t.Fatal(err)
		}
		r.endpoint("n", "b", "10.0.0.2/24")
		refused(t, r.tryEndpoint("n", "c", "10.0.0.2/24"), "already used")
		r.up()
		r.settle()
		r.check()
		refused(t, r.tryEndpoint("n", "c", "10.0.0.2/24"), "already used")
	})
}

// A holder whose container is gone gives way to a new endpoint in its own network,
// where Docker has given the address away, and in no other. One whose container
// is there, or cannot be seen, or is on its way, never does.
func TestEviction(t *testing.T) {
	for name, c := range map[string]struct {
		before func(r *rig)
		same   bool // the new endpoint is in the same network
		evicts bool
	}{
		"dead":                  {func(r *rig) { r.kill(sandbox("a")) }, true, true},
		"dead, another network": {func(r *rig) { r.kill(sandbox("a")) }, false, false},
		"alive":                 {func(*rig) {}, true, false},
		"not to be seen":        {func(r *rig) { r.hide(sandbox("a")) }, true, false},
		"left": {func(r *rig) {
			r.kill(sandbox("a"))
			r.leave("n", "a")
		}, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.create("n", "10.0.0.0/24", "vlan=7")
				r.create("m", "10.0.1.0/24", "vlan=7")
				r.join("n", "a", "10.0.0.2/24")
				time.Sleep(time.Hour)
				c.before(r)
				network := "n"
				if !c.same {
					network = "m"
				}
				err := r.tryEndpoint(network, "b", "10.0.0.2/24")
				if c.evicts != (err == nil) {
					t.Errorf("got %v, eviction wanted: %v", err, c.evicts)
				}
				if err == nil {
					if err := r.tryJoin(network, "b"); err != nil {
						t.Error(err)
					}
				}
				r.settle()
				if _, there := r.findEndpoint("a"); there == c.evicts {
					t.Errorf("the old endpoint is there: %v", there)
				}
				r.check()
			})
		})
	}
}

// A container that has only just joined is not taken for dead: engines up to 27
// make its network namespace after the Join.
func TestNoEvictionWhileStarting(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24")
		r.kill(sandbox("a"))
		r.join("n", "a", "10.0.0.2/24")
		time.Sleep(time.Second)
		refused(t, r.tryEndpoint("n", "b", "10.0.0.2/24"), "already used")
		if ep, ok := r.findEndpoint("a"); !ok || ep.Phase != PhaseJoined {
			t.Errorf("the starting container lost its endpoint: %+v", ep)
		}
	})
}

// Nothing is evicted by an endpoint that is refused after all.
func TestRefusedEvictsNobody(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24")
		r.join("n", "dead", "10.0.0.2/24")
		req := endpointRequest("n", "alive", "10.0.0.3/24")
		req.MAC = "02:00:00:00:00:01"
		if _, err := r.CreateEndpoint(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		r.kill(sandbox("dead"))
		req = endpointRequest("n", "new", "10.0.0.2/24")
		req.MAC = "02:00:00:00:00:01"
		_, err := r.CreateEndpoint(t.Context(), req)
		refused(t, err, "MAC address")
		if ep, ok := r.findEndpoint("dead"); !ok || ep.Phase != PhaseJoined {
			t.Errorf("got %+v", ep)
		}
		r.check()
	})
}

// Of many who want one address at the same moment, one gets it.
func TestOneAddressForOne(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24", "vlan=7")
		r.create("m", "10.0.1.0/24", "vlan=7")
		const count = 50
		errs := make(chan error, count)
		for i := range count {
			go func() { errs <- r.tryEndpoint([]string{"n", "m"}[i%2], fmt.Sprint(i), "10.0.0.2/24") }()
		}
		synctest.Wait()
		won := 0
		for range count {
			if err := <-errs; err == nil {
				won++
			}
		}
		if won != 1 {
			t.Errorf("%d endpoints got the address", won)
		}
		r.check()
	})
}
