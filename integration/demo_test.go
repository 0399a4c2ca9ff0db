//go:build linux

package integration

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

// demoHost is a host with nothing running and a copy of the repository.
func demoHost(t *testing.T) *host {
	t.Helper()
	repo, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	h := bareHost(t, plugin, own, lab.WithBind(repo, "/mnt"))
	h.sh("mkdir /root/ocn && cd /mnt && tar -cf - --exclude=./.git --exclude=./build --exclude=./bin . | tar -xf - -C /root/ocn")
	return h
}

// The README's first command on a machine where nothing runs: it starts what is
// missing, two containers talk, what it prints is true, it may be run twice, and
// demo-clean takes everything away again.
func TestDemo(t *testing.T) {
	t.Parallel()
	h := demoHost(t)
	for range 2 {
		out := h.sh("cd /root/ocn && make demo 2>&1")
		for _, want := range []string{"0% packet loss", "ocn-demo-a", "ocn-demo-b", "br-ocn-demo", "demo-clean", "managed plugin"} {
			if !strings.Contains(out, want) {
				t.Errorf("the demo does not show %q:\n%s", want, out)
			}
		}
	}
	h.ping("ocn-demo-a", "ocn-demo-b")
	if out := h.sh("ovs-container-network status"); !strings.Contains(out, "ocn-demo") {
		t.Errorf("the command line that the demo installed shows no network of it:\n%s", out)
	}
	h.sh("cd /root/ocn && make demo-clean 2>&1")
	if out := h.sh("ls /usr/local/bin; ls /run/docker/plugins 2>/dev/null; ip -o link | grep -o 'oc[n-][-0-9a-f]*' || true"); strings.TrimSpace(out) != "" {
		t.Errorf("demo-clean leaves behind:\n%s", out)
	}
}

// The demo leaves alone what was on the machine before.
func TestDemoDisturbsNothing(t *testing.T) {
	t.Parallel()
	h := demoHost(t)
	h.must(h.StartOVS(h.ctx()))
	h.startDocker()
	h.must(h.ImportImage(h.ctx(), image, "lab"))
	h.ovs("add-br", "br-mine", "--", "set", "bridge", "br-mine", "datapath_type=netdev", "--", "add-port", "br-mine", "mine0", "--", "set", "interface", "mine0", "type=internal")
	h.docker("network", "create", "mine")
	h.container("mine", "mine")
	before := func() string {
		return h.sh("ovs-vsctl --columns=name,ports,external_ids,other_config list Bridge br-mine; docker ps --format '{{.ID}} {{.Names}} {{.Networks}}' --filter name=mine; docker network ls --format '{{.ID}} {{.Name}}' | grep -v docker_gwbridge; docker images -q lab; docker plugin ls -q")
	}
	was := before()
	h.sh("cd /root/ocn && make demo 2>&1 && make demo-clean 2>&1")
	if is := before(); is != was {
		t.Errorf("was:\n%s\nis:\n%s", was, is)
	}
	h.exec("mine", "true")
}
