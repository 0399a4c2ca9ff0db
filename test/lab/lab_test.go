//go:build linux

package lab_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

func TestMain(m *testing.M) {
	lab.Main()
	if os.Getenv("OCN_TEST_ORPHAN") != "" {
		orphan()
	}
	os.Exit(m.Run())
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("OCN_UNIT") == "1" {
		t.Skip("needs root")
	}
	t.Fatal("needs root")
}

// TestHost walks through the life of a host, since each step stands on the one
// before and a boot of the daemons is what takes the time.
func TestHost(t *testing.T) {
	needRoot(t)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	step := func(name string) {
		t.Logf("%-32s %v", name, time.Since(began).Round(time.Millisecond))
		began = time.Now()
	}

	l, err := lab.New("")
	must(err)
	closed := false
	t.Cleanup(func() {
		if !closed {
			must(l.Close())
		}
	})
	image, err := lab.Image(ctx, filepath.Join(lab.DefaultDir, "images"))
	must(err)
	step("image")
	h, err := l.Host(ctx, "h1")
	must(err)
	step("boot")
	run := func(args ...string) string {
		t.Helper()
		out, err := h.Run(ctx, args...)
		must(err)
		return strings.TrimSpace(out)
	}

	must(h.StartOVS(ctx))
	step("ovs")
	run("ovs-vsctl", "--timeout=10", "add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev")
	run("ip", "link", "set", "br0", "up")
	if got := run("ovs-vsctl", "get", "Open_vSwitch", ".", "external_ids:system-id"); got != "h1" {
		t.Errorf("system-id is %s, want h1", got)
	}
	step("bridge")

	must(h.StartDocker(ctx))
	step("docker")
	must(h.ImportImage(ctx, image, "lab"))
	step("import")
	for _, c := range []string{"c1", "c2"} {
		run("docker", "run", "-d", "--name", c, "lab")
	}
	addr := run("docker", "inspect", "-f", "{{.NetworkSettings.IPAddress}}", "c2")
	run("docker", "exec", "c1", "ping", "-c", "1", "-W", "5", addr)
	step("containers")
	run("sh", "-c", "echo hello > /etc/written; echo hello > /run/written")

	// dockerd dies alone, the containers are still there when it is back.
	must(h.KillDocker(ctx))
	must(h.StartDocker(ctx))
	step("docker killed and started")

	ids := strings.Fields(run("docker", "ps", "-aq", "--no-trunc"))
	if len(ids) != 2 {
		t.Errorf("containers: %v, want two", ids)
	}
	must(h.Reboot(ctx))
	step("reboot")
	for _, id := range ids {
		for _, tree := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} { // version 2 and 1
			if left, _ := filepath.Glob(tree + "/docker/" + id); left != nil {
				t.Errorf("cgroups left by a killed host: %v", left)
			}
		}
	}
	if got := run("sh", "-c", "cat /etc/written; ls -A /run"); got != "hello\nlock" {
		t.Errorf("after a power cut: %q, want the disk kept and /run empty", got)
	}
	must(h.StartOVS(ctx))
	if got := run("ovs-vsctl", "list-br"); got != "br0" {
		t.Errorf("bridges after a power cut: %q, want br0", got)
	}
	must(h.StartDocker(ctx))
	if got := run("docker", "images", "-q", "lab"); got == "" {
		t.Error("image is gone after a power cut")
	}
	run("docker", "start", "c1")
	began = time.Now()
	run("docker", "stop", "c1")
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("stopping a container took %v", d)
	}
	must(h.WipeOVSDB(ctx))
	if got := run("ovs-vsctl", "list-br"); got != "" {
		t.Errorf("bridges after the database was wiped: %q", got)
	}
	must(h.StopDocker(ctx))
	must(h.StopOVS(ctx))
	step("again, and stopped")

	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", h.NSPID()))
	must(err)
	must(l.Close())
	closed = true
	step("close")
	if left := leftBy(ns); left != nil {
		t.Errorf("left on the machine: %v", left)
	}
	if _, err := os.Stat("/etc/written"); err == nil {
		t.Error("a host wrote into the machine's /etc")
	}
}

// leftBy lists the processes of a network namespace.
func leftBy(ns string) []string {
	var left []string
	links, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, l := range links {
		if got, _ := os.Readlink(l); got == ns {
			left = append(left, l)
		}
	}
	return left
}
