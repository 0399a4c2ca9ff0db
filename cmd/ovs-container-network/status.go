package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/ovs-container-network/ovs-container-network/internal/control"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

func controlFlag(cmd *cobra.Command, into *string) {
	cmd.Flags().StringVar(into, "control-socket", env("OCN_CONTROL_SOCKET", findHost().control()), "the daemon's socket (OCN_CONTROL_SOCKET)")
}

func newStatus() *cobra.Command {
	var socket, format string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show networks, endpoints and their health",
		Long: `Show all networks and endpoints of this host, where each is attached, and
whether it works. Health is ok, degraded (the reason is below the table) or, for
an endpoint that is not joined to a container, detached.

When a network is on a logical switch of OVN, the chassis are shown, too. A chassis
gives a sign of life when it is asked to follow a change, by doctor or by ovn-nbctl
--wait=hv, so the last may be old. One that was asked since has not followed yet.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "table" && format != "json" {
				return fmt.Errorf("-o %q: allowed are table, json", format)
			}
			s, err := control.NewClient(socket).Whole(cmd.Context())
			if err != nil {
				return err
			}
			if format == "json" {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(s)
			}
			return printStatus(cmd.OutOrStdout(), s, time.Now())
		},
	}
	controlFlag(cmd, &socket)
	cmd.Flags().StringVarP(&format, "output", "o", "table", "table or json")
	complete(cmd, "output", "table", "json")
	return cmd
}

func printStatus(out io.Writer, s control.Status, now time.Time) error {
	w := &bytes.Buffer{}
	fmt.Fprintf(w, "ovs-container-network %s (%s), up %s\n", s.Version, s.Form, now.Sub(s.Started).Round(time.Second))
	if s.OVS.Connected {
		fmt.Fprintf(w, "Open vSwitch %s, connected for %s\n", orDash(s.OVS.Version), now.Sub(s.OVS.Since).Round(time.Second))
	} else {
		fmt.Fprintf(w, "Open vSwitch: %s\n", s.OVS.Error)
	}
	if nb := s.Northbound; nb != nil && nb.Connected {
		fmt.Fprintf(w, "OVN northbound database at %s, connected for %s\n", nb.Endpoint, now.Sub(nb.Since).Round(time.Second))
	} else if nb != nil {
		fmt.Fprintf(w, "OVN northbound database: %s\n", nb.Error)
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	logical := slices.ContainsFunc(s.Networks, func(n network.Report) bool { return n.Switch != "" })
	row := func(name, bridge, logicalSwitch string, rest ...string) {
		if logical {
			bridge += "\t" + logicalSwitch
		}
		fmt.Fprintln(t, strings.Join(append([]string{name, bridge}, rest...), "\t"))
	}
	row("NETWORK", "BRIDGE", "SWITCH", "VLAN", "MTU", "GATEWAY", "TENANT", "SUBNETS", "ENDPOINTS", "HEALTH")
	for _, n := range s.Networks {
		var subnets []string
		for _, sub := range n.Subnets {
			subnets = append(subnets, sub.Prefix.String())
		}
		vlan := vlans(n.VLAN, n.Trunk)
		if n.VLANMode == network.VLANAuto {
			vlan += " (auto)"
		}
		health := n.Health
		if n.Phase != network.PhaseActive {
			health = string(n.Phase)
		}
		row(nameOf(n), n.Bridge, orDash(n.Switch), vlan, strconv.Itoa(n.MTU), string(n.Gateway), orDash(n.Tenant),
			orDash(strings.Join(subnets, ",")), strconv.Itoa(len(n.Ends)), health)
	}
	t.Flush()
	fmt.Fprintln(w)
	fmt.Fprintln(t, "CONTAINER\tNETWORK\tPORT\tOFPORT\tVLAN\tMAC\tADDRESSES\tHEALTH")
	for _, n := range s.Networks {
		for _, e := range n.Ends {
			fmt.Fprintln(t, strings.Join([]string{
				orDash(e.Container), nameOf(n), e.Port, strconv.Itoa(e.OFPort), orDash(vlans(e.VLAN, e.Trunk)), e.MAC,
				orDash(strings.Join(e.Addrs, ",")), e.Health,
			}, "\t"))
		}
	}
	t.Flush()
	printMirrors(w, s.Networks)
	if s.Fleet != nil && len(s.Fleet.Chassis) > 0 {
		fmt.Fprintln(w)
		printChassis(w, s.Fleet.Chassis, now)
	}
	for _, line := range remarks(s) {
		fmt.Fprintf(w, "\n%s", line)
	}
	if len(remarks(s)) > 0 {
		fmt.Fprintln(w)
	}
	_, err := out.Write(w.Bytes())
	return err
}

// maxTrunk is how much of a trunk is shown in a table; -o json has all of it.
const maxTrunk = 30

// vlans are the VLANs of a port: without a tag, and with one.
func vlans(vlan, trunk string) string {
	if len(trunk) > maxTrunk {
		trunk = trunk[:strings.LastIndexByte(trunk[:maxTrunk], ',')+1] + "..."
	}
	switch {
	case trunk == "":
		return vlan
	case vlan == "none":
		return "trunk " + trunk
	}
	return vlan + ", trunk " + trunk
}

func printChassis(w io.Writer, chassis []control.Chassis, now time.Time) {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "CHASSIS\tHOST\tTUNNELS\tOVN\tLAST SIGN OF LIFE")
	for _, c := range chassis {
		name := c.Name
		if c.Here {
			name += " (this host)"
		}
		fmt.Fprintln(t, strings.Join([]string{name, orDash(c.Hostname), orDash(tunnels(c.Encaps)), orDash(c.OVN), life(c, now)}, "\t"))
	}
	t.Flush()
}

// unknownChassis says why the chassis are not shown.
func unknownChassis(f *control.Fleet) string { return "the chassis are not known: " + f.Error }

func tunnels(encaps []control.Encap) string {
	texts := make([]string, len(encaps))
	for i, e := range encaps {
		texts[i] = e.Type + " " + e.IP
	}
	return strings.Join(texts, ", ")
}

// life is when a chassis last answered, and whether it has been asked since.
func life(c control.Chassis, now time.Time) string {
	text := "-"
	if !c.Seen.IsZero() {
		text = max(0, now.Sub(c.Seen)).Round(time.Second).String() + " ago"
	}
	switch c.Behind {
	case 0:
	case 1:
		text += ", asked since"
	default:
		text += fmt.Sprintf(", asked %d times since", c.Behind)
	}
	return text
}

// remarks are the reasons behind every health that is not ok, and notes.
func remarks(s control.Status) (lines []string) {
	for _, n := range s.Networks {
		for _, p := range n.Problems {
			lines = append(lines, fmt.Sprintf("%s: %s", nameOf(n), p.Cause))
		}
		for _, note := range n.Notes {
			lines = append(lines, fmt.Sprintf("%s: %s", nameOf(n), note))
		}
		for _, m := range n.Mirrors {
			if why := idle(m); why != "" {
				lines = append(lines, fmt.Sprintf("%s: the mirror to %s: %s", nameOf(n), m.To, why))
			}
		}
		for _, e := range n.Ends {
			if e.Health == "degraded" {
				lines = append(lines, fmt.Sprintf("%s, %s: %s", nameOf(n), e.Port, e.Reason))
			}
		}
	}
	if s.Fleet != nil && s.Fleet.Error != "" {
		lines = append(lines, unknownChassis(s.Fleet))
	}
	for _, d := range s.Damaged {
		lines = append(lines, "unreadable record, left alone: "+d)
	}
	return lines
}

func nameOf(n network.Report) string {
	if n.Name != "" {
		return n.Name
	}
	return n.ID.Short()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
