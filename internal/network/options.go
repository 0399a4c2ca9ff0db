package network

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// VLANMode says where a network's VLAN comes from.
type VLANMode string

// IPAMMode says who picks a container's address.
type IPAMMode string

// GatewayMode says who is the default route of a container.
type GatewayMode string

// The values of the enumerated options.
const (
	VLANAuto VLANMode = "auto" // a tag of its own, chosen by the fabric
	VLANNone VLANMode = "none" // untagged
	VLANTag  VLANMode = "tag"  // given by the user

	IPAMDocker IPAMMode = "docker" // the IPAM driver
	IPAMStatic IPAMMode = "static" // the user, for every container

	// IPAMExternal leaves it to a DHCP server, or to what runs in the container.
	IPAMExternal IPAMMode = "external"

	GatewayDocker   GatewayMode = "docker"   // Docker's own gateway service (docker_gwbridge)
	GatewayExternal GatewayMode = "external" // the network's gateway address, owned by a router outside
	GatewayNone     GatewayMode = "none"     // nobody
)

// Limits of the option values.
const (
	MinVLAN    = 1
	MaxVLAN    = 4094
	MinMTU     = 576
	MinMTU6    = 1280 // RFC 8200, section 5
	MaxMTU     = 65535
	DefaultMTU = 1500

	maxBridgeName = 15  // IFNAMSIZ less the final zero
	maxText       = 255 // of a tenant_id, an external_ids key or value
)

// Config is everything that the options of `docker network create` can say,
// parsed. Only ParseOptions makes one; Fabric.Plan completes it.
type Config struct {
	Bridge      string            `json:"bridge,omitempty"` // empty: the fabric's default
	VLANMode    VLANMode          `json:"vlan_mode"`
	VLAN        uint16            `json:"vlan,omitempty"`  // 0 is untagged
	Trunk       VLANs             `json:"trunk,omitempty"` // tagged; VLAN is then the native one, 0 for none
	MTU         int               `json:"mtu"`
	TenantID    string            `json:"tenant_id,omitempty"`
	ExternalIDs map[string]string `json:"external_ids,omitempty"`
	IPAM        IPAMMode          `json:"ipam"`
	Gateway     GatewayMode       `json:"gateway_mode"`
	Internal    bool              `json:"internal,omitempty"`

	DHCP        bool          `json:"dhcp,omitempty"` // the driver is the client for its containers
	DHCPTimeout time.Duration `json:"dhcp_timeout,omitempty"`
	DHCPRelease ReleaseMode   `json:"dhcp_release,omitempty"`
	DHCPGrace   time.Duration `json:"dhcp_grace,omitempty"` // of ReleaseAfter

	OVN          *OVN `json:"ovn,omitempty"` // nil: the network is on a plain bridge
	PortSecurity bool `json:"port_security,omitempty"`

	Mirror *Mirror `json:"mirror,omitempty"` // nil: only observers say what is copied
}

// Attachment is everything that the options of one container's attachment can
// say (`docker network connect --driver-opt`).
type Attachment struct {
	VLAN        *uint16
	Trunk       *VLANs // empty: none, though the network is a trunk
	MTU         int    // 0: the network's
	ExternalIDs map[string]string

	PortSecurity *bool // nil: the network's
	ClientID     string

	Observer bool // it gets copies of the network's packets, and sends nothing
}

// option is one key that can be given: what it allows, in words, and how a
// value of it becomes part of a T.
type option[T any] struct {
	allowed string
	parse   func(*T, string) error
}

const (
	allowedVLAN = "1..4094, none, auto"
	allowedMTU  = "576..65535, 1280 and up with IPv6"
	allowedIDs  = "k=v,k=v with printable characters, no quotes, and none of the keys that the driver or Open vSwitch uses itself"
)

var networkOptions = merged(bridgeOptions, dhcpOptions, ovnOptions, mirrorOptions)

