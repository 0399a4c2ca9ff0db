package ovsdb

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ovn-kubernetes/libovsdb/ovsdb"
)

// The parts of a transaction (RFC 7047, section 5.2).
type (
	Operation = ovsdb.Operation
	Result    = ovsdb.OperationResult
	Condition = ovsdb.Condition
	Mutation  = ovsdb.Mutation
	UUID      = ovsdb.UUID
	Set       = ovsdb.OvsSet
	Map       = ovsdb.OvsMap
	Values    = ovsdb.Row
)

// transactTimeout bounds one transaction: ovsdb-server answers in milliseconds
// or is in trouble.
const transactTimeout = 4 * time.Second

// maxOperations is where a combined transaction takes no more groups.
const maxOperations = 4000

// group is what one caller wants committed, whole or not at all.
type group struct {
	ops    []Operation
	seal   *Seal
	result chan Outcome // capacity 1
}

// Seal is added once to the end of a combined transaction in which any group
// asks for it.
type Seal struct{ Operations []Operation }

// TransactError is the server's refusal of one operation.
type TransactError struct {
	Op      Operation
	Kind    string // such as "constraint violation"
	Details string
}

func (e *TransactError) Error() string {
	if e.Op.Op == "" {
		return fmt.Sprintf("the database refused the transaction: %s: %s", e.Kind, e.Details)
	}
	if e.Op.Op == "wait" {
		return fmt.Sprintf("the database changed meanwhile: %s of table %s is not as it was", e.Op.Op, e.Op.Table)
	}
	return fmt.Sprintf("the database refused to %s %s: %s: %s", e.Op.Op, e.Op.Table, e.Kind, e.Details)
}

// Commit writes ops in one transaction, perhaps together with those of other
// callers, and returns the results of the seal, if any. The cache shows the
// change when Commit returns. Named UUIDs need only be unique within ops.
//
// When ctx ends first, the transaction may still be carried out: callers must
// be able to meet its effects.
func (db *DB) Commit(ctx context.Context, ops []Operation, seal *Seal) (sealed []Result, err error) {
	out := db.CommitEach(ctx, [][]Operation{ops}, seal)[0]
	return out.Sealed, out.Err
}

// Select reads rows that the cache does not have. It does not wait for writes that
// are under way.
func (db *DB) Select(ctx context.Context, table string, where []Condition, columns ...string) ([]Values, error) {
	if where == nil {
		where = []Condition{}
	}
	results, err := db.transact(ctx, []Operation{{Op: "select", Table: table, Where: where, Columns: columns}})
	if err != nil {
		return nil, err
	}
	return results[0].Rows, nil
}

// Outcome is what became of one group of operations.
type Outcome struct {
	Sealed []Result
	Err    error
}

// CommitEach is Commit for several groups that do not depend on each other:
// each is carried out whole or not at all, whatever becomes of the others.
func (db *DB) CommitEach(ctx context.Context, groups [][]Operation, seal *Seal) []Outcome {
	queued := make([]*group, len(groups))
	for i, ops := range groups {
		queued[i] = &group{ops: ops, seal: seal, result: make(chan Outcome, 1)}
	}
	outcomes := make([]Outcome, len(groups))
	select {
	case db.queue <- queued:
	case <-ctx.Done():
	case <-db.stopped:
	}
	for i, g := range queued {
		select {
		case outcomes[i] = <-g.result:
			continue
		case <-ctx.Done():
			outcomes[i].Err = ctx.Err()
		case <-db.stopped:
			outcomes[i].Err = errStopped
		}
		select {
		case outcomes[i] = <-g.result: // answered in the same moment
		default:
		}
	}
	return outcomes
}

// errStopped answers what Run left in the queue.
var errStopped = errors.New("the driver is stopping")

// runCommits carries out the queue until ctx ends.
func (db *DB) runCommits(ctx context.Context) {
	for {
		var batch []*group
		select {
		case <-ctx.Done():
			return
		case batch = <-db.queue:
		}
	fill:
		for operations(batch) < maxOperations {
			select {
			case more := <-db.queue:
				batch = append(batch, more...)
			default:
				break fill
			}
		}
		db.commit(ctx, batch)
	}
}

func operations(batch []*group) (n int) {
	for _, g := range batch {
		n += len(g.ops)
	}
	return n
}

