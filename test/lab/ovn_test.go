//go:build linux

package lab_test

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

// newLab makes a lab that ends with the test.
func newLab(t *testing.T) (*lab.Lab, context.Context) {
	t.Helper()
	needRoot(t)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	l, err := lab.New("")
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l, ctx
}

// steps logs how long each step of a test takes.
func steps(t *testing.T) func(name string) {
	began := time.Now()
	return func(name string) {
		t.Logf("%-32s %v", name, time.Since(began).Round(time.Millisecond))
		began = time.Now()
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, ctx context.Context, h *lab.Host, args ...string) string {
	t.Helper()
	out, err := h.Run(ctx, args...)
	must(t, err)
	return strings.TrimSpace(out)
}

// eventually waits until f returns nil, for at most 30 seconds.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	within(t, 30*time.Second, what, f)
}

func within(t *testing.T, limit time.Duration, what string, f func() error) {
	t.Helper()
	for deadline := time.Now().Add(limit); ; <-time.After(50 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("within %v it did not happen that %s: %v", limit, what, err)
		}
	}
}

// TestSingleHost has everything on one host, on this system and on a newer one,
// and lets each daemon die, hang and end.
func TestSingleHost(t *testing.T) {
	t.Run("own", func(t *testing.T) { singleHost(t, "") })
	t.Run("sid", func(t *testing.T) { singleHost(t, "sid") })
}

func singleHost(t *testing.T, suite string) {
	l, ctx := newLab(t)
	step := steps(t)
	var opts []lab.Option
	if suite != "" {
		root, err := lab.Suite(suite)
		must(t, err)
		opts = append(opts, lab.WithRoot(root))
	}
	h, err := l.Host(ctx, "h1", opts...)
	must(t, err)
	must(t, h.StartOVS(ctx))
	c := lab.Central{}
	must(t, h.StartCentral(ctx, c))
	must(t, h.StartController(ctx, lab.Chassis{}))
	must(t, h.StartController(ctx, lab.Chassis{SB: c.SB(), EncapIP: "127.0.0.1"}))
	step("central and chassis")

	nbctl := func(args ...string) string {
		t.Helper()
		return run(t, ctx, h, append([]string{"ovn-nbctl", "--timeout=20"}, args...)...)
	}
	chassis := func(want string) {
		t.Helper()
		eventually(t, fmt.Sprintf("the chassis are %q", want), func() error {
			out, err := h.Run(ctx, "ovn-sbctl", "--timeout=10", "--bare", "--columns=name", "list", "Chassis")
			if err == nil && strings.TrimSpace(out) != want {
				err = fmt.Errorf("chassis: %q", out)
			}
			return err
		})
	}
	chassis("h1")
	nbctl("--wait=hv", "ls-add", "ls0")

	// Each daemon dies and is back with what it knew.
	for _, kill := range []func(context.Context, syscall.Signal) error{h.KillNB, h.KillSB, h.KillNorthd, h.KillController} {
		must(t, kill(ctx, syscall.SIGKILL))
	}
	must(t, h.StartCentral(ctx, c))
	must(t, h.StartController(ctx, lab.Chassis{SB: c.SB(), EncapIP: "127.0.0.1"}))
	nbctl("--wait=hv", "ls-add", "ls1")
	step("all killed and started")

	// Each daemon hangs and goes on.
	for name, kill := range map[string]func(context.Context, syscall.Signal) error{
		"NB": h.KillNB, "SB": h.KillSB, "northd": h.KillNorthd, "controller": h.KillController,
	} {
		must(t, kill(ctx, syscall.SIGSTOP))
		if _, err := h.Run(ctx, "ovn-nbctl", "--timeout=1", "--wait=hv", "sync"); err == nil {
			t.Errorf("all is well with a %s that hangs", name)
		}
		must(t, kill(ctx, syscall.SIGCONT))
		nbctl("--wait=hv", "sync")
	}
	step("all hang and go on")

	file, err := h.BackupNB(ctx)
	must(t, err)
	nbctl("ls-del", "ls1", "--", "ls-add", "ls2")
	must(t, h.RestoreNB(ctx, c, file))
	if got := nbctl("--wait=hv", "--bare", "--columns=name", "list", "Logical_Switch"); strings.Join(strings.Fields(got), " ") != "ls0 ls1" &&
		strings.Join(strings.Fields(got), " ") != "ls1 ls0" {
		t.Errorf("switches of the backup: %q, want ls0 and ls1", got)
	}
	step("backup and restore")

	must(t, h.StopController(ctx, true))
	chassis("h1")
	must(t, h.StartController(ctx, lab.Chassis{}))
	eventually(t, "the controller works again", func() error {
		_, err := h.Run(ctx, "ovn-nbctl", "--timeout=2", "--wait=hv", "sync")
		return err
	})
	must(t, h.StopController(ctx, false))
	chassis("")
	must(t, h.StopController(ctx, false))
	must(t, h.StopCentral(ctx))
	must(t, h.StopCentral(ctx))
	if out := run(t, ctx, h, "ps", "-eo", "comm"); strings.Contains(out, "ovn") {
		t.Errorf("still running:\n%s", out)
	}
	step("stopped")
}
