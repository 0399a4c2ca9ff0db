package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"
)

// EndpointRequest is a CreateEndpoint call, decoded.
type EndpointRequest struct {
	Network   ID
	ID        EndpointID
	MAC       string         // empty: ours to choose
	Addrs     []netip.Prefix // as booked by the IPAM driver
	Options   map[string]string
	Published int // ports that -p asks this endpoint to publish
}

// CreateEndpoint enters an endpoint and returns it. Nothing is made yet, dockerd
// holds its own lock for the whole network here and takes none in Join; but where the
// address is a server's to give, the port is made and the server asked. The same
// request again returns the same endpoint. On an error nothing stays.
func (m *Manager) CreateEndpoint(ctx context.Context, req EndpointRequest) (Endpoint, error) {
	ep, err := m.createEndpoint(ctx, req)
	if err != nil {
		return Endpoint{}, fmt.Errorf("cannot attach to network %s: %w", req.Network.Short(), err)
	}
	return ep, nil
}

func (m *Manager) createEndpoint(ctx context.Context, req EndpointRequest) (Endpoint, error) {
	e, err := m.lookup(req.Network)
	if err != nil {
		return Endpoint{}, err
	}
	container := m.pools.Entered(req.Network, bare(req.Addrs))
	n := e.value()
	if n.Phase != PhaseActive {
		return Endpoint{}, fmt.Errorf("the network is %s", n.Phase)
	}
	if old, ok := n.Endpoint(req.ID); ok {
		if old.Phase == PhaseDeleting {
			return Endpoint{}, fmt.Errorf("endpoint %s is being removed", req.ID.Short())
		}
		if err := m.changeEndpoint(e, req.ID, func(ep *Endpoint) { ep.Unsure = false }); err != nil || !n.leases(old) || old.Lease != nil {
			return old, err
		}
		return m.leased(ctx, e, old, m.returned(e, old))
	}
	ep, err := newEndpoint(n, req)
	if err != nil {
		return Endpoint{}, err
	}
	m.identify(ctx, n, &ep, container)
	if n.Config.IPAM == IPAMOVN && len(ep.Addrs) == 0 {
		if err := m.choose(ctx, n, &ep, req.MAC == ""); err != nil {
			return Endpoint{}, err
		}
	}
	if req.Published > 0 {
		if err := m.refusePublish(ctx, n); err != nil {
			return Endpoint{}, err
		}
	}
	ep.Changed, ep.Rev = m.now().UTC(), m.rev.Add(1)
	if err := m.enter(ctx, e, ep); err != nil {
		return Endpoint{}, err
	}
	if n.leases(ep) {
		return m.leased(ctx, e, ep, m.returned(e, ep))
	}
	return ep, nil
}

// newEndpoint checks the request against the network.
func newEndpoint(n Network, req EndpointRequest) (Endpoint, error) {
	var booked []netip.Addr
	if n.SelfWired() {
		booked, req.Addrs = bare(req.Addrs), nil
	}
	ipv6 := false
	for _, a := range req.Addrs {
		ipv6 = ipv6 || a.Addr().Is6()
	}
	att, err := ParseAttachment(req.Options, ipv6)
	if err != nil {
		return Endpoint{}, err
	}
	if err := checkAttachment(n, att); err != nil {
		return Endpoint{}, err
	}
	ep := Endpoint{
		ID: req.ID, Network: n.ID, MAC: req.MAC, Addrs: req.Addrs, Booked: booked,
		VLAN: att.VLAN, Trunk: att.Trunk, MTU: att.MTU, Secure: att.PortSecurity, ExternalIDs: att.ExternalIDs, Phase: PhaseCreated,
		ClientID: att.ClientID, OwnMAC: req.MAC != "", Observer: att.Observer,
	}
	if ep.MAC == "" {
		ep.MAC = macFor(n, ep).String()
		return ep, nil
	}
	mac, err := net.ParseMAC(ep.MAC)
	if err != nil || len(mac) != 6 || mac[0]&1 != 0 {
		return Endpoint{}, fmt.Errorf("--mac-address %q: allowed is a unicast MAC of 6 bytes, such as 02:42:ac:11:00:02", ep.MAC)
	}
	ep.MAC = mac.String()
	return ep, nil
}

