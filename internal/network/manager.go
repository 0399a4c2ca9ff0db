package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Pools is what the manager asks of our own IPAM driver: to know which of its
// pools a network uses, since IPAM calls carry no network id.
type Pools interface {
	// Claim ties the pool behind s to the network. False when the subnet is not
	// of a pool of ours.
	Claim(id ID, s Subnet, static bool) (bool, error)
	// Unclaim undoes it; unknown is success.
	Unclaim(id ID) error
	// Entered tells that an endpoint of the network is being created, for which
	// addresses were booked.
	Entered(id ID)
	// Abandon frees the addresses of an endpoint that Docker gave up without
	// telling: it will not release them either.
	Abandon(id ID, addrs []netip.Addr) error
}

// Manager owns all networks. Its methods are called by many goroutines at once;
// networks never wait for each other.
type Manager struct {
	fabric Fabric
	store  Store
	pools  Pools
	log    *slog.Logger
	now    func() time.Time
	alive  func(sandbox string) (alive, known bool)

	mu       sync.Mutex // guards the following; held for no I/O
	damaged  []Damage
	networks map[ID]*entry
	segments map[segment]map[any]holder

	waiting watched                     // containers that may start next
	docker  atomic.Pointer[map[ID]bool] // the networks Docker listed last, nil before

	rev    atomic.Uint64  // the last revision given to a network or an endpoint
	rounds sync.WaitGroup // the goroutines that run Apply
	repair repairQueue
}

// Options are the parts a Manager works with. All are required but Now.
type Options struct {
	Fabric Fabric
	Store  Store
	Pools  Pools
	Log    *slog.Logger
	Now    func() time.Time // time.Now if nil

	Damaged []Damage // what the store could not read

	// SandboxAlive tells whether the network namespace at a sandbox path still
	// exists. known is false when that cannot be seen from here.
	SandboxAlive func(path string) (alive, known bool)
}

// entry is one network. cur is replaced as a whole under mu, together with its
// record in the store, and read without a lock.
type entry struct {
	mu  sync.Mutex
	cur atomic.Pointer[Network]

	roundMu sync.Mutex // guards the two below
	running bool
	next    *round
}

func (e *entry) value() Network { return *e.cur.Load() }

// NewManager makes a Manager of what the store held. Call Run to have it repair.
func NewManager(o Options, loaded []Network) *Manager {
	if o.Now == nil {
		o.Now = time.Now
	}
	m := &Manager{
		fabric: o.Fabric, store: o.Store, pools: o.Pools, log: o.Log, now: o.Now, alive: o.SandboxAlive,
		damaged:  o.Damaged,
		networks: make(map[ID]*entry, len(loaded)),
		segments: make(map[segment]map[any]holder),
	}
	m.repair.init()
	m.waiting.init()
	for _, n := range loaded {
		n.Rev = m.rev.Add(1)
		// What was being made when the last process died is undone: Docker was
		// told that it failed. Its records need no change for that, they would be
		// read the same way once more.
		if n.Phase == PhaseCreating {
			n.Phase = PhaseDeleting
			m.log.Info("undoing an interrupted network create", "nid", n.ID)
		}
		for id, ep := range n.Endpoints {
			ep.Rev = m.rev.Add(1)
			if ep.Phase == PhaseJoining {
				ep.Phase = PhaseDeleting
				m.abandonAddrs(n.ID, ep)
				m.log.Info("undoing an interrupted attachment", "nid", n.ID, "eid", id)
			}
			n.Endpoints[id] = ep
			if ep.Phase != PhaseDeleting {
				m.occupyLocked(n, ep)
			}
		}
		m.networks[n.ID] = newEntry(n)
		m.repair.add(n.ID, 0)
	}
	return m
}

func newEntry(n Network) *entry {
	e := &entry{}
	e.cur.Store(&n)
	return e
}

func (m *Manager) entry(id ID) *entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.networks[id]
}

// Networks returns all networks, ordered by creation.
func (m *Manager) Networks() []Network {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.networksLocked()
}

func (m *Manager) networksLocked() []Network {
	all := make([]Network, 0, len(m.networks))
	for _, e := range m.networks {
		all = append(all, e.value())
	}
	slices.SortFunc(all, func(a, b Network) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return compare(a.ID, b.ID)
	})
	return all
}

