package network_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	. "github.com/ovs-container-network/ovs-container-network/internal/network"
)

// settle lets the repair loop do what it has to do.
func (r *rig) settle() {
	time.Sleep(3 * time.Second)
	synctest.Wait()
}

// check compares what is wanted, what is stored and what is there. Nothing may
// be half done.
func (r *rig) check() {
	r.t.Helper()
	all := r.Networks()
	var want []string
	bridges := map[string]bool{}
	claims := 0
	for _, n := range all {
		if n.Phase != PhaseActive {
			r.t.Errorf("network %s is %s", n.ID.Short(), n.Phase)
		}
		bridges[n.Config.Bridge] = true
		for _, ep := range n.SortedEndpoints() {
			claims += 1 + len(ep.Addrs)
			if len(n.Port(ep).Trunk) > 0 {
				claims++ // its MAC is in other VLANs, too
			}
			host, _ := ep.ID.Links()
			switch {
			case ep.Phase == PhaseJoined && r.fabric.linked(host):
				want = append(want, portLine(host, n.Config.Bridge, n.Port(ep)))
			case ep.Phase != PhaseCreated && ep.Phase != PhaseJoined && ep.Phase != PhaseLeft:
				r.t.Errorf("endpoint %s is %s", ep.ID.Short(), ep.Phase)
			}
		}
	}
	for name := range bridges {
		want = append(want, "bridge "+name)
	}
	var got []string
	for line := range strings.SplitSeq(r.fabric.String(), "\n") {
		line = strings.TrimSuffix(strings.TrimSuffix(line, " ours=true"), " ours=false")
		if line != "" && !r.unjoined(strings.Fields(line)[1]) {
			got = append(got, line)
		}
	}
	sortStrings := cmpopts.SortSlices(func(a, b string) bool { return a < b })
	if diff := cmp.Diff(want, got, sortStrings, cmpopts.EquateEmpty()); diff != "" {
		r.t.Errorf("the fabric differs from what is wanted (-want +there):\n%s", diff)
	}
	stored := r.store.load()
	for _, n := range stored {
		for _, ep := range n.Endpoints {
			if ep.Phase == PhaseJoining { // as the next process reads it
				ep.Phase = PhaseCreated
			}
		}
	}
	if diff := cmp.Diff(all, stored, sameNetworks); diff != "" {
		r.t.Errorf("the store differs from what is wanted (-want +stored):\n%s", diff)
	}
	if got := r.Claims(); got != claims {
		r.t.Errorf("%d addresses and MACs are occupied, the endpoints have %d", got, claims)
	}
	if got := r.pools.count(); got > len(all) {
		r.t.Errorf("pools are tied to %d networks, there are %d", got, len(all))
	}
}

// unjoined tells whether a link or port belongs to an endpoint that left its
// container and was not deleted yet, or lost its link: either may still be there.
func (r *rig) unjoined(name string) bool {
	for _, n := range r.Networks() {
		for _, ep := range n.SortedEndpoints() {
			if host, _ := ep.ID.Links(); host == name && (ep.Phase != PhaseJoined || !r.fabric.linked(host)) {
				return true
			}
		}
	}
	return false
}

// empty checks that nothing is left of anything.
func (r *rig) empty() {
	r.t.Helper()
	r.check()
	for what, got := range map[string]string{
		"networks": fmt.Sprint(r.Networks()), "store": r.store.String(), "fabric": r.fabric.String(), "claims": fmt.Sprint(r.Claims()),
		"pools": fmt.Sprint(r.pools.count()),
	} {
		if !slices.Contains([]string{"", "[]", "0"}, got) {
			r.t.Errorf("%s not empty:\n%s", what, got)
		}
	}
}

// sameNetworks compares what is stored of networks.
var sameNetworks = cmp.Options{
	cmpopts.IgnoreFields(Network{}, "Rev"), cmpopts.IgnoreFields(Endpoint{}, "Rev", "Unsure"), cmpopts.EquateEmpty(),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) }),
	cmpopts.SortSlices(func(a, b Network) bool { return a.ID < b.ID }),
}

// refused checks that an error is there and says all of the words.
func refused(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("got no error, want one with %q", words)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("got %q, want %q in it", err, w)
		}
	}
}
