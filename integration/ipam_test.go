//go:build linux

package integration

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/ovs-container-network/ovs-container-network/internal/ipam"
)

// The IPAM driver keeps what it promises with every engine in both forms: pools
// of its own choice and the user's, ranges, reserved and explicit addresses,
// IPv4 and IPv6, equal subnets of tenants, static addresses only, and nothing
// handed out twice, whatever happens to the driver.
func TestIPAM(t *testing.T) {
	everywhere(t, func(t *testing.T, h *host) {
		h.part("automatic pools", automaticPools)
		h.part("explicit pools", explicitPools)
		h.part("equal subnets", equalSubnets)
		h.part("static", staticAddresses)
		h.part("static with Docker's IPAM", staticByDocker)
		h.part("exhausted", exhaustedPool)
		h.part("none", noIPAM)
		h.part("durable", durablePools)
	})
}

// part runs a part of a test on the host as a test of its own. If it fails, all
// containers and networks are removed for the parts that follow.
func (h *host) part(name string, f func(*host)) {
	h.t.Run(name, func(t *testing.T) {
		p := *h
		p.t = t
		defer func() {
			if t.Failed() {
				p.Shell(t.Context(), "docker ps -aq | xargs -r docker rm -f; docker network prune -f") //nolint:errcheck // the failure is told
			}
		}()
		f(&p)
	})
}

// ours creates a network with our IPAM driver.
func (h *host) ours(name string, args ...string) {
	h.t.Helper()
	h.network(name, append([]string{"--ipam-driver", "ovs-container-network"}, args...)...)
}

// refused runs a docker command that must fail with a message that says all of
// says.
func (h *host) refused(says []string, args ...string) {
	h.t.Helper()
	out := h.dockerFails(args...)
	for _, s := range says {
		if !strings.Contains(out, s) {
			h.t.Errorf("docker %q: the message does not say %q:\n%s", args, s, out)
		}
	}
}

// pools are the pools of a network by the driver's own view, IPv4 first.
func (h *host) pools(network string) (pools []ipam.Summary) {
	h.t.Helper()
	id := h.docker("network", "inspect", "-f", "{{.Id}}", network)
	for _, p := range h.status().Pools {
		switch {
		case p.Network != id:
		case p.Prefix.Addr().Is4():
			pools = append([]ipam.Summary{p}, pools...)
		default:
			pools = append(pools, p)
		}
	}
	return pools
}

// expectUsed waits until as many addresses of the network's pools are taken.
func (h *host) expectUsed(network string, used ...uint64) {
	h.t.Helper()
	h.eventually(fmt.Sprintf("the pools of %s have %d addresses taken", network, used), func() error {
		var now []uint64
		for _, p := range h.pools(network) {
			now = append(now, p.Used)
		}
		if fmt.Sprint(now) != fmt.Sprint(used) {
			return fmt.Errorf("they have %d", now)
		}
		return nil
	})
}

// address6 is a container's IPv6 address on a network as Docker shows it.
func (h *host) address6(container, network string) string {
	h.t.Helper()
	return h.docker("inspect", "-f", fmt.Sprintf("{{(index .NetworkSettings.Networks %q).GlobalIPv6Address}}", network), container)
}

// expectIn checks that a container has the address Docker shows, and that it is
// one of the prefix.
func (h *host) expectIn(container, addr string, prefix netip.Prefix) {
	h.t.Helper()
	a, err := netip.ParseAddr(addr)
	if err != nil || !prefix.Contains(a) {
		h.t.Errorf("%s has the address %q, which is not in %s", container, addr, prefix)
	}
	if has := h.exec(container, "ip", "-o", "addr"); !strings.Contains(has, fmt.Sprintf(" %s/", addr)) {
		h.t.Errorf("%s should have the address %s, but has:\n%s", container, addr, has)
	}
}

