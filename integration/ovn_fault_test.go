//go:build linux

package integration

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

// overlay makes one network on all hosts of a fleet, with a container on each, the
// first of which talks with all others.
func (f *fleet) overlay() {
	f.t.Helper()
	f.network("prod", "10.7.0.0/24", "--opt", "ovn.switch=production-ls")
	for i, h := range f.hosts {
		h.container(fmt.Sprintf("x%d", i), "prod")
	}
	for i, h := range f.hosts[1:] {
		f.converse(f.hosts[0], "x0", h, fmt.Sprintf("x%d", i+1), "prod")
	}
}

// leave removes what overlay made.
func (f *fleet) leave() {
	f.t.Helper()
	for i, h := range f.hosts {
		h.docker("rm", "-f", fmt.Sprintf("x%d", i))
		h.removeNetwork("prod")
	}
	f.expectEmpty()
}

// Every party of an overlay ends, hangs or loses what it knows, while containers of
// different hosts talk.
func TestOVNFaults(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3, lab.FleetOptions{})
	f.overlay()
	h1, h2 := f.hosts[0], f.hosts[1]
	ctx := t.Context()

	f.survives("driver kill -9", func() {
		h1.killDriver()
		h1.startDriver()
	})
	f.survives("dockerd kill -9 with live-restore", func() {
		h2.must(h2.StopDocker(ctx))
		h2.startDocker("--live-restore")
		f.restart(h2, "x1")
		h2.must(h2.KillDocker(ctx))
		h2.startDocker()
	})
	f.survives("ovs-vswitchd kill -9", func() {
		h1.must(h1.KillVswitchd(ctx, syscall.SIGKILL))
		h1.must(h1.StartVswitchd(ctx))
	})
	f.survives("ovn-controller kill -9", func() {
		h1.must(h1.KillController(ctx, syscall.SIGKILL))
		out := h1.dockerFails("run", "--rm", "--network", "prod", "lab", "true")
		if !strings.Contains(out, "ovn-controller is not running") {
			t.Errorf("a container without ovn-controller: docker says %s", out)
		}
		f.goOn("ovn-controller is away")
		h1.must(h1.StartController(ctx, f.ChassisOf(h1.Host)))
	})
	f.survives("northd kill -9", func() {
		f.hc.must(f.hc.KillNorthd(ctx, syscall.SIGKILL))
		out := h1.dockerFails("run", "--rm", "--network", "prod", "lab", "true")
		if !strings.Contains(out, "ovn-northd does not act") {
			t.Errorf("a container without northd: docker says %s", out)
		}
		f.goOn("northd is away")
		f.hc.must(f.hc.StartNorthd(ctx, f.CentralOf(f.hc.Host)))
	})
	f.survives("northbound database away", func() {
		h2.container("gone", "prod")
		f.hc.must(f.hc.KillNB(ctx, syscall.SIGKILL))
		start := time.Now()
		out := h1.dockerFails("run", "--rm", "--network", "prod", "lab", "true")
		if !strings.Contains(out, "cannot reach database OVN_Northbound at "+f.NB) {
			t.Errorf("a container without the northbound database: docker says %s", out)
		}
		t.Logf("refused after %s", time.Since(start))
		f.ends(h2, "gone")
		f.goOn("the northbound database is away")
		f.hc.must(f.hc.StartNB(ctx, f.CentralOf(f.hc.Host)))
	})
	f.survives("northbound database hangs", func() {
		f.hc.must(f.hc.KillNB(ctx, syscall.SIGSTOP))
		h1.dockerFails("run", "--rm", "--network", "prod", "lab", "true")
		f.goOn("the northbound database hangs")
		f.hc.must(f.hc.KillNB(ctx, syscall.SIGCONT))
	})
	f.survives("host cut off the underlay for a minute", func() {
		h2.must(h2.Cable(ctx, "eth0", false))
		h2.eventually("a container cannot be started there", func() error {
			if _, err := h2.Run(ctx, "docker", "run", "--rm", "--network", "prod", "lab", "true"); err == nil {
				return fmt.Errorf("it was")
			}
			return nil
		})
		h1.container("guest", "prod") // elsewhere it can
		h1.docker("rm", "-f", "guest")
		h2.must(h2.Cable(ctx, "eth0", true))
	})
	f.survives("northbound database restored from before", f.restored)
	f.survives("logical switch port deleted by hand", func() {
		f.nbctl("lsp-del", h1.portOf("x0", "prod"))
	})
	f.survives("logical switch deleted by hand", func() { f.nbctl("ls-del", "production-ls") })
	f.survives("host vanishes and comes back", func() {
		h2.must(h2.Kill())
		f.hosts[0].must(f.Start(ctx, h2.Host))
		h2.startDriver()
		f.restart(h2, "x1")
	})
	f.leave()
}

