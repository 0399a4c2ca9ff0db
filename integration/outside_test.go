//go:build linux

package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// dnsmasq is the machine's own program as seen in a host of any system.
const dnsmasq = buildDir + "/dnsmasq/ld.so --library-path " + buildDir + "/dnsmasq " + buildDir + "/dnsmasq/dnsmasq"

// bringDnsmasq copies dnsmasq with its libraries into what every host sees, once.
var bringDnsmasq = sync.OnceValue(func() error {
	program, err := exec.LookPath("dnsmasq")
	if err != nil {
		return err
	}
	libraries, err := exec.Command("ldd", program).Output()
	if err != nil {
		return fmt.Errorf("ldd %s: %w", program, err)
	}
	dir := filepath.Join(build, "dnsmasq")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := copyFile(program, filepath.Join(dir, "dnsmasq")); err != nil {
		return err
	}
	for _, lib := range regexp.MustCompile(`/[^ ]*`).FindAllString(string(libraries), -1) {
		name := filepath.Base(lib)
		if strings.HasPrefix(name, "ld-linux") {
			name = "ld.so"
		}
		if err := copyFile(lib, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
})

// dhcpServer runs dnsmasq in a namespace that was attached to a bridge by hand. The
// addresses end in 50 to 99 of a subnet such as 10.42.0, whose .1 is the place itself.
func (p place) dhcpServer(subnet string, args ...string) (stop func()) {
	p.h.t.Helper()
	return p.carefulServer(subnet, append(args, "--no-ping")...)
}

// carefulServer is one that pings an address before it offers it.
func (p place) carefulServer(subnet string, args ...string) (stop func()) {
	p.h.t.Helper()
	p.h.must(bringDnsmasq())
	file := "/tmp/dnsmasq-" + p.name
	p.h.sh(fmt.Sprintf("setsid nsenter --net=%[1]s "+dnsmasq+" --keep-in-foreground --user=root --conf-file=/dev/null --port=0 --interface=eth0 --bind-interfaces "+
		"--dhcp-range=%[2]s.50,%[2]s.199,255.255.255.0,2m --dhcp-option=3,%[2]s.1 --dhcp-leasefile=%[3]s.leases --pid-file= --log-facility=- --log-dhcp %[4]s "+
		"</dev/null >>%[3]s.log 2>&1 & echo $! >%[3]s.pid", p.netns, subnet, file, strings.Join(args, " ")))
	p.h.eventually("dnsmasq listens", func() error {
		if log := p.serverLog(); !strings.Contains(log, "IP range") {
			return fmt.Errorf("it says %q", log)
		}
		return nil
	})
	return func() { p.h.sh("kill $(cat " + file + ".pid)") }
}

// serverLog is what the DHCP server of the place has said.
func (p place) serverLog() string {
	b, _ := os.ReadFile(p.h.Path("/tmp/dnsmasq-" + p.name + ".log"))
	return string(b)
}

// bringDhclient copies the machine's own dhclient into what every host sees, once. It needs
// no library but that of C, of any newer version.
var bringDhclient = sync.OnceValue(func() error {
	program, err := exec.LookPath("dhclient")
	if err != nil {
		return err
	}
	return copyFile(program, filepath.Join(build, "dhclient"))
})

// dhclient asks for a lease as ISC's client in a container does, but puts nothing onto the
// interface. It returns the address.
func (p place) dhclient() (addr string) {
	p.h.t.Helper()
	p.h.must(bringDhclient())
	file := "/tmp/dhclient-" + p.name
	out := p.h.sh(fmt.Sprintf("nsenter --net=%s %s/dhclient -4 -1 -v -sf /bin/true -cf /dev/null -lf %[3]s.leases -pf %[3]s.pid eth0 2>&1; kill $(cat %[3]s.pid)", p.netns, buildDir, file))
	bound := regexp.MustCompile(`(?m)^bound to ([0-9.]+) `).FindStringSubmatch(out)
	if bound == nil {
		p.h.t.Fatalf("dhclient in %s says\n%s", p.name, out)
	}
	return bound[1]
}

const udhcpc = "udhcpc -i eth0 -n -q -f"

// inet are the IPv4 addresses of a device in the place.
func (p place) inet(device string) []string {
	p.h.t.Helper()
	return strings.Fields(p.h.sh(fmt.Sprintf("nsenter --net=%s ip -4 -o addr show dev %s | awk '{print $4}'", p.netns, device)))
}

// ipam=external: the container asks a DHCP server on the bridge by itself, with both
// IPAM drivers, and what Docker has booked does not come onto its interface.
func TestExternalAddresses(t *testing.T) {
	everywhere(t, func(t *testing.T, h *host) {
		h.network("clean", "--ipam-driver", "null", "--opt", "ipam=external", "--opt", "bridge=br-dhcp")
		server := h.byHand("server", "br-dhcp", "10.42.0.1/24")
		server.dhcpServer("10.42.0")
		h.network("booked", "--opt", "ipam=external", "--opt", "bridge=br-dhcp")
		if out := h.dockerFails("network", "create", "--driver", "ovs-container-network", "--ipam-driver", "ovs-container-network", "--subnet", "10.9.0.0/24",
			"--opt", "ipam=external", "refused"); !strings.Contains(out, "--ipam-driver null") {
			t.Errorf("with our IPAM driver it says %s", out)
		}
		for _, network := range []string{"clean", "booked"} {
			// The first process counts how long it has to wait for its interface.
			h.docker("run", "-d", "--name", network+"1", "--network", network, "--cap-add", "NET_ADMIN", "lab", "sh", "-c",
				"n=0; until ip link show dev eth0 >/dev/null 2>&1; do n=$((n+1)); usleep 1000; done; echo $n >/tmp/waited; exec pause")
			c := h.in(network + "1")
			if links := c.links(); len(links) != 2 {
				t.Errorf("%s has %+v, want lo and eth0", c.name, links)
			}
			h.eventually("the interface is there", func() error {
				_, err := h.Run(h.ctx(), "docker", "exec", c.name, "cat", "/tmp/waited")
				return err
			})
			t.Logf("on %s the first process waited %s times 1 ms for its interface", network, h.exec(c.name, "cat", "/tmp/waited"))
			if got := c.inet("eth0"); len(got) > 0 {
				t.Errorf("%s has %s before it asked", c.name, got)
			}
			h.exec(c.name, "sh", "-c", udhcpc)
			if got := c.inet("eth0"); len(got) != 1 || !strings.HasPrefix(got[0], "10.42.0.") {
				t.Errorf("%s has %s after it asked", c.name, got)
			}
			h.ping(c.name, "10.42.0.1")
		}
		h.ping("clean1", strings.Split(h.in("booked1").inet("eth0")[0], "/")[0])
		for _, network := range []string{"clean", "booked"} {
			h.container("isc", network)
			c := h.in("isc")
			h.eventually("the interface is there", func() error {
				_, err := h.Run(h.ctx(), "docker", "exec", "isc", "cat", "/sys/class/net/eth0/ifindex")
				return err
			})
			if addr := c.dhclient(); !strings.HasPrefix(addr, "10.42.0.") || !server.holds(addr) {
				t.Errorf("dhclient has %s, the server %q", addr, server.leases())
			} else if granted := "DHCPACK(eth0) " + addr + " " + c.link("eth0").MAC; !strings.Contains(server.serverLog(), granted) {
				t.Errorf("the server does not say %s", granted)
			}
			h.docker("rm", "-f", "isc")
		}
		booked := h.address("booked1", "booked")
		if booked == "" || strings.HasPrefix(booked, "10.42.0.") {
			t.Errorf("Docker shows %q, and has booked another", booked)
		}
		if hosts := h.exec("booked1", "cat", "/etc/hosts"); !strings.Contains(hosts, booked+"\t") {
			t.Errorf("booked is %s, and /etc/hosts is %s", booked, hosts)
		}
		if out := h.docker("run", "--rm", "--network", "booked", "lab", "nslookup", "-type=a", "booked1", "127.0.0.11"); !strings.Contains(out, "Address: "+booked) {
			t.Errorf("booked is %s, and Docker's DNS says %s", booked, out)
		}

		// On a running container, and again.
		h.container("late", "none", "--cap-add", "NET_ADMIN")
		h.docker("network", "disconnect", "none", "late")
		for range 2 {
			h.docker("network", "connect", "booked", "late")
			h.exec("late", "sh", "-c", udhcpc)
			h.ping("late", "10.42.0.1")
			h.docker("network", "disconnect", "booked", "late")
			h.eventually("the interface is gone", func() error {
				if links := h.in("late").links(); len(links) != 1 {
					return fmt.Errorf("late has %+v", links)
				}
				return nil
			})
		}
		h.docker("restart", "-t", "1", "booked1")
		h.eventually("the interface is back", func() error {
			_, err := h.Run(h.ctx(), "docker", "exec", "booked1", "cat", "/sys/class/net/eth0/ifindex")
			return err
		})
		h.exec("booked1", "sh", "-c", udhcpc)
		h.docker("rm", "-f", "clean1", "booked1", "late")
		h.ovs("del-port", "br-dhcp", "v-server")
		h.docker("network", "rm", "clean", "booked")
	})
}
