package ovn

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"

	"github.com/ovs-container-network/ovs-container-network/internal/ipam"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// RequestAddress books an address of a pool. The gateway, and an address asked for
// before the network is created (--aux-address), is the same on all hosts and
// booked for all; any other is given once, until it is released.
func (p *Pools) RequestAddress(ctx context.Context, id ipam.PoolID, req ipam.Request) (netip.Prefix, error) {
	h, err := parsePoolID(id)
	if err != nil {
		return netip.Prefix{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, poolTime)
	defer cancel()
	a, err := p.request(ctx, &h, req)
	if err != nil {
		p.unbook(h)
		if req.Name != "" {
			err = fmt.Errorf("container %s: %w", req.Name, err)
		}
		return netip.Prefix{}, err
	}
	p.used(h)
	return netip.PrefixFrom(a, h.prefix.Bits()), nil
}

// request fills in what the book says of the handle.
func (p *Pools) request(ctx context.Context, h *handle, req ipam.Request) (addr netip.Addr, err error) {
	var skip netip.Addr // another host was quicker with it
	err = p.tries(ctx, h.sw, func(v ovsdb.View) error {
		b, err := p.find(ctx, &v, h)
		if err != nil {
			return err
		}
		w, err := p.wish(v, b, *h, req, skip)
		var taken *takenError
		if errors.As(err, &taken) {
			return p.f.explain(ctx, v, b, taken)
		}
		if err != nil {
			return err
		}
		defer p.rest(entry{h.sw, ipKey(w.addr)})
		addr = w.addr
		if err = p.book(ctx, b, *h, w); changed(err, "DHCP_Options") {
			skip = w.addr
		}
		return err
	})
	return addr, err
}

// find returns the book of a handle's switch and completes the handle with what that
// says. If it says nothing of it, the database was put back to an earlier state, or
// this host has lost its own and has a new id; Docker has the pool all the same.
func (p *Pools) find(ctx context.Context, v *ovsdb.View, h *handle) (*dhcpOptions, error) {
	b := findBook(*v, h.sw)
	if b != nil {
		if known, ok := b.handle(h.id); ok && known.host == p.f.cfg.HostID {
			known.within = h.within
			*h = known
			return b, nil
		}
	}
	again := p.restored(b, *h)
	if err := p.enroll(ctx, *v, again); err != nil {
		return nil, err
	}
	*h = again
	var err error
	if *v, err = p.f.nb.View(); err != nil {
		return nil, err
	}
	if b = findBook(*v, h.sw); b == nil {
		return nil, fmt.Errorf("the book of addresses of logical switch %s was removed", h.sw)
	}
	return b, nil
}

// wish is an address that a request is to get, with what is then in the book.
type wish struct {
	addr    netip.Addr
	pairs   map[string]string
	purpose string // gateway or aux; empty: a container
	chosen  bool   // not asked for by name
}

// wish chooses an address and marks it as busy.
func (p *Pools) wish(v ovsdb.View, b *dhcpOptions, h handle, req ipam.Request, skip netip.Addr) (w wish, err error) {
	w.chosen = req.Addr == "" && !req.Gateway
	switch {
	case req.Gateway:
		w.purpose = forGateway
	case h.network == "" && req.Addr == "":
		return w, fmt.Errorf("the pool belongs to no network on logical switch %s: create one with --opt ovn.switch=%s", h.sw, h.sw)
	case h.network == "":
		w.purpose = forAux
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	pool := h.pool()
	if req.Addr == "" {
		w.addr = p.gateway(v, b, h, req)
		pool.Addrs, pool.Last = p.takenLocked(v, b, h), p.last[h.id]
		if skip.IsValid() {
			pool.Last = beyond(skip, h.prefix)
		}
	}
	if !w.addr.IsValid() {
		if w.addr, err = pool.Pick(req); err != nil {
			return w, err
		}
	}
	if err := p.conflict(v, b, h, w.addr, w.purpose); err != nil {
		return w, err
	}
	p.busy[entry{h.sw, ipKey(w.addr)}] = w.purpose
	w.pairs = map[string]string{ipKey(w.addr): h.id + " " + h.host}
	if w.purpose != "" {
		w.pairs = map[string]string{ipKey(w.addr): w.purpose, refKey(w.addr, h.id): h.host}
	}
	return w, nil
}

// beyond is an address a little behind one that another host was quicker with: hosts
// that choose at the same time shall not meet at the next one, too.
func beyond(a netip.Addr, prefix netip.Prefix) netip.Addr {
	for range rand.N(16) {
		if next := a.Next(); prefix.Contains(next) {
			a = next
		}
	}
	return a
}

// gateway is the one that the other hosts have, if there is one.
func (p *Pools) gateway(v ovsdb.View, b *dhcpOptions, h handle, req ipam.Request) (found netip.Addr) {
	if !req.Gateway {
		return found
	}
	for key, who := range b.ExternalIDs {
		text, ok := strings.CutPrefix(key, ipPrefix)
		if a, err := netip.ParseAddr(text); ok && err == nil && who == forGateway && h.prefix.Contains(a) && (!found.IsValid() || a.Less(found)) {
			found = a
		}
	}
	if s, _ := findSwitch(v, h.sw); s != nil && !found.IsValid() {
		for _, a := range s.gateways() {
			if h.prefix.Contains(a) && p.conflict(v, b, h, a, forGateway) == nil {
				found = a
			}
		}
	}
	return found
}

// gateways are those that were recorded when the switch was made.
func (s *logicalSwitch) gateways() (list []netip.Addr) {
	for text := range strings.SplitSeq(s.ExternalIDs[keyGateways], " ") {
		if a, err := netip.ParseAddr(text); err == nil {
			list = append(list, a)
		}
	}
	return list
}

// rest ends what wish has begun.
func (p *Pools) rest(e entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.busy, e)
}

// book enters an address.
func (p *Pools) book(ctx context.Context, b *dhcpOptions, h handle, w wish) error {
	e := entry{h.sw, ipKey(w.addr)}
	// Also what is there already, as far as was seen: it may have gone meanwhile.
	if err := p.f.write(ctx, replace(b, w.pairs))[0]; err != nil {
		if !changed(err, "DHCP_Options") {
			p.owe(e) // it may be booked all the same
			err = fmt.Errorf("cannot book address %s on logical switch %s: %w", w.addr, h.sw, err)
		}
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.chosen {
		p.last[h.id] = w.addr
	}
	if w.purpose != "" {
		return nil
	}
	p.made[e] = mark{h.id, p.now()}
	delete(p.idle, e)
	p.begun[h.network] = append(p.begun[h.network], e)
	return nil
}

// ReleaseAddress frees an address. What is not booked is a success.
func (p *Pools) ReleaseAddress(ctx context.Context, id ipam.PoolID, addr string) error {
	h, err := parsePoolID(id)
	a, bad := netip.ParseAddr(addr)
	if err != nil || bad != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, releaseTime)
	defer cancel()
	if err := p.free(ctx, h, a); err != nil {
		p.owe(entry{h.sw, ipKey(a)})
		return fmt.Errorf("cannot release address %s on logical switch %s: %w", a, h.sw, err)
	}
	return nil
}

func (p *Pools) free(ctx context.Context, h handle, a netip.Addr) error {
	err := p.tries(ctx, h.sw, func(v ovsdb.View) error {
		b := findBook(v, h.sw)
		if b == nil {
			return nil
		}
		ops := b.freeing(a, h.id)
		if len(ops) == 0 {
			return nil
		}
		return p.f.write(ctx, ops)[0]
	})
	if err == nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.made, entry{h.sw, ipKey(a)})
		delete(p.idle, entry{h.sw, ipKey(a)})
	}
	return err
}
