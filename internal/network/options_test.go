package network_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	. "github.com/ovs-container-network/ovs-container-network/internal/network"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares text with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got), renew it with -update:\n%s", path, diff)
	}
}

var defaults = Config{VLANMode: VLANAuto, MTU: 1500, IPAM: IPAMDocker, Gateway: GatewayDocker}

// Every good value of every option becomes the part of the Config that it names
// and nothing else. Keys and enumerated values may have any case.
func TestNetworkOptions(t *testing.T) {
	ids := func(pairs ...string) map[string]string { return opts(pairs...) }
	for _, c := range []struct {
		options string // separated by blanks
		change  func(*Config)
	}{
		{"", func(*Config) {}},
		{"bridge=b", func(c *Config) { c.Bridge = "b" }},
		{"bridge=br-int", func(c *Config) { c.Bridge = "br-int" }},
		{"bridge=A.z_0-9+@:", nil},
		{"bridge=ABC.xyz_0-9+@x", func(c *Config) { c.Bridge = "ABC.xyz_0-9+@x" }},
		{"bridge=123456789012345", func(c *Config) { c.Bridge = "123456789012345" }},
		{"Bridge=BR0", func(c *Config) { c.Bridge = "BR0" }},
		{"vlan=auto", func(*Config) {}},
		{"VLAN=AUTO", func(*Config) {}},
		{"vlan=None", func(c *Config) { c.VLANMode = VLANNone }},
		{"vlan=1", func(c *Config) { c.VLANMode, c.VLAN = VLANTag, 1 }},
		{"vlan=4094", func(c *Config) { c.VLANMode, c.VLAN = VLANTag, 4094 }},
		{"trunk=10", func(c *Config) { c.VLANMode, c.Trunk = VLANNone, VLANs{10} }},
		{"Trunk=22,10,20-21 vlan=NONE", func(c *Config) { c.VLANMode, c.Trunk = VLANNone, VLANs{10, 20, 21, 22} }},
		{"trunk=1-2,4094 vlan=5", func(c *Config) { c.VLANMode, c.VLAN, c.Trunk = VLANTag, 5, VLANs{1, 2, 4094} }},
		{"trunk=7-7 vlan=5 gateway_mode=external", func(c *Config) {
			c.VLANMode, c.VLAN, c.Trunk, c.Gateway = VLANTag, 5, VLANs{7}, GatewayExternal
		}},
		{"mtu=576", func(c *Config) { c.MTU = 576 }},
		{"mtu=9000", func(c *Config) { c.MTU = 9000 }},
		{"MTU=65535", func(c *Config) { c.MTU = 65535 }},
		{"tenant_id=Blue/é;'\"", func(c *Config) { c.TenantID = "Blue/é;'\"" }},
		{"tenant_id=" + strings.Repeat("x", 255), func(c *Config) { c.TenantID = strings.Repeat("x", 255) }},
		{"external_ids=a=b", func(c *Config) { c.ExternalIDs = ids("a=b") }},
		{"external_ids=a=b,C.d/e=f=g,h=", func(c *Config) { c.ExternalIDs = ids("a=b", "C.d/e=f=g", "h=") }},
		{"external_ids=my-owner=x", func(c *Config) { c.ExternalIDs = ids("my-owner=x") }},
		{"ipam=docker", func(*Config) {}},
		{"ipam=STATIC", func(c *Config) { c.IPAM = IPAMStatic }},
		{"ipam=External", func(c *Config) { c.IPAM, c.VLANMode, c.Gateway = IPAMExternal, VLANNone, GatewayExternal }},
		{"ipam=external vlan=auto gateway_mode=none", func(c *Config) { c.IPAM, c.Gateway = IPAMExternal, GatewayNone }},
		{"gateway_mode=docker", func(*Config) {}},
		{"gateway_mode=External", func(c *Config) { c.Gateway = GatewayExternal }},
		{"Gateway_Mode=none", func(c *Config) { c.Gateway = GatewayNone }},
		{"bridge=b vlan=7 mtu=1400 tenant_id=t external_ids=k=v ipam=static gateway_mode=none", func(c *Config) {
			*c = Config{Bridge: "b", VLANMode: VLANTag, VLAN: 7, MTU: 1400, TenantID: "t", ExternalIDs: ids("k=v"), IPAM: IPAMStatic, Gateway: GatewayNone}
		}},
	} {
		got, err := ParseOptions(opts(strings.Fields(c.options)...), false, subnets("10.0.0.0/24"))
		if c.change == nil {
			if err == nil {
				t.Errorf("%s: accepted", c.options)
			}
			continue
		}
		want := defaults
		c.change(&want)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", c.options, err, diff)
		}
	}
}

