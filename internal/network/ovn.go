package network

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// IPAMOVN has OVN's DHCP hand out the same addresses.
const IPAMOVN IPAMMode = "ovn"

// Encap is a type of tunnel between chassis.
type Encap string

// The tunnels that OVN makes between hypervisors (ovn-controller(8)).
const (
	EncapGeneve Encap = "geneve"
	EncapVXLAN  Encap = "vxlan"
)

// OVN is what the ovn.* options say: the network is a logical switch.
type OVN struct {
	Switch   string `json:"switch"`
	Encap    Encap  `json:"encap,omitempty"`    // empty: what the chassis has
	Localnet string `json:"localnet,omitempty"` // physical network that the switch reaches

	Router         string            `json:"router,omitempty"`
	External       string            `json:"external_network,omitempty"` // physical network of the router's gateway port
	ExternalAddrs  []netip.Prefix    `json:"external_address,omitempty"` // of the gateway port
	ExternalNext   []netip.Addr      `json:"external_gateway,omitempty"` // the router's default routes
	SNAT           bool              `json:"snat,omitempty"`
	GatewayChassis []string          `json:"gateway_chassis,omitempty"` // the first that lives has the gateway port
	DHCPOptions    map[string]string `json:"dhcp_options,omitempty"`

	Subnets []Subnet `json:"subnets,omitempty"` // of the switch, where Docker has none (--ipam-driver null)
}

const (
	allowedSwitch   = "1 to 63 of the characters A-Z a-z 0-9 . _ - + @ : /"
	allowedPhysical = "1 to 63 of the characters A-Z a-z 0-9 . _ - + @"
	allowedBool     = "true, false"
)

// CheckSwitch refuses what cannot be the name of a logical switch.
func CheckSwitch(name string) error {
	if err := checkName(name, "._-+@:/"); err != nil {
		return fmt.Errorf("ovn.switch=%q: %w; allowed is %s", name, err, allowedSwitch)
	}
	return nil
}

// ovn makes the parser of an option that is a field of Config.OVN.
func ovn(parse func(o *OVN, v string) error) func(*Config, string) error {
	return func(c *Config, v string) error {
		if c.OVN == nil {
			c.OVN = &OVN{}
		}
		return parse(c.OVN, v)
	}
}

var ovnOptions = map[string]option[Config]{
	"ovn.switch": {allowedSwitch, ovn(func(o *OVN, v string) error {
		o.Switch = v
		return checkName(v, "._-+@:/")
	})},
	"ovn.encap": {"geneve, vxlan", ovn(func(o *OVN, v string) error {
		o.Encap = Encap(strings.ToLower(v))
		return oneOf(o.Encap, EncapGeneve, EncapVXLAN)
	})},
	"ovn.localnet": {allowedPhysical, ovn(func(o *OVN, v string) error {
		o.Localnet = v
		return checkName(v, "._-+@")
	})},
	"ovn.router": {allowedSwitch, ovn(func(o *OVN, v string) error {
		o.Router = v
		return checkName(v, "._-+@:/")
	})},
	"ovn.external_network": {allowedPhysical, ovn(func(o *OVN, v string) error {
		o.External = v
		return checkName(v, "._-+@")
	})},
	"ovn.external_address": {"an address with its prefix length, such as 198.51.100.10/24, or one of each family with a comma between", ovn(func(o *OVN, v string) (err error) {
		o.ExternalAddrs, err = parseList(v, netip.ParsePrefix, "an address with a prefix length")
		return err
	})},
	"ovn.external_gateway": {"an address, or one of each family with a comma between", ovn(func(o *OVN, v string) (err error) {
		o.ExternalNext, err = parseList(v, netip.ParseAddr, "an address")
		return err
	})},
	"ovn.snat": {allowedBool, ovn(func(o *OVN, v string) (err error) {
		o.SNAT, err = parseBool(v)
		return err
	})},
	"ovn.gateway_chassis": {"names of chassis (external_ids:system-id), the preferred one first, with commas between", ovn(func(o *OVN, v string) error {
		for name := range strings.SplitSeq(v, ",") {
			if slices.Contains(o.GatewayChassis, name) {
				return fmt.Errorf("%s is named twice", name)
			}
			if err := checkName(name, "._-+@:"); err != nil {
				return err
			}
			o.GatewayChassis = append(o.GatewayChassis, name)
		}
		return nil
	})},
	"ovn.dhcp_options": {"k=v,k=v with names of OVN's DHCP options, such as lease_time=3600,mtu=1442,dns_server={192.0.2.1,192.0.2.2}", ovn(func(o *OVN, v string) (err error) {
		o.DHCPOptions, err = parseDHCPOptions(v)
		return err
	})},
}

