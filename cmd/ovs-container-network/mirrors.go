package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/diag"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovs"
)

// countTime bounds the question what was copied: status answers without it, too.
const countTime = 2 * time.Second

// countCopies adds to the mirrors what was copied through them.
func countCopies(reports []network.Report, ask func(context.Context) (map[string]ovs.Copied, error)) {
	if !slices.ContainsFunc(reports, func(n network.Report) bool { return len(n.Mirrors) > 0 }) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), countTime)
	defer cancel()
	counts, err := ask(ctx)
	if err != nil {
		return // that the database is not reached is told elsewhere
	}
	for _, n := range reports {
		for i := range n.Mirrors {
			m := &n.Mirrors[i]
			if c, ok := counts[m.Name]; ok {
				m.Counted, m.Packets, m.Bytes = true, c.Packets, c.Bytes
			}
		}
	}
}

func printMirrors(w io.Writer, networks []network.Report) {
	if !slices.ContainsFunc(networks, func(n network.Report) bool { return len(n.Mirrors) > 0 }) {
		return
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "MIRROR OF\tTO\tDIRECTION\tPORTS\tPACKETS\tBYTES")
	for _, n := range networks {
		for _, m := range n.Mirrors {
			packets, bytes := "-", "-"
			if m.Counted {
				packets, bytes = strconv.FormatUint(m.Packets, 10), strconv.FormatUint(m.Bytes, 10)
			}
			fmt.Fprintln(t, strings.Join([]string{nameOf(n), m.To, string(m.Direction), strconv.Itoa(m.Ports), packets, bytes}, "\t"))
		}
	}
	t.Flush()
}

// idle says why a mirror copies nothing, or not all; empty if it does.
func idle(m network.MirrorStatus) string {
	var why []string
	if m.Idle != "" {
		why = append(why, m.Idle)
	}
	if len(m.Missing) > 0 {
		why = append(why, "no container of the network is named "+strings.Join(m.Missing, " or "))
	}
	return strings.Join(why, "; ")
}

// checkMirrors advises on mirrors that copy nothing: what they name may only be
// stopped.
func checkMirrors(reports []network.Report) (found []diag.Finding) {
	for _, n := range reports {
		for _, m := range n.Mirrors {
			why := idle(m)
			if why == "" {
				continue
			}
			f := diag.Finding{
				Severity: diag.Advice, Subject: "network " + nameOf(n), Cause: fmt.Sprintf("the mirror to %s: %s", m.To, why), Mend: m.Mend,
			}
			for _, name := range m.Missing {
				f.Mend = append(f.Mend, "docker start "+name)
			}
			found = append(found, f)
		}
	}
	return found
}
