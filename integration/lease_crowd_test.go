//go:build linux

package integration

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// Fifty containers at once, on one network and on ten with a server each: every one
// has a lease, and none has another's.
func TestLeaseCrowd(t *testing.T) {
	t.Parallel()
	h := newHost(t, service, newer)
	options := func(vlan int) []string {
		return []string{"--ipam-driver", "null", "--opt", "ipam=external", "--opt", "dhcp=true", "--opt", "bridge=br-dhcp", "--opt", fmt.Sprintf("vlan=%d", vlan)}
	}
	var networks []string
	for i := range 10 {
		networks = append(networks, fmt.Sprintf("n%d", i))
		h.network(networks[i], options(100+i)...)
		h.byHand(fmt.Sprintf("s%d", i), "br-dhcp", fmt.Sprintf("10.%d.0.1/24", 50+i), fmt.Sprintf("tag=%d", 100+i)).dhcpServer(fmt.Sprintf("10.%d.0", 50+i))
	}
	for _, on := range [][]string{networks[:1], networks} {
		const crowd = 50
		errs := make([]error, crowd)
		start := time.Now()
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() {
				_, errs[i] = h.Run(h.ctx(), "docker", "run", "-d", "--name", fmt.Sprintf("x%d", i), "--network", on[i%len(on)], "lab")
			})
		}
		wg.Wait()
		t.Logf("%d containers on %d networks started within %s", crowd, len(on), time.Since(start))
		holders := map[string]string{}
		var names []string
		for i, err := range errs {
			name := fmt.Sprintf("x%d", i)
			names = append(names, name)
			h.must(err)
			a := h.address(name, on[i%len(on)])
			if other := holders[a]; other != "" || !strings.HasPrefix(a, fmt.Sprintf("10.%d.0.", 50+i%len(on))) {
				t.Errorf("%s has %q, which %q has, too", name, a, other)
			}
			holders[a] = name
		}
		h.docker(append([]string{"rm", "-f"}, names...)...)
	}
	for i, n := range networks {
		h.ovs("del-port", "br-dhcp", fmt.Sprintf("v-s%d", i))
		h.docker("network", "rm", n)
	}
	h.expectClean()
}
