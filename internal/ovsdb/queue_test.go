package ovsdb

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Transactions that arrive while one is under way go together in the next, and
// named UUIDs that they have in common are told apart.
func TestCombine(t *testing.T) {
	t.Parallel()
	const callers = 40
	s := startServer(t)
	w := s.wire()
	db := open(t, w.endpoint())
	r := root(t, db)
	before := len(w.sent())
	release := w.hold()
	results := make(chan error, callers+1)
	commit := func(name string) {
		sealed, err := db.Commit(t.Context(), addBridge(r, name), count(r))
		if err == nil && len(sealed) != 2 {
			err = fmt.Errorf("results of the seal: %+v", sealed)
		}
		results <- err
	}
	go commit("first")
	eventually(t, "the first transaction", func() bool { return len(w.sent()) == before+1 })
	for i := range callers {
		go commit(fmt.Sprintf("br%d", i))
	}
	eventually(t, "a queue", func() bool { return len(db.queue) == callers })
	release()
	for range callers + 1 {
		check(t, await(t, "a commit", results))
	}
	if diff := cmp.Diff([]int{6, 4*callers + 2}, w.sent()[before:]); diff != "" {
		t.Errorf("operations of each transaction: %s", diff)
	}
	if got := s.vsctl("get", "Open_vSwitch", ".", "next_cfg"); got != "2" {
		t.Errorf("next_cfg is %s", got)
	}
	for i := range callers {
		name := fmt.Sprintf("br%d", i)
		if got := s.vsctl("list-ifaces", name); got != "" {
			t.Errorf("%s has the interfaces of another: %s", name, got)
		}
		if !has(t, db, name) {
			t.Errorf("%s is missing", name)
		}
	}
}

// A transaction does not grow without bound.
func TestCombineLimit(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	w := s.wire()
	db := open(t, w.endpoint())
	release := w.hold()
	nothing := make([]Operation, maxOperations/4)
	for i := range nothing {
		nothing[i] = Operation{Op: "delete", Table: "Bridge", Where: []Condition{{Column: "name", Function: "==", Value: "none"}}}
	}
	results := make(chan error)
	for range 10 {
		go func() { _, err := db.Commit(t.Context(), nothing, nil); results <- err }()
	}
	eventually(t, "a queue", func() bool { return len(w.sent()) == 1 && len(db.queue) > 0 })
	release()
	for range 10 {
		check(t, await(t, "a commit", results))
	}
	for _, n := range w.sent() {
		if n > maxOperations {
			t.Errorf("a transaction of %d operations", n)
		}
	}
}

// When most groups are refused, as when a bridge vanished under a crowd, the
// work does not grow with the square of their number.
func TestManyRefused(t *testing.T) {
	t.Parallel()
	const callers = 400
	s := startServer(t)
	w := s.wire()
	db := open(t, w.endpoint())
	r := root(t, db)
	var groups [][]Operation
	given := 0
	for i := range callers {
		ops := addBridge(r, fmt.Sprintf("br%d", i))
		if i%20 != 0 {
			ops = append([]Operation{guard()}, ops...)
		}
		groups = append(groups, ops)
		given += len(ops)
	}
	for i, out := range db.CommitEach(t.Context(), groups, count(r)) {
		if refused := i%20 != 0; (out.Err != nil) != refused {
			t.Errorf("group %d: %v", i, out.Err)
		}
	}
	sent := 0
	for _, n := range w.sent() {
		sent += n
	}
	if sent > 20*given {
		t.Errorf("%d operations sent for %d", sent, given)
	}
	if got := len(All[*bridgeRow](view(t, db))); got != callers/20 {
		t.Errorf("%d bridges", got)
	}
}

// A caller whose context ends is answered at once, wherever its operations are.
func TestContextEnds(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	w := s.wire()
	db := open(t, w.endpoint())
	r := root(t, db)
	release := w.hold()
	under := make(chan error, 1)
	go func() { _, err := db.Commit(t.Context(), addBridge(r, "under-way"), nil); under <- err }()
	eventually(t, "a transaction under way", func() bool { return len(w.sent()) == 1 })

	ctx, cancel := context.WithCancel(t.Context())
	queued := make(chan []Outcome, 1)
	go func() {
		queued <- db.CommitEach(ctx, [][]Operation{addBridge(r, "q1"), addBridge(r, "q2")}, nil)
	}()
	eventually(t, "a queue", func() bool { return len(db.queue) == 1 })
	cancel()
	for _, out := range await(t, "the end of a queued call", queued) {
		if !errors.Is(out.Err, context.Canceled) {
			t.Errorf("queued: %v", out.Err)
		}
	}
	release()
	check(t, await(t, "the commit under way", under))
	if _, err := db.Commit(t.Context(), addBridge(r, "later"), nil); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// A full queue keeps nobody whose context ends.
func TestQueueFull(t *testing.T) {
	t.Parallel()
	db, err := New(config("unix:/nowhere"))
	check(t, err)
	for range cap(db.queue) {
		db.queue <- nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, out := range db.CommitEach(ctx, make([][]Operation, 2), nil) {
		if !errors.Is(out.Err, context.Canceled) {
			t.Errorf("got %v", out.Err)
		}
	}
}
