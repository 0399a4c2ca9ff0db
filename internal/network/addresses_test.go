package network_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	. "github.com/ovs-container-network/ovs-container-network/internal/network"
)

// dual makes an endpoint with an address of each family, joined.
func (r *rig) dual(network, name, addr4, addr6, mac string) {
	r.t.Helper()
	req := endpointRequest(network, name, addr4)
	req.Addrs = append(req.Addrs, netip.MustParsePrefix(addr6))
	req.MAC = mac
	r.must(r.CreateEndpoint(r.t.Context(), req))
	r.must(nil, r.tryJoin(network, name))
}

// Addresses of an endpoint that Docker forgot are freed when it is removed: nobody
// else will. Those of one that Docker deletes are Docker's to free.
func TestForgottenAddresses(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(r *rig)
		want string
	}{
		"swept":        {func(r *rig) { r.kill(sandbox("a")); r.loseLink("a"); time.Sleep(time.Minute) }, "10.0.0.2 fd00::2"},
		"left, swept":  {func(r *rig) { r.leave("n", "a"); time.Sleep(time.Minute) }, "10.0.0.2 fd00::2"},
		"deleted":      {func(r *rig) { r.leave("n", "a"); r.deleteEndpoint("n", "a") }, ""},
		"network gone": {func(r *rig) { r.delete("n") }, ""},
		"alive":        {func(*rig) { time.Sleep(time.Hour) }, ""},
		"join cut off by a crash": {func(r *rig) {
			r.stop()
			r.rewrite("n", nil, map[string]func(*Endpoint){"a": func(ep *Endpoint) { ep.Phase = PhaseJoining }})
			time.Sleep(time.Second)
			r.load()
			r.run()
			time.Sleep(time.Minute) // Docker does not try again
		}, "10.0.0.2 fd00::2"},
		"restart": {func(r *rig) { r.restart() }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.create("n", "10.0.0.0/24")
				r.dual("n", "a", "10.0.0.2/24", "fd00::2/64", "")
				c.end(r)
				r.settle()
				if got := r.pools.abandoned(); got != c.want {
					t.Errorf("freed %q, want %q", got, c.want)
				}
				r.check()
			})
		})
	}
}

// Of an evicted endpoint those addresses are freed that its successor does not
// have, and only those.
func TestEvictedAddresses(t *testing.T) {
	for name, c := range map[string]struct{ addr4, addr6, want string }{
		"by its MAC":         {"10.0.0.3/24", "fd00::3/64", "10.0.0.2 fd00::2"},
		"by its address":     {"10.0.0.2/24", "fd00::3/64", "fd00::2"},
		"by all that it has": {"10.0.0.2/24", "fd00::2/64", ""},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.create("n", "10.0.0.0/24")
				r.dual("n", "a", "10.0.0.2/24", "fd00::2/64", "02:00:00:00:00:01")
				time.Sleep(time.Hour)
				r.kill(sandbox("a"))
				r.dual("n", "b", c.addr4, c.addr6, "02:00:00:00:00:01")
				r.settle()
				if got := r.pools.abandoned(); got != c.want {
					t.Errorf("freed %q, want %q", got, c.want)
				}
				r.check()
			})
		})
	}
}

// An address is in use from the endpoint's creation until its container leaves or
// Docker deletes it: so long it is not freed by a release that comes late.
func TestUses(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		uses := func(want bool, when string) {
			t.Helper()
			if got := r.Uses(nid("n"), netip.MustParseAddr("10.0.0.2")); got != want {
				t.Errorf("%s: %v", when, got)
			}
		}
		uses(false, "no network")
		r.create("n", "10.0.0.0/24")
		r.create("m", "10.0.0.0/24")
		r.endpoint("m", "other", "10.0.0.2/24")
		r.endpoint("n", "another", "10.0.0.3/24")
		uses(false, "no endpoint")
		r.endpoint("n", "a", "10.0.0.2/24")
		uses(true, "created")
		r.must(nil, r.tryJoin("n", "a"))
		uses(true, "joined")
		r.kill(sandbox("a"))
		uses(true, "dead, perhaps not started yet")
		r.leave("n", "a")
		uses(false, "left")
		r.deleteEndpoint("n", "a")
		uses(false, "deleted")
		r.endpoint("n", "b", "10.0.0.2/24")
		uses(true, "created anew")
		r.downFabric()
		r.deleteEndpoint("n", "b")
		uses(false, "tombstone")
	})
}

// The IPAM driver is told of each endpoint that is being created, also of one
// that is refused then: what was booked for it is given back by Docker.
func TestEntered(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24")
		r.endpoint("n", "a", "10.0.0.2/24")
		refused(t, r.tryEndpoint("n", "b", "10.0.0.3/24", "colour=red"), "colour")
		if want := []ID{nid("n"), nid("n")}; !slices.Equal(r.pools.entered, want) {
			t.Errorf("told of %v, want %v", r.pools.entered, want)
		}
	})
}