var bridgeOptions = map[string]option[Config]{
	"bridge": {"1 to 15 of the characters A-Z a-z 0-9 . _ - + @, not starting with - or .", func(c *Config, v string) error {
		c.Bridge = v
		return checkBridgeName(v)
	}},
	"vlan": {allowedVLAN, func(c *Config, v string) (err error) {
		switch v = strings.ToLower(v); v {
		case "auto", "none":
			c.VLANMode = VLANMode(v)
		default:
			c.VLANMode = VLANTag
			c.VLAN, err = parseVLAN(v)
		}
		return err
	}},
	"trunk": {allowedVLANs, func(c *Config, v string) (err error) {
		c.Trunk, err = parseVLANs(v)
		return err
	}},
	"mtu": {allowedMTU, func(c *Config, v string) (err error) {
		c.MTU, err = parseMTU(v)
		return err
	}},
	"tenant_id": {"1 to 255 printable characters", func(c *Config, v string) error {
		c.TenantID = v
		return checkText(v)
	}},
	"external_ids": {allowedIDs, func(c *Config, v string) (err error) {
		c.ExternalIDs, err = parseExternalIDs(v)
		return err
	}},
	"port_security": {allowedBool, func(c *Config, v string) (err error) {
		c.PortSecurity, err = parseBool(v)
		return err
	}},
	"ipam": {"docker, static, external, ovn", func(c *Config, v string) error {
		c.IPAM = IPAMMode(strings.ToLower(v))
		return oneOf(c.IPAM, IPAMDocker, IPAMStatic, IPAMExternal, IPAMOVN)
	}},
	"gateway_mode": {"docker, external, none", func(c *Config, v string) error {
		c.Gateway = GatewayMode(strings.ToLower(v))
		return oneOf(c.Gateway, GatewayDocker, GatewayExternal, GatewayNone)
	}},
}

func merged[T any](tables ...map[string]option[T]) map[string]option[T] {
	all := make(map[string]option[T])
	for _, t := range tables {
		maps.Copy(all, t)
	}
	return all
}

var attachmentOptions = merged(portOptions, observerOptions)

var portOptions = map[string]option[Attachment]{
	"vlan": {"1..4094, none", func(a *Attachment, v string) (err error) {
		var tag uint16
		if !strings.EqualFold(v, "none") {
			tag, err = parseVLAN(v)
		}
		a.VLAN = &tag
		return err
	}},
	"trunk": {allowedVLANs + ", or none", func(a *Attachment, v string) (err error) {
		list := VLANs{}
		if !strings.EqualFold(v, "none") {
			list, err = parseVLANs(v)
		}
		a.Trunk = &list
		return err
	}},
	"mtu": {allowedMTU, func(a *Attachment, v string) (err error) {
		a.MTU, err = parseMTU(v)
		return err
	}},
	"external_ids": {allowedIDs, func(a *Attachment, v string) (err error) {
		a.ExternalIDs, err = parseExternalIDs(v)
		return err
	}},
	"port_security": {allowedBool, func(a *Attachment, v string) error {
		on, err := parseBool(v)
		a.PortSecurity = &on
		return err
	}},
	"dhcp.client_id": {"1 to 255 printable characters, or bytes such as 01:02:42:ac:11:00:02", func(a *Attachment, v string) error {
		a.ClientID = v
		return checkText(v)
	}},
}

// NetworkOptions lists the keys of `docker network create --opt`, sorted.
func NetworkOptions() []string { return slices.Sorted(maps.Keys(networkOptions)) }

// AttachmentOptions lists the keys of `docker network connect --driver-opt`,
// sorted.
func AttachmentOptions() []string { return slices.Sorted(maps.Keys(attachmentOptions)) }

// OptionsError is every fault of one set of options, in one line each.
type OptionsError struct{ Faults []string }

func (e *OptionsError) Error() string { return strings.Join(e.Faults, "; ") }

