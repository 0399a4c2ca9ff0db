package link

import (
	"errors"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
)

// A link goes into a namespace with a name of its own and up, beside what is there.
// Twice and absent are harmless.
func TestWire(t *testing.T) {
	inNS(t, func() {
		k := open(t)
		ns, path := otherNS(t)
		for _, v := range []Veth{{Host: "h0", Peer: "p0", Alias: "a"}, {Host: "h1", Peer: "p1", Alias: "b"}} {
			_, err := k.Ensure(v)
			check(t, err)
		}
		if _, err := k.Wire("p0", t.TempDir(), "eth%d"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("into a directory: %v", err)
		}
		for i, name := range []string{"p0", "p1"} {
			for _, want := range []bool{true, false} {
				moved, err := k.Wire(name, path, "eth%d")
				if err != nil || moved != want {
					t.Errorf("%s: moved %v, %v; want %v", name, moved, err, want)
				}
			}
			within(t, ns, func() {
				l, err := netlink.LinkByName([]string{"eth0", "eth1"}[i])
				check(t, err)
				if l.Attrs().RawFlags&1 == 0 {
					t.Errorf("%s is down", l.Attrs().Name)
				}
			})
		}
		check(t, k.Delete("h0", "a"))
		check(t, k.Delete("h1", "b"))
		if names, err := k.LinksIn(path); err != nil || len(names) > 0 {
			t.Errorf("left in the namespace: %v, %v", names, err)
		}
	})
}
