package network

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// CreateRequest is a CreateNetwork call, decoded.
type CreateRequest struct {
	ID       ID
	Options  map[string]string
	Internal bool
	Subnets  []Subnet
}

// CreateNetwork makes a network: its record, then its bridge if that is
// missing. On an error nothing stays. The same request again, for a network
// that exists, is success.
func (m *Manager) CreateNetwork(ctx context.Context, req CreateRequest) error {
	cfg, err := ParseOptions(req.Options, req.Internal, req.Subnets)
	if err == nil {
		err = m.checkNames(cfg)
	}
	if err != nil {
		if faulty := m.fabric.CheckBridge(cfg.Bridge); faulty != nil && checkBridgeName(cfg.Bridge) == nil {
			err = fmt.Errorf("%w; %w", err, faulty)
		}
		return fmt.Errorf("cannot create network: %w", err)
	}
	var booked []Subnet
	if cfg.IPAM == IPAMExternal {
		booked, req.Subnets = req.Subnets, nil
	}
	if e := m.entry(req.ID); e != nil {
		switch n := e.value(); {
		case n.Phase == PhaseActive && slices.Equal(n.Subnets, req.Subnets) && slices.Equal(n.Booked, booked) && cfg.completedAs(n.Config):
			return nil
		case n.Phase != PhaseDeleting:
			return fmt.Errorf("cannot create network: network %s exists already, with other settings", req.ID.Short())
		}
		// Docker asks again because we died half-way. First that is undone.
		if err := m.finishNetwork(ctx, e); err != nil {
			return fmt.Errorf("cannot create network: what is left of a try before cannot be removed: %w", err)
		}
	}
	if err := m.fabric.Ready(ctx, cfg); err != nil {
		return fmt.Errorf("cannot create network: %w", err)
	}
	e, err := m.reserve(req, cfg, booked)
	if err != nil {
		return fmt.Errorf("cannot create network: %w", err)
	}
	if err := m.establish(ctx, e); err != nil {
		m.abandon(ctx, e)
		return fmt.Errorf("cannot create network: %w", err)
	}
	n := e.value()
	m.log.InfoContext(ctx, "network created", "nid", n.ID, "options", n.Config.String(), "owns_bridge", n.OwnsBridge)
	return nil
}

// reserve plans the network and enters it, so that no other create can be given
// the same VLAN or an overlapping subnet.
func (m *Manager) reserve(req CreateRequest, cfg Config, booked []Subnet) (*entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	others := m.networksLocked()
	n := Network{
		ID: req.ID, Config: cfg, Subnets: req.Subnets, Booked: booked, Phase: PhaseCreating, Created: m.now().UTC(), Rev: m.rev.Add(1),
		Engine: m.engine(), // that calls, and is followed beside
	}
	plan, err := m.fabric.Plan(n, m.withEntering(others))
	if err != nil {
		return nil, err
	}
	n.Config, n.OwnsBridge = plan.Config, plan.OwnsBridge
	if err := checkOverlap(n, others); err != nil {
		return nil, err
	}
	if _, exists := m.networks[n.ID]; exists {
		return nil, fmt.Errorf("network %s is being created already", n.ID.Short())
	}
	e := newEntry(n)
	m.networks[n.ID] = e
	return e, nil
}

// establish stores the network, makes it real and only then active.
func (m *Manager) establish(ctx context.Context, e *entry) error {
	// Not synced: after a power cut a creating network is undone anyway.
	if err := m.changeNetwork(e, false, func(*Network) {}); err != nil {
		return err
	}
	n := e.value()
	enforced := len(n.Subnets) > 0 && n.Config.IPAM == IPAMStatic
	for _, s := range n.Subnets {
		claimed, err := m.pools.Claim(n.ID, s, n.Config.IPAM == IPAMStatic)
		if err != nil {
			return err
		}
		enforced = enforced && claimed
	}
	for _, s := range n.Booked {
		claimed, err := m.pools.Claim(n.ID, s, false)
		if err == nil && claimed && !n.Config.DHCP {
			err = fmt.Errorf("option ipam=%q: --ipam-driver %s books addresses that no container would get; give --ipam-driver null, or dhcp=true too", n.Config.IPAM, Owner)
		}
		if err != nil {
			return err
		}
	}
	if err := m.apply(ctx, e); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("the caller gave up: %w", err)
	}
	end := m.disk(ctx)
	err := m.changeNetwork(e, true, func(n *Network) {
		if n.Phase == PhaseCreating {
			n.Phase, n.Enforced = PhaseActive, enforced
		}
	})
	end()
	if err == nil && e.value().Phase != PhaseActive {
		err = errGone
	}
	return err
}

