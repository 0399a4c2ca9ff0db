package ovs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/dhcp"
	"github.com/ovs-container-network/ovs-container-network/internal/link"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// Inside implements network.Inside on the links of this host.
type Inside struct {
	Links   *link.Kernel
	Sandbox func(path string) string // where a sandbox path of dockerd's is seen from here

	mu   sync.Mutex // guards the following
	lent map[string]*loan
}

// loan is a device that is up while it is still here.
type loan struct {
	users int
	back  func() error
}

// lend lends a device to one more.
func (i *Inside) lend(peer string) (back func() error, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	l := i.lent[peer]
	if l == nil {
		l = &loan{}
		if l.back, err = i.Links.Lend(peer); err != nil {
			return nil, err
		}
		if i.lent == nil {
			i.lent = make(map[string]*loan)
		}
		i.lent[peer] = l
	}
	l.users++
	return func() error {
		i.mu.Lock()
		defer i.mu.Unlock()
		if l.users--; l.users > 0 {
			return nil
		}
		delete(i.lent, peer)
		return l.back()
	}, nil
}

// Wire implements network.Inside.
func (i *Inside) Wire(_ context.Context, ep network.Endpoint) error {
	_, peer := ep.ID.Links()
	_, err := i.Links.Wire(peer, i.Sandbox(ep.Sandbox), "eth%d")
	return err
}

// reach is the device of an endpoint in its container, wherever that end of its
// link is now.
func (i *Inside) reach(ep network.Endpoint) (p dhcp.Port, home bool, err error) {
	host, _ := ep.ID.Links()
	in, ok, err := i.Links.Get(host)
	switch {
	case err != nil:
		return p, false, err
	case !ok || in.PeerIndex == 0:
		return p, false, fmt.Errorf("its link %s is gone", host)
	}
	mac, err := net.ParseMAC(ep.MAC)
	if err != nil {
		return p, false, err
	}
	p = dhcp.Port{Index: in.PeerIndex, MAC: mac, ID: ep.ClientIDBytes()}
	if !in.PeerAway {
		return p, true, nil
	}
	if p.NetNS = i.Sandbox(ep.Sandbox); ep.Sandbox == "" || p.NetNS == "" {
		return p, false, fmt.Errorf("its sandbox %q cannot be seen from here", ep.Sandbox)
	}
	return p, false, nil
}

// use has ask talk through the device of an endpoint. While that is still here, it
// is up only for that, and what arrives there is none of the host's business.
func (i *Inside) use(ep network.Endpoint, ask func(dhcp.Port) error) (err error) {
	p, home, err := i.reach(ep)
	if err != nil {
		return err
	}
	if home {
		_, peer := ep.ID.Links()
		back, err := i.lend(peer)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, back()) }()
	}
	return ask(p)
}

// Acquire implements network.Inside.
func (i *Inside) Acquire(ctx context.Context, _ network.Network, ep network.Endpoint, want netip.Addr) (l network.Lease, err error) {
	err = i.use(ep, func(p dhcp.Port) error {
		got, err := dhcp.Acquire(ctx, p, want, ep.Lease != nil)
		l = lease(got)
		return err
	})
	return l, err
}

// Renew implements network.Inside.
func (i *Inside) Renew(ctx context.Context, _ network.Network, ep network.Endpoint, all bool) (l network.Lease, err error) {
	err = i.use(ep, func(p dhcp.Port) error {
		got, err := dhcp.Renew(ctx, p, granted(*ep.Lease), all)
		l = lease(got)
		if errors.Is(err, dhcp.ErrRefused) {
			err = fmt.Errorf("%w: %w", network.ErrLeaseRefused, err)
		}
		return err
	})
	return l, err
}

// Release implements network.Inside.
func (i *Inside) Release(_ network.Network, ep network.Endpoint) error {
	return i.use(ep, func(p dhcp.Port) error { return dhcp.Release(p, granted(*ep.Lease)) })
}

// Configure implements network.Inside.
func (i *Inside) Configure(_ context.Context, n network.Network, ep network.Endpoint, old *network.Lease) error {
	p, home, err := i.reach(ep)
	if err != nil {
		return err
	}
	if home {
		return errors.New("its link is not in the sandbox")
	}
	var was, want link.Settings
	if old != nil {
		was = settings(n, *old)
	}
	if ep.Has4() {
		want = settings(n, *ep.Lease)
	}
	return i.Links.Configure(p.NetNS, p.Index, was, want)
}

// settings are what a container gets of a lease.
func settings(n network.Network, l network.Lease) link.Settings {
	s := link.Settings{Addr: l.Addr}
	for _, r := range l.Routes {
		s.Routes = append(s.Routes, link.Route(r))
	}
	if n.Config.Gateway == network.GatewayExternal && !n.Config.Internal && l.Router.IsValid() {
		s.Routes = append(s.Routes, link.Route{To: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Via: l.Router})
	}
	return s
}

// lease and granted translate between the core and the client, of which neither
// knows the other.
func lease(l dhcp.Lease) network.Lease {
	var routes []network.Route
	for _, r := range l.Routes {
		routes = append(routes, network.Route(r))
	}
	return network.Lease{
		Addr: l.Addr, Router: l.Router, Routes: routes, MTU: l.MTU, DNS: l.DNS, Domain: l.Domain,
		Server: l.Server, ServerMAC: l.ServerMAC, From: utc(l.From), Renew: utc(l.Renew), Rebind: utc(l.Rebind), Expire: utc(l.Expire),
	}
}

func utc(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC().Round(0)
}

// granted is what a renewal or release needs of a lease.
func granted(l network.Lease) dhcp.Lease {
	return dhcp.Lease{Addr: l.Addr, Server: l.Server, ServerMAC: l.ServerMAC}
}