func automaticPools(h *host) {
	h.ours("auto4")
	h.ours("auto6", "--ipv6", "--opt", "gateway_mode=none")
	p4, p6 := h.pools("auto4"), h.pools("auto6")
	if len(p4) != 1 || len(p6) != 2 || !p6[1].Prefix.Addr().Is6() || !p6[1].Prefix.Addr().IsPrivate() {
		h.t.Fatalf("wanted an IPv4 pool, and an IPv4 pool with a private IPv6 one; got %v and %v", p4, p6)
	}
	// Docker does not take a pool to which the host has a route: it asks again.
	busy := netip.PrefixFrom(p6[0].Prefix.Addr().Next(), 21).Masked()
	h.sh(fmt.Sprintf("ip link set docker0 up; ip route add %s dev docker0", busy))
	h.ours("beside")
	h.sh(fmt.Sprintf("ip route del %s dev docker0", busy))
	for _, p := range append(p4, h.pools("beside")...) {
		if p.Prefix.Overlaps(p6[0].Prefix) {
			h.t.Errorf("two networks have the pools %s and %s", p.Prefix, p6[0].Prefix)
		}
	}
	if p := h.pools("beside")[0].Prefix; p.Overlaps(busy) {
		h.t.Errorf("the pool %s is within %s, to which the host has a route", p, busy)
	}

	h.container("aa", "auto6")
	h.container("bb", "auto6")
	for _, c := range []string{"aa", "bb"} {
		h.expectIn(c, h.address(c, "auto6"), p6[0].Prefix)
		h.expectIn(c, h.address6(c, "auto6"), p6[1].Prefix)
	}
	h.ping("aa", h.address("bb", "auto6"))
	h.ping("aa", h.address6("bb", "auto6"))
	h.expectUsed("auto6", 3, 3)
	h.docker("stop", "aa")
	h.expectUsed("auto6", 2, 2)
	h.docker("rm", "-f", "aa", "bb")
	h.expectUsed("auto6", 1, 1)
	h.docker("network", "rm", "auto4", "auto6", "beside")
	h.expectNoPools()
}

func (h *host) expectNoPools() {
	h.t.Helper()
	h.eventually("no pool is left", func() error {
		if pools := h.status().Pools; len(pools) > 0 {
			return fmt.Errorf("there are %v", pools)
		}
		return nil
	})
}

func explicitPools(h *host) {
	h.ours("net", "--subnet", "10.30.0.0/24", "--ip-range", "10.30.0.128/25", "--gateway", "10.30.0.254",
		"--aux-address", "router=10.30.0.128", "--aux-address", "printer=10.30.0.5", "--opt", "gateway_mode=external",
		"--ipv6", "--subnet", "fd00:30::/64", "--gateway", "fd00:30::fe")
	for i, want := range []string{"10.30.0.0/24 10.30.0.128/25 10.30.0.254 2", "fd00:30::/64 invalid Prefix fd00:30::fe 1"} {
		p := h.pools("net")[i]
		if got := fmt.Sprintf("%s %s %s %d", p.Prefix, p.Range, p.Gateway, p.Used); got != want {
			h.t.Errorf("a pool is %s, should be %s", got, want)
		}
	}
	h.container("aa", "net")
	h.expectIn("aa", h.address("aa", "net"), netip.MustParsePrefix("10.30.0.128/25"))
	h.expectIn("aa", h.address6("aa", "net"), netip.MustParsePrefix("fd00:30::/64"))
	h.container("bb", "net", "--ip", "10.30.0.7", "--ip6", "fd00:30::7")
	h.expectIn("bb", "10.30.0.7", netip.MustParsePrefix("10.30.0.7/32"))
	h.expectIn("bb", "fd00:30::7", netip.MustParsePrefix("fd00:30::7/128"))
	h.ping("aa", "10.30.0.7")
	h.ping("aa", "fd00:30::7")
	for family, gw := range map[string]string{"-4": "10.30.0.254", "-6": "fd00:30::fe"} {
		if r := h.exec("aa", "ip", family, "route"); !strings.Contains(r, "default via "+gw) {
			h.t.Errorf("the default route should be %s, but there is:\n%s", gw, r)
		}
	}
	for _, taken := range []string{"10.30.0.5", "10.30.0.7", "10.30.0.254", "10.30.0.255"} {
		h.refused([]string{taken, "10.30.0.0/24"}, "run", "--detach", "--rm", "--network", "net", "--ip", taken, "lab")
	}
	used := h.pools("net")
	h.docker("stop", "aa")
	h.expectUsed("net", 2, 2)
	h.docker("start", "aa")
	h.ping("bb", h.address("aa", "net"))
	h.expectUsed("net", used[0].Used, used[1].Used)
	h.docker("rm", "-f", "aa", "bb")
	h.expectUsed("net", 2, 1)
	h.docker("network", "rm", "net")
	h.expectNoPools()
}

