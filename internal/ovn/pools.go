package ovn

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/ipam"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// Pools are the address pools that hosts share: of each logical switch one of each
// family. All that Docker may count on is in the switch's book, where any host finds
// it; what is kept here is only who asks at this moment and what looks forgotten.
//
// The book of a switch holds of its pools, beside the entries of ports:
//
//	pool4, pool6         prefix
//	handle HANDLE        HOST NETWORK PREFIX RANGE MODE    what Docker calls a pool: the part of one network
//	ip ADDRESS           HANDLE HOST                       booked for a container
//	ip ADDRESS           gateway, or aux                   booked for all hosts
//	ref ADDRESS HANDLE   HOST                              one of those that booked it so
//
// Each host makes, changes and removes its own handles and bookings alone; a booking
// for all hosts goes with its last reference.
type Pools struct {
	f *Fabric
	// networks are those of this host; spares tells that one of which the record
	// cannot be read may be it.
	networks func() []network.Network
	spares   func(network.ID) bool

	mu    sync.Mutex             // guards the following; not held while the database is asked
	made  map[entry]mark         // entered by this process
	busy  map[entry]string       // addresses that are being booked, and for what, or freed
	last  map[string]netip.Addr  // by handle: the last address chosen
	begun map[network.ID][]entry // booked for an endpoint that is not created yet
	idle  map[entry]time.Time    // entries that nobody seems to need, and since when
	owed  map[entry]bool         // handles that Docker has given back
	auto  map[string]repeat      // by switch and family: answers to requests without --subnet
	now   func() time.Time       // time.Now but in tests
}

// entry names a pair in the book of a switch.
type entry struct{ sw, key string }

// mark says for which handle an entry was made, and when.
type mark struct {
	handle string
	at     time.Time
}

// repeat counts answers that Docker did not use.
type repeat struct {
	count int
	at    time.Time
}

const (
	// poolTime bounds a call of Docker, which itself gives up after 30 s.
	poolTime = 25 * time.Second
	// releaseTime bounds one whose work can be done later.
	releaseTime = 5 * time.Second
	// poolTries bounds how often something is tried again because another host was
	// quicker.
	poolTries = 50

	// maxRepeats is how many pools Docker is given in a row that it does not use. It
	// asks again, without end, while the answer overlaps a route of the host.
	maxRepeats = 8
	repeatTime = 10 * time.Second
)

// NewPools makes the pools of a Fabric.
func NewPools(f *Fabric, networks func() []network.Network, spares func(network.ID) bool) *Pools {
	return &Pools{
		f: f, networks: networks, spares: spares, now: time.Now,
		made: make(map[entry]mark), busy: make(map[entry]string), last: make(map[string]netip.Addr),
		begun: make(map[network.ID][]entry), idle: make(map[entry]time.Time), owed: make(map[entry]bool),
		auto: make(map[string]repeat),
	}
}

// Shared tells whether a pool is one of these.
func Shared(id ipam.PoolID) bool { return strings.HasPrefix(string(id), poolPrefix) }

