//go:build linux

package lab_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

// TestPlug joins two hosts and cuts the power of one.
func TestPlug(t *testing.T) {
	needRoot(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	l, err := lab.New("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	var hosts []*lab.Host
	for i := range 2 {
		h, err := l.Host(ctx, fmt.Sprintf("h%d", i+1))
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Plug(ctx, "eth0", 1600); err != nil {
			t.Fatal(err)
		}
		hosts = append(hosts, h)
	}
	up := func(i int) {
		t.Helper()
		if _, err := hosts[i].Run(ctx, "ip", "addr", "add", fmt.Sprintf("10.99.0.%d/24", i+1), "dev", "eth0"); err != nil {
			t.Fatal(err)
		}
	}
	ping := func() error {
		_, err := hosts[0].Run(ctx, "ping", "-c", "1", "-W", "1", "10.99.0.2")
		return err
	}
	up(0)
	up(1)
	if err := ping(); err != nil {
		t.Error(err)
	}
	if err := hosts[1].Cable(ctx, "eth0", false); err != nil {
		t.Fatal(err)
	}
	if ping() == nil {
		t.Error("a host answers without its cable")
	}
	if err := hosts[1].Reboot(ctx); err != nil {
		t.Fatal(err)
	}
	up(1)
	if ping() == nil {
		t.Error("a reboot put the cable back")
	}
	if err := hosts[1].Cable(ctx, "eth0", true); err != nil {
		t.Fatal(err)
	}
	if err := ping(); err != nil {
		t.Error(err)
	}
}

// orphan boots a host, says its number, and waits for its end.
func orphan() {
	l, err := lab.New("")
	if err != nil {
		panic(err)
	}
	h, err := l.Host(context.Background(), "h1")
	if err != nil {
		panic(err)
	}
	fmt.Println(h.NSPID())
	select {}
}

// TestOrphan kills the process that owns a lab: the host must not survive it,
// and the next lab throws its disk away.
func TestOrphan(t *testing.T) {
	needRoot(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "OCN_TEST_ORPHAN=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	_, err = fmt.Fscan(out, &pid)
	if killErr := cmd.Process.Kill(); err != nil || killErr != nil {
		t.Fatal(err, killErr)
	}
	_ = cmd.Wait()
	for deadline := time.Now().Add(10 * time.Second); ; <-time.After(10 * time.Millisecond) {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", pid)); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("host runs on without its owner, process %d", pid)
		}
	}
	dirs, _ := filepath.Glob(lab.DefaultDir + "/lab-*/h1/disk")
	l, err := lab.New("")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	gone := 0
	for _, d := range dirs {
		if _, err := os.Stat(d); err != nil {
			gone++
		}
	}
	if gone == 0 {
		t.Errorf("nothing of %v was removed", dirs)
	}
}

// TestRun checks what commands promise: the deadline ends them in the host too,
// and a file in the host is found behind an absolute link.
func TestRun(t *testing.T) {
	needRoot(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	l, err := lab.New("")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	src := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(src, []byte("#!/bin/sh\necho from outside\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	h, err := l.Host(ctx, "h1", lab.WithBind(src, "/var/run/program"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Host(ctx, "h1"); err == nil {
		t.Error("a running host was booted again")
	}
	if out, err := h.Run(ctx, "/run/program"); err != nil || out != "from outside\n" {
		t.Errorf("bound program: %q, %v", out, err)
	}
	if b, err := os.ReadFile(h.Path("/var/run/program")); err != nil || !strings.Contains(string(b), "outside") {
		t.Errorf("path of the bound program: %q, %v", b, err)
	}
	if _, err := h.Shell(ctx, "echo some words; false"); err == nil || !strings.Contains(err.Error(), "some words") {
		t.Errorf("error %v, want the output in it", err)
	}

	short, cancelShort := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancelShort()
	if _, err := h.Shell(short, "sleep 1234 | cat"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want the deadline", err)
	}
	if out, err := h.Run(ctx, "ps", "-eo", "args"); err != nil || strings.Contains(out, "1234") {
		t.Errorf("left in the host after the deadline: %v\n%s", err, out)
	}

	if err := h.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Run(ctx, "true"); err == nil || !strings.Contains(err.Error(), "is off") {
		t.Errorf("error %v, want that the host is off", err)
	}
}
