package network_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/ovs-container-network/ovs-container-network/internal/network"
)

// A set of VLANs has one text, the shortest.
func TestVLANsText(t *testing.T) {
	for _, c := range []struct {
		list VLANs
		text string
	}{
		{nil, ""}, {VLANs{10}, "10"}, {VLANs{1, 2}, "1-2"}, {VLANs{1, 3, 4, 5, 7, 4093, 4094}, "1,3-5,7,4093-4094"},
	} {
		if got := c.list.String(); got != c.text {
			t.Errorf("%v: %q", []uint16(c.list), got)
		}
		record, err := json.Marshal(struct{ L VLANs }{c.list})
		var again struct{ L VLANs }
		if err != nil || c.list != nil && string(record) != fmt.Sprintf(`{"L":%q}`, c.text) || json.Unmarshal(record, &again) != nil || !slices.Equal(again.L, c.list) {
			t.Errorf("%v is recorded as %s, read as %v, %v", []uint16(c.list), record, again.L, err)
		}
	}
	if err := new(VLANs).UnmarshalText([]byte("30-20")); err == nil {
		t.Error("a damaged list is read")
	}
}

// What an attachment says counts in place of what its network says, one option by
// one, and what the two make only together is refused.
func TestTrunkOfAttachment(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("access", "10.0.0.0/24", "vlan=5", "bridge=br0")
		r.create("trunk", "10.1.0.0/24", "trunk=10,20-22", "bridge=br0")
		r.create("native", "10.2.0.0/24", "trunk=10,20-22", "vlan=6", "bridge=br0")
		r.create("logical", "10.3.0.0/24", "ovn.switch=ls")
		host := byte(1)
		for _, c := range []struct{ network, options, want string }{
			{"access", "", "vlan=5 trunk="},
			{"access", "trunk=10", "vlan=5 trunk=10"},
			{"access", "trunk=10 vlan=none", "vlan=0 trunk=10"},
			{"access", "trunk=10 vlan=9", "vlan=9 trunk=10"},
			{"access", "trunk=4,5,6", `trunk="4-6": VLAN 5 is the native one`},
			{"access", "trunk=none", "vlan=5 trunk="},
			{"trunk", "", "vlan=0 trunk=10,20-22"},
			{"trunk", "vlan=5", "vlan=5 trunk=10,20-22"},
			{"trunk", "vlan=10", `vlan="10": VLAN 10 is in the trunk of the network (trunk=10,20-22)`},
			{"trunk", "vlan=10 trunk=20", "vlan=10 trunk=20"},
			{"trunk", "vlan=none", "vlan=0 trunk=10,20-22"},
			{"trunk", "trunk=none", `trunk="none": the network is a trunk without a native VLAN`},
			{"trunk", "trunk=none vlan=10", "vlan=10 trunk="},
			{"trunk", "trunk=none vlan=none", "vlan=0 trunk="},
			{"native", "", "vlan=6 trunk=10,20-22"},
			{"native", "trunk=30", "vlan=6 trunk=30"},
			{"native", "trunk=none", "vlan=6 trunk="},
			{"native", "vlan=none", "vlan=0 trunk=10,20-22"},
			{"native", "trunk=6", `trunk="6": VLAN 6 is the native one`},
			{"native", "vlan=21", `vlan="21": VLAN 21 is in the trunk`},
			{"logical", "trunk=10", `trunk="10": containers on a logical switch have no VLAN`},
			{"logical", "trunk=none", `trunk="none": containers on a logical switch have no VLAN`},
		} {
			host++
			n, _ := r.find(c.network)
			name := c.network + " " + c.options
			addr := n.Subnets[0].Prefix.Addr().As4()
			addr[3] = host
			err := r.tryEndpoint(c.network, name, fmt.Sprintf("%d.%d.%d.%d/24", addr[0], addr[1], addr[2], addr[3]), strings.Fields(c.options)...)
			if strings.Contains(c.want, ": ") {
				refused(t, err, c.want)
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			r.must(nil, r.tryJoin(c.network, name))
			ep, _ := r.findEndpoint(name)
			n, _ = r.find(c.network)
			if p := n.Port(ep); fmt.Sprintf("vlan=%d trunk=%s", p.VLAN, p.Trunk) != c.want {
				t.Errorf("%s: vlan=%d trunk=%s, want %s", name, p.VLAN, p.Trunk, c.want)
			}
		}
		r.settle()
		r.check()
		r.restart()
		r.settle()
		r.check()
	})
}

