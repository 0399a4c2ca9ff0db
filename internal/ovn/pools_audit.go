package ovn

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/ipam"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// What Docker does not ask for again, because one of the two died, must not stay
// booked for ever: the same rules as for pools of this host alone (ipam.Registry).
const (
	lostTime = 2 * time.Minute  // Docker uses what it was given in the same command
	diedTime = 40 * time.Second // the same of what the last process gave: Docker tries again for 30 s
)

// forgotten is something of this host in a book that nobody seems to need.
type forgotten struct {
	entry
	idle ipam.Idle
	free func(context.Context) error
}

// Audit frees what this host has in books and has not needed for a while: addresses
// that no endpoint has, parts of pools that no network has. used tells the addresses
// of a network's endpoints, if they can be told. It returns what it freed, the zero
// address for a whole part of a pool.
func (p *Pools) Audit(ctx context.Context, used func(network.ID) (map[netip.Addr]bool, bool)) (freed []ipam.Idle, err error) {
	v, err := p.f.nb.View()
	if err != nil {
		return nil, nil // there will be another
	}
	ctx, cancel := context.WithTimeout(ctx, releaseTime)
	defer cancel()
	var errs []error
	for _, l := range p.ripe(p.forgotten(v, used)) {
		if err := l.free(ctx); err != nil {
			errs = append(errs, err)
		} else {
			freed = append(freed, l.idle)
		}
		p.rest(l.entry)
	}
	return freed, errors.Join(errs...)
}

// Idle lists what the last Audit found and has not freed yet.
func (p *Pools) Idle() (list []ipam.Idle) {
	v, err := p.f.nb.View()
	if err != nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for e, since := range p.idle {
		a, bad := netip.ParseAddr(strings.TrimPrefix(e.key, ipPrefix))
		b := findBook(v, e.sw)
		if b == nil || bad != nil {
			continue
		}
		if by, _ := bookedBy(b.ExternalIDs[e.key]); by != "" {
			h, _ := b.handle(by)
			list = append(list, ipam.Idle{Pool: h.poolID(), Network: string(h.network), Addr: a, Since: since})
		}
	}
	slices.SortFunc(list, func(a, b ipam.Idle) int { return a.Addr.Compare(b.Addr) })
	return list
}

// forgotten lists what seems so in all books.
func (p *Pools) forgotten(v ovsdb.View, used func(network.ID) (map[netip.Addr]bool, bool)) (list []forgotten) {
	known := make(map[network.ID]bool)
	for _, n := range p.networks() {
		known[n.ID] = true
	}
	for _, b := range books(v) {
		sw := b.ExternalIDs[keySwitch]
		if s, _ := findSwitch(v, sw); s == nil && b.bare() {
			list = append(list, forgotten{entry{sw, roleBook}, ipam.Idle{}, func(ctx context.Context) error { return p.f.tidy(ctx, sw) }})
		}
		gone := make(map[string]bool)
		for _, h := range b.handles() {
			if h.host != p.f.cfg.HostID || known[h.network] && !p.isOwed(h) || h.network != "" && p.spares(h.network) {
				continue
			}
			gone[h.id] = true
			list = append(list, forgotten{
				entry{sw, h.key()}, ipam.Idle{Pool: h.poolID(), Network: string(h.network)},
				func(ctx context.Context) error { return p.ReleasePool(ctx, h.poolID()) },
			})
		}
		list = append(list, p.unusedOf(b, gone, used)...)
	}
	return list
}

func (p *Pools) isOwed(h handle) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.owed[entry{h.sw, h.key()}]
}

// unusedOf are the bookings of this host in a book that no endpoint uses, but for
// those of handles that go as a whole.
func (p *Pools) unusedOf(b *dhcpOptions, gone map[string]bool, used func(network.ID) (map[netip.Addr]bool, bool)) (list []forgotten) {
	sw := b.ExternalIDs[keySwitch]
	living := p.living(sw)
	for key, who := range b.ExternalIDs {
		text, ok := strings.CutPrefix(key, ipPrefix)
		by, host := bookedBy(who)
		a, err := netip.ParseAddr(text)
		h, known := b.handle(by)
		if known {
			host = h.host // it may have another id since
		}
		if !ok || by == "" || err != nil || host != p.f.cfg.HostID || gone[by] || living[a] {
			continue
		}
		if known {
			if _, sure := used(h.network); !sure {
				continue
			}
		}
		h.id, h.sw = by, sw
		list = append(list, forgotten{
			entry{sw, key}, ipam.Idle{Pool: h.poolID(), Network: string(h.network), Addr: a},
			func(ctx context.Context) error { return p.free(ctx, h, a) },
		})
	}
	return list
}

// ripe remembers since when things have seemed forgotten, and returns those that
// have for long enough, marked as busy.
func (p *Pools) ripe(found []forgotten) (ripe []forgotten) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	next := make(map[entry]time.Time, len(found))
	for _, l := range found {
		since, seen := p.idle[l.entry]
		if !seen {
			since = now
		}
		next[l.entry] = since
		limit := lostTime
		if _, made := p.made[l.entry]; !made && l.key != roleBook {
			limit = diedTime
		}
		if _, busy := p.busy[l.entry]; now.Sub(since) >= limit && !busy {
			p.busy[l.entry] = ""
			l.idle.Since = since
			ripe = append(ripe, l)
		}
	}
	p.idle = next
	for e := range p.owed {
		if _, still := next[e]; !still {
			delete(p.owed, e)
		}
	}
	return ripe
}

// Summaries lists the parts that this host has in pools. Used counts what all hosts
// have of each.
func (p *Pools) Summaries() (list []ipam.Summary) {
	v, err := p.f.nb.View()
	if err != nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range books(v) {
		for _, h := range b.handles() {
			if h.host != p.f.cfg.HostID {
				continue
			}
			pool := h.pool()
			pool.Addrs = p.takenLocked(v, b, h)
			s := ipam.Summary{ID: pool.ID, Prefix: h.prefix, Range: h.within, Network: pool.Network, Static: h.static}
			s.Used, s.Total = pool.Usage()
			for _, a := range pool.Addrs {
				if _, refers := b.ExternalIDs[refKey(a, h.id)]; refers && b.ExternalIDs[ipKey(a)] == forGateway {
					s.Gateway = a
				}
			}
			list = append(list, s)
		}
	}
	return list
}
