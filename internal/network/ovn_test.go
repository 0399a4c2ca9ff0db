package network_test

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	. "github.com/ovs-container-network/ovs-container-network/internal/network"
)

var sameAddrs = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

// onSwitch is what ovn.switch=ls alone makes of a network.
func onSwitch() Config {
	return Config{
		VLANMode: VLANNone, IPAM: IPAMDocker, Gateway: GatewayDocker, PortSecurity: true,
		OVN: &OVN{Switch: "ls"},
	}
}

// Every good value of an option of a logical switch becomes the part of the Config
// that it names. With ovn.switch the MTU is left to the underlay, the VLAN to the
// switch, and port security is on.
func TestOVNOptions(t *testing.T) {
	long := strings.Repeat("x", 63)
	for _, c := range []struct {
		options string // beside ovn.switch=ls
		change  func(*Config)
	}{
		{"", func(*Config) {}},
		{"bridge=br-int", func(c *Config) { c.Bridge = "br-int" }},
		{"mtu=1400", func(c *Config) { c.MTU = 1400 }},
		{"vlan=none", func(*Config) {}},
		{"vlan=100", func(c *Config) { c.VLANMode, c.VLAN = VLANTag, 100 }},
		{"port_security=False", func(c *Config) { c.PortSecurity = false }},
		{"port_security=true", func(*Config) {}},
		{"ipam=OVN", func(c *Config) { c.IPAM = IPAMOVN }},
		{"OVN.Encap=Geneve", func(c *Config) { c.OVN.Encap = EncapGeneve }},
		{"ovn.encap=vxlan", func(c *Config) { c.OVN.Encap = EncapVXLAN }},
		{"ovn.localnet=phys-net_1.a+b@c", func(c *Config) { c.OVN.Localnet = "phys-net_1.a+b@c" }},
		{"ovn.router=R:1/a", func(c *Config) { c.OVN.Router, c.Gateway = "R:1/a", GatewayExternal }},
		{"ovn.router=r gateway_mode=docker", func(c *Config) { c.OVN.Router = "r" }},
		{"ovn.router=r gateway_mode=none", func(c *Config) { c.OVN.Router, c.Gateway = "r", GatewayNone }},
		{"ovn.dhcp_options=lease_time=60", func(c *Config) { c.OVN.DHCPOptions = opts("lease_time=60") }},
		{"ovn.dhcp_options=dns_server={192.0.2.1,192.0.2.2},T1=30", func(c *Config) {
			c.OVN.DHCPOptions = opts("dns_server={192.0.2.1,192.0.2.2}", "T1=30")
		}},
		{"ovn.dhcp_options=domain_name=a-1.example,domain_search_list=a.example,router=192.0.2.1,ip_forward_enable=1", func(c *Config) {
			c.OVN.DHCPOptions = opts("domain_name=a-1.example", "domain_search_list=a.example", "router=192.0.2.1", "ip_forward_enable=1")
		}},
		{"ovn.dhcp_options=classless_static_route={10.0.0.0/8,192.0.2.1,0.0.0.0/0,192.0.2.2},server_mac=02:00:00:00:00:01,dhcpv6_stateless=true", func(c *Config) {
			c.OVN.DHCPOptions = opts("classless_static_route={10.0.0.0/8,192.0.2.1,0.0.0.0/0,192.0.2.2}", "server_mac=02:00:00:00:00:01", "dhcpv6_stateless=true")
		}},
		{
			"ovn.router=r ovn.external_network=physnet1 ovn.external_address=198.51.100.10/24,fd00:51::10/64 " +
				"ovn.external_gateway=198.51.100.1,fd00:51::1 ovn.snat=TRUE ovn.gateway_chassis=h2,h1.example",
			func(c *Config) {
				c.Gateway = GatewayExternal
				c.OVN = &OVN{
					Switch: "ls", Router: "r", External: "physnet1", SNAT: true, GatewayChassis: []string{"h2", "h1.example"},
					ExternalAddrs: []netip.Prefix{netip.MustParsePrefix("198.51.100.10/24"), netip.MustParsePrefix("fd00:51::10/64")},
					ExternalNext:  []netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("fd00:51::1")},
				}
			},
		},
		{"ovn.router=r ovn.external_network=" + long + " ovn.external_address=198.51.100.10/24 ovn.snat=false", func(c *Config) {
			c.Gateway = GatewayExternal
			c.OVN = &OVN{Switch: "ls", Router: "r", External: long, ExternalAddrs: []netip.Prefix{netip.MustParsePrefix("198.51.100.10/24")}}
		}},
	} {
		got, err := ParseOptions(opts(append(strings.Fields(c.options), "ovn.switch=ls")...), false, subnets("10.0.0.0/24"))
		want := onSwitch()
		c.change(&want)
		if diff := cmp.Diff(want, got, sameAddrs); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", c.options, err, diff)
		}
	}
	for _, name := range []string{"l", "LS.1_2-3+4@5:6/7", long} {
		if c, err := ParseOptions(opts("ovn.switch="+name), false, nil); err != nil || c.OVN.Switch != name {
			t.Errorf("switch %s: %+v, %v", name, c.OVN, err)
		}
	}
}