// equalSubnets has tenants with the same addresses, who do not see each other.
func equalSubnets(h *host) {
	tenants := map[string]string{"red": "--opt=vlan=31", "blue": "--opt=vlan=32"}
	for tenant, vlan := range tenants {
		h.ours(tenant, "--subnet", "10.9.0.0/24", vlan, "--opt", "gateway_mode=none", "--opt", "tenant_id="+tenant)
		h.container(tenant+"1", tenant, "--ip", "10.9.0.9", "--mac-address", "02:00:00:00:00:09")
		h.docker("exec", "-d", tenant+"1", "sh", "-c", "while :; do echo "+tenant+" | nc -l -p 7000; done")
		h.container(tenant+"2", tenant)
	}
	asks := func(tenant string) error {
		got, err := h.Run(h.ctx(), "docker", "exec", tenant+"2", "nc", "-w", "2", "10.9.0.9", "7000")
		if err == nil && strings.TrimSpace(got) != tenant {
			err = fmt.Errorf("%s answered", got)
		}
		return err
	}
	for tenant := range tenants {
		h.eventually("a container of "+tenant+" reaches its own", func() error { return asks(tenant) })
	}
	h.docker("stop", "red1")
	h.noPing("red2", "10.9.0.9")
	for tenant := range tenants {
		h.docker("rm", "-f", tenant+"1", tenant+"2")
		h.docker("network", "rm", tenant)
	}
	h.expectNoPools()
}

// staticAddresses has no container without an address of the user's choice.
func staticAddresses(h *host) {
	h.ours("net", "--subnet", "10.42.0.0/24", "--ipv6", "--subnet", "fd00:42::/64", "--opt", "ipam=static")
	h.container("bb", "bridge")
	run := []string{"run", "--detach", "--rm", "--network", "net", "--name", "aa"}
	h.refused([]string{"ipam=static", "--ip"}, append(run, "lab")...)
	h.refused([]string{"ipam=static", "--ip"}, "network", "connect", "net", "bb")
	h.expectUsed("net", 1, 1)
	h.refused([]string{"ipam=static", "--ip6"}, append(run, "--ip", "10.42.0.9", "lab")...)
	// Who does what the message says is not told that the address is in use.
	h.docker(append(run, "--ip", "10.42.0.9", "--ip6", "fd00:42::9", "lab")...)
	h.docker("network", "connect", "--ip", "10.42.0.10", "--ip6", "fd00:42::a", "net", "bb")
	h.ping("bb", "10.42.0.9")
	h.ping("bb", "fd00:42::9")
	h.expectUsed("net", 3, 3)
	if n := h.status().Networks[0]; n.IPAM != "static" || len(n.Notes) > 0 {
		h.t.Errorf("status shows ipam=%s with the notes %q", n.IPAM, n.Notes)
	}
	h.docker("rm", "-f", "aa", "bb")
	h.expectUsed("net", 1, 1)
	h.docker("network", "rm", "net")
	h.expectNoPools()
}

// staticByDocker is accepted, and status says that nobody enforces it.
func staticByDocker(h *host) {
	h.network("net", "--subnet", "10.43.0.0/24", "--opt", "ipam=static", "--opt", "gateway_mode=none")
	h.container("aa", "net", "--ip", "10.43.0.9")
	h.container("bb", "net")
	h.ping("bb", "10.43.0.9")
	if out := h.run(buildDir+"/ovs-container-network", "status"); !strings.Contains(out, "not enforced") {
		h.t.Errorf("status does not say that ipam=static is not enforced:\n%s", out)
	}
	h.docker("rm", "-f", "aa", "bb")
	h.docker("network", "rm", "net")
}

