package network_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/ovs-container-network/ovs-container-network/internal/network"
)

// withDamage starts a daemon that could not read some records.
func withDamage(t *testing.T, damaged ...Damage) *rig {
	r := newRig(t)
	r.damaged = damaged
	r.load()
	r.run()
	synctest.Wait()
	return r
}

var errGarbage = errors.New("not a record: unexpected end of JSON input")

// What depends on an unreadable record of a network is refused with the file's
// name; taking away is success, as Docker would ignore anything else.
func TestDamagedNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := withDamage(t, Damage{Path: "/var/lib/x/network.json", Network: nid("n"), Err: errGarbage})
		for _, err := range []error{r.tryEndpoint("n", "a", "10.0.0.2/24"), r.tryJoin("n", "a")} {
			refused(t, err, "/var/lib/x/network.json", errGarbage.Error(), nid("n").Short())
		}
		refused(t, r.tryEndpoint("other", "a", "10.0.0.2/24"), "does not know the network")
		r.leave("n", "a")
		r.deleteEndpoint("n", "a")
		if r.store.writes != 0 || len(r.Damaged()) != 1 {
			t.Errorf("%d writes, damaged: %v", r.store.writes, r.Damaged())
		}
		// Its bridge is unknown, so none is removed.
		r.create("other", "10.0.0.0/24", "bridge=br0")
		r.delete("other")
		if !strings.Contains(r.fabric.String(), "bridge br0") {
			t.Errorf("the bridge is gone: %s", r.fabric)
		}
	})
}

// When Docker says that it is gone, what an unreadable record describes is removed
// like anything else, with the record: its names follow from its id.
func TestDamageIsRemoved(t *testing.T) {
	for _, c := range []struct {
		damaged Damage
		remove  func(r *rig)
	}{
		{Damage{Path: "p", Network: nid("n"), Endpoint: eid("a"), Err: errGarbage}, func(r *rig) { r.deleteEndpoint("n", "a") }},
		{Damage{Path: "p", Network: nid("n"), Endpoint: eid("a"), Err: errGarbage}, func(r *rig) { r.delete("n") }},
		{Damage{Path: "p", Network: nid("n"), Err: errGarbage}, func(r *rig) { r.delete("n") }},
	} {
		inBubble(t, func(t *testing.T, r *rig) {
			r.create("n", "10.0.0.0/24")
			r.create("other", "10.0.0.0/24")
			r.join("n", "a", "10.0.0.2/24")
			r.stop()
			// The records as they are, but not to be read.
			r.store.unreadable(c.damaged)
			r.damaged = []Damage{c.damaged}
			r.load()
			r.run()
			r.settle()
			host, _ := eid("a").Links()
			if !strings.Contains(r.fabric.String(), host) {
				t.Error("the port is gone before Docker said so")
			}
			c.remove(r)
			time.Sleep(7 * time.Minute) // what has no record is only found by a look for leftovers
			r.settle()
			if strings.Contains(r.fabric.String(), host) || len(r.Damaged()) > 0 || r.store.hasUnreadable() {
				t.Errorf("left of %v: %v\n%s\n%s", c.damaged, r.Damaged(), r.fabric, r.store)
			}
			r.check()
			r.delete("n")
			r.delete("other")
			r.settle()
			r.empty()
		})
	}
}

// What an unreadable record describes is not taken for a leftover; what no record
// describes is.
func TestPruneSparesDamage(t *testing.T) {
	for name, d := range map[string]Damage{
		"network": {Path: "p", Network: nid("n"), Err: errGarbage}, "endpoint": {Path: "p", Network: nid("n"), Endpoint: eid("a"), Err: errGarbage},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := withDamage(t, d)
			r.create("whole", "10.0.0.0/24", "bridge=br0")
			r.join("whole", "w", "10.0.0.2/24")
			for network, endpoint := range map[string]string{"n": "a", "m": "b", "whole": "c"} {
				host, _ := eid(endpoint).Links()
				r.fabric.with(func(f *fakeFabric) {
					f.links[host] = eid(endpoint)
					f.ports[host] = fakePort{bridge: "br0", network: string(nid(network)), endpoint: string(eid(endpoint))}
				})
			}
			time.Sleep(15 * time.Second) // the first look for leftovers
			synctest.Wait()
			for endpoint, stays := range map[string]bool{"a": true, "b": false, "c": false, "w": true} {
				host, _ := eid(endpoint).Links()
				if got := strings.Contains(r.fabric.String(), host); got != stays {
					t.Errorf("%s damaged: port of %s is there: %v", name, endpoint, got)
				}
			}
		})
	}
}