// An internal network on a router has no default route.
func TestOVNInternalRouter(t *testing.T) {
	c, err := ParseOptions(opts("ovn.switch=ls", "ovn.router=r"), true, subnets("10.0.0.0/24"))
	if err != nil || c.Gateway != GatewayDocker || !c.Internal {
		t.Errorf("%+v, %v", c, err)
	}
}

// badOVNValues are values that no network can have.
var badOVNValues = []struct{ key, value, reason string }{
	{"port_security", "", "unknown"},
	{"port_security", "yes", "unknown"},
	{"port_security", "1", "unknown"},
	{"ovn.switch", "", "empty"},
	{"ovn.switch", strings.Repeat("x", 64), "64 bytes"},
	{"ovn.switch", "a b", `' '`},
	{"ovn.switch", "a\nb", `'\n'`},
	{"ovn.switch", "a;b", `';'`},
	{"ovn.switch", "a,b", `','`},
	{"ovn.switch", "brücke", `'ü'`},
	{"ovn.switch", `a"b`, `'"'`},
	{"ovn.encap", "", "unknown"},
	{"ovn.encap", "stt", "unknown"},
	{"ovn.encap", "geneve,vxlan", "unknown"},
	{"ovn.localnet", "", "empty"},
	{"ovn.localnet", "a:b", `':'`},
	{"ovn.localnet", "a,b", `','`},
	{"ovn.router", "", "empty"},
	{"ovn.router", "a b", `' '`},
	{"ovn.external_network", "", "empty"},
	{"ovn.external_network", "a/b", `'/'`},
	{"ovn.external_address", "", "not an address with a prefix length"},
	{"ovn.external_address", "198.51.100.10", "not an address with a prefix length"},
	{"ovn.external_address", "198.51.100.10/33", "not an address with a prefix length"},
	{"ovn.external_address", "198.51.100.10/24,", "not an address with a prefix length"},
	{"ovn.external_address", "outside/24", "not an address with a prefix length"},
	{"ovn.external_gateway", "", "not an address"},
	{"ovn.external_gateway", "198.51.100.1/24", "not an address"},
	{"ovn.external_gateway", "198.51.100.256", "not an address"},
	{"ovn.external_gateway", "198.51.100.1 198.51.100.2", "not an address"},
	{"ovn.snat", "", "unknown"},
	{"ovn.snat", "on", "unknown"},
	{"ovn.gateway_chassis", "", "empty"},
	{"ovn.gateway_chassis", "h1,", "empty"},
	{"ovn.gateway_chassis", "h1,h1", "h1 is named twice"},
	{"ovn.gateway_chassis", "h1, h2", `' '`},
	{"ovn.dhcp_options", "", "has no value"},
	{"ovn.dhcp_options", "lease_time", "has no value"},
	{"ovn.dhcp_options", "lease_time=", "has no value"},
	{"ovn.dhcp_options", "lease_time=60,", "has no value"},
	{"ovn.dhcp_options", "lease=60", "no DHCP option lease"},
	{"ovn.dhcp_options", "mtu=1400,mtu=1500", "mtu is given twice"},
	{"ovn.dhcp_options", "dns_server={192.0.2.1", "brace"},
	{"ovn.dhcp_options", "dns_server=192.0.2.1}", "brace"},
	{"ovn.dhcp_options", "mtu=14\n00", `'\n'`},
	{"ovn.dhcp_options", "mtu=big", `mtu: "big" is not a number`},
	{"ovn.dhcp_options", "lease_time={60,70}", `"{60,70}" is not a number`},
	{"ovn.dhcp_options", "router=gateway", `"gateway" is not an address`},
	{"ovn.dhcp_options", "dns_server={}", `"{}" is not an address`},
	{"ovn.dhcp_options", "dns_server={192.0.2.1,one}", "is not an address"},
	{"ovn.dhcp_options", "classless_static_route={10.0.0.0/8}", "is not a list of prefixes and gateways"},
	{"ovn.dhcp_options", `domain_name="example.org"`, "is not a text without quotes"},
	{"ovn.dhcp_options", "server_mac=02:00", "is not a MAC address"},
	{"ovn.dhcp_options", "dhcpv6_stateless=1", "is not true or false"},
	{"ovn.colour", "red", "unknown option ovn.colour"},
	{"ovn.", "x", "unknown option"},
	{"ovn", "ls", "unknown option"},
}

