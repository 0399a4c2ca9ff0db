//go:build linux

package integration

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

// ownLeases are the options of a network whose leases the driver takes.
func ownLeases(more ...string) []string {
	all := []string{"--ipam-driver", "null", "--opt", "ipam=external", "--opt", "dhcp=true"}
	for _, o := range more {
		all = append(all, "--opt", o)
	}
	return all
}

// leaseFrom checks that a container has its lease from the server of a subnet, in
// Docker's view and on its interface, and reaches the server.
func (h *host) leaseFrom(container, network, subnet string) (addr string) {
	h.t.Helper()
	addr = h.address(container, network)
	if got := h.in(container).inet("eth0"); !strings.HasPrefix(addr, subnet+".") || len(got) != 1 || got[0] != addr+"/24" {
		h.t.Errorf("%s has %s, Docker shows %s, want a lease of %s", container, got, addr, subnet)
	}
	h.ping(container, subnet+".1")
	return addr
}

// holds tells whether the server's file has a lease of an address.
func (p place) holds(addr string) bool {
	return strings.Contains(strings.Join(p.leases(), "\n"), " "+addr+" ")
}

// A container asks in the VLAN where its frames without a tag are: that of the
// network or of the attachment, of a trunk the native one.
func TestLeaseVLANs(t *testing.T) {
	oldAndNew(t, func(t *testing.T, h *host) {
		const bridge = "bridge=br-dhcp"
		h.network("n", ownLeases(bridge, "vlan=42")...)
		h.network("lines", ownLeases(bridge, "vlan=5", "trunk=10,42")...)
		for _, vlan := range []string{"5", "10", "42", "43"} {
			h.byHand("s"+vlan, "br-dhcp", "10."+vlan+".0.1/24", "tag="+vlan).dhcpServer("10." + vlan + ".0")
		}
		for _, c := range []struct{ name, network, options, subnet string }{
			{"aa", "n", "", "10.42.0"},
			{"bb", "n", ",driver-opt=vlan=43", "10.43.0"},
			{"cc", "n", ",driver-opt=trunk=10", "10.42.0"},
			{"dd", "lines", "", "10.5.0"},
			{"ee", "lines", ",driver-opt=trunk=none", "10.5.0"},
			{"ff", "lines", ",driver-opt=vlan=43", "10.43.0"},
		} {
			h.container(c.name, "name="+c.network+c.options)
			h.leaseFrom(c.name, c.network, c.subnet)
		}
		for _, refused := range []string{"n,driver-opt=trunk=10,driver-opt=vlan=none", "lines,driver-opt=vlan=none"} {
			if out := h.dockerFails("run", "--rm", "--network", "name="+refused, "lab"); !strings.Contains(out, "native VLAN") {
				t.Errorf("%s: it says %s", refused, out)
			}
		}
		h.docker("rm", "-f", "aa", "bb", "cc", "dd", "ee", "ff")

		// What the server is told when a container goes.
		server := place{h, "s42", "/run/netns/s42"}
		for _, c := range []struct {
			release string
			own     bool // a MAC address by which the server knows it again
			kept    bool
		}{{"immediately", true, false}, {"never", false, true}, {"1h", true, true}, {"1h", false, false}} {
			name := fmt.Sprintf("r-%s-%t", c.release, c.own)
			h.network(name, ownLeases(bridge, "vlan=42", "dhcp.release="+c.release)...)
			args := []string{}
			if c.own {
				args = []string{"--mac-address", "02:00:00:00:00:c1"}
			}
			h.container("xx", name, args...)
			addr := h.leaseFrom("xx", name, "10.42.0")
			released := func() int { return strings.Count(server.serverLog(), "DHCPRELEASE(eth0) "+addr) }
			before := released()
			h.docker("rm", "-f", "xx")
			if c.kept {
				if !server.holds(addr) || released() != before {
					t.Errorf("%s: the lease of %s was given back: %q", name, addr, server.leases())
				}
			} else {
				h.eventually(name+": the lease of "+addr+" is given back", func() error {
					if server.holds(addr) {
						return fmt.Errorf("the server has %q", server.leases())
					}
					return nil
				})
			}
			h.docker("network", "rm", name)
		}
		for _, vlan := range []string{"5", "10", "42", "43"} {
			h.ovs("del-port", "br-dhcp", "v-s"+vlan)
		}
		h.docker("network", "rm", "n", "lines")
		h.expectClean()
	})
}

