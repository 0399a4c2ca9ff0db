package network_test

import (
	"context"
	"fmt"
	"testing"
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

// An attachment cannot move into a segment that a network has to itself, nor take
// the address of a router.
func TestSegmentsOfOthers(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("auto", "10.0.0.0/24", "bridge=br0")
		r.create("tag", "10.0.1.0/24", "bridge=br0", "vlan=7", "gateway_mode=external")
		r.create("other", "10.0.2.0/24", "bridge=br1", "vlan=7")
		r.must(nil, r.Annotate(nid("auto"), "private", nil))
		refused(t, r.tryEndpoint("tag", "a", "10.0.1.2/24", "vlan=4094"), `vlan="4094"`, "network private", "br0")
		refused(t, r.tryEndpoint("auto", "a", "10.0.1.1/24", "vlan=7"), "10.0.1.1", "gateway", "bridge br0", "vlan 7")
		refused(t, r.tryEndpoint("tag", "a", "10.0.1.1/24"), "gateway")
		r.join("auto", "own", "10.0.0.2/24", "vlan=4094")
		r.join("tag", "moved", "10.0.1.2/24", "vlan=9")
		r.join("auto", "guest", "10.0.0.3/24", "vlan=7")
		r.join("other", "elsewhere", "10.0.1.1/24")
		// Without a router outside, the gateway's address is like any other here:
		// the IPAM driver keeps it.
		r.join("auto", "router", "10.0.0.1/24")
		r.settle()
		r.check()
	})
}

// An address is free again as soon as its endpoint is deleted, though its port
// may stay for a while; the end of that takes it from nobody.
func TestAddressIsFreeAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24", "vlan=7")
		r.create("m", "10.0.1.0/24", "vlan=7")
		r.join("n", "a", "10.0.0.2/24")
		r.downFabric()
		r.deleteEndpoint("n", "a")
		r.endpoint("n", "b", "10.0.0.2/24")
		refused(t, r.tryEndpoint("m", "c", "10.0.0.2/24"), "already used")
		r.up()
		r.settle()
		r.check()
		refused(t, r.tryEndpoint("m", "c", "10.0.0.2/24"), "already used")
	})
}

// A holder that Docker gave up gives way to a new endpoint in its own network and
// in no other. An address comes from an IPAM driver, which gives it again only
// after the first endpoint was given up; a MAC may be given twice by its user, so
// there only what has surely ended counts. A holder whose container is there, or
// cannot be seen, never gives way.
func TestEviction(t *testing.T) {
	const no, yes = false, true
	for name, c := range map[string]struct {
		before     func(r *rig)
		addr, mac  bool // the holder gives way to a new one with its address, its MAC
		unjoined   bool
		justJoined bool
	}{
		"dead":           {before: func(r *rig) { r.kill(sandbox("a")) }, addr: yes, mac: yes},
		"alive":          {before: func(*rig) {}, addr: no, mac: no},
		"not to be seen": {before: func(r *rig) { r.hide(sandbox("a")) }, addr: no, mac: no},
		"left":           {before: func(r *rig) { r.leave("n", "a") }, addr: yes, mac: yes},
		"never joined":   {before: func(*rig) {}, unjoined: true, addr: yes, mac: no},
		// Engines up to 27 make a container's network namespace after the Join.
		"starting": {before: func(r *rig) { r.kill(sandbox("a")) }, justJoined: true, addr: yes, mac: no},
	} {
		for _, network := range []string{"n", "m"} {
			for _, byMAC := range []bool{false, true} {
				inBubble(t, func(t *testing.T, r *rig) {
					r.create("n", "10.0.0.0/24", "vlan=7")
					r.create("m", "10.0.1.0/24", "vlan=7")
					old := endpointRequest("n", "a", "10.0.0.2/24")
					old.MAC = "02:00:00:00:00:01"
					r.must(r.CreateEndpoint(t.Context(), old))
					if !c.unjoined {
						r.must(nil, r.tryJoin("n", "a"))
					}
					if !c.unjoined && !c.justJoined {
						time.Sleep(time.Hour)
					}
					time.Sleep(time.Second)
					c.before(r)
					req, want := endpointRequest(network, "b", "10.0.0.2/24"), c.addr && network == "n"
					if byMAC {
						req, want = endpointRequest(network, "b", "10.0.0.3/24"), c.mac && network == "n"
						req.MAC = old.MAC
					}
					_, err := r.CreateEndpoint(t.Context(), req)
					if (err == nil) != want {
						t.Errorf("%s, network %s, by MAC %v: got %v, eviction wanted: %v", name, network, byMAC, err, want)
					}
					if err == nil {
						r.must(nil, r.tryJoin(network, "b"))
					} else {
						refused(t, err, "already used by endpoint "+eid("a").Short())
					}
					r.settle()
					if _, there := r.findEndpoint("a"); there == want {
						t.Errorf("%s, network %s, by MAC %v: the old endpoint is there: %v", name, network, byMAC, there)
					}
					r.check()
				})
			}
		}
	}
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

// Of many who want one MAC at the same moment, one gets it.
func TestOneMACForOne(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24", "vlan=7")
		r.create("m", "10.0.1.0/24", "vlan=7")
		const count = 50
		errs := make(chan error, count)
		for i := range count {
			req := endpointRequest([]string{"n", "m"}[i%2], fmt.Sprint(i), fmt.Sprintf("10.0.0.%d/24", i+2))
			req.MAC = "02:00:00:00:00:01"
			go func() {
				_, err := r.CreateEndpoint(context.Background(), req)
				errs <- err
			}()
		}
		won := 0
		for range count {
			if err := <-errs; err == nil {
				won++
			}
		}
		if won != 1 {
			t.Errorf("%d endpoints got the MAC", won)
		}
		r.check()
	})
}

// Many who want one address leave one holder, whoever it is.
func TestOneAddressForOne(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24")
		const count = 50
		errs := make(chan error, count)
		for i := range count {
			go func() { errs <- r.tryEndpoint("n", fmt.Sprint(i), "10.0.0.2/24") }()
		}
		for range count {
			<-errs
		}
		r.settle()
		if n, _ := r.find("n"); len(n.Endpoints) != 1 {
			t.Errorf("%d endpoints have the address", len(n.Endpoints))
		}
		r.check()
	})
}
