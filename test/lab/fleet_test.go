//go:build linux

package lab_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

// TestFleet has two hosts talk through either kind of tunnel, and after one of
// them has lost its power.
func TestFleet(t *testing.T) {
	l, ctx := newLab(t)
	step := steps(t)
	f, err := l.Fleet(ctx, 2, lab.FleetOptions{})
	must(t, err)
	step("fleet of 2")
	if f.NB != "tcp:10.99.0.100:6641" || f.SB != "tcp:10.99.0.100:6642" {
		t.Errorf("databases at %s and %s", f.NB, f.SB)
	}
	nb := f.Central[0]
	run(t, ctx, nb, "ovn-nbctl", "--timeout=10", "ls-add", "ls0")
	attach := func(i int) {
		t.Helper()
		p := fmt.Sprintf("p%d", i+1)
		join(t, ctx, f.Hosts[i], "br-int", "c", fmt.Sprintf("02:00:00:00:01:0%d", i+1), fmt.Sprintf("10.2.0.%d/24", i+1),
			"--", "set", "Interface", "v-c", "external_ids:iface-id="+p)
	}
	for i := range f.Hosts {
		p := fmt.Sprintf("p%d", i+1)
		run(t, ctx, nb, "ovn-nbctl", "--timeout=10", "lsp-add", "ls0", p, "--", "lsp-set-addresses", p, fmt.Sprintf("02:00:00:00:01:0%d 10.2.0.%d", i+1, i+1))
		attach(i)
	}
	tunnels := func(kind string) {
		t.Helper()
		reaches(t, ctx, f.Hosts[0], "c", "10.2.0.2")
		for _, h := range f.Hosts {
			eventually(t, "the only tunnel of "+h.Name()+" is "+kind, func() error {
				out, err := h.Run(ctx, "ovs-vsctl", "--timeout=10", "--bare", "--columns=type", "find", "Interface", "options:remote_ip!=0.0.0.0")
				if err == nil && strings.TrimSpace(out) != kind {
					err = fmt.Errorf("tunnels: %q", out)
				}
				return err
			})
		}
	}
	tunnels("geneve")
	step("geneve")

	for _, h := range f.Hosts {
		c := f.ChassisOf(h)
		c.EncapType = "vxlan"
		must(t, h.StartController(ctx, c))
	}
	tunnels("vxlan")
	reaches(t, ctx, f.Hosts[0], "c", "10.2.0.2")
	step("vxlan")

	must(t, f.Hosts[1].Kill())
	must(t, f.Start(ctx, f.Hosts[1]))
	attach(1)
	must(t, f.Hosts[0].StartController(ctx, f.ChassisOf(f.Hosts[0])))
	tunnels("geneve")
	step("power cut, geneve again")

	again, err := l.Fleet(ctx, 2, lab.FleetOptions{})
	must(t, err)
	if again.Hosts[0] != f.Hosts[0] || again.Central[0] != nb {
		t.Error("a second call made other hosts")
	}
	reaches(t, ctx, f.Hosts[0], "c", "10.2.0.2")
	step("fleet again")
}

// TestRAFT takes the leader from a cluster that speaks TLS.
func TestRAFT(t *testing.T) {
	l, ctx := newLab(t)
	step := steps(t)
	f, err := l.Fleet(ctx, 1, lab.FleetOptions{RAFT: true, TLS: true})
	must(t, err)
	step("cluster and chassis")
	h := f.Hosts[0]
	write := func(args ...string) error {
		all := append([]string{"ovn-nbctl", "--db=" + f.NB, "--timeout=3"}, f.PKI.Flags()...)
		_, err := h.Run(ctx, append(all, args...)...)
		return err
	}
	must(t, write("ls-add", "ls0"))
	leads := func(db string) *lab.Host {
		t.Helper()
		var leader *lab.Host
		eventually(t, "somebody leads "+db, func() error {
			if leader = f.Leader(ctx, db); leader == nil {
				return fmt.Errorf("nobody does")
			}
			return nil
		})
		return leader
	}
	old := leads(lab.NB)
	must(t, old.KillNB(ctx, syscall.SIGKILL))
	eventually(t, "a write works again", func() error { return write("--may-exist", "ls-add", "ls1") })
	step("leader of NB killed, write")
	if now := leads(lab.NB); now == old {
		t.Errorf("%s leads, and is dead", old.Name())
	}
	must(t, f.Start(ctx, old))

	old = leads(lab.SB)
	must(t, old.Kill())
	// The others notice after their probes of five seconds, one after the other.
	within(t, time.Minute, "the chassis follows again", func() error { return write("--wait=hv", "sync") })
	step("power cut of the leader of SB")
	must(t, f.Start(ctx, old))
	eventually(t, old.Name()+" is a member again", func() error {
		_, err := old.Run(ctx, "ovn-nbctl", "--timeout=3", "--no-leader-only", "get", "Logical_Switch", "ls1", "name")
		return err
	})
	step("it is back")
	if err := h.StartNB(ctx, lab.Central{Addr: "10.99.0.9", Members: []string{"10.99.0.101"}}); err == nil {
		t.Error("an address that is no member's was taken")
	}
}
