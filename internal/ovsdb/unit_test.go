package ovsdb

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ovn-kubernetes/libovsdb/model"
)

const realUUID = "2f77b348-9768-4866-b761-89d5177ecda0"

// Every named UUID of a group gets the prefix, wherever it stands; real ones
// and everything else stay, and the caller's operations are not written to.
func TestRename(t *testing.T) {
	name := func(s string) UUID { return UUID{GoUUID: s} }
	set := func(v ...any) Set { return Set{GoSet: v} }
	op := func(a, b string) Operation {
		return Operation{
			Op: "insert", Table: "Bridge", UUIDName: a + "x",
			Where: []Condition{{Column: "_uuid", Function: "==", Value: name(realUUID)}},
			Row: Values{
				"one": name(b + "y"), "many": set(name(b+"y"), name(realUUID), "y"), "text": "y", "number": 1,
				"map": Map{GoMap: map[any]any{"y": "y"}},
			},
			Mutations: []Mutation{
				{Column: "ports", Mutator: "insert", Value: set(name(b + "y"))},
				{Column: "ports", Mutator: "delete", Value: name(realUUID)},
				{Column: "next_cfg", Mutator: "+=", Value: 1},
			},
		}
	}
	given := op("", "")
	if diff := cmp.Diff(op("g7", "g7"), rename(given, "g7")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(op("", ""), given); diff != "" {
		t.Errorf("changed what it was given: %s", diff)
	}
	bare := Operation{Op: "select", Table: "Bridge"}
	if diff := cmp.Diff(bare, rename(bare, "g1")); diff != "" {
		t.Error(diff)
	}
}

// The group to blame for a refused operation is the one that has it; the seal
// and the commit itself belong to none.
func TestCulprit(t *testing.T) {
	batch := []*group{{ops: make([]Operation, 2)}, {}, {ops: make([]Operation, 3)}}
	for op, want := range map[int]int{0: 0, 1: 0, 2: 2, 4: 2, 5: -1, 6: -1} {
		if got := culprit(batch, op); got != want {
			t.Errorf("operation %d: group %d, want %d", op, got, want)
		}
	}
}

// While a database has never been seen, calls may wait as long as dockerd lets
// them, until the time for booting is over; else shortly.
func TestBudget(t *testing.T) {
	for _, c := range []struct {
		age  time.Duration
		seen bool
		want time.Duration
	}{
		{0, false, CallBudget},
		{0, true, LostBudget},
		{BootBudget - CallBudget - time.Second, false, CallBudget},
		{BootBudget - 10*time.Second, false, 10 * time.Second},
		{BootBudget - LostBudget - time.Second, false, LostBudget + time.Second},
		{BootBudget - time.Second, false, LostBudget},
		{time.Hour, false, LostBudget},
		{time.Hour, true, LostBudget},
	} {
		db := &DB{start: time.Now().Add(-c.age)}
		if got := db.Budget(c.seen); got > c.want || got < c.want-time.Second/2 {
			t.Errorf("after %v, seen %v: %v, want %v", c.age, c.seen, got, c.want)
		}
	}
	if CallBudget > 25*time.Second || LostBudget >= 5*time.Second || BootBudget != time.Minute {
		t.Error("not the times that users were promised")
	}
}

// anonRow has no UUID.
type anonRow struct {
	Name string `ovsdb:"name"`
}

func (*anonRow) Table() string                  { return "Bridge" }
func (r *anonRow) CloneModel() model.Model      { return r }
func (r *anonRow) CloneModelInto(m model.Model) {}

// Row types that cannot work are refused when the DB is made.
func TestNewRefuses(t *testing.T) {
	cfg := config("unix:/nowhere")
	cfg.Tables = []Table{{Row: &anonRow{}}}
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "row types of Open_vSwitch") {
		t.Errorf("got %v", err)
	}
}

// The errors of a refused operation are sentences.
func TestTransactErrorText(t *testing.T) {
	for want, err := range map[string]*TransactError{
		"the database refused the transaction: constraint violation: two rows":  {Kind: "constraint violation", Details: "two rows"},
		"the database refused to insert Port: constraint violation: tag 5000":   {Op: Operation{Op: "insert", Table: "Port"}, Kind: "constraint violation", Details: "tag 5000"},
		"the database changed meanwhile: wait of table Bridge is not as it was": {Op: Operation{Op: "wait", Table: "Bridge"}, Kind: "timed out"},
	} {
		if got := err.Error(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
