//go:build linux

package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
)

// underlayMTU leaves room for the header of a tunnel around packets of 1500 bytes.
const underlayMTU = 1600

// silence is a shell function that keeps the kernel's stack off an interface of
// a userspace datapath, which reads through a packet socket: the kernel would see
// every frame too, and answer.
const silence = `
silence() { # INTERFACE
	echo 8 >/proc/sys/net/ipv4/conf/$1/arp_ignore
	echo 1 >/proc/sys/net/ipv6/conf/$1/disable_ipv6
	iptables -w -t raw -C PREROUTING -i $1 -j DROP 2>/dev/null ||
		iptables -w -t raw -I PREROUTING -i $1 -j DROP
}
`

// A tunnel of the userspace datapath leaves by an internal port: the address has
// to be there, and the network card a port of the same bridge.
const underlayScript = silence + `
mtu=$(cat /sys/class/net/eth0/mtu)
silence eth0
ovs-vsctl --timeout=10 --may-exist add-br br-phy -- set Bridge br-phy datapath_type=netdev -- \
	--may-exist add-port br-phy eth0 -- set Interface br-phy mtu_request=$mtu
ip link set br-phy up
ip address replace "$@" dev br-phy
`

// Underlay gives the host an address for tunnels, as "10.99.0.1/24", on a bridge
// br-phy of Open vSwitch that has eth0 as its port. Open vSwitch has to run; an
// eth0 that is not there is plugged into the lab's switch. Calling it again
// changes nothing, and after a boot puts back what was lost.
func (h *Host) Underlay(ctx context.Context, prefix string) error {
	addr, err := addressArgs(prefix)
	if err == nil {
		err = needTools(h.Path, "ip", "iptables", "ovs-vsctl")
	}
	if err != nil {
		return fmt.Errorf("host %s: %w", h.name, err)
	}
	if err := h.plugged(ctx, "eth0"); err != nil {
		return err
	}
	_, err = h.script(ctx, underlayScript, addr...)
	return err
}

// Address gives a host without Open vSwitch an address on an interface, which is
// plugged into the lab's switch if it is not there. The kernel leaves checksums
// to a network card; a userspace datapath at the other end would take that for a
// wrong checksum, so it is told not to. Calling it again changes nothing, and
// after a boot puts back what was lost.
func (h *Host) Address(ctx context.Context, iface, prefix string) error {
	addr, err := addressArgs(prefix)
	if err == nil {
		err = needTools(h.Path, "ip", "ethtool")
	}
	if err != nil {
		return fmt.Errorf("host %s: %w", h.name, err)
	}
	if err := h.plugged(ctx, iface); err != nil {
		return err
	}
	_, err = h.script(ctx, `
iface=$1
shift
ethtool -K $iface tx off >/dev/null
ip link set $iface up
ip address replace "$@" dev $iface`, append([]string{iface}, addr...)...)
	return err
}

// addressArgs are the arguments of `ip address` for an address.
func addressArgs(prefix string) ([]string, error) {
	p, err := netip.ParsePrefix(prefix)
	if err != nil {
		return nil, fmt.Errorf("address: %w", err)
	}
	if p.Addr().Is6() {
		return []string{prefix, "nodad"}, nil
	}
	return []string{prefix}, nil
}

// plugged plugs an interface into the lab's switch if it is not there.
func (h *Host) plugged(ctx context.Context, iface string) error {
	if h.hasLink(iface) {
		return nil
	}
	return h.Plug(ctx, iface, underlayMTU)
}

func (h *Host) hasLink(name string) bool {
	_, err := os.Stat(h.Path("/sys/class/net/" + name))
	return err == nil
}

// script runs a shell script with arguments in the host.
func (h *Host) script(ctx context.Context, script string, args ...string) (string, error) {
	return h.Run(ctx, append([]string{"sh", "-ec", script, "sh"}, args...)...)
}
