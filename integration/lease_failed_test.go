//go:build linux

package integration

import (
	"fmt"
	"strings"
	"testing"
)

// granted counts what the server granted, and what it got back, of both families.
func (p place) granted() (acks, releases int) {
	log := p.serverLog()
	return strings.Count(log, "DHCPACK(") + strings.Count(log, "DHCPREPLY("), strings.Count(log, "DHCPRELEASE(")
}

// What was granted to a start that fails afterwards, in the call that asked for it or
// in a later one, is given back to the server.
func TestLeaseOfFailedStart(t *testing.T) {
	oldAndNew(t, func(t *testing.T, h *host) {
		h.network("inner", append(ownLeases("bridge=br-inner"), "--internal")...)
		h.network("slaac", ownLeases("bridge=br-slaac", "dhcp.release=immediately")...) // one with a MAC address of its own is kept otherwise
		h.network("others", "--ipv6", "--subnet", "10.44.0.0/24", "--subnet", "fd43::/64", "--opt", "bridge=br-slaac", "--opt", "vlan=none", "--opt", "gateway_mode=none")
		inner := h.byHand("inner", "br-inner", "10.42.0.1/24").server6("10.42.0", "fd42::1/64", "--enable-ra", "--dhcp-range=fd42::100,fd42::1ff,64,2m")
		slaac := h.byHand("slaac", "br-slaac", "10.43.0.1/24").server6("10.43.0", "fd43::1/64", "--enable-ra", "--dhcp-range=fd43::,ra-only")
		h.container("holder", "others", "--ip6", "fd43::ff:fe00:c1")
		for _, c := range []struct {
			server place
			args   []string
			says   string
			grants int
		}{
			{inner, []string{"--network", "inner", "-p", "8090:80"}, "published ports (-p) would be ignored", 2},
			// The address that follows from its MAC address is taken.
			{slaac, []string{"--network", "slaac", "--mac-address", "02:00:00:00:00:c1"}, "an IPv6 address is given to two", 1},
		} {
			acks, releases := c.server.granted()
			if out := h.dockerFails(append(append([]string{"run", "-d", "--name", "failed"}, c.args...), "lab")...); !strings.Contains(out, c.says) {
				t.Errorf("docker run %q says %s", c.args, out)
			}
			h.eventually("the server has everything back that it granted", func() error {
				a, r := c.server.granted()
				left := strings.Join(c.server.leases(), "\n")
				if a-acks < c.grants || r-releases != c.grants || strings.Contains(left, "10.4") || strings.Contains(left, "fd42::1") {
					return fmt.Errorf("it granted %d and got back %d; it has %s", a-acks, r-releases, left)
				}
				return nil
			})
			h.docker("rm", "-f", "failed")
		}
		// The next start is as any other.
		h.container("aa", "inner")
		h.leaseFrom("aa", "inner", "10.42.0")
		h.docker("rm", "-f", "aa", "holder")
		h.ovs("del-port", "br-inner", "v-inner")
		h.ovs("del-port", "br-slaac", "v-slaac")
		h.docker("network", "rm", "inner", "slaac", "others")
		h.expectClean()
	})
}
