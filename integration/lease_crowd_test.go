//go:build linux

package integration

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"
)

// Fifty containers at once, on one network and on ten with a server each: every one
// has a lease, and none has another's. Then the same with servers that first look
// whether an address is free, one network on one host and ten on the other: dnsmasq
// takes three seconds for that, does it six times in half a minute at most, and grants
// without looking when there is more to do.
func TestLeaseCrowd(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		on      suite
		careful int // networks
	}{"old-engine": {own, 1}, "new-engine": {newer, 10}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			leaseCrowds(newHost(t, service, c.on), c.careful)
		})
	}
}

func leaseCrowds(h *host, careful int) {
	h.t.Helper()
	networks := h.servedNetworks("n", 10, 50, place.dhcpServer)
	h.crowd(50, networks[:1])
	h.crowd(50, networks)
	// A busy machine has time where a server takes three seconds of it.
	slow := h.servedNetworks("c", careful, 80, place.carefulServer, "dhcp.timeout=20s")
	h.crowd(50, slow)
	for _, n := range slices.Concat(networks, slow) {
		h.ovs("del-port", "br-dhcp", "v-"+n)
		h.removeNetwork(n)
	}
	h.expectClean()
}

// servedNetworks makes networks with a DHCP server each: of VLANs from first on, with
// subnets of these numbers.
func (h *host) servedNetworks(prefix string, count, first int, serve func(p place, subnet string, args ...string) (stop func()), options ...string) (names []string) {
	h.t.Helper()
	for i := range count {
		name, number := fmt.Sprintf("%s%d", prefix, i), first+i
		names = append(names, name)
		h.network(name, ownLeases(append([]string{"bridge=br-dhcp", fmt.Sprintf("vlan=%d", number)}, options...)...)...)
		serve(h.byHand(name, "br-dhcp", fmt.Sprintf("10.%d.0.1/24", number), fmt.Sprintf("tag=%d", number)), fmt.Sprintf("10.%d.0", number))
	}
	return names
}

// crowd starts containers at once, spread over networks, and removes them again. It
// says how long a lease took, from the driver's log.
func (h *host) crowd(size int, on []string) {
	h.t.Helper()
	errs := make([]error, size)
	took := make([]time.Duration, size)
	calls := len(h.leaseCalls())
	start := time.Now()
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = h.Run(h.ctx(), "docker", "run", "-d", "--name", fmt.Sprintf("x%d", i), "--network", on[i%len(on)], "lab")
			took[i] = time.Since(start)
		})
	}
	wg.Wait()
	slices.Sort(took)
	h.t.Logf("%d containers on %d networks: half of them run after %s, all after %s", size, len(on), took[size/2].Round(time.Millisecond), took[size-1].Round(time.Millisecond))
	leases := h.leaseCalls()[calls:]
	slices.Sort(leases)
	if len(leases) != size {
		h.t.Errorf("the driver was asked for %d endpoints, want %d", len(leases), size)
	} else {
		slow := len(leases) - sort.Search(len(leases), func(i int) bool { return leases[i] >= 2*time.Second })
		h.t.Logf("a lease with its port took %s, the slowest of 99 in 100 %s; %d took 2 s and more", leases[size/2], leases[size*99/100], slow)
	}
	holders := map[string]string{}
	var names []string
	subnets := map[string]string{}
	for i, err := range errs {
		name, n := fmt.Sprintf("x%d", i), on[i%len(on)]
		names = append(names, name)
		h.must(err)
		a := h.address(name, n)
		subnet := a[:strings.LastIndex(a, ".")+1]
		if subnets[n] == "" {
			subnets[n] = subnet
		}
		if other := holders[a]; other != "" || a == "" || subnet != subnets[n] {
			h.t.Errorf("%s has %q on %s, which %q has, too", name, a, n, other)
		}
		holders[a] = name
	}
	h.docker(append([]string{"rm", "-f"}, names...)...)
}

// createCalls are the calls in the log of a driver that take the lease.
var createCalls = regexp.MustCompile(`(?m)^.*CreateEndpoint.* took=(\S+).*$`)

// leaseCalls are how long they took.
func (h *host) leaseCalls() (took []time.Duration) {
	h.t.Helper()
	b, err := os.ReadFile(h.Path("/var/log/ocn.log"))
	h.must(err)
	for _, m := range createCalls.FindAllStringSubmatch(string(b), -1) {
		d, err := time.ParseDuration(m[1])
		h.must(err)
		took = append(took, d)
	}
	return took
}
