package link

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// routesIn are the routes of a namespace as `ip` writes them.
func routesIn(t *testing.T, ns netns.NsHandle) (text string) {
	within(t, ns, func() {
		out, err := exec.Command("ip", "-4", "route").Output()
		check(t, err)
		text = string(out)
	})
	return text
}

// A lease comes, changes and goes, and the routes of others stay.
func TestConfigure(t *testing.T) {
	inNS(t, func() {
		k := open(t)
		ns, path := otherNS(t)
		_, err := k.Ensure(Veth{Host: "h0", Peer: "p0", Alias: "a"})
		check(t, err)
		_, err = k.Wire("p0", path, "eth%d")
		check(t, err)
		in, _, err := k.Get("h0")
		check(t, err)
		prefix, addr := netip.MustParsePrefix, netip.MustParseAddr
		def := prefix("0.0.0.0/0")
		one := Settings{prefix("10.0.0.5/24"), []Route{{def, addr("10.0.0.1")}, {prefix("10.9.0.0/16"), addr("10.0.0.2")}, {To: prefix("10.8.0.0/16")}}}
		two := Settings{prefix("10.1.0.5/24"), []Route{{def, addr("192.0.2.1")}}} // a router elsewhere on the link
		for i, step := range []struct {
			old, want Settings
			routes    []string
		}{
			{Settings{}, one, []string{"default via 10.0.0.1", "10.9.0.0/16 via 10.0.0.2", "10.8.0.0/16 dev eth0 scope link", "10.0.0.0/24"}},
			{one, one, []string{"default via 10.0.0.1", "10.9.0.0/16 via 10.0.0.2", "10.8.0.0/16 dev eth0 scope link", "10.0.0.0/24"}},
			{one, two, []string{"default via 192.0.2.1 dev eth0 onlink", "10.1.0.0/24"}},
			{two, Settings{}, nil},
			{two, Settings{}, nil},
			{Settings{}, one, []string{"default via 10.0.0.1", "10.9.0.0/16 via 10.0.0.2", "10.8.0.0/16", "10.0.0.0/24"}},
		} {
			check(t, k.Configure(path, in.PeerIndex, step.old, step.want))
			got := routesIn(t, ns)
			for _, r := range step.routes {
				if !strings.Contains(got, r) {
					t.Errorf("step %d: no route %q among\n%s", i, r, got)
				}
			}
			if n := strings.Count(got, "\n"); n != len(step.routes) {
				t.Errorf("step %d: %d routes, want %d:\n%s", i, n, len(step.routes), got)
			}
		}

		// A default route of somebody else is neither replaced nor removed.
		within(t, ns, func() {
			check(t, exec.Command("ip", "route", "replace", "default", "via", "10.0.0.77").Run())
		})
		check(t, k.Configure(path, in.PeerIndex, one, one))
		if got := routesIn(t, ns); !strings.Contains(got, "default via 10.0.0.77") || strings.Count(got, "default") != 1 {
			t.Errorf("the routes are\n%s", got)
		}

		// An IPv6 address can be used at once.
		six := Settings{Addr: prefix("fd00::5/64")}
		addrs := func() (text string) {
			within(t, ns, func() {
				out, err := exec.Command("ip", "-6", "addr", "show", "dev", "eth0", "scope", "global").Output()
				check(t, err)
				text = string(out)
			})
			return text
		}
		check(t, k.Configure(path, in.PeerIndex, Settings{}, six))
		if got := addrs(); !strings.Contains(got, "fd00::5/64") || strings.Contains(got, "tentative") {
			t.Errorf("the addresses are\n%s", got)
		}
		check(t, k.Configure(path, in.PeerIndex, six, Settings{}))
		if got := addrs(); got != "" {
			t.Errorf("the addresses are\n%s", got)
		}
		// One that the kernel has made of a prefix keeps its times.
		within(t, ns, func() {
			check(t, exec.Command("ip", "addr", "add", "fd00::5/64", "dev", "eth0", "valid_lft", "5000", "preferred_lft", "0").Run())
		})
		check(t, k.Configure(path, in.PeerIndex, Settings{}, six))
		if got := addrs(); !strings.Contains(got, "deprecated") || strings.Contains(got, "valid_lft forever") {
			t.Errorf("the addresses are\n%s", got)
		}
		check(t, k.Configure(path, in.PeerIndex, six, Settings{}))
		if err := k.Configure(path, 99, Settings{}, one); err == nil || !strings.Contains(err.Error(), "link 99") {
			t.Errorf("of a link that is not there: %v", err)
		}
		check(t, k.Delete("h0", "a"))
	})
}

// While an end is lent it is up without an address, and the host's stack is kept
// off it; after that nothing of it is left.
func TestLend(t *testing.T) {
	inNS(t, func() {
		k := open(t)
		_, err := k.Ensure(Veth{Host: "h0", Peer: "p0", Alias: "a"})
		check(t, err)
		back, err := k.Lend("p0")
		check(t, err)
		l, err := netlink.LinkByName("p0")
		check(t, err)
		if l.Attrs().RawFlags&1 == 0 {
			t.Error("it is down")
		}
		addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		check(t, err)
		if shields, err := k.Shielded(); err != nil || !shields["p0"] || len(addrs) > 0 {
			t.Errorf("shields %v, %v; addresses %v", shields, err, addrs)
		}
		check(t, back())
		check(t, back())
		l, err = netlink.LinkByName("p0")
		check(t, err)
		if shields, err := k.Shielded(); err != nil || shields["p0"] || l.Attrs().RawFlags&1 != 0 {
			t.Errorf("given back: shields %v, %v; flags %x", shields, err, l.Attrs().RawFlags)
		}
		if _, err := k.Lend("nothing"); err == nil {
			t.Error("lent what is not there")
		}
		check(t, k.Delete("h0", "a"))
		check(t, back())
	})
}
