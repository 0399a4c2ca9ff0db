package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/ovs-container-network/ovs-container-network/internal/control"
	"github.com/ovs-container-network/ovs-container-network/internal/dockerwatch"
)

func newGC() *cobra.Command {
	var socket, format, chassis string
	var dryRun, force bool
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Remove what nobody owns any more",
		Long: `Remove ports, links, bridges and nftables chains of endpoints and networks that
the daemon does not know, networks, records and address pools that Docker does not
have, and addresses that no endpoint has; of OVN's northbound database logical
ports, claims on switches and addresses that this host has left there. Nearly all of
this the daemon removes by itself after a while; gc does it now, and shows it.

What carries no mark of this driver is never touched, and neither is what a
running container still uses.

With --chassis NAME it retires a host of OVN that is gone for good, from another
one: it removes the chassis, and the host's logical ports, addresses and claims. A
chassis that lives is refused. This never happens by itself.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "table" && format != "json" {
				return fmt.Errorf("-o %q: allowed are table, json", format)
			}
			if force && chassis == "" {
				return errors.New("--force is for --chassis only")
			}
			g, err := garbageOf(cmd.Context(), control.NewClient(socket), chassis, force, dryRun)
			if err != nil {
				return err
			}
			if err := printGarbage(cmd.OutOrStdout(), format, g, dryRun); err != nil {
				return err
			}
			var failed error
			for _, p := range g.Pieces {
				if p.Error != "" {
					failed = errors.Join(failed, fmt.Errorf("cannot remove %s %s: %s", p.Kind, p.Name, p.Error))
				}
			}
			return failed
		},
	}
	controlFlag(cmd, &socket)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show it, and remove nothing")
	cmd.Flags().StringVar(&chassis, "chassis", "", "retire the chassis of this name, that of a host that is gone")
	cmd.Flags().BoolVar(&force, "force", false, "with --chassis: also one that lives, or of which that cannot be told")
	cmd.Flags().StringVarP(&format, "output", "o", "table", "table or json")
	complete(cmd, "output", "table", "json")
	return cmd
}

func garbageOf(ctx context.Context, daemon *control.Client, chassis string, force, dryRun bool) (control.Garbage, error) {
	if chassis == "" {
		return daemon.GC(ctx, dryRun)
	}
	g, err := daemon.Retire(ctx, chassis, force, dryRun)
	if err == nil && g.Refused != "" {
		err = errors.New(g.Refused)
	}
	return g, err
}

func printGarbage(out io.Writer, format string, g control.Garbage, dryRun bool) error {
	if format == "json" {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(g)
	}
	w := &bytes.Buffer{}
	if len(g.Pieces) == 0 {
		fmt.Fprintln(w, "Everything has an owner.")
	} else {
		t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
		fmt.Fprintln(t, "KIND\tNAME\tWHY\tDONE")
		for _, p := range g.Pieces {
			done := "removed"
			switch {
			case dryRun:
				done = "would be removed"
			case !p.Removed:
				done = "not removed"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", p.Kind, p.Name, p.Why, done)
		}
		t.Flush()
	}
	if g.Unseen != "" {
		fmt.Fprintln(w, g.Unseen)
	}
	_, err := out.Write(w.Bytes())
	return err
}

// collect removes the garbage, or only lists it.
func (d *doctor) collect(ctx context.Context, log *slog.Logger, dryRun bool) control.Garbage {
	g := control.Garbage{Pieces: []control.Piece{}}
	if d.dockerHost == "none" {
		g.Unseen = "Docker's API is turned off (OCN_DOCKER_HOST=none): networks, records and pools were not looked at."
	} else if err := dockerwatch.Ping(ctx, d.dockerHost); err != nil {
		g.Unseen = fmt.Sprintf("Docker is not reached (%v): networks, records and pools were not looked at.", err)
	}
	if _, used, connected, _, err := d.fabric.NB(); used && !connected {
		g.Unseen = strings.TrimSpace(g.Unseen + fmt.Sprintf(" OVN's northbound database was not looked at: %v.", err))
	}
	if connected, _, err := d.fabric.State(); !connected {
		g.Unseen = fmt.Sprintf("Nothing was looked at: %v", err)
	}
	return removed(ctx, log, g, d.garbage(ctx, 0), dryRun)
}

// retire removes what a chassis that is gone has left, or only lists it.
func (d *doctor) retire(ctx context.Context, log *slog.Logger, chassis string, force, dryRun bool) control.Garbage {
	g := control.Garbage{Pieces: []control.Piece{}}
	found, err := d.fabric.Retire(ctx, chassis, force)
	if err != nil {
		g.Refused = err.Error()
		return g
	}
	return removed(ctx, log, g, pieces(found), dryRun)
}

// removed adds pieces to the garbage and removes them, unless it is a dry run.
func removed(ctx context.Context, log *slog.Logger, g control.Garbage, all []piece, dryRun bool) control.Garbage {
	for _, p := range all {
		shown := control.Piece{Kind: p.Kind, Name: p.Name, Why: p.Why}
		if !dryRun {
			err := p.remove(ctx)
			if err != nil {
				shown.Error = err.Error()
			}
			shown.Removed = err == nil
			log.Info("gc", "kind", p.Kind, "name", p.Name, "why", p.Why, "err", err)
		}
		g.Pieces = append(g.Pieces, shown)
	}
	return g
}
