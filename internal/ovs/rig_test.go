package ovs

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/ovs-container-network/ovs-container-network/internal/link"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// bounded is how long a test waits for something that must happen.
const bounded = 30 * time.Second

const schema = "/usr/share/openvswitch/vswitch.ovsschema"

// rig is an Open vSwitch of this test alone, in a network namespace of its own,
// and a fabric on it.
type rig struct {
	t    *testing.T
	dir  string
	sock string
	ns   *space
	wire *wire
	dbd  *exec.Cmd // ovsdb-server
	vsd  *exec.Cmd // ovs-vswitchd

	f     *Fabric
	k     *link.Kernel
	stop  func() // ends the fabric
	dirty *notes

	foreign map[string]string // rows of others, by table and UUID
}

func needs(t *testing.T) {
	t.Helper()
	missing := ""
	for _, tool := range []string{"ovsdb-server", "ovsdb-tool", "ovsdb-client", "ovs-vsctl", "ovs-vswitchd"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing = tool
		}
	}
	if os.Geteuid() != 0 {
		missing = "root"
	}
	switch {
	case os.Getenv("OCN_UNIT") == "1":
		t.Skip("needs root and Open vSwitch")
	case missing != "":
		t.Fatalf("needs %s (OCN_UNIT=1 skips)", missing)
	}
}

// newRig starts everything, with a bridge of others that has a port.
func newRig(t *testing.T) *rig {
	t.Helper()
	r := newIdleRig(t)
	r.startVswitchd()
	r.vsctl("add-br", "foreign0", "--", "set", "bridge", "foreign0", "datapath_type=netdev", "external_ids:who=admin",
		"--", "add-port", "foreign0", "fport0", "tag=7", "--", "set", "interface", "fport0", "type=internal", "external_ids:who=admin",
		"--", "set", "Open_vSwitch", ".", "external_ids:system-id=test")
	r.startFabric()
	r.guard()
	return r
}

// newIdleRig starts a database that no ovs-vswitchd looks at, and no fabric.
func newIdleRig(t *testing.T) *rig {
	t.Helper()
	needs(t)
	t.Parallel()
	// Not t.TempDir: the path of a socket has 107 bytes at most.
	dir, err := os.MkdirTemp("", "ocn-ovs-")
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &rig{t: t, dir: dir, sock: filepath.Join(dir, "db.sock"), ns: newSpace(t)}
	t.Cleanup(func() {
		if log, err := os.ReadFile(filepath.Join(dir, "vswitchd.log")); err == nil && t.Failed() {
			t.Logf("ovs-vswitchd:\n%s", log[max(0, len(log)-8000):])
		}
		end(r.vsd)
		end(r.dbd)
	})
	r.wipe()
	r.startDB()
	r.wire = newWire(r)
	return r
}

// wipe makes the database anew, with the one row that `ovs-vsctl init` makes.
func (r *rig) wipe() {
	r.t.Helper()
	conf := filepath.Join(r.dir, "conf.db")
	check(r.t, os.RemoveAll(conf))
	r.run("ovsdb-tool", "create", conf, schema)
	r.run("ovsdb-tool", "transact", conf, `["Open_vSwitch",{"op":"insert","table":"Open_vSwitch","row":{}}]`)
}

func (r *rig) startDB() {
	r.t.Helper()
	r.dbd = r.daemon("ovsdb-server", filepath.Join(r.dir, "conf.db"), "--remote=punix:"+r.sock, "--unixctl="+filepath.Join(r.dir, "db.ctl"))
	eventually(r.t, "ovsdb-server answers", func() bool { return dialable(r.sock) })
}

func (r *rig) startVswitchd() {
	r.t.Helper()
	r.vsd = r.daemon("ovs-vswitchd", "unix:"+r.sock, "--disable-system", "--unixctl="+filepath.Join(r.dir, "vswitchd.ctl"),
		"--log-file="+filepath.Join(r.dir, "vswitchd.log"), "-vfile:warn", "-vsyslog:off", "-vnetdev_linux:off", "-vdpif_netdev:off")
	r.vsctl("set", "Open_vSwitch", ".", "other_config:started=true") // returns when it was taken
}

// daemon starts a program in the rig's namespace. It ends with the rig at the
// latest, even if the test is killed.
func (r *rig) daemon(name string, args ...string) *exec.Cmd {
	r.t.Helper()
	cmd := exec.Command(name, append(args, "--no-chdir", "-vconsole:off")...)
	cmd.Env = r.env()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	r.ns.do(cmd.Start)
	return cmd
}

