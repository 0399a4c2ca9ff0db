package ovn

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovs"
)

// controllerTime is how long ovn-controller is given to make its bridge after it
// was told of a database.
const controllerTime = 10 * time.Second

// settings that ovn-controller(8) needs, with what an operator has to choose.
var needed = []struct{ key, value string }{
	{"system-id", "NAME"},
	{"ovn-remote", "tcp:CENTRAL:6642"},
	{"ovn-encap-type", "geneve"},
	{"ovn-encap-ip", "ADDRESS-OF-THIS-HOST"},
}

// ensureChassis checks that this host is set up for OVN. On a host that runs its
// own southbound database and was told of none, it is set up to use that.
func (f *Fabric) ensureChassis(ctx context.Context, encap network.Encap) error {
	c, err := f.Chassis()
	if err != nil {
		return err
	}
	var missing []string
	for _, s := range needed {
		if c.Settings[s.key] == "" {
			missing = append(missing, s.key)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	socket := filepath.Join(f.cfg.RunDir, "ovnsb_db.sock")
	conn, err := net.DialTimeout("unix", socket, time.Second)
	if c.Settings["ovn-remote"] != "" || err != nil {
		return notSetUp(missing)
	}
	conn.Close()
	settings, err := f.alone(c, encap)
	if err != nil {
		return err
	}
	if err := f.Complete(ctx, c, settings); err != nil {
		return err
	}
	f.log.InfoContext(ctx, "chassis set up for the OVN of this host", "settings", settings)
	err = f.AwaitChassis(ctx, controllerTime, func(c ovs.Chassis) bool { return c.There })
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("OVN's bridge is not there %v after the chassis was set up: does ovn-controller run? (systemctl status ovn-controller)", controllerTime)
	}
	return err
}

// notSetUp lists what is missing with the command that sets it.
func notSetUp(missing []string) error {
	var sets []string
	for _, s := range needed {
		if slices.Contains(missing, s.key) {
			sets = append(sets, fmt.Sprintf("external_ids:%s=%s", s.key, s.value))
		}
	}
	return fmt.Errorf("this host is not set up for OVN, external_ids of Open_vSwitch lacks %s: run ovs-vsctl set Open_vSwitch . %s",
		strings.Join(missing, ", "), strings.Join(sets, " "))
}

// alone are the settings of a chassis that is its own central. Where containers of
// plain networks are on the bridge that OVN would take, it gets another one.
func (f *Fabric) alone(c ovs.Chassis, encap network.Encap) (map[string]string, error) {
	name, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	datapath, err := f.Datapath()
	if err != nil {
		return nil, err
	}
	if encap == "" {
		encap = network.EncapGeneve
	}
	settings := map[string]string{
		"system-id": name, "hostname": name, "ovn-remote": "unix:/run/ovn/ovnsb_db.sock",
		"ovn-encap-type": string(encap), "ovn-encap-ip": "127.0.0.1", "ovn-bridge-datapath-type": datapath,
	}
	if c.Plain && c.Settings["ovn-bridge"] == "" {
		settings["ovn-bridge"] = ovs.OwnBridge
	}
	maps.DeleteFunc(settings, func(k, _ string) bool { return c.Settings[k] != "" })
	return settings, nil
}

// encaps are the types of tunnels of a chassis.
func encaps(c ovs.Chassis) []string { return strings.Split(c.Settings["ovn-encap-type"], ",") }

func checkEncap(c ovs.Chassis, want network.Encap) error {
	if want == "" || slices.Contains(encaps(c), string(want)) {
		return nil
	}
	return fmt.Errorf("option ovn.encap=%q: this chassis has ovn-encap-type=%s and is not changed by itself; to have both: ovs-vsctl set Open_vSwitch . external_ids:ovn-encap-type=%s,%s",
		want, c.Settings["ovn-encap-type"], c.Settings["ovn-encap-type"], want)
}

// What a tunnel adds to a packet: outer Ethernet, IPv4 and UDP headers, and its
// own, for Geneve with the option that OVN uses. 20 more over IPv6.
const (
	overheadGeneve = 58
	overheadVXLAN  = 50
	overheadIPv6   = 20
)

// lonely tells whether no other chassis can send to this one.
func lonely(c ovs.Chassis) bool {
	first, _, _ := strings.Cut(c.Settings["ovn-encap-ip"], ",")
	ip, err := netip.ParseAddr(first)
	return err == nil && ip.IsLoopback()
}

// mtu is what the underlay leaves for packets of containers.
func (f *Fabric) mtu(c ovs.Chassis, want network.Encap) (int, error) {
	first, _, _ := strings.Cut(c.Settings["ovn-encap-ip"], ",")
	ip, err := netip.ParseAddr(first)
	if err != nil {
		return 0, fmt.Errorf("external_ids:ovn-encap-ip=%q of Open_vSwitch is no address", first)
	}
	underlay := network.DefaultMTU
	if !ip.IsLoopback() {
		mtu, ok, err := f.cfg.Links.MTUOf(ip)
		if err != nil {
			return 0, err
		}
		if ok {
			underlay = mtu
		}
	}
	// With both, OVN takes Geneve (ovn-controller(8)).
	overhead := overheadGeneve
	if want == network.EncapVXLAN || !slices.Contains(encaps(c), string(network.EncapGeneve)) {
		overhead = overheadVXLAN
	}
	if ip.Is6() && !ip.Is4In6() {
		overhead += overheadIPv6
	}
	return underlay - overhead, nil
}
