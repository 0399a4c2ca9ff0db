package network_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	. "github.com/ovs-container-network/ovs-container-network/internal/network"
)

// Every good value of the mirror options is taken, and what is not said is the
// default.
func TestMirrorOptions(t *testing.T) {
	for _, c := range []struct {
		options string
		want    *Mirror
	}{
		{"", nil},
		{"mirror.dest=mon0", &Mirror{Port: "mon0", Direction: DirectionBoth}},
		{"mirror.dest=a-bond-with-a-long-name", &Mirror{Port: "a-bond-with-a-long-name", Direction: DirectionBoth}},
		{"mirror.dest=ocn-is-theirs", &Mirror{Port: "ocn-is-theirs", Direction: DirectionBoth}},
		{"Mirror.Ports=ALL", &Mirror{Direction: DirectionBoth}},
		{"mirror.ports=web,db_1.x-y,Ab", &Mirror{Containers: []string{"Ab", "db_1.x-y", "web"}, Direction: DirectionBoth}},
		{"mirror.direction=IN", &Mirror{Direction: DirectionIn}},
		{"mirror.direction=out mirror.vlan=4094", &Mirror{Direction: DirectionOut, VLAN: 4094}},
		{"mirror.dest=mon0 mirror.direction=in ovn.switch=ls", &Mirror{Port: "mon0", Direction: DirectionIn}},
	} {
		got, err := ParseOptions(opts(strings.Fields(c.options)...), false, nil)
		if diff := cmp.Diff(c.want, got.Mirror); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", c.options, err, diff)
		}
	}
	for _, v := range []string{"self", "SELF"} {
		if a, err := ParseAttachment(opts("Mirror.Dest="+v), false); err != nil || !a.Observer {
			t.Errorf("mirror.dest=%s of an attachment: %+v, %v", v, a, err)
		}
	}
}

func TestBadMirrorOptions(t *testing.T) {
	for _, c := range []struct{ key, value, reason string }{
		{"mirror.dest", "", "empty"},
		{"mirror.dest", "self", "a network is no container"},
		{"mirror.dest", "Self", "a network is no container"},
		{"mirror.dest", "ocn0123456789ab", "at its next start"},
		{"mirror.dest", "a b", `' '`},
		{"mirror.dest", "-x", `'-'`},
		{"mirror.dest", strings.Repeat("x", 64), "64 bytes"},
		{"mirror.ports", "", "is no name"},
		{"mirror.ports", "web,", "is no name"},
		{"mirror.ports", "web, db", "is no name"},
		{"mirror.ports", "-web", "is no name"},
		{"mirror.ports", "w", "is no name"}, // Docker takes two characters at least
		{"mirror.ports", "wéb", "is no name"},
		{"mirror.ports", "web,web", "twice"},
		{"mirror.ports", strings.Repeat("x", 256), "is no name"},
		{"mirror.direction", "", "unknown"},
		{"mirror.direction", "ingress", "unknown"},
		{"mirror.vlan", "0", "out of range"},
		{"mirror.vlan", "4095", "out of range"},
		{"mirror.vlan", "none", "not a VLAN"},
	} {
		_, err := ParseOptions(opts(c.key+"="+c.value), false, nil)
		refused(t, err, "option "+c.key, quoted(c.value), c.reason, "allowed are ")
	}
	_, err := ParseAttachment(opts("mirror.dest=mon0"), false)
	refused(t, err, "driver-opt mirror.dest", `"mon0"`, "allowed are self")
	_, err = ParseAttachment(opts("mirror.dest=self", "vlan=7"), false)
	refused(t, err, `driver-opt vlan="7"`, "mirror.dest=self")
	_, err = ParseOptions(opts("mirror.vlan=7", "vlan=7"), false, nil)
	refused(t, err, `option mirror.vlan="7"`, "the network itself")
	_, err = ParseOptions(opts("mirror.vlan=7", "trunk=6-8"), false, nil)
	refused(t, err, `option mirror.vlan="7"`, "the network itself (trunk=6-8)")
	_, err = ParseOptions(opts("mirror.vlan=7", "ovn.switch=ls"), false, nil)
	refused(t, err, `option mirror.vlan="7"`, "OVN's bridge")
}

// Names of containers are refused where nobody tells them; all of them are not.
func TestMirrorWithoutNames(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("named", "10.1.0.0/24", "mirror.ports=web")
		r.stop()
		r.nameless = true
		r.load()
		r.run()
		refused(t, r.tryCreate("refused", "10.2.0.0/24", "mirror.ports=db,web"), `mirror.ports="db,web"`, "--docker-host none", "allowed there is all")
		r.create("all", "10.3.0.0/24", "mirror.ports=all", "mirror.direction=in")
		if n, ok := r.find("named"); !ok || !slices.Equal(n.Config.Mirror.Containers, []string{"web"}) {
			t.Errorf("the network from before is %+v", n.Config.Mirror)
		}
	})
}

