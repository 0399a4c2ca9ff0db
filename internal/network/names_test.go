package network_test

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	. "github.com/ovs-container-network/ovs-container-network/internal/network"
)

// Names of links fit into Linux's 15 bytes, start with what marks them, and
// differ for all endpoints that a host will ever see.
func TestLinkNames(t *testing.T) {
	random, raw := rand.NewChaCha8([32]byte{}), [32]byte{}
	const hosts = 100_000
	seen := make(map[string]EndpointID, 2*hosts)
	note := func(id EndpointID, name string) {
		if old, taken := seen[name]; taken {
			t.Fatalf("%q and %q have the same name %s", old, id, name)
		}
		if len(name) > 15 || strings.ContainsAny(name, "/ :") {
			t.Fatalf("%q is no name for a link", name)
		}
		seen[name] = id
	}
	for range hosts {
		random.Read(raw[:])
		id := EndpointID(hex.EncodeToString(raw[:]))
		host, peer := id.Links()
		note(id, host)
		note(id, peer)
		if !strings.HasPrefix(host, LinkPrefix) || strings.HasPrefix(peer, LinkPrefix) {
			t.Fatalf("the names %s, %s do not tell which end it is", host, peer)
		}
	}
	// Ids that are not hexadecimal are hashed, however like each other they look.
	for i := range 1000 {
		id := EndpointID(fmt.Sprintf("swarm-endpoint-number-%d", i))
		host, peer := id.Links()
		note(id, host)
		note(id, peer)
	}
	for _, id := range []EndpointID{"", "a", "0123456789a", "0123456789a/", "ÄÖÜ456789abcdef", "0123456789ag", "../../etc/passwd"} {
		host, peer := id.Links()
		note(id, host)
		note(id, peer)
	}
}

// The names and the derived MAC of an endpoint never change from one version to
// the next: links that exist are found by them.
func TestNamesAreStable(t *testing.T) {
	var b strings.Builder
	for _, id := range []EndpointID{eid("a"), eid("b"), "0123456789ab", "x1p2r3sjkq8dj2v0c8k0l4a7b", "", "short"} {
		host, peer := id.Links()
		fmt.Fprintf(&b, "%-64q %s %s\n", id, host, peer)
	}
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24")
		for _, addr := range []string{"", "10.0.0.2/24", "fd00::2/64"} {
			ep, err := r.CreateEndpoint(t.Context(), endpointRequest("n", "of "+addr, addr))
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "%-66q %s\n", addr, ep.MAC)
		}
	})
	golden(t, "names.txt", b.String())
}

// On a logical switch an address has the same MAC on all hosts: their networks have
// other ids.
func TestMACOnSwitch(t *testing.T) {
	mac := func(id ID, sw, addr string) string {
		n := Network{ID: id, Config: Config{OVN: &OVN{Switch: sw}}}
		return MACFor(n, Endpoint{ID: EndpointID(id), Network: id, Addrs: []netip.Prefix{netip.MustParsePrefix(addr)}})
	}
	if a, b := mac("n1", "ls1", "10.0.0.2/24"), mac("n2", "ls1", "10.0.0.2/24"); a != b {
		t.Errorf("the MAC is %s on one host and %s on the other", a, b)
	}
	if a, b := mac("n1", "ls1", "10.0.0.2/24"), mac("n1", "ls2", "10.0.0.2/24"); a == b {
		t.Errorf("the MAC is %s on two switches", a)
	}
	if a, b := mac("n1", "ls1", "10.0.0.2/24"), mac("n1", "ls1", "10.0.0.3/24"); a == b {
		t.Errorf("two addresses have the MAC %s", a)
	}
}

// A MAC that nobody gave is locally administered and unicast, and another one
// for every endpoint without an address, every address and every network.
func TestDerivedMACs(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24")
		seen := map[string]bool{}
		r.create("m", "10.0.0.0/24")
		for i := range 300 {
			network, addr := "n", ""
			if i >= 100 {
				network, addr = []string{"n", "m"}[i%2], fmt.Sprintf("10.0.0.%d/24", i/2)
			}
			ep, err := r.CreateEndpoint(t.Context(), endpointRequest(network, fmt.Sprint(i), addr))
			if err != nil {
				t.Fatal(err)
			}
			var first byte
			if _, err := fmt.Sscanf(ep.MAC, "%02x:", &first); err != nil || len(ep.MAC) != 17 || first&3 != 2 || seen[ep.MAC] {
				t.Errorf("endpoint %d got MAC %s, %v", i, ep.MAC, err)
			}
			seen[ep.MAC] = true
		}
	})
}

// A container that takes an address over has its MAC too, so that neighbours who
// remember it reach the new one.
func TestMACFollowsAddress(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24")
		r.join("n", "old", "10.0.0.2/24")
		old, _ := r.findEndpoint("old")
		r.deleteEndpoint("n", "old")
		r.join("n", "new", "10.0.0.2/24")
		r.settle()
		if got, _ := r.findEndpoint("new"); got.MAC != old.MAC {
			t.Errorf("got %s, the address had %s", got.MAC, old.MAC)
		}
		r.check()
	})
}
