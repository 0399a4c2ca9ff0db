//go:build linux

// Package integration tests the product as a user meets it: real dockerd, real
// Open vSwitch, real containers, on hosts of test/lab. `make test` runs it; a
// missing tool is a failure.
package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

// What every test uses, made once by TestMain.
var (
	theLab *lab.Lab
	build  string // on the machine: ovs-container-network and the plugin directory
	image  string // tar of the test image
)

// buildDir is where build is seen inside a host.
const buildDir = "/opt/ocn"

// pluginTag is the managed plugin of the tests.
const pluginTag = "ovs-container-network:0.0.1"

func TestMain(m *testing.M) {
	lab.Main()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "integration:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if build, err = os.MkdirTemp("", "ocn-integration-"); err != nil {
		return 1, err
	}
	defer os.RemoveAll(build)
	if err := buildPlugin(ctx); err != nil {
		return 1, err
	}
	if image, err = lab.Image(ctx, build); err != nil {
		return 1, err
	}
	if theLab, err = lab.New(""); err != nil {
		return 1, err
	}
	defer theLab.Close()
	return m.Run(), nil
}

// buildPlugin compiles the binary and lays out the managed plugin, twice: the
// second, with another version, is what an upgrade installs.
func buildPlugin(ctx context.Context) error {
	bin := filepath.Join(build, "ovs-container-network")
	for _, v := range []struct{ version, dir string }{{"0.0.2", "plugin2"}, {"0.0.1", "plugin"}} {
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w -X main.version="+v.version,
			"-o", bin, "../cmd/ovs-container-network")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build: %w\n%s", err, out)
		}
		rootfs := filepath.Join(build, v.dir, "rootfs")
		if err := os.MkdirAll(rootfs, 0o755); err != nil {
			return err
		}
		if err := copyFile(bin, filepath.Join(rootfs, "ovs-container-network")); err != nil {
			return err
		}
		if err := copyFile("../plugin/config.json", filepath.Join(build, v.dir, "config.json")); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o755)
}
