package ovs

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// Observe tells what is there, in words that a person can act on, and changes
// nothing.
func TestObserve(t *testing.T) {
	ep := endpoint(1)
	host, _ := ep.ID.Links()
	ok := network.EndpointStatus{Port: host, OFPort: 1, Linked: true, Health: healthOK}
	failed := func(reason string) network.EndpointStatus {
		s := ok
		s.Health, s.Reason = healthDegraded, reason
		return s
	}
	with := func(s network.EndpointStatus, ofport int, linked bool) network.EndpointStatus {
		s.OFPort, s.Linked = ofport, linked
		return s
	}
	for name, c := range map[string]struct {
		change   func(r *rig, n network.Network) network.Network
		problems []string
		ep       network.EndpointStatus
	}{
		"good": {func(r *rig, n network.Network) network.Network { return n }, nil, ok},
		"link down": {
			func(r *rig, n network.Network) network.Network { r.link(host, netlink.LinkSetDown); return n },
			nil, failed("its link is down"),
		},
		"link gone": {
			func(r *rig, n network.Network) network.Network { r.link(host, netlink.LinkDel); return n },
			nil, with(failed("its link is gone: restart the container"), -1, false),
		},
		"port gone": {
			func(r *rig, n network.Network) network.Network { r.vsctl("del-port", host); return n },
			nil, with(failed("its port vanished from the database"), 0, true),
		},
		"left": {
			func(r *rig, n network.Network) network.Network {
				n = join(n, network.PhaseLeft, ep)
				r.apply(n)
				return n
			},
			nil, network.EndpointStatus{Port: host, Linked: true, Health: healthDetached, Reason: "left"},
		},
		"deleting": {
			func(r *rig, n network.Network) network.Network { return join(n, network.PhaseDeleting, ep) },
			nil, failed("is being removed"),
		},
		"bridge gone": {
			func(r *rig, n network.Network) network.Network { r.vsctl("del-br", "br-int"); return n },
			[]string{"bridge br-int does not exist"}, with(failed("its port vanished from the database"), 0, true),
		},
		"bridge restored": {
			func(r *rig, n network.Network) network.Network {
				r.vsctl("set", "bridge", "br-int", "external_ids:restored-by=ovs-container-network")
				return n
			},
			[]string{"bridge br-int of others was lost and made again without its settings: set it up again, then run ovs-vsctl remove bridge br-int external_ids restored-by"}, ok,
		},
		"uplink, given tag": {
			func(r *rig, n network.Network) network.Network {
				r.vsctl("add-port", "br-int", "up0", "--", "set", "interface", "up0", "type=vxlan", "options:remote_ip=192.0.2.1")
				return n
			},
			nil, ok,
		},
		"uplink, chosen tag": {
			func(r *rig, n network.Network) network.Network {
				r.vsctl("add-port", "br-int", "up0", "--", "set", "interface", "up0", "type=vxlan", "options:remote_ip=192.0.2.1")
				n.Config.VLANMode = network.VLANAuto
				return n
			},
			[]string{"bridge br-int got an uplink (port up0, type vxlan): the automatic VLAN 5 now reaches it"}, ok,
		},
		"database away": {
			func(r *rig, n network.Network) network.Network {
				end(r.dbd)
				eventually(r.t, "the loss", func() bool { connected, _, _ := r.f.State(); return !connected })
				r.t.Cleanup(r.startDB)
				return n
			},
			[]string{"cannot reach database Open_vSwitch at "}, with(failed("the switch cannot be reached"), 0, true),
		},
	} {
		t.Run(strings.NewReplacer(" ", "-", ",", "").Replace(name), func(t *testing.T) {
			r := newRig(t)
			n := r.attach(newNet("n1", "br-int", 5), ep)
			r.enter(ep)
			n = c.change(r, n)
			if name != "database away" {
				r.flush()
			}
			eventually(t, "the sight", func() bool {
				got := r.f.Observe(n).Endpoints[ep.ID]
				if got.Health == healthDegraded && got.Mend == nil && c.problems == nil {
					t.Errorf("nothing is said to mend %q", got.Reason)
				}
				got.Mend = nil
				if !got.Linked {
					got.OFPort = c.ep.OFPort // ovs-vswitchd may not have noticed
				}
				return cmp.Equal(c.ep, got)
			})
			r.wire.take()
			got := r.f.Observe(n)
			health := healthOK
			if c.problems != nil || c.ep.Health == healthDegraded {
				health = healthDegraded
			}
			if got.Health != health {
				t.Errorf("health %s", got.Health)
			}
			if len(got.Problems) != len(c.problems) {
				t.Fatalf("problems %q", got.Problems)
			}
			for i, want := range c.problems {
				if !strings.HasPrefix(got.Problems[i].Cause, want) {
					t.Errorf("problems %q", got.Problems)
				}
			}
			if want := map[bool]string{true: netdev}[name != "bridge gone" && name != "database away"]; got.Datapath != want {
				t.Errorf("datapath %q", got.Datapath)
			}
			if writes := r.wire.take(); len(writes) > 0 {
				t.Errorf("wrote %v", writes)
			}
		})
	}
}

