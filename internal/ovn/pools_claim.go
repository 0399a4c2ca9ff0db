package ovn

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/ipam"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// Claim ties the part of a pool that was asked for last, with this prefix and for the
// switch of the network, to the network that is being created. False means that there
// is none. A network whose addresses come from outside gets none: what its containers
// have is another's to say, and would be booked for all hosts.
func (p *Pools) Claim(ctx context.Context, n network.Network, prefix netip.Prefix) (bool, error) {
	if n.Config.OVN == nil {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, releaseTime)
	defer cancel()
	claimed := false
	err := p.tries(ctx, n.Config.OVN.Switch, func(v ovsdb.View) error {
		h, ok := p.unclaimed(v, n.Config.OVN.Switch, n.ID, prefix.Masked())
		if !ok {
			return nil
		}
		if n.Config.IPAM == network.IPAMExternal {
			return fmt.Errorf("option ipam=%q: its addresses are shared by all hosts, and no container would get one; leave out --ipam-opt ovn.switch=%s, or give --ipam-driver null", n.Config.IPAM, h.sw)
		}
		claimed = true
		h.network, h.static = n.ID, n.Config.IPAM == network.IPAMStatic
		p.used(h)
		b := findBook(v, h.sw)
		if b.ExternalIDs[h.key()] == h.value() {
			return nil
		}
		return p.f.write(ctx, replace(b, map[string]string{h.key(): h.value()}))[0]
	})
	if err != nil {
		return false, fmt.Errorf("cannot take the pool of logical switch %s: %w", n.Config.OVN.Switch, err)
	}
	return claimed, nil
}

// unclaimed finds what a network can claim: what it has claimed already, else the
// newest that this process has made.
func (p *Pools) unclaimed(v ovsdb.View, sw string, id network.ID, prefix netip.Prefix) (best handle, found bool) {
	b := findBook(v, sw)
	if b == nil {
		return best, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var since time.Time
	for _, h := range b.handles() {
		if h.host != p.f.cfg.HostID || h.prefix != prefix || h.network != "" && h.network != id {
			continue
		}
		if h.network == id {
			return h, true
		}
		if at := p.made[entry{sw, h.key()}].at; !found || at.After(since) {
			best, found, since = h, true, at
		}
	}
	return best, found
}

// Stray returns an error if the subnet of a network that has no pool here, nor any
// other of ours, is that of a pool of another switch.
func (p *Pools) Stray(n network.Network, prefix netip.Prefix) error {
	v, err := p.f.nb.View()
	if err != nil {
		return nil
	}
	for _, b := range books(v) {
		sw := b.ExternalIDs[keySwitch]
		if _, ok := p.unclaimed(v, sw, n.ID, prefix.Masked()); !ok {
			continue
		}
		if n.Config.OVN == nil {
			return fmt.Errorf("--ipam-opt ovn.switch=%s: the network is on no logical switch; add --opt ovn.switch=%s, or leave the --ipam-opt out", sw, sw)
		}
		return fmt.Errorf("--ipam-opt ovn.switch=%s: the network is on logical switch %s (--opt ovn.switch=%s); give the same switch to both", sw, n.Config.OVN.Switch, n.Config.OVN.Switch)
	}
	return nil
}

// Network is the one that has a pool; empty if none has, or it is not known.
func (p *Pools) Network(id ipam.PoolID) network.ID {
	h, err := parsePoolID(id)
	if err != nil {
		return ""
	}
	v, err := p.f.nb.View()
	if err != nil {
		return ""
	}
	if b := findBook(v, h.sw); b != nil {
		h, _ = b.handle(h.id)
	}
	return h.network
}

// restored is a handle that the book does not have, as it must have been: the
// network is the one of this host that has none.
func (p *Pools) restored(b *dhcpOptions, h handle) handle {
	claimed := make(map[network.ID]bool)
	if b != nil {
		if known, ok := b.handle(h.id); ok { // with an earlier id of this host
			h.network, h.static = known.network, known.static
		}
		for _, o := range b.handles() {
			claimed[o.network] = claimed[o.network] || o.prefix == h.prefix
		}
	}
	h.host = p.f.cfg.HostID
	for _, n := range p.networks() {
		if h.network != "" {
			break
		}
		has := slices.ContainsFunc(n.Subnets, func(s network.Subnet) bool {
			return s.Prefix.Masked() == h.prefix && (s.Space == ipam.AddressSpace || s.Space == ipam.GlobalAddressSpace)
		})
		if has && n.Config.OVN != nil && n.Config.OVN.Switch == h.sw && n.Phase != network.PhaseDeleting && !claimed[n.ID] {
			h.network, h.static = n.ID, n.Config.IPAM == network.IPAMStatic
		}
	}
	return h
}

// Forget releases the pools of a network that Docker removed without telling. What
// cannot be done now, the audits do.
func (p *Pools) Forget(ctx context.Context, id network.ID) error {
	v, err := p.f.nb.View()
	if err != nil {
		return nil
	}
	var errs []error
	for _, b := range books(v) {
		for _, h := range b.handles() {
			if h.host == p.f.cfg.HostID && h.network == id {
				errs = append(errs, p.ReleasePool(ctx, h.poolID()))
			}
		}
	}
	return errors.Join(errs...)
}

// Docker books the addresses of an endpoint, IPv4 and then IPv6, and creates it, all
// under one lock of the network; if the second fails, it forgets the first.

// Entered tells that an endpoint of the network is being created: what was booked
// belongs to it now, and Docker gives it back itself.
func (p *Pools) Entered(id network.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.begun, id)
}

// unbook gives up what was booked for the endpoint whose request has failed.
func (p *Pools) unbook(h handle) {
	p.mu.Lock()
	begun := p.begun[h.network]
	delete(p.begun, h.network)
	p.mu.Unlock()
	for _, e := range begun {
		p.owe(e)
	}
}

// Abandon gives up addresses of an endpoint that Docker has given up without a word,
// but not those that are booked for the next one at this moment.
func (p *Pools) Abandon(n network.Network, addrs []netip.Addr) {
	if n.Config.OVN == nil {
		return
	}
	p.mu.Lock()
	begun := slices.Clone(p.begun[n.ID])
	p.mu.Unlock()
	for _, a := range addrs {
		if e := (entry{n.Config.OVN.Switch, ipKey(a)}); !slices.Contains(begun, e) {
			p.owe(e)
		}
	}
}
