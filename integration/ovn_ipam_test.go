//go:build linux

package integration

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

// sharedPool are the arguments of a network on a logical switch whose addresses all
// hosts take from one pool.
func sharedPool(sw string, args ...string) []string {
	return append([]string{"--ipam-driver", "ovs-container-network", "--ipam-opt", "ovn.switch=" + sw, "--opt", "ovn.switch=" + sw}, args...)
}

// createOnAll makes a network on all hosts at the same time, with the same command.
func (f *fleet) createOnAll(name string, args ...string) {
	f.t.Helper()
	f.atOnce(func(_ int, h *host) error {
		_, err := h.Run(h.ctx(), slices.Concat([]string{"docker", "network", "create", "--driver", "ovs-container-network"}, args, []string{name})...)
		return err
	})
}

// One pool for all hosts: the same command everywhere, and no address twice.
func TestOVNAddresses(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3, lab.FleetOptions{})
	f.createOnAll("shared", sharedPool("shared-ls", "--subnet", "10.8.0.0/24", "--gateway", "10.8.0.254", "--aux-address", "printer=10.8.0.9",
		"--ipv6", "--subnet", "fd00:8::/64")...)
	f.distinct("shared", 4)
	f.refusesOthers()
	f.passesOn()
	f.survivesDeath()
	f.poolOfNoSubnet()
	f.wrongPools()
	f.showsPools()
	for _, h := range f.hosts {
		h.docker("network", "rm", "shared")
	}
	f.expectEmpty()
}

// distinct starts some containers on each host at once, which get addresses of their
// own and talk.
func (f *fleet) distinct(network string, each int) {
	f.t.Helper()
	f.atOnce(func(i int, h *host) error {
		errs := make([]error, each)
		var wg sync.WaitGroup
		for j := range each {
			wg.Go(func() {
				_, errs[j] = h.Run(h.ctx(), "docker", "run", "-d", "--name", fmt.Sprintf("x%d%d", i, j), "--network", network, "lab")
			})
		}
		wg.Wait()
		return errs[0]
	})
	holders := map[string]string{}
	for i, h := range f.hosts {
		for j := range each {
			name := fmt.Sprintf("x%d%d", i, j)
			for _, field := range []string{"IPAddress", "GlobalIPv6Address"} {
				a := h.docker("inspect", "-f", fmt.Sprintf("{{(index .NetworkSettings.Networks %q).%s}}", network, field), name)
				if other := holders[a]; other != "" || a == "" || a == "10.8.0.9" || a == "10.8.0.254" || a == "fd00:8::1" {
					f.t.Errorf("%s has address %q, which %q has, too", name, a, other)
				}
				holders[a] = name
			}
		}
	}
	for i, h := range f.hosts {
		other := f.hosts[(i+1)%len(f.hosts)]
		to := fmt.Sprintf("x%d%d", (i+1)%len(f.hosts), each-1)
		h.ping(fmt.Sprintf("x%d0", i), other.address(to, network))
		h.ping(fmt.Sprintf("x%d0", i), other.docker("inspect", "-f", fmt.Sprintf("{{(index .NetworkSettings.Networks %q).GlobalIPv6Address}}", network), to))
	}
	f.exactly(network, "10.8.0.254", "10.8.0.9", "fd00:8::1")
}

// exactly compares what is booked in the pools of a network with what the dockerds
// know of it.
func (f *fleet) exactly(network string, more ...string) {
	f.t.Helper()
	want := map[string]bool{}
	for _, a := range more {
		want[a] = true
	}
	sw := ""
	for _, h := range f.hosts {
		known, err := h.dockerView()
		h.must(err)
		for _, n := range known {
			if n.Name != network {
				continue
			}
			sw = n.IPAM.Options["ovn.switch"]
			for _, e := range n.ends {
				for _, a := range []string{e.ipv4, e.ipv6} {
					if p, err := netip.ParsePrefix(a); err == nil {
						want[p.Addr().String()] = true
					}
				}
			}
		}
	}
	f.hosts[0].eventually("exactly what the containers have is booked", func() error {
		d, have := &differences{}, map[string]bool{}
		books, err := f.rows("DHCP_Options", "cidr", "external_ids")
		for _, b := range books {
			for key := range b.ids {
				if a, ok := strings.CutPrefix(key, "ip "); ok && b.ids["switch"] == sw {
					have[a] = true
				}
			}
		}
		d.sets("booking", have, want)
		return errors.Join(append(d.found, err, f.exact())...)
	})
}

