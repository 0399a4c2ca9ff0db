package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/control"
	"github.com/ovs-container-network/ovs-container-network/internal/diag"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovn"
)

// checksOfOVN are left out while no network is on a logical switch.
var checksOfOVN = []string{"northbound", "controller", "northd", "chassis", "switches"}

// Commands that mend; the names of the units are those of Debian.
const (
	restartController = "systemctl restart ovn-controller"
	seeControllerLog  = "tail /var/log/ovn/ovn-controller.log"
	seeCentral        = "on the central: systemctl status ovn-central"
)

// Times that OVN is given.
const (
	northdTime = 5 * time.Second // for ovn-northd to act on a change
	followTime = 3 * time.Second // for the chassis to follow it
	fleetTime  = 3 * time.Second // to tell of the chassis
)

// fleet are the chassis for the command line.
func (d *doctor) fleet(ctx context.Context) control.Fleet {
	ctx, cancel := context.WithTimeout(ctx, fleetTime)
	defer cancel()
	seen, err := d.fabric.Fleet(ctx)
	if err != nil {
		return control.Fleet{Chassis: []control.Chassis{}, Error: err.Error()}
	}
	f := control.Fleet{Chassis: make([]control.Chassis, len(seen.Chassis)), Northd: seen.Northd}
	for i, m := range seen.Chassis {
		f.Chassis[i] = control.Chassis{Name: m.Name, Hostname: m.Hostname, Here: m.Here, OVN: m.Version, Seen: m.Seen, Behind: m.Behind}
		for _, e := range m.Encaps {
			f.Chassis[i].Encaps = append(f.Chassis[i].Encaps, control.Encap{Type: e.Type, IP: e.IP})
		}
	}
	return f
}

func (d *doctor) checkNorthbound(context.Context) []diag.Finding {
	at, _, connected, _, err := d.fabric.NB()
	if connected {
		return nil
	}
	f := diag.Finding{
		Subject: at, Cause: fmt.Sprintf("OVN's northbound database is not reached: %v", err),
		Evidence: []string{"containers that run keep talking; on logical switches none can be started until it is back"},
		Mend:     []string{seeCentral, "see where it is looked for: ovs-vsctl get Open_vSwitch . external_ids:ovn-nb"},
	}
	switch {
	case strings.HasPrefix(at, "unix:"):
		f.Mend[0] = "systemctl restart ovn-central"
	case strings.Contains(at, ","):
		f.Mend = append(f.Mend, "start its members until most of them run: ovs-appctl -t /run/ovn/ovnnb_db.ctl cluster/status OVN_Northbound")
	}
	if strings.Contains(at, "ssl:") {
		f.Mend = append(f.Mend, "see key, certificate and CA: ovs-vsctl get-ssl")
	}
	return []diag.Finding{f}
}

func (d *doctor) checkController(ctx context.Context) []diag.Finding {
	err := d.fabric.Controller(ctx)
	if err == nil {
		return nil
	}
	f := diag.Finding{
		Cause: err.Error(), Evidence: []string{"what is in the switch stays; nothing that changes in OVN is followed on this host"},
		Mend: []string{restartController, seeControllerLog},
	}
	if strings.Contains(f.Cause, "does not reach") {
		f.Mend = []string{seeCentral, "see where it is looked for: ovs-vsctl get Open_vSwitch . external_ids:ovn-remote", seeControllerLog}
	}
	return []diag.Finding{f}
}

// checkNorthd has ovn-northd carry a change over, and has each chassis show that it
// lives.
func (d *doctor) checkNorthd(ctx context.Context) []diag.Finding {
	err := d.fabric.Sync(ctx, northdTime)
	if err == nil || ctx.Err() != nil {
		return nil
	}
	if !errors.Is(err, ovn.ErrNorthd) {
		return []diag.Finding{{Cause: fmt.Sprintf("the northbound database was reached and does not answer: %v", err), Mend: []string{seeCentral}}}
	}
	return []diag.Finding{{
		Cause: err.Error() + ": it does not run, or does not reach the southbound database", Evidence: []string{fmt.Sprintf("it has not carried over NB_Global.nb_cfg within %s", northdTime)},
		Mend: []string{"on the central: systemctl restart ovn-northd", "on the central: tail /var/log/ovn/ovn-northd.log", "ovn-nbctl --timeout=10 --wait=sb sync"},
	}}
}

