package ovs

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// trunkNet is a network whose ports are trunks.
func trunkNet(id, bridge string, native uint16, tags ...uint16) network.Network {
	n := newNet(id, bridge, native)
	n.Config.Trunk = tags
	return n
}

// verdict is what ovs-vswitchd does with a broadcast that comes in at a port.
func (r *rig) verdict(port, flow string) string {
	r.t.Helper()
	ofport := r.vsctl("get", "interface", port, "ofport")
	trace := r.run("ovs-appctl", "-t", r.dir+"/vswitchd.ctl", "ofproto/trace", "br-int",
		"in_port="+ofport+",dl_src=02:00:00:00:00:01,dl_dst=ff:ff:ff:ff:ff:ff,dl_type=0x0806"+flow)
	lines := strings.Split(strings.TrimSpace(trace), "\n")
	actions, ok := strings.CutPrefix(lines[len(lines)-1], "Datapath actions: ")
	if !ok {
		r.t.Fatalf("the trace ends with %q", lines[len(lines)-1])
	}
	return actions
}

// A trunk has exactly the VLANs of its list in Open vSwitch: frames of all others,
// without a tag and of VLAN 0 are dropped. A native VLAN is that of frames without a
// tag. An attachment's own trunk counts in place of the network's, in both ways.
func TestTrunkPorts(t *testing.T) {
	r := newRig(t)
	seven, none := uint16(7), uint16(0)
	eps := []network.Endpoint{endpoint(1), endpoint(2), endpoint(3), endpoint(4), endpoint(5)}
	eps[1].VLAN = &seven
	eps[2].Trunk, eps[2].VLAN = &network.VLANs{}, &none
	eps[3].Trunk = &network.VLANs{4094}
	eps[4].Trunk, eps[4].VLAN = &network.VLANs{}, &seven
	n := r.attach(trunkNet("n1", "br-int", 0, 10, 20, 21, 22), eps...)
	var rows []string
	for _, p := range sorted(r.rows()["Port"]) {
		if p.ids()[network.KeyOwner] == network.Owner {
			rows = append(rows, fmt.Sprintf("%v %v %v", p["vlan_mode"], p.set("tag"), p.set("trunks")))
		}
	}
	want := []string{
		"trunk [] [10 20 21 22]", "native-untagged [7] [10 20 21 22]", "access [0] []", "trunk [] [4094]", "access [7] []",
	}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	r.unchangedBy(n)

	const drop = "drop"
	for _, c := range []struct {
		port  int
		flow  string
		taken bool
	}{
		{1, "", false}, {1, ",dl_vlan=0", false}, {1, ",dl_vlan=1", false}, {1, ",dl_vlan=7", false}, {1, ",dl_vlan=4094", false},
		{1, ",dl_vlan=10", true}, {1, ",dl_vlan=22", true}, {1, ",dl_vlan=23", false}, {1, ",dl_vlan=4095", false},
		{2, "", true}, {2, ",dl_vlan=0", true}, {2, ",dl_vlan=20", true}, {2, ",dl_vlan=9", false},
		{2, ",dl_vlan=7", true}, // of the native VLAN, with its tag: Open vSwitch takes it
		{3, "", true}, {3, ",dl_vlan=10", false},
		{4, "", false}, {4, ",dl_vlan=10", false}, {4, ",dl_vlan=4094", true},
		{5, "", true}, {5, ",dl_vlan=10", false},
	} {
		host, _ := endpoint(c.port).ID.Links()
		if got := r.verdict(host, c.flow); (got != drop) != c.taken {
			t.Errorf("port %d, frame %q: %s, want taken=%v", c.port, c.flow, got, c.taken)
		}
	}
}

// doctor's question is about a frame that the port may send.
func TestForwardsOnTrunk(t *testing.T) {
	r := newRig(t)
	r.run("sh", "-c", fmt.Sprintf("echo %d >%s/ovs-vswitchd.pid; ln -s vswitchd.ctl %[2]s/ovs-vswitchd.%[1]d.ctl", r.vsd.Process.Pid, r.dir))
	ep := endpoint(1)
	r.attach(trunkNet("n1", "br-int", 0, 10), ep)
	host, _ := ep.ID.Links()
	var ofport int
	fmt.Sscan(r.vsctl("get", "interface", host, "ofport"), &ofport)
	for tag, dropped := range map[uint16]bool{0: true, 10: false, 11: true} {
		got, err := r.f.Forwards(t.Context(), "br-int", ofport, ep.MAC, tag)
		check(t, err)
		if (got != "") != dropped {
			t.Errorf("tag %d: dropped: %q", tag, got)
		}
	}
}

