package network_test

import (
	"fmt"
	"testing"
	"testing/synctest"

	. "github.com/ovs-container-network/ovs-container-network/internal/network"
)

// Subnets that overlap in one segment are refused, naming both networks' ranges;
// in different segments they are two tenants' own affair.
func TestOverlap(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("blue", "10.0.0.0/16", "bridge=br0", "vlan=7")
		if err := r.Annotate(nid("blue"), "blue", nil); err != nil {
			t.Fatal(err)
		}
		for _, subnet := range []string{"10.0.0.0/16", "10.0.5.0/24", "10.0.0.0/8"} {
			err := r.tryCreate("red", subnet, "bridge=br0", "vlan=7")
			refused(t, err, "--subnet "+subnets(subnet)[0].Prefix.String(), "10.0.0.0/16", "network blue", "bridge br0", "vlan 7")
		}
		r.create("vlan", "10.0.0.0/16", "bridge=br0", "vlan=8")
		r.create("auto", "10.0.0.0/16", "bridge=br0")
		r.create("untagged", "10.0.0.0/16", "bridge=br0", "vlan=none")
		r.create("bridge", "10.0.0.0/16", "bridge=br1", "vlan=7")
		r.create("beside", "10.1.0.0/16", "bridge=br0", "vlan=7")
		refused(t, r.tryCreate("red", "10.0.0.0/24", "bridge=br0", "vlan=none"), "overlaps", "vlan none")
		if err := r.DeleteNetwork(t.Context(), nid("blue")); err != nil {
			t.Fatal(err)
		}
		r.create("red", "10.0.0.0/16", "bridge=br0", "vlan=7")
		r.settle()
		r.check()
	})
}

// Networks that are made at the same moment get a VLAN each.
func TestParallelCreates(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		release := r.fabric.hold()
		const count = 50
		errs := make(chan error, count)
		for i := range count {
			go func() { errs <- r.tryCreate(fmt.Sprint(i), "10.0.0.0/24") }()
		}
		synctest.Wait()
		// One with the same subnet and a VLAN that is promised already.
		refused(t, r.tryCreate("late", "10.0.0.0/25", "vlan=4094"), "overlaps")
		release()
		for range count {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		seen := map[uint16]bool{}
		for _, n := range r.Networks() {
			if seen[n.Config.VLAN] {
				t.Errorf("two networks have VLAN %d", n.Config.VLAN)
			}
			seen[n.Config.VLAN] = true
		}
		if len(seen) != count {
			t.Errorf("%d networks, want %d", len(seen), count)
		}
		r.settle()
		r.check()
	})
}

// Of two equal requests at the same moment one makes the network and the other
// disturbs nothing.
func TestSameCreateTwiceAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		release := r.fabric.hold()
		errs := make(chan error, 2)
		for range 2 {
			go func() { errs <- r.tryCreate("n", "10.0.0.0/24") }()
		}
		synctest.Wait()
		release()
		if a, b := <-errs, <-errs; a != nil && b != nil {
			t.Errorf("both failed: %v, %v", a, b)
		}
		r.settle()
		r.check()
		if n, ok := r.find("n"); !ok || n.Phase != PhaseActive {
			t.Errorf("got %+v", n)
		}
	})
}

// A network whose bridge takes its time holds no other network up.
func TestNetworksDoNotWaitForEachOther(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("fast", "10.1.0.0/24")
		release := r.fabric.hold()
		slow := make(chan error, 1)
		go func() { slow <- r.tryCreate("slow", "10.0.0.0/24") }()
		synctest.Wait()
		r.fabric.with(func(f *fakeFabric) { f.gate = nil })
		r.join("fast", "a", "10.1.0.2/24")
		if err := r.DeleteNetwork(t.Context(), nid("fast")); err != nil {
			t.Error(err)
		}
		select {
		case err := <-slow:
			t.Errorf("the slow one was not slow: %v", err)
		default:
		}
		release()
		if err := <-slow; err != nil {
			t.Error(err)
		}
		r.settle()
		r.check()
	})
}
