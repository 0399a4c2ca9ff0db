//go:build linux

package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// crash kills the driver in the middle of commands and has it come back as it
// does in its form: an engine starts its plugin again, a service is started by
// its manager.
func (h *host) crash(left func() int) {
	h.t.Helper()
	h.killDriver()
	if left() == 0 {
		h.t.Fatal("all commands had ended before the driver was killed")
	}
	if h.form == service {
		h.startDriver()
		return
	}
	h.driverAnswers()
}

// driverAnswers waits for a driver that something else starts.
func (h *host) driverAnswers() {
	h.t.Helper()
	h.within(60*time.Second, "the driver answers", func() error {
		_, err := h.askStatus()
		return err
	})
}

// The driver is killed when nothing happens, in the middle of ten starts and of
// ten removals, and stopped in an orderly way: containers talk all the while,
// what failed succeeds when it is repeated, and nothing is left of it.
func TestDriverRestarts(t *testing.T) {
	everywhere(t, func(t *testing.T, h *host) {
		w := h.settle()
		h.killDriver()
		w.talk()
		if h.form == service {
			h.startDriver()
		}
		h.driverAnswers()
		w.works()

		h.stopDriver()
		w.talk()
		h.startDriver()
		w.works()

		var crowd []string
		for i := range 10 {
			name := fmt.Sprintf("x%d", i) // no digits of an id: docker takes a prefix of one for a name
			crowd = append(crowd, name)
			w.residents[name] = "web"
		}
		start := func(name string) []string { return []string{"run", "-d", "--name", name, "--network", "web", "lab"} }
		failed := h.atOnce(crowd, start, func(left func() int) {
			h.eventually("some of them are there", func() error {
				if n := h.endpoints(); n < 4+3 {
					return fmt.Errorf("%d endpoints", n)
				}
				return nil
			})
			h.crash(left)
		})
		for _, name := range failed {
			h.docker("rm", "-f", name)
			h.docker(start(name)...)
		}
		for _, name := range crowd {
			h.ping(name, "a1")
		}
		// An endpoint whose Join never came goes after two minutes.
		h.within(3*time.Minute, "all is in order", w.inOrder)

		remove := func(name string) []string { return []string{"rm", "-f", name} }
		failed = h.atOnce(crowd, remove, func(left func() int) {
			h.eventually("some of them are gone", func() error {
				if n := h.endpoints(); n > 4+8 {
					return fmt.Errorf("%d endpoints", n)
				}
				return nil
			})
			h.crash(left)
		})
		for _, name := range failed {
			h.docker(remove(name)...)
		}
		for _, name := range crowd {
			delete(w.residents, name)
		}
		w.works()
		w.leave()
	})
}

// Containers and a network that are removed while the driver is away are
// forgotten after it came back, and the addresses are free: with Docker's IPAM
// driver at once.
func TestRemovedWithoutDriver(t *testing.T) {
	t.Parallel()
	h := newHost(t, service, own)
	w := h.settle()
	h.network("idle", "--subnet", "10.3.0.0/24", "--opt", "bridge=br-idle", "--ipam-driver", "ovs-container-network")
	h.stopDriver()
	h.atOnce([]string{"a1", "b1", "idle"}, func(name string) []string {
		if name == "idle" {
			return []string{"network", "rm", name}
		}
		return []string{"rm", "-f", name}
	}, nil)
	if out := h.docker("ps", "-aq", "-f", "name=a1", "-f", "name=b1") + h.docker("network", "ls", "-q", "-f", "name=idle"); out != "" {
		t.Fatalf("docker did not remove %s", out)
	}
	h.startDriver()
	h.container("a1", "web", "--ip", "10.1.0.11", "--mac-address", "02:00:00:00:01:11")
	h.ping("a1", "a2")
	delete(w.residents, "b1")
	h.within(2*time.Minute, "all that is left is wanted", func() error {
		if left := h.leftovers(); strings.Contains(left, "br-idle") || strings.Contains(left, "10.3.0.0") || strings.Count(left, "network.json") != 2 {
			return fmt.Errorf("left over:\n%s", left)
		}
		return w.inOrder()
	})
	h.container("b1", "shop", "--ip", "10.2.0.11")
	w.residents["b1"] = "shop"
	w.works()
	w.leave()
	h.expectClean()
}

// A container that starts again, or another one that gets its address, is
// reached at once by those who knew the predecessor.
func TestSuccessor(t *testing.T) {
	t.Parallel()
	h := newHost(t, service, own)
	h.network("web", "--subnet", "10.1.0.0/24")
	h.container("aa", "web")
	h.container("bb", "web")
	addr := h.address("bb", "web")
	for _, again := range [][]string{
		{"restart", "bb"},
		{"run", "-d", "--name", "bc", "--network", "web", "--ip", addr, "lab"},
	} {
		h.ping("aa", addr) // known to aa from now on
		if again[0] == "run" {
			h.docker("rm", "-f", "bb")
		}
		h.docker(again...)
		h.within(10*time.Second, "aa reaches its successor", func() error {
			_, err := h.Run(h.ctx(), "docker", "exec", "aa", "ping", "-c", "1", "-W", "1", addr)
			return err
		})
	}
	h.docker("rm", "-f", "aa", "bc")
	h.docker("network", "rm", "web")
	h.expectClean()
}
