package network_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	. "github.com/ovs-container-network/ovs-container-network/internal/network"
)

// A network is durable and its bridge is there when the answer is given. The same
// request again is success and changes nothing.
func TestCreateNetwork(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24", "tenant_id=blue")
		if !r.store.isSynced(networkFile(nid("n"))) {
			t.Error("the answer was given before the record would survive a power cut")
		}
		if got := r.fabric.String(); got != "bridge br-int ours=true" {
			t.Errorf("the fabric has %q", got)
		}
		before := r.store.String()
		r.create("n", "10.0.0.0/24", "tenant_id=blue")
		if r.store.String() != before || len(r.Networks()) != 1 {
			t.Errorf("the second request changed something:\n%s", r.store)
		}
		r.settle()
		r.check()
		n, _ := r.find("n")
		if n.Phase != PhaseActive || n.Config.VLAN != 4094 || !n.OwnsBridge || n.Config.TenantID != "blue" || !r.Has(n.ID) || r.Has(nid("m")) {
			t.Errorf("got %+v", n)
		}
	})
}

// The id of a network that exists is not taken for another network.
func TestCreateNetworkTwiceDiffers(t *testing.T) {
	for name, again := range map[string]CreateRequest{
		"subnet":   {ID: nid("n"), Options: opts("vlan=7"), Subnets: subnets("10.0.1.0/24")},
		"gateway":  {ID: nid("n"), Options: opts("vlan=7"), Subnets: []Subnet{{Prefix: subnets("10.0.0.0/24")[0].Prefix}}},
		"option":   {ID: nid("n"), Options: opts("vlan=8"), Subnets: subnets("10.0.0.0/24")},
		"internal": {ID: nid("n"), Options: opts("vlan=7"), Subnets: subnets("10.0.0.0/24"), Internal: true},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.create("n", "10.0.0.0/24", "vlan=7")
				before := r.store.String()
				refused(t, r.CreateNetwork(t.Context(), again), "exists already")
				if r.store.String() != before {
					t.Error("the refused request changed something")
				}
			})
		})
	}
}

// A request that is refused leaves nothing behind, and the same network can be
// made when the reason is gone.
func TestCreateNetworkFails(t *testing.T) {
	errSwitch := errors.New("vswitchd is asleep")
	for name, c := range map[string]struct {
		spoil   func(r *rig)
		mend    func(r *rig)
		options []string
		words   []string
	}{
		"unknown option": {options: []string{"vlan=7", "vlna=7"}, words: []string{`vlna="7"`}},
		"unreachable":    {spoil: (*rig).downFabric, mend: (*rig).up, words: []string{errUnreachable.Error()}},
		"apply fails": {
			spoil: func(r *rig) { r.fabric.with(func(f *fakeFabric) { f.failNet = errSwitch }) },
			mend:  func(r *rig) { r.fabric.with(func(f *fakeFabric) { f.failNet = nil }) },
			words: []string{errSwitch.Error()},
		},
		"pool cannot be claimed": {
			spoil: func(r *rig) { r.pools.failWith(errDisk) },
			mend:  func(r *rig) { r.pools.failWith(nil) },
			words: []string{errDisk.Error()},
		},
		"first record": {
			spoil: func(r *rig) { r.store.failOnce("PutNetwork", 1) },
			words: []string{errDisk.Error()},
		},
		"last record": {
			spoil: func(r *rig) { r.store.failOnce("PutNetwork", 2) },
			words: []string{errDisk.Error()},
		},
		"disk full": {
			spoil: func(r *rig) { r.store.failOn("PutNetwork", "PutEndpoint") },
			mend:  func(r *rig) { r.store.mend() },
			words: []string{errDisk.Error()},
		},
		"disk gone": {
			spoil: func(r *rig) { r.store.failOn() },
			mend:  func(r *rig) { r.store.mend() },
			words: []string{errDisk.Error()},
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				if c.spoil != nil {
					c.spoil(r)
				}
				req := CreateRequest{ID: nid("n"), Options: opts(c.options...), Subnets: subnets("10.0.0.0/24")}
				req.Subnets[0].Space = ourSpace
				refused(t, r.CreateNetwork(t.Context(), req), append(c.words, "cannot create network")...)
				r.settle()
				if c.mend != nil {
					c.mend(r)
				}
				r.settle()
				r.empty()
				req.ID, req.Options = nid("again"), opts("vlan=4094")
				if err := r.CreateNetwork(t.Context(), req); err != nil {
					t.Errorf("a second try: %v", err)
				}
				r.check()
			})
		})
	}
}

