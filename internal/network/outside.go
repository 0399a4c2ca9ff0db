package network

import (
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"
)

// ReleaseMode says what becomes of a lease when its container goes.
type ReleaseMode string

// The values of dhcp.release. Without any, only those are released of which the
// server would not know the container again.
const (
	ReleaseStable ReleaseMode = ""
	ReleaseNow    ReleaseMode = "immediately"
	ReleaseNever  ReleaseMode = "never"
	ReleaseAfter  ReleaseMode = "after" // a time, unless it comes back
)

// Limits of dhcp.timeout. dockerd waits 30 seconds for an answer to a call, and the
// port has to be made, too.
const (
	minDHCPTimeout     = time.Second
	maxDHCPTimeout     = 24 * time.Second
	defaultDHCPTimeout = 10 * time.Second
	maxDHCPGrace       = 720 * time.Hour
)

var dhcpOptions = map[string]option[Config]{
	"dhcp": {allowedBool, func(c *Config, v string) (err error) {
		c.DHCP, err = parseBool(v)
		return err
	}},
	"dhcp.timeout": {"1s..24s", func(c *Config, v string) (err error) {
		c.DHCPTimeout, err = time.ParseDuration(strings.ToLower(v))
		switch {
		case err != nil:
			return errors.New("not a time such as 10s")
		case c.DHCPTimeout < minDHCPTimeout || c.DHCPTimeout > maxDHCPTimeout:
			return errors.New("out of range")
		}
		return nil
	}},
	"dhcp.release": {"immediately, never, or a time such as 10m, 1s..720h", func(c *Config, v string) (err error) {
		c.DHCPRelease = ReleaseMode(strings.ToLower(v))
		if c.DHCPRelease == ReleaseNow || c.DHCPRelease == ReleaseNever {
			return nil
		}
		c.DHCPRelease = ReleaseAfter
		if c.DHCPGrace, err = time.ParseDuration(strings.ToLower(v)); err != nil {
			return errors.New("unknown value")
		}
		if c.DHCPGrace < time.Second || c.DHCPGrace > maxDHCPGrace {
			return errors.New("out of range")
		}
		return nil
	}},
}

// checkOutside completes a network whose addresses come from outside and looks at
// what does not go with that.
func (c *Config) checkOutside(given map[string]string, internal bool, subnets []Subnet, faults *OptionsError) {
	for _, key := range slices.Sorted(maps.Keys(dhcpOptions)) {
		value, ok := given[key]
		switch {
		case !ok:
		case key == "dhcp":
			if c.DHCP && c.IPAM != IPAMExternal {
				faults.add("option %s=%q: needs ipam=external too", key, value)
			}
		case !c.DHCP:
			faults.add("option %s=%q: needs dhcp=true too", key, value)
		}
	}
	if c.DHCP && c.DHCPTimeout == 0 && given["dhcp.timeout"] == "" {
		c.DHCPTimeout = defaultDHCPTimeout
	}
	if c.IPAM != IPAMExternal {
		return
	}
	if given["vlan"] == "" && c.OVN == nil {
		c.VLANMode = VLANNone // a server outside is not in a VLAN that nobody else knows
	}
	if c.DHCP && c.OVN == nil && c.VLAN == 0 && len(c.Trunk) > 0 {
		faults.add("option dhcp=%q: %v", given["dhcp"], errNoServer)
	}
	if given["gateway_mode"] == "" && !internal {
		c.Gateway = GatewayExternal
	}
	if c.Gateway == GatewayDocker && len(subnets) > 0 && !internal {
		faults.add("option gateway_mode=%q: Docker's gateway would take the name eth0 of a link that the driver has to bring in by itself, as with any IPAM driver but null; allowed are external and none, or --ipam-driver null", given["gateway_mode"])
	}
	if c.OVN != nil && c.OVN.Router != "" {
		faults.add("option ovn.router=%q: with ipam=external the router of a network is not the driver's; leave out one of the two", c.OVN.Router)
	}
}

// SelfWired tells whether the driver brings the links of containers into them by
// itself: Docker would give them the addresses that its IPAM driver has booked.
func (n Network) SelfWired() bool { return len(n.Booked) > 0 }

// ClientIDBytes is the client identifier of the endpoint as a server sees it: bytes
// as given, or a text after the type 0 (RFC 2132, section 9.14).
func (ep Endpoint) ClientIDBytes() []byte {
	if ep.ClientID == "" {
		return nil
	}
	if parts := strings.Split(ep.ClientID, ":"); len(parts) > 1 {
		if b, err := hex.DecodeString(strings.Join(parts, "")); err == nil && len(b) == len(parts) {
			return b
		}
	}
	return append([]byte{0}, ep.ClientID...)
}
