//go:build linux

package integration

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

// aloneOnOVN is a host that is its own central, with containers aa and bb on a
// logical switch.
func aloneOnOVN(t *testing.T, f form) *host {
	t.Helper()
	h := newHost(t, f, own)
	h.startOVN()
	h.network("web", "--subnet", "10.1.0.0/24", "--opt", "ovn.switch=ls1")
	h.container("aa", "web")
	h.container("bb", "web")
	h.ping("aa", "bb")
	h.healthy()
	return h
}

// leaveOVN removes what aloneOnOVN made, and looks that nothing is left of it.
func (h *host) leaveOVN() {
	h.t.Helper()
	h.docker("rm", "-f", "aa", "bb")
	h.docker("network", "rm", "web")
	h.expectEmptyNB()
	h.expectClean()
}

// status shows the switch of a network, the northbound database and the chassis, in
// both forms of the driver, and doctor finds nothing.
func TestOVNStatus(t *testing.T) {
	t.Parallel()
	for _, f := range []form{service, plugin} {
		t.Run(string(f), func(t *testing.T) {
			t.Parallel()
			h := aloneOnOVN(t, f)
			s := h.status()
			if n := s.Networks[0]; n.Switch != "ls1" || !n.Secure || !n.Ends[0].Secure {
				t.Errorf("the network is %+v", n)
			}
			if s.Northbound == nil || !s.Northbound.Connected || s.Fleet == nil || len(s.Fleet.Chassis) != 1 {
				t.Fatalf("the northbound database is %+v, the fleet %+v", s.Northbound, s.Fleet)
			}
			c := s.Fleet.Chassis[0]
			if !c.Here || c.Seen.IsZero() || c.Behind != 0 || len(c.Encaps) == 0 || c.Encaps[0].IP != "127.0.0.1" || !strings.HasPrefix(c.OVN, "23.") {
				t.Errorf("the chassis is %+v", c)
			}
			text := h.run(buildDir+"/ovs-container-network", "status")
			for _, want := range []string{"SWITCH", "ls1", "OVN northbound database at unix:", "CHASSIS", c.Name + " (this host)", "geneve 127.0.0.1", "ago"} {
				if !strings.Contains(text, want) {
					t.Errorf("status does not show %q:\n%s", want, text)
				}
			}
			h.leaveOVN()
		})
	}
}

