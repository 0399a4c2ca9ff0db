package network_test

import (
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	. "github.com/ovs-container-network/ovs-container-network/internal/network"
)

// quoted is a value as messages show it.
func quoted(v string) string { return strconv.Quote(v) }

var bridgeName = regexp.MustCompile(`^[A-Za-z0-9_+@][A-Za-z0-9._+@-]{0,14}$`)

// Whatever comes, nothing panics, what is accepted can be built, and a refusal
// names every key with its value.
func FuzzParseOptions(f *testing.F) {
	for _, c := range append(slices.Clone(badValues), badNetworkValues...) {
		f.Add(c.key, c.value, "vlan", "10", false, true, true)
	}
	for _, c := range badOVNValues {
		f.Add(c.key, c.value, "ovn.switch", "ls", false, true, false)
	}
	for key, value := range needSwitch {
		f.Add(key, value, "ovn.switch", "ls", false, true, true)
		f.Add(key, value, "ovn.router", "r", true, false, true)
	}
	f.Add("mirror.dest", "mon0", "mirror.ports", "web,db", false, true, true)
	f.Add("mirror.vlan", "7", "VLAN", "7", false, true, true)
	f.Add("mirror.vlan", "7", "ovn.switch", "ls", false, true, true)
	f.Add("ovn.external_address", "198.51.100.10/24,fd00:51::10/64", "ovn.external_gateway", "198.51.100.1,fd00:51::1", false, true, true)
	f.Add("ipam", "ovn", "ovn.switch", "ls", false, false, false)
	f.Add("port_security", "TRUE", "ovn.snat", "TRUE", false, false, false)
	f.Add("bridge", "br-int", "VLAN", "none", true, true, true)
	f.Add("mtu", "1279", "gateway_mode", "external", false, true, false)
	f.Add("trunk", "10,20-30", "vlan", "25", false, true, false)
	f.Add("trunk", "1-4094", "gateway_mode", "external", false, true, false)
	f.Add("TRUNK", "4094,1,2", "vlan", "auto", false, true, false)
	f.Add("trunk", "7", "ovn.switch", "ls", false, true, false)
	f.Add("external_ids", "a=b,c=d", "tenant_id", "blue", false, false, true)
	f.Fuzz(func(t *testing.T, key1, value1, key2, value2 string, internal, v4, v6 bool) {
		given := map[string]string{key1: value1, key2: value2}
		for k, v := range given {
			if !utf8.ValidString(k) || !utf8.ValidString(v) {
				return // cannot come in JSON
			}
		}
		var nets []Subnet
		if v4 {
			nets = append(nets, subnets("10.0.0.0/24")...)
		}
		if v6 {
			nets = append(nets, subnets("fd00::/64")...)
		}
		c, err := ParseOptions(given, internal, nets)
		if err != nil {
			checkRefusal(t, err, given)
			return
		}
		if c.Bridge != "" && !bridgeName.MatchString(c.Bridge) {
			t.Errorf("accepted bridge %q", c.Bridge)
		}
		switch c.VLANMode {
		case VLANAuto, VLANNone:
			if c.VLAN != 0 {
				t.Errorf("VLAN %d with mode %s", c.VLAN, c.VLANMode)
			}
		case VLANTag:
			if c.VLAN < 1 || c.VLAN > 4094 {
				t.Errorf("accepted VLAN %d", c.VLAN)
			}
		default:
			t.Errorf("accepted mode %q", c.VLANMode)
		}
		if c.OVN == nil || c.MTU != 0 { // else what the underlay leaves
			checkMTU(t, c.MTU, v6)
		}
		checkTrunk(t, c.VLAN, c.Trunk)
		if len(c.Trunk) > 0 && (c.OVN != nil || c.VLANMode == VLANAuto || c.VLAN == 0 && c.Gateway == GatewayExternal) {
			t.Errorf("accepted the trunk %s of %+v", c.Trunk, c)
		}
		checkSwitch(t, c)
		checkIDs(t, c.ExternalIDs)
		if strings.ContainsFunc(c.TenantID, func(r rune) bool { return !unicode.IsPrint(r) }) || len(c.TenantID) > 255 {
			t.Errorf("accepted tenant %q", c.TenantID)
		}
		if c.IPAM != IPAMDocker && c.IPAM != IPAMStatic && c.IPAM != IPAMExternal && (c.IPAM != IPAMOVN || c.OVN == nil) || c.Internal != internal ||
			c.Gateway != GatewayDocker && c.Gateway != GatewayExternal && c.Gateway != GatewayNone ||
			c.Gateway == GatewayExternal && (internal || len(nets) == 0 && c.IPAM != IPAMExternal) {
			t.Errorf("accepted %+v", c)
		}
		if again, err := ParseOptions(shout(given), internal, nets); err != nil || again.VLAN != c.VLAN || again.MTU != c.MTU || again.IPAM != c.IPAM || again.Gateway != c.Gateway {
			t.Errorf("keys in capitals are taken for something else: %+v, %v", again, err)
		}
	})
}

