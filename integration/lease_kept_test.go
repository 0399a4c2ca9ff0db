//go:build linux

package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// acks counts what a server granted so far.
func (p place) acks() int { return strings.Count(p.serverLog(), "DHCPACK(") }

// Leases are renewed with the container's own addresses, also after the driver was
// killed; a server that goes and comes back is found again, and one that takes the
// address back is obeyed.
func TestLeaseKept(t *testing.T) {
	oldAndNew(t, func(t *testing.T, h *host) {
		h.network("n", "--ipam-driver", "null", "--opt", "ipam=external", "--opt", "dhcp=true", "--opt", "bridge=br-dhcp")
		server := h.byHand("server", "br-dhcp", "10.42.0.1/24")
		often := []string{"--dhcp-authoritative", "--dhcp-option-force=option:T1,5", "--dhcp-option-force=option:T2,12"}
		stop := server.dhcpServer("10.42.0", often...)
		h.container("aa", "n")
		addr := h.address("aa", "n")
		renewed := func(what string) {
			t.Helper()
			seen := server.acks()
			h.within(time.Minute, "the lease is renewed "+what, func() error {
				if server.acks() == seen {
					return fmt.Errorf("the server has granted %d times", seen)
				}
				return nil
			})
		}
		frames := server.capture()
		renewed("by its own server")
		mac := h.docker("inspect", "-f", "{{(index .NetworkSettings.Networks \"n\").MacAddress}}", "aa")
		h.eventually("the request is seen on the wire", func() error {
			for _, f := range frames.frames(addr + ".68 > 10.42.0.1.67") {
				if strings.Contains(f, mac+" > ") {
					return nil
				}
			}
			return fmt.Errorf("seen is %q", frames.frames(".68 > "))
		})
		h.killDriver()
		if h.form == service {
			h.startDriver()
		}
		renewed("by a driver that was killed")
		stop()
		h.eventually("the server is gone", func() error {
			if h.sh("pidof dnsmasq ld.so || true") != "" {
				return fmt.Errorf("it is there")
			}
			return nil
		})
		stop = server.dhcpServer("10.42.0", often...)
		renewed("after the server was away")
		h.ping("aa", "10.42.0.1")

		// Another server, which knows nothing of the lease.
		stop()
		server.run("ip", "addr", "add", "10.43.0.1/24", "dev", "eth0")
		server.run("ip", "addr", "del", "10.42.0.1/24", "dev", "eth0")
		h.sh("rm -f /tmp/dnsmasq-server.leases")
		server.dhcpServer("10.43.0", often...)
		aa := h.in("aa")
		h.within(2*time.Minute, "the container has an address of the new server", func() error {
			if got := aa.inet("eth0"); len(got) != 1 || !strings.HasPrefix(got[0], "10.43.0.") {
				return fmt.Errorf("it has %s", got)
			}
			return nil
		})
		if got := aa.run("ip", "route"); !strings.Contains(got, "default via 10.43.0.1") || strings.Contains(got, "10.42") {
			t.Errorf("the routes are %s", got)
		}
		h.ping("aa", "10.43.0.1")
		h.eventually("status shows the new address", func() error {
			if got, health, _ := h.leased("aa"); len(got) != 1 || !strings.HasPrefix(got[0], "10.43.0.") || health != "ok" {
				return fmt.Errorf("it shows %s, %s", got, health)
			}
			return nil
		})
		h.docker("rm", "-f", "aa")
		h.ovs("del-port", "br-dhcp", "v-server")
		h.docker("network", "rm", "n")
		h.expectClean()
	})
}

// The commands of the plan, with the IPAM driver that Docker takes by default: on
// the bridge, and on a logical switch, where the port has its MAC address until the
// lease is known.
func TestPlanLeases(t *testing.T) {
	onOVN(t, func(t *testing.T, p *project) {
		p.docker("network", "create", "--driver", "ovs-container-network", "--opt", "ipam=external", "--opt", "dhcp=true", "production-network")
		p.docker("network", "create", "--driver", "ovs-container-network", "--opt", "ovn.switch=production-ls", "--opt", "ovn.encap=geneve",
			"--opt", "ipam=external", "--opt", "dhcp=true", "production-overlay")
		p.docker("network", "create", "--driver", "ovs-container-network", "--ipam-driver", "null", "--opt", "ovn.switch=production-ls",
			"--opt", "ipam=external", "overlay-own")
		p.byHand("plain", "br-docker", "10.42.0.1/24").dhcpServer("10.42.0")
		p.nbctl("lsp-add", "production-ls", "server", "--", "lsp-set-addresses", "server", "unknown")
		p.byHand("overlay", "br-int", "10.43.0.1/24", "--", "set", "Interface", "v-overlay", "external_ids:iface-id=server").dhcpServer("10.43.0")
		for _, c := range []struct{ name, network, subnet string }{{"aa", "production-network", "10.42.0."}, {"bb", "production-overlay", "10.43.0."}} {
			p.container(c.name, c.network)
			in := p.in(c.name)
			var addr string
			p.eventually("the lease is on the interface", func() error {
				got := in.inet("eth0")
				if len(got) != 1 || !strings.HasPrefix(got[0], c.subnet) {
					return fmt.Errorf("it has %s", got)
				}
				addr, _, _ = strings.Cut(got[0], "/")
				return nil
			})
			p.ping(c.name, c.subnet+"1")
			if c.name == "bb" {
				p.hasAddresses("bb", c.network, addr)
			}
		}
		p.docker("run", "-d", "--name", "cc", "--network", "overlay-own", "--cap-add", "NET_ADMIN", "lab")
		p.hasAddresses("cc", "overlay-own")
		p.exec("cc", "sh", "-c", udhcpc)
		p.ping("cc", "10.43.0.1")
		p.docker("rm", "-f", "aa", "bb", "cc")
		p.ovs("del-port", "v-plain")
		p.ovs("del-port", "v-overlay")
		p.nbctl("lsp-del", "server")
		p.docker("network", "rm", "production-network", "production-overlay", "overlay-own")
	})
}

// hasAddresses checks that the logical port of a container has its MAC address and
// these, and may use no others.
func (h *host) hasAddresses(container, network string, addrs ...string) {
	h.t.Helper()
	h.hasAddressesIn(h.nbctl, container, network, addrs...)
}

func (h *host) hasAddressesIn(nbctl func(...string) string, container, network string, addrs ...string) {
	h.t.Helper()
	port := h.portOf(container, network)
	want := strings.Join(append([]string{h.in(container).link("eth0").MAC}, addrs...), " ")
	for _, column := range []string{"addresses", "port_security"} {
		if got := nbctl("--bare", "--columns="+column, "list", "Logical_Switch_Port", port); got != want {
			h.t.Errorf("%s of the port of %s are %q, want %q", column, container, got, want)
		}
	}
}