// refusesOthers asks for addresses that cannot be had, and hears why.
func (f *fleet) refusesOthers() {
	f.t.Helper()
	h := f.hosts[1]
	addr := f.hosts[0].address("x00", "shared")
	h.eventually("the container's name is known to all", func() error {
		out, err := f.hc.Run(h.ctx(), "ovn-nbctl", "--timeout=5", "--bare", "--columns=name", "find", "Logical_Switch_Port", "external_ids:container_name=x00")
		if err == nil && out == "" {
			err = fmt.Errorf("no port has it")
		}
		return err
	})
	before := f.nbctl("list", "DHCP_Options")
	for addr, want := range map[string]string{
		addr:         "address " + addr + " is already used by container x00 on host h1 on logical switch shared-ls: give another with --ip",
		"10.8.0.254": "address 10.8.0.254 is a gateway on logical switch shared-ls",
		"10.8.0.9":   "address 10.8.0.9 is set aside on logical switch shared-ls",
	} {
		if out := h.dockerFails("run", "--rm", "--network", "shared", "--ip", addr, "lab", "true"); !strings.Contains(out, want) {
			f.t.Errorf("--ip %s: docker says %s, want %q", addr, out, want)
		}
	}
	h.eventually("what was booked for the refused containers is free again", func() error {
		if now := f.nbctl("list", "DHCP_Options"); now != before {
			return fmt.Errorf("the book was\n%s\nand is\n%s", before, now)
		}
		return nil
	})
}

// passesOn gives an address to a container of one host, then of the next.
func (f *fleet) passesOn() {
	f.t.Helper()
	for _, h := range f.hosts {
		h.container("guest", "shared", "--ip", "10.8.0.77", "--ip6", "fd00:8::77")
		h.ping("guest", f.hosts[0].address("x00", "shared"))
		h.docker("restart", "-t", "0", "guest")
		if a := h.address("guest", "shared"); a != "10.8.0.77" {
			f.t.Errorf("after a restart the container has address %s", a)
		}
		h.docker("rm", "-f", "guest")
	}
}

// survivesDeath kills the driver and dockerd of a host: its containers keep their
// addresses, and new ones get others.
func (f *fleet) survivesDeath() {
	f.t.Helper()
	h := f.hosts[2]
	had := h.address("x20", "shared")
	h.killDriver()
	h.startDriver()
	h.container("young", "shared")
	h.must(h.KillDocker(h.ctx()))
	h.startDocker()
	h.docker("start", "x20")
	h.container("younger", "shared")
	addrs := []string{had}
	for _, name := range []string{"x20", "young", "younger"} {
		h.docker("start", name)
		addrs = append(addrs, h.address(name, "shared"))
	}
	slices.Sort(addrs)
	if different := slices.Compact(slices.Clone(addrs)); len(different) < 3 {
		f.t.Errorf("the addresses are %v", addrs)
	}
	h.ping("younger", f.hosts[0].address("x00", "shared"))
	h.docker("rm", "-f", "young", "younger")
	for i, h := range f.hosts {
		for j := range 4 {
			h.docker("rm", "-f", fmt.Sprintf("x%d%d", i, j))
		}
	}
}