var switchName = regexp.MustCompile(`^[A-Za-z0-9._+@:/-]{1,63}$`)

// checkSwitch fails unless what is said of a logical switch can be made. Two options
// never make a way out, which needs four.
func checkSwitch(t *testing.T, c Config) {
	o := c.OVN
	if o == nil {
		if c.PortSecurity {
			t.Error("accepted port_security on a plain bridge")
		}
		return
	}
	if !switchName.MatchString(o.Switch) || o.Router != "" && !switchName.MatchString(o.Router) || o.Localnet != "" && !switchName.MatchString(o.Localnet) {
		t.Errorf("accepted the names %+v", o)
	}
	if o.Encap != "" && o.Encap != EncapGeneve && o.Encap != EncapVXLAN {
		t.Errorf("accepted the encapsulation %q", o.Encap)
	}
	if o.External != "" || o.SNAT || len(o.ExternalAddrs)+len(o.ExternalNext)+len(o.GatewayChassis) > 0 {
		t.Errorf("accepted a way out without all that it needs: %+v", o)
	}
	for k, v := range o.DHCPOptions {
		if strings.ContainsFunc(v, func(r rune) bool { return !unicode.IsPrint(r) || r == '"' }) || k == "" || v == "" {
			t.Errorf("accepted the DHCP option %q=%q", k, v)
		}
	}
}

func FuzzParseAttachment(f *testing.F) {
	for _, c := range badValues {
		f.Add(c.key, c.value, "mtu", "1400", true)
	}
	f.Add("vlan", "none", "external_ids", "a=b", false)
	f.Add("trunk", "NONE", "vlan", "7", false)
	f.Add("trunk", "10,20-30", "vlan", "21", false)
	f.Add("port_security", "False", "Port_Security", "yes", false)
	f.Add("com.docker.network.endpoint.sysctls", "x", "mtu", "1279", true)
	f.Fuzz(func(t *testing.T, key1, value1, key2, value2 string, ipv6 bool) {
		given := map[string]string{key1: value1, key2: value2}
		for k, v := range given {
			if !utf8.ValidString(k) || !utf8.ValidString(v) {
				return // cannot come in JSON
			}
		}
		a, err := ParseAttachment(given, ipv6)
		if err != nil {
			checkRefusal(t, err, given)
			return
		}
		if a.VLAN != nil && *a.VLAN > 4094 {
			t.Errorf("accepted VLAN %d", *a.VLAN)
		}
		if a.MTU != 0 {
			checkMTU(t, a.MTU, ipv6)
		}
		if a.VLAN != nil && a.Trunk != nil {
			checkTrunk(t, *a.VLAN, *a.Trunk)
		}
		checkIDs(t, a.ExternalIDs)
	})
}