// Leases of a server on the physical network: behind the uplink of a plain bridge,
// and behind the localnet port of a logical switch, where a container can use any
// address until it has its lease.
func TestLeasesOutside(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1, lab.FleetOptions{})
	out, err := f.lab.StartOutside(t.Context(), lab.Outside{Hosts: f.Hosts, VLANs: []int{42, 43}})
	if err != nil {
		t.Fatal(err)
	}
	h := f.hosts[0]
	h.must(bringDnsmasq())
	h.must(os.MkdirAll(out.Path(buildDir), 0o755))
	h.must(os.CopyFS(out.Path(buildDir+"/dnsmasq"), os.DirFS(build+"/dnsmasq")))
	there := func(name, subnet string) place {
		p := place{&host{Host: out, t: t}, name, "/run/netns/" + name}
		p.dhcpServer(subnet)
		return p
	}
	lan, native := there("v42", "10.42.0"), there("out", "198.51.100")

	h.network("tagged", ownLeases("bridge=br-ex", "vlan=42")...)
	h.network("untagged", ownLeases("bridge=br-ex")...)
	h.network("lan", ownLeases("ovn.switch=lan", "ovn.localnet=physnet1", "vlan=42")...)
	h.network("silent", ownLeases("ovn.switch=silent", "ovn.localnet=physnet1", "vlan=43", "dhcp.timeout=2s")...)
	h.network("alone", "--ipam-driver", "null", "--opt", "ovn.switch=lan", "--opt", "ipam=external")
	for name, subnet := range map[string]string{"tagged": "10.42.0", "untagged": "198.51.100", "lan": "10.42.0"} {
		h.container("c-"+name, name)
		h.leaseFrom("c-"+name, name, subnet)
	}
	h.hasAddressesIn(f.nbctl, "c-lan", "lan", h.address("c-lan", "lan"))
	h.ping("c-lan", h.address("c-tagged", "tagged"))
	h.container("c-alone", "alone", "--cap-add", "NET_ADMIN")
	h.hasAddressesIn(f.nbctl, "c-alone", "alone")
	h.exec("c-alone", "sh", "-c", udhcpc)
	h.ping("c-alone", "10.42.0.1")

	// Nobody answers in that VLAN. Meanwhile the port may use its MAC address with any other.
	port := f.nbctl("--bare", "--columns=ports", "list", "Logical_Switch", "silent")
	const mac = "02:00:00:00:00:dd"
	said := make(chan string, 1)
	go func() {
		out, err := h.Run(h.ctx(), "docker", "run", "--name", "dd", "--network", "silent", "--mac-address", mac, "lab")
		said <- fmt.Sprint(out, err)
	}()
	h.eventually("there is a port that is guarded by its MAC address alone", func() error {
		rows := f.nbctl("--bare", "--columns=addresses,port_security", "list", "Logical_Switch_Port")
		for row := range strings.SplitSeq(rows, "\n\n") {
			if strings.TrimSpace(row) == mac+" fe80::ff:fe00:dd\n"+mac { // for its questions over IPv6, OVN answers who asks for it
				return nil
			}
		}
		return fmt.Errorf("the ports are\n%s", rows)
	})
	if out := <-said; !strings.Contains(out, "no DHCP server answered") || !strings.Contains(out, "dhcp.timeout") {
		t.Errorf("without a server it says %s", out)
	}
	h.docker("rm", "dd")
	h.eventually("nothing is left of the container", func() error {
		if now := f.nbctl("--bare", "--columns=ports", "list", "Logical_Switch", "silent"); now != port {
			return fmt.Errorf("the switch has the ports %s, and had %s", now, port)
		}
		if n := h.endpoints(); n != 4 {
			return fmt.Errorf("the driver knows %d endpoints, want 4", n)
		}
		return nil
	})

	addrs := map[string]place{h.address("c-tagged", "tagged"): lan, h.address("c-lan", "lan"): lan, h.address("c-untagged", "untagged"): native}
	h.docker("rm", "-f", "c-tagged", "c-untagged", "c-lan", "c-alone")
	for addr, server := range addrs {
		h.eventually("the lease of "+addr+" is given back", func() error {
			if server.holds(addr) {
				return fmt.Errorf("the server has %q", server.leases())
			}
			return nil
		})
	}
	h.docker("network", "rm", "tagged", "untagged", "lan", "silent", "alone")
	h.expectClean()
	f.expectEmpty()
}
