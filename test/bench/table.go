//go:build linux

package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
)

// row is one line of the table of times. Its figures are medians of what, of
// the columns named.
type row struct {
	label, what string
	ours        string
	floor       string
	over        string  // column to subtract: what any container costs
	ratio       float64 // target: ours/bridge at most this; 0 if there is none
	limit       float64 // target: at most so many ms; 0 if there is none
	peer        string  // the best peer's ratio
}

// rows are the targets, and what stands beside them. The peers' figures were
// taken on another day, on the same number of processors.
func (s settings) rows() []row {
	all := []row{
		{label: "network create", what: "network create", ours: "kept", floor: "floor", ratio: 0.45, limit: 100, peer: "0.48"},
		{label: "network create with its bridge", what: "network create", ours: "first", floor: "floor", ratio: 0.45, limit: 100, peer: "-"},
		{label: "network rm", what: "network rm", ours: "kept", floor: "floor", ratio: 0.12, peer: "0.10"},
		{label: "network rm with its bridge", what: "network rm", ours: "first", floor: "floor", ratio: 0.12, peer: "-"},
	}
	for _, mode := range []string{"none", "external"} {
		all = append(all, row{label: "connect, " + mode, what: "connect", ours: mode, floor: "floor", ratio: 1, limit: 50, peer: "1.11"})
	}
	all = append(all, row{label: "connect, docker", what: "connect", ours: "docker", peer: "-"})
	for _, mode := range []string{"none", "external"} {
		all = append(all, row{label: "disconnect, " + mode, what: "disconnect", ours: mode, floor: "floor", ratio: 0.45, peer: "0.45"})
	}
	for _, mode := range []string{"none", "external"} {
		all = append(all, row{label: "added to docker run, " + mode, what: "run", ours: mode, floor: "floor", over: noNetwork, ratio: 0.9, peer: "0.92"})
	}
	all = append(all,
		row{label: "added to docker run, docker", what: "run", ours: "docker", floor: "floor-docker", over: noNetwork, peer: "1.74"},
		row{label: "rm -f, none", what: "rm -f", ours: "none", floor: "floor", peer: "0.76"},
	)
	for _, n := range []int{50, 100, 500} {
		starts := row{label: fmt.Sprint(n, " parallel starts"), ours: "none", floor: "floor", ratio: 0.97, peer: map[int]string{50: "0.97", 100: "1.20", 500: "-"}[n]}
		removals := row{label: fmt.Sprint(n, " parallel removals"), ours: "none", floor: "floor", peer: map[int]string{50: "0.59", 100: "0.78", 500: "-"}[n]}
		starts.what, removals.what = starts.label, removals.label
		all = append(all, starts, removals)
	}
	var which []string
	for _, n := range s.sizes() {
		which = append(which, nth(n)+" container")
	}
	for _, n := range s.networkCounts() {
		which = append(which, networks(n))
	}
	for _, w := range which {
		for _, call := range []string{"connect", "disconnect", "create", "remove"} {
			all = append(all, row{label: call + ", " + w, what: call + ", " + w, ours: "none", floor: "floor", peer: "-"})
		}
	}
	return all
}

// print writes all tables; of those without a figure, nothing.
func (r *results) print(w io.Writer) {
	t := newTable(w, "what, ms", "ours", "floor", "bridge", "ours/bridge", "floor/bridge", "target", "best peer")
	for _, row := range r.rows() {
		ours, ok := r.figure(row, row.ours)
		if !ok {
			continue
		}
		floor, _ := r.figure(row, row.floor)
		bridge, _ := r.figure(row, "bridge")
		t.row(row.label, number(ours, 0), number(floor, 0), number(bridge, 0),
			number(ours/bridge, 2), number(floor/bridge, 2), row.verdict(ours, bridge), row.peer)
	}
	t.flush()
	r.printGateway(w)
	r.printStorms(w)
	r.printCPU(w)
	r.printDriver(w)
	r.printGrowth(w)
	r.printIdle(w)
	r.printFlow(w)
	r.printOVN(w)
}

// figure is the median of a column, NaN and false if there is none.
func (r *results) figure(row row, column string) (float64, bool) {
	v, ok := r.median(row.what, column)
	if row.over != "" {
		base, _ := r.median(row.what, row.over)
		v -= base
	}
	if !ok {
		v = math.NaN()
	}
	return v, ok
}

// verdict is the target and whether it is met.
func (r row) verdict(ours, bridge float64) string {
	var target []string
	met := true
	if r.ratio > 0 {
		target = append(target, fmt.Sprintf("%.2f", r.ratio))
		met = met && ours/bridge <= r.ratio
	}
	if r.limit > 0 {
		target = append(target, fmt.Sprintf("%.0f ms", r.limit))
		met = met && ours <= r.limit
	}
	if target == nil {
		return "-"
	}
	return judge(strings.Join(target, ", "), met)
}

func judge(target string, met bool) string {
	if met {
		return target + " met"
	}
	return target + " MISSED"
}

// number is a figure, or a dash if there is none.
func number(v float64, decimals int) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return "-"
	}
	return fmt.Sprintf("%.*f", decimals, v)
}

// table is written with its head before the first row, or not at all.
type table struct {
	w    io.Writer
	t    *tabwriter.Writer
	head []string
}

func newTable(w io.Writer, head ...string) *table {
	return &table{w, tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight), head}
}

func (t *table) row(cells ...string) {
	if t.head != nil {
		head := t.head
		t.head = nil
		fmt.Fprintln(t.w)
		t.row(head...)
	}
	fmt.Fprintln(t.t, strings.Join(cells, "\t")+"\t")
}

func (t *table) flush() { t.t.Flush() }
