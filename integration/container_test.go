//go:build linux

package integration

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// Docker's own flags for addresses and names mean what they mean elsewhere, in
// both families, and what `docker inspect` shows is what the container has.
func TestAddresses(t *testing.T) {
	oldAndNew(t, func(t *testing.T, h *host) {
		h.network("plan", "--subnet", "10.30.0.0/24", "--gateway", "10.30.0.254", "--ip-range", "10.30.0.64/29",
			"--aux-address", "printer=10.30.0.65", "--aux-address", "router=10.30.0.66",
			"--ipv6", "--subnet", "fd30::/64", "--gateway", "fd30::fe")
		h.container("aa", "plan")
		h.container("bb", "plan", "--ip", "10.30.0.200", "--ip6", "fd30::200", "--mac-address", "02:42:0a:1e:00:c8",
			"--network-alias", "database", "--network-alias", "primary")
		a, b := h.expectAddresses("aa", "plan"), h.expectAddresses("bb", "plan")
		taken := []netip.Addr{netip.MustParseAddr("10.30.0.65"), netip.MustParseAddr("10.30.0.66")}
		if !netip.MustParsePrefix("10.30.0.64/29").Contains(a.v4) || slices.Contains(taken, a.v4) {
			t.Errorf("%s is not of the range or was promised to somebody else", a.v4)
		}
		if want := (addresses{"02:42:0a:1e:00:c8", netip.MustParseAddr("10.30.0.200"), netip.MustParseAddr("fd30::200")}); b != want {
			t.Errorf("bb has %v, not %v", b, want)
		}
		for _, name := range []string{"bb", "database", "primary", "10.30.0.200", "fd30::200"} {
			h.ping("aa", name)
		}
		h.exec("aa", "ping", "-6", "-c", "1", "database")
		h.exec("aa", "ping", "-4", "-c", "1", "database")
		h.tcp("aa", "bb", "fd30::200")
		for _, e := range h.status().Networks[0].Ends {
			if e.Container == "bb" && (e.MAC != b.mac || strings.Join(e.Addrs, " ") != "10.30.0.200/24 fd30::200/64") {
				t.Errorf("status shows %s %v of bb", e.MAC, e.Addrs)
			}
		}
		// An address that was asked for stays, whatever happens to the container.
		h.docker("stop", "bb")
		if ports := strings.Fields(h.ovs("list-ports", "br-int")); len(ports) != 1 {
			t.Errorf("with one container stopped of two, the ports are %v", ports)
		}
		h.docker("start", "bb")
		if now := h.expectAddresses("bb", "plan"); now != b {
			t.Errorf("after a restart bb has %v, not %v", now, b)
		}
		h.ping("aa", "database")

		if h.on == newer {
			h.network("six", "--ipv4=false", "--ipv6", "--subnet", "fd36::/64", "-o", "mtu=1280")
			h.container("cc", "six")
			h.container("dd", "six", "--ip6", "fd36::dd")
			if c := h.expectAddresses("cc", "six"); c.v4.IsValid() || !c.v6.IsValid() {
				t.Errorf("on a network of IPv6 alone a container has %v", c)
			}
			h.ping("cc", "dd")
			h.tcp("cc", "dd", "fd36::dd")
			h.docker("rm", "-f", "cc", "dd")
			h.docker("network", "rm", "six")
		}
		h.docker("rm", "-f", "aa", "bb")
		h.docker("network", "rm", "plan")
		h.expectClean()
	})
}

