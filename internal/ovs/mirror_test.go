package ovs

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// observer is an endpoint with mirror.dest=self.
func observer(i int) network.Endpoint {
	ep := endpoint(i)
	ep.Observer = true
	return ep
}

// mirrorText shows the mirrors of ours with the names of their ports.
func (r *rig) mirrorText() string {
	r.t.Helper()
	rows := r.rows()
	names := make(map[string]string)
	for _, p := range rows["Port"] {
		names[p.uuid()] = p.name()
	}
	on := make(map[string]string)
	for _, b := range rows["Bridge"] {
		for _, uuid := range b.set("mirrors") {
			on[uuid] = b.name()
		}
	}
	named := func(w row, column string) string {
		var list []string
		for _, uuid := range w.set(column) {
			list = append(list, names[uuid])
		}
		slices.Sort(list)
		return strings.Join(list, ",")
	}
	var lines []string
	for _, m := range rows["Mirror"] {
		if m.ids()[network.KeyOwner] != network.Owner {
			continue
		}
		lines = append(lines, fmt.Sprintf("%s on %s: all %v out %s in %s vlans %v to %s%v", m.name(), on[m.uuid()], m["select_all"],
			named(m, "select_src_port"), named(m, "select_dst_port"), m.set("select_vlan"), named(m, "output_port"), m.set("output_vlan")))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func (r *rig) expectMirrors(lines ...string) {
	r.t.Helper()
	if diff := cmp.Diff(strings.Join(lines, "\n"), r.mirrorText()); diff != "" {
		r.t.Errorf("mirrors (-want +got):\n%s", diff)
	}
}

// Observers and the observed come and go in any order, and Apply twice changes
// nothing.
func TestMirrors(t *testing.T) {
	r := newRig(t)
	n := newNet("n1", "br-int", 5)
	n.Config.TenantID = "red"
	r.attach(newNet("n2", "br-int", 6), endpoint(9)) // not of this network
	n = r.attach(n, observer(1))
	r.expectMirrors("ocn-n1-ocn000000000001 on br-int: all false out  in  vlans [] to ocn000000000001[]")
	if got := r.vsctl("get", "port", "ocn000000000001", "tag"); got != "4095" {
		t.Errorf("the observer's port has the tag %s", got)
	}
	r.unchangedBy(n)
	n = r.attach(n, endpoint(2), endpoint(3), observer(4))
	both := "out ocn000000000002,ocn000000000003 in ocn000000000002,ocn000000000003 vlans [] to"
	r.expectMirrors("ocn-n1-ocn000000000001 on br-int: all false "+both+" ocn000000000001[]",
		"ocn-n1-ocn000000000004 on br-int: all false "+both+" ocn000000000004[]")
	want := map[string]string{"owner": network.Owner, "network_id": "n1", "tenant_id": "red", "mirror": "ocn000000000004", "endpoint_id": string(endpoint(4).ID)}
	for _, m := range r.rows()["Mirror"] {
		if m.name() == "ocn-n1-ocn000000000004" && !maps.Equal(m.ids(), want) {
			t.Errorf("it has %v", m.ids())
		}
	}
	r.unchangedBy(n)

	r.remove(n, endpoint(2))
	n = n.WithoutEndpoint(endpoint(2).ID)
	one := "out ocn000000000003 in ocn000000000003 vlans [] to"
	r.expectMirrors("ocn-n1-ocn000000000001 on br-int: all false "+one+" ocn000000000001[]",
		"ocn-n1-ocn000000000004 on br-int: all false "+one+" ocn000000000004[]")
	r.wire.take()
	r.remove(n, observer(4))
	n = n.WithoutEndpoint(endpoint(4).ID)
	r.expectMirrors("ocn-n1-ocn000000000001 on br-int: all false " + one + " ocn000000000001[]")
	if writes := r.wire.take(); len(writes) != 1 || !strings.Contains(writes[0], `"mirrors"`) {
		t.Errorf("an observer and its mirror do not go in one transaction: %s", strings.Join(writes, "\n"))
	}
	r.unchangedBy(n)
	n.Phase, n.Rev = network.PhaseDeleting, rev()
	r.remove(n, observer(1), endpoint(3))
	r.expectMirrors()
}

// Whatever somebody does to a mirror of ours is put right; those of others stay.
func TestMirrorMended(t *testing.T) {
	r := newRig(t)
	n := newNet("n1", "foreign0", 5)
	n.OwnsBridge = false
	r.vsctl("--id=@m", "create", "mirror", "name=theirs", "select_all=true", "output_vlan=99", "--", "add", "bridge", "foreign0", "mirrors", "@m")
	r.guard()
	n = r.attach(n, endpoint(2), observer(1))
	text := r.mirrorText()
	mirror := "ocn-n1-ocn000000000001"
	for _, damage := range [][]string{
		{"set", "mirror", mirror, "select_all=true"},
		{"set", "mirror", mirror, "select_vlan=5,6"},
		{"clear", "mirror", mirror, "select_src_port"},
		{"clear", "mirror", mirror, "output_port"},
		{"clear", "mirror", mirror, "output_port", "--", "set", "mirror", mirror, "output_vlan=7"},
		{"--id=@p", "get", "port", "fport0", "--", "add", "mirror", mirror, "select_src_port", "@p", "--", "set", "mirror", mirror, "output_port=@p"},
		{"remove", "mirror", mirror, "external_ids", "endpoint_id"},
		{"--id=@m", "get", "mirror", mirror, "--", "remove", "bridge", "foreign0", "mirrors", "@m"},
		{"--id=@m", "create", "mirror", "name=" + mirror, "external_ids:owner=" + network.Owner, "external_ids:network_id=n1", "--", "add", "bridge", "foreign0", "mirrors", "@m"},
	} {
		r.dirty.take("n1")
		r.vsctl(damage...)
		if slices.Contains(damage, "create") {
			eventually(t, "the second row is known", func() bool {
				v, err := r.f.db.View()
				_, strays := mirrorsOf(v, "n1")
				return err == nil && len(strays) == 1 && len(findBridge(v, "foreign0").Mirrors) == 3
			})
		} else {
			eventually(t, "the network is dirty", func() bool { return r.dirty.take("n1") > 0 })
		}
		r.wire.take()
		r.apply(n)
		if diff := cmp.Diff(text, r.mirrorText()); diff != "" {
			t.Errorf("%v: %s", damage, diff)
		}
		if writes := strings.Join(r.wire.take(), "\n"); !strings.Contains(writes, keyQinQ) {
			t.Errorf("%v: flows are not looked at again: %s", damage, writes)
		}
	}
	r.unchangedBy(n)
}

// An observer that asks for VLANs gets those, with tags.
func TestMirrorVLANs(t *testing.T) {
	r := newRig(t)
	n := newNet("n1", "br-int", 0)
	n.Config.Trunk = network.VLANs{10, 20}
	some := observer(1)
	some.Trunk = &network.VLANs{10, 11}
	plain := observer(3)
	plain.Trunk = &network.VLANs{}
	n = r.attach(n, some, observer(2), plain, endpoint(4))
	copies := "on br-int: all false out ocn000000000004 in ocn000000000004 vlans"
	r.expectMirrors("ocn-n1-ocn000000000001 "+copies+" [10 11] to ocn000000000001[]",
		"ocn-n1-ocn000000000002 "+copies+" [] to ocn000000000002[]", "ocn-n1-ocn000000000003 "+copies+" [] to ocn000000000003[]")
	for port, want := range map[string]string{"ocn000000000001": "[] [4095] trunk", "ocn000000000002": "[] [4095] trunk", "ocn000000000003": "4095 [] access"} {
		if got := strings.Join(strings.Fields(r.vsctl("get", "port", port, "tag", "trunks", "vlan_mode")), " "); got != want {
			t.Errorf("port %s is %s, want %s", port, got, want)
		}
	}
	r.unchangedBy(n)
}

// The options of a network: named containers, one direction, a port of others that
// comes and goes, and a VLAN of which the port has the name.
func TestMirrorConfig(t *testing.T) {
	r := newRig(t)
	n := newNet("n1", "foreign0", 5)
	n.OwnsBridge = false
	n.Config.Mirror = &network.Mirror{Port: "vlan900", VLAN: 900, Containers: []string{"web"}, Direction: network.DirectionOut}
	web, late := endpoint(1), endpoint(2)
	web.ContainerName = "web"
	n = r.attach(n, web, late)
	r.expectMirrors("ocn-n1-vlan/900 on foreign0: all false out ocn000000000001 in  vlans [] to [900]")
	r.dirty.take("n1")
	r.vsctl("add-port", "foreign0", "vlan900", "--", "set", "interface", "vlan900", "type=internal")
	eventually(t, "the port is noticed", func() bool { return r.dirty.take("n1") > 0 })
	late.ContainerName = "web"
	n.Config.Mirror.Direction = network.DirectionIn
	n.Rev = rev()
	n = join(n, network.PhaseJoined, late)
	r.apply(n)
	r.expectMirrors("ocn-n1-vlan/900 on foreign0: all false out  in ocn000000000001,ocn000000000002 vlans [] to [900]",
		"ocn-n1-vlan900 on foreign0: all false out  in ocn000000000001,ocn000000000002 vlans [] to vlan900[]")
	r.unchangedBy(n)
	r.dirty.take("n1")
	r.vsctl("del-port", "vlan900")
	eventually(t, "its end is noticed", func() bool { return r.dirty.take("n1") > 0 })
	r.apply(n)
	r.expectMirrors("ocn-n1-vlan/900 on foreign0: all false out  in ocn000000000001,ocn000000000002 vlans [] to [900]")
	s := r.f.Observe(n)
	if len(s.Mirrors) != 2 || s.Mirrors[0].Idle != "bridge foreign0 has no port vlan900" || s.Mirrors[1].Idle != "" || s.Mirrors[1].Ports != 2 || s.Health != healthOK {
		t.Errorf("observed %s %+v", s.Health, s.Mirrors)
	}
	r.vsctl("add-port", "foreign0", "vlan900") // a device that nobody has made
	r.apply(n)
	eventually(t, "it is said that the port has no device", func() bool {
		s := r.f.Observe(n)
		return len(s.Mirrors) == 2 && s.Mirrors[0].Idle == "port vlan900 of bridge foreign0 has no device that works" && len(s.Mirrors[0].Mend) == 1
	})
	r.vsctl("del-port", "vlan900")
	n.Config.Mirror = &network.Mirror{Containers: []string{"db", "web"}}
	n.Rev = rev()
	r.apply(n)
	r.expectMirrors()
	s = r.f.Observe(n)
	if len(s.Mirrors) != 1 || s.Mirrors[0].Idle != "there is no destination" || !slices.Equal(s.Mirrors[0].Missing, []string{"db"}) {
		t.Errorf("observed %+v", s.Mirrors)
	}
}

// Open vSwitch takes 32 mirrors of a bridge: the next observer is refused, and
// nothing else.
func TestMirrorLimit(t *testing.T) {
	r := newRig(t)
	n := newNet("n1", "br-int", 5)
	n = r.attach(n, endpoint(1))
	for i := range maxMirrors {
		r.vsctl("--id=@m", "create", "mirror", fmt.Sprintf("name=m%d", i), "output_vlan=99", "--", "add", "bridge", "br-int", "mirrors", "@m")
	}
	failed := failures(t, r.f.Apply(t.Context(), join(n, network.PhaseJoining, observer(2), endpoint(3))))
	if len(failed) != 1 || !strings.Contains(failed[observer(2).ID], "32 mirrors") {
		t.Errorf("failed: %v", failed)
	}
	r.expectMirrors()
}

// What cannot work is refused when the network is planned, and a VLAN for copies is
// no VLAN of containers.
func TestPlanMirror(t *testing.T) {
	r := newRig(t)
	r.attach(newNet("n0", "br-int", 6), endpoint(9))
	auto := network.Network{ID: "n2", Config: network.Config{VLANMode: network.VLANAuto, MTU: 1500}}
	auto.Config.Mirror = &network.Mirror{VLAN: 4094}
	p, err := r.f.Plan(auto, nil)
	if err != nil || p.Config.VLAN != 4093 {
		t.Errorf("beside its own VLAN for copies it gets %d, %v", p.Config.VLAN, err)
	}
	first := auto
	first.Config = p.Config
	second := network.Network{ID: "n3", Config: network.Config{VLANMode: network.VLANAuto, MTU: 1500}}
	if p, err = r.f.Plan(second, []network.Network{first}); err != nil || p.Config.VLAN != 4092 {
		t.Errorf("beside the VLAN for copies of another it gets %d, %v", p.Config.VLAN, err)
	}
	second.Config.Mirror = &network.Mirror{VLAN: 4093}
	if _, err = r.f.Plan(second, []network.Network{first}); err == nil || !strings.Contains(err.Error(), `mirror.vlan="4093"`) {
		t.Errorf("copies into a network's own VLAN: %v", err)
	}
	second.Config.Mirror = &network.Mirror{Port: "fport0"}
	if _, err = r.f.Plan(second, nil); err == nil || !strings.Contains(err.Error(), `mirror.dest="fport0": this port is on bridge foreign0`) {
		t.Errorf("copies to a port of another bridge: %v", err)
	}
}

// Mirrors of networks that nobody knows go like ports do.
func TestPruneMirror(t *testing.T) {
	r := newRig(t)
	n := newNet("n1", "foreign0", 5)
	n.OwnsBridge = false
	n.Config.Mirror = &network.Mirror{VLAN: 900}
	r.apply(n)
	for _, age := range []time.Duration{0, network.LeftoverGrace + time.Second} {
		r.prune(age, nil, "n1/")
	}
	if r.mirrorText() == "" {
		t.Error("the mirror of a network whose record cannot be read is gone")
	}
	for _, age := range []time.Duration{0, network.LeftoverGrace + time.Second} {
		r.prune(age, []network.Network{n})
	}
	if r.mirrorText() == "" {
		t.Error("the mirror of a network that is known is gone")
	}
	for _, age := range []time.Duration{0, network.LeftoverGrace + time.Second} {
		r.prune(age, nil)
	}
	r.expectMirrors()
}
