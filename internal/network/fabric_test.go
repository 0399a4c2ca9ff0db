package network_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	. "github.com/ovs-container-network/ovs-container-network/internal/network"
)

// fakeFabric is a switch in memory. It does what an Open vSwitch would do and
// refuses what that would refuse, in the words of errUnreachable when it is
// down. Endpoints can be told to fail, and Apply to wait.
type fakeFabric struct {
	t *testing.T

	mu       sync.Mutex // guards the following
	down     bool
	bridges  map[string]bool // by name, true: carries our mark
	ports    map[string]fakePort
	links    map[string]EndpointID // host ends that exist
	home     map[EndpointID]bool   // the other end is in the host's namespace
	failing  map[EndpointID]error  // makes Apply fail for the endpoint
	failNet  error                 // makes Apply fail as a whole
	failGone error                 // makes Remove fail
	gate     chan struct{}         // if set, Apply waits until it is closed
	budget   time.Duration         // how long Ready waits while the fabric is down
	busy     map[ID]bool           // an Apply is under way
	applies  map[ID][]time.Time
	plans    int
	prunes   []time.Time
	step     func() error // if set, asked before every change

	linger time.Duration // links of deleted endpoints are removed that much later
	dirty  func(...ID)   // told when a link that lingered is gone
}

var errUnreachable = errors.New("cannot reach the database at unix:/fake: connection refused")

func newFabric(t *testing.T) *fakeFabric {
	return &fakeFabric{
		t: t, bridges: map[string]bool{}, ports: map[string]fakePort{}, links: map[string]EndpointID{}, home: map[EndpointID]bool{},
		failing: map[EndpointID]error{}, busy: map[ID]bool{}, applies: map[ID][]time.Time{},
		linger: 50 * time.Millisecond,
	}
}

// with changes what the fabric is told to do.
func (f *fakeFabric) with(change func(*fakeFabric)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

// hold makes Apply wait until the returned function is called.
func (f *fakeFabric) hold() (release func()) {
	gate := make(chan struct{})
	f.with(func(f *fakeFabric) { f.gate = gate })
	return sync.OnceFunc(func() {
		f.with(func(f *fakeFabric) {
			if f.gate == gate { // else the next hold began
				f.gate = nil
			}
		})
		close(gate)
	})
}

func (f *fakeFabric) isDown() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.down
}

// linked tells whether a host end exists.
func (f *fakeFabric) linked(host string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.links[host] != ""
}

func (f *fakeFabric) Ready(ctx context.Context, _ Config) error {
	if !f.isDown() {
		return ctx.Err()
	}
	wait, end := context.WithTimeout(ctx, f.budget)
	defer end()
	<-wait.Done()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if f.isDown() {
		return errUnreachable
	}
	return nil
}

// CheckBridge refuses the bridge named ovn.
func (f *fakeFabric) CheckBridge(name string) error {
	if name == "ovn" && !f.isDown() {
		return errors.New("option bridge=\"ovn\": this is OVN's")
	}
	return nil
}

func (f *fakeFabric) Routes(Network) []netip.Prefix { return nil }

func (f *fakeFabric) Choose(context.Context, Network, Endpoint) ([]netip.Prefix, error) {
	return nil, errors.New("a bridge has no addresses to give")
}

// Await has nothing to wait for: Apply says all.
func (f *fakeFabric) Await(ctx context.Context, _ Network, _ EndpointID) error { return ctx.Err() }