// lookup returns the network, or an error for the person who asked for it.
func (m *Manager) lookup(id ID) (*entry, error) {
	if e := m.entry(id); e != nil {
		return e, nil
	}
	for _, d := range m.Damaged() {
		if d.Network == id && d.Endpoint == "" {
			return nil, fmt.Errorf("its record %s cannot be read: %w", d.Path, d.Err)
		}
	}
	return nil, errors.New("this driver does not know the network: its state directory was removed or belongs to another host; remove the network and create it again")
}

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
	if err != nil {
		if faulty := m.fabric.CheckBridge(cfg.Bridge); faulty != nil && checkBridgeName(cfg.Bridge) == nil {
			err = fmt.Errorf("%w; %w", err, faulty)
		}
		return fmt.Errorf("cannot create network: %w", err)
	}
	if e := m.entry(req.ID); e != nil {
		if n := e.value(); n.Phase == PhaseActive && slices.Equal(n.Subnets, req.Subnets) && cfg.completedAs(n.Config) {
			return nil
		}
		return fmt.Errorf("cannot create network: network %s exists already, with other settings or half removed", req.ID.Short())
	}
	if err := m.fabric.Ready(ctx); err != nil {
		return fmt.Errorf("cannot create network: %w", err)
	}
	e, err := m.reserve(req, cfg)
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
func (m *Manager) reserve(req CreateRequest, cfg Config) (*entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	others := m.networksLocked()
	plan, err := m.fabric.Plan(cfg, others)
	if err != nil {
		return nil, err
	}
	n := Network{
		ID: req.ID, Config: plan.Config, OwnsBridge: plan.OwnsBridge,
		Subnets: req.Subnets, Phase: PhaseCreating, Created: m.now().UTC(), Rev: m.rev.Add(1),
	}
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
	n := e.value()
	// Not synced: after a power cut a creating network is undone anyway.
	if err := m.store.PutNetwork(n, false); err != nil {
		return err
	}
	enforced := len(n.Subnets) > 0 && n.Config.IPAM == IPAMStatic
	for _, s := range n.Subnets {
		claimed, err := m.pools.Claim(n.ID, s, n.Config.IPAM == IPAMStatic)
		if err != nil {
			return err
		}
		enforced = enforced && claimed
	}
	if err := m.apply(ctx, e); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("the caller gave up: %w", err)
	}
	return m.changeNetwork(e, true, func(n *Network) { n.Phase, n.Enforced = PhaseActive, enforced })
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

// finishNetwork takes away all that a deleting network has, and its record last.
func (m *Manager) finishNetwork(ctx context.Context, e *entry) error {
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
	if err := m.store.DeleteNetwork(n.ID); err != nil {
		return err
	}
	m.log.InfoContext(ctx, "network deleted", "nid", n.ID)
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.networks, n.ID)
	return nil
}

// Damaged returns the records that could not be read at start.
func (m *Manager) Damaged() []Damage {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.damaged)
}

// undamage forgets the damaged records of a network that match, because Docker
// has said that what they describe is gone, and returns them.
func (m *Manager) undamage(id ID, match func(Damage) bool) (found []Damage) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.damaged = slices.DeleteFunc(m.damaged, func(d Damage) bool {
		gone := d.Network == id && match(d)
		if gone {
			found = append(found, d)
		}
		return gone
	})
	return found
}

// condemnDamaged makes tombstones of endpoints whose records cannot be read:
// the names of port and link follow from the id alone.
func (m *Manager) condemnDamaged(e *entry, match func(Damage) bool) {
	found := m.undamage(e.value().ID, func(d Damage) bool { return d.Endpoint != "" && match(d) })
	e.mu.Lock()
	defer e.mu.Unlock()
	n := e.value()
	for _, d := range found {
		n = n.WithEndpoint(Endpoint{
			ID: d.Endpoint, Network: n.ID, Phase: PhaseDeleting, Changed: m.now().UTC(), Rev: m.rev.Add(1),
		})
	}
	e.cur.Store(&n)
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

// changeNetwork replaces the value of e and its record. On a store error
// nothing has changed.
func (m *Manager) changeNetwork(e *entry, sync bool, change func(*Network)) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := e.value()
	change(&n)
	n.Rev = m.rev.Add(1)
	if err := m.store.PutNetwork(n, sync); err != nil {
		return fmt.Errorf("cannot store network %s: %w", n.ID.Short(), err)
	}
	e.cur.Store(&n)
	return nil
}

// condemnNetwork makes the network a tombstone. That does not depend on the
// store: nothing may stay because a disk is full. Without the record, it is
// only not remembered by the next process that the network was to go.
func (m *Manager) condemnNetwork(e *entry) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := e.value()
	n.Phase, n.Rev = PhaseDeleting, m.rev.Add(1)
	if err := m.store.PutNetwork(n, false); err != nil {
		m.log.Warn("cannot record that a network is being removed", "nid", n.ID, "err", err)
	}
	e.cur.Store(&n)
}

// changeEndpoint replaces one endpoint of e and its record. Absent is success.
// On a store error nothing has changed.
func (m *Manager) changeEndpoint(e *entry, id EndpointID, change func(*Endpoint)) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := e.value()
	ep, ok := n.Endpoints[id]
	if !ok {
		return nil
	}
	before := ep.Phase
	change(&ep)
	if ep.Phase != before {
		ep.Changed = m.now().UTC()
	}
	ep.Rev = m.rev.Add(1)
	// Not synced: a power cut ends the container, and with it all that can
	// change of an endpoint after it was entered.
	if err := m.store.PutEndpoint(ep, false); err != nil {
		return fmt.Errorf("cannot store endpoint %s: %w", id.Short(), err)
	}
	n = n.WithEndpoint(ep)
	e.cur.Store(&n)
	return nil
}

