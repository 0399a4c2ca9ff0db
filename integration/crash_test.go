//go:build linux

package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// stateDir is where the driver keeps its records, in the host.
const stateDir = "/var/lib/ovs-container-network"

// record is where the machine finds a record of the host.
func (h *host) record(parts ...string) string {
	return h.Path(filepath.Join(append([]string{stateDir}, parts...)...))
}

// netID is the id of a network.
func (h *host) netID(name string) string {
	h.t.Helper()
	return h.docker("network", "inspect", "-f", "{{.Id}}", name)
}

// endID is the id of the endpoint of a container on a network.
func (h *host) endID(container, network string) string {
	h.t.Helper()
	return h.docker("inspect", "-f", fmt.Sprintf("{{(index .NetworkSettings.Networks %q).EndpointID}}", network), container)
}

// forge writes a record made of another one, of a file in which the last line
// counts: change gets what is below key.
func (h *host) forge(from, to, key string, change func(map[string]any)) {
	h.t.Helper()
	text, err := os.ReadFile(from)
	h.must(err)
	text = bytes.TrimSpace(text)
	var r map[string]any
	h.must(json.Unmarshal(text[bytes.LastIndexByte(text, '\n')+1:], &r))
	change(r[key].(map[string]any))
	text, err = json.Marshal(r)
	h.must(err)
	h.must(os.MkdirAll(filepath.Dir(to), 0o700))
	h.must(os.WriteFile(to, append(text, '\n'), 0o600))
}

// forgeEndpoint writes the record of an endpoint that is not Docker's, next to
// that of a container, and with link makes what the driver makes for one.
func (h *host) forgeEndpoint(nid, like, eid, addr, mac string, phase network.Phase, link bool) {
	h.t.Helper()
	dir := h.record("networks", nid, "endpoints")
	h.forge(filepath.Join(dir, like+".json"), filepath.Join(dir, eid+".json"), "endpoint", func(r map[string]any) {
		r["id"], r["phase"], r["addrs"], r["mac"] = eid, phase, []string{addr}, mac
		delete(r, "container_id")
		delete(r, "container_name")
	})
	if !link {
		return
	}
	host, peer := network.EndpointID(eid).Links()
	h.sh(fmt.Sprintf(`ip link add %[1]s type veth peer name %[2]s
ip link set %[1]s alias 'ovs-container-network %[3]s' up
ovs-vsctl --timeout=10 add-port br-int %[1]s tag=4094 vlan_mode=access -- set Port %[1]s \
	external_ids:owner=ovs-container-network external_ids:network_id=%[4]s external_ids:endpoint_id=%[3]s -- \
	set Interface %[1]s external_ids:owner=ovs-container-network external_ids:network_id=%[4]s external_ids:endpoint_id=%[3]s`,
		host, peer, eid, nid))
}

// What a dead driver has left half done is undone or finished by the next one:
// networks being created and deleted, endpoints being joined and deleted, files
// half written. An address whose endpoint Docker has given up is free.
func TestHalfDone(t *testing.T) {
	t.Parallel()
	h := newHost(t, service, own)
	w := h.settle()
	web := h.netID("web")
	like := h.endID("a2", "web")
	h.stopDriver()

	for id, phase := range map[string]network.Phase{"c1": network.PhaseCreating, "c2": network.PhaseDeleting} {
		nid, bridge := strings.Repeat(id, 32), "br-"+id
		h.forge(h.record("networks", web, "network.json"), h.record("networks", nid, "network.json"), "network", func(r map[string]any) {
			r["id"], r["phase"] = nid, phase
			r["config"].(map[string]any)["bridge"] = bridge
			delete(r, "name")
		})
		h.must(os.MkdirAll(h.record("networks", nid, "endpoints"), 0o700))
		h.ovs("add-br", bridge, "--", "set", "Bridge", bridge, "datapath_type=netdev", "external_ids:owner=ovs-container-network")
	}
	joining, deleting := strings.Repeat("e1", 32), strings.Repeat("e2", 32)
	h.forgeEndpoint(web, like, joining, "10.1.0.51/24", "02:00:00:00:02:51", network.PhaseJoining, true)
	h.forgeEndpoint(web, like, deleting, "10.1.0.52/24", "02:00:00:00:02:52", network.PhaseDeleting, true)
	halfway := strings.Repeat("e4", 32)
	h.forgeEndpoint(web, like, halfway, "10.1.0.54/24", "02:00:00:00:02:54", network.PhaseJoining, false)
	half := []string{
		h.record("networks", web, "network.json.new"),
		h.record("networks", web, "endpoints", strings.Repeat("e5", 32)+".json.new"),
		h.record("pools", "half.json.new"),
	}
	for _, file := range half {
		h.must(os.WriteFile(file, []byte(`{"version":1,"net`), 0o600))
	}
	empty := h.record("networks", strings.Repeat("c3", 32))
	h.must(os.MkdirAll(filepath.Join(empty, "endpoints"), 0o700))

	h.startDriver()
	// Docker has half a minute to ask again for what was being joined.
	h.within(time.Minute, "only what is wanted is there", func() error {
		if err := w.inOrder(); err != nil {
			return err
		}
		left := h.leftovers()
		for _, s := range []string{"e1e1e1", "e2e2e2", "e4e4e4", "e5e5e5", "c1c1c1", "c2c2c2", "br-c1", "br-c2", ".new"} {
			if strings.Contains(left, s) {
				return fmt.Errorf("something of %s is left:\n%s", s, left)
			}
		}
		if _, err := os.Stat(empty); err == nil {
			return fmt.Errorf("%s is still there", empty)
		}
		return nil
	})
	w.works()
	w.leave()
	h.expectClean()
}