// What ovs-vswitchd says of a port is understood: whether it works, why not, and
// whether it may still change its mind.
func TestJudge(t *testing.T) {
	number := func(n int) *int { return &n }
	text := func(s string) *string { return &s }
	for name, c := range map[string]struct {
		i     *iface
		err   string
		final bool
	}{
		"works":         {&iface{OFPort: number(3)}, "", true},
		"empty error":   {&iface{OFPort: number(3), Error: text("")}, "", true},
		"not yet":       {&iface{}, "ovs-vswitchd has not made the port", false},
		"no row":        {nil, "its port vanished from the database", false},
		"refused":       {&iface{OFPort: number(-1), Error: text("could not open network device x (No such device)")}, "ovs-vswitchd refused the port: could not open network device x (No such device)", true},
		"error alone":   {&iface{Error: text("bad")}, "ovs-vswitchd refused the port: bad", true},
		"without words": {&iface{OFPort: number(-1)}, "ovs-vswitchd could not open the device", true},
	} {
		err, final := judge(c.i)
		if final != c.final || (err == nil) != (c.err == "") || err != nil && !strings.HasPrefix(err.Error(), c.err) {
			t.Errorf("%s: %v, final %v", name, err, final)
		}
	}
}

// The version is what the start of Open vSwitch wrote down, if it did.
func TestVersion(t *testing.T) {
	r := newIdleRig(t)
	r.startFabric()
	if got := r.f.Version(); got != "" {
		t.Errorf("version %s", got)
	}
	r.vsctl("set", "Open_vSwitch", ".", "ovs_version=3.1.0")
	eventually(t, "a version", func() bool { return r.f.Version() == "3.1.0" })
	end(r.dbd)
	eventually(t, "the loss", func() bool { return r.f.Version() == "" })
}

// Ready tells a database that is not there from one that nobody has set up.
func TestReady(t *testing.T) {
	r := newIdleRig(t)
	r.startFabric()
	r.run("ovsdb-client", "transact", "unix:"+r.sock, `["Open_vSwitch",{"op":"delete","table":"Open_vSwitch","where":[]}]`)
	eventually(t, "the empty database", func() bool { return root(r.view()) == nil })
	if err := r.f.Ready(t.Context(), network.Config{}); err == nil || !strings.Contains(err.Error(), "is empty: Open vSwitch has not been started") {
		t.Errorf("empty: %v", err)
	}
	end(r.dbd)
	eventually(t, "the loss", func() bool { connected, _, _ := r.f.State(); return !connected })
	if err := r.f.Ready(t.Context(), network.Config{}); err == nil || !strings.HasPrefix(err.Error(), "cannot reach database Open_vSwitch at "+r.wire.endpoint()) {
		t.Errorf("away: %v", err)
	}
	r.wipe()
	r.startDB()
	check(t, r.f.Ready(t.Context(), network.Config{}))
}
