package network_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	. "github.com/ovs-container-network/ovs-container-network/internal/network"
)

// fakeInside is the inside of all containers, and a DHCP server that they reach.
type fakeInside struct {
	mu    sync.Mutex // guards the following
	wired map[EndpointID]string
	fail  error // of Wire
	unset error // of Configure

	during    func(ask string)     // runs while the server is asked
	after     func()               // runs when it has granted, before that is known
	releasing func() error         // while a lease is given back
	addrs     map[EndpointID]Lease // what Configure left in containers

	silent   bool // the server
	router   netip.Addr
	routes   []Route
	term     time.Duration // 0: for ever
	granted  map[netip.Addr]EndpointID
	next     netip.Addr
	asks     []string // what the server was asked, with the time since start
	start    time.Time
	released []netip.Addr

	fakeInside6
}

func newInside() *fakeInside {
	return &fakeInside{
		wired: map[EndpointID]string{}, addrs: map[EndpointID]Lease{}, granted: map[netip.Addr]EndpointID{},
		term: 80 * time.Second, next: netip.MustParseAddr("10.7.0.50"), router: netip.MustParseAddr("10.7.0.1"),
		routes: []Route{{To: netip.MustParsePrefix("10.9.0.0/16"), Via: netip.MustParseAddr("10.7.0.9")}},
	}
}

func (i *fakeInside) with(f func(i *fakeInside)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	f(i)
}

func (i *fakeInside) Wire(_ context.Context, ep Endpoint) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.fail == nil {
		i.wired[ep.ID] = ep.Sandbox
	}
	return i.fail
}

// answered notes a question and waits as long as a server that is silent has one
// wait.
func (i *fakeInside) answered(ctx context.Context, ask string) error {
	i.mu.Lock()
	if i.start.IsZero() {
		i.start = time.Now()
	}
	i.asks = append(i.asks, fmt.Sprintf("%s %s", time.Since(i.start).Round(time.Second), ask))
	silent, during := i.silent, i.during
	i.mu.Unlock()
	if during != nil {
		during(ask)
	}
	if silent {
		<-ctx.Done()
	}
	if ctx.Err() != nil {
		return errors.New("no DHCP server answered")
	}
	return nil
}

// client is by what the server knows an endpoint.
func client(ep Endpoint) EndpointID {
	if ep.ClientID != "" {
		return EndpointID("client " + ep.ClientID)
	}
	return ep.ID
}

func (i *fakeInside) leaseLocked(id EndpointID, a netip.Addr) Lease {
	i.granted[a] = id
	now := time.Now().UTC()
	l := Lease{
		Addr: netip.PrefixFrom(a, 24), Router: i.router, Server: netip.MustParseAddr("10.7.0.1"), MTU: 1400,
		Routes: i.routes,
		From:   now,
	}
	if i.term > 0 {
		l.Renew, l.Rebind, l.Expire = now.Add(i.term/2), now.Add(i.term*7/8), now.Add(i.term)
	}
	return l
}

func (i *fakeInside) Acquire(ctx context.Context, _ Network, ep Endpoint, want netip.Addr) (Lease, error) {
	if err := i.answered(ctx, "discover"); err != nil {
		return Lease{}, err
	}
	i.mu.Lock()
	if holder, taken := i.granted[want]; !want.IsValid() || taken && holder != client(ep) {
		want, i.next = i.next, i.next.Next()
	}
	l, after := i.leaseLocked(client(ep), want), i.after
	i.mu.Unlock()
	if after != nil {
		after()
	}
	return l, nil
}

func (i *fakeInside) Renew(ctx context.Context, _ Network, ep Endpoint, all bool) (Lease, error) {
	ask := "renew"
	if all {
		ask = "rebind"
	}
	if err := i.answered(ctx, ask); err != nil {
		return Lease{}, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.granted[ep.Lease.Addr.Addr()] != client(ep) {
		return Lease{}, fmt.Errorf("%w: wrong network", ErrLeaseRefused)
	}
	return i.leaseLocked(client(ep), ep.Lease.Addr.Addr()), nil
}

func (i *fakeInside) Release(_ Network, ep Endpoint) error {
	i.mu.Lock()
	releasing := i.releasing
	i.mu.Unlock()
	if releasing != nil {
		if err := releasing(); err != nil {
			return err
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.released = append(i.released, ep.Lease.Addr.Addr())
	delete(i.granted, ep.Lease.Addr.Addr())
	return nil
}

func (i *fakeInside) Configure(_ context.Context, _ Network, ep Endpoint, _ *Lease) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.unset != nil {
		return i.unset
	}
	if len(ep.Addrs) == 0 {
		delete(i.addrs, ep.ID)
	} else {
		i.addrs[ep.ID] = *ep.Lease
	}
	return nil
}

// returned are the addresses whose leases were given back.
func (i *fakeInside) returned() []netip.Addr {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.released)
}

func (i *fakeInside) at(name string) string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.wired[eid(name)]
}

// asked returns what the server was asked since the last time.
func (i *fakeInside) asked() (list []string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	list, i.asks, i.start = i.asks, nil, time.Now()
	return list
}
