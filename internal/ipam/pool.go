package ipam

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"net/netip"
	"slices"
)

// PoolID names a pool for its whole life and is never used again. It is
// readable but opaque, and contains slashes and colons.
type PoolID string

// Pool is one address pool. It is a value: a change makes a new one, and the
// slice Addrs is never written to after the Pool that holds it was made.
type Pool struct {
	ID      PoolID       `json:"id"`
	Prefix  netip.Prefix `json:"prefix"`           // masked
	Range   netip.Prefix `json:"range,omitzero"`   // --ip-range; zero = whole prefix
	Auto    bool         `json:"auto,omitzero"`    // chosen by us, no --subnet was given
	Gateway netip.Addr   `json:"gateway,omitzero"` // address handed out as gateway
	Network string       `json:"network,omitzero"` // id of the network that claimed it, empty until then
	Static  bool         `json:"static,omitzero"`  // only explicit addresses (network option ipam=static)
	Seq     uint64       `json:"seq"`              // creation order
	Last    netip.Addr   `json:"last,omitzero"`    // last automatically chosen, the next search starts behind it
	Addrs   []netip.Addr `json:"addrs"`            // taken, sorted; gateway and aux addresses included
	Orphan  bool         `json:"orphan,omitzero"`  // its network is gone
	Own     []netip.Addr `json:"own,omitzero"`     // those of Addrs that are the network's own, sorted; nil: not known
}

// Request asks for one address of a pool.
type Request struct {
	Addr    string // empty = any free one
	Gateway bool   // the address is to be the gateway of the network
	Name    string // container name, known from Docker 29 on
}

// take books the address req asks for. The answer changed is false when it was
// booked already and nothing needs to be stored.
func (p Pool) take(req Request) (next Pool, addr netip.Addr, changed bool, err error) {
	switch {
	case req.Addr != "":
		if addr, err = p.parse(req.Addr); err != nil {
			return p, addr, false, err
		}
	case req.Gateway && p.Gateway.IsValid():
		addr = p.Gateway
	case p.Static && !req.Gateway:
		return p, addr, false, fmt.Errorf("network is ipam=static: give every container an address (%s)", p.addressFlags())
	default:
		if addr, err = p.choose(req.Gateway); err != nil {
			return p, addr, false, err
		}
	}
	if req.Gateway && p.Gateway.IsValid() {
		if addr == p.Gateway {
			return p, addr, false, nil
		}
		return p, addr, false, fmt.Errorf("pool %v already has the gateway %v: release it before asking for %v", p.Prefix, p.Gateway, addr)
	}
	i, taken := p.find(addr)
	if taken {
		role := ""
		if addr == p.Gateway {
			role = " as its gateway"
		}
		return p, addr, false, fmt.Errorf("address %v is already in use in pool %v%s", addr, p.Prefix, role)
	}
	addrs := append(make([]netip.Addr, 0, len(p.Addrs)+1), p.Addrs[:i]...)
	p.Addrs = append(append(addrs, addr), p.Addrs[i:]...)
	switch {
	case req.Gateway:
		p.Gateway = addr
	case req.Addr == "":
		p.Last = addr
	}
	return p, addr, true, nil
}

// release frees addr; changed is false when it was not taken.
func (p Pool) release(addr netip.Addr) (next Pool, changed bool) {
	i, taken := p.find(addr)
	if !taken {
		return p, false
	}
	p.Addrs = append(append(make([]netip.Addr, 0, len(p.Addrs)-1), p.Addrs[:i]...), p.Addrs[i+1:]...)
	if addr == p.Gateway {
		p.Gateway = netip.Addr{}
	}
	return p, true
}

// parse reads an address somebody asked for by name. It may lie outside Range.
func (p Pool) parse(text string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return addr, fmt.Errorf("%q is not an address: pool %v wants one such as %v", text, p.Prefix, first(p.Prefix))
	}
	if !p.Prefix.Contains(addr) { // also refuses zones and IPv4-mapped addresses
		return addr, fmt.Errorf("address %v is outside pool %v", addr, p.Prefix)
	}
	if addr.Less(first(p.Prefix)) {
		kind := "the network address"
		if addr.Is6() {
			kind = "the subnet-router anycast address"
		}
		return addr, fmt.Errorf("address %v is %s of pool %v and cannot be used", addr, kind, p.Prefix)
	}
	if last(p.Prefix).Less(addr) {
		return addr, fmt.Errorf("address %v is the broadcast address of pool %v and cannot be used", addr, p.Prefix)
	}
	return addr, nil
}

