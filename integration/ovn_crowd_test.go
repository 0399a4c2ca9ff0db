//go:build linux

package integration

import (
	"fmt"
	"testing"

	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

// Crowds start and end on all hosts of a switch at the same time, and a driver dies
// over one of them.
func TestOVNCrowd(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3, lab.FleetOptions{})
	f.overlay()
	const n = 12
	run := func(name string) []string { return []string{"run", "-d", "--name", name, "--network", "prod", "lab"} }
	remove := func(name string) []string { return []string{"rm", "-f", name} }
	names := func(i int) (list []string) {
		for j := range n {
			list = append(list, fmt.Sprintf("y%d-%d", i, j))
		}
		return list
	}
	f.survives("crowds start on three hosts", func() {
		f.atOnce(func(i int, h *host) error { return allDid(h.atOnce(names(i), run, nil)) })
	})
	f.survives("crowds end on three hosts", func() {
		f.atOnce(func(i int, h *host) error { return allDid(h.atOnce(names(i), remove, nil)) })
	})
	f.survives("driver killed while crowds start on three hosts", func() {
		h := f.hosts[0]
		f.atOnce(func(i int, other *host) error {
			if i > 0 {
				return allDid(other.atOnce(names(i), run, nil))
			}
			h.atOnce(names(0), run, func(left func() int) {
				h.eventually("a third has started", func() error {
					if left() > n*2/3 {
						return fmt.Errorf("%d are left", left())
					}
					return nil
				})
				h.killDriver()
				h.startDriver()
			})
			return nil
		})
	})
	f.atOnce(func(i int, h *host) error {
		h.atOnce(names(i), remove, nil) // some are not there
		return nil
	})
	f.leave()
}

// allDid is an error unless nobody failed.
func allDid(failed []string) error {
	if len(failed) > 0 {
		return fmt.Errorf("failed: %v", failed)
	}
	return nil
}