func (f *fakeFabric) Plan(n Network, others []Network) (Plan, error) {
	cfg := n.Config
	f.mu.Lock()
	defer f.mu.Unlock()
	f.plans++
	if f.down {
		return Plan{}, errUnreachable
	}
	if cfg.Bridge == "" {
		cfg.Bridge = "br-int"
	}
	used := map[uint16]bool{}
	for _, o := range others {
		if o.Config.Bridge == cfg.Bridge {
			used[o.Config.VLAN] = true
			for _, ep := range o.Endpoints {
				for _, tag := range o.Port(*ep).Trunk {
					used[tag] = true
				}
			}
		}
	}
	if cfg.VLANMode == VLANAuto {
		for cfg.VLAN = MaxVLAN; used[cfg.VLAN]; cfg.VLAN-- {
		}
	}
	if cfg.Bridge == "ovn" {
		return Plan{}, errors.New("option bridge=\"ovn\": this is OVN's")
	}
	marked, exists := f.bridges[cfg.Bridge]
	return Plan{Config: cfg, OwnsBridge: !exists || marked}, nil
}

func (f *fakeFabric) Apply(ctx context.Context, n Network) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.busy[n.ID] {
		f.t.Errorf("two Applies of network %s at once", n.ID)
	}
	f.busy[n.ID] = true
	defer func() { f.busy[n.ID] = false }()
	f.applies[n.ID] = append(f.applies[n.ID], time.Now())
	if gate := f.gate; gate != nil {
		f.mu.Unlock()
		select {
		case <-gate:
		case <-ctx.Done():
		}
		f.mu.Lock()
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case f.down:
		return errUnreachable
	case f.failNet != nil:
		return f.failNet
	}
	if f.step != nil {
		if err := f.step(); err != nil {
			return err
		}
	}
	if _, exists := f.bridges[n.Config.Bridge]; !exists && n.Phase != PhaseDeleting {
		f.bridges[n.Config.Bridge] = n.OwnsBridge
	}
	errs := map[EndpointID]error{}
	for _, ep := range n.SortedEndpoints() {
		if err := f.applyEndpoint(n, ep); err != nil {
			errs[ep.ID] = err
		}
	}
	if len(errs) > 0 {
		return &ApplyError{Endpoints: errs}
	}
	return nil
}

func (f *fakeFabric) applyEndpoint(n Network, ep Endpoint) error {
	if err := f.failing[ep.ID]; err != nil {
		return err
	}
	host, _ := ep.ID.Links()
	p, exists := f.ports[host]
	if exists && p.foreign && (ep.Phase == PhaseJoining || ep.Phase == PhaseJoined) {
		return fmt.Errorf("the port name %s is taken", host)
	}
	switch ep.Phase {
	case PhaseJoining, PhaseJoined:
		if _, linked := f.links[host]; !linked && ep.Phase == PhaseJoined {
			return errors.New("its link is gone")
		}
		want := n.Port(ep)
		if mac, err := net.ParseMAC(ep.MAC); err != nil || mac[0]&1 != 0 || want.VLAN > MaxVLAN && !ep.Observer || want.MTU < MinMTU || ep.Sandbox == "" && !n.Config.DHCP {
			return fmt.Errorf("impossible endpoint %+v", ep)
		}
		if _, bridged := f.bridges[n.Config.Bridge]; !bridged {
			return fmt.Errorf("no bridge %s", n.Config.Bridge)
		}
		f.links[host] = ep.ID
		f.ports[host] = fakePort{bridge: n.Config.Bridge, network: string(n.ID), endpoint: string(ep.ID), Port: want}
	case PhaseCreated, PhaseLeft, PhaseParting, PhaseDeleting:
		if exists && !p.foreign {
			delete(f.ports, host)
		}
		if _, linked := f.links[host]; linked && (ep.Phase == PhaseDeleting || ep.Phase == PhaseParting) {
			f.reap(n.ID, host)
			return ErrLingering
		}
	default:
		return fmt.Errorf("endpoint %s is %q", ep.ID, ep.Phase)
	}
	return nil
}

// reap removes a link in the background, as the kernel takes its time.
func (f *fakeFabric) reap(id ID, host string) {
	dirty := f.dirty
	time.AfterFunc(max(f.linger, time.Nanosecond), func() { // see alarm
		f.with(func(f *fakeFabric) { delete(f.links, host) })
		dirty(id)
	})
}
