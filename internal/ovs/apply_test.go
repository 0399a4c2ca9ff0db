package ovs

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// The first endpoint of a network gets its bridge, a port and a link, with all
// that the options say, and nothing else is made.
func TestApplyOne(t *testing.T) {
	r := newRig(t)
	n := newNet("n1", "br-int", 5)
	n.Name = "web"
	n.Config.MTU = 1400
	n.Config.TenantID = "red"
	n.Config.ExternalIDs = map[string]string{"team": "a", "odd": `q"u\o=te, x`}
	ep := endpoint(1)
	ep.ExternalIDs = map[string]string{"role": "db"}
	ep.ContainerName = "c1"
	n = r.attach(n, ep)
	want := `bridge br-int owner=ovs-container-network
  port ocn000000000001 tag 5 mode access trunks [] container_name=c1 endpoint_id=` + string(ep.ID) + ` network_id=n1 network_name=web odd=q"u\o=te, x owner=ovs-container-network role=db team=a tenant_id=red
    interface ocn000000000001 type "" attached-mac=02:00:00:00:00:01 container_name=c1 endpoint_id=` + string(ep.ID) + ` network_id=n1 network_name=web odd=q"u\o=te, x owner=ovs-container-network role=db team=a tenant_id=red
`
	if diff := cmp.Diff(want, r.text()); diff != "" {
		t.Error(diff)
	}
	host, peer := ep.ID.Links()
	for _, name := range []string{host, peer} {
		in, ok, err := r.k.Get(name)
		check(t, err)
		if !ok || in.MTU != 1400 {
			t.Errorf("%s: %+v", name, in)
		}
		if name == host && (!in.Up || in.Alias != "ovs-container-network "+string(ep.ID)) {
			t.Errorf("host end: %+v", in)
		}
		if name == peer && in.MAC.String() != ep.MAC {
			t.Errorf("peer: %+v", in)
		}
	}
	if got := r.vsctl("get", "interface", host, "ofport"); got == "[]" || strings.HasPrefix(got, "-") {
		t.Errorf("ofport %s when Apply has returned", got)
	}
	r.unchangedBy(n)
}

// unchangedBy checks that Apply of n writes nothing, neither with what the
// fabric knows already nor as a new process.
func (r *rig) unchangedBy(n network.Network) {
	r.t.Helper()
	for _, who := range []string{"the same", "a new"} {
		if who == "a new" {
			r.startFabric()
		}
		next, text := r.vsctl("get", "Open_vSwitch", ".", "next_cfg"), r.text()
		r.wire.take()
		for range 2 {
			r.apply(n)
		}
		if writes := r.wire.take(); len(writes) > 0 {
			r.t.Errorf("%s fabric writes: %s", who, strings.Join(writes, "\n"))
		}
		if got := r.vsctl("get", "Open_vSwitch", ".", "next_cfg"); got != next {
			r.t.Errorf("%s fabric: next_cfg %s, was %s", who, got, next)
		}
		if diff := cmp.Diff(text, r.text()); diff != "" {
			r.t.Errorf("%s fabric: %s", who, diff)
		}
	}
}

// Many endpoints are attached by a few transactions, with VLANs and MTUs of
// their own where they have some, and all go by a few.
func TestApplyMany(t *testing.T) {
	r := newRig(t)
	const many = 50
	n := newNet("n1", "br-int", 5)
	eps := make([]network.Endpoint, many)
	for i := range eps {
		eps[i] = endpoint(i)
		if i%2 == 1 {
			tag := uint16(100 + i)
			eps[i].VLAN, eps[i].MTU = &tag, 1300
		}
	}
	r.wire.take()
	n = r.attach(n, eps...)
	if sent := len(r.wire.take()); sent > 3 {
		t.Errorf("%d transactions", sent)
	}
	ports := 0
	for _, p := range r.rows()["Port"] {
		if p.ids()[network.KeyOwner] != network.Owner {
			continue
		}
		ports++
		var i int
		fmt.Sscanf(p.name(), "ocn%x", &i)
		tag, mtu := float64(5), 1500
		if i%2 == 1 {
			tag, mtu = float64(100+i), 1300
		}
		in, ok, err := r.k.Get(p.name())
		check(t, err)
		if p["tag"] != tag || !ok || !in.Up || in.MTU != mtu {
			t.Errorf("port %s: tag %v, link %v %+v", p.name(), p["tag"], ok, in)
		}
	}
	if ports != many {
		t.Errorf("%d ports", ports)
	}
	r.unchangedBy(n)

	r.wire.take()
	r.remove(n, eps...)
	if sent := len(r.wire.take()); sent > 2 {
		t.Errorf("%d transactions to delete", sent)
	}
	if diff := cmp.Diff("bridge br-int owner=ovs-container-network\n", r.text()); diff != "" {
		t.Error(diff)
	}
	for _, ep := range eps {
		if r.linked(ep) {
			t.Errorf("link of %s is left", ep.ID)
		}
	}
}

