//go:build linux

package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/control"
	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

// form is how the driver runs.
type form string

const (
	service form = "service" // `serve` on the host
	plugin  form = "plugin"  // managed by the engine
)

// suite is the system of a host. The empty one is the machine's own.
type suite string

const (
	own   suite = ""    // Debian 12: Docker 20.10, Open vSwitch 3.1
	newer suite = "sid" // Docker 28 or newer, Open vSwitch 4.0 or newer
)

// kinds are the combinations in which most tests run: both forms, and an old
// and a new engine.
var kinds = []struct {
	name string
	form form
	on   suite
}{
	{"service", service, own},
	{"plugin", plugin, own},
	{"service-new-engine", service, newer},
	{"plugin-new-engine", plugin, newer},
}

// everywhere runs f on a fresh host of every kind, in parallel with others, and
// checks that nothing is left when f has removed what it made.
func everywhere(t *testing.T, f func(t *testing.T, h *host)) {
	t.Parallel()
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, k.form, k.on)
			f(t, h)
			h.expectClean()
		})
	}
}

// host is a host with the driver running.
type host struct {
	*lab.Host
	t    *testing.T
	form form
	on   suite

	dockerArgs []string
}

var hostNumber atomic.Int32

// slots bounds how many hosts are busy at a time.
var slots = make(chan struct{}, 4)

// bareHost boots a host with nothing running.
func bareHost(t *testing.T, f form, on suite, opts ...lab.Option) *host {
	t.Helper()
	slots <- struct{}{}
	t.Cleanup(func() { <-slots })
	opts = append(opts, lab.WithBind(build, buildDir))
	if on != own {
		root, err := lab.Suite(string(on))
		if err != nil {
			t.Fatal(err)
		}
		opts = append(opts, lab.WithRoot(root))
	}
	name := fmt.Sprintf("t%d", hostNumber.Add(1))
	lh, err := theLab.Host(t.Context(), name, opts...)
	if err != nil {
		t.Fatal(err)
	}
	h := &host{Host: lh, t: t, form: f, on: on}
	t.Cleanup(func() {
		if t.Failed() {
			h.logState()
		}
		if err := lh.Remove(); err != nil {
			t.Errorf("cannot remove host %s: %v", name, err)
		}
	})
	return h
}

// newHost boots a host with Open vSwitch, Docker, the test image and the driver.
func newHost(t *testing.T, f form, on suite, opts ...lab.Option) *host {
	t.Helper()
	h := bareHost(t, f, on, opts...)
	h.must(h.StartOVS(h.ctx()))
	h.startDocker()
	h.must(h.ImportImage(h.ctx(), image, "lab"))
	h.install()
	return h
}

func (h *host) ctx() context.Context { return h.t.Context() }

