//go:build linux

package integration

import (
	"strings"
	"testing"

	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

// Networks of one router reach each other, over IPv6 too, and the outside, translated;
// networks of different routers do not. When the host with the gateway port dies, another one
// takes it over. Published ports work on a routed network.
func TestOVNRouter(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3, lab.FleetOptions{})
	out, err := f.lab.StartOutside(t.Context(), lab.Outside{Hosts: f.Hosts})
	if err != nil {
		t.Fatal(err)
	}
	outside := &host{Host: out, t: t}
	h1, h2, h3 := f.hosts[0], f.hosts[1], f.hosts[2]
	way := []string{"--opt", "ovn.router=vpc", "--opt", "ovn.external_network=physnet1", "--opt", "ovn.external_address=198.51.100.10/24",
		"--opt", "ovn.external_gateway=198.51.100.1", "--opt", "ovn.snat=true", "--opt", "ovn.gateway_chassis=h1,h3"}
	h1.network("blue", append(way, "--subnet", "10.11.0.0/24", "--ipv6", "--subnet", "fd00:11::/64", "--opt", "ovn.switch=blue")...)
	h2.network("green", append(way, "--subnet", "10.12.0.0/24", "--ipv6", "--subnet", "fd00:12::/64", "--opt", "ovn.switch=green")...)
	h2.network("red", "--subnet", "10.13.0.0/24", "--ipv6", "--subnet", "fd00:13::/64", "--opt", "ovn.switch=red", "--opt", "ovn.router=other")
	h1.container("b1", "blue")
	h2.container("g1", "green")
	h2.container("r1", "red")
	h2.container("p1", "green", "-p", "8080:80")
	h2.docker("exec", "-d", "p1", "httpd", "-p", "80", "-h", "/etc")

	b1, g1 := h1.address("b1", "blue"), h2.address("g1", "green")
	h1.ping("b1", g1)
	h2.ping("g1", b1)
	h2.ping("p1", b1)
	h2.noPing("r1", b1)
	h2.noPing("r1", g1)
	b6, g6 := h1.address6("b1", "blue"), h2.address6("g1", "green")
	h1.ping("b1", "fd00:11::1")
	h1.ping("b1", g6)
	h2.ping("g1", b6)
	h2.ping("p1", b6)
	h2.ping("r1", "fd00:13::1")
	h2.noPing("r1", b6)
	if routes := h1.exec("b1", "ip", "-6", "route"); !strings.Contains(routes, "default via fd00:11::1 ") {
		t.Errorf("IPv6 routes of b1: %s", routes)
	}
	if prefix := f.nbctl("get", "Logical_Switch", "blue", "other_config:ipv6_prefix"); prefix != `"fd00:11::"` {
		t.Errorf("the switch has the ipv6_prefix %s", prefix)
	}
	if routes := h1.exec("b1", "ip", "route"); !strings.HasPrefix(routes, "default via 10.11.0.1 ") {
		t.Errorf("routes of b1: %s", routes)
	}
	h2.eventually("the published port answers", func() error {
		_, err := h2.Run(h2.ctx(), "busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/passwd")
		return err
	})

	for _, c := range []struct {
		h    *host
		name string
	}{{h1, "b1"}, {h2, "g1"}} {
		c.h.ping(c.name, lab.RouterIP)
		c.h.ping(c.name, lab.BehindIP)
	}
	seen := outside.seesPing(func() { h2.ping("g1", lab.BehindIP) })
	if !strings.Contains(seen, "198.51.100.10 > "+lab.BehindIP) {
		t.Errorf("outside sees %s", seen)
	}

	h1.must(h1.Kill())
	h2.ping("g1", lab.BehindIP) // over h3
	h1.must(f.Start(t.Context(), h1.Host))
	if _, err := f.lab.StartOutside(t.Context(), lab.Outside{Hosts: f.Hosts}); err != nil {
		t.Fatal(err)
	}
	h1.startDriver()
	h1.docker("restart", "-t", "0", "b1")
	h1.ping("b1", lab.BehindIP)
	h1.ping("b1", g1)

	h1.docker("rm", "-f", "b1")
	h2.docker("rm", "-f", "g1", "r1", "p1")
	h1.docker("network", "rm", "blue")
	h2.container("g2", "green")
	h2.ping("g2", lab.BehindIP) // its router is still there
	h2.docker("rm", "-f", "g2")
	h2.docker("network", "rm", "green", "red")
	h3.expectClean()
	f.expectEmpty()
}

// seesPing returns what the router outside sees of pings while do runs.
func (h *host) seesPing(do func()) string {
	h.t.Helper()
	h.sh("rm -f /tmp/seen; setsid ip netns exec out timeout 30 tcpdump -l -n -c 2 -i any icmp >/tmp/seen 2>/dev/null </dev/null & sleep 1")
	do()
	var seen string
	h.eventually("the router sees a ping", func() error {
		out, err := h.Run(h.ctx(), "grep", "-m", "1", "echo request", "/tmp/seen")
		seen = out
		return err
	})
	return seen
}