// Nobody else's own VLAN is in a trunk, whoever comes first.
func TestTrunkAndAuto(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("auto", "10.0.0.0/24", "bridge=br0") // 4094
		r.create("tag", "10.1.0.0/24", "bridge=br0", "vlan=7")
		r.create("far", "10.2.0.0/24", "bridge=br1", "vlan=7")
		r.must(nil, r.Annotate(nid("auto"), "private", nil))
		refused(t, r.tryEndpoint("tag", "a", "10.1.0.2/24", "trunk=10,4090-4094"), `trunk="10,4090-4094"`, "network private", "4094", "br0", "allowed are others")
		r.join("far", "elsewhere", "10.2.0.2/24", "trunk=4094")
		r.join("tag", "b", "10.1.0.2/24", "trunk=4093")
		r.join("auto", "own", "10.0.0.2/24", "trunk=10")
		r.join("auto", "tagged", "10.0.0.3/24", "trunk=4094", "vlan=none") // its own network's
		r.create("next", "10.3.0.0/24", "bridge=br0")
		if n, _ := r.find("next"); n.Config.VLAN != 4092 {
			t.Errorf("got VLAN %d", n.Config.VLAN)
		}
		r.settle()
		r.check()
	})
}

// A tag that an attachment is about to use is not given to a network.
func TestTrunkAndAutoAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("tag", "10.1.0.0/24", "bridge=br0", "vlan=7")
		gate := make(chan struct{})
		r.store.hook(func(op, _ string) error {
			if op == "PutEndpoint" {
				<-gate
			}
			return nil
		})
		entered := make(chan error, 1)
		go func() { entered <- r.tryEndpoint("tag", "a", "10.1.0.2/24", "trunk=4094") }()
		synctest.Wait()
		r.create("auto", "10.0.0.0/24", "bridge=br0")
		close(gate)
		r.must(nil, <-entered)
		if n, _ := r.find("auto"); n.Config.VLAN != 4093 {
			t.Errorf("got VLAN %d", n.Config.VLAN)
		}
		r.settle()
		r.check()
	})
}

// The addresses of a trunk are in its native VLAN. Without one they are nowhere on
// the bridge: another network may have them, the same network not.
func TestTrunkAddresses(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("native", "10.0.0.0/25", "bridge=br0", "vlan=7", "trunk=10")
		r.create("vlan7", "10.0.0.128/25", "bridge=br0", "vlan=7")
		refused(t, r.tryCreate("clash", "10.0.0.0/24", "bridge=br0", "vlan=7"), "overlaps", "bridge br0, vlan 7")
		r.create("lost", "10.0.0.0/24", "bridge=br0", "trunk=10")
		r.create("lost2", "10.0.0.0/24", "bridge=br0", "trunk=10")
		r.create("untagged", "10.0.0.0/24", "bridge=br0", "vlan=none")
		r.create("vlan10", "10.0.0.0/24", "bridge=br0", "vlan=10", "gateway_mode=external")
		r.join("native", "a", "10.0.0.2/24")
		refused(t, r.tryEndpoint("vlan7", "b", "10.0.0.2/24"), "10.0.0.2", "already used", "bridge br0, vlan 7")
		for _, network := range []string{"lost", "lost2", "untagged", "vlan10"} {
			r.join(network, network, "10.0.0.2/24")
		}
		refused(t, r.tryEndpoint("lost", "c", "10.0.0.2/24"), "10.0.0.2", "already used", "bridge br0, trunk without a native vlan")
		r.join("lost", "router", "10.0.0.1/24") // nobody's gateway there
		r.settle()
		r.check()
		// What nobody uses any more gives way as elsewhere.
		time.Sleep(time.Minute)
		r.kill(sandbox("lost"))
		r.join("lost", "d", "10.0.0.2/24")
		r.settle()
		r.check()
	})
}

