package ovsdb

import (
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
