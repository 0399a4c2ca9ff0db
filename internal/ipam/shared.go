package ipam

import (
	"crypto/rand"
	"hash/fnv"
	"net/netip"
)

// What follows is for pools that are kept elsewhere, where hosts share them: the
// same rules and the same words as for those of a Registry.

// OptionSwitch is the --ipam-opt that asks for the pool of a logical switch, the
// only one there is.
const OptionSwitch = "ovn.switch"

// CheckOptions refuses every --ipam-opt, all of them in one message.
func CheckOptions(opts map[string]string) error { return checkOptions(opts) }

// ParseSubnet reads --subnet and --ip-range; a range equal to the subnet comes back
// zero.
func ParseSubnet(pool, subPool string, v6 bool) (prefix, within netip.Prefix, err error) {
	return parseSubnet(pool, subPool, v6)
}

// Automatic chooses a subnet that overlaps none of the existing ones. That of IPv4
// follows from the seed as long as it is free; that of IPv6 is in a unique local
// /48 made by chance, as RFC 4193 wants it.
func Automatic(seed string, existing []netip.Prefix, v6 bool) (netip.Prefix, error) {
	if v6 {
		c := choose6(rand.Text())
		return c.pick(existing)
	}
	c := choose4()
	h := fnv.New64a()
	h.Write([]byte(seed)) //nolint:errcheck // never fails
	c.next = h.Sum64() % (1 << (c.bits - c.base.Bits()))
	return c.pick(existing)
}

// Pick answers the address that a request gets of a pool in which Addrs, sorted,
// are taken.
func (p Pool) Pick(req Request) (netip.Addr, error) {
	_, addr, _, err := p.take(req)
	return addr, err
}

// Usage counts the addresses that can be chosen automatically, and those of them
// that are in Addrs.
func (p Pool) Usage() (used, total uint64) { return p.usage() }
