package ovs

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A row that was read stays as it was, whatever happens in the database: it is
// used without a lock.
func TestRowsStay(t *testing.T) {
	r := newIdleRig(t)
	r.vsctl("add-br", "br1", "--", "add-port", "br1", "p1", "trunks=1,2,3,4", "--", "add-port", "br1", "p2", "--", "add-port", "br1", "p3")
	r.vsctl("set", "bridge", "br1", "external_ids:a=1", "--", "set", "port", "p1", "external_ids:a=1", "--", "set", "interface", "p1", "external_ids:a=1",
		"--", "set", "Open_vSwitch", ".", "external_ids:a=1")
	r.startFabric()
	v := r.view()
	read := func() map[string]any {
		b, p, i := findBridge(v, "br1"), findPort(v, "p1"), findIface(v, "p1")
		return map[string]any{
			"root": root(v).ExternalIDs, "bridges": root(v).Bridges, "bridge": b.ExternalIDs, "ports": b.Ports, "port": p.ExternalIDs,
			"trunks": p.Trunks, "interface": i.ExternalIDs,
		}
	}
	clone := func(m map[string]any) map[string]any {
		c := make(map[string]any)
		for k, x := range m {
			switch x := x.(type) {
			case []string:
				c[k] = slices.Clone(x)
			case []int:
				c[k] = slices.Clone(x)
			case map[string]string:
				c[k] = with(x, "a", x["a"])
			}
		}
		return c
	}
	before := read()
	want := clone(before)
	r.vsctl("set", "bridge", "br1", "external_ids:a=2", "--", "set", "port", "p1", "external_ids:a=2", "trunks=2,7",
		"--", "set", "interface", "p1", "external_ids:a=2", "--", "set", "Open_vSwitch", ".", "external_ids:a=2",
		"--", "del-port", "p2", "--", "add-br", "br2")
	eventually(t, "the changes", func() bool {
		for k, x := range read() {
			if cmp.Equal(want[k], x) {
				return false
			}
		}
		return true
	})
	if diff := cmp.Diff(want, before); diff != "" {
		t.Error(diff)
	}
}
