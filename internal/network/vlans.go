package network

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// VLANs is a set of VLANs, sorted and without repetition: what a trunk carries
// tagged. Its text, in records too, is the shortest list of numbers and ranges.
type VLANs []uint16

const allowedVLANs = "numbers of 1..4094 and ranges of them with commas between, such as 10,20-30, none of them twice"

// parseVLANs takes a list as a user writes it.
func parseVLANs(v string) (VLANs, error) {
	var set [MaxVLAN + 1]bool
	for part := range strings.SplitSeq(v, ",") {
		from, to, err := parseRange(part)
		if err != nil {
			return nil, err
		}
		for tag := from; tag <= to; tag++ {
			if set[tag] {
				return nil, fmt.Errorf("%d is in it twice", tag)
			}
			set[tag] = true
		}
	}
	var list VLANs
	for tag, in := range set {
		if in {
			list = append(list, uint16(tag))
		}
	}
	return list, nil
}

func parseRange(v string) (from, to uint16, err error) {
	first, last, ranged := strings.Cut(v, "-")
	if from, err = parseVLAN(first); err != nil {
		return 0, 0, fmt.Errorf("%.20q is %w", v, err)
	}
	if !ranged {
		return from, from, nil
	}
	if to, err = parseVLAN(last); err != nil {
		return 0, 0, fmt.Errorf("%.20q is %w", v, err)
	}
	if from > to {
		return 0, 0, fmt.Errorf("%q runs backwards", v)
	}
	return from, to, nil
}

// Has tells whether a VLAN is in the set.
func (s VLANs) Has(tag uint16) bool {
	_, found := slices.BinarySearch(s, tag)
	return found
}

// String is the list as a user writes it, empty for no VLAN.
func (s VLANs) String() string {
	var b []byte
	for i := 0; i < len(s); {
		last := i
		for last+1 < len(s) && s[last+1] == s[last]+1 {
			last++
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(s[i]), 10)
		if last > i {
			b = strconv.AppendUint(append(b, '-'), uint64(s[last]), 10)
		}
		i = last + 1
	}
	return string(b)
}

// MarshalText implements encoding.TextMarshaler.
func (s VLANs) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. No text is the empty set.
func (s *VLANs) UnmarshalText(text []byte) (err error) {
	*s = VLANs{}
	if len(text) > 0 {
		*s, err = parseVLANs(string(text))
	}
	return err
}

// trunkFault tells why a port cannot have both this native VLAN, 0 for none, and
// this trunk; nil if it can.
func trunkFault(native uint16, trunk VLANs) error {
	if native != 0 && trunk.Has(native) {
		return fmt.Errorf("VLAN %d is the native one (vlan=%d), whose frames have no tag; leave it out of the list, or leave out vlan", native, native)
	}
	return nil
}

// errNoNative tells of an access port without a VLAN.
var errNoNative = errors.New("the network is a trunk without a native VLAN to fall back to; give vlan too")

// errNoServer tells of a trunk on which the driver cannot ask for a lease.
var errNoServer = errors.New("a trunk without a native VLAN drops what has no tag, so that no DHCP server is reached; give vlan=N for the native VLAN")
