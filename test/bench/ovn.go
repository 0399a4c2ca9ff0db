//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"

	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

// What the bench of OVN compares: the same driver on a plain bridge, and Docker's
// own network across hosts.
var (
	logical = kind{"ovn", "ovs-container-network", []string{"ovn.switch=bench", "gateway_mode=none"}}
	overlay = kind{"overlay", "overlay", nil}
)

// foreignPorts is how many logical switch ports of others are in the northbound
// database when growth is measured, on foreignSwitches.
const (
	foreignPorts    = 10000
	foreignSwitches = 20
)

// ovnParts measures on a fleet of two hosts: what connect costs, what passes
// between containers of different hosts, and what a large northbound database
// changes.
func ovnParts(ctx context.Context, l *lab.Lab, dir string, r *results) error {
	image, err := lab.Image(ctx, dir)
	if err != nil {
		return err
	}
	f, err := l.Fleet(ctx, 2, lab.FleetOptions{Docker: true, Image: image, Host: []lab.Option{lab.WithBind(dir, "/opt/ocn")}})
	if err != nil {
		return err
	}
	var stages []*stage
	for _, h := range f.Hosts {
		st := &stage{Host: h, results: r, api: newAPI(h)}
		if _, err := h.Shell(ctx, "setsid /opt/ocn/ovs-container-network serve </dev/null >/var/log/ocn.log 2>&1 &"); err != nil {
			return err
		}
		if err := st.answers(ctx); err != nil {
			return err
		}
		stages = append(stages, st)
	}
	b := &ovnBench{fleet: f, one: stages[0], two: stages[1], results: r}
	for _, p := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"setup", b.setup}, {"connect", b.connects}, {"flow", b.flow}, {"foreign", b.foreign},
	} {
		fmt.Fprintln(os.Stderr, "bench: ovn,", p.name)
		if err := p.do(ctx); err != nil {
			return fmt.Errorf("ovn, %s: %w\n%s", p.name, err, b.one.logs(ctx))
		}
	}
	return nil
}

type ovnBench struct {
	*results
	fleet    *lab.Fleet
	one, two *stage
}

// setup makes a swarm, for Docker's overlay, and the networks of each kind.
func (b *ovnBench) setup(ctx context.Context) error {
	if err := b.one.docker(ctx, "swarm", "init", "--advertise-addr", "10.99.0.1", "--default-addr-pool", "172.30.0.0/16"); err != nil {
		return err
	}
	token, err := b.one.Run(ctx, "docker", "swarm", "join-token", "-q", "worker")
	if err != nil {
		return err
	}
	if err := b.two.docker(ctx, "swarm", "join", "--token", strings.TrimSpace(token), "10.99.0.1:2377"); err != nil {
		return err
	}
	if err := b.one.docker(ctx, "network", "create", "--driver", "overlay", "--attachable", "--subnet", subnet(0, 24), overlay.net()); err != nil {
		return err
	}
	for i, s := range []*stage{b.one, b.two} {
		args := logical.createArgs(logical.net(), 1, 24)
		args = append(args[:len(args)-1:len(args)-1], "--ip-range", fmt.Sprintf("10.0.4.%d/26", 64*(i+1)), logical.net())
		if err := s.docker(ctx, args...); err != nil {
			return err
		}
	}
	return b.one.docker(ctx, none.createArgs(none.net(), 2, 24)...)
}

// connects times the API's connect and disconnect of a running container, beside
// a port that is made by hand.
func (b *ovnBench) connects(ctx context.Context) error {
	if err := b.one.lonely(ctx, "h0"); err != nil {
		return err
	}
	// This keeps the overlay on the host, and waits until the swarm works.
	for try := 1; ; try++ {
		err := b.one.start(ctx, "holder", overlay.net())
		if err == nil {
			break
		}
		if try == 5 || ctx.Err() != nil {
			return err
		}
		if err := b.one.docker(ctx, "rm", "-f", "holder"); err != nil {
			return err
		}
	}
	return b.rounds4(ctx, "", []kind{logical, none, overlay})
}