// Every bad value is refused by a message with the key, the value, the reason and
// what is allowed, and is the only fault of a network that is right otherwise.
func TestBadOVNOptions(t *testing.T) {
	for _, c := range badOVNValues {
		given := opts("ovn.switch=ls", "ovn.router=r", "ovn.external_network=p", "ovn.external_address=198.51.100.10/24")
		given[c.key] = c.value
		_, err := ParseOptions(given, false, subnets("10.0.0.0/24"))
		refused(t, err, c.key+"="+quoted(c.value), c.reason, "allowed are ")
		var all *OptionsError
		if !errors.As(err, &all) || slices.ContainsFunc(all.Faults, func(fault string) bool {
			return !strings.Contains(fault, c.key) && !(c.value == "" && strings.Contains(fault, "needs "+c.key))
		}) {
			t.Errorf("%s=%q: faults of other options: %v", c.key, c.value, err)
		}
	}
}

// ovnOptions are all that need ovn.switch, each with a good value.
var needSwitch = map[string]string{
	"ovn.encap": "geneve", "ovn.localnet": "physnet1", "ovn.router": "r", "ovn.external_network": "physnet1",
	"ovn.external_address": "198.51.100.10/24", "ovn.external_gateway": "198.51.100.1", "ovn.snat": "true",
	"ovn.gateway_chassis": "h1", "ovn.dhcp_options": "mtu=1400",
}

// Without ovn.switch no other ovn option is taken, and neither is what a plain
// bridge cannot do.
func TestOVNOptionsNeedTheSwitch(t *testing.T) {
	for _, key := range NetworkOptions() {
		if value := needSwitch[key]; value != "" {
			_, err := ParseOptions(map[string]string{key: value}, false, subnets("10.0.0.0/24"))
			refused(t, err, "option "+key+"="+quoted(value), "needs ovn.switch too")
		} else if strings.HasPrefix(key, "ovn.") && key != "ovn.switch" {
			t.Errorf("%s is not tested", key)
		}
	}
	_, err := ParseOptions(opts("ipam=external", "ovn.switch=ls", "ovn.router=r"), false, subnets("10.0.0.0/24"))
	refused(t, err, `ovn.router="r"`, "ipam=external")
	_, err = ParseOptions(opts("ipam=ovn"), false, subnets("10.0.0.0/24"))
	refused(t, err, `ipam="ovn"`, "give ovn.switch too")
	_, err = ParseOptions(opts("port_security=true"), false, nil)
	refused(t, err, `port_security="true"`, "allowed is false, or true with ovn.switch")
	if c, err := ParseOptions(opts("port_security=false"), false, nil); err != nil || c.PortSecurity || c.OVN != nil {
		t.Errorf("%+v, %v", c, err)
	}
}