func (d *doctor) checkChassis(ctx context.Context) []diag.Finding {
	chassis, err := d.fabric.Chassis()
	if err != nil {
		return []diag.Finding{{Cause: err.Error(), Mend: []string{restartOVS}}}
	}
	fleet, err := d.fabric.Followed(ctx, followTime)
	if err != nil {
		return []diag.Finding{{
			Cause: fmt.Sprintf("the chassis are not known: %v", err),
			Mend:  []string{seeCentral, "see where it is looked for: ovs-vsctl get Open_vSwitch . external_ids:ovn-remote"},
		}}
	}
	local := local{name: chassis.Name(), encaps: strings.Split(chassis.Settings["ovn-encap-ip"], ",")}
	for _, ip := range local.encaps {
		if a, err := netip.ParseAddr(ip); err == nil && !a.IsLoopback() {
			if has, err := d.fabric.HasAddress(a); err == nil && !has {
				local.missing = append(local.missing, ip)
			}
		}
	}
	return checkFleet(fleet, local, d.gateways(), time.Now())
}

// gateways are the chassis that networks of this host name, with one that does.
func (d *doctor) gateways() map[string]string {
	named := make(map[string]string)
	for _, n := range d.manager.Networks() {
		if n.Config.OVN != nil {
			for _, name := range n.Config.OVN.GatewayChassis {
				named[name] = cmpName(n)
			}
		}
	}
	return named
}

// local is this host as a chassis.
type local struct {
	name    string
	encaps  []string
	missing []string // encaps that no link has
}

