//go:build linux

package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// A bridge that stood before, with settings and ports of its owner, is the same
// after networks have come and gone on it, and all but its list of ports is the
// same while they are there. So is a bridge with no port at all.
func TestForeignBridge(t *testing.T) {
	t.Parallel()
	h := newHost(t, service, own)
	h.sh(`
ovs-vsctl --timeout=10 -- add-br br-hand -- set Bridge br-hand datapath_type=netdev fail_mode=standalone mcast_snooping_enable=true \
	protocols=[OpenFlow10,OpenFlow13] other_config:mac-table-size=777 other_config:hwaddr=02:00:00:00:77:01 external_ids:owner=netops external_ids:site=x \
	-- add-port br-hand internal tag=7 -- set Interface internal type=internal external_ids:iface-id=mine \
	-- set Port internal other_config:priority-tags=always external_ids:a=b \
	-- --id=@out get Port internal -- --id=@m create Mirror name=mirror select_vlan=8 output_port=@out -- set Bridge br-hand mirrors=@m \
	-- --id=@nf create NetFlow targets=\"127.0.0.1:2055\" -- set Bridge br-hand netflow=@nf
ovs-vsctl --timeout=10 add-br br-int -- set Bridge br-int datapath_type=netdev
ip addr add 10.77.0.1/24 dev br-hand
ip link set br-hand up
ovs-ofctl -O OpenFlow13 add-flow br-hand cookie=0x77,priority=7,dl_type=0x9999,actions=drop
`)
	hand := h.byHand("hand", "br-hand", "10.77.0.200/24", "vlan_mode=trunk", "trunks=0,5,6", "external_ids:owner=netops")
	before := h.foreign()

	h.network("open", "-o", "bridge=br-hand", "-o", "vlan=none", "--subnet", "10.77.0.0/24", "--gateway", "10.77.0.1", "-o", "gateway_mode=external")
	h.network("five", "-o", "bridge=br-hand", "-o", "vlan=5", "-o", "external_ids=owner2=me", "--subnet", "10.78.0.0/24")
	h.network("auto", "-o", "bridge=br-hand", "--subnet", "10.79.0.0/24")
	h.network("usual")
	for _, n := range []string{"open", "five", "auto", "usual"} {
		h.container(n+"a", n)
		h.container(n+"b", n)
		h.ping(n+"a", n+"b")
	}
	// What the owner made works as before, and with it: the address on the
	// bridge is the host's by his own wish.
	h.ping("opena", "10.77.0.1")
	h.ping("opena", "10.77.0.200")
	hand.can("ping", "-c", "1", "-W", "1", h.address("opena", "open"))
	if v := h.vlanOf("auto"); slices.Contains([]int{0, 5, 6, 7}, v) {
		t.Errorf("the automatic VLAN is %d, which a port of others has", v)
	}
	h.stopDriver()
	h.startDriver()
	h.ping("autoa", "autob")
	expectSame(t, "while networks are on it", before.withoutPorts(), h.foreign().withoutPorts())

	h.docker("rm", "-f", "opena", "openb", "fivea", "fiveb", "autoa", "autob", "usuala", "usualb")
	h.docker("network", "rm", "open", "five", "auto", "usual")
	h.expectClean()
	expectSame(t, "after the networks are gone", before, h.foreign())
}

// foreign is what others have in Open vSwitch, a text by the name of each row,
// and the state of their bridges' devices and flows.
type foreign map[string]string

// volatile are columns that change by themselves.
var volatile = []string{"statistics", "status", "rstp_status", "rstp_statistics", "link_resets", "cur_cfg", "next_cfg"}

func (h *host) foreign() foreign {
	h.t.Helper()
	f := foreign{}
	for _, table := range []string{"Bridge", "Port", "Interface", "Mirror", "NetFlow", "Open_vSwitch"} {
		for _, row := range h.rows(table) {
			if asMap(row["external_ids"])["owner"] == "ovs-container-network" {
				continue
			}
			for column, value := range row {
				if !slices.Contains(volatile, column) {
					text, err := json.Marshal(value)
					h.must(err)
					f[fmt.Sprintf("%s %v %s", table, row["name"], column)] = string(text)
				}
			}
		}
	}
	for _, device := range []string{"br-hand", "br-int", "internal", "v-hand"} {
		f["device "+device] = h.sh(fmt.Sprintf("ip address show %[1]s | sed 's/ tentative//'; ip -d link show %[1]s", device))
	}
	f["flows"] = h.sh(`ovs-ofctl -O OpenFlow13 --no-stats dump-flows br-hand`)
	return f
}

