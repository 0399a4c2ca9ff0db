package ovs

import (
	"fmt"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// config is what the options say before Plan completes them.
func config(bridge string, mode network.VLANMode, vlan uint16) network.Config {
	return network.Config{Bridge: bridge, VLANMode: mode, VLAN: vlan, MTU: 1500}
}

// planned is what Plan made of cfg, in words.
func (r *rig) planned(cfg network.Config, others ...network.Network) string {
	p, err := r.f.Plan(network.Network{Config: cfg}, others)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s %s %d owned=%v", p.Config.Bridge, p.Config.VLANMode, p.Config.VLAN, p.OwnsBridge)
}

// A network that names no bridge gets br-int, or br-docker where OVN has
// br-int; nothing ever goes onto the bridge that OVN has.
func TestPlanBridge(t *testing.T) {
	const refused = `option bridge="%s": this is OVN's integration bridge, which drops what OVN does not know; allowed is any other bridge, such as br-docker`
	none := config("", network.VLANNone, 0)
	for name, c := range map[string]struct {
		setup []string
		cfg   network.Config
		want  string
	}{
		"nothing there":         {nil, none, "br-int none 0 owned=true"},
		"default is there":      {[]string{"add-br", "br-int"}, none, "br-int none 0 owned=false"},
		"ours is there":         {[]string{"add-br", "br-int", "--", "set", "bridge", "br-int", "external_ids:owner=ovs-container-network"}, none, "br-int none 0 owned=true"},
		"restored is there":     {[]string{"add-br", "br-int", "--", "set", "bridge", "br-int", "external_ids:restored-by=ovs-container-network"}, none, "br-int none 0 owned=false"},
		"named, new":            {nil, config("br7", network.VLANNone, 0), "br7 none 0 owned=true"},
		"named, there":          {[]string{"add-br", "br7"}, config("br7", network.VLANTag, 4), "br7 tag 4 owned=false"},
		"ovn to come":           {[]string{"set", "Open_vSwitch", ".", "external_ids:ovn-remote=unix:/x"}, none, "br-docker none 0 owned=true"},
		"ovn to come, named":    {[]string{"set", "Open_vSwitch", ".", "external_ids:ovn-remote=unix:/x"}, config("br-int", network.VLANNone, 0), fmt.Sprintf(refused, "br-int")},
		"ovn elsewhere":         {[]string{"set", "Open_vSwitch", ".", "external_ids:ovn-remote=unix:/x", "external_ids:ovn-bridge=br-ovn"}, none, "br-int none 0 owned=true"},
		"ovn elsewhere, named":  {[]string{"set", "Open_vSwitch", ".", "external_ids:ovn-remote=unix:/x", "external_ids:ovn-bridge=br-ovn"}, config("br-ovn", network.VLANNone, 0), fmt.Sprintf(refused, "br-ovn")},
		"ovn has it":            {[]string{"add-br", "br-int", "--", "set", "bridge", "br-int", "external_ids:ct-zone-p1=3"}, none, "br-docker none 0 owned=true"},
		"ovn has it, named":     {[]string{"add-br", "br7", "--", "set", "bridge", "br7", "external_ids:ovn-nb-cfg=3"}, config("br7", network.VLANNone, 0), fmt.Sprintf(refused, "br7")},
		"ovn bridge without it": {[]string{"set", "Open_vSwitch", ".", "external_ids:ovn-bridge=br-ovn"}, config("br-ovn", network.VLANNone, 0), "br-ovn none 0 owned=true"},
		"name of a port":        {[]string{"add-br", "br1", "--", "add-port", "br1", "p7"}, config("p7", network.VLANNone, 0), `option bridge="p7": a port of that name exists on another Open vSwitch bridge; choose another name`},
		"name of a device":      {nil, config("dev7", network.VLANNone, 0), `option bridge="dev7": a network device of that name exists (bridge) and is not an Open vSwitch bridge; choose another name`},
	} {
		t.Run(strings.NewReplacer(" ", "-", ",", "").Replace(name), func(t *testing.T) {
			r := newIdleRig(t)
			r.device(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "dev7"}})
			if c.setup != nil {
				r.vsctl(c.setup...)
			}
			r.startFabric()
			r.guard()
			if got := r.planned(c.cfg); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			err := r.f.CheckBridge(c.cfg.Bridge)
			if refused := strings.HasPrefix(c.want, "option"); refused != (err != nil) || refused && err.Error() != c.want {
				t.Errorf("CheckBridge: %v, want %s", err, c.want)
			}
		})
	}
}

