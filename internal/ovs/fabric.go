package ovs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ovs-container-network/ovs-container-network/internal/link"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// Fabric implements network.Fabric on the Open vSwitch of this host.
type Fabric struct {
	db      *ovsdb.DB
	metrics *network.Metrics
	links   *link.Kernel
	log     *slog.Logger
	dirty   func(...network.ID)

	// Step, if set before Run, is told what has just been done. Tests end the
	// process there.
	Step func(what string)

	rooted atomic.Bool // the database was seen initialised
	served atomic.Bool // ovs-vswitchd was seen taking a change
	silent atomic.Bool // ovs-vswitchd let the last wait run out

	settled *network.Settled
	suspect network.Suspects

	known  chan struct{} // closed after the first listing of links
	reaper chan struct{} // capacity 1: there is something in doomed

	mu      sync.Mutex           // guards the following
	doomed  map[string]doomed    // links to be removed, by name
	bridges map[string]time.Time // removed bridges, with the time to look for their device
	devices map[string]device
	awaited map[network.ID]string // ports of others that mirrors want to use
	looked  map[network.ID]string // see lagging
	now     func() time.Time      // of Prune
	shaken  time.Time             // when everything was last taken for unsettled by Prune
}

// device is what is known of one end of our links from link events, of the
// container's end only while it is in this namespace.
type device struct{ up, offloaded bool }

// New makes a Fabric for the database at endpoint (unix:/path). dirty is told
// of networks whose reality changed, none meaning all; it must be quick.
func New(endpoint string, links *link.Kernel, log *slog.Logger, dirty func(...network.ID)) (*Fabric, error) {
	f := &Fabric{
		links: links, log: log, dirty: dirty,
		known:   make(chan struct{}),
		reaper:  make(chan struct{}, 1),
		doomed:  make(map[string]doomed),
		bridges: make(map[string]time.Time),
		devices: make(map[string]device),
		awaited: make(map[network.ID]string),
		looked:  make(map[network.ID]string),
		settled: network.NewSettled(),
		now:     time.Now,
	}
	db, err := ovsdb.New(ovsdb.Config{
		Remote: ovsdb.At(endpoint), Database: "Open_vSwitch", Tables: tables(), Log: log,
		Changed: f.rowChanged, Synced: f.synced,
	})
	f.db = db
	return f, err
}

// Run keeps the connection to the database and follows the links until ctx ends.
func (f *Fabric) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return f.db.Run(ctx) })
	g.Go(func() error { return f.runReaper(ctx) })
	g.Go(func() error { return f.runShields(ctx) })
	g.Go(func() error {
		err := f.links.Watch(ctx, f.linkChanged)
		if ctx.Err() != nil {
			return nil
		}
		return err
	})
	return g.Wait()
}

// Measure has waits counted from now on. It is called before Run.
func (f *Fabric) Measure(m *network.Metrics) { f.metrics = m }

// Outside is network.Outside for a wait that is counted.
func (f *Fabric) Outside(ctx context.Context, what string) (end func()) {
	stop, start := network.Outside(ctx), time.Now()
	return func() {
		stop()
		if f.metrics != nil {
			f.metrics.Waits.WithLabelValues(what).Observe(time.Since(start).Seconds())
		}
	}
}

// write makes a change in the database; see ovsdb.DB.Commit.
func (f *Fabric) write(ctx context.Context, ops []ovsdb.Operation, seal *ovsdb.Seal) ([]ovsdb.Result, error) {
	defer f.Outside(ctx, network.ForOVSDB)()
	return f.db.Commit(ctx, ops, seal)
}

// State tells whether the database is reached, since when, and if not, why.
func (f *Fabric) State() (connected bool, since time.Time, err error) { return f.db.State() }

// Version is the version of Open vSwitch that its start script wrote down, empty
// if unknown.
func (f *Fabric) Version() string {
	v, err := f.db.View()
	if err != nil {
		return ""
	}
	if r := root(v); r != nil && r.Version != nil {
		return *r.Version
	}
	return ""
}

