package ovn

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/link"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovs"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// bounded is how long a test waits for something that must happen.
const bounded = 30 * time.Second

// rig is a northbound database and the databases of hosts, real ones, without the
// daemons that act on them.
type rig struct {
	t   *testing.T
	dir string
	nb  *dbServer
}

// dbServer is an ovsdb-server.
type dbServer struct {
	t    *testing.T
	file string
	sock string
	cmd  *exec.Cmd
}

func newRig(t *testing.T) *rig {
	t.Helper()
	for _, tool := range []string{"ovsdb-server", "ovsdb-tool", "ovs-vsctl", "ovn-nbctl"} {
		if _, err := exec.LookPath(tool); err == nil {
			continue
		}
		if os.Getenv("OCN_UNIT") == "1" {
			t.Skipf("needs %s", tool)
		}
		t.Fatalf("needs %s (OCN_UNIT=1 skips)", tool)
	}
	// Not t.TempDir: the path of a socket has 107 bytes at most.
	dir, err := os.MkdirTemp("", "ocn-ovn-")
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &rig{t: t, dir: dir}
	r.nb = r.serve("nb", "/usr/share/ovn/ovn-nb.ovsschema")
	r.nbctl("init")
	return r
}

// serve starts a server with a new database.
func (r *rig) serve(name, schema string) *dbServer {
	r.t.Helper()
	s := &dbServer{t: r.t, file: filepath.Join(r.dir, name+".db"), sock: filepath.Join(r.dir, name+".sock")}
	r.run("ovsdb-tool", "create", s.file, schema)
	s.start()
	r.t.Cleanup(s.kill)
	return s
}

// schema is the file with a schema of OVN, altered by change if that is not nil.
func (r *rig) schema(name string, change func(tables map[string]any)) string {
	r.t.Helper()
	file := "/usr/share/ovn/" + name + ".ovsschema"
	if change == nil {
		return file
	}
	raw, err := os.ReadFile(file)
	check(r.t, err)
	var doc map[string]any
	check(r.t, json.Unmarshal(raw, &doc))
	change(doc["tables"].(map[string]any))
	delete(doc, "cksum")
	raw, err = json.Marshal(doc)
	check(r.t, err)
	file = filepath.Join(r.dir, name+".ovsschema")
	check(r.t, os.WriteFile(file, raw, 0o600))
	return file
}