// withoutPorts leaves out the bridges' lists of ports.
func (f foreign) withoutPorts() foreign {
	f = maps.Clone(f)
	maps.DeleteFunc(f, func(k, _ string) bool { return strings.HasPrefix(k, "Bridge ") && strings.HasSuffix(k, " ports") })
	return f
}

func expectSame(t *testing.T, when string, before, now foreign) {
	t.Helper()
	if len(before) < 100 {
		t.Errorf("there is next to nothing to compare: %v", before)
	}
	for k, v := range before {
		if now[k] != v {
			t.Errorf("%s: %s was %s and is %q", when, k, v, now[k])
		}
	}
	for k, v := range now {
		if _, ok := before[k]; !ok {
			t.Errorf("%s: %s is new: %s", when, k, v)
		}
	}
}

// A bridge of ours serves any number of networks and goes with the last. One to
// which others have added a port stays as long as the port does.
func TestOwnBridge(t *testing.T) {
	t.Parallel()
	h := newHost(t, service, own)
	expectBridges := func(when, want string) {
		t.Helper()
		h.eventually(when+" the bridges are "+want, func() error {
			if got := strings.Join(strings.Fields(h.ovs("list-br")), " "); got != want {
				return fmt.Errorf("they are %q", got)
			}
			return nil
		})
	}
	tags := []int{}
	for i, on := range []string{"br-one", "br-one", "br-one", "br-two", ""} {
		name := fmt.Sprintf("n%d", i)
		args := []string{"--subnet", fmt.Sprintf("10.%d.0.0/24", 80+i)}
		if on != "" {
			args = append(args, "-o", "bridge="+on)
		}
		h.network(name, args...)
		h.container(name+"a", name)
		h.container(name+"b", name)
		if on == "br-one" {
			tags = append(tags, h.vlanOf(name))
		}
	}
	expectBridges("with networks on three bridges", "br-int br-one br-two")
	slices.Sort(tags)
	if len(slices.Compact(tags)) != 3 || tags[0] == 0 {
		t.Errorf("three networks on one bridge have the VLANs %v", tags)
	}
	for i := range 5 {
		h.ping(fmt.Sprintf("n%da", i), fmt.Sprintf("n%db", i))
	}

	// Others add a port to br-one, with the tag that a new network would get.
	next := tags[0] - 1
	h.byHand("guest", "br-one", "", fmt.Sprintf("tag=%d", next), "external_ids:mine=yes")
	guest := h.row("Port", "name=v-guest")
	h.network("n5", "-o", "bridge=br-one", "--subnet", "10.85.0.0/24")
	if v := h.vlanOf("n5"); v == next || slices.Contains(tags, v) {
		t.Errorf("a new network got VLAN %d, which is taken", v)
	}

	for i := range 4 {
		h.docker("rm", "-f", fmt.Sprintf("n%da", i), fmt.Sprintf("n%db", i))
	}
	h.docker("network", "rm", "n3", "n0")
	expectBridges("without the only network of one and one of several of another", "br-int br-one")
	h.docker("network", "rm", "n1", "n2", "n5")
	expectBridges("without the last network but with a port of others", "br-int br-one")
	if now := h.row("Port", "name=v-guest"); fmt.Sprint(now) != fmt.Sprint(guest) {
		t.Errorf("the port of others was %v and is %v", guest, now)
	}
	h.eventually("the port of others is alone on br-one", func() error {
		if ports := h.ovs("list-ports", "br-one"); ports != "v-guest" {
			return fmt.Errorf("there are the ports %q", ports)
		}
		return nil
	})
	// It serves a network again, and goes with it when the port is gone.
	h.network("again", "-o", "bridge=br-one", "--subnet", "10.86.0.0/24")
	h.container("aa", "again")
	h.container("bb", "again")
	h.ping("aa", "bb")
	h.ovs("del-port", "br-one", "v-guest")
	h.docker("rm", "-f", "aa", "bb", "n4a", "n4b")
	h.docker("network", "rm", "again", "n4")
	expectBridges("in the end", "")
	h.expectClean()
}