// Ready implements network.Fabric: the database answers and is initialised.
func (f *Fabric) Ready(ctx context.Context, _ network.Config) error {
	ctx, cancel := context.WithTimeout(ctx, f.db.Budget(f.rooted.Load()))
	defer cancel()
	end := network.Outside(ctx)
	err := f.db.Wait(ctx, func(v ovsdb.View) (bool, error) { return root(v) != nil, nil })
	end()
	if err == nil {
		select {
		case <-f.known:
		case <-ctx.Done():
			return errNotListed
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("database Open_vSwitch at %s is empty: Open vSwitch has not been started (ovs-vsctl init)", f.db.Endpoint())
	}
	if err != nil {
		return err
	}
	f.rooted.Store(true)
	return f.devicesGone(ctx)
}

// devicesGone waits until the devices of bridges that were just removed are gone,
// lest they be taken for somebody else's: ovs-vswitchd removes them in its own
// time, and what it leaves, the reaper does.
func (f *Fabric) devicesGone(ctx context.Context) error {
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		f.mu.Lock()
		names := slices.Collect(maps.Keys(f.bridges))
		f.mu.Unlock()
		v, err := f.db.View()
		if err != nil {
			return err
		}
		left := false
		for _, name := range names {
			if findBridge(v, name) != nil {
				continue // made again
			}
			_, there, err := f.links.Get(name)
			if err != nil {
				return err
			}
			left = left || there
		}
		if !left {
			return nil
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// step tells Step of what was done to n things, if to any.
func (f *Fabric) step(what string, n int) {
	if f.Step != nil && n > 0 {
		f.Step(what)
	}
}

// synced has everything looked at anew.
func (f *Fabric) synced() {
	f.settled.Clear()
	f.dirty()
}

// rowChanged turns changes of rows into repairs.
func (f *Fabric) rowChanged(old, row ovsdb.Row) {
	switch o := old.(type) {
	case *port:
		switch n, _ := row.(*port); {
		case n != nil || ours(o.ExternalIDs):
		case ourName(o.Name):
			f.dirty() // somebody who had the name of a port of ours gives it back
		default:
			f.dirty("") // it may have been the last on a bridge that nobody needs
		}
		f.touch(o.ExternalIDs)
	case *iface:
		n, _ := row.(*iface)
		if n == nil || deref(n.OFPort) < 0 || deref(n.Error) != deref(o.Error) || n.Type != o.Type || !sameIDs(n.ExternalIDs, o.ExternalIDs) {
			f.touch(o.ExternalIDs)
		}
	case *bridge:
		n, _ := row.(*bridge)
		if n == nil {
			f.settled.Clear()
			f.dirty()
			return
		}
		if deref(n.FailMode) != deref(o.FailMode) {
			f.dirty()
		}
		if len(n.Ports) >= len(o.Ports) && slices.Equal(n.Ports[:len(o.Ports)], o.Ports) {
			return // ports were only added
		}
		kept := make(map[string]bool, len(n.Ports))
		for _, uuid := range n.Ports {
			kept[uuid] = true
		}
		for _, uuid := range o.Ports {
			if !kept[uuid] {
				f.portMoved(uuid)
			}
		}
	case *mirror:
		f.mirrorChanged(o)
	case *openVSwitch:
		if n, _ := row.(*openVSwitch); n != nil && n.CurCfg != o.CurCfg {
			f.silent.Store(false)
			f.served.Store(true)
		}
	case nil:
		switch n := row.(type) {
		case *openVSwitch:
			f.synced()
		case *port:
			f.portAppeared(n)
		case *mirror:
			if n.ofOVN() { // ours come in an Apply
				f.mirrorChanged(n)
			}
		}
	}
}

// portMoved looks whether a port that left a bridge is on another one now.
func (f *Fabric) portMoved(uuid string) {
	if v, err := f.db.View(); err == nil {
		if p, ok := ovsdb.Find(v, &port{UUID: uuid}); ok {
			f.touch(p.ExternalIDs)
		}
	}
}

// touch has the endpoint that owns a row, or a device, looked at again.
func (f *Fabric) touch(ids map[string]string) {
	if !ours(ids) {
		return
	}
	f.settled.Touch(network.EndpointID(ids[network.KeyEndpointID]))
	f.dirty(network.ID(ids[network.KeyNetworkID]))
}

// listTries bounds how often links are listed until it works: a listing fails
// when links change faster than it reads.
const listTries = 20

// linkChanged keeps devices and turns the loss of one into a repair.
func (f *Fabric) linkChanged(e link.Event) {
	if e.Overflow {
		// Here and not elsewhere: events that come meanwhile are newer and wait.
		for try := 1; ; try++ {
			err := f.listLinks()
			if err == nil {
				break
			}
			f.log.Warn("cannot list links", "err", err, "try", try)
			if try == listTries {
				return
			}
		}
		f.synced()
		return
	}
	if !ourName(e.Name) {
		return
	}
	f.mu.Lock()
	before, known := f.devices[e.Name]
	if e.Gone {
		delete(f.devices, e.Name)
		if _, ours := f.doomed[e.Name]; known && !ours && strings.HasPrefix(e.Name, network.LinkPrefix) {
			// Its shield does not go with it (on kernels from 6.16 on).
			f.doomed[e.Name] = doomed{host: e.Name, alias: e.Alias}
			f.wakeReaper()
		}
	} else {
		f.devices[e.Name] = device{up: e.Up, offloaded: e.Offloaded}
	}
	f.mu.Unlock()
	if !known || !e.Gone && (e.Up || !before.up) {
		return
	}
	if v, err := f.db.View(); err == nil {
		if p := findPort(v, e.Name); p != nil {
			f.touch(p.ExternalIDs)
		}
	}
}

func (f *Fabric) listLinks() error {
	all, err := f.links.List()
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-f.known:
	default:
		close(f.known)
	}
	clear(f.devices)
	for _, l := range all {
		if ourName(l.Name) {
			f.devices[l.Name] = device{up: l.Up, offloaded: l.Offloaded()}
		}
	}
	return nil
}

// ourName tells whether a link may be an end of ours, by its name.
func ourName(name string) bool {
	return strings.HasPrefix(name, network.LinkPrefix) || strings.HasPrefix(name, network.PeerPrefix)
}

// allKnown tells whether links have been listed.
func (f *Fabric) allKnown() bool {
	select {
	case <-f.known:
		return true
	default:
		return false
	}
}

func (f *Fabric) deviceOf(name string) (device, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, ok := f.devices[name]
	return d, ok
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
