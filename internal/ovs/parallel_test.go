package ovs

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// Networks come, change and go at the same time, while others look and an
// administrator changes rows by hand; each ends as it should.
func TestParallelNetworks(t *testing.T) {
	r := newRig(t)
	const networks, rounds, endpoints = 6, 4, 3
	var work, watch sync.WaitGroup
	done := make(chan struct{})
	want := make([]network.Network, networks)
	for i := range networks {
		work.Go(func() {
			bridge := fmt.Sprint("br", i/2)
			for round := range rounds {
				n := newNet(fmt.Sprint("n", i), bridge, uint16(10+i))
				var eps []network.Endpoint
				for e := range endpoints {
					eps = append(eps, endpoint(1000*i+100*round+e))
				}
				n = join(n, network.PhaseJoining, eps...)
				if err := r.f.Apply(t.Context(), n); err != nil {
					t.Errorf("network %d, round %d: %v", i, round, err)
				}
				want[i] = join(n, network.PhaseJoined, eps...)
				if round == rounds-1 {
					return
				}
				gone := join(n, network.PhaseDeleting, eps...)
				for err := network.ErrLingering; errors.Is(err, network.ErrLingering); {
					if err = r.f.Apply(t.Context(), gone); err != nil && !errors.Is(err, network.ErrLingering) {
						t.Errorf("network %d, round %d: %v", i, round, err)
					}
				}
			}
		})
	}
	look := func(f func()) {
		watch.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					f()
				}
			}
		})
	}
	look(func() {
		r.f.Observe(newNet("n1", "br0", 10))
		r.planned(config("br0", network.VLANAuto, 0))
	})
	look(func() {
		if _, err := r.f.Prune(t.Context(), nil, func(network.ID, network.EndpointID) bool { return false }); err != nil {
			t.Error(err)
		}
	})
	look(func() { r.vsctl("--no-wait", "set", "bridge", "foreign0", "other_config:x="+fmt.Sprint(rev())) })
	work.Wait()
	close(done)
	watch.Wait()
	r.guard()
	for _, n := range want {
		r.apply(n)
		if s := r.f.Observe(n); s.Health != healthOK || len(s.Endpoints) != endpoints {
			t.Errorf("%s: %+v", n.ID, s)
		}
	}
	good := r.text()
	for _, n := range want {
		r.unchangedBy(n)
	}
	if diff := cmp.Diff(good, r.text()); diff != "" {
		t.Error(diff)
	}
}
