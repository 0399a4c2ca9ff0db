//go:build linux

package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// server6 makes a place whose IPv4 address is .1 of a subnet a DHCP server, and for
// IPv6 the router fe80::1 with the address addr6 and what args say.
func (p place) server6(subnet, addr6 string, args ...string) place {
	p.h.t.Helper()
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
		managed := h.byHand("managed", "br-managed", "10.42.0.1/24").server6("10.42.0", "fd42::1/64", "--enable-ra", "--dhcp-range=fd42::100,fd42::1ff,64,2m")
		h.byHand("slaac", "br-slaac", "10.43.0.1/24").server6("10.43.0", "fd43::1/64", "--enable-ra", "--dhcp-range=fd43::,ra-only")

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
		// Which of the two links is eth0, the engine decides anew.
		if got := h.in("aa").run("ip", "-6", "addr", "show", "scope", "global"); !strings.Contains(got, addr+" ") {
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

// On a logical switch a port may use the IPv6 addresses that it was given, its
// link-local one, and no others.
func TestLease6OVN(t *testing.T) {
	t.Parallel()
	h := newHost(t, service, own)
	h.startOVN()
	h.network("n", "--ipam-driver", "null", "--opt", "ovn.switch=ls", "--opt", "ipam=external", "--opt", "dhcp=true")
	h.nbctl("lsp-add", "ls", "server", "--", "lsp-set-addresses", "server", "unknown")
	server := h.byHand("overlay", "br-int", "10.44.0.1/24", "--", "set", "Interface", "v-overlay", "external_ids:iface-id=server").
		server6("10.44.0", "fd44::1/64", "--enable-ra", "--dhcp-range=fd44::100,fd44::1ff,slaac,64,2m")
	h.docker(append([]string{"run", "-d", "--name", "aa", "--network", "n", "--mac-address", "02:00:00:00:00:a1", "--cap-add", "NET_ADMIN"}, sees6("fd44::1")...)...)
	for range 3 {
		addr := h.shown6("aa", "n")
		h.saw6("aa", addr, "default via fe80::1")
		want := fmt.Sprintf("02:00:00:00:00:a1 %s %s fd44::ff:fe00:a1", h.address("aa", "n"), strings.TrimSuffix(addr, "/64"))
		port := h.portOf("aa", "n")
		for column, want := range map[string]string{"port_security": want, "addresses": want + " fe80::ff:fe00:a1"} {
			if got := h.nbctl("--bare", "--columns="+column, "list", "Logical_Switch_Port", port); got != want {
				t.Errorf("%s of the port are %q, want %q", column, got, want)
			}
		}
		h.docker("restart", "-t", "1", "aa")
	}
	aa := h.in("aa")
	aa.run("ip", "addr", "add", "fd44::bad/64", "dev", "eth0", "nodad")
	frames := server.capture()
	for _, from := range []string{"fd44::bad", strings.TrimSuffix(h.shown6("aa", "n"), "/64")} {
		h.sh("docker exec aa ping -c 2 -W 1 -I " + from + " fd44::1 || true")
	}
	aa.run("ip", "addr", "del", "fd44::bad/64", "dev", "eth0")
	h.ping("aa", "fd44::1")
	if got := frames.frames("fd44::bad >"); len(got) > 0 {
		t.Errorf("the server got %q", got)
	}
	h.docker("rm", "-f", "aa")

	// A prefix that comes later is for the port to use, too.
	h.network("m", ownLeases("ovn.switch=ms")...)
	h.nbctl("lsp-add", "ms", "router", "--", "lsp-set-addresses", "router", "unknown")
	router := h.byHand("router", "br-int", "10.45.0.1/24", "--", "set", "Interface", "v-router", "external_ids:iface-id=router").
		server6("10.45.0", "fd45::1/64", "--enable-ra", "--dhcp-range=fd45::,ra-only,2m", "--dhcp-range=fd46::,ra-only,2m")
	h.container("bb", "m", "--mac-address", "02:00:00:00:00:b1")
	h.ping("bb", "fd45::1")
	router.run("ip", "addr", "add", "fd46::1/64", "dev", "eth0", "nodad")
	h.within(90*time.Second, "the port has an address of the other prefix", func() error {
		want := "02:00:00:00:00:b1 " + h.address("bb", "m") + " fd45::ff:fe00:b1 fd46::ff:fe00:b1"
		if got := h.nbctl("--bare", "--columns=port_security", "list", "Logical_Switch_Port", h.portOf("bb", "m")); got != want {
			return fmt.Errorf("it may use %q, want %q", got, want)
		}
		return nil
	})
	if got := h.in("bb").inet6("eth0"); !strings.Contains(got, "fd45::ff:fe00:b1/64") || !strings.Contains(got, "fd46::ff:fe00:b1/64") {
		t.Errorf("the container has %s", got)
	}
	h.ping("bb", "fd46::1")

	h.docker("rm", "-f", "bb")
	h.ovs("del-port", "v-overlay")
	h.ovs("del-port", "v-router")
	h.nbctl("lsp-del", "server")
	h.nbctl("lsp-del", "router")
	h.docker("network", "rm", "n", "m")
	h.expectClean()
}
