package network

import (
	"fmt"
	"slices"
	"time"
)

// segment is one broadcast domain: a VLAN of a bridge, or a logical switch. No two
// endpoints in it may have the same address or MAC, whatever their networks.
type segment struct {
	bridge, logical string
	vlan            uint16
}

func (s segment) String() string {
	if s.logical != "" {
		return "logical switch " + s.logical
	}
	return fmt.Sprintf("bridge %s, vlan %s", s.bridge, vlanText(s.vlan))
}

func (c Config) segment() segment {
	if c.OVN != nil {
		return segment{logical: c.OVN.Switch}
	}
	return segment{bridge: c.Bridge, vlan: c.VLAN}
}

type holder struct {
	network  ID
	endpoint EndpointID
}

func segmentOf(n Network, ep Endpoint) segment {
	s := n.Config.segment()
	if s.logical == "" && !ep.Observer { // an observer has an address of the network all the same
		s.vlan = n.Port(ep).VLAN
	}
	return s
}

// claims are the keys that an endpoint occupies in its segment: its addresses
// (netip.Addr) and its MAC (string).
func claims(ep Endpoint) []any {
	keys := make([]any, 0, len(ep.Addrs)+1)
	for _, a := range addrsOf(ep) {
		keys = append(keys, a)
	}
	return append(keys, ep.MAC)
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
// A holder in the same network that no container can be using any more is
// evicted: Docker does not always tell when it gives an endpoint up, as when
// the driver dies in the middle of a call, or when Docker cleans up after a
// crash while the driver is not there yet.
func (m *Manager) occupy(n Network, ep Endpoint) (evicted []EndpointID, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	seg := segmentOf(n, ep)
	if err := m.admitLocked(n, ep, seg); err != nil {
		return nil, err
	}
	for _, key := range claims(ep) {
		h, taken := m.segments[seg][key]
		if !taken || h.endpoint == ep.ID || slices.Contains(evicted, h.endpoint) {
			continue
		}
		other := m.networks[h.network]
		if other == nil {
			continue
		}
		on := other.value()
		oe, _ := on.Endpoint(h.endpoint)
		isMAC := key == any(ep.MAC)
		if h.network == n.ID && m.abandoned(on, oe, isMAC) {
			evicted = append(evicted, oe.ID)
			continue
		}
		what := "address"
		if isMAC {
			what = "MAC address"
		}
		return nil, fmt.Errorf("%s %v is already used by %s on %s in the same segment (%s)",
			what, key, oe.Title(), on.Title(), seg)
	}
	m.occupyLocked(n, ep)
	return evicted, nil
}

// admitLocked refuses an endpoint that must not be in a segment whoever is
// there: the segment is another network's own, or the address is the gateway's.
func (m *Manager) admitLocked(n Network, ep Endpoint, seg segment) error {
	for id, e := range m.networks {
		o := e.value()
		if o.Phase == PhaseDeleting || o.Config.segment() != seg {
			continue
		}
		if id != n.ID && ep.VLAN != nil && o.Config.VLANMode == VLANAuto {
			return fmt.Errorf("driver-opt vlan=\"%d\": %s has this tag to itself on bridge %s (vlan=auto); allowed is any other", *ep.VLAN, o.Title(), seg.bridge)
		}
		for _, s := range o.Subnets {
			if o.Config.Gateway == GatewayExternal && slices.Contains(addrsOf(ep), s.Gateway) {
				return fmt.Errorf("address %s is the gateway of %s in the same segment (%s)", s.Gateway, o.Title(), seg)
			}
		}
	}
	return nil
}

// startGrace is how long after its Join a container may be without a sandbox:
// engines up to 27 make the namespace when all networks have been joined.
const startGrace = 30 * time.Second

// abandoned tells whether the endpoint, which stands in the way of a new one of
// the same network, has been given up by Docker. What is asked for a MAC address
// is more than for an address: a MAC can be given twice by its user, while an
// address comes from an IPAM driver, which gives it to a second endpoint only
// after the first one was given up.
func (m *Manager) abandoned(n Network, ep Endpoint, forMAC bool) bool {
	switch ep.Phase {
	case PhaseDeleting, PhaseLeft:
		return true
	case PhaseCreated:
		return !forMAC
	case PhaseJoined:
		if alive, known := m.alive(ep.Sandbox); alive || !known {
			return false
		}
		starting := m.now().Sub(ep.Changed) < startGrace && m.fabric.Observe(n).Endpoints[ep.ID].Linked
		return !(forMAC && starting)
	}
	return false
}