func (e *OptionsError) add(format string, args ...any) {
	e.Faults = append(e.Faults, fmt.Sprintf(format, args...))
}

func (e *OptionsError) addAll(faults []string) { e.Faults = append(e.Faults, faults...) }

// orNil returns e if it holds faults.
func (e *OptionsError) orNil() error {
	if len(e.Faults) == 0 {
		return nil
	}
	return e
}

// ParseOptions makes a Config of the options of `docker network create`. Keys
// and enumerated values may have any case. All faults are returned together,
// as an *OptionsError that names each key, its value and what is allowed:
// unknown keys, malformed values, and combinations that cannot work with these
// subnets.
func ParseOptions(opts map[string]string, internal bool, subnets []Subnet) (Config, error) {
	c := Config{VLANMode: VLANAuto, MTU: DefaultMTU, IPAM: IPAMDocker, Gateway: GatewayDocker, Internal: internal}
	faults := &OptionsError{}
	given := parseAll(networkOptions, "option", opts, &c, faults)

	var v4, v6 int
	gateways := true
	for _, s := range subnets {
		if s.Prefix.Addr().Is4() {
			v4++
		} else {
			v6++
		}
		gateways = gateways && s.Gateway.IsValid()
	}
	if v4 > 1 || v6 > 1 {
		faults.add("--subnet was given %d times for IPv4 and %d times for IPv6: allowed is one subnet of each", v4, v6)
	}
	if v6 > 0 && c.MTU >= MinMTU && c.MTU < MinMTU6 {
		faults.add("option mtu=%q: allowed are %s, and this network has an IPv6 subnet", given["mtu"], allowedMTU)
	}
	c.checkTrunk(given, faults)
	c.checkOVN(given, internal, subnets, faults)
	c.checkMirror(given, faults)
	c.checkOutside(given, internal, subnets, faults)
	if c.IPAM == IPAMStatic && v4+v6 == 0 {
		faults.add("option ipam=%q: the network has no subnet to choose addresses from; give --subnet and another IPAM driver than null", given["ipam"])
	}
	if c.Gateway == GatewayExternal {
		switch {
		case internal:
			faults.add("option gateway_mode=%q: an --internal network has no default route; leave out one of the two", given["gateway_mode"])
		case c.IPAM == IPAMExternal: // whoever gives the address tells the gateway, too
		case (v4+v6 == 0 || !gateways) && given["gateway_mode"] != "": // else the router's, of which more is said
			faults.add("option gateway_mode=%q: the network has no gateway address; give --subnet and --gateway", given["gateway_mode"])
		}
	}
	return c, faults.orNil()
}

// checkTrunk looks at what is said beside a trunk. What is refused of a trunk on a
// logical switch, checkOVN tells.
func (c *Config) checkTrunk(given map[string]string, faults *OptionsError) {
	if _, ok := given["trunk"]; !ok || c.OVN != nil {
		return
	}
	if c.VLANMode == VLANAuto {
		if _, ok := given["vlan"]; ok {
			faults.add("option vlan=%q: a trunk has the VLANs of its list; allowed with trunk are 1..4094 for a native VLAN, and none", given["vlan"])
		}
		c.VLANMode = VLANNone
	}
	if err := trunkFault(c.VLAN, c.Trunk); err != nil {
		faults.add("option trunk=%q: %v", given["trunk"], err)
	}
	if c.VLAN == 0 && c.Gateway == GatewayExternal {
		faults.add("option gateway_mode=%q: a trunk without a native VLAN drops what has no tag, so that no gateway is reached; give vlan=N for the native VLAN, or another gateway_mode", given["gateway_mode"])
	}
}

