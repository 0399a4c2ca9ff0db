package network_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	. "github.com/ovs-container-network/ovs-container-network/internal/network"
)

type fakePort struct {
	bridge, network, endpoint string
	foreign                   bool
	Port
}

func (f *fakeFabric) Remove(_ context.Context, n Network, keepBridge bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.down:
		return errUnreachable
	case f.failGone != nil:
		return f.failGone
	case n.Phase != PhaseDeleting:
		return fmt.Errorf("network %s is %s", n.ID, n.Phase)
	}
	if f.step != nil {
		if err := f.step(); err != nil {
			return err
		}
	}
	for id := range n.Endpoints {
		host, _ := id.Links()
		if _, linked := f.links[host]; linked {
			return fmt.Errorf("endpoint %s still has a link, which nobody would remove any more", id)
		}
	}
	inUse := false
	for name, p := range f.ports {
		if p.network == string(n.ID) {
			delete(f.ports, name)
		} else if p.bridge == n.Config.Bridge {
			inUse = true
		}
	}
	if !keepBridge && n.OwnsBridge && f.bridges[n.Config.Bridge] && !inUse {
		delete(f.bridges, n.Config.Bridge)
	}
	return nil
}

// Prune removes at once what a real fabric would first watch for a while.
func (f *fakeFabric) Prune(_ context.Context, keep []Network, spare func(ID, EndpointID) bool) (again bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.prunes = append(f.prunes, time.Now())
	if f.down {
		return false, errUnreachable
	}
	wanted, bridges := map[string]bool{}, map[string]bool{}
	for _, n := range keep {
		bridges[n.Config.Bridge] = true
		for id := range n.Endpoints {
			host, _ := id.Links()
			wanted[host] = true
		}
	}
	for name, p := range f.ports {
		if !p.foreign && !wanted[name] && !spare(ID(p.network), EndpointID(p.endpoint)) {
			delete(f.ports, name)
			delete(f.links, name)
		}
	}
	for name, marked := range f.bridges {
		inUse := slices.ContainsFunc(slices.Collect(maps.Values(f.ports)), func(p fakePort) bool { return p.bridge == name })
		if marked && !bridges[name] && !inUse {
			delete(f.bridges, name)
		}
	}
	return false, nil
}

func (f *fakeFabric) Observe(n Network) Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := Status{Health: "ok", Datapath: "system", Endpoints: map[EndpointID]EndpointStatus{}}
	if f.down {
		s.Health, s.Problems = "degraded", []Problem{{Cause: errUnreachable.Error()}}
	}
	for id := range n.Endpoints {
		host, _ := id.Links()
		_, linked := f.links[host]
		e := EndpointStatus{Port: host, Linked: linked, Home: f.home[id], Health: "detached", Reason: string(n.Endpoints[id].Phase)}
		if p, ok := f.ports[host]; ok && !p.foreign {
			e.OFPort, e.Health, e.Reason = 1, "ok", ""
		}
		s.Endpoints[id] = e
	}
	return s
}

// String is the whole switch as text, a line for each bridge, port and link
// without a port.
func (f *fakeFabric) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var lines []string
	for name, marked := range f.bridges {
		lines = append(lines, fmt.Sprintf("bridge %s ours=%v", name, marked))
	}
	for name, p := range f.ports {
		lines = append(lines, portLine(name, p.bridge, p.Port))
	}
	for name := range f.links {
		if _, ok := f.ports[name]; !ok {
			lines = append(lines, "link "+name)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func portLine(name, bridge string, p Port) string {
	return fmt.Sprintf("port %s on %s vlan=%d trunk=%v mtu=%d %v", name, bridge, p.VLAN, p.Trunk, p.MTU, p.ExternalIDs)
}