func (s *stage) start(ctx context.Context, name, network string) error {
	return s.docker(ctx, "run", "-d", "--name", name, "--network", network, "lab")
}

func (b *ovnBench) rounds4(ctx context.Context, suffix string, kinds []kind) error {
	for range 4 * b.rounds {
		err := shuffled(append(kinds, kind{column: byHand}), func(k kind) error {
			if k.column == byHand {
				return b.handPort(ctx, suffix)
			}
			before, err := metrics(ctx, b.one.Host)
			if err != nil {
				return err
			}
			if err := b.one.probe(ctx, k.net(), "h0", suffix, k.column); err != nil {
				return err
			}
			after, err := metrics(ctx, b.one.Host)
			if k.driver == logical.driver {
				b.driver(k.column+suffix, after.since(before))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// handPort makes a logical switch port and the port behind it with OVN's and Open
// vSwitch's own programs, waits as an operator's script does, and removes both.
func (b *ovnBench) handPort(ctx context.Context, suffix string) error {
	err := b.one.timed("connect"+suffix, byHand, func() error {
		_, err := b.one.Shell(ctx, `
ovn-nbctl --timeout=10 --db=`+b.fleet.NB+` lsp-add bench hand -- lsp-set-addresses hand "02:00:00:00:00:77 10.0.4.7" -- lsp-set-options hand requested-chassis=h1
ip link add v-hand up type veth peer name v-hand-peer
ovs-vsctl --timeout=10 add-port br-int v-hand -- set Interface v-hand external_ids:iface-id=hand
ovs-vsctl --timeout=10 wait-until Interface v-hand external_ids:ovn-installed=true`)
		return err
	})
	if err != nil {
		return err
	}
	_, err = b.one.Shell(ctx, "ovs-vsctl --timeout=10 del-port v-hand; ip link del v-hand; ovn-nbctl --timeout=10 --db="+b.fleet.NB+" lsp-del hand")
	return err
}

// flow measures what passes between the hosts.
func (b *ovnBench) flow(ctx context.Context) error {
	var paths []path
	for _, k := range []kind{logical, overlay} {
		server, client := k.column+"-server", k.column+"-client"
		if err := b.two.start(ctx, server, k.net()); err != nil {
			return err
		}
		if err := b.one.start(ctx, client, k.net()); err != nil {
			return err
		}
		if err := b.two.docker(ctx, "exec", "-d", server, "iperf3", "-s"); err != nil {
			return err
		}
		addr, err := b.two.Run(ctx, "docker", "inspect", "-f", fmt.Sprintf("{{(index .NetworkSettings.Networks %q).IPAddress}}", k.net()), server)
		if err != nil {
			return err
		}
		paths = append(paths, path{k.column, []string{"docker", "exec", client}, strings.TrimSpace(addr)})
	}
	for i, s := range []*stage{b.two, b.one} {
		if _, err := s.Shell(ctx, fmt.Sprintf(`
ovn-nbctl --timeout=10 --db=%[1]s lsp-add bench far%[2]d -- lsp-set-addresses far%[2]d "02:00:00:00:01:0%[2]d 10.0.4.%[2]d"
ip netns add far
ip link add v-far up mtu 1442 type veth peer name eth0 mtu 1442 netns far
ip -n far link set lo up
ip -n far link set eth0 address 02:00:00:00:01:0%[2]d up
ip -n far addr add 10.0.4.%[2]d/24 dev eth0
ip netns exec far ethtool -K eth0 tx off >/dev/null
ovs-vsctl --timeout=10 add-port br-int v-far -- set Interface v-far external_ids:iface-id=far%[2]d
ovs-vsctl --timeout=10 wait-until Interface v-far external_ids:ovn-installed=true`, b.fleet.NB, i+2)); err != nil {
			return err
		}
	}
	if _, err := b.two.Shell(ctx, "setsid ip netns exec far iperf3 -s </dev/null >/dev/null 2>&1 &"); err != nil {
		return err
	}
	paths = append(paths, path{byHand, []string{"ip", "netns", "exec", "far"}, "10.0.4.2"})
	for range max(1, b.settings.rounds/5) {
		err := shuffled(paths, func(p path) error {
			rate, err := b.one.iperf(ctx, p)
			b.value("TCP between hosts, Mbit/s", p.column, rate)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// foreign measures connect and memory again when the northbound database is full
// of ports of others.
func (b *ovnBench) foreign(ctx context.Context) error {
	b.value("resident memory with OVN, KiB", "few ports", b.one.memory(ctx))
	central := b.fleet.Central[0]
	for sw := range foreignSwitches {
		name := fmt.Sprint("foreign", sw)
		args := []string{"ovn-nbctl", "--timeout=60", "ls-add", name}
		for i := range foreignPorts / foreignSwitches {
			port := fmt.Sprint(name, "-", i)
			args = append(args, "--", "lsp-add", name, port, "--", "lsp-set-addresses", port, fmt.Sprintf("02:01:%02x:00:%02x:%02x", sw, i>>8, i&0xff))
		}
		if _, err := central.Run(ctx, args...); err != nil {
			return err
		}
	}
	if _, err := central.Run(ctx, "ovn-nbctl", "--timeout=120", "--wait=hv", "sync"); err != nil {
		return err
	}
	if err := pause(ctx); err != nil {
		return err
	}
	if err := b.rounds4(ctx, ", 10,000 foreign ports", []kind{logical}); err != nil {
		return err
	}
	b.value("resident memory with OVN, KiB", "10,000 foreign ports", b.one.memory(ctx))
	return nil
}

// printOVN prints what ovnParts measured; without that, nothing.
func (r *results) printOVN(w io.Writer) {
	t := newTable(w, "connect with OVN, ms", "median", "p99", "disconnect", "own p50", "own p99", "waits: northbound", "ovn", "vswitchd", "ovsdb", "disk")
	for _, suffix := range []string{"", ", 10,000 foreign ports"} {
		for _, column := range []string{logical.column, byHand, none.column, overlay.column} {
			what := "connect" + suffix
			samples := r.Samples[what][column]
			if len(samples) == 0 {
				continue
			}
			c := r.counted[column+suffix]
			gone, _ := r.median("disconnect"+suffix, column)
			cells := []string{column + suffix, number(median(samples), 1), number(high(samples), 1), number(orNaN(gone), 1),
				number(r.own(column+suffix, 0.5)*1000, 2), number(r.own(column+suffix, 0.99)*1000, 2)}
			joins := c.histogram(wholeCall, joinCall).Count
			for _, wait := range []string{"northbound", "ovn", "vswitchd", "ovsdb", "disk"} {
				cells = append(cells, number(c.histogram(waitTime, wait).Sum/joins*1000, 1))
			}
			t.row(cells...)
		}
	}
	t.flush()
	few, many := r.own(logical.column, 0.5), r.own(logical.column+", 10,000 foreign ports", 0.5)
	if math.IsNaN(few) {
		return
	}
	fmt.Fprintf(w, "own share with 10,000 foreign ports against few: %s\n", judge(fmt.Sprintf("%.2f, target 1.30", many/few), many/few <= 1.3))
	mb := r.middle("resident memory with OVN, KiB", "10,000 foreign ports") / 1000
	fmt.Fprintf(w, "resident memory: %s MB with few ports, %s\n", number(r.middle("resident memory with OVN, KiB", "few ports")/1000, 1),
		judge(number(mb, 1)+" MB with 10,000 foreign ports, target 40", mb <= 40))
	t = newTable(w, "TCP between two hosts, Mbit/s", "ours", "by hand", "overlay", "ours/by hand")
	rate := func(column string) float64 { return r.middle("TCP between hosts, Mbit/s", column) }
	t.row("one stream", number(rate(logical.column), 0), number(rate(byHand), 0), number(rate(overlay.column), 0), number(rate(logical.column)/rate(byHand), 2))
	t.flush()
}

// high is the 99th percentile.
func high(samples []float64) float64 {
	s := slices.Sorted(slices.Values(samples))
	return s[(len(s)*99-1)/100]
}

func orNaN(v float64) float64 {
	if v == 0 {
		return math.NaN()
	}
	return v
}
