package ovsdb

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ovn-kubernetes/libovsdb/model"
)

// A View shows the rows of the database, found by unique column and by UUID,
// with the columns that were asked for and no others.
func TestCache(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	s.vsctl("add-br", "br1", "--", "set", "bridge", "br1", "external_ids:a=b", "datapath_type=netdev", "--", "add-br", "br2")
	db := open(t, "unix:"+s.sock)
	v := view(t, db)

	b, ok := Find(v, &bridgeRow{Name: "br1"})
	if !ok {
		t.Fatal("br1 not found by name")
	}
	want := &bridgeRow{
		UUID: s.vsctl("get", "bridge", "br1", "_uuid"), Name: "br1",
		Ports:       []string{s.vsctl("get", "port", "br1", "_uuid")},
		ExternalIDs: map[string]string{"a": "b"},
	}
	if diff := cmp.Diff(want, b); diff != "" {
		t.Error(diff)
	}
	if same, ok := Find(v, &bridgeRow{UUID: b.UUID}); !ok || same.Name != "br1" {
		t.Errorf("by UUID: %+v, %v", same, ok)
	}
	for _, key := range []*bridgeRow{{Name: "br3"}, {UUID: "00000000-0000-0000-0000-000000000000"}, {}} {
		if row, ok := Find(v, key); ok {
			t.Errorf("%+v finds %+v", key, row)
		}
	}
	names := map[string]bool{}
	for uuid, row := range All[*bridgeRow](v) {
		names[row.Name] = row.UUID == uuid
	}
	if diff := cmp.Diff(map[string]bool{"br1": true, "br2": true}, names); diff != "" {
		t.Error(diff)
	}
	if connected, since, err := db.State(); !connected || err != nil || time.Since(since) > bounded {
		t.Errorf("state: %v, %v, %v", connected, since, err)
	}
	if got := db.Endpoint(); got != "unix:"+s.sock {
		t.Errorf("endpoint %s", got)
	}
}

// recorder keeps what Changed and Synced told, in words.
type recorder struct {
	mu     sync.Mutex
	events []string
	synced int
}

func (r *recorder) listen(cfg Config) Config {
	cfg.Changed = func(old, row Row) {
		name := func(r Row) string {
			b, _ := r.(*bridgeRow)
			if b == nil {
				return "-"
			}
			return b.Name + b.ExternalIDs["v"]
		}
		for _, any := range []Row{old, row} {
			if _, isRoot := any.(*rootRow); isRoot {
				return
			}
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.events = append(r.events, name(old)+">"+name(row))
	}
	cfg.Synced = func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.synced++
	}
	return cfg
}

func (r *recorder) seen() (events string, synced int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.events, " "), r.synced
}

// Changed is told of every row that comes, changes and goes, Synced of every
// connection, once.
func TestChanged(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	s.vsctl("add-br", "a")
	var r recorder
	db, _ := run(t, r.listen(config("unix:"+s.sock)))
	check(t, db.Ready(t.Context()))
	for _, step := range []struct {
		change []string
		want   string
	}{
		{[]string{"add-br", "b"}, "->a ->b"},
		{[]string{"set", "bridge", "b", "external_ids:v=1"}, "->a ->b b>b1"},
		{[]string{"del-br", "b"}, "->a ->b b>b1 b1>-"},
	} {
		s.vsctl(step.change...)
		eventually(t, step.want, func() bool { events, _ := r.seen(); return events == step.want })
	}
	if _, synced := r.seen(); synced != 1 {
		t.Errorf("synced %d times", synced)
	}
}

// Wait returns at the change that it waits for, whoever makes it.
func TestWait(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	db := open(t, "unix:"+s.sock)
	done := make(chan error, 1)
	asked := make(chan struct{}, 1000)
	go func() {
		done <- db.Wait(t.Context(), func(v View) (bool, error) {
			asked <- struct{}{}
			_, ok := Find(v, &bridgeRow{Name: "br1"})
			return ok, nil
		})
	}()
	await(t, "the first question", asked)
	select {
	case err := <-done:
		t.Fatalf("returned %v before the change", err)
	default:
	}
	s.vsctl("add-br", "br1")
	check(t, await(t, "the end of Wait", done))

	broken := errors.New("broken")
	if err := db.Wait(t.Context(), func(View) (bool, error) { return false, broken }); err != broken {
		t.Errorf("error of the condition: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := db.Wait(ctx, func(View) (bool, error) { return false, nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("end of the context: %v", err)
	}
	if err := db.Wait(ctx, func(View) (bool, error) { return true, nil }); err != nil {
		t.Errorf("a condition that holds: %v", err)
	}
}

// Wait and Ready hold on while there is no server, and go on when it comes.
func TestWaitForServer(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	s.kill()
	db, _ := run(t, config("unix:"+s.sock))
	eventually(t, "a first try", func() bool {
		_, _, err := db.State()
		return !strings.Contains(err.Error(), "not tried yet")
	})
	ready, waited := make(chan error, 1), make(chan error, 1)
	go func() { ready <- db.Ready(t.Context()) }()
	go func() {
		waited <- db.Wait(t.Context(), func(v View) (bool, error) { return len(All[*rootRow](v)) == 1, nil })
	}()
	s.start()
	check(t, await(t, "Ready", ready))
	check(t, await(t, "Wait", waited))
}

// newerRow is of a table that this database does not have.
type newerRow struct {
	UUID string `ovsdb:"_uuid"`
	Name string `ovsdb:"name"`
}

func (*newerRow) Table() string                  { return "Newer" }
func (r *newerRow) CloneModel() model.Model      { c := *r; return &c }
func (r *newerRow) CloneModelInto(m model.Model) { *m.(*newerRow) = *r }

// A table that may be missing is empty where it is; any other that is missing is a fault.
// What the schema of the server says is known.
func TestOptionalTable(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	s.vsctl("add-br", "br1")
	cfg := config("unix:" + s.sock)
	newer := &newerRow{}
	cfg.Tables = append(cfg.Tables, Table{Row: newer, Fields: []any{&newer.Name}, Optional: true})
	db, _ := run(t, cfg)
	check(t, db.Ready(t.Context()))
	v := view(t, db)
	if rows := All[*newerRow](v); len(rows) != 0 {
		t.Errorf("it has %v", rows)
	}
	if _, ok := Find(v, &newerRow{Name: "x"}); ok {
		t.Error("it has a row")
	}
	if _, ok := Find(v, &bridgeRow{Name: "br1"}); !ok {
		t.Error("the others are empty too")
	}
	for what, got := range map[string]bool{
		"table":           v.Has("Mirror") && !v.Has("Newer"),
		"column":          v.Has("Mirror", "name", "select_all") && !v.Has("Mirror", "name", "newer") && !v.Has("Newer", "name"),
		"value":           v.Allows("Bridge", "fail_mode", "secure") && !v.Allows("Bridge", "fail_mode", "newer"),
		"no enum":         !v.Allows("Bridge", "name", "br1"),
		"no such column":  !v.Allows("Bridge", "newer", "x"),
		"value, no table": !v.Allows("Newer", "name", "x"),
	} {
		if !got {
			t.Errorf("%s: the schema is not told right", what)
		}
	}
	cfg.Tables[len(cfg.Tables)-1].Optional = false
	db, _ = run(t, cfg)
	eventually(t, "it is refused", func() bool { _, _, err := db.State(); return err != nil && strings.Contains(err.Error(), "Newer") })
}