func (r *rig) env() []string {
	return append(os.Environ(), "OVS_RUNDIR="+r.dir, "OVS_LOGDIR="+r.dir, "OVS_DBDIR="+r.dir)
}

// end kills a daemon, even a stopped one.
func end(cmd *exec.Cmd) {
	if cmd != nil && cmd.ProcessState == nil {
		cmd.Process.Kill()
		cmd.Wait()
	}
}

// vsctl does what an administrator does, and waits for ovs-vswitchd if it runs.
func (r *rig) vsctl(args ...string) string {
	r.t.Helper()
	common := []string{"--timeout=20", "--db=unix:" + r.sock}
	if r.vsd == nil {
		common = append(common, "--no-wait")
	}
	return r.run("ovs-vsctl", append(common, args...)...)
}

func (r *rig) run(name string, args ...string) string {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bounded)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = r.env()
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(bytes.TrimSpace(out))
}

// startFabric starts a fabric as a new process of the driver would.
func (r *rig) startFabric() {
	r.t.Helper()
	if r.stop != nil {
		r.stop()
	}
	r.ns.do(func() (err error) { r.k, err = link.Open(); return err })
	r.dirty = &notes{count: make(map[network.ID]int)}
	f, err := New(r.wire.endpoint(), r.k, slog.New(slog.DiscardHandler), r.dirty.add)
	check(r.t, err)
	r.f = f
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { f.db.Run(ctx) })
	wg.Go(func() { f.runReaper(ctx) })
	watching := make(chan struct{})
	wg.Go(func() { // Run, but in the namespace of the rig
		runtime.LockOSThread() // the thread ends
		if netns.Set(r.ns.fd) == nil {
			first := sync.OnceFunc(func() { close(watching) })
			r.k.Watch(ctx, func(e link.Event) { f.linkChanged(e); first() })
		}
	})
	r.stop = sync.OnceFunc(func() { cancel(); wg.Wait(); r.k.Close() })
	r.t.Cleanup(r.stop)
	await(r.t, "the watch of links", watching)
	check(r.t, f.Ready(r.t.Context(), network.Config{}))
}

// apply is a successful Apply.
func (r *rig) apply(n network.Network) {
	r.t.Helper()
	check(r.t, r.f.Apply(r.t.Context(), n))
}

// attach makes endpoints joined as Join does.
func (r *rig) attach(n network.Network, eps ...network.Endpoint) network.Network {
	r.t.Helper()
	n = join(n, network.PhaseJoining, eps...)
	r.apply(n)
	return join(n, network.PhaseJoined, eps...)
}

// remove is Apply of n with these endpoints deleting, until nothing of them is
// left.
func (r *rig) remove(n network.Network, eps ...network.Endpoint) {
	r.t.Helper()
	n = join(n, network.PhaseDeleting, eps...)
	eventually(r.t, "the end of a removal", func() bool {
		err := r.f.Apply(r.t.Context(), n)
		if err != nil && !errors.Is(err, network.ErrLingering) {
			r.t.Fatal(err)
		}
		return err == nil
	})
}

// link runs one change of links in the rig's namespace.
func (r *rig) link(name string, change func(netlink.Link) error) {
	r.t.Helper()
	r.ns.do(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return change(l)
	})
}

// device adds a link of others.
func (r *rig) device(l netlink.Link) {
	r.t.Helper()
	r.ns.do(func() error { return netlink.LinkAdd(l) })
}

// enter moves the endpoint's peer into a container, as dockerd does.
func (r *rig) enter(ep network.Endpoint) *space {
	r.t.Helper()
	_, peer := ep.ID.Links()
	c := newSpace(r.t)
	r.link(peer, func(l netlink.Link) error { return netlink.LinkSetNsFd(l, int(c.fd)) })
	return c
}

// linked tells whether the endpoint's host end exists.
func (r *rig) linked(ep network.Endpoint) bool {
	r.t.Helper()
	host, _ := ep.ID.Links()
	_, ok, err := r.k.Get(host)
	check(r.t, err)
	return ok
}

func (r *rig) view() ovsdb.View {
	r.t.Helper()
	v, err := r.f.db.View()
	check(r.t, err)
	return v
}
