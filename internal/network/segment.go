package network

import "fmt"

// segment is one broadcast domain: a VLAN of a bridge. No two endpoints in it
// may have the same address or MAC, whatever their networks.
type segment struct {
	bridge string
	vlan   uint16
}

type holder struct {
	network  ID
	endpoint EndpointID
}

func segmentOf(n Network, ep Endpoint) segment {
	return segment{n.Config.Bridge, n.Port(ep).VLAN}
}

// claims are the keys that an endpoint occupies in its segment: its addresses
// (netip.Addr) and its MAC (string).
func claims(ep Endpoint) []any {
	keys := []any{ep.MAC}
	for _, a := range addrsOf(ep) {
		keys = append(keys, a)
	}
	return keys
}

func (m *Manager) occupyLocked(n Network, ep Endpoint) {
	seg := segmentOf(n, ep)
	if m.segments[seg] == nil {
		m.segments[seg] = make(map[any]holder)
	}
	for _, key := range claims(ep) {
		m.segments[seg][key] = holder{n.ID, ep.ID}
	}
}

// vacate gives back what an endpoint occupies. Twice is harmless: a key that
// somebody else holds by now stays.
func (m *Manager) vacate(n Network, ep Endpoint) {
	m.mu.Lock()
	defer m.mu.Unlock()
	seg := segmentOf(n, ep)
	for _, key := range claims(ep) {
		if m.segments[seg][key] == (holder{n.ID, ep.ID}) {
			delete(m.segments[seg], key)
		}
	}
	if len(m.segments[seg]) == 0 {
		delete(m.segments, seg)
	}
}

// occupy enters an endpoint, or says who is in its way.
//
// A holder in the same network whose container is gone is evicted: Docker's
// IPAM hands an address out again only after it has given up the old endpoint,
// and it does not always tell (its forced clean-up after a crash skips drivers
// that are not there yet).
func (m *Manager) occupy(n Network, ep Endpoint) (evicted []EndpointID, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	seg := segmentOf(n, ep)
	for _, key := range claims(ep) {
		h, taken := m.segments[seg][key]
		if !taken || h.endpoint == ep.ID {
			continue
		}
		other := m.networks[h.network]
		if other == nil {
			continue
		}
		on := other.value()
		oe := on.Endpoints[h.endpoint]
		if h.network == n.ID && !m.usedBy(oe) {
			evicted = append(evicted, oe.ID)
			continue
		}
		what := "address"
		if key == any(ep.MAC) {
			what = "MAC address"
		}
		return nil, fmt.Errorf("%s %v is already used by %s on %s in the same segment (bridge %s, vlan %s)",
			what, key, oe.Title(), on.Title(), seg.bridge, vlanText(seg.vlan))
	}
	m.occupyLocked(n, ep)
	return evicted, nil
}

// usedBy tells whether a container may still use the endpoint. One that is not
// joined yet is in use: its Join is on the way.
func (m *Manager) usedBy(ep Endpoint) bool {
	switch ep.Phase {
	case PhaseDeleting:
		return false
	case PhaseJoined:
		alive, known := m.alive(ep.Sandbox)
		return alive || !known
	}
	return true
}