// ends has a container end while something is broken: Docker's command succeeds before
// Docker itself gives up. What is left of it goes when that is mended.
func (f *fleet) ends(h *host, name string) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 29*time.Second)
	defer cancel()
	if out, err := h.Run(ctx, "docker", "rm", "-f", name); err != nil {
		f.t.Errorf("docker rm -f %s: %v\n%s", name, err, out)
	}
}

// goOn checks that all pairs talk now, while something is broken.
func (f *fleet) goOn(broken string) {
	f.t.Helper()
	since := time.Now()
	f.hosts[0].within(talkAgain, "all pairs talk while "+broken, func() error { return f.talk(since) })
}

// restored has the northbound database forget what happened since a backup.
func (f *fleet) restored() {
	f.t.Helper()
	h1, h2 := f.hosts[0], f.hosts[1]
	file, err := f.hc.BackupNB(f.t.Context())
	f.hc.must(err)
	h2.docker("rm", "-f", "x1")
	h2.container("x1", "prod")
	h1.container("late", "prod")
	f.hc.must(f.hc.RestoreNB(f.t.Context(), f.CentralOf(f.hc.Host), file))
	f.pairs[0].follow(f.t)
	h1.eventually("the newest container is reachable", func() error {
		_, err := h2.Run(f.t.Context(), "docker", "exec", "x1", "ping", "-c", "1", "-W", "1", h1.address("late", "prod"))
		return err
	})
	h1.docker("rm", "-f", "late")
}

// restart has a container that was stopped run again, and talk.
func (f *fleet) restart(h *host, name string) {
	h.t.Helper()
	h.docker("restart", "-t", "0", name)
	for _, p := range f.pairs {
		if p.from == h && p.a == name || p.to == h && p.b == name {
			p.follow(h.t)
		}
	}
}

// The northbound database is a cluster over TLS: a member that is lost costs no
// container, and without a majority what runs goes on running.
func TestOVNCluster(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2, lab.FleetOptions{RAFT: true, TLS: true, ElectionTimer: time.Second})
	f.overlay()
	h, h2 := f.hosts[0], f.hosts[1]
	ctx := t.Context()
	f.survives("leader of the northbound database kill -9", func() {
		leader := f.leader()
		h.must(leader.KillNB(ctx, syscall.SIGKILL))
		start := time.Now()
		h.within(30*time.Second, "a container starts again", func() error {
			_, err := h.Run(ctx, "docker", "run", "--rm", "--network", "prod", "lab", "true")
			return err
		})
		t.Logf("a container started %s after the leader was killed", time.Since(start))
		f.goOn("the leader is away")
		h.must(leader.StartNB(ctx, f.CentralOf(leader)))
	})
	f.survives("power cut of a central host", func() {
		leader := f.leader()
		h.must(leader.Kill())
		h.within(30*time.Second, "a container starts again", func() error {
			_, err := h.Run(ctx, "docker", "run", "--rm", "--network", "prod", "lab", "true")
			return err
		})
		f.goOn("a central host is off")
		h.must(f.Start(ctx, leader))
	})
	f.survives("cluster restored from before", func() {
		f.leader()
		f.restored()
	})
	f.survives("no majority", func() {
		h2.container("gone", "prod")
		for _, c := range f.Central[1:] {
			h.must(c.KillNB(ctx, syscall.SIGKILL))
		}
		start := time.Now()
		out := h.dockerFails("run", "--rm", "--network", "prod", "lab", "true")
		t.Logf("refused after %s: %s", time.Since(start), out)
		if !strings.Contains(out, "OVN_Northbound") {
			t.Errorf("a container without a majority: docker says %s", out)
		}
		f.ends(h2, "gone")
		f.goOn("there is no majority")
		for _, c := range f.Central[1:] {
			h.must(c.StartNB(ctx, f.CentralOf(c)))
		}
		f.leader()
	})
	f.leave()
}

// leader waits until the northbound database has one.
func (f *fleet) leader() (leader *lab.Host) {
	f.t.Helper()
	f.hosts[0].within(30*time.Second, "the northbound database has a leader", func() error {
		if leader = f.Leader(f.t.Context(), lab.NB); leader == nil {
			return fmt.Errorf("it has none")
		}
		return nil
	})
	f.hc = &host{Host: leader, t: f.t}
	return leader
}
