package network_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	. "github.com/ovs-container-network/ovs-container-network/internal/network"
)

// fakeInside6 is a router and a DHCPv6 server that containers reach.
type fakeInside6 struct {
	six       []netip.Prefix // what they give; none: they are not there
	managed   bool
	silent6   bool // they were there
	term6     time.Duration
	ends6     map[netip.Addr]time.Duration // of those that end before
	listens   []time.Duration
	renewals6 []string
	released6 []netip.Addr
	addrs6    map[EndpointID][]netip.Prefix // in containers
}

func (i *fakeInside) lease6Locked() Lease6 {
	now := time.Now().UTC()
	l := Lease6{Addrs: slices.Clone(i.six), Managed: i.managed, Router: netip.MustParseAddr("fe80::1"), From: now, Renew: now.Add(i.term6 / 2)}
	if i.term6 < time.Hour {
		l.Rebind, l.Expire = now.Add(i.term6*4/5), now.Add(i.term6)
	}
	for a, end := range i.ends6 {
		l.Ends = map[netip.Addr]time.Time{a: now.Add(end)}
	}
	return l
}

func (i *fakeInside) Acquire6(_ context.Context, _ Network, _ Endpoint, listen time.Duration) (Lease6, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.listens = append(i.listens, listen)
	if len(i.six) == 0 || i.silent6 {
		return Lease6{}, ErrNoIPv6
	}
	return i.lease6Locked(), nil
}

func (i *fakeInside) Renew6(ctx context.Context, _ Network, ep Endpoint, all bool) (Lease6, error) {
	i.mu.Lock()
	silent := i.silent6
	i.renewals6 = append(i.renewals6, fmt.Sprintf("%t", all))
	i.mu.Unlock()
	if silent {
		<-ctx.Done()
		return Lease6{}, errors.New("no DHCP server answered")
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.managed && i.six[0] != ep.Lease6.Addrs[0] {
		return Lease6{}, fmt.Errorf("%w: NoBinding", ErrLeaseRefused)
	}
	return i.lease6Locked(), nil
}

func (i *fakeInside) Release6(_ Network, ep Endpoint) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.released6 = append(i.released6, ep.Lease6.Addrs[0].Addr())
	return nil
}

func (i *fakeInside) Configure6(_ context.Context, _ Network, ep Endpoint, _ *Lease6) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.addrs6 == nil {
		i.addrs6 = make(map[EndpointID][]netip.Prefix)
	}
	i.addrs6[ep.ID] = nil
	if ep.Has6() {
		i.addrs6[ep.ID] = ep.Lease6.Addrs
	}
	return nil
}

// has6 are the IPv6 addresses in a container.
func (i *fakeInside) has6(name string) []netip.Prefix {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.addrs6[eid(name)]
}

// seen6 is what they have seen so far.
func (i *fakeInside) seen6() fakeInside6 {
	i.mu.Lock()
	defer i.mu.Unlock()
	return fakeInside6{listens: slices.Clone(i.listens), renewals6: slices.Clone(i.renewals6), released6: slices.Clone(i.released6)}
}
