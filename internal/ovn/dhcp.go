package ovn

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// Roles of the rows by which OVN's DHCP servers of a switch know what to answer.
const (
	roleDHCP4 = "dhcp4"
	roleDHCP6 = "dhcp6"
)

// leaseTime is that of OVN's DHCP, in seconds. An address is static: a lease that
// ends is given again.
const leaseTime = 3600

// server is the DHCP server that OVN plays on a switch for one family.
type server struct {
	role    string
	cidr    string
	options map[string]string
}

// servers are those that a network with ipam=ovn wants of its switch.
func servers(n network.Network) (list []server) {
	if n.Config.IPAM != network.IPAMOVN {
		return nil
	}
	for _, s := range n.Logical() {
		w := server{role: roleDHCP4, cidr: s.Prefix.String(), options: map[string]string{}}
		given := n.Config.OVN.DHCPOptions
		if s.Prefix.Addr().Is6() {
			w.role = roleDHCP6
			w.options["server_id"] = serverMAC(n.Config.OVN.Switch).String()
			maps.Copy(w.options, sixOnly(given))
			list = append(list, w)
			continue
		}
		id := s.Gateway
		if !id.IsValid() {
			id = s.Prefix.Addr().Next()
		}
		maps.Copy(w.options, map[string]string{
			"server_id": id.String(), "server_mac": serverMAC(n.Config.OVN.Switch).String(),
			"lease_time": strconv.Itoa(leaseTime), "mtu": strconv.Itoa(n.Config.MTU),
		})
		if s.Gateway.IsValid() && n.Config.Gateway == network.GatewayExternal && !n.Config.Internal {
			w.options["router"] = s.Gateway.String()
		}
		maps.Copy(w.options, fourOnly(given))
		list = append(list, w)
	}
	return list
}

// fourOnly are the options of OVN's DHCPv4 (ovn-nb(5)). It wants texts in quotes,
// and drops the whole answer otherwise.
func fourOnly(given map[string]string) map[string]string {
	opts := make(map[string]string)
	for k, v := range given {
		switch {
		case k == "domain_search" || k == "dhcpv6_stateless":
		case k == "dns_server":
			if v = family(v, false); v != "" {
				opts[k] = v
			}
		case k == "tftp_server" && isAddr(v):
			opts[k] = v
		case network.DHCPKind(k) == network.DHCPText:
			opts[k] = strconv.Quote(v)
		default:
			opts[k] = v
		}
	}
	return opts
}

func isAddr(v string) bool {
	_, err := netip.ParseAddr(v)
	return err == nil
}

// sixOnly are the options that OVN's DHCPv6 knows, too (ovn-nb(5)).
func sixOnly(given map[string]string) map[string]string {
	opts := make(map[string]string)
	for k, v := range given {
		switch k {
		case "dns_server":
			if v = family(v, true); v != "" {
				opts[k] = v
			}
		case "domain_search":
			opts[k] = strconv.Quote(v)
		case "dhcpv6_stateless":
			opts[k] = v
		}
	}
	return opts
}

// family keeps the addresses of one family of a list in braces.
func family(list string, six bool) string {
	var kept []string
	for a := range strings.SplitSeq(strings.Trim(list, "{}"), ",") {
		a = strings.TrimSpace(a)
		if ip, err := netip.ParseAddr(a); err == nil && ip.Is6() == six {
			kept = append(kept, a)
		}
	}
	if len(kept) < 2 {
		return strings.Join(kept, "")
	}
	return "{" + strings.Join(kept, ", ") + "}"
}

// serverMAC is the address of what OVN plays on a switch: locally administered,
// the same on all hosts.
func serverMAC(sw string) net.HardwareAddr {
	sum := sha256.Sum256([]byte("dhcp " + sw))
	mac := net.HardwareAddr(sum[:6])
	mac[0] = mac[0]&^1 | 2
	return mac
}

func (w server) ids(sw string) map[string]string {
	return map[string]string{network.KeyOwner: network.Owner, keyRole: w.role, keySwitch: sw}
}

func (w server) insert(sw string) ovsdb.Operation {
	return ovsdb.Insert("DHCP_Options", w.role, ovsdb.Values{
		"cidr": w.cidr, "options": ovsdb.StringMap(w.options), "external_ids": ovsdb.StringMap(w.ids(sw)),
	})
}

// partsOf are the rows that belong to a switch.
func partsOf(v ovsdb.View, sw string) (list []*dhcpOptions) {
	for _, d := range ovsdb.All[*dhcpOptions](v) {
		if d.ExternalIDs[keySwitch] == sw {
			list = append(list, d)
		}
	}
	slices.SortFunc(list, func(a, b *dhcpOptions) int { return strings.Compare(a.UUID, b.UUID) })
	return list
}

func findPart(v ovsdb.View, sw, role string) *dhcpOptions {
	for _, d := range partsOf(v, sw) {
		if d.ExternalIDs[keyRole] == role {
			return d
		}
	}
	return nil
}

// missingServers inserts the servers that a switch lacks.
func missingServers(v ovsdb.View, n network.Network) (ops []ovsdb.Operation) {
	sw := n.Config.OVN.Switch
	for _, w := range servers(n) {
		if findPart(v, sw, w.role) == nil {
			where := []ovsdb.Condition{{Column: "external_ids", Function: "includes", Value: ovsdb.StringMap(w.ids(sw))}}
			ops = append(ops, ovsdb.IsNot("DHCP_Options", where, ovsdb.Values{"cidr": w.cidr}), w.insert(sw))
		}
	}
	return ops
}

// compatibleServers refuses options of DHCP that the switch has otherwise: there is
// one server for all networks on it.
func compatibleServers(v ovsdb.View, n network.Network) error {
	if len(n.Config.OVN.DHCPOptions) == 0 {
		return nil
	}
	for _, w := range servers(n) {
		d := findPart(v, n.Config.OVN.Switch, w.role)
		if d == nil {
			continue
		}
		for k := range n.Config.OVN.DHCPOptions {
			if have, want := d.Options[k], w.options[k]; want != "" && have != want {
				return fmt.Errorf("option ovn.dhcp_options: %s=%s, but logical switch %s has %s=%s for all its networks; leave it out, or change that (ovn-nbctl set DHCP_Options %s options:%s=%q)",
					k, want, n.Config.OVN.Switch, k, have, d.UUID, k, want)
			}
		}
	}
	return nil
}
