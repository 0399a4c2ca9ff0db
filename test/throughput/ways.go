//go:build linux

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

// way is one way between two containers.
type way struct {
	name      string
	protocols []string
	host      *lab.Host
	client    string // path of the network namespace in the host
	server    string
	addr      string // of the server
	spins     bool   // ovs-vswitchd of the host must not run while others are measured
}

// The names of the ways, in the order of the table.
const (
	dockerBridge = "Docker's bridge"
	ours         = "this driver"
	oursNoNAT    = "this driver, Docker's NAT rules in the containers flushed"
	byHand       = "veths by hand, tx off"
	oursTSO      = "this driver, userspace-tso"
	byHandTSO    = "veths by hand, userspace-tso"
	afxdp        = "by hand, type=afxdp"
	afxdpNonPMD  = "by hand, type=afxdp-nonpmd"
)

// setUp makes the hosts: what ovs-vswitchd is told at its start, and a thread
// that never sleeps (afxdp), cannot share one.
func setUp(ctx context.Context, l *lab.Lab, dir, image string) ([]*way, error) {
	var ways []*way
	for _, set := range []struct {
		host, script string
		docker       bool
		ways         []*way
	}{
		{"plain", `
docker network create --subnet 10.1.0.0/24 bridged
docker network create --subnet 10.2.0.0/24 --driver ovs-container-network ours
docker network create --subnet 10.4.0.0/24 --driver ovs-container-network flushed
` + pair("bridged", "10.1.0") + pair("ours", "10.2.0") + pair("flushed", "10.4.0") + flush + attach("br-int", "10.3.0", "", "off"), true,
			[]*way{
				{name: dockerBridge, protocols: both, server: "bridged-s", client: "bridged-c", addr: "10.1.0.11"},
				{name: ours, protocols: both, server: "ours-s", client: "ours-c", addr: "10.2.0.11"},
				{name: oursNoNAT, protocols: both, server: "flushed-s", client: "flushed-c", addr: "10.4.0.11"},
				{name: byHand, protocols: both, server: "hand-s", client: "hand-c", addr: "10.3.0.11"},
			}},
		{"tso", `
docker network create --subnet 10.2.0.0/24 --driver ovs-container-network ours
` + pair("ours", "10.2.0") + attach("br-int", "10.3.0", "", "on"), true,
			[]*way{
				{name: oursTSO, protocols: both, server: "ours-s", client: "ours-c", addr: "10.2.0.11"},
				{name: byHandTSO, protocols: both, server: "hand-s", client: "hand-c", addr: "10.3.0.11"},
			}},
		{"xdp", attach("br0", "10.3.0", "afxdp", "off"), false,
			[]*way{{name: afxdp, protocols: both, server: "hand-s", client: "hand-c", addr: "10.3.0.11", spins: true}}},
		{"xdpnp", attach("br0", "10.3.0", "afxdp-nonpmd", "off"), false,
			[]*way{{name: afxdpNonPMD, protocols: both, server: "hand-s", client: "hand-c", addr: "10.3.0.11", spins: true}}},
	} {
		h, err := boot(ctx, l, set.host, dir, image, set.docker)
		if err != nil {
			return nil, fmt.Errorf("host %s: %w", set.host, err)
		}
		if _, err := h.Shell(ctx, set.script); err != nil {
			return nil, fmt.Errorf("host %s: %w", set.host, err)
		}
		for _, w := range set.ways {
			w.host = h
			for _, ns := range []*string{&w.server, &w.client} {
				if *ns, err = netnsOf(ctx, h, *ns); err != nil {
					return nil, err
				}
			}
			if err := w.pause(ctx); err != nil {
				return nil, err
			}
			ways = append(ways, w)
		}
	}
	return ways, nil
}

var both = []string{"tcp", "udp"}

// boot makes a host with Open vSwitch, set up as its name says.
func boot(ctx context.Context, l *lab.Lab, name, dir, image string, docker bool) (*lab.Host, error) {
	h, err := l.Host(ctx, name, lab.WithBind(dir, "/opt/ocn"))
	if err != nil {
		return nil, err
	}
	if err := h.StartOVSDB(ctx); err != nil {
		return nil, err
	}
	if name == "tso" {
		if _, err := h.Run(ctx, "ovs-vsctl", "--no-wait", "set", "Open_vSwitch", ".", "other_config:userspace-tso-enable=true"); err != nil {
			return nil, err
		}
	}
	if err := h.StartVswitchd(ctx); err != nil || !docker {
		return h, err
	}
	if err := h.StartDocker(ctx); err != nil {
		return nil, err
	}
	if err := h.ImportImage(ctx, image, "lab"); err != nil {
		return nil, err
	}
	_, err = h.Shell(ctx, `
setsid /opt/ocn/ovs-container-network serve </dev/null >/var/log/ocn.log 2>&1 &
for i in $(seq 100); do /opt/ocn/ovs-container-network status >/dev/null 2>&1 && exit; sleep 0.1; done
tail /var/log/ocn.log; exit 1`)
	return h, err
}

// pair is the script that starts the two containers of a network.
func pair(network, prefix string) string {
	return fmt.Sprintf(`
docker run -d --name %[1]s-s --network %[1]s --ip %[2]s.11 lab
docker run -d --name %[1]s-c --network %[1]s --ip %[2]s.12 lab
`, network, prefix)
}

// flush takes away the rules by which Docker leads a container's questions for names
// to itself: the kernel follows each connection of the container for them.
const flush = `
for c in flushed-s flushed-c; do
	nsenter --net=$(docker inspect -f '{{.NetworkSettings.SandboxKey}}' $c) sh -c 'iptables -t nat -F; iptables -t nat -X'
done
`

// attach is the script that attaches two namespaces to a bridge without help.
func attach(bridge, prefix, kind, tx string) string {
	script := fmt.Sprintf("ovs-vsctl --timeout=10 --may-exist add-br %[1]s -- set Bridge %[1]s datapath_type=netdev\n", bridge)
	for ns, last := range map[string]int{"hand-s": 11, "hand-c": 12} {
		script += fmt.Sprintf(`
ip netns add %[1]s
ip link add v-%[1]s type veth peer name eth0 netns %[1]s
ip link set v-%[1]s up
ip netns exec %[1]s ethtool -K eth0 tx %[5]s >/dev/null
ip -n %[1]s addr add %[2]s.%[3]d/24 dev eth0
ip -n %[1]s link set eth0 up
ovs-vsctl --timeout=10 add-port %[4]s v-%[1]s -- set Interface v-%[1]s 'type="%[6]s"'
`, ns, prefix, last, bridge, tx, kind)
	}
	return script
}

// netnsOf is where the namespace of a container, or one made by attach, is.
func netnsOf(ctx context.Context, h *lab.Host, name string) (string, error) {
	if strings.HasPrefix(name, "hand-") {
		return "/run/netns/" + name, nil
	}
	out, err := h.Run(ctx, "docker", "inspect", "-f", "{{.NetworkSettings.SandboxKey}}", name)
	return strings.TrimSpace(out), err
}