func (s *dbServer) start() {
	s.t.Helper()
	s.cmd = exec.Command("ovsdb-server", s.file, "--no-chdir", "-vconsole:off", "--remote=punix:"+s.sock, "--unixctl="+s.sock+".ctl")
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	check(s.t, s.cmd.Start())
	eventually(s.t, "ovsdb-server answers", func() bool {
		c, err := net.Dial("unix", s.sock)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

func (s *dbServer) kill() {
	if s.cmd != nil {
		s.cmd.Process.Kill()
		s.cmd.Wait()
		s.cmd = nil
	}
}

func (r *rig) run(name string, args ...string) string {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bounded)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "OVS_RUNDIR="+r.dir, "OVN_RUNDIR="+r.dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(bytes.TrimSpace(out))
}

// nbctl changes the northbound database as an administrator does.
func (r *rig) nbctl(args ...string) string {
	r.t.Helper()
	return r.run("ovn-nbctl", append([]string{"--timeout=10", "--db=unix:" + r.nb.sock}, args...)...)
}

// host is a Fabric as it runs on a host of that name, with settings of its chassis
// beside those that every one has.
func (r *rig) host(name string, settings ...string) *Fabric {
	r.t.Helper()
	db := r.serve(name, "/usr/share/openvswitch/vswitch.ovsschema")
	args := []string{"--timeout=10", "--no-wait", "--db=unix:" + db.sock, "init", "--", "set", "Open_vSwitch", ".",
		"external_ids:system-id=" + name, "external_ids:ovn-remote=tcp:192.0.2.1:6642",
		"external_ids:ovn-encap-type=geneve", "external_ids:ovn-encap-ip=127.0.0.1"}
	r.run("ovs-vsctl", append(args, settings...)...)
	links, err := link.Open()
	check(r.t, err)
	r.t.Cleanup(links.Close)
	log := slog.New(slog.DiscardHandler)
	local, err := ovs.New("unix:"+db.sock, links, log, func(...network.ID) {})
	check(r.t, err)
	f, err := New(Config{
		Local: local, Links: links, HostID: "id-of-" + name, NB: "unix:" + r.nb.sock, RunDir: r.dir, Log: log, Dirty: func(...network.ID) {},
	})
	check(r.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { f.Run(ctx) }) //nolint:errcheck // it ends with ctx
	r.t.Cleanup(func() { cancel(); wg.Wait() })
	check(r.t, f.Ready(r.t.Context(), onSwitch("ls1").Config))
	return f
}

// onSwitch are the networks of the tests.
func onSwitch(name string, options ...func(*network.Network)) network.Network {
	n := network.Network{
		ID: network.ID("net-" + name), Phase: network.PhaseActive, Rev: 1,
		Config:  network.Config{Bridge: "br-int", MTU: 1442, VLANMode: network.VLANNone, IPAM: network.IPAMDocker, PortSecurity: true, OVN: &network.OVN{Switch: name}},
		Subnets: []network.Subnet{{Prefix: netip.MustParsePrefix("10.1.0.0/24"), Gateway: netip.MustParseAddr("10.1.0.1")}},
	}
	for _, o := range options {
		o(&n)
	}
	return n
}

// endpoint is the joined one with that number and address.
func endpoint(number int, addr string) network.Endpoint {
	return network.Endpoint{
		ID: network.EndpointID(fmt.Sprintf("%012x", number)), MAC: fmt.Sprintf("02:00:00:00:00:%02x", number), Rev: 1,
		Addrs: []netip.Prefix{netip.MustParsePrefix(addr + "/24")}, Phase: network.PhaseJoining, ContainerName: fmt.Sprint("c", number),
	}
}

// publish is what Apply does with the northbound database.
func (r *rig) publish(f *Fabric, n network.Network, eps ...network.Endpoint) error {
	r.t.Helper()
	for _, ep := range eps {
		n = n.WithEndpoint(ep)
	}
	errs, err := f.publish(r.t.Context(), n, eps)
	return merged(errs, err)
}

// has are the rows of the northbound database that carry the mark, by what a person
// calls them.
func (r *rig) has() string {
	r.t.Helper()
	var all []string
	for _, table := range []string{"Logical_Switch", "Logical_Switch_Port", "Logical_Router", "Logical_Router_Port"} {
		for name := range strings.FieldsSeq(r.nbctl("--bare", "--columns=name", "find", table, "external_ids:owner=ovs-container-network")) {
			all = append(all, strings.ToLower(strings.TrimPrefix(table, "Logical_"))+" "+name)
		}
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// book is what is entered in the book of a switch.
func (r *rig) book(f *Fabric, sw string) map[string]string {
	r.t.Helper()
	v, err := f.nb.View()
	check(r.t, err)
	b := findBook(v, sw)
	if b == nil {
		return nil
	}
	entries := make(map[string]string)
	for k, who := range b.ExternalIDs {
		if strings.HasPrefix(who, network.LinkPrefix) {
			entries[k] = who
		}
	}
	return entries
}

// sees waits until a host's cache shows something.
func (r *rig) sees(f *Fabric, what string, cond func(ovsdb.View) bool) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), bounded)
	defer cancel()
	if err := f.nb.Wait(ctx, func(v ovsdb.View) (bool, error) { return cond(v), nil }); err != nil {
		r.t.Fatalf("%s: %v", what, err)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(bounded)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("it did not happen that %s", what)
		}
	}
}

func sorted(lines []string) string {
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