// An endpoint whose creation was never confirmed to Docker does not keep its
// address and MAC from the next container that gets them.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	h := newHost(t, service, own)
	w := h.settle()
	h.stopDriver()
	web, shop := h.netID("web"), h.netID("shop")
	h.forgeEndpoint(web, h.endID("a2", "web"), strings.Repeat("e3", 32), "10.1.0.60/24", "02:00:00:00:02:60", network.PhaseCreated, false)
	h.forgeEndpoint(shop, h.endID("b2", "shop"), strings.Repeat("e4", 32), "10.2.0.60/24", "02:00:00:00:02:61", network.PhaseCreated, false)
	h.startDriver()
	h.container("a3", "web", "--ip", "10.1.0.60", "--mac-address", "02:00:00:00:02:60")
	h.container("b3", "shop", "--ip", "10.2.0.60", "--mac-address", "02:00:00:00:02:61")
	w.residents["a3"], w.residents["b3"] = "web", "shop"
	h.ping("a3", "a1")
	h.ping("b3", "b1")
	w.works()
	w.leave()
	h.expectClean()
}

// A record that cannot be read is reported and left alone, and so is what it
// describes: its containers talk on, everything else works. Put right, it is
// used again; a network with a damaged endpoint can be removed.
func TestDamagedRecords(t *testing.T) {
	t.Parallel()
	h := newHost(t, service, own)
	w := h.settle()
	h.network("lodge", "--subnet", "10.3.0.0/24")
	h.container("l1", "lodge")
	h.container("l2", "lodge")
	lodgeTag := h.ovs("get", "Port", h.portOf("l1", "lodge"), "tag")
	endpoint := h.record("networks", h.netID("web"), "endpoints", h.endID("a2", "web")+".json")
	newer := h.record("networks", h.netID("lodge"), "network.json")
	port := h.portOf("a2", "web")
	h.stopDriver()
	good, err := os.ReadFile(newer)
	h.must(err)
	h.must(os.WriteFile(newer, bytes.Replace(good, []byte(`"version":1`), []byte(`"version":99`), 1), 0o600))
	h.must(os.Truncate(endpoint, 40))
	h.startDriver()

	damaged := strings.Join(h.status().Damaged, "\n")
	for _, want := range []string{filepath.Base(endpoint), filepath.Base(filepath.Dir(newer)), "version 99"} {
		if !strings.Contains(damaged, want) {
			t.Errorf("status does not name %s as damaged: %q", want, damaged)
		}
	}
	w.talk()
	h.ping("l1", "l2")
	h.container("a3", "web")
	h.ping("a3", "a2")
	if out := h.dockerFails("run", "--rm", "--network", "lodge", "lab", "true"); !strings.Contains(out, "cannot be read") {
		t.Errorf("docker is told %s", out)
	}
	h.network("later", "--subnet", "10.4.0.0/24")
	h.container("x1", "later")
	if tag := h.ovs("get", "Port", h.portOf("x1", "later"), "tag"); tag == lodgeTag {
		t.Errorf("network later got the VLAN %s of the network whose record cannot be read", tag)
	}
	h.docker("rm", "-f", "x1")
	h.docker("network", "rm", "later")
	w.talk()
	h.ping("l1", "l2")

	h.docker("rm", "-f", "a1", "a2", "a3")
	h.docker("network", "rm", "web")
	h.eventually("web is gone with the damaged endpoint", func() error {
		if _, err := os.Stat(endpoint); err == nil {
			return fmt.Errorf("record %s is still there", endpoint)
		}
		if strings.Contains(h.leftovers(), port) {
			return fmt.Errorf("port or link %s is still there", port)
		}
		return nil
	})
	h.ping("l1", "l2")

	h.stopDriver()
	h.must(os.WriteFile(newer, good, 0o600))
	h.startDriver()
	w.residents = map[string]string{"b1": "shop", "b2": "shop", "l1": "lodge", "l2": "lodge"}
	h.within(90*time.Second, "all is in order", w.inOrder)
	if d := h.status().Damaged; len(d) > 0 {
		t.Errorf("still damaged: %q", d)
	}
	h.container("l3", "lodge")
	h.ping("l3", "l1")
	h.docker("rm", "-f", "l3")
	w.leave()
	h.expectClean()
}