// A network that Docker removed while the driver was away is removed, when two
// lists of the engine that had it lack it; and none is on weaker evidence.
func TestForgottenNetworks(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		const swarm = ID("abcdefghijklmnopqrstuvwxy")
		if err := r.CreateNetwork(t.Context(), CreateRequest{ID: swarm, Subnets: subnets("10.9.0.0/24")}); err != nil {
			t.Fatal(err)
		}
		r.create("gone", "10.0.0.0/24")
		r.create("kept", "10.1.0.0/24")
		r.create("used", "10.2.0.0/24")
		r.join("used", "a", "10.2.0.2/24")
		all := map[ID]bool{swarm: true, nid("gone"): true, nid("kept"): true, nid("used"): true}
		some := map[ID]bool{nid("kept"): true}
		know := func(engine string, ids map[ID]bool, again bool, networks int) {
			t.Helper()
			if got := r.Known(t.Context(), engine, ids); got != again {
				t.Errorf("another list is wanted: %v", got)
			}
			r.settle()
			if n := len(r.Networks()); n != networks {
				t.Errorf("%d networks, want %d", n, networks)
			}
		}
		time.Sleep(time.Minute)
		know("one", all, false, 4)
		know("one", some, true, 4) // the first list without
		know("one", some, true, 4) // too soon
		time.Sleep(time.Minute)
		know("other", some, false, 4) // of an engine that never had it
		know("one", some, true, 4)    // begins anew
		know("one", all, false, 4)    // it was there after all
		time.Sleep(time.Minute)
		know("one", some, true, 4)
		r.create("young", "10.3.0.0/24")
		time.Sleep(5 * time.Second)
		know("one", some, true, 5)
		time.Sleep(20 * time.Second)
		know("one", some, true, 4) // young is a suspect by now
		if _, there := r.find("gone"); there {
			t.Error("the network is still there")
		}
		r.check()
	})
}

// A network that Docker removed while the driver was away takes its pools with it:
// Docker will not release them.
func TestForgottenPools(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("gone", "10.0.0.0/24")
		r.create("kept", "10.1.0.0/24")
		r.Known(t.Context(), "one", map[ID]bool{nid("gone"): true, nid("kept"): true})
		for range 2 {
			time.Sleep(time.Minute)
			r.Known(t.Context(), "one", map[ID]bool{nid("kept"): true})
		}
		if want := []ID{nid("gone")}; !slices.Equal(r.pools.forgotten, want) {
			t.Errorf("the pools of %v were released, want %v", r.pools.forgotten, want)
		}
		r.settle()
		r.check()
	})
}

// A network that is removed while a list is worked through does no harm.
func TestKnownMeetsDelete(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("first", "10.0.0.0/24")
		r.settle()
		r.create("second", "10.1.0.0/24")
		r.store.hook(func(op, id string) error {
			if op == "PutNetwork" && id == string(nid("first")) && r.Has(nid("second")) {
				return r.DeleteNetwork(t.Context(), nid("second"))
			}
			return nil
		})
		r.Known(t.Context(), "one", map[ID]bool{nid("first"): true, nid("second"): true})
		r.store.mend()
		r.settle()
		r.check()
		if r.Has(nid("second")) {
			t.Error("the removed network is back")
		}
	})
}

// The IPAM driver is told again and again which addresses have an endpoint, but
// not of a swarm's network or of one with a record that could not be read.
func TestAuditIsTold(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		swarm := ID(strings.Repeat("s", 25))
		for _, id := range []ID{nid("n"), nid("damaged"), swarm} {
			req := CreateRequest{ID: id, Subnets: subnets("10.0.0.0/24"), Options: opts("bridge=br-" + string(id)[:5])}
			req.Subnets[0].Space = ourSpace
			r.must(nil, r.CreateNetwork(t.Context(), req))
		}
		r.dual("n", "a", "10.0.0.2/24", "fd00::2/64", "")
		r.endpoint("n", "b", "10.0.0.3/24")
		r.stop()
		r.damaged = []Damage{{Network: nid("damaged"), Endpoint: eid("x"), Err: errors.New("cut off")}}
		r.load()
		r.run()
		time.Sleep(15 * time.Second)
		want := map[ID]string{nid("n"): "10.0.0.2 10.0.0.3 fd00::2"}
		r.pools.mu.Lock()
		defer r.pools.mu.Unlock()
		if diff := cmp.Diff(want, r.pools.audited); diff != "" {
			t.Errorf("(-want +told):\n%s", diff)
		}
	})
}

// An endpoint whose creation a dying process may not have answered ends when
// Docker gives its address back; one that this process made does not.
func TestReleasedOfUnsure(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24")
		r.endpoint("n", "a", "10.0.0.2/24")
		r.endpoint("n", "asked again", "10.0.0.3/24")
		r.join("n", "joined", "10.0.0.4/24")
		r.restart()
		r.endpoint("n", "asked again", "10.0.0.3/24")
		r.endpoint("n", "new", "10.0.0.5/24")
		for addr, want := range map[string]bool{"10.0.0.2": true, "10.0.0.3": false, "10.0.0.4": false, "10.0.0.5": false, "10.0.0.9": true} {
			if free := r.Released(nid("n"), netip.MustParseAddr(addr)); free != want {
				t.Errorf("%s is free: %v", addr, free)
			}
		}
		r.settle()
		if _, ok := r.findEndpoint("a"); ok {
			t.Error("the endpoint is still there")
		}
		r.endpoint("n", "b", "10.0.0.2/24")
		r.check()
	})
}
