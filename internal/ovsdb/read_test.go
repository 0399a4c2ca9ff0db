package ovsdb

import (
	"context"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A visit reads and writes what the database has, and tells what its schema lacks.
func TestVisit(t *testing.T) {
	s := startServer(t)
	s.vsctl("add-br", "br0", "--", "add-br", "br1")
	err := Visit(t.Context(), Remote{Endpoints: []string{"unix:" + s.sock}}, "Open_vSwitch", func(v *Session) error {
		if v.Endpoint() != "unix:"+s.sock {
			t.Errorf("visited %s", v.Endpoint())
		}
		rows, err := v.Read(t.Context(), Query{Table: "Bridge", Columns: []string{"name"}},
			Query{Table: "Bridge", Where: []Condition{{Column: "name", Function: "==", Value: "br1"}}, Columns: []string{"_uuid", "name"}})
		check(t, err)
		if len(rows) != 2 || len(rows[0]) != 2 || len(rows[1]) != 1 || rows[1][0]["name"] != "br1" {
			t.Errorf("read %v", rows)
		}
		for _, c := range []struct {
			table   string
			columns []string
			want    bool
		}{
			{"Bridge", nil, true},
			{"Bridge", []string{"name", "ports"}, true},
			{"Bridge", []string{"name", "colour"}, false},
			{"Fridge", nil, false},
			{"Fridge", []string{"name"}, false},
		} {
			if got := v.Has(c.table, c.columns...); got != c.want {
				t.Errorf("has %s %v: %v", c.table, c.columns, got)
			}
		}
		if _, err := v.Read(t.Context(), Query{Table: "Fridge"}); err == nil || !strings.Contains(err.Error(), "too old") {
			t.Errorf("a table that is not there: %v", err)
		}
		if _, err := v.Transact(t.Context(), guard()); err == nil || !strings.Contains(err.Error(), "wait") {
			t.Errorf("a refusal: %v", err)
		}
		_, err = v.Transact(t.Context(), Operation{Op: "update", Table: "Bridge", Where: []Condition{{Column: "name", Function: "==", Value: "br0"}}, Row: Values{"external_ids": Map{GoMap: map[any]any{"k": "v"}}}})
		return err
	})
	check(t, err)
	if got := s.vsctl("get", "Bridge", "br0", "external_ids:k"); got != "v" {
		t.Errorf("written was %s", got)
	}
}

// Endpoints are tried in their order, those that are dead or silent are passed
// over, and when none is left the error tells of each.
func TestVisitEndpoints(t *testing.T) {
	s, silent := startServer(t), filepath.Join(t.TempDir(), "silent")
	l, err := net.Listen("unix", silent)
	check(t, err)
	defer l.Close()
	dead, hung, live := "unix:/nowhere/at/all", "unix:"+silent, "unix:"+s.sock
	visits := 0
	look := func(*Session) error { visits++; return nil }
	check(t, Visit(t.Context(), Remote{Endpoints: []string{dead, hung, live}}, "Open_vSwitch", look))
	if visits != 1 {
		t.Errorf("%d visits", visits)
	}
	for _, c := range []struct {
		endpoints []string
		database  string
		want      []string
	}{
		{nil, "Open_vSwitch", []string{"no endpoint"}},
		{[]string{dead, hung}, "Open_vSwitch", []string{dead, "no such file", hung, "does not answer"}},
		{[]string{live}, "OVN_Southbound", []string{live, "OVN_Southbound", "not found"}},
	} {
		err := Visit(t.Context(), Remote{Endpoints: c.endpoints}, c.database, look)
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v: got %v, want %q", c.endpoints, err, want)
			}
		}
	}
	if visits != 1 {
		t.Errorf("%d visits", visits)
	}
}

// A server that hangs holds nobody longer than the caller allows.
func TestVisitHangs(t *testing.T) {
	s := startServer(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- Visit(ctx, Remote{Endpoints: []string{"unix:" + s.sock}}, "Open_vSwitch", func(v *Session) error {
			s.signal(syscall.SIGSTOP)
			time.AfterFunc(50*time.Millisecond, cancel)
			_, err := v.Read(ctx, Query{Table: "Bridge", Columns: []string{"name"}})
			return err
		})
	}()
	if err := await(t, "the end of the visit", done); err == nil {
		t.Error("a server that hangs has answered")
	}
}

// Visits leave no connection and no goroutine behind, also those that fail.
func TestVisitLeavesNothing(t *testing.T) {
	s := startServer(t)
	look := func(database string) {
		Visit(t.Context(), Remote{Endpoints: []string{"unix:" + s.sock}}, database, func(v *Session) error { //nolint:errcheck // one of them fails
			_, err := v.Read(t.Context(), Query{Table: "Bridge", Columns: []string{"name"}})
			return err
		})
	}
	look("Open_vSwitch")
	before := runtime.NumGoroutine()
	for range 50 {
		look("Open_vSwitch")
		look("OVN_Southbound") // not there
	}
	eventually(t, "all goroutines end", func() bool { return runtime.NumGoroutine() <= before })
}

// Read of a connection that is kept returns rows that its cache does not have.
func TestRead(t *testing.T) {
	s := startServer(t)
	db := open(t, "unix:"+s.sock)
	s.vsctl("add-br", "br0")
	rows, err := db.Read(t.Context(), Query{Table: "Interface", Columns: []string{"name", "type"}}, Query{Table: "Mirror"})
	check(t, err)
	if len(rows) != 2 || len(rows[0]) != 1 || rows[0][0]["type"] != "internal" || len(rows[1]) != 0 {
		t.Errorf("read %v", rows)
	}
	if _, err := db.Read(t.Context(), Query{Table: "Fridge"}); err == nil {
		t.Error("read a table that is not there")
	}
}
