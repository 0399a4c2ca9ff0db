package network

import (
	"fmt"
	"slices"
	"time"
)

// segment is where an address or a MAC may be once: a broadcast domain, which is a
// VLAN of a bridge or a logical switch, or one of two that stand for others.
type segment struct {
	bridge, logical string
	vlan            uint16

	// A trunk without a native VLAN has the addresses that Docker books on no VLAN
	// of the bridge: what leaves without a tag is dropped. They are told apart in
	// their network alone.
	nowhere ID

	// The MAC of a trunk is in all its VLANs, which may be thousands. So it is kept
	// once, and compared with those of the VLANs when somebody comes. A MAC is on one
	// trunk of a bridge only, also where the lists have nothing in common.
	trunks bool
}

func (s segment) String() string {
	switch {
	case s.logical != "":
		return "logical switch " + s.logical
	case s.nowhere != "":
		return fmt.Sprintf("bridge %s, trunk without a native vlan", s.bridge)
	case s.trunks:
		return fmt.Sprintf("bridge %s, trunks", s.bridge)
	}
	return fmt.Sprintf("bridge %s, vlan %s", s.bridge, vlanText(s.vlan))
}

// segment is where the addresses of n are.
func (n Network) segment() segment { return segmentOf(n, Endpoint{}) }

type holder struct {
	network  ID
	endpoint EndpointID
}

// segmentOf is where the addresses of ep are. Those of an observer, which is nowhere,
// are booked with the network's.
func segmentOf(n Network, ep Endpoint) segment {
	if ep.Observer {
		ep = Endpoint{}
	}
	if n.Config.OVN != nil {
		return segment{logical: n.Config.OVN.Switch}
	}
	s := segment{bridge: n.Config.Bridge}
	var trunk VLANs
	if s.vlan, trunk = n.vlans(ep); s.vlan == 0 && len(trunk) > 0 {
		s.nowhere = n.ID
	}
	return s
}

// claim is a key in a segment: an address (netip.Addr) or a MAC (string).
type claim struct {
	in  segment
	key any
}

// claims are what an endpoint occupies: its addresses and its MAC.
func claims(n Network, ep Endpoint) []claim {
	home := segmentOf(n, ep)
	list := make([]claim, 0, len(ep.Addrs)+2)
	for _, a := range addrsOf(ep) {
		list = append(list, claim{home, a})
	}
	list = append(list, claim{home, ep.MAC})
	if _, trunk := n.vlans(ep); len(trunk) > 0 && n.Config.OVN == nil && !ep.Observer {
		list = append(list, claim{segment{bridge: n.Config.Bridge, trunks: true}, ep.MAC})
	}
	return list
}

// withEntering adds the endpoints that were admitted and are not shown yet: a
// network must not get a tag to itself that one of them is about to use. others is
// changed.
func (m *Manager) withEntering(others []Network) []Network {
	for _, ep := range m.entering {
		if i := slices.IndexFunc(others, func(o Network) bool { return o.ID == ep.Network }); i >= 0 {
			others[i] = others[i].WithEndpoint(ep)
		}
	}
	return others
}

// entered ends what occupy began.
func (m *Manager) entered(id EndpointID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.entering, id)
}

func (m *Manager) occupyLocked(n Network, ep Endpoint) {
	for _, c := range claims(n, ep) {
		if m.segments[c.in] == nil {
			m.segments[c.in] = make(map[any]holder)
		}
		m.segments[c.in][c.key] = holder{n.ID, ep.ID}
	}
}

// vacate gives back what an endpoint occupies. Twice is harmless: a key that
// somebody else holds by now stays.
func (m *Manager) vacate(n Network, ep Endpoint) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range claims(n, ep) {
		if m.segments[c.in][c.key] == (holder{n.ID, ep.ID}) {
			delete(m.segments[c.in], c.key)
		}
		if len(m.segments[c.in]) == 0 {
			delete(m.segments, c.in)
		}
	}
}

// wantsLocked are the claims of an endpoint with those that others may have made
// on the MAC where it is tagged: as the only one of a VLAN, or as one of a trunk.
func (m *Manager) wantsLocked(n Network, ep Endpoint) []claim {
	list := claims(n, ep)
	if n.Config.OVN != nil || ep.Observer {
		return list
	}
	vlan, trunk := n.vlans(ep)
	if len(trunk) > 0 {
		for in := range m.segments {
			if in.bridge == n.Config.Bridge && trunk.Has(in.vlan) {
				list = append(list, claim{in, ep.MAC})
			}
		}
		return list
	}
	trunks := segment{bridge: n.Config.Bridge, trunks: true}
	h := m.segments[trunks][ep.MAC]
	if other := m.networks[h.network]; other != nil {
		on := other.value()
		oe, _ := on.Endpoint(h.endpoint)
		if _, theirs := on.vlans(oe); theirs.Has(vlan) {
			list = append(list, claim{trunks, ep.MAC})
		}
	}
	return list
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
	if err := m.admitLocked(n, ep); err != nil {
		return nil, err
	}
	for _, c := range m.wantsLocked(n, ep) {
		h, taken := m.segments[c.in][c.key]
		if !taken || h.endpoint == ep.ID || slices.Contains(evicted, h.endpoint) {
			continue
		}
		other := m.networks[h.network]
		if other == nil {
			continue
		}
		on := other.value()
		oe, _ := on.Endpoint(h.endpoint)
		isMAC := c.key == any(ep.MAC)
		if h.network == n.ID && m.abandoned(on, oe, isMAC) {
			evicted = append(evicted, oe.ID)
			continue
		}
		what := "address"
		if isMAC {
			what = "MAC address"
		}
		return nil, fmt.Errorf("%s %v is already used by %s on %s in the same segment (%s)",
			what, c.key, oe.Title(), on.Title(), c.in)
	}
	m.occupyLocked(n, ep)
	m.entering[ep.ID] = ep
	return evicted, nil
}

// admitLocked refuses an endpoint that must not be in a segment whoever is
// there: the segment is another network's own, or the address is the gateway's.
func (m *Manager) admitLocked(n Network, ep Endpoint) error {
	seg := segmentOf(n, ep)
	for id, e := range m.networks {
		o := e.value()
		if o.Phase == PhaseDeleting {
			continue
		}
		own := id != n.ID && o.Config.VLANMode == VLANAuto && o.Config.Bridge == n.Config.Bridge
		if own && !ep.Observer && ep.Trunk != nil && ep.Trunk.Has(o.Config.VLAN) {
			return fmt.Errorf("driver-opt trunk=%q: %s has tag %d to itself on bridge %s (vlan=auto); allowed are others", *ep.Trunk, o.Title(), o.Config.VLAN, o.Config.Bridge)
		}
		if o.segment() != seg {
			continue
		}
		if own && ep.VLAN != nil {
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
	case PhaseJoining:
		return ep.Sandbox == "" && (!forMAC || !ep.Release.IsZero()) // it was given its lease, or gives it back
	case PhaseJoined:
		if alive, known := m.alive(ep.Sandbox); alive || !known {
			return false
		}
		starting := m.now().Sub(ep.Changed) < startGrace && m.fabric.Observe(n).Endpoints[ep.ID].Linked
		return !(forMAC && starting)
	}
	return false
}