// RequestPool answers a new part of the pool of a logical switch, for a network of
// this host. The pool has the prefix of the switch, else the one that it was given
// by the first who asked, else pool, else one that is chosen.
func (p *Pools) RequestPool(ctx context.Context, sw, pool, subPool string, v6 bool) (ipam.Pool, error) {
	if err := network.CheckSwitch(sw); err != nil {
		return ipam.Pool{}, fmt.Errorf("--ipam-opt %w", err)
	}
	if pool == "" && subPool != "" {
		return ipam.Pool{}, fmt.Errorf("--ip-range %s needs a --subnet that contains it", subPool)
	}
	ctx, cancel := context.WithTimeout(ctx, poolTime)
	defer cancel()
	h := handle{id: newHandle(), sw: sw, host: p.f.cfg.HostID}
	err := p.tries(ctx, sw, func(v ovsdb.View) (err error) {
		if h.prefix, err = p.prefix(v, sw, pool, v6); err != nil {
			return err
		}
		if _, h.within, err = ipam.ParseSubnet(h.prefix.String(), subPool, v6); err != nil {
			return err
		}
		if err := p.tired(h, pool == ""); err != nil {
			return err
		}
		if err = p.enroll(ctx, v, h); err != nil && !changed(err, "DHCP_Options") {
			p.owe(entry{sw, h.key()}) // it may be there all the same
			err = fmt.Errorf("cannot enter a pool of logical switch %s: %w", sw, err)
		}
		return err
	})
	if err != nil {
		return ipam.Pool{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.made[entry{sw, h.key()}] = mark{h.id, p.now()}
	r := p.auto[h.pair()]
	p.auto[h.pair()] = repeat{r.count + 1, p.now()}
	return h.pool(), nil
}

// tries does something with what the database holds, again if that changed
// meanwhile.
func (p *Pools) tries(ctx context.Context, sw string, do func(v ovsdb.View) error) error {
	p.f.start()
	end := network.Outside(ctx)
	err := p.f.nb.Ready(ctx)
	end()
	if err != nil {
		return err
	}
	for range poolTries {
		v, err := p.f.nb.View()
		if err != nil {
			return err
		}
		if err := do(v); err == nil || !changed(err, "DHCP_Options") {
			return err
		}
	}
	return fmt.Errorf("the pool of logical switch %s cannot be changed: other hosts change it all the time", sw)
}

// enroll enters a handle with the prefix of its pool into the book of the switch,
// which it makes if it is missing.
func (p *Pools) enroll(ctx context.Context, v ovsdb.View, h handle) error {
	pairs := map[string]string{familyKey(h.prefix.Addr().Is6()): h.prefix.String(), h.key(): h.value()}
	b := findBook(v, h.sw)
	// What a view shows goes on changing: the prefix may be another by now.
	if has, err := p.known(v, h.sw, h.prefix.Addr().Is6()); err != nil || has.IsValid() && has != h.prefix {
		return cmp.Or(err, errOther)
	}
	if b == nil {
		return p.f.write(ctx, newBook(h.sw, pairs))[0]
	}
	return p.f.write(ctx, replace(b, pairs))[0]
}

// errOther is of a pool whose prefix another host has recorded in this moment, as the
// database itself would refuse it.
var errOther error = &ovsdb.TransactError{Op: ovsdb.Operation{Op: "wait", Table: "DHCP_Options"}}

// replace enters pairs in place of what the book holds under their keys.
func replace(b *dhcpOptions, pairs map[string]string) []ovsdb.Operation {
	old := make(map[string]string)
	for k, v := range pairs {
		if was, has := b.ExternalIDs[k]; has && was != v {
			old[k] = was
		}
	}
	if len(old) == 0 {
		return enter(b, pairs)
	}
	return slices.Concat([]ovsdb.Operation{strike(b, old)}, enter(b, pairs))
}

// owe notes an entry that was given up and may still be there: the next audit looks
// at it.
func (p *Pools) owe(e entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.made, e)
	p.idle[e] = time.Time{}
	if strings.HasPrefix(e.key, handlePrefix) {
		p.owed[e] = true
	}
}

// ReleasePool gives back a part of a pool with all its bookings. An unknown one is a
// success.
func (p *Pools) ReleasePool(ctx context.Context, id ipam.PoolID) error {
	h, err := parsePoolID(id)
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, releaseTime)
	defer cancel()
	err = p.tries(ctx, h.sw, func(ovsdb.View) error { return p.f.releaseHandle(ctx, h.sw, h.id) })
	if err != nil {
		p.owe(entry{h.sw, h.key()})
		return fmt.Errorf("cannot release pool %s of logical switch %s: %w", h.prefix, h.sw, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.last, h.id)
	maps.DeleteFunc(p.made, func(_ entry, m mark) bool { return m.handle == h.id })
	delete(p.idle, entry{h.sw, h.key()})
	delete(p.owed, entry{h.sw, h.key()})
	return nil
}

// releaseHandle takes a handle out of the book, with what it booked, and the book
// away if it was the last and there is no switch. It is tried once.
func (f *Fabric) releaseHandle(ctx context.Context, sw, id string) error {
	v, err := f.nb.View()
	if err != nil {
		return err
	}
	b := findBook(v, sw)
	if b == nil {
		return nil
	}
	if ops := b.without(id); len(ops) > 0 {
		if err := f.write(ctx, ops)[0]; err != nil {
			return err
		}
	}
	return f.tidy(ctx, sw)
}

// tidy removes a book in which nothing is left, if it belongs to no switch of ours.
func (f *Fabric) tidy(ctx context.Context, sw string) error {
	v, err := f.nb.View()
	if err != nil {
		return err
	}
	if s, _ := findSwitch(v, sw); s != nil && ours(s.ExternalIDs) {
		return nil
	}
	if err := f.dropParts(ctx, v, sw); err != nil && !changed(err, "DHCP_Options") {
		return err
	}
	return nil
}

func newHandle() string {
	var raw [8]byte
	rand.Read(raw[:]) //nolint:errcheck // never fails (crypto/rand)
	return hex.EncodeToString(raw[:])
}
