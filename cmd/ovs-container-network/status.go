package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
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
an endpoint that is not joined to a container, detached.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "table" && format != "json" {
				return fmt.Errorf("-o %q: allowed are table, json", format)
			}
			s, err := control.NewClient(socket).Status(cmd.Context())
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
		fmt.Fprintf(w, "Open vSwitch %s, connected for %s\n\n", orDash(s.OVS.Version), now.Sub(s.OVS.Since).Round(time.Second))
	} else {
		fmt.Fprintf(w, "Open vSwitch: %s\n\n", s.OVS.Error)
	}
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "NETWORK\tBRIDGE\tVLAN\tMTU\tGATEWAY\tTENANT\tSUBNETS\tENDPOINTS\tHEALTH")
	for _, n := range s.Networks {
		var subnets []string
		for _, sub := range n.Subnets {
			subnets = append(subnets, sub.Prefix.String())
		}
		vlan := n.VLAN
		if n.VLANMode == network.VLANAuto {
			vlan += " (auto)"
		}
		health := n.Health
		if n.Phase != network.PhaseActive {
			health = string(n.Phase)
		}
		fmt.Fprintln(t, strings.Join([]string{
			nameOf(n), n.Bridge, vlan, strconv.Itoa(n.MTU), string(n.Gateway), orDash(n.Tenant),
			orDash(strings.Join(subnets, ",")), strconv.Itoa(len(n.Ends)), health,
		}, "\t"))
	}
	t.Flush()
	fmt.Fprintln(w)
	fmt.Fprintln(t, "CONTAINER\tNETWORK\tPORT\tOFPORT\tVLAN\tMAC\tADDRESSES\tHEALTH")
	for _, n := range s.Networks {
		for _, e := range n.Ends {
			fmt.Fprintln(t, strings.Join([]string{
				orDash(e.Container), nameOf(n), e.Port, strconv.Itoa(e.OFPort), e.VLAN, e.MAC,
				orDash(strings.Join(e.Addrs, ",")), e.Health,
			}, "\t"))
		}
	}
	t.Flush()
	for _, line := range remarks(s) {
		fmt.Fprintf(w, "\n%s", line)
	}
	if len(remarks(s)) > 0 {
		fmt.Fprintln(w)
	}
	_, err := out.Write(w.Bytes())
	return err
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
		for _, e := range n.Ends {
			if e.Health == "degraded" {
				lines = append(lines, fmt.Sprintf("%s, %s: %s", nameOf(n), e.Port, e.Reason))
			}
		}
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
