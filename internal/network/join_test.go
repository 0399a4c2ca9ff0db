package network_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	. "github.com/ovs-container-network/ovs-container-network/internal/network"
)

// A Join that is answered has a port in the switch, as the network and the
// attachment want it.
func TestJoin(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24", "bridge=br0", "vlan=7", "mtu=1400", "tenant_id=blue", "external_ids=k=network,l=network")
		r.join("n", "plain", "10.0.0.2/24")
		r.join("n", "own", "10.0.0.3/24", "vlan=none", "mtu=9000", "external_ids=k=endpoint")
		port := func(name string) fakePort {
			host, _ := eid(name).Links()
			return r.fabric.ports[host]
		}
		ids := map[string]string{
			"owner": "ovs-container-network", "network_id": string(nid("n")), "tenant_id": "blue", "endpoint_id": string(eid("plain")),
			"k": "network", "l": "network",
		}
		if diff := cmp.Diff(Port{VLAN: 7, MTU: 1400, ExternalIDs: ids}, port("plain").Port); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		ids["endpoint_id"], ids["k"] = string(eid("own")), "endpoint"
		if diff := cmp.Diff(Port{VLAN: 0, MTU: 9000, ExternalIDs: ids}, port("own").Port); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		r.check()
	})
}

// What Docker is told about the default route follows from the network's mode.
func TestJoinAnswer(t *testing.T) {
	both := subnets("10.0.0.0/24", "fd00::/64")
	gw4, gw6 := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
	_, peer := eid("a").Links()
	for name, c := range map[string]struct {
		mode     string
		internal bool
		nets     []Subnet
		want     Joined
	}{
		"docker":      {"docker", false, both, Joined{}},
		"none":        {"none", false, both, Joined{DisableGateway: true}},
		"external":    {"external", false, both, Joined{Gateway: gw4, Gateway6: gw6}},
		"external v4": {"external", false, both[:1], Joined{Gateway: gw4}},
		"external v6": {"external", false, both[1:], Joined{Gateway6: gw6}},
		"internal":    {"docker", true, both, Joined{}},
		"no subnets":  {"docker", false, nil, Joined{}},
	} {
		inBubble(t, func(t *testing.T, r *rig) {
			req := CreateRequest{ID: nid("n"), Options: opts("gateway_mode=" + c.mode), Internal: c.internal, Subnets: c.nets}
			if err := r.CreateNetwork(t.Context(), req); err != nil {
				t.Fatal(err)
			}
			r.endpoint("n", "a", "")
			got, err := r.Join(t.Context(), JoinRequest{Network: nid("n"), ID: eid("a"), Sandbox: sandbox("a")})
			c.want.Link = peer
			if diff := cmp.Diff(c.want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" || err != nil {
				t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
			}
		})
	}
}

// A Join that fails is taken back: no endpoint, no record, no port, and the
// address is free.
func TestJoinFails(t *testing.T) {
	errPort := errors.New("ovs-vswitchd could not open the device")
	for name, c := range map[string]struct {
		spoil func(*rig)
		mend  func(*rig)
		word  string
		late  bool // what was begun can only be taken back later
	}{
		"port": {
			spoil: func(r *rig) { r.fabric.with(func(f *fakeFabric) { f.failing[eid("a")] = errPort }) },
			mend:  func(r *rig) { r.fabric.with(func(f *fakeFabric) { delete(f.failing, eid("a")) }) },
			word:  errPort.Error(), late: true,
		},
		"switch": {
			spoil: func(r *rig) { r.fabric.with(func(f *fakeFabric) { f.failNet = errPort }) },
			mend:  func(r *rig) { r.fabric.with(func(f *fakeFabric) { f.failNet = nil }) },
			word:  errPort.Error(), late: true,
		},
		"unreachable":     {spoil: (*rig).downFabric, mend: (*rig).up, word: errUnreachable.Error(), late: true},
		"joining record":  {spoil: func(r *rig) { r.store.failOnce("PutEndpoint", 1) }, word: errDisk.Error()},
		"joined record":   {spoil: func(r *rig) { r.store.failOnce("PutEndpoint", 2) }, word: errDisk.Error()},
		"disk full":       {spoil: func(r *rig) { r.store.failOn("PutEndpoint", "PutNetwork") }, mend: func(r *rig) { r.store.mend() }, word: errDisk.Error()},
		"disk gone":       {spoil: func(r *rig) { r.store.failOn() }, mend: func(r *rig) { r.store.mend() }, word: errDisk.Error(), late: true},
		"link name taken": {spoil: func(r *rig) { r.foreignPort("a") }, word: "is taken"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.create("n", "10.0.0.0/24")
				r.join("n", "other", "10.0.0.9/24")
				r.endpoint("n", "a", "10.0.0.2/24")
				c.spoil(r)
				refused(t, r.tryJoin("n", "a"), "cannot attach endpoint "+eid("a").Short(), nid("n").Short(), c.word)
				r.settle()
				if _, there := r.findEndpoint("a"); there != c.late {
					t.Errorf("the endpoint is there: %v", there)
				}
				if c.mend != nil {
					c.mend(r)
				}
				r.Dirty()
				r.settle()
				if _, there := r.findEndpoint("a"); there {
					t.Error("the endpoint is still there")
				}
				r.fabric.with(func(f *fakeFabric) {
					for name, p := range f.ports {
						if p.foreign {
							delete(f.ports, name)
						}
					}
				})
				r.check()
				// What dockerd may send afterwards finds nothing to do.
				r.leave("n", "a")
				if err := r.DeleteEndpoint(t.Context(), nid("n"), eid("a")); err != nil {
					t.Error(err)
				}
				r.join("n", "b", "10.0.0.2/24")
				r.check()
			})
		})
	}
}