// undoTimeout bounds how long a call that failed goes on undoing what it did.
const undoTimeout = 2 * time.Second

// abandon undoes a network that could not be established. What cannot be undone
// now stays as a tombstone for the repair loop.
func (m *Manager) abandon(ctx context.Context, e *entry) {
	m.condemnNetwork(e)
	// Also when the caller has given up.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if err := m.finishNetwork(ctx, e); err != nil && !errors.Is(err, ErrLingering) {
		m.log.WarnContext(ctx, "left for the repair loop", "nid", e.value().ID, "err", err)
		m.repair.add(e.value().ID, time.Second)
	}
}

// DeleteNetwork removes a network with what is left of it. Unknown is success.
// Docker ignores an error of this call, so none is returned for what can be
// finished later: it becomes the repair loop's work.
func (m *Manager) DeleteNetwork(ctx context.Context, id ID) error {
	e := m.entry(id)
	if e == nil {
		if len(m.undamage(id, func(Damage) bool { return true })) > 0 {
			return m.store.DeleteNetwork(id) // Prune no longer spares its ports
		}
		return nil
	}
	m.condemnNetwork(e)
	if err := m.finishNetwork(ctx, e); err != nil && !errors.Is(err, ErrLingering) {
		m.log.WarnContext(ctx, "network removal goes on in the background", "nid", id, "err", err)
		m.repair.add(id, time.Second)
	}
	return nil
}

// finishNetwork takes away all that a deleting network has, its record last, and
// forgets it. Several calls at once come one after the other: the id may be
// used again when the first of them returns.
func (m *Manager) finishNetwork(ctx context.Context, e *entry) error {
	select {
	case e.finishing <- struct{}{}:
		defer func() { <-e.finishing }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if e.isGone() {
		return nil
	}
	m.condemnDamaged(e, func(Damage) bool { return true })
	n := e.value()
	for _, ep := range n.SortedEndpoints() {
		m.condemnEndpoint(e, ep)
	}
	// With no endpoint too: an Apply that a caller gave up may still be making
	// the bridge.
	if err := m.apply(ctx, e); err != nil {
		return err
	}
	if err := m.fabric.Remove(ctx, e.value(), m.bridgeInUse(n)); err != nil {
		return err
	}
	if err := m.pools.Unclaim(n.ID); err != nil {
		return err
	}
	end := m.disk(ctx)
	err := m.forget(e)
	end()
	if err != nil {
		return err
	}
	m.log.InfoContext(ctx, "network deleted", "nid", n.ID)
	return nil
}

// bridgeInUse tells whether a network that stays uses the bridge of n, or may
// use it: the record of a network could not be read.
func (m *Manager) bridgeInUse(n Network) bool {
	for _, d := range m.Damaged() {
		if d.Endpoint == "" {
			return true
		}
	}
	return slices.ContainsFunc(m.Networks(), func(o Network) bool {
		return o.ID != n.ID && o.Phase != PhaseDeleting && o.Config.Bridge == n.Config.Bridge
	})
}

// checkOverlap refuses a subnet that overlaps one of another network in the
// same broadcast domain: hosts there would answer for each other.
func checkOverlap(n Network, others []Network) error {
	for _, o := range others {
		if o.Phase == PhaseDeleting || o.segment() != n.segment() || n.Config.OVN != nil {
			continue // a logical switch has one subnet for all its networks
		}
		for _, a := range n.Subnets {
			for _, b := range o.Subnets {
				if a.Prefix.Overlaps(b.Prefix) {
					return fmt.Errorf("--subnet %s overlaps %s of %s in the same segment (%s): choose another subnet or vlan",
						a.Prefix, b.Prefix, o.Title(), n.segment())
				}
			}
		}
	}
	return nil
}