// checkFleet looks at this chassis and, for what concerns it, at the others.
func checkFleet(fleet ovn.Fleet, l local, gateways map[string]string, now time.Time) (found []diag.Finding) {
	for _, ip := range l.missing {
		found = append(found, diag.Finding{
			Subject: "chassis " + l.name, Cause: fmt.Sprintf("no link of this host has the address %s to which other chassis send", ip),
			Evidence: []string{"external_ids:ovn-encap-ip of Open_vSwitch"},
			Mend:     []string{"ip addr add " + ip + "/PREFIX dev LINK", "or ovs-vsctl set Open_vSwitch . external_ids:ovn-encap-ip=ADDRESS-OF-THIS-HOST"},
		})
	}
	found = append(found, checkHere(fleet, l)...)
	for _, m := range fleet.Chassis {
		if m.Name == l.name {
			continue
		}
		if i := slices.IndexFunc(m.Encaps, func(t ovn.Tunnel) bool { return slices.Contains(l.encaps, t.IP) && t.IP != "127.0.0.1" }); i >= 0 {
			found = append(found, diag.Finding{
				Subject: "chassis " + m.Name, Cause: fmt.Sprintf("chassis %s has the tunnel address %s of this host: what is sent to one arrives at the other", m.Name, m.Encaps[i].IP),
				Evidence: []string{about(m, now)},
				Mend:     []string{"if it is an earlier life of this host: ovs-container-network gc --chassis " + m.Name, "or give one of the two another: ovs-vsctl set Open_vSwitch . external_ids:ovn-encap-ip=ADDRESS"},
			})
		}
		if m.Behind > 0 && !fleet.Mute {
			f := diag.Finding{
				Severity: diag.Advice, Subject: "chassis " + m.Name, Cause: fmt.Sprintf("chassis %s does not answer: it is off, or its ovn-controller does not run", m.Name),
				Evidence: []string{about(m, now)},
				Mend:     []string{"on host " + m.Hostname + ": " + restartController, "or, if it is gone for good: ovs-container-network gc --chassis " + m.Name},
			}
			if n := gateways[m.Name]; n != "" {
				f.Severity, f.Cause = diag.Fault, f.Cause+"; it is to be a gateway of network "+n
			}
			found = append(found, f)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(gateways)) {
		if _, known := fleet.Find(name); !known {
			found = append(found, diag.Finding{
				Subject: "network " + gateways[name], Cause: fmt.Sprintf("ovn.gateway_chassis names %s, and there is no such chassis", name),
				Evidence: []string{"there are " + strings.Join(names(fleet), ", ")},
				Mend:     []string{"start ovn-controller on that host", "or create the network again with the names of chassis: ovn-sbctl --columns=name,hostname list Chassis"},
			})
		}
	}
	return found
}

// checkHere looks whether OVN knows this chassis as it is.
func checkHere(fleet ovn.Fleet, l local) []diag.Finding {
	f := diag.Finding{Subject: "chassis " + l.name, Mend: []string{seeControllerLog, restartController}}
	me, registered := fleet.Find(l.name)
	switch {
	case !registered:
		f.Cause = fmt.Sprintf("this host is not registered as chassis %s: nobody sends to it", l.name)
		f.Evidence = []string{"registered are " + orDash(strings.Join(names(fleet), ", "))}
	case !slices.ContainsFunc(me.Encaps, func(t ovn.Tunnel) bool { return slices.Contains(l.encaps, t.IP) }):
		f.Cause = fmt.Sprintf("chassis %s is registered with other tunnel addresses than this host has: another host has the same system-id", l.name)
		f.Evidence = []string{fmt.Sprintf("registered: %s, here: %s", tunnelsOf(me), strings.Join(l.encaps, ", "))}
		f.Mend = append([]string{"give each host its own: ovs-vsctl set Open_vSwitch . external_ids:system-id=NAME"}, f.Mend...)
	case me.Behind > 0 && !fleet.Mute:
		f.Cause = "ovn-controller of this host is connected and does not follow changes"
		f.Evidence = []string{about(me, time.Now())}
	default:
		return nil
	}
	return []diag.Finding{f}
}

// about is a chassis in one line.
func about(m ovn.Member, now time.Time) string {
	return fmt.Sprintf("%s, OVN %s, %s", tunnelsOf(m), orDash(m.Version), m.Life(now))
}

func tunnelsOf(m ovn.Member) string {
	encaps := make([]control.Encap, len(m.Encaps))
	for i, e := range m.Encaps {
		encaps[i] = control.Encap{Type: e.Type, IP: e.IP}
	}
	return orDash(tunnels(encaps))
}

func names(fleet ovn.Fleet) (list []string) {
	for _, m := range fleet.Chassis {
		list = append(list, m.Name)
	}
	return list
}

// checkSwitches tells what is wrong with the switches of networks, and looks for
// addresses on them that two ports have.
func (d *doctor) checkSwitches(ctx context.Context, reports []network.Report) (found []diag.Finding) {
	for _, n := range reports {
		for _, p := range n.Problems {
			if p.Logical {
				found = append(found, diag.Finding{Subject: "network " + nameOf(n), Cause: p.Cause, Mend: p.Mend})
			}
		}
	}
	all := d.manager.Networks()
	for _, r := range reports {
		i := slices.IndexFunc(all, func(n network.Network) bool { return n.ID == r.ID })
		if r.Switch == "" || i < 0 {
			continue
		}
		clashes, err := d.fabric.Clashes(ctx, all[i])
		if err != nil {
			return append(found, diag.Finding{
				Subject: "network " + nameOf(r), Cause: fmt.Sprintf("the ports of logical switch %s cannot be read: %v", r.Switch, err), Mend: []string{seeCentral},
			})
		}
		for _, c := range clashes {
			found = append(found, clash(r, c))
		}
	}
	return found
}

func clash(n network.Report, c ovn.Clash) diag.Finding {
	f := diag.Finding{Subject: "endpoint " + c.Endpoint.Short()}
	restart := "docker restart its container"
	if i := slices.IndexFunc(n.Ends, func(e network.EndpointReport) bool { return e.ID == c.Endpoint }); i >= 0 {
		f.Subject = who(n, n.Ends[i])
		if name := n.Ends[i].Container; name != "" {
			restart = "docker restart " + name
		}
	}
	switch {
	case c.Astray:
		f.Cause = "its logical port is not on logical switch " + n.Switch + ": the switch was renamed or replaced"
		f.Mend = []string{"ovn-nbctl show", restart}
	case c.Whose != "":
		f.Cause = fmt.Sprintf("address %s is used by %s too, on logical switch %s", c.Address, c.Whose, n.Switch)
		f.Evidence = []string{"logical port " + c.Other}
		f.Mend = []string{"give one of the two another address: docker network disconnect, and connect again"}
	default:
		f.Cause = fmt.Sprintf("address %s is used by logical port %s too, on logical switch %s, which this driver did not make", c.Address, c.Other, n.Switch)
		f.Evidence = []string{"ovn-nbctl lsp-get-addresses " + c.Other}
		f.Mend = []string{"ovn-nbctl lsp-set-addresses " + c.Other + " ANOTHER", "or ovn-nbctl lsp-del " + c.Other}
	}
	return f
}
