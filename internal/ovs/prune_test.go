package ovs

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// prune is one look for leftovers, so long after the last one.
func (r *rig) prune(age time.Duration, keep []network.Network, spare ...string) {
	r.t.Helper()
	now := r.f.now().Add(age)
	r.f.now = func() time.Time { return now }
	_, err := r.f.Prune(r.t.Context(), keep, func(n network.ID, ep network.EndpointID) bool {
		return slices.Contains(spare, string(n)+"/"+string(ep))
	})
	check(r.t, err)
	r.flush()
}

// leftovers are the names of ports, links and bridges that carry our mark.
func (r *rig) leftovers() string {
	r.t.Helper()
	var names []string
	for table, list := range r.rows() {
		for _, w := range list {
			if table != "Interface" && w.ids()[network.KeyOwner] == network.Owner && w.name() != "br-probe" && !strings.HasSuffix(w.name(), "ffff") {
				names = append(names, strings.ToLower(table)+" "+w.name())
			}
		}
	}
	links, err := r.k.List()
	check(r.t, err)
	for _, l := range links {
		if strings.HasPrefix(l.Alias, network.Owner) && !strings.HasSuffix(l.Name, "ffff") {
			names = append(names, "link "+l.Name)
		}
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// What is left of an endpoint that nobody knows goes, but never on the strength
// of one look, nor of two soon after each other.
func TestPrune(t *testing.T) {
	r := newRig(t)
	n := newNet("n1", "br-int", 5)
	kept := endpoint(1)
	r.attach(n, kept, endpoint(2))
	r.attach(newNet("n2", "br2", 5), endpoint(3))
	keep := []network.Network{join(n, network.PhaseJoined, kept), probe()}
	all := "bridge br-int, bridge br2, link ocn000000000001, link ocn000000000002, link ocn000000000003, " +
		"port ocn000000000001, port ocn000000000002, port ocn000000000003"
	for _, age := range []time.Duration{0, 0, network.LeftoverGrace - 10*time.Second} {
		r.prune(age, keep)
		if diff := cmp.Diff(all, r.leftovers()); diff != "" {
			t.Fatalf("after %v: %s", age, diff)
		}
	}
	r.prune(network.LeftoverGrace, keep) // ports and links, and then the bridge, which is empty by now
	if diff := cmp.Diff("bridge br-int, link ocn000000000001, port ocn000000000001", r.leftovers()); diff != "" {
		t.Error(diff)
	}
	r.prune(0, keep)
	if _, suspected := r.f.Suspected(network.Leftover{Kind: "port", Name: "ocn000000000002"}); suspected {
		t.Error("what is gone is still suspected")
	}
	r.unchangedBy(keep[0])
}

// A suspect that is wanted again at any look is none any more.
func TestPruneAcquitted(t *testing.T) {
	r := newRig(t)
	n := newNet("n1", "br-int", 5)
	kept := []network.Network{r.attach(n, endpoint(1)), probe()}
	before := r.leftovers()
	without := []network.Network{n, kept[1]}
	r.prune(0, without)
	r.prune(0, kept)
	r.prune(network.LeftoverGrace, without)
	if diff := cmp.Diff(before, r.leftovers()); diff != "" {
		t.Error(diff)
	}
}

// What a running container may still use stays, and so does what belongs to a
// record that could not be read.
func TestPruneSpares(t *testing.T) {
	const stays = "bridge br-int, link ocn000000000001, port ocn000000000001"
	ep := endpoint(1)
	for name, c := range map[string]struct {
		running bool
		spare   []string
		want    string
	}{
		"running":          {true, nil, stays},
		"damaged network":  {false, []string{"n1/" + string(ep.ID), "/" + string(ep.ID), "/"}, stays},
		"nobody's":         {false, nil, ""},
		"damaged, no port": {false, []string{"/"}, "bridge br-int"},
	} {
		t.Run(strings.NewReplacer(" ", "-", ",", "", "'", "").Replace(name), func(t *testing.T) {
			r := newRig(t)
			r.attach(newNet("n1", "br-int", 5), ep)
			if c.running {
				r.enter(ep)
			}
			keep := []network.Network{probe()}
			for range 4 {
				r.prune(network.LeftoverGrace, keep, c.spare...)
			}
			if diff := cmp.Diff(c.want, r.leftovers()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Rows and links of others are no leftovers, whatever they are called.
func TestPruneForeign(t *testing.T) {
	r := newRig(t)
	n := newNet("n1", "br-int", 5)
	r.apply(n)
	r.vsctl("add-br", "br9", "--", "set", "bridge", "br9", "datapath_type=netdev",
		"--", "add-port", "br-int", "ocn00000000aaaa", "--", "set", "interface", "ocn00000000aaaa", "type=internal",
		"--", "add-port", "br9", "p9", "--", "set", "interface", "p9", "type=internal", "external_ids:endpoint_id=x", "external_ids:owner=somebody")
	r.device(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "ocn00000000bbbb"}, PeerName: "oc-00000000bbbb"})
	r.link("ocn00000000bbbb", func(l netlink.Link) error { return netlink.LinkSetAlias(l, "mine") })
	r.guard()
	for range 4 {
		r.prune(network.LeftoverGrace, []network.Network{probe()})
	}
	for _, name := range []string{"ocn00000000aaaa", "ocn00000000bbbb", "oc-00000000bbbb", "br9", "p9", "br-int"} {
		if _, ok, err := r.k.Get(name); !ok || err != nil {
			t.Errorf("%s is gone", name)
		}
	}
	if diff := cmp.Diff("bridge br-int", r.leftovers()); diff != "" {
		t.Errorf("a bridge of ours with a port of others: %s", diff)
	}
}

// Prune looks at many things at once, and at nothing that is in order.
func TestPruneMany(t *testing.T) {
	r := newRig(t)
	n := newNet("n1", "br-int", 5)
	var eps, lost []network.Endpoint
	for i := range 40 {
		eps = append(eps, endpoint(i))
	}
	r.attach(n, eps...)
	var want []string
	for i, ep := range eps {
		if i%2 == 0 {
			lost = append(lost, ep)
			continue
		}
		want = append(want, fmt.Sprintf("link ocn%012x", i), fmt.Sprintf("port ocn%012x", i))
	}
	keep := []network.Network{join(n, network.PhaseJoined, eps...), probe()}
	for _, ep := range lost {
		keep[0] = keep[0].WithoutEndpoint(ep.ID)
	}
	r.prune(0, keep)
	r.prune(network.LeftoverGrace, keep)
	slices.Sort(want)
	if diff := cmp.Diff("bridge br-int, "+strings.Join(want, ", "), r.leftovers()); diff != "" {
		t.Error(diff)
	}
}