// badValues are values that no option of that key allows, on networks and on
// attachments alike, each with words of the reason.
var badValues = []struct{ key, value, reason string }{
	{"vlan", "", "not a VLAN"},
	{"vlan", "0", "out of range"},
	{"vlan", "4095", "out of range"},
	{"vlan", "65536", "not a VLAN"},
	{"vlan", "-1", "not a VLAN"},
	{"vlan", "+1", "not a VLAN"},
	{"vlan", "abc", "not a VLAN"},
	{"vlan", "100x", "not a VLAN"},
	{"vlan", " 100", "not a VLAN"},
	{"vlan", "1,2", "not a VLAN"},
	{"vlan", "0x10", "not a VLAN"},
	{"vlan", "1_0", "not a VLAN"},
	{"trunk", "", `"" is not a VLAN`},
	{"trunk", "0", `"0" is out of range`},
	{"trunk", "4095", "out of range"},
	{"trunk", "1,4095", `"4095" is out of range`},
	{"trunk", "0-4094", "out of range"},
	{"trunk", "10-", `"10-" is not a VLAN`},
	{"trunk", "-10", "not a VLAN"},
	{"trunk", "10-12-14", "not a VLAN"},
	{"trunk", "30-20", `"30-20" runs backwards`},
	{"trunk", "10,10", "10 is in it twice"},
	{"trunk", "5-9,7", "7 is in it twice"},
	{"trunk", "10,", `"" is not a VLAN`},
	{"trunk", ",10", "not a VLAN"},
	{"trunk", "10, 20", `" 20" is not a VLAN`},
	{"trunk", "10;20", "not a VLAN"},
	{"trunk", "+10", "not a VLAN"},
	{"trunk", "auto", "not a VLAN"},
	{"trunk", "all", "not a VLAN"},
	{"trunk", strings.Repeat("1,", 100_000) + "1", "1 is in it twice"},
	{"mtu", "", "not a number"},
	{"mtu", "12", "out of range"},
	{"mtu", "575", "out of range"},
	{"mtu", "65536", "out of range"},
	{"mtu", "70000", "out of range"},
	{"mtu", "-1500", "not a number"},
	{"mtu", "+1500", "not a number"},
	{"mtu", "1500.0", "not a number"},
	{"mtu", "99999999999999999999", "not a number"},
	{"external_ids", "", "has no ="},
	{"external_ids", "a", `"a" has no =`},
	{"external_ids", "a=b,", `"" has no =`},
	{"external_ids", "=b", "has no key"},
	{"external_ids", `a="b"`, "quote"},
	{"external_ids", "a='b'", "quote"},
	{"external_ids", "a=`b`", "quote"},
	{"external_ids", "a=1,a=2", "twice"},
	{"external_ids", "a,=b,owner=c", `"a" has no =, "=b" has no key, the key owner is reserved`},
	{"external_ids", "a b=c", "space"},
	{"external_ids", "a= b,c =d", "space"},
	{"external_ids", "a=b\nc", `'\n'`},
	{"external_ids", "a=\x01", `'\x01'`},
	{"external_ids", "a=" + strings.Repeat("x", 256), "256 bytes"},
	{"external_ids", strings.Repeat("x", 256) + "=a", "256 bytes"},
	{"external_ids", "owner=me", "reserved"},
	{"external_ids", "Owner=me", "reserved"},
	{"external_ids", "a=b,network_id=1", "reserved"},
	{"external_ids", "network_name=1", "reserved"},
	{"external_ids", "endpoint_id=1", "reserved"},
	{"external_ids", "tenant_id=1", "reserved"},
	{"external_ids", "container_id=1", "reserved"},
	{"external_ids", "container_name=1", "reserved"},
	{"external_ids", "attached-mac=1", "reserved"},
	{"external_ids", "host_id=1", "reserved"},
	{"external_ids", "host=h1", "reserved"},
	{"external_ids", "offload=on", "reserved"},
	{"external_ids", "iface-id=1", "reserved"},
	{"external_ids", "vm-id=1", "reserved"},
	{"external_ids", "ovn-installed=true", "reserved"},
}