// poolOfNoSubnet makes a network without --subnet: one host chooses, the others have
// the same, and a host that joins later, too.
func (f *fleet) poolOfNoSubnet() {
	f.t.Helper()
	f.createOnAll("auto", sharedPool("auto-ls")...)
	seen := map[string]bool{}
	for _, h := range f.hosts {
		seen[h.docker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}} {{(index .IPAM.Config 0).Gateway}}", "auto")] = true
	}
	if len(seen) != 1 {
		f.t.Errorf("the hosts have subnets %v", seen)
	}
	h := f.hosts[0]
	h.docker("network", "rm", "auto")
	h.network("again", sharedPool("auto-ls")...)
	if got := h.docker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}} {{(index .IPAM.Config 0).Gateway}}", "again"); !seen[got] {
		f.t.Errorf("made again the network has subnet %s, the others %v", got, seen)
	}
	h.container("a0", "again")
	f.hosts[1].container("a1", "auto")
	h.ping("a0", f.hosts[1].address("a1", "auto"))
	h.docker("rm", "-f", "a0")
	f.hosts[1].docker("rm", "-f", "a1")
	h.docker("network", "rm", "again")
	f.hosts[1].docker("network", "rm", "auto")
	f.hosts[2].docker("network", "rm", "auto")
}

// wrongPools are refused, and leave nothing.
func (f *fleet) wrongPools() {
	f.t.Helper()
	h := f.hosts[0]
	ipam := func(sw string, args ...string) []string {
		return append([]string{"network", "create", "--driver", "ovs-container-network", "--ipam-driver", "ovs-container-network", "--ipam-opt", "ovn.switch=" + sw}, args...)
	}
	for want, args := range map[string][]string{
		"--ipam-opt ovn.switch=lsa: the network is on logical switch lsb":                          ipam("lsa", "--subnet", "10.11.0.0/24", "--opt", "ovn.switch=lsb", "wrong"),
		"--ipam-opt ovn.switch=lsa: the network is on no logical switch; add --opt ovn.switch=lsa": ipam("lsa", "--subnet", "10.11.0.0/24", "wrong"),
		"--subnet 10.12.0.0/24: the pool of logical switch shared-ls is 10.8.0.0/24 on all hosts":  ipam("shared-ls", "--subnet", "10.12.0.0/24", "--opt", "ovn.switch=shared-ls", "wrong"),
		`unknown --ipam-opt foo="bar": allowed is ovn.switch`:                                      ipam("lsa", "--ipam-opt", "foo=bar", "--opt", "ovn.switch=lsa", "wrong"),
		`--ipam-opt ovn.switch="l s": has the character`:                                           ipam("l s", "--opt", "ovn.switch=lsa", "wrong"),
		"--subnet 224.0.0.0/24 cannot be used":                                                     ipam("lsa", "--subnet", "224.0.0.0/24", "--opt", "ovn.switch=lsa", "wrong"),
	} {
		if out := h.dockerFails(args...); !strings.Contains(out, want) {
			f.t.Errorf("docker %s says %s, want %q", strings.Join(args, " "), out, want)
		}
	}
	// A pool of this host alone is no wrong one.
	h.network("mine", "--ipam-driver", "ovs-container-network", "--subnet", "10.14.0.0/24", "--opt", "ovn.switch=lsc")
	h.container("m0", "mine")
	h.docker("rm", "-f", "m0")
	h.docker("network", "rm", "mine")
	h.eventually("there is no other book", func() error {
		rows, err := f.rows("DHCP_Options", "cidr", "external_ids")
		for _, r := range rows {
			if r.ids["role"] == "book" && r.ids["switch"] != "shared-ls" {
				return fmt.Errorf("left over: %v", r.ids)
			}
		}
		return err
	})
}

// showsPools compares what status says of the pool on all hosts.
func (f *fleet) showsPools() {
	f.t.Helper()
	f.hosts[1].container("one", "shared")
	for _, h := range f.hosts {
		h.eventually("status shows the pool as it is on all hosts", func() error {
			for _, p := range h.status().Pools {
				if p.Prefix == netip.MustParsePrefix("10.8.0.0/24") && p.Gateway.String() == "10.8.0.254" && p.Used == 3 && p.Total == 254 {
					return nil
				}
			}
			return fmt.Errorf("the pools are %+v", h.status().Pools)
		})
	}
	f.hosts[1].docker("rm", "-f", "one")
}
