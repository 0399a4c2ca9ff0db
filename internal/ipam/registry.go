package ipam

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Store keeps pools. Both calls return when the change will survive a crash.
// They come concurrently for different pools, never for the same one. The pool
// handed over must not be modified. Deleting an absent pool is a success.
type Store interface {
	PutPool(Pool) error
	DeletePool(PoolID) error
}

// Registry is every pool of this host. Its methods may be called concurrently;
// work on one pool does not wait for the store to write another.
type Registry struct {
	store Store

	mu    sync.RWMutex // guards the following; never held across a store call
	pools map[PoolID]*entry
	seq   uint64 // of the newest pool ever seen
	auto4 chooser
	auto6 chooser

	booked map[string][]booking // by network; see booked.go

	started time.Time
	begun   map[PoolID]bool                     // see audit.go
	loose   map[PoolID]map[netip.Addr]bool      // see audit.go
	idle    map[PoolID]map[netip.Addr]time.Time // see audit.go
}

// entry is a pool's place in the registry. It is in the map before its first
// write, so that two automatic requests cannot choose the same prefix.
type entry struct {
	prefix netip.Prefix // never changes
	since  time.Time    // when this process came to know it

	mu sync.Mutex // one change at a time; held while the store writes. Registry.mu may be taken under it, not the other way
	// value is what the store holds: nil before the first write and after
	// release. Readers take it without a lock and so never wait for the store.
	value atomic.Pointer[Pool]
}

// New makes a registry of the pools loaded from store. The seed is an id of
// this host that never changes; automatic IPv6 pools are derived from it.
func New(store Store, loaded []Pool, seed string) *Registry {
	r := &Registry{
		store:  store,
		pools:  make(map[PoolID]*entry, len(loaded)),
		booked: make(map[string][]booking),
		auto4:  choose4(),
		auto6:  choose6(seed),

		started: time.Now(),
		begun:   make(map[PoolID]bool),
		loose:   make(map[PoolID]map[netip.Addr]bool),
		idle:    make(map[PoolID]map[netip.Addr]time.Time),
	}
	loaded = slices.SortedFunc(slices.Values(loaded), bySeq)
	for _, p := range loaded {
		p.Prefix = p.Prefix.Masked()
		p.Addrs = append(make([]netip.Addr, 0, len(p.Addrs)), p.Addrs...)
		slices.SortFunc(p.Addrs, netip.Addr.Compare) // the search relies on it, whoever wrote the file
		p.Addrs = slices.Compact(p.Addrs)
		e := &entry{prefix: p.Prefix, since: time.Now()}
		e.value.Store(&p)
		r.pools[p.ID] = e
		r.seq = max(r.seq, p.Seq)
		if p.Network == "" && len(p.Addrs) == 0 {
			r.begun[p.ID] = true
		}
		if p.Auto {
			r.auto4.skip(p.Prefix)
			r.auto6.skip(p.Prefix)
		}
	}
	return r
}

// RequestPool makes a new pool, also when an equal one exists. pool is a
// subnet, or empty to have one chosen that overlaps no other pool; the same
// one is not chosen again until all others had their turn. subPool narrows
// automatic addresses and may be empty. A request that Docker sends again because
// the last process died over it gets the pool that this one made.
func (r *Registry) RequestPool(pool, subPool string, opts map[string]string, v6 bool) (Pool, error) {
	if err := checkOptions(opts); err != nil {
		return Pool{}, err
	}
	p := Pool{Auto: pool == "", Addrs: []netip.Addr{}}
	if p.Auto && subPool != "" {
		return Pool{}, fmt.Errorf("--ip-range %s needs a --subnet that contains it", subPool)
	}
	if !p.Auto {
		var err error
		if p.Prefix, p.Range, err = parseSubnet(pool, subPool, v6); err != nil {
			return Pool{}, err
		}
	}
	if again, ok := r.askedAgain(p, v6); ok {
		return again, nil
	}
	e, err := r.reserve(&p, v6)
	if err != nil {
		return Pool{}, err
	}
	if err := r.store.PutPool(p); err != nil {
		r.forget(p.ID)
		return Pool{}, fmt.Errorf("cannot store pool %v: %w", p.Prefix, err)
	}
	e.value.Store(&p)
	return p.clone(), nil
}

