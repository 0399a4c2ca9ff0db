//go:build linux

package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// server6 attaches a machine to a bridge that is a DHCP server, and for IPv6 the
// router fe80::1 with the address ADDR6 and what args say.
func (h *host) server6(name, bridge, subnet, addr6 string, args ...string) place {
	h.t.Helper()
	p := h.byHand(name, bridge, subnet+".1/24")
	p.run("ip", "-6", "addr", "flush", "dev", "eth0", "scope", "link")
	p.run("ip", "addr", "add", "fe80::1/64", "dev", "eth0", "nodad")
	p.run("ip", "addr", "add", addr6, "dev", "eth0", "nodad")
	p.dhcpServer(subnet, args...)
	return p
}

// shown6 is the IPv6 address that Docker shows.
func (h *host) shown6(container, network string) string {
	h.t.Helper()
	return h.docker("inspect", "-f", fmt.Sprintf("{{with index .NetworkSettings.Networks %q}}{{.GlobalIPv6Address}}/{{.GlobalIPv6PrefixLen}}{{end}}", network), container)
}

// inet6 are the IPv6 addresses of a device in the place, but its link-local one.
func (p place) inet6(device string) string {
	p.h.t.Helper()
	return strings.Join(strings.Fields(p.h.sh(fmt.Sprintf("nsenter --net=%s ip -6 -o addr show dev %s scope global | awk '{print $4}'", p.netns, device))), " ")
}

// sees6 is a first process that notes what it finds of IPv6, and reaches a machine.
func sees6(addr string) []string {
	return []string{"lab", "sh", "-c", "ip -6 addr show dev eth0 >/tmp/addr; ip -6 route >/tmp/route; ping -c 1 -W 5 " + addr + " >/tmp/ping; echo $? >>/tmp/ping; exec pause"}
}

// saw6 checks what the first process found.
func (h *host) saw6(container, addr string, routes ...string) {
	h.t.Helper()
	if got := h.exec(container, "cat", "/tmp/addr"); !strings.Contains(got, addr+" ") || strings.Contains(strings.Split(strings.Split(got, addr)[1], "\n")[0], "tentative") {
		h.t.Errorf("the first process of %s saw %s, want %s", container, got, addr)
	}
	got := h.exec(container, "cat", "/tmp/route")
	for _, want := range routes {
		if !strings.Contains(got, want) {
			h.t.Errorf("the first process of %s saw the routes %s, want %s", container, got, want)
		}
	}
	h.eventually("the first process reached the router", func() error {
		if out := h.exec(container, "cat", "/tmp/ping"); !strings.HasSuffix(strings.TrimSpace(out), "\n0") {
			return fmt.Errorf("it says %s", out)
		}
		return nil
	})
}