// An observer has an address of the network like everybody, is in no VLAN, has no
// default route by way of what it watches, and is not copied. It stays one over a
// restart of the daemon.
func TestObserver(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("web", "10.1.0.0/24", "gateway_mode=external", "vlan=7")
		r.endpoint("web", "eye", "10.1.0.2/24", "mirror.dest=self")
		j, err := r.Join(context.Background(), JoinRequest{Network: nid("web"), ID: eid("eye"), Sandbox: sandbox("eye")})
		if err != nil || j.Gateway.IsValid() || !j.DisableGateway {
			t.Errorf("joined as %+v, %v", j, err)
		}
		refused(t, r.tryEndpoint("web", "other", "10.1.0.2/24"), "10.1.0.2 is already used")
		r.restart()
		n, _ := r.find("web")
		ep, _ := n.Endpoint(eid("eye"))
		if !ep.Observer || n.Config.Mirrored(ep) || n.Port(ep).VLAN != ObserverVLAN {
			t.Errorf("after a restart it is %+v with port %+v", ep, n.Port(ep))
		}
		refused(t, r.tryEndpoint("web", "other", "10.1.0.2/24"), "10.1.0.2 is already used")
		r.endpoint("web", "plain", "10.1.0.3/24")
		n, _ = r.find("web")
		if ep, _ := n.Endpoint(eid("plain")); !n.Config.Mirrored(ep) {
			t.Error("a container without a name is not copied although all are")
		}
		n.Config.Mirror = &Mirror{Containers: []string{"web1"}}
		for name, want := range map[string]bool{"": false, "web2": false, "web1": true} {
			if got := n.Config.Mirrored(Endpoint{ContainerName: name}); got != want {
				t.Errorf("container %q is copied: %v", name, got)
			}
		}
	})
}

// The port of an observer keeps tags on where the network or its own attachment says
// trunk. It is in none of these VLANs, and its address is where the network's are.
func TestTrunkObserver(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("bare", "10.1.0.0/24", "trunk=10,20")
		r.create("native", "10.2.0.0/24", "trunk=10", "vlan=5")
		r.create("auto", "10.3.0.0/24")
		own, _ := r.find("auto")
		tagged, plain := Port{Trunk: VLANs{ObserverVLAN}}, Port{VLAN: ObserverVLAN}
		for i, c := range []struct {
			network, trunk string
			want           Port
		}{
			{"bare", "", tagged}, {"bare", "none", plain}, {"bare", "30", tagged},
			{"native", "", tagged}, {"native", "5,10", tagged}, {"auto", "", plain},
			{"auto", fmt.Sprint(own.Config.VLAN), tagged}, {"native", fmt.Sprint(own.Config.VLAN), tagged},
		} {
			options := []string{"mirror.dest=self"}
			if c.trunk != "" {
				options = append(options, "trunk="+c.trunk)
			}
			n, _ := r.find(c.network)
			name, addr := fmt.Sprint("eye", i), fmt.Sprintf("%s.%d/24", strings.TrimSuffix(n.Subnets[0].Prefix.Addr().String(), ".0"), i+2)
			r.endpoint(c.network, name, addr, options...)
			if _, err := r.Join(context.Background(), JoinRequest{Network: nid(c.network), ID: eid(name), Sandbox: sandbox(name)}); err != nil {
				t.Fatal(err)
			}
			r.restart()
			n, _ = r.find(c.network)
			ep, _ := n.Endpoint(eid(name))
			if p := n.Port(ep); p.VLAN != c.want.VLAN || !slices.Equal(p.Trunk, c.want.Trunk) {
				t.Errorf("%d: trunk=%q on %s has the port %+v", i, c.trunk, c.network, p)
			}
			refused(t, r.tryEndpoint(c.network, "other", addr), "is already used")
		}
	})
}

// No lease is asked for an observer, which could not ask. It has no address.
func TestObserverWithoutLease(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.leased("dhcp.timeout=3s")
		r.inside.with(func(i *fakeInside) { i.silent = true })
		r.join("n", "eye", "", "mirror.dest=self")
		if ep, _ := r.findEndpoint("eye"); len(ep.Addrs) > 0 || ep.Lease != nil {
			t.Errorf("it is %+v", ep)
		}
		if got := r.inside.asked(); len(got) > 0 {
			t.Errorf("the server was asked %q", got)
		}
		refused(t, r.tryEndpoint("n", "other", "", "mirror.dest=self", "dhcp.client_id=printer"), `dhcp.client_id="printer"`, "mirror.dest=self")
	})
}
