//go:build linux

package integration

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

// walk is a page that a test follows, on a host as the page expects it.
type walk struct {
	page   string
	form   form
	on     suite
	bare   bool              // the driver is not there yet
	ovn    bool              // with an OVN of its own and a physical network outside
	before map[string]string // what happens meanwhile, by heading
}

// A service starts where systemd would start it.
const startService = `setsid ovs-container-network serve </dev/null >>/var/log/ocn.log 2>&1 &
until ovs-container-network status >/dev/null 2>&1; do sleep 0.1; done`

var walks = []walk{
	{page: "README.md", form: plugin, on: own},
	{page: "README.md", form: service, on: newer},
	{page: "docs/options.md", form: service, on: newer},
	{page: "docs/multi-tenant.md", form: service, on: own},
	{page: "docs/mirroring.md", form: service, on: own},
	{page: "docs/migration.md", form: service, on: own, before: map[string]string{
		// The bridge of the scripts: of whatever datapath this machine has.
		"What you have": "ovs-vsctl add-br br-lan -- set bridge br-lan datapath_type=netdev",
	}},
	{page: "docs/ovn.md", form: service, on: own, ovn: true},
	{page: "docs/install.md", form: plugin, on: own, bare: true, before: map[string]string{
		"Upgrade of the plugin":  "rm -r build/plugin && cp -r " + nextDir + " build/plugin",
		"Look at it":             startService,
		"Uninstall the service":  "kill $(pidof ovs-container-network)",
		"Upgrade of the service": "rm -f bin/ovs-container-network && cp " + nextDir + "/rootfs/ovs-container-network bin/",
	}},
}

// walksTogether are the tests that follow pages about several hosts.
var walksTogether = map[string]string{"docs/ovn.md": "TestOVNPage"}

// Every command in README and docs works as it stands there, prints what is
// shown, and leaves nothing when the page has removed what it made.
func TestReadme(t *testing.T) {
	t.Parallel()
	for _, w := range walks {
		t.Run(strings.ReplaceAll(w.page, "/", "_")+"/"+string(w.form), func(t *testing.T) {
			t.Parallel()
			h := newcomer(t, w)
			h.follow(w.page, w.before)
			if out := h.docker("ps", "-aq"); out != "" {
				t.Errorf("containers are left:\n%s", out)
			}
			h.expectClean()
			if w.ovn {
				h.expectEmptyNB()
			}
		})
	}
}

// newcomer boots a host for the reader of a page: with Compose, with the command
// in the path, the images busybox and ocn-demo, and a source tree in workDir.
func newcomer(t *testing.T, w walk) *host {
	t.Helper()
	root, err := lab.Suite(string(newer))
	if err != nil {
		t.Fatal(err)
	}
	const compose = "/usr/libexec/docker/cli-plugins/docker-compose"
	opts := []lab.Option{lab.WithBind(sourceTree(t), workDir)}
	if w.on != newer {
		opts = append(opts, lab.WithBind(root+compose, compose))
	}
	var h *host
	if w.bare {
		h = bareHost(t, w.form, w.on, opts...)
		h.must(h.StartOVS(h.ctx()))
		h.startDocker()
		h.must(h.ImportImage(h.ctx(), image, "lab"))
	} else {
		h = newHost(t, w.form, w.on, opts...)
		h.run("install", "-m", "755", buildDir+"/ovs-container-network", "/usr/local/bin/")
	}
	if w.ovn {
		h.startOVN()
		_, err := theLab.StartOutside(h.ctx(), lab.Outside{Hosts: []*lab.Host{h.Host}})
		h.must(err)
	}
	h.docker("tag", "lab", "busybox")
	h.docker("tag", "lab", "ocn-demo")
	if _, err := h.Run(h.ctx(), "sh", "-c", "command -v curl"); err != nil {
		// A minimal root lacks it. The programs of the image bring a client.
		h.must(copyFile(mustLookPath(t, "busybox"), h.Path("/usr/local/bin/busybox")))
		h.must(os.WriteFile(h.Path("/usr/local/bin/curl"), []byte("#!/bin/sh\nexec busybox wget -q -O - \"$2\"\n"), 0o755))
	}
	return h
}

func mustLookPath(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// sourceTree copies the source tree, with binary and plugin built already.
func sourceTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"cmd", "internal", "plugin", "scripts", "systemd", "test", "Makefile", "VERSION", "go.mod", "go.sum"} {
		if out, err := exec.CommandContext(t.Context(), "cp", "-a", filepath.Join("..", name), dir).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	// Newer than all sources, so that make takes it as it is.
	if err := copyFile(filepath.Join(build, "ovs-container-network"), filepath.Join(bin, "ovs-container-network")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// HACKING.md leads from a clone to an answer of the plugin socket, on the machine
// itself.
func TestHacking(t *testing.T) {
	t.Parallel()
	p, err := readPage("HACKING.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := sourceTree(t)
	labDir, err := os.MkdirTemp(lab.DefaultDir, "hacking-")
	if err != nil {
		t.Fatal(err)
	}
	run := func(ctx context.Context, script string) (string, error) {
		cmd := exec.CommandContext(ctx, "sh", "-ec", script)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "LAB_DIR="+labDir)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if out, err := run(ctx, "bin/lab down; rm -rf "+labDir); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	slots <- struct{}{}
	t.Cleanup(func() { <-slots })
	for _, b := range p.blocks {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		out, err := run(ctx, sudo.ReplaceAllString(b.text, ""))
		cancel()
		if err == nil {
			err = prints(out, b.prints)
		}
		if err != nil {
			t.Fatalf("HACKING.md:%d: %v\n%s", b.line, err, out)
		}
	}
}

// Two hosts become one overlay by what docs/ovn.md says for them, from what their
// packages leave: the first has the databases of OVN, and neither was told of them.
func TestOVNPage(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	hosts := map[string]*host{}
	for name, addr := range map[string]string{"h1": "192.0.2.1/24", "h2": "192.0.2.2/24"} {
		h := onUnderlay(t, l, name, addr)
		if name == "h1" {
			h.must(h.StartCentral(h.ctx(), lab.Central{}))
		}
		h.must(h.StartController(h.ctx(), lab.Chassis{}))
		h.startDocker()
		h.must(h.ImportImage(h.ctx(), image, "lab"))
		h.docker("tag", "lab", "busybox")
		h.sh("mkdir -p " + workDir)
		h.install()
		hosts[name] = h
	}
	followTogether(t, "docs/ovn.md", hosts)
	for _, h := range hosts {
		h.expectClean()
	}
	hosts["h1"].expectEmptyNB()
}