// foreignPort gives the name of an endpoint's port to somebody else's.
func (r *rig) foreignPort(name string) {
	host, _ := eid(name).Links()
	r.fabric.with(func(f *fakeFabric) { f.ports[host] = fakePort{bridge: "br-int", foreign: true} })
}

// A port of somebody else is not removed with the endpoint whose name it has.
func TestForeignPortStays(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24")
		r.endpoint("n", "a", "10.0.0.2/24")
		r.foreignPort("a")
		refused(t, r.tryJoin("n", "a"), "is taken")
		r.settle()
		if !strings.Contains(r.fabric.String(), "port ocn") {
			t.Error("the foreign port is gone")
		}
	})
}

// Endpoints that are unknown or are being removed cannot be joined, nor can those
// of networks that are unknown.
func TestJoinUnknown(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24")
		refused(t, r.tryJoin("n", "a"), "unknown", eid("a").Short(), nid("n").Short())
		refused(t, r.tryJoin("other", "a"), "does not know the network")
		r.join("n", "a", "10.0.0.2/24")
		r.downFabric()
		if err := r.DeleteEndpoint(t.Context(), nid("n"), eid("a")); err != nil {
			t.Fatal(err)
		}
		refused(t, r.tryJoin("n", "a"), "removed")
		r.up()
		r.settle()
		r.check()
	})
}

// A Join whose caller gives up is taken back, though the Apply it waits for is
// finished.
func TestJoinCancelled(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24")
		r.endpoint("n", "a", "10.0.0.2/24")
		release := r.fabric.hold()
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("the engine hung up"))
		defer cancel()
		_, err := r.Join(ctx, JoinRequest{Network: nid("n"), ID: eid("a"), Sandbox: sandbox("a")})
		refused(t, err, "the engine hung up")
		release()
		r.settle()
		if _, there := r.findEndpoint("a"); there {
			t.Error("the endpoint is there")
		}
		r.check()
	})
}

// A Join waits for a switch that is not there yet, as long as the fabric does.
func TestJoinWaits(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24")
		r.endpoint("n", "a", "10.0.0.2/24")
		r.downFabric()
		r.fabric.budget = 20 * time.Second
		result := make(chan error, 1)
		go func() { result <- r.tryJoin("n", "a") }()
		synctest.Wait()
		time.Sleep(10 * time.Second)
		if ep, _ := r.findEndpoint("a"); ep.Phase != PhaseJoining {
			t.Errorf("the endpoint is %q", ep.Phase)
		}
		r.up()
		if err := <-result; err != nil {
			t.Error(err)
		}
		r.settle()
		r.check()
	})
}

// An endpoint can be joined again after it left, and a second Join of the same
// container changes nothing.
func TestJoinAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24")
		r.join("n", "a", "10.0.0.2/24")
		if err := r.tryJoin("n", "a"); err != nil {
			t.Error(err)
		}
		r.check()
		r.leave("n", "a")
		if ep, _ := r.findEndpoint("a"); ep.Phase != PhaseLeft || ep.Sandbox != "" {
			t.Errorf("got %+v", ep)
		}
		if err := r.tryJoin("n", "a"); err != nil {
			t.Error(err)
		}
		r.check()
	})
}