// badNetworkValues are those that only a network's options can have.
var badNetworkValues = []struct{ key, value, reason string }{
	{"bridge", "", "empty"},
	{"bridge", "1234567890123456", "16 bytes"},
	{"bridge", "a b", `' '`},
	{"bridge", "a/b", `'/'`},
	{"bridge", "a;b", `';'`},
	{"bridge", "a\nb", `'\n'`},
	{"bridge", "a\x00b", `'\x00'`},
	{"bridge", "bré", `'é'`},
	{"bridge", "a:b", `':'`},
	{"bridge", "a%d", `'%'`},
	{"bridge", "-a", `'-'`},
	{"bridge", ".", `'.'`},
	{"bridge", "..", `'.'`},
	{"tenant_id", "", "empty"},
	{"tenant_id", strings.Repeat("x", 256), "256 bytes"},
	{"tenant_id", "a\tb", `'\t'`},
	{"tenant_id", "a\u202eb", `'\u202e'`},
	{"ipam", "foo", "unknown"},
	{"ipam", "", "unknown"},
	{"ipam", "outside", "unknown"},
	{"gateway_mode", "nat", "unknown"},
	{"gateway_mode", "", "unknown"},
	{"trunk", "none", `"none" is not a VLAN`},
	{"trunks", "1-2", "unknown option trunks"},
	{"", "x", "unknown option"},
	{"vlan ", "1", "unknown option"},
	{"com.docker.network.bridge.name", "br0", "unknown option"},
}

// Every bad value is refused by a message with the key, the value, the reason
// and what is allowed.
func TestBadNetworkOptions(t *testing.T) {
	for _, c := range append(slices.Clone(badValues), badNetworkValues...) {
		_, err := ParseOptions(map[string]string{c.key: c.value}, false, nil)
		refused(t, err, c.key, quoted(c.value), c.reason, "allowed are ")
		var all *OptionsError
		if !errors.As(err, &all) || len(all.Faults) != 1 {
			t.Errorf("%s=%q: got %v, want one fault", c.key, c.value, err)
		}
	}
}

// Attachments refuse the same values, and all keys that only a network has.
func TestBadAttachmentOptions(t *testing.T) {
	bad := slices.Clone(badValues)
	for _, key := range NetworkOptions() {
		if !slices.Contains(AttachmentOptions(), key) {
			bad = append(bad, struct{ key, value, reason string }{key, "x", "unknown driver-opt " + key})
		}
	}
	bad = append(bad, struct{ key, value, reason string }{"vlan", "auto", "not a VLAN"})
	for _, c := range bad {
		_, err := ParseAttachment(map[string]string{c.key: c.value}, false)
		refused(t, err, "driver-opt", c.key, quoted(c.value), c.reason, "allowed are ")
	}
}

// Every good value of an attachment is taken; what Docker itself puts among the
// options is not looked at.
func TestAttachmentOptions(t *testing.T) {
	tag := func(n uint16) *uint16 { return &n }
	for _, c := range []struct {
		options string
		want    Attachment
	}{
		{"", Attachment{}},
		{"vlan=NONE", Attachment{VLAN: tag(0)}},
		{"VLAN=4094", Attachment{VLAN: tag(4094)}},
		{"trunk=20-22,10", Attachment{Trunk: &VLANs{10, 20, 21, 22}}},
		{"TRUNK=None vlan=7", Attachment{Trunk: &VLANs{}, VLAN: tag(7)}},
		{"trunk=10 vlan=none", Attachment{Trunk: &VLANs{10}, VLAN: tag(0)}},
		{"vlan=1 mtu=576 External_IDs=a=B", Attachment{VLAN: tag(1), MTU: 576, ExternalIDs: opts("a=B")}},
		{"com.docker.network.endpoint.sysctls=x com.docker.network.portmap= COM.Docker.x=y mtu=65535", Attachment{MTU: 65535}},
	} {
		got, err := ParseAttachment(opts(strings.Fields(c.options)...), false)
		if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", c.options, err, diff)
		}
	}
}

