//go:build linux

package lab

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// What the outside has where, and what a host has for it.
const (
	OutsideName = "outside"

	PhysNet  = "physnet1" // the bridge mapping
	ExBridge = "br-ex"
	ExIface  = "eth1"

	RouterIP  = "198.51.100.1" // /24, untagged
	RouterIP6 = "fd00:51::1"   // /64
	// BehindIP and BehindIP6 are behind the router: what a default route leads to.
	BehindIP  = "203.0.113.1"
	BehindIP6 = "2001:db8:113::1"
)

// Outside says what there is besides the fleet.
type Outside struct {
	Hosts []*Host // that have a cable to it; Open vSwitch has to run on them
	VLANs []int   // 1 to 255; 42 alone by default
}

// StartOutside boots the host "outside": the physical switch that the bridge
// mapping physnet1 of the hosts leads to, on eth1 and br-ex, and what is behind
// it. A network namespace "out" there is the router: it has [RouterIP] on the
// untagged network, forwards, and has no route to anywhere but its neighbours
// and [BehindIP]. Each VLAN has a namespace "vNN" with 10.NN.0.1/24 and
// fd00:NN::1/64. The switch is an Open vSwitch, because a kernel need not have
// VLANs.
//
// Calling it again changes nothing, adds hosts that are new, and puts back what
// the boot of a host or of the outside itself has lost.
func (l *Lab) StartOutside(ctx context.Context, o Outside) (*Host, error) {
	vlans := o.VLANs
	if vlans == nil {
		vlans = []int{42}
	}
	out, err := l.running(ctx, OutsideName)
	if err != nil {
		return nil, err
	}
	if err := needTools(out.Path, "ip", "iptables", "ethtool", "ovs-vsctl"); err != nil {
		return nil, fmt.Errorf("host %s: %w", out.name, err)
	}
	if err := out.StartOVS(ctx); err != nil {
		return nil, err
	}
	if _, err := out.Shell(ctx, outsideSwitch); err != nil {
		return nil, err
	}
	// With tag 0, the router's port gets untagged frames only.
	if err := out.station(ctx, "out", 0, RouterIP+"/24", RouterIP6+"/64"); err != nil {
		return nil, err
	}
	if _, err := out.Shell(ctx, outsideRouter); err != nil {
		return nil, err
	}
	for _, v := range vlans {
		if v < 1 || v > 255 {
			return nil, fmt.Errorf("outside: VLAN %d: want 1 to 255", v)
		}
		n := strconv.Itoa(v)
		if err := out.station(ctx, "v"+n, v, "10."+n+".0.1/24", "fd00:"+n+"::1/64"); err != nil {
			return nil, err
		}
	}
	for _, h := range o.Hosts {
		if err := h.goOutside(ctx, out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// The host of the switch has no address of its own, and its kernel is to hear
// nothing: also nothing of an interface that is to come.
const outsideSwitch = `
for i in all default; do
	echo 8 >/proc/sys/net/ipv4/conf/$i/arp_ignore
	echo 1 >/proc/sys/net/ipv6/conf/$i/disable_ipv6
done
iptables -w -t raw -C PREROUTING ! -i lo -j DROP 2>/dev/null || iptables -w -t raw -A PREROUTING ! -i lo -j DROP
ovs-vsctl --timeout=10 --may-exist add-br br-out -- set Bridge br-out datapath_type=netdev
`

const outsideRouter = `
ip netns exec out sh -ec '
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
ip address replace ` + BehindIP + `/32 dev lo
ip address replace ` + BehindIP6 + `/128 dev lo nodad'
`

// A station is a network namespace with an access port of the switch. The new
// namespace takes its settings from the kernel's defaults or from the host's
// own, which say that there is no IPv6 and no ARP.
const stationScript = `
ns=$1 port=p-$1 tag=$2 mac=$3
shift 3
test -e /run/netns/$ns || ip netns add $ns
ip -n $ns link set lo up
if ! test -e /sys/class/net/$port; then
	ovs-vsctl --timeout=10 --if-exists del-port $port
	ip link add $port type veth peer name eth0 address $mac netns $ns
fi
ip link set $port up
ip netns exec $ns sh -ec '
for i in all default lo eth0; do
	echo 0 >/proc/sys/net/ipv4/conf/$i/arp_ignore
	echo 0 >/proc/sys/net/ipv6/conf/$i/disable_ipv6
done
ethtool -K eth0 tx off >/dev/null
ip link set eth0 up'
for a; do
	case $a in
	*:*) ip -n $ns address replace $a dev eth0 nodad ;;
	*) ip -n $ns address replace $a dev eth0 ;;
	esac
done
ovs-vsctl --timeout=10 --may-exist add-port br-out $port -- set Port $port tag=$tag
`

func (h *Host) station(ctx context.Context, name string, tag int, addrs ...string) error {
	_, err := h.script(ctx, stationScript, append([]string{name, strconv.Itoa(tag), h.mac(name)}, addrs...)...)
	return err
}

const exScript = silence + `
ip link set eth1 up
silence eth1
ovs-vsctl --timeout=10 --may-exist add-br br-ex -- set Bridge br-ex datapath_type=netdev -- \
	--may-exist add-port br-ex eth1 -- set Open_vSwitch . external_ids:ovn-bridge-mappings=physnet1:br-ex
`

// goOutside gives the host a trunk to the switch outside.
func (h *Host) goOutside(ctx context.Context, out *Host) error {
	if err := needTools(h.Path, "ip", "iptables", "ovs-vsctl"); err != nil {
		return fmt.Errorf("host %s: %w", h.name, err)
	}
	h.mu.Lock()
	taken := slices.ContainsFunc(h.spec.Cables, func(c cable) bool { return c.Iface == ExIface })
	h.mu.Unlock()
	if taken {
		return fmt.Errorf("host %s: %s is plugged into the lab's switch, it cannot lead outside too", h.name, ExIface)
	}
	far := h.port(ExIface)
	if !h.hasLink(ExIface) || !out.hasLink(far) {
		if err := h.cableOutside(ctx, out); err != nil {
			return err
		}
	}
	if _, err := out.script(ctx, `ip link set $1 up; ovs-vsctl --timeout=10 --may-exist add-port br-out $1`, far); err != nil {
		return err
	}
	_, err := h.Shell(ctx, exScript)
	return err
}

// cableOutside makes the pair of interfaces anew. When the power of a host is
// cut, the kernel takes away its end and the other one some time later; and a
// port of the userspace datapath does not follow its name to a new interface.
func (h *Host) cableOutside(ctx context.Context, out *Host) error {
	for _, end := range []struct {
		*Host
		link string
	}{{h, ExIface}, {out, h.port(ExIface)}} {
		if _, err := end.Run(ctx, "ovs-vsctl", "--timeout=10", "--if-exists", "del-port", end.link); err != nil {
			return err
		}
		if text, err := end.ip(ctx, "link", "del", end.link); err != nil && !strings.Contains(text, "Cannot find") {
			return fmt.Errorf("host %s: remove %s: %w: %s", end.name, end.link, err, strings.TrimSpace(text))
		}
	}
	mtu := strconv.Itoa(underlayMTU)
	text, err := out.ip(ctx, "link", "add", h.port(ExIface), "mtu", mtu, "type", "veth",
		"peer", "name", ExIface, "address", h.mac(ExIface), "mtu", mtu, "netns", strconv.Itoa(h.NSPID()))
	if err != nil {
		return fmt.Errorf("host %s: cable to the outside: %w: %s", h.name, err, strings.TrimSpace(text))
	}
	return nil
}