// Bad options are refused before anything is asked or written.
func TestBadOptionsCostNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.downFabric()
		err := r.tryCreate("n", "10.0.0.0/24", "mtu=12", "ipam=foo")
		refused(t, err, "mtu", "ipam")
		if r.fabric.plans != 0 || r.store.writes != 0 {
			t.Errorf("%d plans, %d writes", r.fabric.plans, r.store.writes)
		}
	})
}

// A network that cannot be taken back at once is taken back later, and its place
// is free meanwhile.
func TestCreateNetworkRollbackLater(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.fabric.with(func(f *fakeFabric) { f.failNet, f.failGone = errUnreachable, errUnreachable })
		refused(t, r.tryCreate("n", "10.0.0.0/24"), errUnreachable.Error())
		if n, ok := r.find("n"); !ok || n.Phase != PhaseDeleting {
			t.Errorf("got %+v, want a tombstone", n)
		}
		r.restart()
		r.settle()
		r.fabric.with(func(f *fakeFabric) { f.failNet, f.failGone = nil, nil })
		r.create("other", "10.0.0.0/24", "vlan=4094")
		r.Dirty()
		r.settle()
		r.check()
		if len(r.Networks()) != 1 {
			t.Errorf("got %v", r.Networks())
		}
	})
}

// A caller who gives up while the bridge is being made gets no network.
func TestCreateNetworkCancelled(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		release := r.fabric.hold()
		ctx, cancel := context.WithCancelCause(t.Context())
		result := make(chan error, 1)
		go func() {
			result <- r.CreateNetwork(ctx, CreateRequest{ID: nid("n"), Subnets: subnets("10.0.0.0/24")})
		}()
		synctest.Wait()
		cancel(errors.New("the engine hung up"))
		refused(t, <-result, "the engine hung up")
		release()
		r.settle()
		r.empty()
	})
}

// What only the fabric knows to be wrong comes in the same message as the faults
// of the options.
func TestBadBridgeWithOtherFaults(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		refused(t, r.tryCreate("n", "10.0.0.0/24", "bridge=ovn"), "this is OVN's")
		refused(t, r.tryCreate("n", "10.0.0.0/24", "bridge=ovn", "vlan=0", "colour=blue"), "this is OVN's", `vlan="0"`, `colour="blue"`)
		err := r.tryCreate("n", "10.0.0.0/24", "bridge=br0", "vlan=0")
		if err == nil || strings.Contains(err.Error(), "OVN") {
			t.Errorf("got %v", err)
		}
		r.downFabric() // nothing is known then
		refused(t, r.tryCreate("n", "10.0.0.0/24", "bridge=ovn", "vlan=0"), `vlan="0"`)
		r.empty()
	})
}

// ipam=static is enforced where all subnets are of our IPAM driver, and status
// says so where not. Pools are tied to the network from its creation to its end.
func TestEnforcedStatic(t *testing.T) {
	for name, c := range map[string]struct {
		ipam     string
		spaces   []string
		enforced bool
		noted    bool
		claims   int
	}{
		"ours":   {"static", []string{ourSpace, ourSpace}, true, false, 2},
		"mixed":  {"static", []string{ourSpace, "theirs"}, false, true, 1},
		"theirs": {"static", []string{"theirs"}, false, true, 0},
		"docker": {"docker", []string{ourSpace}, false, false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				nets := subnets("10.0.0.0/24", "fd00::/64")[:len(c.spaces)]
				for i := range nets {
					nets[i].Space = c.spaces[i]
				}
				req := CreateRequest{ID: nid("n"), Options: opts("ipam=" + c.ipam), Subnets: nets}
				if err := r.CreateNetwork(t.Context(), req); err != nil {
					t.Fatal(err)
				}
				n, _ := r.find("n")
				if n.Enforced != c.enforced || len(r.Reports()[0].Notes) > 0 != c.noted || r.pools.claimed[n.ID] != c.claims {
					t.Errorf("enforced %v, notes %q, %d claims", n.Enforced, r.Reports()[0].Notes, r.pools.claimed[n.ID])
				}
				if c.claims > 0 && r.pools.static[n.ID] != (c.ipam == "static") {
					t.Errorf("pool is static: %v", r.pools.static[n.ID])
				}
				if err := r.DeleteNetwork(t.Context(), n.ID); err != nil {
					t.Fatal(err)
				}
				r.empty()
			})
		})
	}
}
