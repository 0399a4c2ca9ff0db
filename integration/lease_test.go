//go:build linux

package integration

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// leaseOf is what the driver knows of a container's lease.
func (h *host) leased(container string) (addrs []string, health, reason string) {
	h.t.Helper()
	for _, n := range h.status().Networks {
		for _, e := range n.Ends {
			if e.Container == container {
				return e.Addrs, e.Health, e.Reason
			}
		}
	}
	return nil, "", ""
}

// leases are the lines of the server's file.
func (p place) leases() []string {
	b, _ := os.ReadFile(p.h.Path("/tmp/dnsmasq-" + p.name + ".leases"))
	return strings.FieldsFunc(string(b), func(r rune) bool { return r == '\n' })
}

// dhcp=true: the lease is taken before the container runs, with both IPAM drivers,
// on a VLAN, with what the server says of routes and MTU.
func TestLeases(t *testing.T) {
	everywhere(t, func(t *testing.T, h *host) {
		options := []string{"--opt", "ipam=external", "--opt", "dhcp=true", "--opt", "bridge=br-dhcp", "--opt", "vlan=42"}
		h.network("n", append(options, "--ipam-driver", "null", "--opt", "dhcp.timeout=2s")...)
		start := time.Now()
		if out := h.dockerFails("run", "--rm", "--network", "n", "lab"); !strings.Contains(out, "no DHCP server answered") {
			t.Errorf("without a server it says %s", out)
		} else {
			h.explained(out)
		}
		t.Logf("without a server the start failed after %s", time.Since(start))
		h.eventually("nothing is left of the container", func() error {
			if left := h.leftovers(); strings.Contains(left, "link ") || strings.Contains(left, "port ") {
				return fmt.Errorf("left over:\n%s", left)
			}
			return nil
		})

		server := h.byHand("server", "br-dhcp", "10.42.0.1/24", "tag=42")
		server.dhcpServer("10.42.0", "--dhcp-option=26,1400", "--dhcp-mac=set:plain,02:00:00:00:00:c1", "'--dhcp-option=tag:!plain,121,0.0.0.0/0,10.42.0.1,10.77.0.0/16,10.42.0.2'")
		h.docker("run", "-d", "--name", "aa", "--network", "n", "lab", "sh", "-c", "ip -4 addr show dev eth0 >/tmp/addr; ip route >/tmp/route; exec pause")
		addr := h.address("aa", "n")
		if got := h.exec("aa", "cat", "/tmp/addr"); !strings.Contains(got, addr+"/24") || !strings.HasPrefix(addr, "10.42.0.") || !strings.Contains(got, "mtu 1400") {
			t.Errorf("Docker shows %s, the first process saw %s", addr, got)
		}
		routes := h.exec("aa", "cat", "/tmp/route")
		for _, want := range []string{"default via 10.42.0.1", "10.77.0.0/16 via 10.42.0.2"} {
			if !strings.Contains(routes, want) {
				t.Errorf("the first process saw the routes %s, want %s", routes, want)
			}
		}
		if hosts := h.exec("aa", "cat", "/etc/hosts"); !strings.Contains(hosts, addr) {
			t.Errorf("/etc/hosts is %s", hosts)
		}
		h.ping("aa", "10.42.0.1")

		// What Docker books is never on the interface.
		h.network("booked", options...)
		h.docker("run", "-d", "--name", "bb", "--network", "booked", "lab")
		b := h.in("bb")
		h.eventually("the lease is on the interface", func() error {
			if got := b.inet("eth0"); len(got) != 1 || !strings.HasPrefix(got[0], "10.42.0.") {
				return fmt.Errorf("it has %s", got)
			}
			return nil
		})
		h.ping("bb", "10.42.0.1")
		h.ping("bb", addr)

		// Identity, and what becomes of a lease.
		h.docker("run", "-d", "--name", "cc", "--network", "n", "--mac-address", "02:00:00:00:00:c1", "lab", "sh", "-c", "ip route >/tmp/saw; mv /tmp/saw /tmp/route; exec pause")
		before := h.address("cc", "n")
		h.eventually("the first process has looked", func() error {
			routes, err := h.Run(h.ctx(), "docker", "exec", "cc", "cat", "/tmp/route")
			if err == nil && (!strings.Contains(routes, "default via 10.42.0.1") || strings.Contains(routes, "10.77.")) {
				t.Errorf("of a server that names only a router (option 3), it saw the routes %s", routes)
			}
			return err
		})
		if out := h.exec("cc", "nslookup", "-type=a", "aa", "127.0.0.11"); !strings.Contains(out, "Address: "+addr) {
			t.Errorf("aa has leased %s, and Docker's DNS says %s", addr, out)
		}
		h.docker("restart", "-t", "1", "cc")
		if after := h.address("cc", "n"); after != before {
			t.Errorf("with the same MAC address it got %s after %s", after, before)
		}
		h.container("dd", "none")
		h.docker("network", "disconnect", "none", "dd")
		for i := range 2 {
			h.docker("network", "connect", "--driver-opt", "dhcp.client_id=printer-7", "n", "dd")
			got := h.address("dd", "n")
			if i > 0 && got != before {
				t.Errorf("with the same client id it got %s after %s", got, before)
			}
			before = got
			h.docker("network", "disconnect", "n", "dd")
		}
		h.network("graced", append(options, "--ipam-driver", "null", "--opt", "dhcp.release=5s")...)
		h.container("ee", "graced", "--mac-address", "02:00:00:00:00:e1")
		kept := h.address("ee", "graced")
		has := func() bool { return strings.Contains(strings.Join(server.leases(), "\n"), kept+" ") }
		h.docker("restart", "-t", "1", "ee")
		if got := h.address("ee", "graced"); got != kept || !has() {
			t.Errorf("after a restart it has %s instead of %s; the server has %q", got, kept, server.leases())
		}
		h.docker("rm", "-f", "ee")
		if !has() {
			t.Errorf("the lease was not kept: the server has %q", server.leases())
		}
		h.eventually("the lease is given back later", func() error {
			if has() {
				return fmt.Errorf("the server has %q", server.leases())
			}
			return nil
		})
		h.docker("network", "rm", "graced")
		h.docker("rm", "-f", "aa", "bb")
		h.eventually("the leases of aa and bb are given back", func() error {
			if left := server.leases(); len(left) != 2 { // of cc and dd
				return fmt.Errorf("the server has %q", left)
			}
			return nil
		})
		h.docker("rm", "-f", "cc", "dd")

		t.Run("twenty", func(t *testing.T) {
			start := time.Now()
			var wg sync.WaitGroup
			errs := make([]error, 20)
			for i := range errs {
				wg.Go(func() {
					_, errs[i] = h.Run(h.ctx(), "docker", "run", "-d", "--name", fmt.Sprintf("x%d", i), "--network", "n", "lab")
				})
			}
			wg.Wait()
			t.Logf("20 containers started within %s", time.Since(start))
			holders := map[string]string{}
			for i, err := range errs {
				name := fmt.Sprintf("x%d", i)
				h.must(err)
				a := h.address(name, "n")
				if other := holders[a]; other != "" || !strings.HasPrefix(a, "10.42.0.") {
					t.Errorf("%s has %q, which %q has, too", name, a, other)
				}
				holders[a] = name
				h.docker("rm", "-f", name)
			}
		})
		h.ovs("del-port", "br-dhcp", "v-server")
		h.docker("network", "rm", "n", "booked")
	})
}
