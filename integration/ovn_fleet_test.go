//go:build linux

package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

// fleet is several hosts with the driver and one OVN, in a lab of its own.
type fleet struct {
	*lab.Fleet
	lab   *lab.Lab
	t     *testing.T
	hosts []*host
	hc    *host // the central, or a member of it
	pairs []*farPair
}

// newLab is a lab for the hosts of one test.
func newLab(t *testing.T) *lab.Lab {
	t.Helper()
	slots <- struct{}{}
	t.Cleanup(func() { <-slots })
	l, err := lab.New("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("cannot remove the hosts: %v", err)
		}
	})
	return l
}

// onUnderlay is a host of that lab with Open vSwitch, without docker and the driver.
func onUnderlay(t *testing.T, l *lab.Lab, name, addr string) *host {
	t.Helper()
	lh, err := l.Host(t.Context(), name, lab.WithBind(build, buildDir))
	if err != nil {
		t.Fatal(err)
	}
	h := &host{Host: lh, t: t, form: service}
	t.Cleanup(func() {
		if t.Failed() {
			h.logState()
		}
	})
	h.must(h.StartOVS(h.ctx()))
	h.must(h.Underlay(h.ctx(), addr))
	// Of whatever datapath this machine has.
	h.ovs("set", "Open_vSwitch", ".", "external_ids:ovn-bridge-datapath-type=netdev")
	return h
}

// newFleet starts n hosts with a central, docker and the driver.
func newFleet(t *testing.T, n int, o lab.FleetOptions) *fleet {
	t.Helper()
	l := newLab(t)
	f := &fleet{lab: l, t: t}
	t.Cleanup(func() {
		if t.Failed() {
			f.logState()
		}
	})
	o.Docker, o.Image = true, image
	o.Host = append(o.Host, lab.WithBind(build, buildDir))
	var err error
	if f.Fleet, err = l.Fleet(t.Context(), n, o); err != nil {
		t.Fatal(err)
	}
	f.hc = &host{Host: f.Central[0], t: t}
	for _, lh := range f.Hosts {
		h := &host{Host: lh, t: t, form: service, on: suite(o.Root)}
		f.hosts = append(f.hosts, h)
		h.startDriver()
	}
	return f
}

func (f *fleet) logState() {
	for _, h := range f.hosts {
		h.logState()
	}
	if f.hc == nil {
		return
	}
	// The test's own context is over by now.
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, args := range [][]string{{"show"}, {"list", "DHCP_Options"}} {
		out, err := f.hc.Run(ctx, f.nbArgs(args...)...)
		f.t.Logf("northbound %s: %v\n%s", args[0], err, out)
	}
}

// nbctl asks the northbound database.
func (f *fleet) nbctl(args ...string) string {
	f.t.Helper()
	return f.hc.run(f.nbArgs(args...)...)
}

// nbArgs is a command for the leader of the northbound database.
func (f *fleet) nbArgs(args ...string) []string {
	command := append([]string{"ovn-nbctl", "--timeout=20", "--db=" + f.NB}, f.PKI.Flags()...)
	return append(command, args...)
}

// network creates the same network on all hosts, with disjoint ranges for the
// addresses that Docker's own IPAM gives.
func (f *fleet) network(name, subnet string, args ...string) {
	f.t.Helper()
	for i, h := range f.hosts {
		ipRange := strings.TrimSuffix(subnet, ".0/24") + fmt.Sprintf(".%d/27", 32*(i+1))
		h.network(name, append([]string{"--subnet", subnet, "--ip-range", ipRange}, args...)...)
	}
}

// farPair is two containers of different hosts that talk all the time.
type farPair struct {
	from, to *host
	a, b     string
	network  string
	port     string // its own: one container can be in several pairs
	file     string
	cmd      *exec.Cmd
	seen     int
}