// Everything of OVN that is broken doctor names, and it is content again when that is
// mended.
func TestOVNDoctor(t *testing.T) {
	t.Parallel()
	h := aloneOnOVN(t, service)
	ctx, central := h.ctx(), lab.Central{}
	for _, fault := range []struct {
		what  string
		fails func()
		words []string
		mends func()
	}{
		{"ovn-controller dies", func() { h.must(h.KillController(ctx, syscall.SIGKILL)) },
			[]string{"controller", "ovn-controller is not running", "systemctl restart ovn-controller"},
			func() { h.must(h.StartController(ctx, lab.Chassis{})) }},
		{"ovn-controller hangs", func() { h.must(h.KillController(ctx, syscall.SIGSTOP)) },
			[]string{"controller", "ovn-controller hangs", "systemctl restart ovn-controller"},
			func() { h.must(h.KillController(ctx, syscall.SIGCONT)) }},
		{"northd dies", func() { h.must(h.KillNorthd(ctx, syscall.SIGKILL)) },
			[]string{"northd", "ovn-northd does not act", "systemctl restart ovn-northd"},
			func() { h.must(h.StartNorthd(ctx, central)) }},
		{"the northbound database dies", func() { h.must(h.KillNB(ctx, syscall.SIGKILL)) },
			[]string{"northbound", "unix:/run/ovn/ovnnb_db.sock", "is not reached", "systemctl restart ovn-central"},
			func() { h.must(h.StartNB(ctx, central)) }},
		{"the southbound database dies", func() { h.must(h.KillSB(ctx, syscall.SIGKILL)) },
			[]string{"controller", "does not reach the southbound database", "ovnsb_db.sock", "ovn-central"},
			func() { h.must(h.StartSB(ctx, central)) }},
		{"another switch has the name", func() {
			// In one moment, while the driver does not look: it would make it again.
			h.sh("kill -STOP " + h.driverPID())
			h.nbctl("ls-del", "ls1", "--", "ls-add", "ls1", "--", "set", "Logical_Switch", "ls1", "other_config:subnet=10.9.0.0/24")
			h.sh("kill -CONT " + h.driverPID())
		}, []string{"switches", "network web", "ls1", "10.9.0.0/24"},
			func() { h.nbctl("set", "Logical_Switch", "ls1", "other_config:subnet=10.1.0.0/24") }},
		{"a port of others has an address", func() {
			h.nbctl("lsp-add", "ls1", "theirs", "--", "set", "Logical_Switch_Port", "theirs", fmt.Sprintf("addresses=%q", "02:00:00:00:09:09 "+h.address("aa", "web")))
		}, []string{"switches", "container aa", h.address("aa", "web"), "theirs", "ovn-nbctl lsp-del theirs"},
			func() { h.nbctl("lsp-del", "theirs") }},
		{"the tunnels end nowhere", func() { h.ovs("set", "Open_vSwitch", ".", "external_ids:ovn-encap-ip=192.0.2.9") },
			[]string{"chassis", "192.0.2.9", "ip addr add"},
			func() { h.ovs("set", "Open_vSwitch", ".", "external_ids:ovn-encap-ip=127.0.0.1") }},
		{"the flows are deleted", func() { h.run("ovs-ofctl", "del-flows", "br-int") },
			[]string{"forwarding", "container aa", "the flows of OVN are gone", "systemctl restart ovn-controller"},
			func() {
				h.must(h.KillController(ctx, syscall.SIGTERM))
				h.must(h.StartController(ctx, lab.Chassis{}))
			}},
	} {
		t.Log(fault.what)
		fault.fails()
		h.diagnoses(fault.words...)
		fault.mends()
		h.healthy()
		h.ping("aa", "bb")
	}

	h.listsChassis()

	// What is deleted the driver makes again by itself.
	h.nbctl("ls-del", "ls1")
	h.healthy()
	h.ping("aa", "bb")

	// What this host has left in the northbound database is found, and removed.
	claim := "claim." + h.status().HostID + ".abcdef012345"
	h.nbctl("set", "Logical_Switch", "ls1", "external_ids:"+claim+"=x")
	h.eventually("gc finds the claim", func() error {
		if found, _ := h.gc("--dry-run"); !slices.Contains(found, "claim ls1 "+claim) {
			return fmt.Errorf("it finds %q", found)
		}
		return nil
	})
	h.gc()
	if found, text := h.gc("--dry-run"); len(found) > 0 {
		t.Errorf("there is still %q:\n%s", found, text)
	}
	h.ping("aa", "bb")
	h.leaveOVN()
}

// listsChassis checks that doctor shows the chassis of this host, alone in its fleet,
// in both of its formats.
func (h *host) listsChassis() {
	h.t.Helper()
	report, err := h.doctor()
	h.must(err)
	if report.Fleet == nil || len(report.Fleet.Chassis) != 1 || report.Fleet.Error != "" {
		h.t.Fatalf("doctor tells of the fleet %+v", report.Fleet)
	}
	c := report.Fleet.Chassis[0]
	if !c.Here || c.Seen.IsZero() || len(c.Encaps) != 1 || !strings.HasPrefix(c.OVN, "23.") {
		h.t.Errorf("doctor tells of the chassis %+v", c)
	}
	text := h.run(buildDir+"/ovs-container-network", "doctor")
	_, list, _ := strings.Cut(text, "Nothing is wrong.")
	for _, want := range []string{"CHASSIS", "LAST SIGN OF LIFE", c.Name + " (this host)", "geneve 127.0.0.1", c.OVN, " ago"} {
		if !strings.Contains(list, want) {
			h.t.Errorf("doctor does not end with %q:\n%s", want, text)
		}
	}
}

// The databases of a cluster are read from any member that lives, over TLS, and
// doctor says what a cluster without a majority needs.
func TestOVNDoctorCluster(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1, lab.FleetOptions{RAFT: true, TLS: true})
	h := f.hosts[0]
	h.network("web", "--subnet", "10.1.0.0/24", "--opt", "ovn.switch=ls1")
	h.healthy()
	first := f.Central[0]
	h.must(first.Kill()) // the one that is asked first
	h.within(90*time.Second, "status shows the chassis, and doctor finds no fault", func() error {
		if s := h.status(); s.Fleet == nil || len(s.Fleet.Chassis) != 1 || s.Fleet.Chassis[0].Name != "h1" {
			return fmt.Errorf("the fleet is %+v", s.Fleet)
		}
		report, err := h.doctor()
		if err == nil && !report.Healthy {
			err = fmt.Errorf("it finds %v", report.Findings)
		}
		return err
	})
	h.must(f.Central[1].KillNB(h.ctx(), syscall.SIGKILL))
	h.within(90*time.Second, "doctor says that most members have to run", func() error {
		report, err := h.doctor()
		if err == nil && !slices.ContainsFunc(report.Findings, func(f doctorFinding) bool {
			return hasAll(f.String(), []string{"northbound", "ssl:10.99.0.101:6641", "lost the others", "most of them run"})
		}) {
			err = fmt.Errorf("it finds %v", report.Findings)
		}
		return err
	})
	h.must(f.Central[1].StartNB(h.ctx(), f.CentralOf(f.Central[1])))
	h.must(f.Start(h.ctx(), first))
	h.healthy()
	h.docker("network", "rm", "web")
	h.expectClean()
}

