//go:build linux

package integration

import (
	"testing"

	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

// A switch with a port to a physical network: containers of two hosts reach what is
// in the VLAN, and each other, and what is in another VLAN does not reach them.
func TestOVNLocalnet(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2, lab.FleetOptions{})
	if _, err := f.lab.StartOutside(t.Context(), lab.Outside{Hosts: f.Hosts, VLANs: []int{42, 43}}); err != nil {
		t.Fatal(err)
	}
	h1, h2 := f.hosts[0], f.hosts[1]
	for i, h := range f.hosts {
		h.network("lan", "--subnet", "10.42.0.0/24", "--ip-range", []string{"10.42.0.32/27", "10.42.0.64/27"}[i], "--gateway", "10.42.0.1",
			"--opt", "ovn.switch=lan", "--opt", "ovn.localnet=physnet1", "--opt", "vlan=42", "--opt", "gateway_mode=external")
		h.network("dmz", "--subnet", "10.43.0.0/24", "--gateway", "10.43.0.1",
			"--opt", "ovn.switch=dmz", "--opt", "ovn.localnet=physnet1", "--opt", "vlan=43", "--opt", "gateway_mode=external")
	}
	h1.container("x1", "lan")
	h2.container("x2", "lan")
	h2.container("d2", "dmz")
	for _, c := range []struct {
		h        *host
		name, to string
	}{{h1, "x1", "10.42.0.1"}, {h2, "x2", "10.42.0.1"}, {h2, "d2", "10.43.0.1"}, {h1, "x1", h2.address("x2", "lan")}} {
		c.h.ping(c.name, c.to)
	}
	h1.noPing("x1", h2.address("d2", "dmz"))
	h1.docker("rm", "-f", "x1")
	h2.docker("rm", "-f", "x2", "d2")
	for _, h := range f.hosts {
		h.docker("network", "rm", "lan", "dmz")
	}
	f.expectEmpty()
}
