//go:build linux

package main

import (
	"fmt"
	"io"
	"math"
	"strings"
)

// middle is the median of other numbers, NaN if there are none.
func (r *results) middle(what, column string) float64 {
	if v := r.Values[what][column]; len(v) > 0 {
		return median(v)
	}
	return math.NaN()
}

// printGateway sets what Docker's gateway service costs beside what it costs
// with us. docker_gwbridge is a network of the bridge driver.
func (r *results) printGateway(w io.Writer) {
	added := func(column string) float64 {
		v, _ := r.figure(row{what: "run", over: noNetwork}, column)
		return v
	}
	above := added(gateway.column) - added(bridge.column)
	if math.IsNaN(above) {
		return
	}
	fmt.Fprintf(w, "\ngateway_mode=docker adds %s ms to docker run more than a network of docker_gwbridge's kind does: target %s\n",
		number(above, 0), judge("30 ms", above <= 30))
	fmt.Fprintf(w, "a second interface on docker_gwbridge adds %s ms to a container of ours, %s ms to one of the floor\n",
		number(added(gateway.column)-added(none.column), 0), number(added(bareGateway.column)-added(bare.column), 0))
}

// printStorms says what went wrong, in all rounds together.
func (r *results) printStorms(w io.Writer) {
	sum := func(what, column string) string {
		v, ok := r.Values[what][column]
		if !ok {
			return "-"
		}
		total := 0.0
		for _, x := range v {
			total += x
		}
		return number(total, 0)
	}
	t := newTable(w, "what, all rounds", "ours", "floor", "bridge", "target")
	for _, n := range []int{50, 100, 500} {
		for _, what := range []string{
			fmt.Sprint(n, " parallel starts, failed"), fmt.Sprint(n, " parallel removals, failed"),
			fmt.Sprint(n, " parallel removals, left over"), fmt.Sprint(n, " parallel removals, network not removable"),
		} {
			ours := sum(what, none.column)
			if ours == "-" {
				continue
			}
			verdict := "-"
			if !strings.HasSuffix(what, "removable") {
				verdict = judge("0", ours == "0")
			}
			t.row(what, ours, sum(what, bare.column), sum(what, bridge.column), verdict)
		}
	}
	for _, what := range []string{"growth, connects failed", "growth, left over"} {
		if ours := sum(what, none.column); ours != "-" {
			t.row(what, ours, sum(what, bare.column), sum(what, bridge.column), judge("0", ours == "0"))
		}
	}
	t.flush()
}

// printCPU says who used the processors while many started: on few of them,
// that is what the time is made of.
func (r *results) printCPU(w io.Writer) {
	t := newTable(w, append([]string{"CPU s", "network"}, programs...)...)
	for _, n := range []int{50, 100, 500} {
		starts := fmt.Sprint(n, " parallel starts")
		for _, k := range []kind{none, bare, bridge} {
			cells := []string{starts, k.title()}
			for _, p := range programs {
				cells = append(cells, number(r.middle(starts+", CPU s of "+p, k.column), 1))
			}
			if cells[2] != "-" {
				t.row(cells...)
			}
		}
	}
	t.flush()
}

// printDriver prints what the driver measured of itself: the time of its calls
// without the waits for others, the whole, and the waits.
func (r *results) printDriver(w io.Writer) {
	t := newTable(w, "the driver's own time, ms", "calls", "own p50", "own p99", "own mean", "whole p50", "whole p99",
		"ovsdb p50", "p99", "vswitchd p50", "p99", "disk p50", "p99")
	ms := func(v float64) string { return number(v*1000, 2) }
	for _, what := range r.order {
		c := r.counted[what]
		if c.histogram(wholeCall, joinCall).Count == 0 {
			continue
		}
		connect := make([]float64, 5)
		for _, call := range []string{createCall, joinCall, "NetworkDriver.Leave", "NetworkDriver.DeleteEndpoint"} {
			own, whole := c.histogram(ownShare, call), c.histogram(wholeCall, call)
			figures := []float64{own.quantile(0.5), own.quantile(0.99), own.mean(), whole.quantile(0.5), whole.quantile(0.99)}
			cells := []string{what + ": " + strings.TrimPrefix(call, "NetworkDriver."), number(whole.Count, 0)}
			for i, v := range figures {
				cells = append(cells, ms(v))
				if call == createCall || call == joinCall {
					connect[i] += v
				}
			}
			t.row(append(cells, "", "", "", "", "", "")...)
		}
		cells := []string{what + ": CreateEndpoint + Join", ""}
		for _, v := range connect {
			cells = append(cells, ms(v))
		}
		for _, wait := range []string{"ovsdb", "vswitchd", "disk"} {
			h := c.histogram(waitTime, wait)
			cells = append(cells, ms(h.quantile(0.5)), ms(h.quantile(0.99)))
		}
		t.row(cells...)
	}
	t.flush()
	if own, p99 := r.own("100 parallel", 0.5), r.own("100 parallel", 0.99); !math.IsNaN(own) {
		fmt.Fprintf(w, "the driver's own share of a connect at 100 parallel, at most (the sum of both calls' quantiles): p50 %s, p99 %s\n",
			judge(fmt.Sprintf("%.2f ms, target 2 ms", own*1000), own <= 0.002), judge(fmt.Sprintf("%.2f ms, target 10 ms", p99*1000), p99 <= 0.010))
	}
}

