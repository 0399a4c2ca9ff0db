//go:build linux

package integration

import (
	"cmp"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

// Containers of three hosts are on one logical switch, which the first host makes
// and the last one takes away; large packets pass; what one host has no other gets.
func TestOVNOverlay(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]lab.FleetOptions{
		"geneve": {}, "vxlan": {Encap: "vxlan"}, "newer": {Root: string(newer), CentralRoot: string(newer)},
	} {
		encap := cmp.Or(o.Encap, "geneve")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, 3, o)
			f.atOnce(func(i int, h *host) error {
				_, err := h.Run(h.ctx(), "docker", "network", "create", "--driver", "ovs-container-network", "--subnet", "10.7.0.0/24",
					"--ip-range", fmt.Sprintf("10.7.0.%d/27", 32*(i+1)), "--opt", "ovn.switch=production-ls", "--opt", "ovn.encap="+encap, "prod")
				return err
			})
			if switches := f.nbctl("--bare", "--columns=name", "list", "Logical_Switch"); switches != "production-ls" {
				t.Errorf("created on three hosts at once, these are the switches: %q", switches)
			}
			for i, h := range f.hosts {
				h.container(fmt.Sprintf("x%d", i), "prod")
				f.expectBound(h, fmt.Sprintf("x%d", i), "prod")
			}
			for i, h := range f.hosts {
				for j, other := range f.hosts {
					if i != j {
						h.ping(fmt.Sprintf("x%d", i), other.address(fmt.Sprintf("x%d", j), "prod"))
					}
				}
			}
			f.fullSize("x0", f.hosts[1].address("x1", "prod"))
			f.tcp(f.hosts[0], "x0", f.hosts[1], "x1", "prod")
			if err := f.exact(); err != nil {
				t.Error(err)
			}
			f.refusesTaken()
			for i, h := range f.hosts {
				h.docker("rm", "-f", fmt.Sprintf("x%d", i))
				if i == 2 {
					break
				}
				h.docker("network", "rm", "prod")
				if left := f.nbctl("--bare", "--columns=name", "list", "Logical_Switch"); left != "production-ls" {
					t.Errorf("host %d is not the last to leave, and the switches are %q", i, left)
				}
			}
			f.hosts[2].docker("network", "rm", "prod")
			f.expectEmpty()
		})
	}
}

// atOnce does something on all hosts at the same time; all must succeed.
func (f *fleet) atOnce(do func(i int, h *host) error) {
	f.t.Helper()
	errs := make([]error, len(f.hosts))
	var wg sync.WaitGroup
	for i, h := range f.hosts {
		wg.Go(func() { errs[i] = do(i, h) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			f.t.Fatal(err)
		}
	}
}

// expectBound checks that a container's logical port is for the chassis that has it,
// and for the container's interface and no other.
func (f *fleet) expectBound(h *host, container, network string) {
	f.t.Helper()
	port, id := h.portOf(container, network), h.endID(container, network)
	for option, want := range map[string]string{"requested-chassis": h.Name(), "iface-id-ver": id} {
		if got := f.nbctl("get", "Logical_Switch_Port", port, "options:"+option); strings.Trim(got, `"`) != want {
			f.t.Errorf("%s of the logical port of %s is %s, want %s", option, container, got, want)
		}
	}
	if got := h.ovs("get", "Interface", port, "external_ids:iface-id-ver"); strings.Trim(got, `"`) != id {
		f.t.Errorf("iface-id-ver of the interface of %s is %s, want %s", container, got, id)
	}
}

// fullSize checks that a packet as large as the interface says passes unfragmented.
func (f *fleet) fullSize(from, to string) {
	f.t.Helper()
	h := f.hosts[0]
	mtu := h.exec(from, "cat", "/sys/class/net/eth0/mtu")
	h.eventually("packets of "+mtu+" bytes pass", func() error {
		_, err := h.Shell(h.ctx(), fmt.Sprintf("nsenter --net=%s ping -c 1 -W 1 -M do -s $((%s - 28)) %s", h.in(from).netns, mtu, to))
		return err
	})
	h.sh(fmt.Sprintf("! nsenter --net=%s ping -c 1 -W 1 -M do -s $((%s - 27)) %s", h.in(from).netns, mtu, to))
}

// tcp checks that bytes pass over TCP between containers of different hosts.
func (f *fleet) tcp(from *host, a string, to *host, b, network string) {
	f.t.Helper()
	to.sh("docker exec -d " + b + " sh -c 'rm -f /tmp/got; until grep -q hello /tmp/got; do nc -l -p 7777 >>/tmp/got; done'")
	from.eventually("TCP from "+a+" to "+b, func() error {
		if _, err := from.Run(from.ctx(), "docker", "exec", a, "sh", "-c", "echo hello | nc -w 2 "+to.address(b, network)+" 7777"); err != nil {
			return err
		}
		got, err := to.Run(to.ctx(), "docker", "exec", b, "cat", "/tmp/got")
		if err == nil && !strings.Contains(got, "hello") {
			err = fmt.Errorf("got %q", got)
		}
		return err
	})
}

// refusesTaken has two hosts ask for the address and the MAC address that a
// container of another host has: they get neither, and hear who has it.
func (f *fleet) refusesTaken() {
	f.t.Helper()
	addr := f.hosts[0].address("x0", "prod")
	mac := f.hosts[0].docker("inspect", "-f", "{{.NetworkSettings.Networks.prod.MacAddress}}", "x0")
	h := f.hosts[1]
	h.eventually("the container's name is known to all", func() error {
		out, err := f.hc.Run(h.ctx(), f.nbArgs("--bare", "--columns=name", "find", "Logical_Switch_Port", "external_ids:container_name=x0")...)
		if err == nil && out == "" {
			err = fmt.Errorf("no port has it")
		}
		return err
	})
	for _, c := range [][]string{{"address " + addr, "--ip", addr}, {"MAC address " + mac, "--mac-address", mac}} {
		out := h.dockerFails("run", "--rm", "--network", "prod", c[1], c[2], "lab", "true")
		for _, want := range []string{c[0] + " is already used by container x0 on host h1 on logical switch production-ls", c[1]} {
			if !strings.Contains(out, want) {
				f.t.Errorf("%v of another host: docker says %s, want %q", c[1:], out, want)
			}
		}
	}
	f.hosts[0].ping("x0", f.hosts[2].address("x2", "prod"))
}

// OVN is installed on a host where containers are on br-int already: they go on
// talking, and so do those on a logical switch that is made then.
func TestOVNInstalledLater(t *testing.T) {
	t.Parallel()
	h := newHost(t, service, own)
	h.network("web", "--subnet", "10.1.0.0/24")
	h.container("a1", "web")
	h.container("a2", "web")
	h.ping("a1", "a2")
	h.must(h.StartController(h.ctx(), lab.Chassis{}))
	h.eventually("OVN has a bridge of its own", func() error {
		_, err := h.Run(h.ctx(), "ovs-vsctl", "--timeout=5", "br-exists", "br-ovn")
		return err
	})
	h.ping("a1", "a2")
	h.must(h.StartCentral(h.ctx(), lab.Central{}))
	h.network("inner", "--subnet", "10.2.0.0/24", "--opt", "ovn.switch=ls1")
	h.container("b1", "inner")
	h.container("b2", "inner")
	h.ping("b1", "b2")
	h.ping("a1", "a2")
	h.healthy()
	h.docker("rm", "-f", "a1", "a2", "b1", "b2")
	h.docker("network", "rm", "web", "inner")
	h.expectClean()
}
