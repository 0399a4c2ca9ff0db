//go:build linux

package lab_test

import (
	"context"
	"strings"
	"testing"

	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

// join puts a network namespace of that name on a bridge, by hand as one would.
// More is what else ovs-vsctl is told about port v-NAME.
func join(t *testing.T, ctx context.Context, h *lab.Host, bridge, name, mac, prefix string, more ...string) {
	t.Helper()
	_, err := h.Run(ctx, append([]string{"sh", "-ec", `
br=$1 ns=$2 mac=$3 prefix=$4
shift 4
ip netns add $ns
ip link add v-$ns type veth peer name eth0 address $mac netns $ns
ip netns exec $ns ethtool -K eth0 tx off >/dev/null
ip link set v-$ns up
ip -n $ns link set eth0 up
ip -n $ns address add $prefix dev eth0
ovs-vsctl --timeout=10 --may-exist add-port $br v-$ns "$@"`, "sh", bridge, name, mac, prefix}, more...)...)
	must(t, err)
}

// reaches waits until a namespace reaches an address with packets of full size:
// the first ones are lost while the end of a tunnel is looked up.
func reaches(t *testing.T, ctx context.Context, h *lab.Host, ns, addr string) {
	t.Helper()
	size := "1472"
	if strings.Contains(addr, ":") {
		size = "1452"
	}
	eventually(t, ns+" reaches "+addr, func() error {
		_, err := h.Run(ctx, "ip", "netns", "exec", ns, "ping", "-M", "do", "-s", size, "-c", "1", "-W", "1", addr)
		return err
	})
}

// TestOutside reaches the router and a VLAN, also after a power cut on either end
// of the cable.
func TestOutside(t *testing.T) {
	l, ctx := newLab(t)
	step := steps(t)
	h, err := l.Host(ctx, "h1")
	must(t, err)
	start := func() *lab.Host {
		t.Helper()
		must(t, h.StartOVS(ctx))
		out, err := l.StartOutside(ctx, lab.Outside{Hosts: []*lab.Host{h}})
		must(t, err)
		return out
	}
	attach := func() {
		t.Helper()
		join(t, ctx, h, lab.ExBridge, "c", "02:00:00:00:02:01", "10.42.0.9/24", "tag=42")
		join(t, ctx, h, lab.ExBridge, "d", "02:00:00:00:02:02", "198.51.100.9/24")
		run(t, ctx, h, "ip", "-n", "d", "route", "add", "default", "via", lab.RouterIP)
		run(t, ctx, h, "ip", "-n", "d", "address", "add", "fd00:51::9/64", "dev", "eth0", "nodad")
	}
	check := func() {
		t.Helper()
		reaches(t, ctx, h, "c", "10.42.0.1")
		reaches(t, ctx, h, "d", lab.RouterIP)
		reaches(t, ctx, h, "d", lab.BehindIP)
		reaches(t, ctx, h, "d", lab.RouterIP6)
	}
	out := start()
	step("outside")
	attach()
	check()
	step("VLAN and router")
	if got := run(t, ctx, h, "ovs-vsctl", "get", "Open_vSwitch", ".", "external_ids:ovn-bridge-mappings"); got != `"physnet1:br-ex"` {
		t.Errorf("bridge mappings: %s", got)
	}
	if _, err := h.Run(ctx, "ip", "netns", "exec", "d", "ping", "-c", "1", "-W", "1", "10.42.0.1"); err == nil {
		t.Error("the router leads into the VLAN")
	}

	if start() != out {
		t.Error("a second call made another host")
	}
	check()
	must(t, h.Reboot(ctx))
	start()
	attach()
	check()
	step("host rebooted")
	must(t, out.Kill())
	start()
	check()
	step("outside rebooted")
}