func exhaustedPool(h *host) {
	h.ours("net", "--subnet", "10.50.0.0/24", "--ip-range", "10.50.0.8/31", "--opt", "gateway_mode=none")
	h.container("aa", "net")
	h.container("bb", "net")
	full := []string{"no free address", "10.50.0.0/24", "10.50.0.8/31", "2 of 2"}
	h.refused(full, "run", "--detach", "--rm", "--network", "net", "lab")
	h.docker("stop", "aa")
	h.container("cc", "net")
	h.ping("bb", "cc")
	h.refused(full, "start", "aa")
	h.docker("rm", "-f", "aa", "bb", "cc")
	h.docker("network", "rm", "net")
	h.expectNoPools()
}

// noIPAM gives a container a MAC, which Docker shows, and no address.
func noIPAM(h *host) {
	h.network("net", "--ipam-driver", "null", "--opt", "gateway_mode=none")
	for c, addr := range map[string]string{"aa": "10.66.0.1/24", "bb": "10.66.0.2/24"} {
		h.container(c, "net", "--cap-add", "NET_ADMIN")
		if a := h.address(c, "net"); a != "" {
			h.t.Errorf("Docker shows the address %s of %s", a, c)
		}
		mac := h.docker("inspect", "-f", "{{.NetworkSettings.Networks.net.MacAddress}}", c)
		if got := h.exec(c, "cat", "/sys/class/net/eth0/address"); mac == "" || got != mac {
			h.t.Errorf("%s has the MAC %s, Docker shows %q", c, got, mac)
		}
		if got := h.exec(c, "ip", "-4", "addr", "show", "dev", "eth0"); strings.Contains(got, "inet") {
			h.t.Errorf("%s has an address:\n%s", c, got)
		}
		h.exec(c, "ip", "addr", "add", addr, "dev", "eth0")
	}
	h.ping("aa", "10.66.0.2")
	h.docker("rm", "-f", "aa", "bb")
	h.docker("network", "rm", "net")
}

// durablePools hands no address out twice, through a kill and a restart of the
// driver, and to a crowd.
func durablePools(h *host) {
	h.ours("net", "--subnet", "10.60.0.0/24", "--ipv6", "--subnet", "fd00:60::/64", "--opt", "gateway_mode=none")
	crowd := func(name string, n int) {
		h.t.Helper()
		h.sh(fmt.Sprintf(`for i in $(seq %d); do docker run -d --name %s$i --network net lab >/tmp/%s$i 2>&1 || cat /tmp/%s$i >>/tmp/failed & done; wait
if [ -e /tmp/failed ]; then cat /tmp/failed; exit 1; fi`, n, name, name, name))
	}
	crowd("aa", 5)
	before := h.pools("net")
	h.killDriver()
	if h.form == service {
		h.startDriver()
	}
	h.eventually("the driver answers", func() error {
		_, err := h.Run(h.ctx(), buildDir+"/ovs-container-network", "status")
		return err
	})
	if after := h.pools("net"); fmt.Sprint(after) != fmt.Sprint(before) {
		h.t.Errorf("the pools were %v and are %v", before, after)
	}
	crowd("bb", 20)
	h.stopDriver()
	h.startDriver()
	crowd("cc", 1)

	seen := make(map[string]bool)
	list := strings.Fields(h.sh("docker inspect -f '{{with .NetworkSettings.Networks.net}}{{.IPAddress}} {{.GlobalIPv6Address}}{{end}}' $(docker ps -q)"))
	for _, addr := range list {
		if seen[addr] {
			h.t.Errorf("two containers have the address %s", addr)
		}
		seen[addr] = true
	}
	if len(seen) != 2*26 {
		h.t.Errorf("26 containers have the addresses %q", list)
	}
	h.expectUsed("net", 27, 27)
	h.ping("aa1", "bb20")
	h.ping("cc1", h.address6("aa5", "net"))
	// One by one: Docker 20.10 loses count of a network's endpoints when many are
	// removed at once, and then keeps the network.
	h.sh("for c in $(docker ps -aq); do docker rm -f $c; done")
	h.expectUsed("net", 1, 1)
	h.docker("network", "rm", "net")
	h.expectNoPools()
}
