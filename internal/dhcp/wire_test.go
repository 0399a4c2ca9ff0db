package dhcp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// wire is a veth pair: the server in a namespace of its own, the client's device in
// another, which is mounted.
type wire struct {
	t    *testing.T
	dir  string
	port Port
}

func run(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// newWire must be called on a locked thread, which it puts into the server's
// namespace for good.
func newWire(t *testing.T) *wire {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("OCN_UNIT") == "1" {
			t.Skip("needs root")
		}
		t.Fatal("needs root (OCN_UNIT=1 skips)")
	}
	w := &wire{t: t, dir: t.TempDir()}
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	// The client's: a process holds it.
	holder := exec.Command("unshare", "--net", "sleep", "600")
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { holder.Process.Kill(); holder.Wait() }) //nolint:errcheck // it was killed
	w.port.NetNS = filepath.Join("/proc", strconv.Itoa(holder.Process.Pid), "ns/net")
	mine, _ := os.Readlink("/proc/thread-self/ns/net")
	for deadline := time.Now().Add(10 * time.Second); ; {
		if theirs, _ := os.Readlink(w.port.NetNS); theirs != "" && theirs != mine {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("unshare did not come up")
		}
		runtime.Gosched()
	}
	pid := strconv.Itoa(holder.Process.Pid)
	run(t, "ip", "link", "add", "srv", "type", "veth", "peer", "name", "cli")
	run(t, "ip", "link", "set", "cli", "netns", pid)
	run(t, "ip", "link", "set", "srv", "up")
	run(t, "ip", "link", "set", "lo", "up")
	run(t, "ip", "addr", "add", "10.7.0.1/24", "dev", "srv")
	run(t, "nsenter", "-t", pid, "-n", "ip", "link", "set", "cli", "address", "02:00:00:00:00:07", "up")
	w.port.Index = w.index(pid)
	w.port.MAC, _ = net.ParseMAC("02:00:00:00:00:07")
	return w
}

func (w *wire) index(pid string) int {
	out, err := exec.Command("nsenter", "-t", pid, "-n", "ip", "-o", "link", "show", "dev", "cli").Output()
	number, _, _ := strings.Cut(string(out), ":")
	n, bad := strconv.Atoi(number)
	if err != nil || bad != nil {
		w.t.Fatalf("%q: %v", out, errors.Join(err, bad))
	}
	return n
}

// acquire gets a lease as one does who had the address.
func (w *wire) acquire(want string) Lease {
	w.t.Helper()
	return w.ask(want, true)
}

func (w *wire) ask(want string, lost bool) Lease {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	a, _ := netip.ParseAddr(want)
	l, err := Acquire(ctx, w.port, a, lost)
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

func (w *wire) renew(l Lease, all bool) (Lease, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return Renew(ctx, w.port, l, all)
}

// heard counts the frames that arrived at the server's end.
func (w *wire) heard() int {
	w.t.Helper()
	b, err := os.ReadFile("/proc/thread-self/net/dev")
	if err != nil {
		w.t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(b), "srv:")
	n, err := strconv.Atoi(strings.Fields(line)[1])
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// lateContext ends a while after its deadline, as one does whose timer is late.
type lateContext struct{ context.Context }

func (c lateContext) Deadline() (time.Time, bool) { return time.Now(), true }