// reserve completes p with its place, its id and, if automatic, its prefix.
func (r *Registry) reserve(p *Pool, v6 bool) (*entry, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.Auto {
		auto := &r.auto4
		if v6 {
			auto = &r.auto6
		}
		existing := make([]netip.Prefix, 0, len(r.pools))
		for _, e := range r.pools {
			existing = append(existing, e.prefix)
		}
		var err error
		if p.Prefix, err = auto.pick(existing); err != nil {
			return nil, err
		}
	}
	r.seq++
	p.Seq = r.seq
	// Random, because the newest pool may be deleted before a restart and Seq
	// with it, while Docker may still release the old id once more.
	var unique [8]byte
	rand.Read(unique[:])
	p.ID = PoolID(fmt.Sprintf("local/%x/%v", unique, p.Prefix))
	e := &entry{prefix: p.Prefix, since: time.Now()}
	r.pools[p.ID] = e
	return e, nil
}

// ReleasePool deletes a pool and all its addresses. An unknown id is a success.
func (r *Registry) ReleasePool(id PoolID) error {
	e := r.entry(id)
	if e == nil {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.value.Load() == nil {
		return nil
	}
	if err := r.store.DeletePool(id); err != nil {
		r.owe(id, netip.Addr{})
		return fmt.Errorf("cannot delete pool %v: %w", e.prefix, err)
	}
	e.value.Store(nil)
	r.forget(id)
	return nil
}

// RequestAddress books an address and answers it with the pool's prefix length.
// Asking for the gateway once more gives the same answer; any other address is
// given once until it is released.
func (r *Registry) RequestAddress(id PoolID, req Request) (netip.Prefix, error) {
	var answer netip.Prefix
	var from Pool
	err := r.change(id, func(p Pool) (Pool, bool, error) {
		p = r.withoutLoose(p, req)
		next, addr, changed, err := p.take(req)
		from = p
		answer = netip.PrefixFrom(addr, p.Prefix.Bits())
		return next, changed, err
	})
	if errors.Is(err, errAbsent) {
		err = fmt.Errorf("unknown address pool %s; was the state directory removed?", id)
	}
	if err != nil {
		r.unbook(id)
		if req.Name != "" {
			err = fmt.Errorf("container %s: %w", req.Name, err)
		}
		return netip.Prefix{}, err
	}
	r.tighten(id, answer.Addr())
	if !req.Gateway {
		r.book(from, answer.Addr(), req.Name)
	}
	return answer, nil
}

// ReleaseAddress frees an address. An unknown pool, a free address and a text
// that is no address are a success: there is nothing to release.
func (r *Registry) ReleaseAddress(id PoolID, addr string) error {
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return nil
	}
	r.tighten(id, a)
	r.freed(id, a)
	err = r.change(id, func(p Pool) (Pool, bool, error) {
		next, changed := p.release(a)
		return next, changed, nil
	})
	if errors.Is(err, errAbsent) {
		return nil
	}
	if err != nil {
		r.owe(id, a)
	}
	return err
}

// errAbsent comes from change alone and is never shown to anybody.
var errAbsent = errors.New("no such pool")

// change replaces a pool's value by what f makes of it, stored first. When f or
// the store fails, or f changed nothing, everything stays as it was.
func (r *Registry) change(id PoolID, f func(Pool) (next Pool, changed bool, err error)) error {
	e := r.entry(id)
	if e == nil {
		return errAbsent
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.value.Load()
	if p == nil {
		return errAbsent
	}
	next, changed, err := f(*p)
	if err != nil || !changed {
		return err
	}
	if err := r.store.PutPool(next); err != nil {
		return fmt.Errorf("cannot store pool %v: %w", e.prefix, err)
	}
	e.value.Store(&next)
	return nil
}

func (r *Registry) entry(id PoolID) *entry {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.pools[id]
}

func (r *Registry) forget(id PoolID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.pools, id)
	delete(r.begun, id)
	delete(r.loose, id)
	delete(r.idle, id)
}

func bySeq(a, b Pool) int { return cmp.Compare(a.Seq, b.Seq) }
