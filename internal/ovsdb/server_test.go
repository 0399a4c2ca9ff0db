package ovsdb

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ovn-kubernetes/libovsdb/model"
)

// bounded is how long a test waits for something that must happen.
const bounded = 30 * time.Second

const schema = "/usr/share/openvswitch/vswitch.ovsschema"

// server is a real ovsdb-server with Open vSwitch's schema, of this test alone.
type server struct {
	t    *testing.T
	dir  string
	sock string
	cmd  *exec.Cmd
}

func startServer(t *testing.T) *server {
	t.Helper()
	for _, tool := range []string{"ovsdb-server", "ovsdb-tool", "ovs-vsctl"} {
		if _, err := exec.LookPath(tool); err == nil {
			continue
		}
		if os.Getenv("OCN_UNIT") == "1" {
			t.Skipf("needs %s", tool)
		}
		t.Fatalf("needs %s (OCN_UNIT=1 skips)", tool)
	}
	// Not t.TempDir: the path of a socket has 107 bytes at most.
	dir, err := os.MkdirTemp("", "ocn-ovsdb-")
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &server{t: t, dir: dir, sock: filepath.Join(dir, "db.sock")}
	s.wipe()
	s.start()
	t.Cleanup(s.kill)
	return s
}

// wipe makes the database anew, with the one row that `ovs-vsctl init` makes.
func (s *server) wipe() {
	s.t.Helper()
	conf := filepath.Join(s.dir, "conf.db")
	check(s.t, os.RemoveAll(conf))
	s.run("ovsdb-tool", "create", conf, schema)
	s.run("ovsdb-tool", "transact", conf, `["Open_vSwitch",{"op":"insert","table":"Open_vSwitch","row":{}}]`)
}

func (s *server) start() {
	s.t.Helper()
	s.cmd = exec.Command("ovsdb-server", filepath.Join(s.dir, "conf.db"), "--no-chdir", "-vconsole:off",
		"--remote=punix:"+s.sock, "--unixctl="+filepath.Join(s.dir, "ctl"))
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

// kill ends the server without a word, even a stopped one.
func (s *server) kill() {
	if s.cmd != nil {
		s.cmd.Process.Kill()
		s.cmd.Wait()
		s.cmd = nil
	}
}

func (s *server) signal(sig syscall.Signal) {
	s.t.Helper()
	check(s.t, s.cmd.Process.Signal(sig))
}

// vsctl changes the database as an administrator does.
func (s *server) vsctl(args ...string) string {
	s.t.Helper()
	return s.run("ovs-vsctl", append([]string{"--timeout=10", "--no-wait", "--db=unix:" + s.sock}, args...)...)
}

func (s *server) run(name string, args ...string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bounded)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "OVS_RUNDIR="+s.dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(bytes.TrimSpace(out))
}

// The rows of the tests.
type (
	rootRow struct {
		UUID        string            `ovsdb:"_uuid"`
		Bridges     []string          `ovsdb:"bridges"`
		NextCfg     int               `ovsdb:"next_cfg"`
		ExternalIDs map[string]string `ovsdb:"external_ids"`
	}
	bridgeRow struct {
		UUID         string            `ovsdb:"_uuid"`
		Name         string            `ovsdb:"name"`
		Ports        []string          `ovsdb:"ports"`
		ExternalIDs  map[string]string `ovsdb:"external_ids"`
		DatapathType string            `ovsdb:"datapath_type"` // not among the fields that are asked for
	}
)

func (*rootRow) Table() string                    { return "Open_vSwitch" }
func (*bridgeRow) Table() string                  { return "Bridge" }
func (r *rootRow) CloneModel() model.Model        { c := *r; return &c }
func (r *bridgeRow) CloneModel() model.Model      { c := *r; return &c }
func (r *rootRow) CloneModelInto(m model.Model)   { *m.(*rootRow) = *r }
func (r *bridgeRow) CloneModelInto(m model.Model) { *m.(*bridgeRow) = *r }
func config(endpoint string) Config {
	o, b := &rootRow{}, &bridgeRow{}
	return Config{
		Remote: At(endpoint), Database: "Open_vSwitch", Log: slog.New(slog.DiscardHandler),
		Tables: []Table{
			{Row: o, Fields: []any{&o.Bridges, &o.NextCfg, &o.ExternalIDs}},
			{Row: b, Fields: []any{&b.Name, &b.Ports, &b.ExternalIDs}},
		},
	}
}

// run starts a DB. stop ends it and waits until it has ended.
func run(t *testing.T, cfg Config) (db *DB, stop func()) {
	t.Helper()
	db, err := New(cfg)
	check(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- db.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := await(t, "the end of Run", done); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return db, stop
}

// open is run, and returns when the database is connected.
func open(t *testing.T, endpoint string) *DB {
	t.Helper()
	db, _ := run(t, config(endpoint))
	check(t, db.Ready(t.Context()))
	return db
}

func view(t *testing.T, db *DB) View {
	t.Helper()
	v, err := db.View()
	check(t, err)
	return v
}

// root returns the one row of Open_vSwitch.
func root(t *testing.T, db *DB) *rootRow {
	t.Helper()
	for _, r := range All[*rootRow](view(t, db)) {
		return r
	}
	t.Fatal("no row in Open_vSwitch")
	return nil
}

// addBridge are the operations that make a bridge with its own port, with the
// same named UUIDs every time.
func addBridge(r *rootRow, name string) []Operation {
	is := func(id string) UUID { return UUID{GoUUID: id} }
	return []Operation{
		{Op: "insert", Table: "Interface", UUIDName: "iface", Row: Values{"name": name, "type": "internal"}},
		{Op: "insert", Table: "Port", UUIDName: "port", Row: Values{"name": name, "interfaces": is("iface")}},
		{Op: "insert", Table: "Bridge", UUIDName: "br", Row: Values{"name": name, "ports": Set{GoSet: []any{is("port")}}}},
		{
			Op: "mutate", Table: "Open_vSwitch", Where: []Condition{{Column: "_uuid", Function: "==", Value: is(r.UUID)}},
			Mutations: []Mutation{{Column: "bridges", Mutator: "insert", Value: Set{GoSet: []any{is("br")}}}},
		},
	}
}

// guard is an operation that the server refuses: there is no such bridge.
func guard() Operation {
	now := 0
	return Operation{
		Op: "wait", Table: "Bridge", Timeout: &now, Until: "==", Columns: []string{"name"},
		Where: []Condition{{Column: "name", Function: "==", Value: "none"}}, Rows: []Values{{"name": "none"}},
	}
}

// count ends a transaction by raising next_cfg and reading it.
func count(r *rootRow) *Seal {
	where := []Condition{{Column: "_uuid", Function: "==", Value: UUID{GoUUID: r.UUID}}}
	return &Seal{Operations: []Operation{
		{Op: "mutate", Table: "Open_vSwitch", Where: where, Mutations: []Mutation{{Column: "next_cfg", Mutator: "+=", Value: 1}}},
		{Op: "select", Table: "Open_vSwitch", Where: where, Columns: []string{"next_cfg"}},
	}}
}

func has(t *testing.T, db *DB, name string) bool {
	t.Helper()
	_, ok := Find(view(t, db), &bridgeRow{Name: name})
	return ok
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits until cond holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(bounded)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("in vain waited for: %s", what)
		}
	}
}

// await returns what arrives on c.
func await[T any](t testing.TB, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(bounded):
		t.Fatalf("in vain waited for: %s", what)
	}
	return v
}