// Combinations that cannot work are refused, in one message that names the option,
// its value and what would do.
func TestImpossibleOVNNetworks(t *testing.T) {
	noGateway := subnets("10.0.0.0/24")
	noGateway[0].Gateway = netip.Addr{}
	const out = "ovn.router=r ovn.external_network=p ovn.external_address=198.51.100.10/24,fd00:51::10/64 "
	for _, c := range []struct {
		options  string // beside ovn.switch=ls
		internal bool
		nets     []Subnet
		words    []string
		faults   int
	}{
		{"vlan=auto", false, nil, []string{`vlan="auto"`, "allowed with ovn.switch are 1..4094 and none"}, 1},
		{"ovn.router=r", false, nil, []string{`ovn.router="r"`, "give --subnet and --gateway"}, 1},
		{"ovn.router=r", false, noGateway, []string{`ovn.router="r"`, "give --subnet and --gateway"}, 1},
		{"ovn.router=r", true, noGateway, []string{`ovn.router="r"`, "give --subnet and --gateway"}, 1},
		{"ovn.router=r gateway_mode=external", true, subnets("10.0.0.0/24"), []string{`gateway_mode="external"`, "--internal"}, 1},
		{"ovn.external_network=p", false, subnets("10.0.0.0/24"), []string{`ovn.external_network="p"`, "needs ovn.router too", "needs ovn.external_address too"}, 2},
		{"ovn.router=r ovn.external_network=p", false, subnets("10.0.0.0/24"), []string{`ovn.external_network="p"`, "needs ovn.external_address too"}, 1},
		{"ovn.router=r ovn.external_network=p ovn.snat=true", false, subnets("10.0.0.0/24"), []string{"needs ovn.external_address too", `ovn.snat="true"`, "give ovn.external_address"}, 2},
		{"ovn.router=r ovn.external_address=198.51.100.10/24", false, subnets("10.0.0.0/24"), []string{`ovn.external_address="198.51.100.10/24"`, "needs ovn.external_network too"}, 1},
		{"ovn.router=r ovn.gateway_chassis=h1", false, subnets("10.0.0.0/24"), []string{`ovn.gateway_chassis="h1"`, "needs ovn.external_network too"}, 1},
		{"ovn.router=r ovn.snat=false", false, subnets("10.0.0.0/24"), []string{`ovn.snat="false"`, "needs ovn.external_network too"}, 1},
		{out, true, subnets("10.0.0.0/24"), []string{`ovn.external_network="p"`, "--internal"}, 1},
		{"ovn.router=r ovn.external_network=p ovn.external_address=198.51.100.10/24,198.51.101.10/24", false, subnets("10.0.0.0/24"),
			[]string{`ovn.external_address="198.51.100.10/24,198.51.101.10/24"`, "one address of each family"}, 1},
		{out + "ovn.external_gateway=198.51.99.1", false, subnets("10.0.0.0/24"), []string{`ovn.external_gateway="198.51.99.1"`, "198.51.99.1 is not a neighbour of", "allowed"}, 1},
		{out + "ovn.external_gateway=198.51.100.10", false, subnets("10.0.0.0/24"), []string{`ovn.external_gateway="198.51.100.10"`, "is not a neighbour of", "allowed"}, 1},
		{out + "ovn.external_gateway=198.51.100.1,198.51.100.2", false, subnets("10.0.0.0/24"),
			[]string{`ovn.external_gateway="198.51.100.1,198.51.100.2"`, "one address of each family"}, 1},
		{out, false, subnets("198.51.100.0/25"), []string{`ovn.external_address="198.51.100.10/24,fd00:51::10/64"`, "overlaps --subnet 198.51.100.0/25"}, 1},
		{"mtu=1279", false, subnets("fd00::/64"), []string{`mtu="1279"`, "1280"}, 1},
		{"ovn.encap=stt vlan=auto mtu=12 ovn.colour=red", false, nil, []string{`ovn.encap="stt"`, `vlan="auto"`, `mtu="12"`, `ovn.colour="red"`}, 4},
	} {
		_, err := ParseOptions(opts(append(strings.Fields(c.options), "ovn.switch=ls")...), c.internal, c.nets)
		refused(t, err, c.words...)
		var all *OptionsError
		if errors.As(err, &all) && len(all.Faults) != c.faults {
			t.Errorf("%s: %d faults, want %d:\n%s", c.options, len(all.Faults), c.faults, strings.Join(all.Faults, "\n"))
		}
		for _, fault := range faultsOf(err) {
			for _, key := range []string{"gateway_mode", "mtu", "ipam"} {
				if strings.Contains(fault, key+`=""`) {
					t.Errorf("%s: a fault of an option that was not given: %s", c.options, fault)
				}
			}
		}
	}
}

func faultsOf(err error) []string {
	var all *OptionsError
	if !errors.As(err, &all) {
		return nil
	}
	return all.Faults
}

