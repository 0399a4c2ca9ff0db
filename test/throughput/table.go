//go:build linux

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// table holds the rates by protocol and way, in the order of the rounds.
type table map[string]map[string][]float64

// target is the least that this driver may reach of what the same veths reach
// when they are attached by hand.
const target = 0.97

func (t table) print(w io.Writer, ways []*way) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(cells ...string) { fmt.Fprintln(tw, strings.Join(cells, "\t")+"\t") }
	row("one stream between two containers", "TCP Gbit/s", "least..most", "of by hand", "target", "UDP Gbit/s", "least..most", "of by hand")
	for _, way := range ways {
		cells := []string{way.name}
		for _, protocol := range []string{"tcp", "udp"} {
			rates := t[protocol][way.name]
			if len(rates) == 0 {
				cells = append(cells, "-", "", "")
				continue
			}
			cells = append(cells,
				fmt.Sprintf("%.2f", median(rates)),
				fmt.Sprintf("%.2f..%.2f", slices.Min(rates), slices.Max(rates)),
				fmt.Sprintf("%.2f", t.ratio(protocol, way.name, byHand)))
			if protocol == "tcp" {
				goal := ""
				if way.name == ours {
					goal = fmt.Sprint(target)
				}
				cells = append(cells, goal)
			}
		}
		row(cells...)
	}
	tw.Flush()
	fmt.Fprintf(w, "\nwith userspace-tso, this driver of by hand: TCP %.2f, UDP %.2f\n",
		t.ratio("tcp", oursTSO, byHandTSO), t.ratio("udp", oursTSO, byHandTSO))
}

// ratio is the median of the ratios of each round.
func (t table) ratio(protocol, a, b string) float64 {
	var ratios []float64
	for i, rate := range t[protocol][a] {
		if i < len(t[protocol][b]) {
			ratios = append(ratios, rate/t[protocol][b][i])
		}
	}
	return median(ratios)
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