// A link that is gone cannot be made again for a container that runs, and the
// error says what to do; for one that is being started it is made.
func TestApplyLinkGone(t *testing.T) {
	r := newRig(t)
	n := newNet("n1", "br-int", 5)
	ep, other := endpoint(1), endpoint(2)
	n = r.attach(n, ep, other)
	host, _ := ep.ID.Links()
	r.quiet(n)
	r.link(host, netlink.LinkDel)
	eventually(t, "dirty", func() bool { return r.dirty.take("n1") > 0 })
	want := map[network.EndpointID]string{ep.ID: "the link " + host + " of endpoint 000000000001 is gone: restart the container"}
	if diff := cmp.Diff(want, failures(t, r.f.Apply(t.Context(), n))); diff != "" {
		t.Error(diff)
	}
	if r.linked(ep) {
		t.Error("a link was made that leads nowhere")
	}
	if s := r.f.Observe(n).Endpoints[ep.ID]; s.Linked || s.Health != healthDegraded || s.Reason != "its link is gone: restart the container" {
		t.Errorf("observed %+v", s)
	}
	r.apply(join(n, network.PhaseJoining, ep))
	if !r.linked(ep) {
		t.Error("the link was not made again")
	}
	r.quiet(n)
	r.unchangedBy(n)
}

// A port of others with the name of ours is left alone and named in the error.
func TestApplyNameTaken(t *testing.T) {
	r := newRig(t)
	ep, other := endpoint(1), endpoint(2)
	host, _ := ep.ID.Links()
	r.vsctl("add-port", "foreign0", host, "--", "set", "interface", host, "type=internal")
	r.guard()
	n := join(newNet("n1", "br-int", 5), network.PhaseJoining, ep, other)
	want := map[network.EndpointID]string{
		ep.ID: "the port name " + host + " is taken by a port that this driver did not make: remove that port (ovs-vsctl del-port " + host + ")",
	}
	if diff := cmp.Diff(want, failures(t, r.f.Apply(t.Context(), n))); diff != "" {
		t.Error(diff)
	}
	if findPort(r.view(), "ocn000000000002") == nil {
		t.Error("the other endpoint was not attached")
	}
	if _, ok, _ := r.k.Get("oc-000000000001"); ok {
		t.Error("a link was made")
	}
	for _, phase := range []network.Phase{network.PhaseCreated, network.PhaseLeft} {
		r.apply(join(n, phase, ep))
	}
	r.remove(n, ep)
}

// A device of others with the name of ours is left alone, too.
func TestApplyDeviceTaken(t *testing.T) {
	r := newRig(t)
	ep := endpoint(1)
	host, _ := ep.ID.Links()
	r.device(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: host}})
	n := join(newNet("n1", "br-int", 5), network.PhaseJoining, ep)
	got := failures(t, r.f.Apply(t.Context(), n))
	if !strings.Contains(got[ep.ID], host+" is a bridge") {
		t.Errorf("got %v", got)
	}
	r.remove(n, ep)
	if !r.linked(ep) {
		t.Error("the device was removed")
	}
	if findPort(r.view(), host) != nil {
		t.Error("a port was made")
	}
}

// An endpoint that is not joined any more, or not yet, has no port; its link
// stays, since dockerd still has the other end.
func TestApplyDetaches(t *testing.T) {
	r := newRig(t)
	ep := endpoint(1)
	n := newNet("n1", "br-int", 5)
	r.apply(join(n, network.PhaseCreated, ep))
	if r.linked(ep) {
		t.Error("a link before Join")
	}
	n = r.attach(n, ep)
	for _, phase := range []network.Phase{network.PhaseCreated, network.PhaseLeft} {
		r.apply(join(n, phase, ep))
		if diff := cmp.Diff("bridge br-int owner=ovs-container-network\n", r.text()); diff != "" {
			t.Error(diff)
		}
		if !r.linked(ep) {
			t.Error("the link is gone")
		}
		n = r.attach(n, ep)
	}
	r.unchangedBy(n)
	for range 2 {
		r.remove(n, ep)
	}
	if r.linked(ep) || findPort(r.view(), "ocn000000000001") != nil {
		t.Error("something is left")
	}
}

// An endpoint that asks for frames that the datapath cannot take is refused
// alone, and gets nothing.
func TestApplyMTU(t *testing.T) {
	r := newRig(t)
	large, good := endpoint(1), endpoint(2)
	large.MTU = 65501
	n := join(newNet("n1", "br-int", 5), network.PhaseJoining, large, good)
	want := map[network.EndpointID]string{
		large.ID: `driver-opt mtu="65501": Open vSwitch's userspace datapath cannot take such frames; allowed there are 576..65500`,
	}
	if diff := cmp.Diff(want, failures(t, r.f.Apply(t.Context(), n))); diff != "" {
		t.Error(diff)
	}
	if r.linked(large) || findPort(r.view(), "ocn000000000001") != nil {
		t.Error("something was made")
	}
	if !r.linked(good) || findPort(r.view(), "ocn000000000002") == nil {
		t.Error("the other endpoint was not attached")
	}
}
