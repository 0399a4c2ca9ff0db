package ovs

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/dhcp"
	"github.com/ovs-container-network/ovs-container-network/internal/link"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// Acquire6 implements network.Inside.
func (i *Inside) Acquire6(ctx context.Context, _ network.Network, ep network.Endpoint, listen time.Duration) (l network.Lease6, err error) {
	// Without IPv6 in the kernel Docker could not start a container that has some.
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		return l, network.ErrNoIPv6
	}
	err = i.use(ep, func(p dhcp.Port) error {
		got, err := dhcp.Acquire6(ctx, p, listen)
		l = lease6(got)
		if errors.Is(err, dhcp.ErrNoIPv6) {
			err = fmt.Errorf("%w: %w", network.ErrNoIPv6, err)
		}
		return err
	})
	return l, err
}

// Renew6 implements network.Inside.
func (i *Inside) Renew6(ctx context.Context, _ network.Network, ep network.Endpoint, all bool) (l network.Lease6, err error) {
	err = i.use(ep, func(p dhcp.Port) error {
		got, err := dhcp.Renew6(ctx, p, granted6(*ep.Lease6), all)
		l = lease6(got)
		if errors.Is(err, dhcp.ErrRefused) {
			err = fmt.Errorf("%w: %w", network.ErrLeaseRefused, err)
		}
		return err
	})
	return l, err
}

// Release6 implements network.Inside.
func (i *Inside) Release6(_ network.Network, ep network.Endpoint) error {
	return i.use(ep, func(p dhcp.Port) error { return dhcp.Release6(p, granted6(*ep.Lease6)) })
}

// Configure6 implements network.Inside.
func (i *Inside) Configure6(_ context.Context, _ network.Network, ep network.Endpoint, old *network.Lease6) error {
	p, home, err := i.reach(ep)
	if err != nil {
		return err
	}
	if home {
		return errors.New("its link is not in the sandbox")
	}
	var was, want []netip.Prefix
	if old != nil {
		was = old.Addrs
	}
	if ep.Has6() {
		want = ep.Lease6.Addrs
	}
	for _, a := range was {
		if !slices.Contains(want, a) {
			err = errors.Join(err, i.Links.Configure(p.NetNS, p.Index, link.Settings{Addr: a}, link.Settings{}))
		}
	}
	for _, a := range want {
		err = errors.Join(err, i.Links.Configure(p.NetNS, p.Index, link.Settings{}, link.Settings{Addr: a}))
	}
	return err
}

func lease6(l dhcp.Lease6) network.Lease6 {
	ends := make(map[netip.Addr]time.Time, len(l.Addrs)) // routers may tell of any number of prefixes
	for _, a := range l.Addrs {
		if end, known := l.Ends[a.Addr()]; known {
			ends[a.Addr()] = utc(end)
		}
	}
	return network.Lease6{
		Addrs: l.Addrs, Ends: ends, Managed: l.Managed, Router: l.Router, DNS: l.DNS, Server: l.Server,
		From: utc(l.From), Renew: utc(l.Renew), Rebind: utc(l.Rebind), Expire: utc(l.Expire),
	}
}

// granted6 is what a renewal or release needs of it.
func granted6(l network.Lease6) dhcp.Lease6 {
	return dhcp.Lease6{Addrs: l.Addrs, Ends: l.Ends, Managed: l.Managed, Router: l.Router, DNS: l.DNS, Server: l.Server, Expire: l.Expire}
}