// choose has the fabric choose the addresses of an endpoint for which Docker booked
// none. They stay booked for it until it is deleted, or found to be unknown.
func (m *Manager) choose(ctx context.Context, n Network, ep *Endpoint, deriveMAC bool) error {
	if err := m.fabric.Ready(ctx, n.Config); err != nil {
		return err
	}
	addrs, err := m.fabric.Choose(ctx, n, *ep)
	if err != nil {
		return err
	}
	ep.Addrs = addrs
	if deriveMAC {
		ep.MAC = macFor(n, *ep).String()
	}
	return nil
}

// checkAttachment refuses what this kind of network cannot do.
func checkAttachment(n Network, att Attachment) error {
	switch {
	case n.Config.OVN != nil && att.VLAN != nil:
		return fmt.Errorf("driver-opt vlan=%q: containers on a logical switch have no VLAN of their own; leave it out", vlanText(*att.VLAN))
	case n.Config.OVN != nil && att.Trunk != nil:
		return fmt.Errorf("driver-opt trunk=%q: containers on a logical switch have no VLAN of their own; leave it out", att.trunkText())
	case n.Config.OVN == nil && att.PortSecurity != nil && *att.PortSecurity:
		return errors.New("driver-opt port_security=\"true\": a plain Open vSwitch bridge does not have it yet; allowed is false")
	case !n.Config.DHCP && att.ClientID != "":
		return fmt.Errorf("driver-opt dhcp.client_id=%q: the driver asks for no lease on this network; it does with ipam=external and dhcp=true", att.ClientID)
	case att.Observer && att.ClientID != "":
		return fmt.Errorf("driver-opt dhcp.client_id=%q: an observer (mirror.dest=self) sends nothing, so no lease is asked for; leave out one of the two", att.ClientID)
	case att.Observer:
		return nil // its trunk says what is copied, not where it is
	}
	return checkTrunk(n, att)
}

// checkTrunk refuses a trunk that the options of the network and those of the
// attachment make only together.
func checkTrunk(n Network, att Attachment) error {
	ep := Endpoint{VLAN: att.VLAN, Trunk: att.Trunk}
	native, trunk := n.vlans(ep)
	if err := trunkFault(native, trunk); err != nil {
		if att.Trunk == nil {
			return fmt.Errorf("driver-opt vlan=%q: VLAN %d is in the trunk of the network (trunk=%s); allowed are others and none, or give trunk too", vlanText(native), native, trunk)
		}
		return fmt.Errorf("driver-opt trunk=%q: %w", att.trunkText(), err)
	}
	if n.Config.DHCP && native == 0 && len(trunk) > 0 {
		if att.Trunk == nil {
			return fmt.Errorf("driver-opt vlan=%q: %w", vlanText(native), errNoServer)
		}
		return fmt.Errorf("driver-opt trunk=%q: %w", att.trunkText(), errNoServer)
	}
	if len(trunk) == 0 && len(n.Config.Trunk) > 0 && n.Config.VLAN == 0 && att.VLAN == nil {
		return fmt.Errorf("driver-opt trunk=%q: %w", att.trunkText(), errNoNative)
	}
	return nil
}

// trunkText is the trunk as a user writes it.
func (a Attachment) trunkText() string {
	if len(*a.Trunk) == 0 {
		return "none"
	}
	return a.Trunk.String()
}

