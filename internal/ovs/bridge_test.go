package ovs

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

const (
	ownBridge      = "bridge br-int owner=ovs-container-network\n"
	restoredBridge = "bridge br-int restored-by=ovs-container-network\n"
	theirBridge    = "bridge br-int \n"
)

// Apply makes the bridge that a network needs, marked as ours if it is; a bridge
// that is there is taken as it is. A network that is being deleted needs none.
func TestApplyBridge(t *testing.T) {
	foreign := newNet("n1", "br-int", 5)
	foreign.OwnsBridge = false
	deleting := newNet("n1", "br-int", 5)
	deleting.Phase = network.PhaseDeleting
	there := []string{"add-br", "br-int", "--", "set", "bridge", "br-int", "datapath_type=netdev", "stp_enable=true", "fail_mode=secure"}
	for name, c := range map[string]struct {
		setup []string
		n     network.Network
		want  string
	}{
		"missing":            {nil, newNet("n1", "br-int", 5), ownBridge},
		"of others, missing": {nil, foreign, restoredBridge},
		"of others":          {there, foreign, theirBridge},
		"claimed, of others": {there, newNet("n1", "br-int", 5), theirBridge},
		"deleting":           {nil, deleting, ""},
	} {
		t.Run(strings.NewReplacer(" ", "-", ",", "").Replace(name), func(t *testing.T) {
			r := newRig(t)
			if c.setup != nil {
				r.vsctl(c.setup...)
			}
			r.guard()
			r.apply(c.n)
			if diff := cmp.Diff(c.want, r.text()); diff != "" {
				t.Error(diff)
			}
			b := findBridge(r.view(), "br-int")
			if (b != nil) != (c.want != "") || b != nil && deref(b.DatapathID) == "" {
				t.Errorf("when Apply returns, the bridge is %+v", b)
			}
			r.unchangedBy(c.n)
		})
	}
}

// Networks that need the same new bridge at the same time share it.
func TestApplyBridgeTogether(t *testing.T) {
	r := newRig(t)
	const many = 10
	results := make(chan error, many)
	for i := range many {
		n := join(newNet(fmt.Sprint("n", i), "br-int", uint16(10+i)), network.PhaseJoining, endpoint(i))
		go func() { results <- r.f.Apply(t.Context(), n) }()
	}
	for range many {
		check(t, await(t, "an Apply", results))
	}
	if got := strings.Count(r.text(), "  port "); got != many || !strings.HasPrefix(r.text(), ownBridge) {
		t.Errorf("%d ports:\n%s", got, r.text())
	}
}

// A bridge that cannot be made is an error that names it and what to do, for
// all endpoints.
func TestApplyBridgeFails(t *testing.T) {
	r := newRig(t)
	// A bridge of a datapath that this ovs-vswitchd does not have.
	r.run("ovs-vsctl", "--no-wait", "--db=unix:"+r.sock, "add-br", "br-int", "--", "set", "bridge", "br-int", "datapath_type=other")
	r.guard()
	err := r.f.Apply(t.Context(), join(newNet("n1", "br-int", 5), network.PhaseJoining, endpoint(1)))
	want := `bridge br-int is not ready: ovs-vswitchd could not make it with datapath_type="other" (see ovs-vswitchd.log)`
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	if s := r.f.Observe(newNet("n1", "br-int", 5)); s.Health != healthDegraded || !strings.Contains(fmt.Sprint(s.Problems), "bridge br-int was not made by ovs-vswitchd") {
		t.Errorf("observed %+v", s)
	}
}

