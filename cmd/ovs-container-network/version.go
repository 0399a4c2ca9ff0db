package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/ovs-container-network/ovs-container-network/internal/control"
)

func newVersion() *cobra.Command {
	var socket string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Show the versions of this program and of what it works with",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w := cmd.OutOrStdout()
			fmt.Fprintf(w, "ovs-container-network  %s\n", version)
			if s, err := control.NewClient(socket).Whole(cmd.Context()); err != nil {
				fmt.Fprintf(w, "daemon                 %v\n", err)
			} else {
				fmt.Fprintf(w, "daemon                 %s (%s)\n", s.Version, s.Form)
				ovs := s.OVS.Version
				if !s.OVS.Connected {
					ovs = s.OVS.Error
				}
				fmt.Fprintf(w, "Open vSwitch           %s\n", orDash(ovs))
				if s.Fleet != nil {
					fmt.Fprintf(w, "OVN                    %s\n", ovnVersion(*s.Fleet))
				}
			}
			fmt.Fprintf(w, "Docker                 %s\n", dockerVersion(cmd.Context(), findHost().run+"/docker.sock"))
			fmt.Fprintf(w, "kernel                 %s\n", kernel())
			return nil
		},
	}
	controlFlag(cmd, &socket)
	return cmd
}

// ovnVersion is that of this host, and that of the central.
func ovnVersion(f control.Fleet) string {
	if f.Error != "" {
		return f.Error
	}
	here := ""
	for _, c := range f.Chassis {
		if c.Here {
			here = c.OVN
		}
	}
	return fmt.Sprintf("%s (ovn-northd %s)", orDash(here), orDash(f.Northd))
}

// dockerVersion asks the engine, or says why it cannot.
func dockerVersion(ctx context.Context, socket string) string {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/version", nil)
	if err != nil {
		return err.Error()
	}
	resp, err := client.Do(req)
	if err != nil {
		return "not reached at " + socket
	}
	defer resp.Body.Close()
	var v struct{ Version string }
	if err := json.NewDecoder(resp.Body).Decode(&v); err != nil || v.Version == "" {
		return "not understood"
	}
	return v.Version
}
