package ovs

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// Whatever is done to an endpoint by hand, the network is called dirty and the
// next Apply mends it, once.
func TestApplyMends(t *testing.T) {
	for name, harm := range map[string]func(r *rig, host string){
		"port deleted":      func(r *rig, host string) { r.vsctl("del-port", host) },
		"tag changed":       func(r *rig, host string) { r.vsctl("set", "port", host, "tag=9") },
		"tag removed":       func(r *rig, host string) { r.vsctl("clear", "port", host, "tag") },
		"made a trunk":      func(r *rig, host string) { r.vsctl("set", "port", host, "trunks=1,2", "vlan_mode=native-tagged") },
		"trunks added":      func(r *rig, host string) { r.vsctl("set", "port", host, "trunks=1,2") },
		"mode removed":      func(r *rig, host string) { r.vsctl("clear", "port", host, "vlan_mode") },
		"id changed":        func(r *rig, host string) { r.vsctl("set", "port", host, "external_ids:tenant_id=blue") },
		"id removed":        func(r *rig, host string) { r.vsctl("remove", "port", host, "external_ids", "tenant_id") },
		"interface id":      func(r *rig, host string) { r.vsctl("set", "interface", host, "external_ids:tenant_id=blue") },
		"attached-mac gone": func(r *rig, host string) { r.vsctl("remove", "interface", host, "external_ids", "attached-mac") },
		"link down":         func(r *rig, host string) { r.link(host, netlink.LinkSetDown) },
		"bridge deleted":    func(r *rig, _ string) { r.vsctl("del-br", "br-int") },
		"port moved":        func(r *rig, host string) { r.movePort(host, "br-int", "foreign0") },
		"interface of another type": func(r *rig, host string) {
			r.vsctl("set", "interface", host, "type=vxlan", "options:remote_ip=192.0.2.1")
		},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			r := newRig(t)
			n := newNet("n1", "br-int", 5)
			n.Config.TenantID = "red"
			ep, other := endpoint(1), endpoint(2)
			n = r.attach(n, ep, other)
			r.enter(ep)
			r.enter(other)
			r.apply(n)
			host, _ := ep.ID.Links()
			good := r.text()
			r.quiet(n)

			harm(r, host)
			eventually(t, "dirty", func() bool { return r.dirty.take("n1")+r.dirty.take("") > 0 })
			r.apply(n)
			if diff := cmp.Diff(good, r.text()); diff != "" {
				t.Error(diff)
			}
			if in, ok, err := r.k.Get(host); err != nil || !ok || !in.Up {
				t.Errorf("link: %+v, %v, %v", in, ok, err)
			}
			if s := r.f.Observe(n); s.Health != healthOK {
				t.Errorf("afterwards: %+v", s)
			}
			r.quiet(n)
			r.unchangedBy(n)
		})
	}
}

// movePort takes a port from one bridge to another in one transaction.
func (r *rig) movePort(port, from, to string) {
	r.t.Helper()
	uuid := r.vsctl("get", "port", port, "_uuid")
	r.vsctl("remove", "bridge", from, "ports", uuid, "--", "add", "bridge", to, "ports", uuid)
}

// quiet runs Apply for as long as the network is called dirty, as the core does,
// and checks that this comes to an end by itself.
func (r *rig) quiet(n network.Network) {
	r.t.Helper()
	for round := range 5 {
		r.flush()
		if r.dirty.take(n.ID)+r.dirty.take("") == 0 {
			return
		}
		r.wire.take()
		r.apply(n)
		if writes := r.wire.take(); round > 1 && len(writes) > 0 {
			r.t.Errorf("round %d writes %v", round, writes)
		}
	}
	r.t.Error("the network is dirty all the time")
}

// flush returns when the fabric has seen every change of rows and links so far:
// both kinds of news come in order, so those of a probe come last.
func (r *rig) flush() {
	r.t.Helper()
	host, _ := endpoint(0xffff).ID.Links()
	r.apply(probe())
	for _, change := range []func(){
		func() { r.link(host, netlink.LinkSetDown) },
		func() { r.vsctl("set", "port", host, "tag=1") },
	} {
		r.dirty.take("probe")
		change()
		eventually(r.t, "news of the probe", func() bool { return r.dirty.take("probe") > 0 })
		r.apply(probe())
	}
}

// probe is a network of flush.
func probe() network.Network {
	return join(newNet("probe", "br-probe", 0), network.PhaseJoining, endpoint(0xffff))
}

// Somebody who has the name of a port of ours gives it back: whoever needs it may
// try again.
func TestNameGivenBack(t *testing.T) {
	r := newRig(t)
	name, _ := endpoint(1).ID.Links()
	r.vsctl("--may-exist", "add-br", "foreign1", "--", "set", "bridge", "foreign1", "datapath_type=netdev")
	r.vsctl("add-port", "foreign1", name, "--", "set", "interface", name, "type=internal")
	r.flush()
	r.dirty.take("")
	r.vsctl("del-port", name)
	eventually(t, "everybody is dirty", func() bool { return r.dirty.take("") > 0 })
}
