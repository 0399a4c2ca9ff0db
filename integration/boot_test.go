//go:build linux

package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// after waits for a moment of a scenario. It fails if ended gets something
// before: what should still be waiting did not wait.
func (h *host) after(pause time.Duration, ended chan error) {
	h.t.Helper()
	select {
	case <-h.ctx().Done():
		h.t.Fatal(h.ctx().Err())
	case err := <-ended:
		h.t.Fatalf("it ended before anything could have let it: %v", err)
	case <-time.After(pause):
	}
}

// background runs f and returns where its result comes.
func background(f func() error) chan error {
	ended := make(chan error, 1)
	go func() { ended <- f() }()
	return ended
}

// powerCut switches the host off and on again.
func (h *host) powerCut() {
	h.t.Helper()
	h.must(h.Kill())
	h.must(h.Boot(h.ctx()))
	if h.form == service { // ordered before docker.service
		h.startService(buildDir + "/ovs-container-network")
	}
}

// After a power cut containers come back in any order of the boot: Docker 20
// seconds before Open vSwitch, and after it. Nothing of their former life stays.
func TestBoot(t *testing.T) {
	everywhere(t, func(t *testing.T, h *host) {
		w := h.settle("--restart", "always")
		h.powerCut()
		docker := background(func() error { return h.StartDocker(h.ctx()) })
		select {
		case <-h.ctx().Done():
			t.Fatal(h.ctx().Err())
		case <-time.After(20 * time.Second): // the API may answer before: it is not asked
		}
		h.must(h.StartOVS(h.ctx()))
		h.must(<-docker)
		w.back()

		h.powerCut()
		h.must(h.StartOVS(h.ctx()))
		h.startDocker()
		w.back()
		w.leave()
	})
}

// back checks that the containers run again, the fixed addresses are theirs and
// all is well.
func (w *town) back() {
	w.t.Helper()
	for name := range w.residents {
		w.eventually("container "+name+" runs", func() error {
			if state := w.docker("inspect", "-f", "{{.State.Status}} {{.State.Error}}", name); !strings.HasPrefix(state, "running") {
				return fmt.Errorf("it is %s", state)
			}
			return nil
		})
	}
	if a, b := w.address("a1", "web"), w.address("b1", "shop"); a != "10.1.0.11" || b != "10.2.0.11" {
		w.t.Errorf("a1 has %s and b1 has %s", a, b)
	}
	w.works()
}

// call sends a call of the plugin protocol to the driver's socket.
func (h *host) call(method string) (map[string]any, error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", h.Path("/run/docker/plugins/ovs-container-network.sock"))
		},
	}}
	resp, err := client.Post("http://driver/"+method, "", nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	var answer map[string]any
	if err := json.Unmarshal(text, &answer); err != nil || resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s: %w", resp.Status, text, err)
	}
	return answer, nil
}

// The driver starts and answers with neither Open vSwitch nor Docker there.
// Networks and containers asked for then wait for Open vSwitch.
func TestStartsFirst(t *testing.T) {
	t.Parallel()
	h := bareHost(t, service, own)
	h.startDriver()
	for method, want := range map[string]string{
		"Plugin.Activate":               "map[Implements:[NetworkDriver IpamDriver]]",
		"NetworkDriver.GetCapabilities": "map[ConnectivityScope:local Scope:local]",
	} {
		if got, err := h.call(method); err != nil || fmt.Sprint(got) != want {
			t.Errorf("%s answers %v, %v, want %s", method, got, err, want)
		}
	}
	if s := h.status(); s.OVS.Connected || !strings.Contains(s.OVS.Error, "cannot reach") {
		t.Errorf("status says of Open vSwitch %+v", s.OVS)
	}
	h.startDocker()
	h.must(h.ImportImage(h.ctx(), image, "lab"))
	create := background(func() error {
		_, err := h.Run(h.ctx(), "docker", "network", "create", "--driver", "ovs-container-network", "--subnet", "10.1.0.0/24", "web")
		return err
	})
	h.after(2*time.Second, create)
	h.must(h.StartOVS(h.ctx()))
	h.must(<-create)
	h.container("aa", "web")

	// A second start of everything, with a network that is known already.
	h.stopDriver()
	h.must(h.StopOVS(h.ctx()))
	h.startDriver()
	run := background(func() error {
		_, err := h.Run(h.ctx(), "docker", "run", "-d", "--name", "bb", "--network", "web", "lab")
		return err
	})
	h.after(5*time.Second, run)
	h.must(h.StartOVS(h.ctx()))
	h.must(<-run)
	h.ping("bb", "aa")
	h.docker("rm", "-f", "aa", "bb")
	h.docker("network", "rm", "web")
	h.expectClean()
}

// Containers that dockerd starts by itself come back after it was stopped and
// killed, time after time, with their addresses; with --live-restore they talk
// on without it and are the same processes afterwards.
func TestDockerdRestarts(t *testing.T) {
	everywhere(t, func(t *testing.T, h *host) {
		w := h.settle("--restart", "always")
		h.must(h.StopDocker(h.ctx()))
		h.startDocker()
		w.works()
		for range 2 {
			h.must(h.KillDocker(h.ctx()))
			h.startDocker()
			w.talk()
		}
		w.works()
		fixed := func() {
			t.Helper()
			if a, b := h.address("a1", "web"), h.address("b1", "shop"); a != "10.1.0.11" || b != "10.2.0.11" {
				t.Errorf("a1 has %s and b1 has %s", a, b)
			}
		}
		fixed()

		h.must(h.StopDocker(h.ctx()))
		h.startDocker("--live-restore")
		w.works()
		pids, addrs := w.pids()
		for _, end := range []func(context.Context) error{h.StopDocker, h.KillDocker} {
			h.must(end(h.ctx()))
			w.talkBesides(pids, addrs)
			h.startDocker()
			h.driverAnswers()
			w.works()
			again, _ := w.pids()
			for name := range w.residents {
				if again[name] != pids[name] {
					t.Errorf("container %s was started again", name)
				}
			}
		}
		fixed()
		w.leave()
	})
}

// Containers without a restart policy start again after dockerd came back.
func TestDockerStartAfterRestart(t *testing.T) {
	t.Parallel()
	h := newHost(t, service, own)
	w := h.settle()
	h.must(h.KillDocker(h.ctx()))
	h.startDocker()
	names := slices.Sorted(maps.Keys(w.residents))
	h.docker(append([]string{"start"}, names...)...)
	w.works()
	h.must(h.KillVswitchd(h.ctx(), syscall.SIGKILL)) // and with a switch that is away
	h.must(h.StopDocker(h.ctx()))
	h.must(h.StartVswitchd(h.ctx()))
	h.startDocker()
	h.docker(append([]string{"start"}, names...)...)
	w.works()
	w.leave()
	h.expectClean()
}