// checkOVN looks at combinations.
func (c *Config) checkOVN(given map[string]string, internal bool, subnets []Subnet, faults *OptionsError) {
	if c.OVN == nil {
		if c.IPAM == IPAMOVN {
			faults.add("option ipam=%q: needs a logical switch; give ovn.switch too, or another ipam", given["ipam"])
		}
		if c.PortSecurity {
			faults.add("option port_security=%q: a plain Open vSwitch bridge does not have it yet; allowed is false, or true with ovn.switch", given["port_security"])
		}
		return
	}
	o := c.OVN
	needs := func(key, other string) {
		if _, ok := given[key]; ok && given[other] == "" {
			faults.add("option %s=%q: needs %s too", key, given[key], other)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(given)) {
		if strings.HasPrefix(key, "ovn.") && key != "ovn.switch" {
			needs(key, "ovn.switch")
		}
	}
	needs("ovn.external_network", "ovn.router")
	for _, key := range []string{"ovn.external_address", "ovn.external_gateway", "ovn.snat", "ovn.gateway_chassis"} {
		needs(key, "ovn.external_network")
	}
	needs("ovn.external_network", "ovn.external_address")
	if c.VLANMode == VLANAuto {
		if _, ok := given["vlan"]; ok {
			faults.add("option vlan=%q: a logical switch is a broadcast domain of its own; allowed with ovn.switch are 1..4094 and none", given["vlan"])
		}
		c.VLANMode = VLANNone
	}
	if _, ok := given["trunk"]; ok {
		faults.add("option trunk=%q: containers on a logical switch have no VLAN of their own; leave out one of trunk and ovn.switch", given["trunk"])
	}
	if given["mtu"] == "" {
		c.MTU = 0 // what the underlay leaves
	}
	if given["port_security"] == "" {
		c.PortSecurity = true
	}
	if o.Router != "" && given["gateway_mode"] == "" && !internal {
		c.Gateway = GatewayExternal // the router
	}
	if o.Router != "" && (len(subnets) == 0 || slices.ContainsFunc(subnets, func(s Subnet) bool { return !s.Gateway.IsValid() })) {
		faults.add("option ovn.router=%q: the network has no gateway address for the router to take; give --subnet and --gateway", o.Router)
	}
	if o.External != "" && internal {
		faults.add("option ovn.external_network=%q: an --internal network has no way out; leave out one of the two", o.External)
	}
	faults.addAll(o.checkExternal(given, subnets))
}

func (o *OVN) checkExternal(given map[string]string, subnets []Subnet) (texts []string) {
	add := func(key, format string, args ...any) {
		texts = append(texts, fmt.Sprintf("option %s=%q: ", key, given[key])+fmt.Sprintf(format, args...))
	}
	var addrs []netip.Addr
	for _, p := range o.ExternalAddrs {
		addrs = append(addrs, p.Addr())
		for _, s := range subnets {
			if p.Overlaps(s.Prefix) {
				add("ovn.external_address", "%s overlaps --subnet %s; allowed is an address of another subnet", p.Masked(), s.Prefix)
			}
		}
	}
	if !oneOfEach(addrs) {
		add("ovn.external_address", "allowed is one address of each family")
	}
	if !oneOfEach(o.ExternalNext) {
		add("ovn.external_gateway", "allowed is one address of each family")
	}
	for _, next := range o.ExternalNext {
		if !slices.ContainsFunc(o.ExternalAddrs, func(p netip.Prefix) bool { return p.Contains(next) && p.Addr() != next }) {
			add("ovn.external_gateway", "%s is not a neighbour of ovn.external_address=%q; allowed is another address of its subnet", next, given["ovn.external_address"])
		}
	}
	if o.SNAT && len(addrs) == 0 {
		add("ovn.snat", "there is no address to translate to; give ovn.external_address")
	}
	return texts
}

// oneOfEach tells whether a list has at most one address of each family.
func oneOfEach(list []netip.Addr) bool {
	var four, six int
	for _, a := range list {
		if a.Is4() {
			four++
		} else {
			six++
		}
	}
	return four < 2 && six < 2
}

func checkName(v, special string) error {
	switch {
	case v == "":
		return errors.New("empty")
	case len(v) > 63:
		return fmt.Errorf("%d bytes long", len(v))
	}
	for _, r := range v {
		if r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune(special, r) {
			return fmt.Errorf("has the character %q", r)
		}
	}
	return nil
}

func parseBool(v string) (bool, error) {
	switch strings.ToLower(v) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, errors.New("unknown value")
}

func parseList[T any](v string, parse func(string) (T, error), noun string) (list []T, err error) {
	for part := range strings.SplitSeq(v, ",") {
		item, err := parse(strings.TrimSpace(part))
		if err != nil {
			return nil, fmt.Errorf("%q is not %s", part, noun)
		}
		list = append(list, item)
	}
	return list, nil
}

// ovnDHCPOptions are the names that OVN knows, each with what its value has to be
// (ovn-nb(5), DHCP_Options). With any other, OVN drops the whole answer without a
// word.
var ovnDHCPOptions = dhcpKinds(map[string]string{
	dhcpNumber: `lease_time mtu default_ttl tcp_ttl arp_cache_timeout tcp_keepalive_interval T1 T2 netbios_node_type
		ip_forward_enable router_discovery ethernet_encap`,
	dhcpAddresses: `netmask router dns_server log_server lpr_server swap_server ntp_server nis_server netbios_name_server
		tftp_server_address policy_filter router_solicitation broadcast_address next_server server_id`,
	dhcpRoutes: "classless_static_route ms_classless_static_route",
	DHCPText: `domain_name domain_search domain_search_list hostname wpad bootfile_name bootfile_name_alt path_prefix
		tftp_server`,
	dhcpBool: "dhcpv6_stateless",
	dhcpMAC:  "server_mac",
})

// What the value of an option of DHCP has to be.
const (
	dhcpNumber    = "a number"
	dhcpAddresses = "an address, or a list of them in braces"
	dhcpRoutes    = "a list of prefixes and gateways in braces"
	dhcpBool      = "true or false"
	dhcpMAC       = "a MAC address"
	DHCPText      = "a text without quotes"
)

func dhcpKinds(names map[string]string) map[string]string {
	kinds := make(map[string]string)
	for kind, list := range names {
		for _, name := range strings.Fields(list) {
			kinds[name] = kind
		}
	}
	return kinds
}

// DHCPKind tells what the value of an option of DHCP has to be; empty if OVN has
// no such option.
func DHCPKind(name string) string { return ovnDHCPOptions[name] }

func checkDHCPValue(kind, v string) error {
	list := strings.FieldsFunc(strings.TrimSuffix(strings.TrimPrefix(v, "{"), "}"), func(r rune) bool { return r == ',' || r == ' ' })
	if len(list) == 0 || strings.HasPrefix(v, "{") != strings.HasSuffix(v, "}") || len(list) > 1 && v[0] != '{' && kind != DHCPText {
		return fmt.Errorf("%q is not %s", v, kind)
	}
	var err error
	switch kind {
	case dhcpNumber:
		_, err = strconv.ParseUint(v, 10, 32)
	case dhcpAddresses:
		for _, a := range list {
			if _, bad := netip.ParseAddr(a); bad != nil {
				err = bad
			}
		}
	case dhcpRoutes:
		for i, a := range list {
			_, bad := netip.ParseAddr(a)
			if i%2 == 0 {
				_, bad = netip.ParsePrefix(a)
			}
			if bad != nil || len(list)%2 != 0 {
				err = errors.New("odd")
			}
		}
	case dhcpBool:
		if v != "true" && v != "false" {
			err = errors.New("neither")
		}
	case dhcpMAC:
		_, err = net.ParseMAC(v)
	case DHCPText:
		if strings.ContainsAny(v, "\"\\{}") {
			err = errors.New("quoted")
		}
	}
	if err != nil {
		return fmt.Errorf("%q is not %s", v, kind)
	}
	return nil
}

// parseDHCPOptions takes k=v,k=v in which a value in braces has commas.
func parseDHCPOptions(v string) (map[string]string, error) {
	opts := make(map[string]string)
	depth, start := 0, 0
	var pairs []string
	for i, r := range v {
		switch {
		case r == '{':
			depth++
		case r == '}':
			depth--
		case r == ',' && depth == 0:
			pairs = append(pairs, v[start:i])
			start = i + 1
		}
	}
	if depth != 0 {
		return nil, errors.New("a brace is not closed")
	}
	for _, pair := range append(pairs, v[start:]) {
		name, value, ok := strings.Cut(pair, "=")
		switch {
		case !ok || value == "":
			return nil, fmt.Errorf("%q has no value", pair)
		case DHCPKind(name) == "":
			return nil, fmt.Errorf("OVN has no DHCP option %s", name)
		case opts[name] != "":
			return nil, fmt.Errorf("%s is given twice", name)
		}
		err := checkText(value)
		if err == nil {
			err = checkDHCPValue(DHCPKind(name), value)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		opts[name] = value
	}
	return opts, nil
}