// What a connect makes Docker call.
const (
	createCall = "NetworkDriver.CreateEndpoint"
	joinCall   = "NetworkDriver.Join"
)

// own is a quantile of the own share of a connect, in seconds.
func (r *results) own(what string, q float64) float64 {
	c := r.counted[what]
	return c.histogram(ownShare, createCall).quantile(q) + c.histogram(ownShare, joinCall).quantile(q)
}

// printGrowth says what a connect is made of when there are many, and sets the
// last size beside the first.
func (r *results) printGrowth(w io.Writer) {
	t := newTable(w, "connect, ms", "ours", "own", "waits: vswitchd", "ovsdb", "disk", "ovs-vsctl add-port", "floor", "bridge")
	var which []string
	for _, n := range r.sizes() {
		which = append(which, nth(n)+" container")
	}
	for _, n := range r.networkCounts() {
		which = append(which, networks(n))
	}
	figure := func(which, column string) float64 {
		v, _ := r.figure(row{what: "connect, " + which}, column)
		return v
	}
	for _, what := range which {
		if math.IsNaN(figure(what, none.column)) {
			continue
		}
		c := r.counted[what]
		joins := c.histogram(wholeCall, joinCall).Count
		cells := []string{what, number(figure(what, none.column), 0), number(r.ownMean(what)*1000, 1)}
		for _, wait := range []string{"vswitchd", "ovsdb", "disk"} {
			cells = append(cells, number(c.histogram(waitTime, wait).Sum/joins*1000, 1))
		}
		for _, column := range []string{byHand, bare.column, bridge.column} {
			cells = append(cells, number(figure(what, column), 0))
		}
		t.row(cells...)
	}
	t.flush()
	first, last := which[0], which[len(r.sizes())-1]
	growth := func(column string) float64 { return figure(last, column) / figure(first, column) }
	ours, theirs := growth(none.column), growth(bridge.column)
	if math.IsNaN(ours) {
		return
	}
	fmt.Fprintf(w, "%s against %s: ours %s, by hand %s, floor %s, bridge %s: target %s\n", last, first, number(ours, 2),
		number(growth(byHand), 2), number(growth(bare.column), 2), number(theirs, 2), judge("not above bridge", ours <= theirs))
	if share := r.own(last, 0.5) / r.own(first, 0.5); !math.IsNaN(share) {
		fmt.Fprintf(w, "the driver's own share of it: medians %s, means %s\n",
			judge(fmt.Sprintf("%.2f, target 1.30", share), share <= 1.3), number(r.ownMean(last)/r.ownMean(first), 2))
	}
}

// ownMean is the own share of a connect, in seconds.
func (r *results) ownMean(what string) float64 {
	c := r.counted[what]
	return c.histogram(ownShare, createCall).mean() + c.histogram(ownShare, joinCall).mean()
}

// printIdle prints memory, CPU and the cost of a look.
func (r *results) printIdle(w io.Writer) {
	t := newTable(w, "when nothing happens", "memory MB", "target", "CPU %", "target", "vswitchd CPU %",
		"look after an event: ms", "CPU ms", "look at everything: ms", "CPU ms", "networks", "writes")
	for _, c := range []struct {
		column string
		limit  float64 // MB
	}{{"idle", 20}, {"100 endpoints", 25}, {endpoints(r.most), 50}, {networks(r.most), 0}} {
		kib := r.middle("resident memory, KiB", c.column)
		if math.IsNaN(kib) {
			continue
		}
		mb, memory := kib/1000, "-" // as the peers were measured
		if c.limit > 0 {
			memory = judge(number(c.limit, 0), mb <= c.limit)
		}
		cpu, load := r.middle("CPU when nothing happens, % of a core", c.column), "-"
		if !math.IsNaN(cpu) {
			load = judge("0.1", cpu <= 0.1)
		}
		cells := []string{c.column, number(mb, 1), memory, number(cpu, 2), load,
			number(r.middle("CPU of ovs-vswitchd when nothing happens, % of a core", c.column), 2)}
		for _, look := range []string{"a look after an event", "a look at everything"} {
			cells = append(cells, number(r.middle(look+": time, ms", c.column), 2), number(r.middle(look+": CPU, ms", c.column), 1))
		}
		const all = "a look at everything"
		cells = append(cells, number(r.middle(all+": networks looked at", c.column), 0),
			number(r.middle(all+": transactions", c.column)+r.middle("a look after an event: transactions", c.column), 0))
		t.row(cells...)
	}
	t.flush()
}

// printFlow prints what passes between two containers.
func (r *results) printFlow(w io.Writer) {
	t := newTable(w, "passes, Mbit/s", "ours", "by hand", "bridge", "ours/by hand", "target")
	for _, suffix := range []string{"", ", userspace-tso"} {
		for _, protocol := range []string{"TCP", "UDP"} {
			what := protocol + suffix + ", Mbit/s"
			ours, hand := r.middle(what, none.column), r.middle(what, byHand)
			if math.IsNaN(ours) {
				continue
			}
			t.row(protocol+suffix, number(ours, 0), number(hand, 0), number(r.middle(what, bridge.column), 0),
				number(ours/hand, 2), judge("0.97", ours/hand >= 0.97))
		}
	}
	t.flush()
}