// dhcp=true where routers and servers give IPv6: a container has it from its first
// process on, of a server or by its MAC address; where nobody gives any, all is as
// without.
func TestLease6(t *testing.T) {
	oldAndNew(t, func(t *testing.T, h *host) {
		options := []string{"--opt", "ipam=external", "--opt", "dhcp=true", "--opt"}
		null := append([]string{"--ipam-driver", "null"}, options...)
		h.network("managed", append(null, "bridge=br-managed")...)
		h.network("slaac", append(null, "bridge=br-slaac")...)
		h.network("plain", append(null, "bridge=br-plain")...)
		h.byHand("plain", "br-plain", "10.41.0.1/24").dhcpServer("10.41.0")
		managed := h.server6("managed", "br-managed", "10.42.0", "fd42::1/64", "--enable-ra", "--dhcp-range=fd42::100,fd42::1ff,64,2m")
		h.server6("slaac", "br-slaac", "10.43.0", "fd43::1/64", "--enable-ra", "--dhcp-range=fd43::,ra-only")

		for i := range 2 {
			start := time.Now()
			h.docker("run", "-d", "--name", fmt.Sprintf("p%d", i), "--network", "plain", "lab")
			t.Logf("without IPv6 a container started within %s", time.Since(start))
			if got, shown := h.in(fmt.Sprintf("p%d", i)).inet6("eth0"), h.shown6(fmt.Sprintf("p%d", i), "plain"); got != "" || shown != "/0" {
				t.Errorf("without IPv6 it has %s, and Docker shows %s", got, shown)
			}
		}

		// Of a server, which sees the same client again.
		start := time.Now()
		h.docker(append([]string{"run", "-d", "--name", "aa", "--network", "managed", "--mac-address", "02:00:00:00:00:a1"}, sees6("fd42::1")...)...)
		t.Logf("with DHCPv6 a container started within %s", time.Since(start))
		addr := h.shown6("aa", "managed")
		if !strings.HasPrefix(addr, "fd42::1") || !strings.HasSuffix(addr, "/64") {
			t.Fatalf("Docker shows %s", addr)
		}
		h.saw6("aa", addr, "fd42::/64", "default via fe80::1")
		bare := strings.TrimSuffix(addr, "/64")
		if hosts := h.exec("aa", "cat", "/etc/hosts"); !strings.Contains(hosts, bare) {
			t.Errorf("/etc/hosts is %s", hosts)
		}
		if got, health, _ := h.leased("aa"); len(got) != 2 || got[1] != addr || health != "ok" {
			t.Errorf("status shows %s, %s", got, health)
		}
		h.docker("run", "-d", "--name", "bb", "--network", "managed", "lab")
		h.ping("bb", bare)
		if out := h.exec("bb", "nslookup", "-type=aaaa", "aa"); !strings.Contains(out, bare) {
			t.Errorf("Docker's DNS says %s", out)
		}
		h.docker("restart", "-t", "1", "aa")
		if again := h.shown6("aa", "managed"); again != addr {
			t.Errorf("with the same MAC address it got %s after %s", again, addr)
		}
		h.killDriver()
		if h.form == service {
			h.startDriver()
		}
		renewals := func() int { return strings.Count(managed.serverLog(), "DHCPRENEW(") }
		seen := renewals()

		// By its MAC address.
		h.docker(append([]string{"run", "-d", "--name", "cc", "--network", "slaac", "--mac-address", "02:00:00:00:00:c1"}, sees6("fd43::1")...)...)
		if got := h.shown6("cc", "slaac"); got != "fd43::ff:fe00:c1/64" {
			t.Errorf("Docker shows %s", got)
		}
		h.saw6("cc", "fd43::ff:fe00:c1/64", "fd43::/64", "default via fe80::1")
		if got := h.in("cc").inet6("eth0"); got != "fd43::ff:fe00:c1/64" {
			t.Errorf("it has %s", got)
		}

		// Two links with the same router; a container that wants no IPv6.
		h.docker("network", "connect", "slaac", "aa")
		if got := h.in("aa").inet6("eth1"); !strings.HasPrefix(got, "fd43::") {
			t.Errorf("the second link has %s", got)
		}
		h.docker("restart", "-t", "1", "aa")
		h.ping("aa", "fd42::1")
		h.ping("aa", "fd43::1")
		h.docker("run", "-d", "--name", "dd", "--network", "managed", "--sysctl", "net.ipv6.conf.all.disable_ipv6=1", "lab")
		h.ping("dd", "10.42.0.1")
		t.Logf("a container that wants no IPv6 has %q", h.in("dd").inet6("eth0"))

		h.within(2*time.Minute, "a driver that was killed renews", func() error {
			if renewals() <= seen {
				return fmt.Errorf("the server has seen %d renewals", seen)
			}
			return nil
		})
		if got := h.in("aa").inet6("eth0"); got != addr {
			t.Errorf("after a renewal it has %s, want %s", got, addr)
		}
		shown := strings.TrimSuffix(h.shown6("bb", "managed"), "/64")
		h.docker("rm", "-f", "aa", "bb", "cc", "dd", "p0", "p1")
		h.eventually("the address of bb is given back, that of aa is not", func() error {
			if left := strings.Join(managed.leases(), "\n"); strings.Contains(left, " "+shown+" ") || !strings.Contains(left, " "+bare+" ") {
				return fmt.Errorf("the server has %s", left)
			}
			return nil
		})
		for _, bridge := range []string{"managed", "slaac", "plain"} {
			h.ovs("del-port", "br-"+bridge, "v-"+bridge)
		}
		h.docker("network", "rm", "managed", "slaac", "plain")
		h.expectClean()
	})
}
