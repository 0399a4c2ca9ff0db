package ipam

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
)

// chooser picks pools for networks created without --subnet: subnets of bits
// length out of base, one after the other. Docker asks again while the answer
// overlaps a route of the host, so the next slot to try moves on with every
// answer and does not fall back when a pool is released.
type chooser struct {
	base  netip.Prefix
	bits  int
	flags string // what to type when base is used up
	next  uint64 // slot the next search starts at
}

func choose4() chooser {
	return chooser{base: netip.MustParsePrefix("10.208.0.0/12"), bits: 24, flags: "--subnet"}
}

// choose6 makes a unique local /48 (RFC 4193) that stays the same for a seed.
func choose6(seed string) chooser {
	sum := sha256.Sum256([]byte(seed))
	addr := [16]byte{0: 0xfd}
	copy(addr[1:6], sum[:5])
	return chooser{base: netip.PrefixFrom(netip.AddrFrom16(addr), 48), bits: 64, flags: "an IPv6 --subnet"}
}

// pick answers the next subnet that overlaps none of the given prefixes.
func (c *chooser) pick(existing []netip.Prefix) (netip.Prefix, error) {
	slots := uint64(1) << (c.bits - c.base.Bits())
	busy := make([]bool, slots)
	zero := slotNumber(c.base.Addr())
	for _, p := range existing {
		if !p.Overlaps(c.base) {
			continue
		}
		// Prefixes either nest or are apart, so p covers all of base or lies in it.
		from, to := zero, zero+slots-1
		if p.Bits() > c.base.Bits() {
			from, to = slotNumber(p.Addr()), slotNumber(end(p))
		}
		for n := from; n <= to; n++ {
			busy[n-zero] = true
		}
	}
	for i := range slots {
		slot := (c.next + i) % slots
		if !busy[slot] {
			c.next = slot + 1
			return c.subnet(zero + slot), nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("no free /%d is left in %v for an automatic pool: choose one with %s", c.bits, c.base, c.flags)
}

// skip makes the next search start behind prefix, an earlier answer.
func (c *chooser) skip(prefix netip.Prefix) {
	if c.base.Contains(prefix.Addr()) && prefix.Bits() == c.bits {
		c.next = slotNumber(prefix.Addr()) - slotNumber(c.base.Addr()) + 1
	}
}

// slotNumber is the part of an address in front of an automatic pool's host
// bits: 24 of IPv4, 64 of IPv6.
func slotNumber(a netip.Addr) uint64 {
	if a.Is4() {
		b := a.As4()
		return uint64(binary.BigEndian.Uint32(b[:]) >> 8)
	}
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8])
}

func (c *chooser) subnet(number uint64) netip.Prefix {
	if c.base.Addr().Is4() {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(number)<<8)
		return netip.PrefixFrom(netip.AddrFrom4(b), c.bits)
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], number)
	return netip.PrefixFrom(netip.AddrFrom16(b), c.bits)
}
