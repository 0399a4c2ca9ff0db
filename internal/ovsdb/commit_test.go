package ovsdb

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// When Commit returns, the change is in the database and in the cache, and the
// results of the seal are there.
func TestCommit(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	db := open(t, "unix:"+s.sock)
	r := root(t, db)
	for i := range 3 {
		name := fmt.Sprintf("br%d", i)
		sealed, err := db.Commit(t.Context(), addBridge(r, name), count(r))
		check(t, err)
		if !has(t, db, name) {
			t.Errorf("%s is not in the cache", name)
		}
		if len(sealed) != 2 || sealed[0].Count != 1 || len(sealed[1].Rows) != 1 || fmt.Sprint(sealed[1].Rows[0]["next_cfg"]) != fmt.Sprint(i+1) {
			t.Errorf("results of the seal: %+v", sealed)
		}
	}
	sealed, err := db.Commit(t.Context(), addBridge(r, "br3"), nil)
	if err != nil || sealed != nil {
		t.Errorf("without a seal: %+v, %v", sealed, err)
	}
	if diff := cmp.Diff("br0\nbr1\nbr2\nbr3", s.vsctl("list-br")); diff != "" {
		t.Error(diff)
	}
}

// refusals are groups that cannot be carried out, each with what the error of
// its caller says.
func refusals(r *rootRow) map[string]struct {
	ops  []Operation
	want string
} {
	with := func(name string, op Operation) []Operation { return append(addBridge(r, name), op) }
	return map[string]struct {
		ops  []Operation
		want string
	}{
		"guard":  {with("bad", guard()), "the database changed meanwhile: wait of table Bridge is not as it was"},
		"unique": {addBridge(r, "taken"), "constraint violation"},
		"value": {
			with("bad", Operation{Op: "insert", Table: "Port", Row: Values{"name": "x", "tag": 5000}}),
			"the database refused to insert Port: constraint violation",
		},
		"reference": {
			with("bad", Operation{
				Op: "mutate", Table: "Open_vSwitch", Where: []Condition{{Column: "next_cfg", Function: ">=", Value: 0}},
				Mutations: []Mutation{{Column: "bridges", Mutator: "insert", Value: Set{GoSet: []any{UUID{GoUUID: "nowhere"}}}}},
			}),
			"referential integrity violation",
		},
		"name twice": {
			with("bad", Operation{Op: "insert", Table: "Interface", UUIDName: "iface", Row: Values{"name": "x"}}),
			"duplicate uuid-name",
		},
		"column": {with("bad", Operation{Op: "update", Table: "Port", Where: []Condition{}, Row: Values{"colour": "red"}}), ""},
		"table":  {with("bad", Operation{Op: "delete", Table: "Colours", Where: []Condition{}}), ""},
	}
}

// A group that the server refuses is not carried out, its caller is told why,
// and the other groups of the same call are carried out all the same.
func TestCommitEach(t *testing.T) {
	t.Parallel()
	for name := range refusals(&rootRow{}) {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			s := startServer(t)
			s.vsctl("add-br", "taken")
			db := open(t, "unix:"+s.sock)
			r := root(t, db)
			bad := refusals(r)[name]
			groups := [][]Operation{addBridge(r, "good1"), bad.ops, addBridge(r, "good2"), bad.ops}
			outcomes := db.CommitEach(t.Context(), groups, count(r))
			for i, out := range outcomes {
				switch {
				case i%2 == 0 && (out.Err != nil || len(out.Sealed) != 2):
					t.Errorf("good group: %+v", out)
				case i%2 == 1 && (out.Err == nil || out.Sealed != nil):
					t.Errorf("bad group: %+v", out)
				case i%2 == 1 && !strings.Contains(out.Err.Error(), bad.want):
					t.Errorf("bad group: %v", out.Err)
				}
			}
			if diff := cmp.Diff("good1\ngood2\ntaken", s.vsctl("list-br")); diff != "" {
				t.Error(diff)
			}
			if _, err := db.Commit(t.Context(), bad.ops, nil); err == nil || !strings.Contains(err.Error(), bad.want) {
				t.Errorf("alone: %v", err)
			}
		})
	}
}

// A refusal can be told from a connection that does not work.
func TestTransactError(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	db := open(t, "unix:"+s.sock)
	_, err := db.Commit(t.Context(), []Operation{guard()}, nil)
	var refused *TransactError
	if !errors.As(err, &refused) || refused.Op.Op != "wait" || refused.Kind != "timed out" {
		t.Errorf("refused: %#v", err)
	}
	s.kill()
	_, err = db.Commit(t.Context(), []Operation{guard()}, nil)
	if err == nil || errors.As(err, &refused) {
		t.Errorf("no server: %#v", err)
	}
}

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

// Crowds of callers, some of whom are refused, each get their own answer.
func TestCommitParallel(t *testing.T) {
	t.Parallel()
	const callers = 500
	s := startServer(t)
	w := s.wire()
	db := open(t, w.endpoint())
	r := root(t, db)
	type answer struct {
		i        int
		outcomes []Outcome
	}
	answers := make(chan answer, callers)
	for i := range callers {
		go func() {
			second := addBridge(r, fmt.Sprintf("b%d", i))
			if i%50 == 0 {
				second = append(second, guard())
			}
			answers <- answer{i, db.CommitEach(t.Context(), [][]Operation{addBridge(r, fmt.Sprintf("a%d", i)), second}, count(r))}
		}()
	}
	for range callers {
		a := await(t, "an answer", answers)
		if a.outcomes[0].Err != nil {
			t.Errorf("a%d: %v", a.i, a.outcomes[0].Err)
		}
		if refused := a.i%50 == 0; (a.outcomes[1].Err != nil) != refused {
			t.Errorf("b%d: %v", a.i, a.outcomes[1].Err)
		}
		if !has(t, db, fmt.Sprintf("a%d", a.i)) {
			t.Errorf("a%d is not in the cache", a.i)
		}
	}
	if got, want := len(All[*bridgeRow](view(t, db))), 2*callers-callers/50; got != want {
		t.Errorf("%d bridges, want %d", got, want)
	}
	if sent := len(w.sent()); sent >= callers {
		t.Errorf("%d transactions for %d callers", sent, callers)
	}
}