// ParseAttachment makes an Attachment of the options of one endpoint. Keys of
// Docker's own (com.docker.…) are not looked at. ipv6 tells whether the
// endpoint has an IPv6 address. Faults come as from ParseOptions.
func ParseAttachment(opts map[string]string, ipv6 bool) (Attachment, error) {
	var a Attachment
	own := make(map[string]string, len(opts))
	for k, v := range opts {
		if !strings.HasPrefix(strings.ToLower(k), "com.docker.") {
			own[k] = v
		}
	}
	faults := &OptionsError{}
	given := parseAll(attachmentOptions, "driver-opt", own, &a, faults)
	if ipv6 && a.MTU >= MinMTU && a.MTU < MinMTU6 {
		faults.add("driver-opt mtu=%q: allowed are %s, and this endpoint has an IPv6 address", given["mtu"], allowedMTU)
	}
	if a.Observer && a.VLAN != nil {
		faults.add("driver-opt vlan=%q: the port of an observer (mirror.dest=self) is in no VLAN; leave out one of the two", given["vlan"])
	}
	if a.VLAN != nil && a.Trunk != nil {
		if err := trunkFault(*a.VLAN, *a.Trunk); err != nil {
			faults.add("driver-opt trunk=%q: %v", given["trunk"], err)
		}
	}
	return a, faults.orNil()
}

// parseAll feeds every option to its parser, in the order of the keys so that
// messages are stable, and returns the values by lower-case key.
func parseAll[T any](table map[string]option[T], noun string, opts map[string]string, into *T, faults *OptionsError) map[string]string {
	given := make(map[string]string, len(opts))
	keys := slices.Sorted(maps.Keys(opts))
	for _, key := range keys {
		value, name := opts[key], strings.ToLower(key)
		opt, known := table[name]
		if !known {
			faults.add("unknown %s %s=%q: allowed are %s", noun, key, value, strings.Join(slices.Sorted(maps.Keys(table)), ", "))
			continue
		}
		if _, twice := given[name]; twice {
			faults.add("%s %s=%q: given twice, in different case", noun, key, value)
			continue
		}
		given[name] = value
		if err := opt.parse(into, value); err != nil {
			faults.add("%s %s=%q: %v; allowed are %s", noun, name, value, err, opt.allowed)
		}
	}
	return given
}

func checkBridgeName(v string) error {
	switch {
	case v == "":
		return fmt.Errorf("empty")
	case len(v) > maxBridgeName:
		return fmt.Errorf("%d bytes long", len(v))
	case v[0] == '-' || v[0] == '.':
		return fmt.Errorf("starts with %q", v[0])
	}
	for _, r := range v {
		if r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("._-+@", r) {
			return fmt.Errorf("has the character %q", r)
		}
	}
	return nil
}

// parseVLAN takes decimal digits only: strconv would let "+10" pass.
func parseVLAN(v string) (uint16, error) {
	n, err := strconv.ParseUint(v, 10, 16)
	if err != nil || strings.HasPrefix(v, "+") {
		return 0, fmt.Errorf("not a VLAN")
	}
	if n < MinVLAN || n > MaxVLAN {
		return 0, fmt.Errorf("out of range")
	}
	return uint16(n), nil
}

func parseMTU(v string) (int, error) {
	n, err := strconv.ParseUint(v, 10, 32)
	if err != nil || strings.HasPrefix(v, "+") {
		return 0, fmt.Errorf("not a number of bytes")
	}
	if n < MinMTU || n > MaxMTU {
		return 0, fmt.Errorf("out of range")
	}
	return int(n), nil
}

func checkText(v string) error {
	if v == "" {
		return fmt.Errorf("empty")
	}
	if len(v) > maxText {
		return fmt.Errorf("%d bytes long", len(v))
	}
	for _, r := range v {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("has the character %q", r)
		}
	}
	return nil
}

// reservedIDs are external_ids keys with a meaning to this driver, to
// ovs-vswitchd or to ovn-controller (ovs-vswitchd.conf.db(5), ovn-controller(8)).
var reservedIDs = []string{
	KeyOwner, KeyNetworkID, KeyNetworkName, KeyEndpointID, KeyTenantID, KeyContainerID, KeyContainerName, KeyAttachedMAC, KeyOffload, KeyHostID, KeyHost,
	"iface-id", "iface-id-ver", "iface-status", "mirror-id", "vm-id", "vm-uuid", "xs-vif-uuid", "xs-network-uuid", "xs-vm-uuid",
	"vif-plugging", "fake-bridge-id",
}