// converse has two containers talk until one of them ends.
func (f *fleet) converse(from *host, a string, to *host, b, network string) *farPair {
	f.t.Helper()
	p := &farPair{from: from, to: to, a: a, b: b, network: network, port: fmt.Sprint(7000 + len(f.pairs))}
	f.pairs = append(f.pairs, p)
	p.follow(f.t)
	return p
}

// follow starts the talk anew if the containers are not those it is between.
func (p *farPair) follow(t *testing.T) {
	t.Helper()
	p.from.must(buildTraffic())
	p.file, p.seen = filepath.Join(t.TempDir(), "report"), 0
	p.cmd = exec.CommandContext(t.Context(), filepath.Join(build, "traffic"),
		p.from.Path(p.from.in(p.a).netns), p.to.Path(p.to.in(p.b).netns),
		p.from.address(p.a, p.network), p.to.address(p.b, p.network), p.port, p.file)
	p.from.must(p.cmd.Start())
	go p.cmd.Wait() //nolint:errcheck // it ends with the containers, or with the test
	p.from.eventually(p.a+" and "+p.b+" exchange packets", func() error { return p.talks(time.Time{}) })
}

func (p *farPair) report() (r trafficReport, err error) {
	text, err := os.ReadFile(p.file)
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	return r, err
}

func (p *farPair) talks(since time.Time) error {
	r, err := p.report()
	switch {
	case err != nil:
		return fmt.Errorf("%s and %s: %w", p.a, p.b, err)
	case time.Since(r.Written) > 5*time.Second:
		return fmt.Errorf("%s and %s: their traffic ended at %s", p.a, p.b, r.Written)
	case !r.LastAnswer.After(since), r.Written.Sub(r.LastAnswer) > 500*time.Millisecond:
		return fmt.Errorf("%s and %s: no answer since %s", p.a, p.b, r.LastAnswer)
	}
	return nil
}

func (p *farPair) lost() string {
	r, err := p.report()
	if err != nil {
		return "?"
	}
	lost := max(0, r.Lost-p.seen)
	p.seen = r.Lost
	return fmt.Sprint(lost)
}

func (f *fleet) lost() string {
	var lost []string
	for _, p := range f.pairs {
		lost = append(lost, fmt.Sprintf("%s-%s %s", p.a, p.b, p.lost()))
	}
	return strings.Join(lost, ", ")
}

// survives breaks something in do, and mends it there unless the driver or OVN is
// to do that, while containers of different hosts talk. Afterwards all is as before.
func (f *fleet) survives(fault string, do func()) {
	f.t.Helper()
	f.t.Log("fault:", fault)
	f.lost()
	do()
	since := time.Now()
	outcome, talk := "not healed", "never"
	defer func() { f.note(fault, talk, outcome) }()
	f.hosts[0].within(talkAgain, "all pairs talk after: "+fault, func() error { return f.talk(since) })
	talk = fmt.Sprintf("%.1f", time.Since(since).Seconds())
	f.newcomers()
	var left error
	f.hosts[0].within(exactAgain, "everything is exact after: "+fault, func() error {
		left = f.exact()
		return left
	})
	outcome = fmt.Sprintf("none after %.1f s", time.Since(since).Seconds())
	for _, h := range f.hosts {
		h.healthy()
	}
}

// talk tells whether all pairs have had answers since then, and still have them.
func (f *fleet) talk(since time.Time) error {
	var errs []error
	for _, p := range f.pairs {
		errs = append(errs, p.talks(since))
	}
	return errors.Join(errs...)
}

func (f *fleet) note(fault, talk, outcome string) {
	f.t.Helper()
	line := strings.Join([]string{"OVN: " + fault, f.lost(), talk, outcome, "service own"}, " | ")
	f.t.Log(line)
	faultsMu.Lock()
	defer faultsMu.Unlock()
	if err := errors.Join(os.MkdirAll(filepath.Dir(faultsFile), 0o755), appendTo(faultsFile, line+"\n")); err != nil {
		f.t.Errorf("cannot note the fault: %v", err)
	}
}

