package ovs

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// space is a network namespace with a thread in it.
type space struct {
	t    *testing.T
	fd   netns.NsHandle
	work chan func()
}

func newSpace(t *testing.T) *space {
	t.Helper()
	s := &space{t: t, work: make(chan func())}
	ready := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the work
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			s.fd, err = netns.Get()
		}
		ready <- err
		for f := range s.work {
			f()
		}
		s.fd.Close()
	}()
	check(t, <-ready)
	t.Cleanup(func() { close(s.work) })
	return s
}

// do runs f in the namespace.
func (s *space) do(f func() error) {
	s.t.Helper()
	done := make(chan error, 1)
	s.work <- func() { done <- f() }
	check(s.t, <-done)
}

// notes counts what the fabric calls dirty; "" is everything.
type notes struct {
	mu    sync.Mutex
	count map[network.ID]int
}

func (n *notes) add(ids ...network.ID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(ids) == 0 {
		n.count[""]++
	}
	for _, id := range ids {
		n.count[id]++
	}
}

// take returns how often id was called dirty since the last time.
func (n *notes) take(id network.ID) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := n.count[id]
	delete(n.count, id)
	return c
}

// endpoint is number i of the endpoints of all tests.
func endpoint(i int) network.Endpoint {
	return network.Endpoint{
		ID:  network.EndpointID(fmt.Sprintf("%012x%052x", i, i)),
		MAC: fmt.Sprintf("02:00:00:00:%02x:%02x", i>>8, i&255),
	}
}

// revision makes every value of a network or an endpoint a new one.
var revision = struct {
	sync.Mutex
	n uint64
}{}

func rev() uint64 {
	revision.Lock()
	defer revision.Unlock()
	revision.n++
	return revision.n
}

// newNet is an active network that owns its bridge.
func newNet(id, bridge string, vlan uint16) network.Network {
	mode := network.VLANTag
	if vlan == 0 {
		mode = network.VLANNone
	}
	return network.Network{
		ID: network.ID(id), Phase: network.PhaseActive, OwnsBridge: true, Rev: rev(),
		Config: network.Config{Bridge: bridge, VLAN: vlan, VLANMode: mode, MTU: 1500},
	}
}

// join returns n with the endpoints in a phase.
func join(n network.Network, phase network.Phase, eps ...network.Endpoint) network.Network {
	for _, ep := range eps {
		ep.Network, ep.Phase, ep.Rev = n.ID, phase, rev()
		n = n.WithEndpoint(ep)
	}
	return n
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits until cond holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(bounded)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("in vain waited for: %s", what)
		}
	}
}

// await returns what arrives on c.
func await[T any](t testing.TB, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(bounded):
		t.Fatalf("in vain waited for: %s", what)
	}
	return v
}

// failures returns the endpoints that Apply says failed.
func failures(t *testing.T, err error) map[network.EndpointID]string {
	t.Helper()
	if err == nil {
		return nil
	}
	var partial *network.ApplyError
	if !errors.As(err, &partial) {
		t.Fatalf("all failed: %v", err)
	}
	texts := make(map[network.EndpointID]string)
	for id, err := range partial.Endpoints {
		texts[id] = err.Error()
	}
	return texts
}