// Remove takes away what is left of a network, and its bridge only if it is
// ours, nobody needs it, and nobody else has a port on it.
func TestRemove(t *testing.T) {
	port := func(i int, network string) string {
		return fmt.Sprintf("  port ocn%012x tag 5 mode access trunks [] endpoint_id=%s network_id=%s owner=ovs-container-network\n"+
			"    interface ocn%012x type \"\" attached-mac=%s endpoint_id=%s network_id=%s owner=ovs-container-network\n",
			i, endpoint(i).ID, network, i, endpoint(i).MAC, endpoint(i).ID, network)
	}
	foreign := func(n network.Network) network.Network { n.OwnsBridge = false; return n }
	for name, c := range map[string]struct {
		setup func(r *rig)
		n     network.Network
		keep  bool
		want  string
	}{
		"last":         {func(r *rig) {}, newNet("n1", "br-int", 5), false, ""},
		"kept":         {func(r *rig) {}, newNet("n1", "br-int", 5), true, ownBridge},
		"port of ours": {func(r *rig) { r.attach(newNet("n2", "br-int", 5), endpoint(2)) }, newNet("n1", "br-int", 5), false, ownBridge + port(2, "n2")},
		"port of others": {
			func(r *rig) { r.vsctl("add-port", "br-int", "p9", "--", "set", "interface", "p9", "type=internal") },
			newNet("n1", "br-int", 5), false, ownBridge + "  port p9 tag [set []] mode [set []] trunks [] \n    interface p9 type \"internal\" \n",
		},
		"mark removed": {func(r *rig) { r.vsctl("clear", "bridge", "br-int", "external_ids") }, newNet("n1", "br-int", 5), false, theirBridge},
		"OVN has it":   {func(r *rig) { r.vsctl("set", "bridge", "br-int", "external_ids:ovn-nb-cfg=1") }, newNet("n1", "br-int", 5), false, "bridge br-int ovn-nb-cfg=1 owner=ovs-container-network\n"},
		"bridge of others": {
			func(r *rig) { r.vsctl("del-br", "br-int"); r.attach(foreign(newNet("n1", "br-int", 5)), endpoint(1)) },
			foreign(newNet("n1", "br-int", 5)), false, restoredBridge,
		},
		"gone already": {func(r *rig) { r.vsctl("del-br", "br-int") }, newNet("n1", "br-int", 5), false, ""},
		"forgotten port": {
			func(r *rig) { r.attach(newNet("n1", "br-int", 5), endpoint(3), endpoint(4)) }, newNet("n1", "br-int", 5), false, "",
		},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			r := newRig(t)
			r.attach(c.n, endpoint(1))
			c.setup(r)
			r.guard()
			c.n.Phase = network.PhaseDeleting
			for range 2 {
				check(t, r.f.Remove(t.Context(), c.n, c.keep))
				if diff := cmp.Diff(c.want, r.text()); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

// The bridge of the network before can be made again at once, with its device.
func TestRemoveAndMake(t *testing.T) {
	r := newRig(t)
	for range 3 {
		n := newNet("n1", "br-int", 5)
		r.apply(n)
		check(t, r.f.Remove(t.Context(), n, false))
		check(t, r.f.Ready(t.Context(), network.Config{}))
		if got := r.planned(config("br-int", network.VLANAuto, 0)); got != "br-int auto 4094 owned=true" {
			t.Errorf("planned %s", got)
		}
	}
	r.device(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br-int"}})
	if got := r.planned(config("br-int", network.VLANAuto, 0)); !strings.Contains(got, "a network device of that name exists") {
		t.Errorf("planned %s", got)
	}
}

// A port that somebody adds while the bridge is being removed keeps it.
func TestRemoveBridgeGuard(t *testing.T) {
	r := newRig(t)
	n := newNet("n1", "br-int", 5)
	r.apply(n)
	v := r.view()
	b, o := findBridge(v, "br-int"), root(v)
	ops := delBridge(o, b)
	r.vsctl("add-port", "br-int", "p9", "--", "set", "interface", "p9", "type=internal")
	r.guard()
	if _, err := r.f.db.Commit(t.Context(), ops, nil); err == nil || !strings.Contains(err.Error(), "changed meanwhile") {
		t.Errorf("got %v", err)
	}
	// The same for a port that is added to a bridge that goes.
	r.vsctl("del-port", "p9", "--", "del-br", "br-int")
	r.guard()
	ep, _ := join(n, network.PhaseJoining, endpoint(1)).Endpoint(endpoint(1).ID)
	if _, err := r.f.db.Commit(t.Context(), addPort("br-int", "ocn1", n.Port(ep), ep), nil); err == nil || !strings.Contains(err.Error(), "changed meanwhile") {
		t.Errorf("got %v", err)
	}
}

// The device of a bridge that is removed while ovs-vswitchd does not run goes
// too, and does not stand in the way of the next bridge of that name.
func TestRemoveWithoutVswitchd(t *testing.T) {
	r := newRig(t)
	n := newNet("n1", "br-int", 5)
	r.attach(n, endpoint(1))
	r.remove(n, endpoint(1))
	end(r.vsd)
	r.device(&netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "vnet0"}, Mode: netlink.TUNTAP_MODE_TAP})
	check(t, r.f.Remove(t.Context(), n, false))
	eventually(t, "the device is gone", func() bool {
		_, there, err := r.k.Get("br-int")
		return err == nil && !there
	})
	for _, name := range []string{"vnet0", "foreign0", "fport0"} {
		if _, there, err := r.k.Get(name); err != nil || !there {
			t.Errorf("%s is gone, too", name)
		}
	}
	r.startVswitchd()
	if got := r.planned(config("br-int", network.VLANNone, 0)); got != "br-int none 0 owned=true" {
		t.Errorf("planned %s", got)
	}
	r.attach(n, endpoint(2))
}