func (h *host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// startDocker starts dockerd as it was started before.
func (h *host) startDocker(args ...string) {
	h.t.Helper()
	if args != nil {
		h.dockerArgs = args
	}
	h.must(h.StartDocker(h.ctx(), h.dockerArgs...))
}

// install makes the driver run in the host's form, for the first time.
func (h *host) install() {
	h.t.Helper()
	if h.form == plugin {
		h.docker("plugin", "create", pluginTag, buildDir+"/plugin")
	}
	h.startDriver()
}

// startDriver starts the driver and waits until it answers.
func (h *host) startDriver(flags ...string) {
	h.t.Helper()
	if h.form == plugin {
		h.docker("plugin", "enable", pluginTag)
	} else {
		h.sh("setsid " + buildDir + "/ovs-container-network serve --log-level debug " + strings.Join(flags, " ") +
			" </dev/null >>/var/log/ocn.log 2>&1 & echo $! >/run/ocn.pid")
	}
	h.eventually("the driver answers", func() error {
		_, err := h.Run(h.ctx(), buildDir+"/ovs-container-network", "status")
		return err
	})
}

// driverPID is the driver's process id as seen in the host, empty if it is not
// running.
func (h *host) driverPID() string {
	out, _ := h.Run(h.ctx(), "pidof", "-s", "ovs-container-network")
	return strings.TrimSpace(out)
}

// killDriver kills the driver with SIGKILL. An engine starts its managed plugin
// again at once; a service stays dead until startDriver.
func (h *host) killDriver() {
	h.t.Helper()
	pid := h.driverPID()
	if pid == "" {
		h.t.Fatal("the driver is not running")
	}
	h.sh("kill -9 " + pid)
	h.eventually("the driver is gone", func() error {
		if h.driverPID() == pid {
			return fmt.Errorf("process %s is still there", pid)
		}
		return nil
	})
}

// stopDriver stops the driver in an orderly way.
func (h *host) stopDriver() {
	h.t.Helper()
	if h.form == plugin {
		h.docker("plugin", "disable", "-f", pluginTag)
		return
	}
	pid := h.driverPID()
	h.sh("kill -TERM " + pid)
	h.eventually("the driver ends", func() error {
		if h.driverPID() == pid {
			return fmt.Errorf("process %s is still there", pid)
		}
		return nil
	})
}

// docker runs a docker command that must succeed and returns its output.
func (h *host) docker(args ...string) string {
	h.t.Helper()
	return h.run(append([]string{"docker"}, args...)...)
}

// removeNetwork removes a network whose containers may have ended in parallel. Docker
// 20.10 may have lost count of them then (moby#42119), even though the driver's
// answers are spaced, until it starts again.
func (h *host) removeNetwork(name string) {
	h.t.Helper()
	out, err := h.Run(h.ctx(), "docker", "network", "rm", name)
	if err == nil {
		return
	}
	if attached := h.docker("network", "inspect", "-f", "{{len .Containers}}", name); attached != "0" || !strings.Contains(out, "has active endpoints") {
		h.t.Fatal(err)
	}
	h.t.Logf("Docker has lost count, and is restarted: %s", out)
	h.must(h.StopDocker(h.ctx()))
	h.startDocker()
	h.driverAnswers()
	h.docker("network", "rm", name)
}

// dockerFails runs a docker command that must fail and returns its output.
func (h *host) dockerFails(args ...string) string {
	h.t.Helper()
	out, err := h.Run(h.ctx(), append([]string{"docker"}, args...)...)
	if err == nil {
		h.t.Fatalf("docker %s succeeded, but should have been refused:\n%s", strings.Join(args, " "), out)
	}
	return out
}

func (h *host) run(args ...string) string {
	h.t.Helper()
	out, err := h.Run(h.ctx(), args...)
	if err != nil {
		h.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

func (h *host) sh(script string) string {
	h.t.Helper()
	out, err := h.Shell(h.ctx(), script)
	if err != nil {
		h.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// network creates a network of ours.
func (h *host) network(name string, args ...string) {
	h.t.Helper()
	h.docker(append(append([]string{"network", "create", "--driver", "ovs-container-network"}, args...), name)...)
}

// container starts a container that does nothing.
func (h *host) container(name, network string, args ...string) {
	h.t.Helper()
	all := append([]string{"run", "-d", "--name", name, "--network", network}, args...)
	h.docker(append(all, "lab")...)
}

// exec runs a command in a container.
func (h *host) exec(container string, args ...string) string {
	h.t.Helper()
	return h.docker(append([]string{"exec", container}, args...)...)
}

// ping checks that a container reaches a name or address, within ten seconds.
func (h *host) ping(from, to string) {
	h.t.Helper()
	h.eventually(fmt.Sprintf("%s reaches %s", from, to), func() error {
		_, err := h.Run(h.ctx(), "docker", "exec", from, "ping", "-c", "1", "-W", "1", to)
		return err
	})
}

// noPing checks that a container does not reach an address.
func (h *host) noPing(from, to string) {
	h.t.Helper()
	if out, err := h.Run(h.ctx(), "docker", "exec", from, "ping", "-c", "2", "-W", "1", to); err == nil {
		h.t.Fatalf("%s reaches %s, but must not:\n%s", from, to, out)
	}
}

// tcp checks that bytes pass over TCP between two containers.
func (h *host) tcp(from, to, addr string) {
	h.t.Helper()
	h.sh("docker exec -d " + to + " sh -c 'rm -f /tmp/got; until grep -q hello /tmp/got; do nc -l -p 7777 >>/tmp/got; done'")
	h.eventually("TCP from "+from+" to "+to, func() error {
		if _, err := h.Run(h.ctx(), "docker", "exec", from, "sh", "-c", "echo hello | nc -w 2 "+addr+" 7777"); err != nil {
			return err
		}
		got, err := h.Run(h.ctx(), "docker", "exec", to, "cat", "/tmp/got")
		if err == nil && !strings.Contains(got, "hello") {
			err = fmt.Errorf("got %q", got)
		}
		return err
	})
}

// status is the driver's own view.
func (h *host) status() control.Status {
	h.t.Helper()
	var s control.Status
	out := h.run(buildDir+"/ovs-container-network", "status", "-o", "json")
	h.must(json.Unmarshal([]byte(out), &s))
	return s
}

// ovs runs ovs-vsctl.
func (h *host) ovs(args ...string) string {
	h.t.Helper()
	return h.run(append([]string{"ovs-vsctl", "--timeout=10"}, args...)...)
}

// portOf returns the OVS port of a container on a network, by the driver's own
// view.
func (h *host) portOf(container, network string) string {
	h.t.Helper()
	var port string
	h.eventually("the driver knows the container "+container, func() error {
		for _, n := range h.status().Networks {
			for _, e := range n.Ends {
				if n.Name == network && e.Container == container {
					port = e.Port
					return nil
				}
			}
		}
		return fmt.Errorf("no endpoint of %s on %s", container, network)
	})
	return port
}

// address is a container's IPv4 address on a network as Docker shows it.
func (h *host) address(container, network string) string {
	h.t.Helper()
	return h.docker("inspect", "-f", fmt.Sprintf("{{(index .NetworkSettings.Networks %q).IPAddress}}", network), container)
}

// eventually tries until f returns nil, for at most 20 seconds.
func (h *host) eventually(what string, f func() error) {
	h.t.Helper()
	h.within(20*time.Second, what, f)
}

func (h *host) within(limit time.Duration, what string, f func() error) {
	h.t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			h.t.Fatalf("within %s it did not happen that %s: %v", limit, what, err)
		case <-tick.C:
		}
	}
}

// leftovers describes everything of ours that is on the host: ports, bridges,
// links, nftables, state records. Empty when there is nothing.
func (h *host) leftovers() string {
	h.t.Helper()
	return h.sh(`
ovs-vsctl --timeout=10 --bare --columns=name find Port external_ids:owner=ovs-container-network | sed 's/^/port /'
ovs-vsctl --timeout=10 --bare --columns=name find Bridge external_ids:owner=ovs-container-network | sed 's/^/bridge /'
ovs-vsctl --timeout=10 --bare --columns=name find Mirror external_ids:owner=ovs-container-network | sed 's/^/mirror /'
ip -o link | grep -oE '(ocn|oc-)[0-9a-f]{12}' | sed 's/^/link /' || true
nft list tables 2>/dev/null | grep ovs-container-network || true
find /var/lib/ovs-container-network -name '*.json*' 2>/dev/null | sed 's/^/record /' || true
`)
}

// expectClean fails unless everything is gone, or goes within seconds.
func (h *host) expectClean() {
	h.t.Helper()
	h.eventually("nothing is left over", func() error {
		if left := strings.TrimSpace(h.leftovers()); left != "" {
			return fmt.Errorf("left over:\n%s", left)
		}
		return nil
	})
}

// logState puts what helps to understand a failure into the test's log.
func (h *host) logState() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, _ := h.Shell(ctx, `
exec 2>&1
echo "--- status"; `+buildDir+`/ovs-container-network status || true
echo "--- ovs-vsctl show"; ovs-vsctl --timeout=3 show || true
echo "--- docker"; timeout 5 docker ps -a; timeout 5 docker network ls
echo "--- driver"; tail -n 60 /var/log/ocn.log || true
echo "--- dockerd"; tail -n 60 `+lab.DockerLog+` || true
`)
	h.t.Logf("state of the host:\n%s", out)
}