// enter occupies the segment, stores the endpoint and shows it, or does nothing.
func (m *Manager) enter(ctx context.Context, e *entry, ep Endpoint) error {
	n := e.value()
	evicted, err := m.occupy(n, ep)
	if err != nil {
		return err
	}
	defer m.entered(ep.ID)
	for _, id := range evicted {
		m.log.WarnContext(ctx, "removing an endpoint that Docker forgot", "nid", n.ID, "eid", id)
		old, _ := n.Endpoint(id)
		m.kill(e, id)
		m.abandonAddrs(n, old, n.bookedFor(ep))
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.gone || e.value().Phase != PhaseActive {
		m.vacate(n, ep)
		return errGone
	}
	end := m.disk(ctx)
	err = m.store.PutEndpoint(ep, true)
	end()
	if err == nil && ctx.Err() != nil {
		// The caller is gone and will not send DeleteEndpoint.
		err = errors.Join(context.Cause(ctx), m.store.DeleteEndpoint(ep))
	}
	if err != nil {
		m.vacate(n, ep)
		return fmt.Errorf("cannot store endpoint %s: %w", ep.ID.Short(), err)
	}
	n = e.value().WithEndpoint(ep)
	e.cur.Store(&n)
	return nil
}

// kill marks an endpoint deleting and leaves the rest to the repair loop.
func (m *Manager) kill(e *entry, id EndpointID) {
	n := e.value()
	if ep, ok := n.Endpoint(id); ok {
		m.condemnEndpoint(e, ep)
		m.repair.add(n.ID, 0)
	}
}

// JoinRequest is a Join call, decoded.
type JoinRequest struct {
	Network   ID
	ID        EndpointID
	Sandbox   string
	Published int  // ports that -p asks the container, not this endpoint, to publish
	Alone     bool // no other interface is seen in the sandbox
}

// Joined is what dockerd has to do with the link.
type Joined struct {
	Link           string // in dockerd's namespace; empty: nothing
	Gateway        netip.Addr
	Gateway6       netip.Addr
	Routes         []Route
	DisableGateway bool
}

// Route is one beside the default route.
type Route struct {
	To  netip.Prefix `json:"to"`
	Via netip.Addr   `json:"via,omitzero"` // invalid: its hosts are on the link
}

// Join makes the endpoint's port and returns when it is proved to work: the
// switch has taken it and the device is there. On an error the endpoint is
// removed again; dockerd may send Leave and DeleteEndpoint, which then find
// nothing to do.
func (m *Manager) Join(ctx context.Context, req JoinRequest) (Joined, error) {
	e, err := m.lookup(req.Network)
	if err != nil {
		return Joined{}, fmt.Errorf("cannot attach to network %s: %w", req.Network.Short(), err)
	}
	n := e.value()
	ep, ok := n.Endpoint(req.ID)
	if !ok || ep.Phase == PhaseDeleting {
		return Joined{}, fmt.Errorf("cannot attach to %s: endpoint %s is unknown or was removed", n.Title(), req.ID.Short())
	}
	if err := m.join(ctx, e, ep, req); err != nil {
		m.unjoin(ctx, e, ep)
		return Joined{}, fmt.Errorf("cannot attach endpoint %s to %s: %w", ep.ID.Short(), n.Title(), err)
	}
	var j Joined
	if n.SelfWired() {
		if err := m.wire(ctx, e, ep.ID); err != nil {
			m.unjoin(ctx, e, ep)
			return Joined{}, fmt.Errorf("cannot attach endpoint %s to %s: %w", ep.ID.Short(), n.Title(), err)
		}
	} else {
		_, j.Link = ep.ID.Links()
	}
	if n.Config.DHCP {
		m.keeper.poke()
		m.keeper6.poke()
	}
	if now, ok := e.value().Endpoint(ep.ID); ok && now.Lease != nil && j.Link != "" {
		j.Routes = slices.Clone(now.Lease.Routes)
		if n.Config.Gateway == GatewayExternal && !n.Config.Internal {
			var first []Route
			j.Gateway, first = now.Lease.gateway()
			j.Routes = append(first, j.Routes...)
		}
		m.joined6(n, now, &j)
	}
	switch {
	case n.Config.Internal:
	case n.Config.Gateway == GatewayNone, ep.Observer && n.Config.Gateway == GatewayExternal:
		j.DisableGateway = true
	case n.routed() && req.Published > 0:
		j.Routes = routesVia(n, m.fabric.Routes(n))
	case n.Config.Gateway == GatewayExternal:
		for _, s := range n.Subnets {
			if s.Gateway.Is4() {
				j.Gateway = s.Gateway
			} else {
				j.Gateway6 = s.Gateway
			}
		}
		j.DisableGateway = n.Config.IPAM == IPAMExternal && !j.Gateway.IsValid()
	}
	return j, nil
}

// routesVia has each destination reached over the gateway of its family.
func routesVia(n Network, to []netip.Prefix) (routes []Route) {
	for _, p := range to {
		for _, s := range n.Subnets {
			if s.Gateway.IsValid() && s.Gateway.Is4() == p.Addr().Is4() {
				routes = append(routes, Route{To: p, Via: s.Gateway})
			}
		}
	}
	return routes
}

func (m *Manager) join(ctx context.Context, e *entry, ep Endpoint, req JoinRequest) error {
	// An internal network hides -p from CreateEndpoint, so it is looked at here,
	// where dockerd names the ports of the whole container.
	if n := e.value(); n.Config.Internal && req.Published > 0 && req.Alone {
		if err := m.refusePublish(ctx, n); err != nil {
			return err
		}
	}
	err := m.changeEndpoint(e, ep.ID, func(ep *Endpoint) {
		if ep.Phase == PhaseCreated || ep.Phase == PhaseLeft {
			ep.Phase = PhaseJoining
		}
		ep.Sandbox, ep.Unsure = req.Sandbox, false
	})
	if err != nil {
		return err
	}
	if err := m.fabric.Ready(ctx, e.value().Config); err != nil {
		return err
	}
	if err := m.applyFor(ctx, e, ep.ID); err != nil {
		return err
	}
	if err := m.fabric.Await(ctx, e.value(), ep.ID); err != nil {
		return err
	}
	return m.changeEndpoint(e, ep.ID, func(ep *Endpoint) {
		if ep.Phase == PhaseJoining {
			ep.Phase = PhaseJoined
		}
	})
}

// unjoin takes back a Join that failed: at once if the fabric is there, else
// the tombstone waits for it.
func (m *Manager) unjoin(ctx context.Context, e *entry, ep Endpoint) {
	if now, ok := e.value().Endpoint(ep.ID); ok && now.Phase != PhaseDeleting {
		m.giveBack(e.value(), now) // while its port is there
	}
	m.kill(e, ep.ID)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if err := m.applyFor(ctx, e, ep.ID); err != nil && !errors.Is(err, ErrLingering) {
		m.log.WarnContext(ctx, "rollback goes on in the background", "nid", ep.Network, "eid", ep.ID, "err", err)
	}
}

// Leave says that the container goes; its link is still inside. What has to be
// done is done by DeleteEndpoint, which follows. Unknown is success.
func (m *Manager) Leave(_ context.Context, id ID, eid EndpointID) error {
	e := m.entry(id)
	if e == nil {
		return nil
	}
	if ep, ok := e.value().Endpoint(eid); ok && ep.Phase == PhaseJoined {
		m.giveBack(e.value(), ep)
	}
	return m.changeEndpoint(e, eid, func(ep *Endpoint) {
		if ep.Phase == PhaseJoined || ep.Phase == PhaseJoining {
			ep.Phase = PhaseLeft
			ep.Sandbox = ""
		}
	})
}

// DeleteEndpoint removes an endpoint. It no longer has a port when this returns;
// its link, for which the kernel takes its time, may linger for a moment.
// Unknown is success. Docker ignores an error of this call and gives the address
// away, so what cannot be finished now becomes the repair loop's work.
func (m *Manager) DeleteEndpoint(ctx context.Context, id ID, eid EndpointID) error {
	e := m.entry(id)
	if e == nil {
		return nil
	}
	m.asking.stop(ctx, eid)
	n := e.value()
	if ep, ok := n.Endpoint(eid); ok {
		if ep.Phase == PhaseParting {
			return nil // asked again: the last process died when it had done this
		}
		if ep.Phase == PhaseJoining || ep.Phase == PhaseCreated { // else Leave did it
			m.giveBack(n, ep)
		}
		if !m.part(e, ep) {
			m.condemnEndpoint(e, ep)
		}
	} else {
		m.condemnDamaged(e, func(d Damage) bool { return d.Endpoint == eid })
	}
	if _, ok := e.value().Endpoints[eid]; !ok {
		return nil
	}
	if err := m.applyFor(ctx, e, eid); err != nil && !errors.Is(err, ErrLingering) {
		m.log.WarnContext(ctx, "endpoint removal goes on in the background", "nid", id, "eid", eid, "err", err)
		m.repair.add(id, time.Second)
	}
	return nil
}
