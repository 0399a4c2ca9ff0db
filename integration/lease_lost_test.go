//go:build linux

package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// On a logical switch a container that has lost its lease sends nothing as IPv4 but
// questions for another one, beside the IPv6 that it still has, and gets it back.
func TestLeaseLostOVN(t *testing.T) {
	t.Parallel()
	h := newHost(t, service, own)
	h.startOVN()
	h.network("n", ownLeases("ovn.switch=ls")...)
	h.nbctl("lsp-add", "ls", "server", "--", "lsp-set-addresses", "server", "unknown")
	server := h.byHand("overlay", "br-int", "10.42.0.1/24", "--", "set", "Interface", "v-overlay", "external_ids:iface-id=server")
	server.run("ip", "-6", "addr", "flush", "dev", "eth0", "scope", "link")
	server.run("ip", "addr", "add", "fe80::1/64", "dev", "eth0", "nodad")
	server.run("ip", "addr", "add", "fd44::1/64", "dev", "eth0", "nodad")
	h.must(bringDnsmasq())
	h.sh("setsid nsenter --net=" + server.netns + " " + dnsmasq + " --keep-in-foreground --user=root --conf-file=/dev/null --port=0 --interface=eth0 --bind-interfaces " +
		"--enable-ra --dhcp-range=fd44::,ra-only --pid-file= --log-facility=- </dev/null >/tmp/router.log 2>&1 &")
	stop := server.kea(50, 99)
	h.docker("run", "-d", "--name", "aa", "--network", "n", "--mac-address", "02:00:00:00:00:a1", "--cap-add", "NET_ADMIN", "lab")
	aa := h.in("aa")
	const six = "fd44::ff:fe00:a1"
	guard := func(want string) error {
		if got := h.nbctl("--bare", "--columns=port_security", "list", "Logical_Switch_Port", h.portOf("aa", "n")); got != want {
			return fmt.Errorf("port_security is %q, want %q", got, want)
		}
		return nil
	}
	addr := h.address("aa", "n")
	has := func(want string) error {
		if in := strings.Join(aa.inet("eth0"), " "); in != want {
			return fmt.Errorf("it has %q, want %q", in, want)
		}
		return nil
	}
	h.must(has(addr + "/24"))
	h.must(guard("02:00:00:00:00:a1 " + addr + " " + six))

	stop()
	h.within(time.Minute, "the lease is over", func() error { return has("") })
	h.eventually("the port is guarded", func() error { return guard("02:00:00:00:00:a1 " + six + " 0.0.0.0") })
	h.ping("aa", "fd44::1")
	frames := server.capture()
	aa.run("ip", "addr", "add", "10.42.0.200/24", "dev", "eth0")
	h.sh("docker exec aa ping -c 2 -W 1 10.42.0.1 || true")
	aa.run("ip", "addr", "del", "10.42.0.200/24", "dev", "eth0")
	h.ping("aa", "fd44::1")
	if got := frames.frames("10.42.0.200"); len(got) > 0 {
		t.Errorf("the server got %q", got)
	}

	server.kea(50, 99)
	h.within(2*time.Minute, "the lease is back", func() error { return has(addr + "/24") })
	h.eventually("the port is guarded", func() error { return guard("02:00:00:00:00:a1 " + addr + " " + six) })
	h.ping("aa", "10.42.0.1")
	h.docker("rm", "-f", "aa")
	h.ovs("del-port", "v-overlay")
	h.nbctl("lsp-del", "server")
	h.docker("network", "rm", "n")
	h.expectClean()
}