// condemnEndpoint makes the endpoint a tombstone and gives back what it
// occupies, as condemnNetwork does. Absent and twice are harmless.
func (m *Manager) condemnEndpoint(e *entry, ep Endpoint) {
	m.vacate(e.value(), ep)
	e.mu.Lock()
	defer e.mu.Unlock()
	n := e.value()
	ep, ok := n.Endpoints[ep.ID]
	if !ok || ep.Phase == PhaseDeleting {
		return
	}
	ep.Phase, ep.Changed, ep.Rev = PhaseDeleting, m.now().UTC(), m.rev.Add(1)
	if err := m.store.PutEndpoint(ep, false); err != nil {
		m.log.Warn("cannot record that an endpoint is being removed", "nid", n.ID, "eid", ep.ID, "err", err)
	}
	n = n.WithEndpoint(ep)
	e.cur.Store(&n)
}

// dropEndpoint forgets an endpoint of which nothing is left.
func (m *Manager) dropEndpoint(e *entry, ep Endpoint) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := m.store.DeleteEndpoint(ep); err != nil {
		return fmt.Errorf("cannot remove the record of endpoint %s: %w", ep.ID.Short(), err)
	}
	n := e.value().WithoutEndpoint(ep.ID)
	e.cur.Store(&n)
	return nil
}

// checkOverlap refuses a subnet that overlaps one of another network in the
// same broadcast domain: hosts there would answer for each other.
func checkOverlap(n Network, others []Network) error {
	for _, o := range others {
		if o.Phase == PhaseDeleting || o.Config.Bridge != n.Config.Bridge || o.Config.VLAN != n.Config.VLAN {
			continue
		}
		for _, a := range n.Subnets {
			for _, b := range o.Subnets {
				if a.Prefix.Overlaps(b.Prefix) {
					return fmt.Errorf("--subnet %s overlaps %s of %s in the same segment (bridge %s, vlan %s): choose another subnet or vlan",
						a.Prefix, b.Prefix, o.Title(), n.Config.Bridge, n.Config.VLANText())
				}
			}
		}
	}
	return nil
}

// Annotate records what Docker's events told of a network and its endpoints:
// names and container ids. Unknown ids are ignored, equal values write nothing.
func (m *Manager) Annotate(id ID, name string, eps map[EndpointID]Container) error {
	e := m.entry(id)
	if e == nil {
		return nil
	}
	n := e.value()
	changed := false
	if name != "" && n.Name != name {
		changed = true
		if err := m.changeNetwork(e, false, func(n *Network) { n.Name = name }); err != nil {
			return err
		}
	}
	for eid, c := range eps {
		ep, ok := n.Endpoints[eid]
		if !ok || ep.Phase == PhaseDeleting || ep.ContainerID == c.ID && ep.ContainerName == c.Name {
			continue
		}
		changed = true
		err := m.changeEndpoint(e, eid, func(ep *Endpoint) { ep.ContainerID, ep.ContainerName = c.ID, c.Name })
		if err != nil {
			return err
		}
	}
	if changed {
		m.repair.add(id, 0)
	}
	return nil
}

// Known takes a complete list of the networks that Docker has. One of ours that
// is missing is only reported: Docker may run on another data directory today.
func (m *Manager) Known(ids map[ID]bool) { m.docker.Store(&ids) }

// forgotten tells whether Docker does not have the network any more. Networks
// that are younger than the list cannot be told, nor can those of a swarm, which
// Docker leaves out when it does not reach its managers.
func (m *Manager) forgotten(n Network) bool {
	listed := m.docker.Load()
	return listed != nil && !(*listed)[n.ID] && len(n.ID) == 64 && m.now().Sub(n.Created) > safetyNet+time.Minute
}

// Container is who uses an endpoint.
type Container struct{ ID, Name string }

// abandonAddrs frees the addresses of an endpoint that Docker forgot.
func (m *Manager) abandonAddrs(id ID, ep Endpoint) {
	if err := m.pools.Abandon(id, addrsOf(ep)); err != nil {
		m.log.Warn("cannot free addresses", "nid", id, "eid", ep.ID, "err", err)
	}
}

// Uses tells whether a living endpoint of the network has the address.
func (m *Manager) Uses(id ID, addr netip.Addr) bool {
	e := m.entry(id)
	if e == nil {
		return false
	}
	for _, ep := range e.value().Endpoints {
		if ep.Phase != PhaseDeleting && ep.Phase != PhaseLeft && slices.Contains(addrsOf(ep), addr) {
			return true
		}
	}
	return false
}

// addrsOf returns the bare addresses of an endpoint.
func addrsOf(ep Endpoint) []netip.Addr {
	addrs := make([]netip.Addr, 0, len(ep.Addrs))
	for _, p := range ep.Addrs {
		addrs = append(addrs, p.Addr())
	}
	return addrs
}

// Has tells whether a network is known.
func (m *Manager) Has(id ID) bool { return m.entry(id) != nil }