// The MAC of a trunk is in all its VLANs.
func TestTrunkMAC(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("trunk", "10.0.0.0/24", "bridge=br0", "trunk=10,20-30")
		r.create("trunk2", "10.0.1.0/24", "bridge=br0", "trunk=40", "vlan=5")
		r.create("far", "10.0.2.0/24", "bridge=br1", "trunk=10")
		for _, vlan := range []string{"5", "10", "25", "31"} {
			r.create("v"+vlan, "10.1.0.0/24", "bridge=br0", "vlan="+vlan)
		}
		host := 1
		try := func(network, name string) error {
			host++
			req := endpointRequest(network, name, fmt.Sprintf("10.1.0.%d/24", host))
			req.MAC = "02:00:00:00:00:01"
			_, err := r.CreateEndpoint(t.Context(), req)
			return err
		}
		used := func(err error, where string) {
			t.Helper()
			refused(t, err, "MAC address 02:00:00:00:00:01 is already used by", where)
		}
		r.must(nil, try("trunk", "a"))
		for network, where := range map[string]string{"v10": "bridge br0, trunks", "v25": "bridge br0, trunks", "trunk2": "bridge br0, trunks"} {
			used(try(network, "b"), where)
		}
		for _, network := range []string{"v5", "v31", "far"} {
			r.must(nil, try(network, network))
		}
		r.deleteEndpoint("trunk", "a")
		r.must(nil, try("v25", "there first"))
		used(try("trunk", "c"), "bridge br0, vlan 25")
		used(try("trunk2", "d"), "bridge br0, vlan 5") // as its native one
		r.deleteEndpoint("v5", "v5")
		r.must(nil, try("trunk2", "e"))
		used(try("v5", "f"), "bridge br0, vlan 5")
		r.settle()
		r.check()
	})
}

// Reports and settings say what a trunk carries, and which tag gets through.
func TestTrunkReport(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24", "trunk=21,20,10")
		r.join("n", "a", "10.0.0.2/24")
		r.join("n", "b", "10.0.0.3/24", "vlan=7")
		r.join("n", "c", "10.0.0.4/24", "vlan=7", "trunk=none")
		report := r.Reports()[0]
		var got []string
		for _, name := range []string{"a", "b", "c"} {
			for _, e := range report.Ends {
				if e.ID == eid(name) {
					got = append(got, fmt.Sprint(e.VLAN, " ", e.Trunk, " ", e.Tag()))
				}
			}
		}
		if want := []string{"none 10,20-21 10", "7 10,20-21 0", "7  0"}; !slices.Equal(got, want) || report.VLAN != "none" || report.Trunk != "10,20-21" {
			t.Errorf("got %q, network %s %s", got, report.VLAN, report.Trunk)
		}
		n, _ := r.find("n")
		c, err := ParseOptions(opts(strings.Fields(n.Config.String())...), false, n.Subnets)
		if err != nil || c.String() != n.Config.String() || !slices.Equal(c.Trunk, n.Config.Trunk) {
			t.Errorf("%q is taken for %q, %v", n.Config, c, err)
		}
		// Docker's own repetition of the call.
		r.create("n", "10.0.0.0/24", "trunk=10,20-21")
		refused(t, r.tryCreate("n", "10.0.0.0/24", "trunk=10,20-22"), "exists already")
	})
}
