package ovn

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// With VXLAN a switch is made as long as OVN can tell it from the others, and one
// that exists is joined all the same. Geneve has room for more.
func TestRoomWithVXLAN(t *testing.T) {
	r := newRig(t)
	vxlan, geneve := r.host("v1", "external_ids:ovn-encap-type=vxlan"), r.host("g1")
	add := func(from, to int) {
		var args []string
		for i := from; i < to; i++ {
			args = append(args, "--", "ls-add", fmt.Sprint("s", i))
		}
		r.nbctl(args[1:]...)
		for _, f := range []*Fabric{vxlan, geneve} {
			eventually(t, "the switches are seen", func() bool {
				v, err := f.nb.View()
				return err == nil && len(ovsdb.All[*logicalSwitch](v)) == to
			})
		}
	}
	plan := func(f *Fabric, name string) error {
		_, err := f.Plan(onSwitch(name), nil)
		return err
	}
	add(0, maxVXLANSwitches-1)
	check(t, plan(vxlan, "new"))
	add(maxVXLANSwitches-1, maxVXLANSwitches)
	if err := plan(vxlan, "new"); err == nil || !strings.Contains(err.Error(), "has room for 4095") || !strings.Contains(err.Error(), "Geneve") {
		t.Errorf("one switch too many: %v", err)
	}
	check(t, plan(vxlan, "s7"))
	check(t, plan(geneve, "new"))
}

// So are ports: the last one that OVN has a key for is made, the next is refused,
// and one that is there already is no new one.
func TestPortsWithVXLAN(t *testing.T) {
	r := newRig(t)
	vxlan, geneve := r.host("v1", "external_ids:ovn-encap-type=geneve,vxlan"), r.host("g1")
	n := onSwitch("full")
	check(t, r.publish(vxlan, n))
	var args []string
	for i := range maxVXLANPorts - 1 {
		args = append(args, "--", "lsp-add", "full", fmt.Sprint("p", i))
	}
	r.nbctl(args[1:]...)
	last := endpoint(1, "10.1.0.11")
	check(t, r.publish(vxlan, n, last))
	err := r.publish(vxlan, n, endpoint(2, "10.1.0.12"))
	if err == nil || !strings.Contains(err.Error(), "logical switch full has 2047 ports, and OVN with VXLAN has room for 2047") {
		t.Errorf("one port too many: %v", err)
	}
	check(t, r.publish(vxlan, n, last))
	check(t, r.publish(geneve, n, endpoint(3, "10.1.0.13")))
}
