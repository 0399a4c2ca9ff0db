package network_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	. "github.com/ovs-container-network/ovs-container-network/internal/network"
)

// An endpoint is durable when the answer is given, and nothing is made of it yet.
// The same request again gives the same answer and changes nothing.
func TestCreateEndpoint(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24")
		applies := len(r.applies("n"))
		req := endpointRequest("n", "a", "10.0.0.2/24", "vlan=7", "mtu=1400", "external_ids=k=V", "com.docker.network.portmap=")
		ep, err := r.CreateEndpoint(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		tag := uint16(7)
		want := Endpoint{
			ID: eid("a"), Network: nid("n"), MAC: ep.MAC, Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.2/24")}, VLAN: &tag, MTU: 1400,
			ExternalIDs: opts("k=V"), Phase: PhaseCreated, Changed: time.Now(),
		}
		if diff := cmp.Diff(want, ep, sameNetworks); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if !r.store.isSynced(endpointFile(ep)) {
			t.Error("the answer was given before the record would survive a power cut")
		}
		before := r.store.String()
		again, err := r.CreateEndpoint(t.Context(), req)
		if diff := cmp.Diff(ep, again, sameNetworks); diff != "" || err != nil || r.store.String() != before {
			t.Errorf("second request: %v (-want +got):\n%s", err, diff)
		}
		if len(r.applies("n")) != applies {
			t.Error("the switch was touched while dockerd holds its lock")
		}
		r.check()
	})
}

// A MAC that the user gave is kept, in the usual spelling; one that no link can
// have is refused.
func TestGivenMAC(t *testing.T) {
	for given, want := range map[string]string{
		"02:42:ac:11:00:02": "02:42:ac:11:00:02", "02-42-AC-11-00-0A": "02:42:ac:11:00:0a", "00:16:3e:00:00:01": "00:16:3e:00:00:01",
		"01:00:5e:00:00:01": "", "ff:ff:ff:ff:ff:ff": "", "02:42:ac:11:00": "", "02:42:ac:11:00:02:03:04": "", "hello": "",
	} {
		inBubble(t, func(t *testing.T, r *rig) {
			r.create("n", "10.0.0.0/24")
			req := endpointRequest("n", "a", "10.0.0.2/24")
			req.MAC = given
			ep, err := r.CreateEndpoint(t.Context(), req)
			switch {
			case want == "":
				refused(t, err, "cannot attach to network", "--mac-address", given, "unicast")
				if _, ok := r.findEndpoint("a"); ok {
					t.Errorf("%s: an endpoint is there", given)
				}
			case err != nil || ep.MAC != want:
				t.Errorf("%s became %s, %v", given, ep.MAC, err)
			}
			r.check()
		})
	}
}

// What cannot be attached is refused with the reason, and nothing is kept.
func TestCreateEndpointFails(t *testing.T) {
	for name, c := range map[string]struct {
		options  []string // of the network
		endpoint []string // its options
		addr     string
		change   func(*EndpointRequest)
		spoil    func(*rig)
		words    []string
	}{
		"unknown network": {change: func(q *EndpointRequest) { q.Network = nid("other") }, words: []string{"does not know the network", "create it again"}},
		"bad options":     {endpoint: []string{"vlan=auto", "trunk=0"}, words: []string{`vlan="auto"`, `trunk="0"`}},
		"small MTU":       {endpoint: []string{"mtu=1279"}, addr: "fd00::2/64", words: []string{`mtu="1279"`, "IPv6"}},
		"store":           {spoil: func(r *rig) { r.store.failOn("PutEndpoint") }, words: []string{errDisk.Error()}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				nets := subnets("10.0.0.0/24", "fd00::/64")
				if err := r.CreateNetwork(t.Context(), CreateRequest{ID: nid("n"), Options: opts(c.options...), Subnets: nets}); err != nil {
					t.Fatal(err)
				}
				if c.addr == "" {
					c.addr = "10.0.0.2/24"
				}
				req := endpointRequest("n", "a", c.addr, c.endpoint...)
				if c.change != nil {
					c.change(&req)
				}
				if c.spoil != nil {
					c.spoil(r)
				}
				_, err := r.CreateEndpoint(t.Context(), req)
				refused(t, err, append(c.words, "cannot attach to network "+req.Network.Short())...)
				r.store.mend()
				r.settle()
				r.check()
				if _, ok := r.findEndpoint("a"); ok {
					t.Error("the endpoint is there")
				}
				r.join("n", "b", "10.0.0.2/24")
			})
		})
	}
}

// A caller who is gone when the record was written gets no endpoint: dockerd
// gives the address away and sends no DeleteEndpoint.
func TestCreateEndpointCancelled(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errors.New("the engine hung up"))
		_, err := r.CreateEndpoint(ctx, endpointRequest("n", "a", "10.0.0.2/24"))
		refused(t, err, "the engine hung up")
		r.check()
		if _, ok := r.findEndpoint("a"); ok || strings.Contains(r.store.String(), "endpoints") {
			t.Errorf("the endpoint is there:\n%s", r.store)
		}
		r.join("n", "b", "10.0.0.2/24")
	})
}

// Networks that are being made or removed take no endpoints, and an endpoint that
// is being removed is not taken for a new one.
func TestCreateEndpointAtBadTimes(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24")
		r.join("n", "a", "10.0.0.2/24")
		r.downFabric()
		if err := r.DeleteEndpoint(t.Context(), nid("n"), eid("a")); err != nil {
			t.Fatal(err)
		}
		refused(t, r.tryEndpoint("n", "a", "10.0.0.3/24"), "being removed")
		if err := r.DeleteNetwork(t.Context(), nid("n")); err != nil {
			t.Fatal(err)
		}
		refused(t, r.tryEndpoint("n", "b", "10.0.0.4/24"), "the network is deleting")
		r.up()
		r.settle()
		r.empty()
	})
}

// A network that is removed between the look at it and the write of the endpoint
// has no endpoint afterwards.
func TestCreateEndpointMeetsDelete(t *testing.T) {
	for _, down := range []bool{false, true} {
		inBubble(t, func(t *testing.T, r *rig) {
			r.create("n", "10.0.0.0/24")
			var once bool
			r.now = func() time.Time {
				if !once {
					once = true
					if down {
						r.downFabric()
					}
					if err := r.DeleteNetwork(t.Context(), nid("n")); err != nil {
						t.Error(err)
					}
				}
				return time.Now()
			}
			r.stop()
			r.load()
			r.run()
			if err := r.tryEndpoint("n", "a", "10.0.0.2/24"); err == nil {
				t.Errorf("down %v: an endpoint was made on a network that is gone", down)
			}
			r.up()
			r.settle()
			r.empty()
		})
	}
}