// Whatever is done to a trunk by hand is undone.
func TestTrunkMended(t *testing.T) {
	for _, native := range []uint16{0, 5} {
		t.Run(fmt.Sprint("native-", native), func(t *testing.T) { mendsTrunk(t, native) })
	}
}

func mendsTrunk(t *testing.T, native uint16) {
	r := newRig(t)
	n := r.attach(trunkNet("n1", "br-int", native, 10, 20, 21), endpoint(1))
	r.enter(endpoint(1))
	r.apply(n)
	host, _ := endpoint(1).ID.Links()
	good := r.text()
	for _, harm := range [][]string{
		{"clear", "port", host, "trunks"},
		{"add", "port", host, "trunks", "30"},
		{"remove", "port", host, "trunks", "20"},
		{"add", "port", host, "trunks", "0"},
		{"set", "port", host, "trunks=10,20,22"},
		{"clear", "port", host, "vlan_mode"},
		{"set", "port", host, "vlan_mode=native-tagged"},
		{"set", "port", host, "vlan_mode=access"},
		{"set", "port", host, "tag=9"},
		{"set", "port", host, "tag=0"},
	} {
		r.quiet(n)
		r.vsctl(harm...)
		eventually(t, "dirty", func() bool { return r.dirty.take("n1")+r.dirty.take("") > 0 })
		r.apply(n)
		if diff := cmp.Diff(good, r.text()); diff != "" {
			t.Errorf("native %d, %v: %s", native, harm, diff)
		}
	}
}

// A network with a tag to itself and a trunk with that tag are never on one bridge.
func TestPlanTrunk(t *testing.T) {
	r := newIdleRig(t)
	r.startFabric()
	own := newNet("own", "br1", 10)
	own.Config.VLANMode, own.Name = network.VLANAuto, "web"
	plan := func(bridge string, mode network.VLANMode, native uint16, tags ...uint16) network.Config {
		cfg := config(bridge, mode, native)
		cfg.Trunk = tags
		return cfg
	}
	for _, c := range []struct {
		cfg  network.Config
		want string
	}{
		{plan("br1", network.VLANNone, 0, 9, 10, 11), `option trunk="9-11": network web has tag 10 to itself on bridge br1 (vlan=auto); allowed are others`},
		{plan("br1", network.VLANTag, 10, 11), `option vlan="10": network web has this tag to itself on bridge br1 (vlan=auto); allowed is any other`},
		{plan("br1", network.VLANTag, 9, 11), "br1 tag 9 owned=true"},
		{plan("br2", network.VLANNone, 0, 10), "br2 none 0 owned=true"},
	} {
		if got := r.planned(c.cfg, own, newNet("given", "br1", 11)); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
	crowd := []network.Network{}
	for tag := uint16(1); tag <= 9; tag++ {
		o := newNet(fmt.Sprint("net", tag), "br1", tag)
		o.Config.VLANMode, o.Name = network.VLANAuto, fmt.Sprint("net", tag)
		crowd = append(crowd, o)
	}
	got := r.planned(plan("br1", network.VLANNone, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9), crowd...)
	if !strings.Contains(got, "net3 has tag 3") || strings.Contains(got, "net4") || !strings.HasSuffix(got, "and so on for 6 more networks") {
		t.Errorf("got %s", got)
	}

	// Of networks without an endpoint, and of attachments that are about to come.
	ep := endpoint(1)
	ep.Trunk = &network.VLANs{4092}
	others := []network.Network{trunkNet("t", "br1", 4094, 4093), join(newNet("o", "br1", 0), network.PhaseCreated, ep), trunkNet("f", "br2", 0, 4091)}
	if got := r.planned(config("br1", network.VLANAuto, 0), others...); got != "br1 auto 4091 owned=true" {
		t.Errorf("got %s", got)
	}
}