// maxRefused is how many groups of a batch may be refused before it is halved:
// each refusal costs sending all the others again.
const maxRefused = 2

// commit carries out a batch. A group that the server refuses is answered and
// left out of the next try. When that happens often, or the server refuses the
// transaction as a whole, as it does for a name that is not unique, the batch is
// halved.
func (db *DB) commit(ctx context.Context, batch []*group) {
	batch = db.valid(batch)
	for refusals := 0; len(batch) > 0; refusals++ {
		ops, seal := join(batch)
		results, err := db.transact(ctx, ops)
		var refused *TransactError
		if errors.As(err, &refused) && len(batch) > 1 {
			if bad := culprit(batch, len(results)-1); bad >= 0 {
				batch[bad].result <- Outcome{Err: err}
				batch = append(batch[:bad:bad], batch[bad+1:]...)
				if refusals < maxRefused {
					continue
				}
			}
			db.commit(ctx, batch[:len(batch)/2])
			db.commit(ctx, batch[len(batch)/2:])
			return
		}
		for _, g := range batch {
			out := Outcome{Err: err}
			if err == nil && g.seal != nil {
				out.Sealed = results[len(results)-len(seal):]
			}
			g.result <- out
		}
		return
	}
}

// valid answers the groups that name what the database has not and returns the
// others: the library refuses a transaction as a whole for it.
func (db *DB) valid(batch []*group) []*group {
	db.mu.Lock()
	c := db.conn
	db.mu.Unlock()
	if c == nil {
		return batch // refused later, with the cause
	}
	schema := c.client.Schema()
	if len(schema.Tables) == 0 {
		return batch // lost in this moment
	}
	valid := make([]*group, 0, len(batch))
	for _, g := range batch {
		if schema.ValidateOperations(g.ops...) {
			valid = append(valid, g)
			continue
		}
		g.result <- Outcome{Err: fmt.Errorf("database %s at %s lacks a table or column of the change: its version is too old", db.cfg.Database, c.endpoint)}
	}
	return valid
}

// join makes one list of the operations of all groups, with the named UUIDs of
// each group told apart.
func join(batch []*group) (ops, seal []Operation) {
	for i, g := range batch {
		for _, op := range g.ops {
			if len(batch) > 1 {
				op = rename(op, fmt.Sprintf("g%d", i))
			}
			ops = append(ops, op)
		}
		if g.seal != nil {
			seal = g.seal.Operations
		}
	}
	return append(ops, seal...), seal
}

// culprit returns the group that has operation number op, -1 if none has.
func culprit(batch []*group, op int) int {
	for i, g := range batch {
		if op < len(g.ops) {
			return i
		}
		op -= len(g.ops)
	}
	return -1
}

// transact sends one transaction. When the server refuses an operation, the
// error is a *TransactError and the results end with that operation.
func (db *DB) transact(ctx context.Context, ops []Operation) ([]Result, error) {
	db.mu.Lock()
	c := db.conn
	lost := db.unreachableLocked()
	db.mu.Unlock()
	if c == nil {
		return nil, lost
	}
	limited, cancel := context.WithTimeout(ctx, transactTimeout)
	defer cancel()
	db.transactions.Add(1)
	results, err := c.client.Transact(limited, ops...)
	if err != nil {
		if limited.Err() != nil && ctx.Err() == nil {
			// Those behind this one would wait as long in vain.
			db.drop(c, errors.New("the server does not answer"))
			c.client.Close()
			return nil, fmt.Errorf("database %s at %s does not answer within %v%s", db.cfg.Database, c.endpoint, transactTimeout, c.doubt)
		}
		return nil, fmt.Errorf("transaction with database %s at %s failed: %w", db.cfg.Database, c.endpoint, err)
	}
	return verdict(c.endpoint, ops, results)
}

// verdict returns the results of a transaction, or the server's refusal with the
// results up to that.
func verdict(endpoint string, ops []Operation, results []Result) ([]Result, error) {
	for i, r := range results {
		if r.Error == "" {
			continue
		}
		refused := &TransactError{Kind: r.Error, Details: r.Details}
		if i < len(ops) {
			refused.Op = ops[i]
		} // else the commit itself failed: no operation is to blame
		return results[:i+1], refused
	}
	if len(results) < len(ops) {
		return nil, fmt.Errorf("%s answered %d of %d operations", endpoint, len(results), len(ops))
	}
	return results, nil
}
