package network

import (
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
	// Forget releases the pools of a network that Docker removed without telling.
	Forget(id ID) error
	// Entered tells that an endpoint of the network is being created, for which addrs
	// were booked, and returns the name of the container for which our IPAM driver
	// booked them; empty if it was not told.
	Entered(id ID, addrs []netip.Addr) (container string)
	// Abandon frees the addresses of an endpoint that Docker gave up without
	// telling: it will not release them either.
	Abandon(id ID, addrs []netip.Addr) error
	// Audit frees the addresses that have been booked for no endpoint for a while.
	// used tells the addresses of a network's endpoints, if they can be told.
	Audit(used func(ID) (addrs map[netip.Addr]bool, known bool)) error
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
	inside Inside

	metrics *Metrics

	nameless bool // the containers have no names
	hostID   string

	mu       sync.Mutex // guards the following; held for no I/O
	damaged  []Damage
	missing  map[ID]time.Time // networks that Docker does not list, since when
	networks map[ID]*entry
	segments map[segment]map[any]holder
	entering map[EndpointID]Endpoint // admitted, and not shown yet

	docker  atomic.Pointer[string] // names the engine that dockerwatch follows
	waiting watched                // containers that may start next

	rev             atomic.Uint64  // the last revision given to a network or an endpoint
	rounds          sync.WaitGroup // the goroutines that run Apply
	repair          repairQueue
	wiring          wiring
	keeper, keeper6 keeper
	quiet6          quiet6
	asking          asking
	look            chan struct{} // capacity 1: leftovers are to be looked for soon

	failures failureLog
}

// Options are the parts a Manager works with. All are required but Now.
type Options struct {
	Fabric Fabric
	Store  Store
	Pools  Pools
	Log    *slog.Logger
	Now    func() time.Time // time.Now if nil

	Damaged []Damage // what the store could not read
	Metrics *Metrics // nil: nobody looks at them

	// HostID is this host's in its segments, and stays; part of what a DHCP server
	// knows containers by that have nothing but a name.
	HostID string
	// Nameless: nobody calls Annotate, so the containers have no names.
	Nameless bool

	// SandboxAlive tells whether the network namespace at a sandbox path still
	// exists. known is false when that cannot be seen from here.
	SandboxAlive func(path string) (alive, known bool)
	Inside       Inside // required for networks with ipam=external
}

// entry is one network. cur is replaced as a whole under mu, together with its
// record in the store, and read without a lock.
type entry struct {
	mu   sync.Mutex
	cur  atomic.Pointer[Network]
	gone bool // its record was removed and must not come back

	finishing chan struct{} // capacity 1: held by who takes the network away

	roundMu sync.Mutex // guards the two below
	running bool
	next    *round

	outside Stopwatch // what the rounds wait for
}

func (e *entry) value() Network { return *e.cur.Load() }

// NewManager makes a Manager of what the store held. Call Run to have it repair.
func NewManager(o Options, loaded []Network) *Manager {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics()
	}
	m := &Manager{
		fabric: o.Fabric, store: o.Store, pools: o.Pools, log: o.Log, now: o.Now, alive: o.SandboxAlive, inside: o.Inside,
		damaged: o.Damaged, metrics: o.Metrics, nameless: o.Nameless, hostID: o.HostID,
		networks: make(map[ID]*entry, len(loaded)),
		missing:  make(map[ID]time.Time),
		look:     make(chan struct{}, 1),
		segments: make(map[segment]map[any]holder),
		entering: make(map[EndpointID]Endpoint),
	}
	m.repair.init()
	m.failures.last, m.failures.count = make(map[ID]error), make(map[ID]int)
	m.waiting.init()
	m.wiring.init()
	m.keeper.init(dueFor, m.tend)
	m.keeper6.init(dueFor6, m.keepLease6)
	for _, n := range loaded {
		n.Rev = m.rev.Add(1)
		// What was being made when the last process died is undone: Docker was
		// told that it failed. Its records need no change for that, they would be
		// read the same way once more.
		if n.Phase == PhaseCreating {
			n.Phase = PhaseDeleting
			m.log.Info("undoing an interrupted network create", "nid", n.ID)
		}
		for id, stored := range n.Endpoints {
			ep := *stored
			ep.Rev = m.rev.Add(1)
			if ep.Phase == PhaseJoining && !ep.Release.IsZero() {
				ep.Phase, ep.Addrs = PhaseParting, nil // its lease was being given back
			}
			if ep.Phase == PhaseJoining {
				// Docker asks again for half a minute, and then gives it up.
				ep.Phase = PhaseCreated
				m.log.Info("an attachment was interrupted", "nid", n.ID, "eid", id)
			}
			if ep.Phase == PhaseLeft {
				ep.Phase = PhaseDeleting
				m.abandonAddrs(n, ep, nil)
			}
			ep.Unsure = ep.Phase == PhaseCreated
			n.Endpoints[id] = &ep
			if ep.Phase != PhaseDeleting && ep.Phase != PhaseParting {
				m.occupyLocked(n, ep)
			}
			if ep.Phase == PhaseJoined && n.SelfWired() {
				m.wiring.add(n.ID, ep.ID, m.now())
			}
		}
		m.networks[n.ID] = newEntry(n)
		m.repair.add(n.ID, 0)
	}
	return m
}

func newEntry(n Network) *entry {
	e := &entry{finishing: make(chan struct{}, 1)}
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

// Count returns the number of networks and of their endpoints.
func (m *Manager) Count() (networks, endpoints int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.networks {
		endpoints += len(e.value().Endpoints)
	}
	return len(m.networks), endpoints
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
