package ovsdb

import (
	"context"
	"net"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The error for a database that cannot be reached says which, where, why, and
// since when.
func TestStateNeverSeen(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	dead := filepath.Join(s.dir, "dead.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	check(t, err)
	l.SetUnlinkOnClose(false)
	l.Close()
	closing, err := net.Listen("unix", filepath.Join(s.dir, "closing.sock"))
	check(t, err)
	t.Cleanup(func() { closing.Close() })
	go func() {
		for {
			c, err := closing.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	for name, c := range map[string]struct {
		endpoint, database string
		why                string
	}{
		"no socket":   {"unix:/nowhere/db.sock", "Open_vSwitch", "no such file or directory"},
		"no listener": {"unix:" + dead, "Open_vSwitch", "connection refused"},
		"no database": {"unix:" + s.sock, "Elsewhere", "target database Elsewhere not found"},
		"closes":      {"unix:" + closing.Addr().String(), "Open_vSwitch", ""},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			cfg := config(c.endpoint)
			cfg.Database = c.database
			db, _ := run(t, cfg)
			eventually(t, "a first try", func() bool {
				_, _, err := db.State()
				return !strings.Contains(err.Error(), "not tried yet")
			})
			connected, since, err := db.State()
			if connected || time.Since(since) > bounded {
				t.Errorf("connected %v since %v", connected, since)
			}
			want := regexp.MustCompile(`^cannot reach database ` + c.database + ` at ` + regexp.QuoteMeta(c.endpoint) +
				`: .*` + c.why + `.* \(never seen since the start, \d+s ago\)$`)
			if !want.MatchString(err.Error()) {
				t.Errorf("state: %v", err)
			}
			_, viewErr := db.View()
			_, commitErr := db.Commit(t.Context(), []Operation{guard()}, nil)
			for _, err := range []error{viewErr, commitErr} {
				if err == nil || !want.MatchString(err.Error()) {
					t.Errorf("got %v", err)
				}
			}
		})
	}
}

// A database that comes back is connected to again, with a cache that shows
// what is there now and nothing of what was there before.
func TestReconnect(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	s.vsctl("add-br", "old")
	var r recorder
	db, _ := run(t, r.listen(config("unix:"+s.sock)))
	check(t, db.Ready(t.Context()))
	before := view(t, db)
	old := root(t, db)

	lost := time.Now()
	s.kill()
	eventually(t, "the loss", func() bool { connected, _, _ := db.State(); return !connected })
	_, since, err := db.State()
	if since.Before(lost) {
		t.Errorf("lost since %v, killed at %v", since, lost)
	}
	want := regexp.MustCompile(`^cannot reach database Open_vSwitch at unix:` + regexp.QuoteMeta(s.sock) + `: .+ \(since ` + since.Format(time.TimeOnly) + `\)$`)
	_, viewErr := db.View()
	_, commitErr := db.Commit(t.Context(), addBridge(old, "x"), nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range []error{err, viewErr, commitErr, db.Ready(ctx), db.Wait(ctx, nil)} {
		if err == nil || !want.MatchString(err.Error()) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	if _, ok := Find(before, &bridgeRow{Name: "old"}); !ok {
		t.Error("a view taken before has lost its rows")
	}

	s.wipe()
	s.start()
	s.vsctl("add-br", "new")
	check(t, db.Ready(t.Context()))
	eventually(t, "new", func() bool { return has(t, db, "new") })
	if has(t, db, "old") || root(t, db).UUID == old.UUID {
		t.Error("the new cache has old rows")
	}
	eventually(t, "a second sync", func() bool { _, synced := r.seen(); return synced == 2 })
	if _, err := db.Commit(t.Context(), addBridge(root(t, db), "mine"), nil); err != nil || !has(t, db, "mine") {
		t.Errorf("commit after the loss: %v", err)
	}
	if connected, again, err := db.State(); !connected || err != nil || again.Before(since) {
		t.Errorf("state: %v since %v, %v", connected, again, err)
	}
}

// A server that hangs fails a transaction after a while and counts as lost then,
// so that those behind it fail at once; when it goes on, so does everything.
func TestServerHangs(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	w := s.wire()
	db := open(t, w.endpoint())
	r := root(t, db)
	s.signal(syscall.SIGSTOP)
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { _, err := db.Commit(context.Background(), addBridge(r, "br1"), nil); first <- err }()
	eventually(t, "a transaction under way", func() bool { return len(w.sent()) == 1 })
	go func() { _, err := db.Commit(context.Background(), addBridge(r, "br2"), nil); second <- err }()
	eventually(t, "a queue", func() bool { return len(db.queue) == 1 })

	if err := await(t, "the end of the first", first); err == nil || !strings.Contains(err.Error(), w.endpoint()) {
		t.Errorf("first: %v", err)
	}
	err := await(t, "the end of the second", second)
	if err == nil || !strings.HasPrefix(err.Error(), "cannot reach database Open_vSwitch at "+w.endpoint()+": the server does not answer") {
		t.Errorf("second: %v", err)
	}
	if sent := w.sent(); len(sent) != 1 {
		t.Errorf("%d transactions sent to a server that hangs", len(sent))
	}
	s.signal(syscall.SIGCONT)
	eventually(t, "the connection", func() bool { return db.Ready(t.Context()) == nil })
	eventually(t, "a commit after the hang", func() bool {
		_, err := db.Commit(t.Context(), addBridge(r, "br3"), nil)
		return err == nil && has(t, db, "br3")
	})
}

// A server that takes connections and says nothing is given up on, with the
// cause, and connected to when it speaks.
func TestServerHangsAtConnect(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	s.signal(syscall.SIGSTOP)
	db, _ := run(t, config("unix:"+s.sock))
	eventually(t, "the end of a try", func() bool {
		_, _, err := db.State()
		return !strings.Contains(err.Error(), "not tried yet")
	})
	if _, _, err := db.State(); !strings.Contains(err.Error(), "deadline exceeded") {
		t.Errorf("state: %v", err)
	}
	s.signal(syscall.SIGCONT)
	check(t, db.Ready(t.Context()))
}

// Nothing goes on after Run has ended, whatever happened before.
func TestNoLeak(t *testing.T) {
	s := startServer(t)
	runtime.GC()
	before := runtime.NumGoroutine()
	for range 3 {
		db, stop := run(t, config("unix:"+s.sock))
		check(t, db.Ready(t.Context()))
		s.kill()
		eventually(t, "the loss", func() bool { connected, _, _ := db.State(); return !connected })
		s.start()
		check(t, db.Ready(t.Context()))
		_, err := db.Commit(t.Context(), []Operation{guard()}, nil)
		if err == nil {
			t.Error("the guard was let through")
		}
		stop()

		_, stop = run(t, config("unix:/nowhere/db.sock"))
		stop()
	}
	eventually(t, "the goroutines end", func() bool { return runtime.NumGoroutine() <= before })
}

// After Run has ended nobody waits for an answer that will not come.
func TestCommitAfterRun(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	w := s.wire()
	db, stop := run(t, config(w.endpoint()))
	check(t, db.Ready(t.Context()))
	release := w.hold()
	results := make(chan error, 3)
	commit := func() {
		_, err := db.Commit(context.Background(), []Operation{guard()}, nil)
		results <- err
	}
	go commit()
	eventually(t, "a transaction under way", func() bool { return len(w.sent()) == 1 })
	go commit()
	eventually(t, "a queue", func() bool { return len(db.queue) == 1 })
	stop()
	release()
	go commit()
	for range 3 {
		if err := await(t, "an answer", results); err == nil {
			t.Error("success without a server")
		}
	}
}