// choose picks a free address: the first of the prefix for a gateway when
// nobody has it, else the next free one behind Last, so that an address just
// released is the last to be used again.
func (p Pool) choose(gateway bool) (netip.Addr, error) {
	if gateway {
		if a := first(p.Prefix); !p.taken(a) {
			return a, nil
		}
	}
	lo, hi := p.bounds()
	from := lo
	if p.Last.IsValid() && !p.Last.Less(lo) && p.Last.Less(hi) {
		from = p.Last.Next()
	}
	for _, start := range []netip.Addr{from, lo} {
		if a, ok := p.freeFrom(start, hi); ok {
			return a, nil
		}
	}
	within := ""
	if p.Range.IsValid() {
		within = fmt.Sprintf(" (range %v)", p.Range)
	}
	used, total := p.usage()
	return netip.Addr{}, fmt.Errorf("no free address in pool %v%s: %d of %d in use", p.Prefix, within, used, total)
}

// freeFrom finds the first free address in a..hi. It walks the taken ones that
// follow a without a gap, never the free space, so it is quick in a large empty
// pool and linear in the taken list at worst.
func (p Pool) freeFrom(a, hi netip.Addr) (netip.Addr, bool) {
	i, _ := p.find(a)
	for ; i < len(p.Addrs) && p.Addrs[i] == a; i++ {
		if a == hi { // before Next, which has no answer behind the very last address
			return netip.Addr{}, false
		}
		a = a.Next()
	}
	return a, true
}

// bounds are the first and last address that are handed out automatically.
func (p Pool) bounds() (lo, hi netip.Addr) {
	lo, hi = first(p.Prefix), last(p.Prefix)
	if p.Range.IsValid() {
		if a := p.Range.Addr(); lo.Less(a) {
			lo = a
		}
		if a := end(p.Range); a.Less(hi) {
			hi = a
		}
	}
	return lo, hi
}

// usage counts the addresses within bounds.
func (p Pool) usage() (used, total uint64) {
	lo, hi := p.bounds()
	i, _ := p.find(lo)
	j, found := p.find(hi)
	if found {
		j++
	}
	return uint64(j - i), count(lo, hi)
}

func (p Pool) find(addr netip.Addr) (int, bool) {
	return slices.BinarySearchFunc(p.Addrs, addr, netip.Addr.Compare)
}

func (p Pool) taken(addr netip.Addr) bool {
	_, ok := p.find(addr)
	return ok
}

func (p Pool) addressFlags() string {
	if p.Prefix.Addr().Is6() {
		return "--ip6 / ipv6_address"
	}
	return "--ip / ipv4_address"
}

// first is the first address of prefix a machine may have.
func first(prefix netip.Prefix) netip.Addr {
	if pointToPoint(prefix) {
		return prefix.Addr()
	}
	return prefix.Addr().Next()
}

// last is the last address of prefix a machine may have. IPv6 has no broadcast.
func last(prefix netip.Prefix) netip.Addr {
	if prefix.Addr().Is6() || pointToPoint(prefix) {
		return end(prefix)
	}
	return end(prefix).Prev()
}

// pointToPoint prefixes hold one or two addresses and reserve none of them.
func pointToPoint(prefix netip.Prefix) bool {
	return prefix.Addr().BitLen()-prefix.Bits() <= 1
}

// end is the address of a masked prefix whose host bits are all set.
func end(prefix netip.Prefix) netip.Addr {
	b := prefix.Addr().AsSlice()
	for i := prefix.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// count is the number of addresses in lo..hi, MaxUint64 when there are more.
func count(lo, hi netip.Addr) uint64 {
	l, h := lo.As16(), hi.As16()
	low, borrow := bits.Sub64(binary.BigEndian.Uint64(h[8:]), binary.BigEndian.Uint64(l[8:]), 0)
	high, _ := bits.Sub64(binary.BigEndian.Uint64(h[:8]), binary.BigEndian.Uint64(l[:8]), borrow)
	if high > 0 || low == math.MaxUint64 {
		return math.MaxUint64
	}
	return low + 1
}
