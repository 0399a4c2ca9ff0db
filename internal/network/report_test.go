package network_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	. "github.com/ovs-container-network/ovs-container-network/internal/network"
)

// A report says of each network and endpoint what is wanted and what is there, in
// the order of creation, and why something is not in order.
func TestReports(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		if got, err := json.Marshal(r.Reports()); string(got) != "[]" || err != nil {
			t.Errorf("without networks: %s, %v", got, err)
		}
		r.fabric.with(func(f *fakeFabric) { f.bridges["theirs"] = false })
		r.create("auto", "10.0.0.0/24", "tenant_id=blue")
		r.settle()
		r.must(nil, r.CreateNetwork(t.Context(), CreateRequest{
			ID: nid("six"), Options: opts("bridge=theirs", "vlan=none", "mtu=9000", "ipam=static", "external_ids=k=v", "gateway_mode=none"), Internal: true,
			Subnets: subnets("10.0.0.0/24", "fd00::/64"),
		}))
		r.settle()
		r.create("going", "10.0.5.0/24", "vlan=7")
		r.join("auto", "a", "10.0.0.2/24")
		r.endpoint("auto", "b", "", "vlan=12", "mtu=1400", "external_ids=k=own")
		r.join("going", "c", "10.0.5.2/24")
		r.must(nil, r.Annotate(nid("auto"), "web", map[EndpointID]Container{eid("a"): {ID: "c-a", Name: "shop"}}))
		r.settle()
		r.fabric.with(func(f *fakeFabric) { f.failing[eid("c")] = errors.New("busy") })
		r.delete("going")
		text, err := json.MarshalIndent(r.Reports(), "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "reports.json", string(text)+"\n")
		r.downFabric()
		for _, report := range r.Reports() {
			if report.Health != "degraded" || len(report.Problems) == 0 {
				t.Errorf("while the switch cannot be reached: %+v", report)
			}
		}
	})
}

// Settings read like what a user types.
func TestConfigText(t *testing.T) {
	c, err := ParseOptions(opts("bridge=br0", "vlan=7", "mtu=1400", "tenant_id=blue", "ipam=static", "gateway_mode=none"), false, subnets("10.0.0.0/24"))
	if err != nil {
		t.Fatal(err)
	}
	text := c.String()
	again, err := ParseOptions(opts(strings.Fields(text)...), false, subnets("10.0.0.0/24"))
	if err != nil || again.String() != text || again.VLAN != c.VLAN || again.TenantID != c.TenantID || again.IPAM != c.IPAM || again.MTU != c.MTU {
		t.Errorf("%q is taken for %q, %v", text, again, err)
	}
}

// An error of many endpoints names one of them and says how many failed; one that
// only lingers is told from one that failed.
func TestApplyError(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		errs           map[EndpointID]error
		text           string
		lingers, fails bool
	}{
		{map[EndpointID]error{eid("a"): broken}, eid("a").Short() + ": broken", false, true},
		{map[EndpointID]error{eid("a"): broken, eid("b"): broken, eid("c"): ErrLingering}, "3 endpoints failed", false, true},
		{map[EndpointID]error{eid("a"): ErrLingering, eid("b"): ErrLingering}, "2 endpoints", true, false},
		{nil, "no endpoint failed", false, false},
	} {
		var err error = &ApplyError{Endpoints: c.errs}
		if !strings.Contains(err.Error(), c.text) || errors.Is(err, ErrLingering) != c.lingers || errors.Is(err, broken) != c.fails {
			t.Errorf("got %q, lingering %v, broken %v", err, errors.Is(err, ErrLingering), errors.Is(err, broken))
		}
	}
}