// checkTrunk fails unless the list is in order and comes back from its own text.
func checkTrunk(t *testing.T, native uint16, trunk VLANs) {
	for i, tag := range trunk {
		if tag < 1 || tag > 4094 || tag == native || i > 0 && tag <= trunk[i-1] {
			t.Errorf("accepted trunk %v with native VLAN %d", []uint16(trunk), native)
		}
	}
	var again VLANs
	if err := again.UnmarshalText([]byte(trunk.String())); err != nil || !slices.Equal(again, trunk) {
		t.Errorf("%v is written %q and read %v, %v", []uint16(trunk), trunk, []uint16(again), err)
	}
}

// Whatever text is taken for a list of VLANs has one canonical form, which is no
// longer, and names the same VLANs.
func FuzzVLANs(f *testing.F) {
	for _, text := range []string{"", "10", "10,20-30", "30,10-12", "1-4094", "4094,1", "7-7", "5-9,7", "010-011", "1-2-3", "-", ","} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var list VLANs
		if list.UnmarshalText([]byte(text)) != nil {
			return
		}
		checkTrunk(t, 0, list)
		if canonical := list.String(); len(canonical) > len(text) {
			t.Errorf("%q became the longer %q", text, canonical)
		}
		named := map[uint16]bool{}
		for part := range strings.SplitSeq(text, ",") {
			first, last, _ := strings.Cut(part, "-")
			if last == "" {
				last = first
			}
			from, _ := strconv.Atoi(first)
			to, _ := strconv.Atoi(last)
			for tag := from; tag <= to && part != ""; tag++ {
				named[uint16(tag)] = true
			}
		}
		if len(named) != len(list) {
			t.Errorf("%q names %d VLANs, %v has %d", text, len(named), list, len(list))
		}
		for tag := range uint16(MaxVLAN + 2) {
			if list.Has(tag) != named[tag] {
				t.Errorf("%q: has %d: %v", text, tag, list.Has(tag))
			}
		}
	})
}

// checkRefusal fails unless every fault names a key that was given, with its
// value, and what is allowed.
func checkRefusal(t *testing.T, err error, given map[string]string) {
	var all *OptionsError
	if !errors.As(err, &all) || len(all.Faults) == 0 {
		t.Fatalf("got %v, want an OptionsError", err)
	}
	for _, fault := range all.Faults {
		named := false
		for k, v := range given {
			named = named || strings.Contains(strings.ToLower(fault), strings.ToLower(k)) && strings.Contains(fault, quoted(v))
		}
		if !named || !strings.Contains(fault, "allowed") && !strings.Contains(fault, "given twice") && !strings.Contains(fault, "give") && !strings.Contains(fault, "leave out") && !strings.Contains(fault, "needs") {
			t.Errorf("this names no option, or no remedy: %q", fault)
		}
	}
}

func checkMTU(t *testing.T, mtu int, ipv6 bool) {
	if mtu < 576 || mtu > 65535 || ipv6 && mtu < 1280 {
		t.Errorf("accepted MTU %d, IPv6 %v", mtu, ipv6)
	}
}

func checkIDs(t *testing.T, ids map[string]string) {
	for k, v := range ids {
		odd := func(r rune) bool { return !unicode.IsPrint(r) || strings.ContainsRune("'\"`", r) }
		if k == "" || len(k) > 255 || len(v) > 255 || strings.ContainsFunc(k+v, odd) || strings.ContainsAny(k, " ,=") || k == KeyOwner || strings.HasPrefix(k, "ovn-") {
			t.Errorf("accepted external id %q=%q", k, v)
		}
	}
}

// shout is the same options with keys and enumerated values in capitals, as
// far as these have capitals that Docker's command line would lower again.
func shout(given map[string]string) map[string]string {
	loud := make(map[string]string, len(given))
	for k, v := range given {
		loud[strings.ToUpper(k)] = v
	}
	return loud
}