// A container can be on several networks, come to one and leave it while it
// runs, and each has its own addresses, names and ports.
func TestConnect(t *testing.T) {
	oldAndNew(t, func(t *testing.T, h *host) {
		h.network("front", "--subnet", "10.33.0.0/24")
		h.network("back", "-o", "bridge=br-back", "--subnet", "10.34.0.0/24")
		h.network("third", "-o", "bridge=br-back", "-o", "gateway_mode=none", "--ipv6", "--subnet", "10.35.0.0/24", "--subnet", "fd35::/64")
		h.container("web", "front")
		h.container("client", "front")
		h.container("db", "back")
		h.container("tool", "third")

		h.docker("network", "connect", "--ip", "10.34.0.99", "--alias", "application", "back", "web")
		h.docker("network", "connect", "--ip6", "fd35::99", "third", "web")
		for _, network := range []string{"front", "back", "third"} {
			h.expectAddresses("web", network)
		}
		if got := h.address("web", "back"); got != "10.34.0.99" {
			t.Errorf("web has %s on back", got)
		}
		h.ping("client", "web")
		h.ping("web", "client")
		h.ping("web", "db")
		h.ping("db", "application")
		h.ping("tool", "fd35::99")
		h.ping("tool", h.address("web", "third"))
		h.tcp("db", "web", "application")
		h.noPing("client", h.address("db", "back"))
		if ports := strings.Fields(h.ovs("list-ports", "br-back")); len(ports) != 4 {
			t.Errorf("four attachments have the ports %v", ports)
		}

		port := h.portOf("web", "back")
		h.docker("network", "disconnect", "back", "web")
		if ports := h.ovs("list-ports", "br-back"); strings.Contains(ports, port) {
			t.Errorf("the port %s is still there after the container left", port)
		}
		for _, l := range h.in("web").addresses() {
			if slices.Contains(l.list(), "10.34.0.99/24") {
				t.Errorf("the container that left the network has %v", l)
			}
		}
		h.noPing("db", "10.34.0.99")
		h.ping("client", "web")
		h.ping("tool", "fd35::99")

		// Back again, the first network gone, in a restart, and by force.
		h.docker("network", "connect", "back", "web")
		h.docker("network", "disconnect", "front", "web")
		h.expectAddresses("web", "back")
		h.ping("web", "db")
		h.docker("restart", "web")
		h.expectAddresses("web", "back")
		h.expectAddresses("web", "third")
		h.ping("web", "db")
		h.ping("web", "tool")
		h.docker("network", "disconnect", "-f", "third", "web")
		h.docker("network", "disconnect", "back", "web")
		h.docker("rm", "-f", "client", "tool")
		h.docker("network", "rm", "front", "third")
		h.docker("rm", "-f", "web", "db")
		h.docker("network", "rm", "back")
		h.expectClean()
	})
}

// addresses are what a container has on a network.
type addresses struct {
	mac    string
	v4, v6 netip.Addr
}

// device is a network device with its addresses as `ip` tells of it.
type device struct {
	Name      string `json:"ifname"`
	MAC       string `json:"address"`
	Addresses []struct {
		Local string `json:"local"`
		Bits  int    `json:"prefixlen"`
		Scope string `json:"scope"`
	} `json:"addr_info"`
}

// list is the addresses that are not made up by the kernel.
func (d device) list() (list []string) {
	for _, a := range d.Addresses {
		if a.Scope == "global" {
			list = append(list, fmt.Sprintf("%s/%d", a.Local, a.Bits))
		}
	}
	slices.Sort(list)
	return list
}

func (p place) addresses() (devices []device) {
	p.h.t.Helper()
	p.h.must(json.Unmarshal([]byte(p.run("ip", "-j", "address")), &devices))
	return devices
}

// expectAddresses checks that the container has a device with just the MAC and
// the addresses that Docker shows of it on the network, and returns them.
func (h *host) expectAddresses(container, network string) addresses {
	h.t.Helper()
	var shown struct {
		MacAddress, IPAddress, GlobalIPv6Address string
		IPPrefixLen, GlobalIPv6PrefixLen         int
	}
	out := h.docker("inspect", "-f", fmt.Sprintf("{{json (index .NetworkSettings.Networks %q)}}", network), container)
	h.must(json.Unmarshal([]byte(out), &shown))
	a := addresses{mac: shown.MacAddress}
	var want []string
	for _, of := range []struct {
		addr *netip.Addr
		text string
		bits int
	}{{&a.v4, shown.IPAddress, shown.IPPrefixLen}, {&a.v6, shown.GlobalIPv6Address, shown.GlobalIPv6PrefixLen}} {
		if of.text != "" {
			var err error
			*of.addr, err = netip.ParseAddr(of.text)
			h.must(err)
			want = append(want, fmt.Sprintf("%s/%d", of.text, of.bits))
		}
	}
	slices.Sort(want)
	devices := h.in(container).addresses()
	i := slices.IndexFunc(devices, func(d device) bool { return d.MAC == a.mac })
	if a.mac == "" || i < 0 || len(want) == 0 {
		h.t.Fatalf("Docker shows %+v of %s on %s, which has %+v", shown, container, network, devices)
	}
	if got := devices[i].list(); !slices.Equal(got, want) {
		h.t.Errorf("%s has %v on %s, and Docker shows %v", container, got, network, want)
	}
	return a
}