func parseExternalIDs(v string) (map[string]string, error) {
	ids := map[string]string{}
	var faults []string
	for pair := range strings.SplitSeq(v, ",") {
		key, value, _ := strings.Cut(pair, "=")
		err := checkExternalID(pair)
		if _, twice := ids[key]; twice && err == nil {
			err = fmt.Errorf("the key %s is given twice", key)
		}
		if err != nil {
			faults = append(faults, err.Error())
		}
		ids[key] = value
	}
	if len(faults) > 0 {
		return nil, errors.New(strings.Join(faults, ", "))
	}
	return ids, nil
}

func checkExternalID(pair string) error {
	key, value, ok := strings.Cut(pair, "=")
	lower := strings.ToLower(key)
	switch {
	case !ok:
		return fmt.Errorf("%q has no =", pair)
	case key == "":
		return fmt.Errorf("%q has no key", pair)
	case strings.ContainsAny(pair, "'\"`"):
		return fmt.Errorf("%q has a quote", pair)
	case slices.Contains(reservedIDs, lower) || strings.HasPrefix(lower, "ovn-"):
		return fmt.Errorf("the key %s is reserved", key)
	case strings.ContainsFunc(key, unicode.IsSpace):
		return fmt.Errorf("the key %q has a space", key)
	}
	for _, text := range []string{key, value} {
		if err := checkText(text); err != nil && text != "" {
			return fmt.Errorf("%q: %w", text, err)
		}
	}
	return nil
}

func oneOf[T ~string](v T, allowed ...T) error {
	if !slices.Contains(allowed, v) {
		return fmt.Errorf("unknown value")
	}
	return nil
}

// completedAs tells whether planned is c with what was left open filled in.
func (c Config) completedAs(planned Config) bool {
	if c.Bridge == "" {
		c.Bridge = planned.Bridge
	}
	if c.VLANMode == VLANAuto || c.OVN != nil && c.VLANMode == VLANNone {
		c.VLAN, c.VLANMode = planned.VLAN, planned.VLANMode
	}
	if c.MTU == 0 {
		c.MTU = planned.MTU
	}
	if c.OVN != nil && planned.OVN != nil {
		o := *c.OVN
		o.Subnets = planned.OVN.Subnets
		c.OVN = &o
	}
	return reflect.DeepEqual(c, planned)
}

// String renders the options as a user would type them, for status.
func (c Config) String() string {
	parts := []string{"bridge=" + c.Bridge, fmt.Sprintf("mtu=%d", c.MTU), "gateway_mode=" + string(c.Gateway), "vlan=" + c.VLANText()}
	if len(c.Trunk) > 0 {
		parts = append(parts, "trunk="+c.Trunk.String())
	}
	if c.TenantID != "" {
		parts = append(parts, "tenant_id="+c.TenantID)
	}
	if c.OVN != nil {
		parts = append(parts, "ovn.switch="+c.OVN.Switch)
		if c.OVN.Router != "" {
			parts = append(parts, "ovn.router="+c.OVN.Router)
		}
	}
	if c.Mirror != nil {
		parts = append(parts, "mirror.direction="+string(c.Mirror.Direction))
	}
	if c.IPAM != IPAMDocker {
		parts = append(parts, "ipam="+string(c.IPAM))
	}
	sort.Strings(parts)
	return strings.Join(parts, " ")
}

// VLANText is the VLAN as a user reads it.
func (c Config) VLANText() string { return vlanText(c.VLAN) }

func vlanText(tag uint16) string {
	if tag == 0 {
		return "none"
	}
	return strconv.Itoa(int(tag))
}