// A chassis that is gone is retired from another host, with all that it has left and
// nothing else; it may come back.
func TestOVNRetire(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2, lab.FleetOptions{})
	h1, h2 := f.hosts[0], f.hosts[1]
	f.network("prod", "10.7.0.0/24", "--opt", "ovn.switch=production-ls")
	h2.network("only", "--subnet", "10.8.0.0/24", "--opt", "ovn.switch=only-ls")
	h1.container("x0", "prod")
	h2.container("x1", "prod")
	h2.container("y1", "only")
	h1.ping("x0", h2.address("x1", "prod"))
	x1 := h2.address("x1", "prod")
	refused := func(want string, flags ...string) {
		t.Helper()
		out, err := h1.Run(t.Context(), append([]string{buildDir + "/ovs-container-network", "gc"}, flags...)...)
		if err == nil || !strings.Contains(err.Error()+out, want) {
			t.Errorf("gc %q: %v %s, want %q", flags, err, out, want)
		}
	}
	refused("chassis h2 lives", "--chassis", "h2")
	refused("chassis h2 lives", "--chassis", "h2", "--dry-run")
	refused("h1 is this host", "--chassis", "h1", "--force")
	refused("there is no chassis h9", "--chassis", "h9")

	ports := []string{h2.portOf("x1", "prod"), h2.portOf("y1", "only")}
	h2.must(h2.Kill())
	h1.eventually("doctor says that a chassis is dead, and calls it no fault", func() error {
		report, err := h1.doctor()
		if err != nil {
			return err
		}
		if !report.Healthy || !slices.ContainsFunc(report.Findings, func(f doctorFinding) bool {
			return f.Severity == "advice" && hasAll(f.String(), []string{"chassis h2 does not answer", "gc --chassis h2"})
		}) {
			return fmt.Errorf("healthy %v, it finds %v", report.Healthy, report.Findings)
		}
		return nil
	})
	found, _ := h1.gc("--chassis", "h2", "--dry-run")
	for _, want := range []string{"logical port " + ports[0], "logical port " + ports[1], "address " + x1, "chassis h2"} {
		if !slices.Contains(found, want) {
			t.Errorf("gc --chassis h2 would remove %q, and not %s", found, want)
		}
	}
	if got := f.nbctl("--bare", "--columns=name", "list", "Logical_Switch"); !strings.Contains(got, "only-ls") {
		t.Errorf("a dry run removed something, there are %s", got)
	}
	h1.run(buildDir+"/ovs-container-network", "gc", "--chassis", "h2")
	if got := strings.Fields(f.nbctl("--bare", "--columns=name", "list", "Logical_Switch")); !slices.Equal(got, []string{"production-ls"}) {
		t.Errorf("switches that are left: %q", got)
	}
	if got := f.nbctl("--bare", "--columns=name", "find", "Logical_Switch_Port", "external_ids:host=h2"); got != "" {
		t.Errorf("ports that are left: %s", got)
	}
	if got := f.hc.run("ovn-sbctl", "--timeout=20", "--bare", "--columns=name", "list", "Chassis"); got != "h1" {
		t.Errorf("chassis that are left: %s", got)
	}
	refused("there is no chassis h2", "--chassis", "h2")
	h1.healthy()
	h1.container("x2", "prod", "--ip", x1) // its address is free
	h1.ping("x0", x1)
	h1.docker("rm", "-f", "x2")

	h1.must(f.Start(t.Context(), h2.Host))
	h2.startDriver()
	h2.docker("restart", "x1", "y1")
	h1.ping("x0", h2.address("x1", "prod"))
	h2.healthy()
	h1.healthy()
	h1.docker("rm", "-f", "x0")
	h2.docker("rm", "-f", "x1", "y1")
	h2.docker("network", "rm", "only", "prod")
	h1.docker("network", "rm", "prod")
	f.expectEmpty()
}