// A bridge of others that is lost for the moment does not become ours because
// a network is created before it is back.
func TestPlanLostBridge(t *testing.T) {
	r := newIdleRig(t)
	r.startFabric()
	theirs, gone := newNet("n1", "br1", 5), newNet("n2", "br2", 5)
	theirs.OwnsBridge, gone.OwnsBridge, gone.Phase = false, false, network.PhaseDeleting
	for bridge, want := range map[string]string{"br1": "br1 none 0 owned=false", "br2": "br2 none 0 owned=true", "br3": "br3 none 0 owned=true"} {
		if got := r.planned(config(bridge, network.VLANNone, 0), theirs, gone, newNet("n3", "br3", 5)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// The userspace datapath takes no frames that end ovs-vswitchd; the kernel's
// takes what the kernel takes.
func TestPlanMTU(t *testing.T) {
	r := newIdleRig(t)
	r.vsctl("add-br", "user", "--", "set", "bridge", "user", "datapath_type=netdev", "--", "add-br", "kernel")
	r.startFabric()
	r.guard()
	for _, c := range []struct {
		bridge string
		mtu    int
		want   string
	}{
		{"user", 65500, "user none 0 owned=false"},
		{"user", 65501, `option mtu="65501": Open vSwitch's userspace datapath cannot take such frames; allowed there are 576..65500`},
		{"kernel", 65535, "kernel none 0 owned=false"},
	} {
		cfg := config(c.bridge, network.VLANNone, 0)
		cfg.MTU = c.mtu
		if got := r.planned(cfg); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}

// Plan says so when the database cannot be reached, or is not set up yet.
func TestPlanWithoutDatabase(t *testing.T) {
	r := newIdleRig(t)
	r.startFabric()
	r.run("ovsdb-client", "transact", "unix:"+r.sock, `["Open_vSwitch",{"op":"delete","table":"Open_vSwitch","where":[]}]`)
	eventually(t, "the empty database", func() bool { return root(r.view()) == nil })
	cfg := config("br1", network.VLANNone, 0)
	if got := r.planned(cfg); got != "database Open_vSwitch is empty" {
		t.Errorf("empty: %s", got)
	}
	end(r.dbd)
	eventually(t, "the loss", func() bool { connected, _, _ := r.f.State(); return !connected })
	if got := r.planned(cfg); !strings.HasPrefix(got, "cannot reach database Open_vSwitch at "+r.wire.endpoint()) {
		t.Errorf("away: %s", got)
	}
}

// An automatic tag is one that nothing on the bridge has: no port, no trunk, no
// network, no endpoint.
func TestPlanAuto(t *testing.T) {
	r := newIdleRig(t)
	r.vsctl("add-br", "br1", "--", "add-port", "br1", "p1", "tag=4094", "--", "add-port", "br1", "p2", "trunks=4091,4093",
		"--", "add-br", "br2", "--", "add-port", "br2", "p3", "tag=4089")
	r.startFabric()
	r.guard()
	auto := func(bridge string) network.Config { return config(bridge, network.VLANAuto, 0) }
	if got := r.planned(auto("br1")); got != "br1 auto 4092 owned=false" {
		t.Errorf("ports only: %s", got)
	}
	override := uint16(4090)
	ep := endpoint(1)
	ep.VLAN = &override
	others := []network.Network{newNet("o1", "br1", 4092), join(newNet("o2", "br1", 0), network.PhaseCreated, ep), newNet("o3", "br2", 4088)}
	for bridge, want := range map[string]string{
		"br1": "br1 auto 4089 owned=false", "br2": "br2 auto 4094 owned=false", "br3": "br3 auto 4094 owned=true",
	} {
		if got := r.planned(auto(bridge), others...); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	var full []network.Network
	for tag := 1; tag <= 4094; tag++ {
		full = append(full, newNet(fmt.Sprint("n", tag), "br3", uint16(tag)))
	}
	if got := r.planned(auto("br3"), full[1:]...); got != "br3 auto 1 owned=true" {
		t.Errorf("one left: %s", got)
	}
	if got := r.planned(auto("br3"), full...); got != `option vlan="auto": all 4094 VLANs of bridge br3 are in use; use another bridge` {
		t.Errorf("none left: %s", got)
	}
	if got := r.planned(config("br3", network.VLANTag, 9), full...); got != "br3 tag 9 owned=true" {
		t.Errorf("given tag: %s", got)
	}
}

// A tag that was given is shared with whoever gave it too, but not with a
// network that was promised a tag of its own.
func TestPlanTag(t *testing.T) {
	r := newIdleRig(t)
	r.startFabric()
	own := newNet("own", "br1", 10)
	own.Config.VLANMode, own.Name = network.VLANAuto, "web"
	others := []network.Network{own, newNet("given", "br1", 11)}
	for cfg, want := range map[*network.Config]string{
		{Bridge: "br1", VLANMode: network.VLANTag, VLAN: 10}: `option vlan="10": network web has this tag to itself on bridge br1 (vlan=auto); allowed is any other`,
		{Bridge: "br1", VLANMode: network.VLANTag, VLAN: 11}: "br1 tag 11 owned=true",
		{Bridge: "br2", VLANMode: network.VLANTag, VLAN: 10}: "br2 tag 10 owned=true",
		{Bridge: "br1", VLANMode: network.VLANNone}:          "br1 none 0 owned=true",
	} {
		if got := r.planned(*cfg, others...); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// On a bridge with a port that leads out of the host no tag is chosen. Ports of
// guests and of the host itself do not lead out.
func TestPlanUplink(t *testing.T) {
	add := func(args ...string) []string {
		return append([]string{"add-port", "br1", "p1", "--", "set", "interface", "p1"}, args...)
	}
	for name, c := range map[string]struct {
		setup []string
		why   string // empty: does not lead out
	}{
		"internal":         {add("type=internal"), ""},
		"tap type":         {add("type=tap"), ""},
		"vhost-user":       {add("type=dpdkvhostuserclient"), ""},
		"patch":            {add("type=patch", "options:peer=p9"), "port p1, type patch"},
		"vxlan":            {add("type=vxlan"), "port p1, type vxlan"},
		"geneve":           {add("type=geneve"), "port p1, type geneve"},
		"dpdk":             {add("type=dpdk"), "port p1, type dpdk"},
		"bond":             {[]string{"add-bond", "br1", "p1", "nic0", "nic1"}, "port p1, a bond"},
		"no device":        {[]string{"add-port", "br1", "gone0"}, ""},
		"nic":              {[]string{"add-port", "br1", "nic0"}, "port nic0, a network device of kind bridge"},
		"nic, afxdp":       {[]string{"add-port", "br1", "nic0", "--", "set", "interface", "nic0", "type=afxdp"}, "port nic0, a network device of kind bridge"},
		"tap":              {[]string{"add-port", "br1", "vnet0"}, ""},
		"container":        {[]string{"add-port", "br1", "veth1a2b"}, ""},
		"nested host":      {[]string{"add-port", "br1", "eth0"}, "port eth0, a network device of kind veth"},
		"nested host, enp": {[]string{"add-port", "br1", "enp3s0"}, "port enp3s0, a network device of kind veth"},
		"nic of a machine": {[]string{"add-port", "br1", "nic0", "--", "set", "interface", "nic0", "external_ids:vm-id=x"}, ""},
		"ovs-docker":       {[]string{"add-port", "br1", "nic0", "--", "set", "interface", "nic0", "external_ids:container_id=x"}, ""},
		"mark on the port": {[]string{"add-port", "br1", "nic0", "--", "set", "port", "nic0", "external_ids:iface-id=x"}, ""},
		"other bridge":     {[]string{"add-br", "br2", "--", "add-port", "br2", "nic0"}, ""},
		"ours":             {[]string{"add-port", "br1", "nic0", "--", "set", "port", "nic0", "external_ids:owner=ovs-container-network"}, ""},
	} {
		t.Run(strings.NewReplacer(" ", "-", ",", "").Replace(name), func(t *testing.T) {
			r := newIdleRig(t)
			for _, l := range []netlink.Link{
				// Of the kinds that every kernel with Docker has, none is more like a NIC.
				&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "nic0"}},
				&netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "vnet0"}, Mode: netlink.TUNTAP_MODE_TAP},
				&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "veth1a2b"}, PeerName: "x1"},
				&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "x2"},
				&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "enp3s0"}, PeerName: "x3"},
			} {
				r.device(l)
			}
			r.vsctl("add-br", "br1")
			r.vsctl(c.setup...)
			r.startFabric()
			r.guard()
			want := "br1 auto 4094 owned=false"
			if c.why != "" {
				want = fmt.Sprintf(`option vlan="auto": bridge br1 has an uplink (%s), where a chosen tag would reach a real VLAN; allowed there are 1..4094 and none`, c.why)
			}
			if got := r.planned(config("br1", network.VLANAuto, 0)); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			for _, cfg := range []network.Config{config("br1", network.VLANTag, 5), config("br1", network.VLANNone, 0)} {
				if got := r.planned(cfg); !strings.HasSuffix(got, "owned=false") {
					t.Errorf("vlan=%s: %s", cfg.VLANMode, got)
				}
			}
		})
	}
}
