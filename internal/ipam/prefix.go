package ipam

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// unusable prefixes hold addresses that no interface may have.
var unusable = []struct {
	prefix netip.Prefix
	why    string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "this network"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("255.255.255.255/32"), "limited broadcast"},
	{netip.MustParsePrefix("::/127"), "unspecified and loopback"},
	{netip.MustParsePrefix("::ffff:0:0/96"), "IPv4-mapped"},
	// The kernel gives every interface one; 169.254.0.0/16 is allowed because
	// IPv4 interfaces live well without.
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
}

// parseSubnet reads --subnet and --ip-range. Host bits are masked, as Docker's
// own IPAM does. A range equal to the subnet comes back zero.
func parseSubnet(pool, subPool string, v6 bool) (prefix, within netip.Prefix, err error) {
	if prefix, err = parsePrefix("--subnet", pool, v6); err != nil {
		return prefix, within, err
	}
	if prefix.Bits() == 0 {
		return prefix, within, fmt.Errorf("--subnet %v is every address there is: give the network's own subnet, or use --ipam-driver null", prefix)
	}
	for _, u := range unusable {
		if u.prefix.Overlaps(prefix) {
			return prefix, within, fmt.Errorf("--subnet %v cannot be used: it overlaps %v (%s)", prefix, u.prefix, u.why)
		}
	}
	if subPool == "" {
		return prefix, within, nil
	}
	if within, err = parsePrefix("--ip-range", subPool, v6); err != nil {
		return prefix, within, err
	}
	if within.Bits() < prefix.Bits() || !prefix.Contains(within.Addr()) {
		return prefix, within, fmt.Errorf("--ip-range %v is not within --subnet %v", within, prefix)
	}
	if lo, hi := (Pool{Prefix: prefix, Range: within}).bounds(); hi.Less(lo) {
		return prefix, within, fmt.Errorf("--ip-range %v holds no address of --subnet %v that a container can have", within, prefix)
	}
	if within == prefix {
		within = netip.Prefix{}
	}
	return prefix, within, nil
}

func parsePrefix(flag, text string, v6 bool) (netip.Prefix, error) {
	family, example := "IPv4", "10.0.0.0/24"
	if v6 {
		family, example = "IPv6", "fd00:1::/64"
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return prefix, fmt.Errorf("%s %q is not a subnet: give an address and its bits, such as %s", flag, text, example)
	}
	prefix = prefix.Masked()
	if prefix.Addr().Is4In6() {
		return prefix, fmt.Errorf("%s %s is IPv4-mapped: give it in plain IPv4 or IPv6, such as %s", flag, text, example)
	}
	if prefix.Addr().Is6() != v6 {
		return prefix, fmt.Errorf("%s %v is of the wrong family: an %s subnet was asked for, such as %s", flag, prefix, family, example)
	}
	return prefix, nil
}

// checkOptions refuses every --ipam-opt, all of them in one message.
func checkOptions(opts map[string]string) error {
	if len(opts) == 0 {
		return nil
	}
	var given []string
	for _, key := range slices.Sorted(maps.Keys(opts)) {
		given = append(given, fmt.Sprintf("%s=%q", key, opts[key]))
	}
	return errors.New("unknown --ipam-opt " + strings.Join(given, ", ") + ": allowed is " + OptionSwitch)
}
