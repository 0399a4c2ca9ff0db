//go:build linux

package integration

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
)

const (
	nextTag = "ovs-container-network:0.0.2" // the plugin's next version
	nextDir = buildDir + "/plugin2"
)

// A new version of the managed plugin beside the old one, which is then removed:
// every network, made with the bare name, and every container goes on.
func TestUpgradePlugin(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		if k.form != plugin {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, k.form, k.on)
			w := h.settle("--restart", "always")
			h.docker("plugin", "create", nextTag, nextDir)
			h.docker("plugin", "disable", "-f", pluginTag)
			w.talk()
			h.docker("plugin", "enable", nextTag)
			h.docker("plugin", "rm", pluginTag)
			w.upgraded()
			h.must(h.StopDocker(h.ctx()))
			h.startDocker()
			w.back()
			w.upgraded()
			h.network("young", "--subnet", "10.3.0.0/24")
			h.container("y1", "young")
			h.docker("rm", "-f", "y1")
			h.docker("network", "rm", "young")
			w.leave()
			h.expectClean()
		})
	}
}

// upgraded checks that the next version runs and that all works.
func (w *town) upgraded() {
	w.t.Helper()
	w.driverAnswers()
	if got := w.status().Version; got != "0.0.2" {
		w.t.Errorf("version %s is running, want 0.0.2", got)
	}
	w.works()
}

// startService starts a binary as the host service.
func (h *host) startService(binary string) {
	h.t.Helper()
	h.sh("setsid " + binary + " serve --log-level debug </dev/null >>/var/log/ocn.log 2>&1 &")
	h.driverAnswers()
}

// A newer binary in place of the running one, then a restart: containers talk
// all the while, networks and containers go on, and back is possible.
func TestUpgradeService(t *testing.T) {
	t.Parallel()
	const binary = "/usr/local/bin/ovs-container-network"
	h := newHost(t, service, own)
	h.stopDriver()
	h.run("install", "-m", "755", buildDir+"/ovs-container-network", binary)
	h.startService(binary)
	w := h.settle()
	if got := h.status().Version; got != "0.0.1" {
		t.Errorf("version %s is running, want 0.0.1", got)
	}
	h.run("install", "-m", "755", nextDir+"/rootfs/ovs-container-network", binary)
	w.talk()
	h.stopDriver()
	w.talk()
	h.startService(binary)
	w.upgraded()
	h.run("install", "-m", "755", buildDir+"/ovs-container-network", binary)
	h.stopDriver()
	h.startService(binary)
	w.works()
	w.leave()
	h.expectClean()
}

// refuses starts a second daemon, which must refuse and say why.
func (h *host) refuses(flags ...string) {
	h.t.Helper()
	all := append([]string{"timeout", "-s", "KILL", "30", buildDir + "/ovs-container-network", "serve"}, flags...)
	out, err := h.Run(h.ctx(), all...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(out, "another daemon is running on this host") {
		h.t.Errorf("serve %s: %v\n%s", strings.Join(flags, " "), err, out)
	}
}

// A second daemon on the host refuses to start, whatever its form and settings,
// and the first does not notice: its sockets, its containers, new networks.
func TestSecondDaemon(t *testing.T) {
	bothForms(t, func(t *testing.T, h *host) {
		w := h.settle()
		started := h.status().Started
		undisturbed := func() {
			t.Helper()
			if got, err := h.call("NetworkDriver.GetCapabilities"); err != nil || got["Scope"] != "local" {
				t.Errorf("the socket for Docker answers %v, %v", got, err)
			}
			if s := h.status(); !s.Started.Equal(started) {
				t.Errorf("the daemon was started at %s, want %s", s.Started, started)
			}
			h.network("more", "--subnet", "10.3.0.0/24")
			h.container("m1", "more")
			h.docker("rm", "-f", "m1")
			h.docker("network", "rm", "more")
		}
		h.refuses()
		undisturbed()
		h.refuses("--state-dir", "/var/lib/another")
		undisturbed()
		if h.form == service {
			h.docker("plugin", "create", pluginTag, buildDir+"/plugin")
			h.dockerFails("plugin", "enable", pluginTag)
			undisturbed()
			h.docker("plugin", "rm", pluginTag)
		}
		w.works()
		w.leave()
	})
}

// A plugin that could not start because of a service works when that has gone.
func TestServiceGivesWay(t *testing.T) {
	t.Parallel()
	h := newHost(t, service, own)
	w := h.settle("--restart", "always")
	h.docker("plugin", "create", pluginTag, buildDir+"/plugin")
	h.stopDriver()
	h.docker("plugin", "enable", pluginTag)
	h.driverAnswers()
	if s := h.status(); s.Form != "managed plugin" {
		t.Errorf("the daemon is a %s", s.Form)
	}
	w.works()
	h.must(h.StopDocker(h.ctx()))
	h.startDocker()
	w.back()
	w.leave()
	h.docker("plugin", "disable", "-f", pluginTag)
	h.expectClean()
}
