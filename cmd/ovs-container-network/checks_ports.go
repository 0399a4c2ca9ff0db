package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/ovs-container-network/ovs-container-network/internal/diag"
	"github.com/ovs-container-network/ovs-container-network/internal/ipam"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// who names an endpoint for a person.
func who(n network.Report, e network.EndpointReport) string {
	name := "container " + e.Container
	if e.Container == "" {
		name = "endpoint " + e.ID.Short()
	}
	return fmt.Sprintf("%s on network %s", name, nameOf(n))
}

func checkPorts(reports []network.Report) (found []diag.Finding) {
	for _, n := range reports {
		for _, e := range n.Ends {
			if e.Health != "degraded" {
				continue
			}
			found = append(found, diag.Finding{
				Subject: who(n, e), Cause: fmt.Sprintf("port %s: %s", e.Port, e.Reason),
				Evidence: []string{fmt.Sprintf("ofport %d, link present: %v, phase %s", e.OFPort, e.Linked, e.Phase)},
				Mend:     e.Mend,
			})
		}
	}
	return found
}

// checkForwarding has ovs-vswitchd say what it would do with a frame of each
// container. On a logical switch a frame may rightly go nowhere: there it is enough
// that OVN's flows take it.
func (d *doctor) checkForwarding(ctx context.Context, reports []network.Report) (found []diag.Finding) {
	for _, n := range reports {
		ask := d.fabric.Forwards
		if n.Switch != "" {
			ask = d.fabric.Receives
		}
		for _, e := range n.Ends {
			if e.Health != "ok" || e.OFPort <= 0 || e.Observer {
				continue
			}
			dropped, err := ask(ctx, n.Bridge, e.OFPort, e.MAC, e.Tag())
			if err != nil {
				return append(found, diag.Finding{
					Cause: fmt.Sprintf("ovs-vswitchd cannot be asked what it does with frames: %v", err), Mend: []string{restartOVS},
				})
			}
			if dropped == "" {
				continue
			}
			flow := fmt.Sprintf("in_port=%d,dl_src=%s,dl_dst=ff:ff:ff:ff:ff:ff", e.OFPort, e.MAC)
			if tag := e.Tag(); tag != 0 {
				flow += fmt.Sprintf(",dl_vlan=%d", tag)
			}
			f := diag.Finding{
				Subject: who(n, e), Cause: fmt.Sprintf("bridge %s drops what the container sends", n.Bridge), Evidence: []string{dropped},
				Mend: []string{
					fmt.Sprintf("ovs-appctl ofproto/trace %s %s", n.Bridge, flow),
					fmt.Sprintf("look for a flow that drops it: ovs-ofctl dump-flows %s", n.Bridge),
					fmt.Sprintf("if there is none at all: ovs-ofctl add-flow %s priority=0,actions=NORMAL", n.Bridge),
				},
			}
			if n.Switch != "" {
				f.Cause += ": the flows of OVN are gone"
				f.Mend = []string{"ovs-ofctl dump-flows " + n.Bridge + " table=0", restartController}
			}
			found = append(found, f)
		}
	}
	return found
}

func (d *doctor) checkShields(context.Context) []diag.Finding {
	bare, err := d.fabric.Unshielded()
	if err != nil {
		return []diag.Finding{{Cause: fmt.Sprintf("the nftables chains of the ports cannot be read: %v", err)}}
	}
	if len(bare) == 0 {
		return nil
	}
	return []diag.Finding{{
		Cause:    "the host's own stack sees frames of containers: the nftables table " + network.Owner + " was flushed",
		Evidence: []string{fmt.Sprintf("%d ports have no chain, one of them %s", len(bare), bare[0])},
		Mend:     append([]string{"it is put back by itself within seconds, unless the daemon's log says why not"}, restartDaemon...),
	}}
}

// checkAddresses looks for pools that are full: ours, and as far as can be told
// those of Docker's own IPAM driver.
func (d *doctor) checkAddresses(reports []network.Report) (found []diag.Finding) {
	full := func(prefix netip.Prefix, name string, used, total uint64) {
		found = append(found, diag.Finding{
			Subject: "pool " + prefix.String(), Cause: fmt.Sprintf("there is no free address in pool %s of network %s", prefix, name),
			Evidence: []string{fmt.Sprintf("%d of %d addresses are in use", used, total)},
			Mend:     []string{"remove containers", "or create the network again with a larger --subnet (or --ip-range)"},
		})
	}
	pooled := make(map[string]bool)
	for _, p := range append(d.registry.Pools(), d.shared.Summaries()...) {
		name := p.Network
		if i := slices.IndexFunc(reports, func(n network.Report) bool { return string(n.ID) == p.Network }); i >= 0 {
			name = nameOf(reports[i])
		}
		pooled[p.Network] = true
		if p.Used >= p.Total {
			full(p.Prefix, name, p.Used, p.Total)
		}
	}
	for _, n := range reports {
		if pooled[string(n.ID)] {
			continue
		}
		for _, s := range n.Subnets {
			used := uint64(1) // the gateway
			for _, e := range n.Ends {
				if slices.ContainsFunc(e.Addrs, func(a string) bool { p, err := netip.ParsePrefix(a); return err == nil && s.Prefix.Contains(p.Addr()) }) {
					used++
				}
			}
			if total := ipam.Capacity(s.Prefix); used >= total {
				full(s.Prefix, nameOf(n), used, total)
			}
		}
	}
	return found
}

func (d *doctor) checkVLANs(context.Context) (found []diag.Finding) {
	all := d.manager.Networks()
	seen := make(map[string]bool)
	for _, n := range all {
		if seen[n.Config.Bridge] {
			continue
		}
		seen[n.Config.Bridge] = true
		if free, err := d.fabric.FreeTags(n.Config.Bridge, all); err != nil || free > 0 {
			continue
		}
		found = append(found, diag.Finding{
			Subject: "bridge " + n.Config.Bridge, Cause: fmt.Sprintf("all %d VLANs of bridge %s are in use: no network with vlan=auto can be created there", network.MaxVLAN, n.Config.Bridge),
			Mend: []string{"create the next network with --opt bridge=ANOTHER", "or remove networks, or ports of others with tags (ovs-vsctl show)"},
		})
	}
	return found
}

func (d *doctor) checkLeftovers(ctx context.Context) (found []diag.Finding) {
	for _, g := range d.garbage(ctx, leftoverAge) {
		found = append(found, diag.Finding{
			Subject: g.Kind + " " + g.Name, Cause: "nobody owns this any more: " + g.Why,
			Mend: []string{"ovs-container-network gc --dry-run", "ovs-container-network gc"},
		})
	}
	return found
}

func (d *doctor) checkDatapath(context.Context) []diag.Finding {
	bridges := d.fabric.Userspace(d.manager.Networks())
	if len(bridges) == 0 || d.fabric.Acceleration().TSO {
		return nil
	}
	return []diag.Finding{{
		Severity: diag.Advice, Subject: "bridges " + strings.Join(bridges, ", "),
		Cause: "the userspace datapath forwards TCP at a tenth of what it can: userspace-tso-enable is off",
		Mend: []string{
			"see docs/performance.md before: nothing passes from the setting until ovs-vswitchd is restarted, and containers are faster after their own restart",
			"ovs-vsctl --no-wait set Open_vSwitch . other_config:userspace-tso-enable=true && " + restartOVS,
			"or load the kernel's datapath, if this kernel has it: modprobe openvswitch",
		},
	}}
}