// newcomers starts a container on each host, which reaches one of each other host.
func (f *fleet) newcomers() {
	f.t.Helper()
	for _, p := range f.pairs {
		p.from.container("guest", p.network)
		p.from.ping("guest", p.to.address(p.b, p.network))
		p.from.docker("rm", "-f", "guest")
	}
}

// exact compares what the dockerds know with what the northbound database and each
// host hold.
func (f *fleet) exact() error {
	d := &differences{}
	wantPorts, wantBook := map[string]bool{}, map[string]bool{}
	for _, h := range f.hosts {
		if err := h.exact(); err != nil {
			d.add("host %s: %w", h.Name(), err)
		}
		known, err := h.dockerView()
		if err != nil {
			return err
		}
		for _, n := range known {
			for id, e := range n.ends {
				port, _ := network.EndpointID(id).Links()
				wantPorts[port] = true
				wantBook[e.mac] = true
				for _, a := range []string{e.ipv4, e.ipv6} {
					if a, _, _ = strings.Cut(a, "/"); a != "" {
						wantBook[a] = true
					}
				}
			}
		}
	}
	ports, err := f.rows("Logical_Switch_Port", "name", "external_ids")
	if err != nil {
		return err
	}
	have := map[string]bool{}
	for _, p := range ports {
		if p.ids["owner"] == network.Owner && p.ids["role"] == "" {
			have[p.name] = true
		}
	}
	d.sets("logical switch port", have, wantPorts)
	books, err := f.rows("DHCP_Options", "cidr", "external_ids")
	if err != nil {
		return err
	}
	entries := map[string]bool{}
	for _, b := range books {
		for key, who := range b.ids {
			if strings.HasPrefix(who, network.LinkPrefix) {
				entries[key] = true
			}
		}
	}
	d.sets("entry of a book", entries, wantBook)
	return errors.Join(d.found...)
}

// nbRow is a row of the northbound database.
type nbRow struct {
	name string
	ids  map[string]string
}

func (f *fleet) rows(table, name, ids string) (rows []nbRow, err error) {
	out, err := f.hc.Run(f.t.Context(), f.nbArgs("--format=json", "--columns="+name+","+ids, "list", table)...)
	if err != nil {
		return nil, err
	}
	var found struct{ Data [][2]any }
	if err := json.Unmarshal([]byte(out), &found); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	for _, c := range found.Data {
		r := nbRow{name: fmt.Sprint(c[0]), ids: map[string]string{}}
		for _, pair := range c[1].([]any)[1].([]any) { // ["map", [[key, value], ...]]
			kv := pair.([]any)
			r.ids[kv[0].(string)] = kv[1].(string)
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// expectEmpty fails unless nothing of this driver is in the northbound database and
// on the hosts.
func (f *fleet) expectEmpty() {
	f.t.Helper()
	f.hosts[0].eventually("nothing is left in the northbound database", func() error {
		var left []string
		for table, name := range map[string]string{
			"Logical_Switch": "name", "Logical_Switch_Port": "name", "Logical_Router": "name", "Logical_Router_Port": "name", "DHCP_Options": "cidr",
		} {
			rows, err := f.rows(table, name, "external_ids")
			if err != nil {
				return err
			}
			for _, r := range rows {
				if r.ids["owner"] == network.Owner || len(claimsIn(r.ids)) > 0 {
					left = append(left, fmt.Sprintf("%s %s %v", table, r.name, r.ids))
				}
			}
		}
		if len(left) > 0 {
			slices.Sort(left)
			return fmt.Errorf("left over:\n%s", strings.Join(left, "\n"))
		}
		return nil
	})
	for _, h := range f.hosts {
		h.expectClean()
	}
}

func claimsIn(ids map[string]string) (claims []string) {
	for key := range ids {
		if strings.HasPrefix(key, "claim.") {
			claims = append(claims, key)
		}
	}
	return claims
}
