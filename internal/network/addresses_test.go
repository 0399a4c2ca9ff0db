package network_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

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
			r.load()
			r.run()
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
		refused(t, r.tryEndpoint("n", "b", "10.0.0.3/24", "trunk=1"), "trunk")
		if want := []ID{nid("n"), nid("n")}; !slices.Equal(r.pools.entered, want) {
			t.Errorf("told of %v, want %v", r.pools.entered, want)
		}
	})
}

// A network that Docker does not list is reported, not removed: Docker may run on
// another data directory. Younger ones and those of a swarm cannot be told.
func TestForgottenNetwork(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		swarm := CreateRequest{ID: "x1p2r3sjkq8dj2v0c8k0l4a7b", Subnets: subnets("10.2.0.0/24")}
		r.must(nil, r.CreateNetwork(t.Context(), swarm))
		r.create("n", "10.0.0.0/24")
		r.create("m", "10.1.0.0/24")
		reported := func(want ...string) {
			t.Helper()
			var got []string
			for _, report := range r.Reports() {
				if len(report.Problems)+len(report.Notes) > 0 {
					got = append(got, string(report.ID))
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("reported %v, want %v", got, want)
			}
		}
		reported()
		r.Known(map[ID]bool{nid("m"): true})
		reported()
		time.Sleep(time.Hour)
		reported(string(nid("n")))
		r.create("young", "10.3.0.0/24")
		reported(string(nid("n")))
		r.Known(map[ID]bool{nid("n"): true, nid("m"): true, nid("young"): true})
		reported()
		r.settle()
		r.check()
		if len(r.Networks()) != 4 {
			t.Errorf("%d networks, want 4", len(r.Networks()))
		}
	})
}