// port_security of an attachment is its own or the network's.
func TestPortSecurityOfAttachments(t *testing.T) {
	on, off := true, false
	for value, want := range map[string]*bool{"": nil, "port_security=true": &on, "Port_Security=FALSE": &off} {
		got, err := ParseAttachment(opts(strings.Fields(value)...), false)
		if diff := cmp.Diff(Attachment{PortSecurity: want}, got); diff != "" || err != nil {
			t.Errorf("%q: %v (-want +got):\n%s", value, err, diff)
		}
		for _, network := range []bool{false, true} {
			n := Network{Config: Config{PortSecurity: network, OVN: &OVN{Switch: "ls"}}}
			secure := network
			if want != nil {
				secure = *want
			}
			if p := n.Port(Endpoint{ID: eid("a"), Secure: got.PortSecurity}); p.Secure != secure {
				t.Errorf("%q on a network with %v: %v", value, network, p.Secure)
			}
		}
	}
	_, err := ParseAttachment(opts("port_security=maybe"), false)
	refused(t, err, `driver-opt port_security="maybe"`, "allowed are true, false")
}

// What an attachment asks for and its kind of network cannot do is refused.
func TestAttachmentsOfTheWrongKind(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("plain", "10.0.0.0/24")
		r.create("logical", "10.1.0.0/24", "ovn.switch=ls")
		before := r.store.String()
		_, err := r.CreateEndpoint(t.Context(), endpointRequest("plain", "a", "10.0.0.2/24", "port_security=true"))
		refused(t, err, `port_security="true"`, "allowed is false")
		_, err = r.CreateEndpoint(t.Context(), endpointRequest("logical", "b", "10.1.0.2/24", "vlan=7"))
		refused(t, err, `vlan="7"`, "leave it out")
		if r.store.String() != before {
			t.Error("a refused attachment left something behind")
		}
		for _, req := range []EndpointRequest{
			endpointRequest("plain", "a", "10.0.0.2/24", "port_security=false"), endpointRequest("logical", "b", "10.1.0.2/24", "port_security=false"),
		} {
			if ep, err := r.CreateEndpoint(t.Context(), req); err != nil || ep.Secure == nil || *ep.Secure {
				t.Errorf("%+v, %v", ep, err)
			}
		}
	})
}

// A network on a logical switch is on no VLAN of the bridge: its segment is the
// switch, whatever the network. A plain network beside it is another segment.
func TestSegmentsOfSwitches(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("one", "10.1.0.0/24", "ovn.switch=ls")
		r.create("two", "10.1.0.0/24", "ovn.switch=ls")
		r.create("other", "10.1.0.0/24", "ovn.switch=ls2")
		r.create("plain", "10.1.0.0/24", "vlan=none")
		enter := func(network, name, addr string) error {
			_, err := r.CreateEndpoint(t.Context(), endpointRequest(network, name, addr))
			return err
		}
		for network, name := range map[string]string{"one": "a", "other": "b", "plain": "c"} {
			if err := enter(network, name, "10.1.0.2/24"); err != nil {
				t.Error(err)
			}
		}
		refused(t, enter("two", "d", "10.1.0.2/24"), "10.1.0.2", "is already used by", "logical switch ls")
	})
}

// The options that a network was made with are shown as they were typed.
func TestOVNOptionsAsText(t *testing.T) {
	c, err := ParseOptions(opts("ovn.switch=ls", "ovn.router=r", "ipam=ovn"), false, subnets("10.0.0.0/24"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ovn.switch=ls", "ovn.router=r", "ipam=ovn", "gateway_mode=external"} {
		if !slices.Contains(strings.Fields(c.String()), want) {
			t.Errorf("%q is not in %q", want, c)
		}
	}
}

// The same request again, after what was left open has been filled in, is success;
// one with another option is not.
func TestCreateOVNNetworkTwice(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		given := opts("ovn.switch=ls", "ovn.router=r", "ovn.external_network=p", "ovn.external_address=198.51.100.10/24", "ovn.dhcp_options=mtu=1400", "ipam=ovn")
		again := func(options map[string]string) error {
			return r.CreateNetwork(t.Context(), CreateRequest{ID: nid("n"), Options: options, Subnets: subnets("10.0.0.0/24")})
		}
		for range 2 {
			if err := again(given); err != nil {
				t.Fatal(err)
			}
		}
		for key, value := range map[string]string{"ovn.switch": "ls2", "ovn.external_address": "198.51.100.11/24", "ovn.dhcp_options": "mtu=1401", "mtu": "1400"} {
			other := maps.Clone(given)
			other[key] = value
			refused(t, again(other), "exists already")
		}
	})
}