// IPv6 needs 1280 bytes, on networks with an IPv6 subnet and on endpoints with an
// IPv6 address, and only there.
func TestMTUWithIPv6(t *testing.T) {
	for _, c := range []struct {
		mtu  string
		nets []Subnet
		ok   bool
	}{
		{"1279", subnets("10.0.0.0/24"), true},
		{"1279", subnets("10.0.0.0/24", "fd00::/64"), false},
		{"1279", subnets("fd00::/64"), false},
		{"1280", subnets("fd00::/64"), true},
	} {
		_, err := ParseOptions(opts("mtu="+c.mtu), false, c.nets)
		_, errAttachment := ParseAttachment(opts("mtu="+c.mtu), len(c.nets) > 1 || c.nets[0].Prefix.Addr().Is6())
		for what, err := range map[string]error{"network": err, "attachment": errAttachment} {
			if c.ok && err != nil {
				t.Errorf("%s, mtu=%s with %v: %v", what, c.mtu, c.nets, err)
			} else if !c.ok {
				refused(t, err, `mtu="`+c.mtu+`"`, "IPv6", "1280")
			}
		}
	}
}

// Combinations that cannot work are refused.
func TestImpossibleNetworks(t *testing.T) {
	noGateway := subnets("10.0.0.0/24", "fd00::/64")
	noGateway[1].Gateway = Subnet{}.Gateway
	for _, c := range []struct {
		options  string
		internal bool
		nets     []Subnet
		words    []string
	}{
		{"", false, subnets("10.0.0.0/24", "10.0.1.0/24"), []string{"--subnet", "2 times for IPv4"}},
		{"", false, subnets("fd00::/64", "fd01::/64", "fd02::/64"), []string{"--subnet", "3 times for IPv6"}},
		{"gateway_mode=external", true, subnets("10.0.0.0/24"), []string{`gateway_mode="external"`, "--internal"}},
		{"ipam=static", false, nil, []string{`ipam="static"`, "--subnet"}},
		{"gateway_mode=external", false, nil, []string{`gateway_mode="external"`, "--gateway"}},
		{"ipam=external gateway_mode=docker", false, subnets("10.0.0.0/24"), []string{`gateway_mode="docker"`, "--ipam-driver null"}},
		{"gateway_mode=external", false, noGateway, []string{`gateway_mode="external"`, "--gateway"}},
		{"trunk=10,20-30 vlan=25", false, nil, []string{`trunk="10,20-30"`, "VLAN 25 is the native one", "leave"}},
		{"trunk=10 vlan=auto", false, nil, []string{`vlan="auto"`, "trunk", "allowed with trunk are 1..4094"}},
		{"trunk=10 ovn.switch=ls", false, nil, []string{`trunk="10"`, "ovn.switch", "leave out"}},
		{"trunk=10 ovn.switch=ls vlan=9", false, nil, []string{`trunk="10"`, "ovn.switch"}},
		{"trunk=10 gateway_mode=external", false, subnets("10.0.0.0/24"), []string{`gateway_mode="external"`, "vlan=N"}},
		{"trunk=10 vlan=none gateway_mode=external", false, subnets("10.0.0.0/24"), []string{`gateway_mode="external"`, "vlan=N"}},
		{"vlan=1 VLAN=2", false, nil, []string{`vlan="1"`, "given twice"}},
		{"mtu=1500 MTU=1500", false, nil, []string{`mtu="1500"`, "given twice"}},
	} {
		_, err := ParseOptions(opts(strings.Fields(c.options)...), c.internal, c.nets)
		refused(t, err, c.words...)
	}
	for _, internal := range []bool{false, true} {
		if c, err := ParseOptions(nil, internal, nil); err != nil || c.Internal != internal {
			t.Errorf("a network without subnets, internal=%v: %+v, %v", internal, c, err)
		}
	}
}

// All faults of one command come in one message.
func TestAllFaultsAtOnce(t *testing.T) {
	_, err := ParseOptions(map[string]string{
		"bridge": "br/very-long-name", "vlan": "4095", "VLAN": "9", "mtu": "12", "tenant_id": "", "external_ids": "owner=me",
		"ipam": "dhcp", "gateway_mode": "nat", "vlna": "7", "colour": "blue\n",
	}, false, subnets("10.0.0.0/24", "10.1.0.0/24"))
	if err == nil {
		t.Fatal("accepted")
	}
	_, errAttachment := ParseAttachment(map[string]string{
		"vlan": "auto", "mtu": "1279x", "external_ids": "a", "ip": "10.0.0.2", "com.docker.network.portmap": "[]",
	}, true)
	if errAttachment == nil {
		t.Fatal("accepted")
	}
	var all *OptionsError
	if !errors.As(err, &all) || len(all.Faults) != 10 {
		t.Errorf("got %d faults, want 10", len(all.Faults))
	}
	golden(t, "faults.txt", strings.Join(all.Faults, "\n")+"\n\n"+errAttachment.Error()+"\n")
}