// A pool that cannot be read is reported; its containers and other networks go
// on, and it is used again when it was put right.
func TestDamagedPool(t *testing.T) {
	t.Parallel()
	h := newHost(t, service, own)
	w := h.settle()
	h.stopDriver()
	pools, err := filepath.Glob(h.record("pools", "*.json"))
	if err != nil || len(pools) != 1 {
		t.Fatalf("pools are %v, %v", pools, err)
	}
	good, err := os.ReadFile(pools[0])
	h.must(err)
	h.must(os.WriteFile(pools[0], []byte("null and void"), 0o600))
	h.startDriver()
	if d := strings.Join(h.status().Damaged, "\n"); !strings.Contains(d, filepath.Base(pools[0])) {
		t.Errorf("status does not name %s as damaged: %q", pools[0], d)
	}
	w.talk()
	out := h.dockerFails("run", "-d", "--name", "b3", "--network", "shop", "lab")
	if !strings.Contains(out, "pool") {
		t.Errorf("docker is told %s", out)
	}
	h.docker("rm", "-f", "b3")
	h.container("a3", "web")
	h.ping("a3", "a1")
	h.docker("rm", "-f", "a3")
	if now, err := os.ReadFile(pools[0]); err != nil || string(now) != "null and void" {
		t.Errorf("the damaged record was touched: %q, %v", now, err)
	}
	h.stopDriver()
	h.must(os.WriteFile(pools[0], good, 0o600))
	h.startDriver()
	w.works()
	w.leave()
	h.expectClean()
}

// While the state directory cannot be written, what would have to be remembered
// is refused with the reason and leaves nothing behind, containers talk on, and
// all works when it can be written again.
func TestReadOnlyState(t *testing.T) {
	t.Parallel()
	h := newHost(t, service, own)
	w := h.settle()
	h.sh("mount --bind " + stateDir + " " + stateDir + " && mount -o remount,bind,ro " + stateDir)

	create := []string{"--subnet", "10.3.0.0/24", "--opt", "vlan=77", "--opt", "bridge=br-other"}
	out := h.dockerFails(append(append([]string{"network", "create", "--driver", "ovs-container-network"}, create...), "new")...)
	if !strings.Contains(out, "read-only file system") {
		t.Errorf("docker is told %s", out)
	}
	for _, network := range []string{"web", "shop"} {
		out = h.dockerFails("run", "-d", "--name", "guest", "--network", network, "lab")
		if !strings.Contains(out, "read-only file system") {
			t.Errorf("docker is told %s", out)
		}
		h.docker("rm", "-f", "guest")
	}
	w.talk()
	h.docker("rm", "-f", "a2")
	h.sh("mount -o remount,bind,rw " + stateDir)
	h.container("a2", "web")
	h.within(90*time.Second, "all is in order", w.inOrder)
	h.network("new", create...)
	h.container("n1", "new")
	h.docker("rm", "-f", "n1")
	h.docker("network", "rm", "new")
	w.works()
	w.leave()
	h.sh("umount " + stateDir)
	h.expectClean()
}
