package ovsdb

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-logr/logr"
	"github.com/ovn-kubernetes/libovsdb/client"
	"github.com/ovn-kubernetes/libovsdb/model"
	"github.com/ovn-kubernetes/libovsdb/ovsdb"
)

// Query is a read of one table.
type Query struct {
	Table   string
	Where   []Condition // none is all rows
	Columns []string
}

func selects(queries []Query) []Operation {
	ops := make([]Operation, len(queries))
	for i, q := range queries {
		if q.Where == nil {
			q.Where = []Condition{}
		}
		ops[i] = Operation{Op: "select", Table: q.Table, Where: q.Where, Columns: q.Columns}
	}
	return ops
}

func rowsOf(results []Result, err error) ([][]Values, error) {
	if err != nil {
		return nil, err
	}
	rows := make([][]Values, len(results))
	for i, r := range results {
		rows[i] = r.Rows
	}
	return rows, nil
}

// Read carries out queries in one transaction: what they return was true in one
// moment. It does not wait for writes that are under way.
func (db *DB) Read(ctx context.Context, queries ...Query) ([][]Values, error) {
	return rowsOf(db.transact(ctx, selects(queries)))
}

// Session is a short conversation with a database of which nothing is kept.
type Session struct {
	client   client.Client
	database string
	endpoint string
	schema   ovsdb.DatabaseSchema
}

// Visit calls f with a connection to the first endpoint of r that answers, and
// closes it. Of a cluster any member will do: what one that does not lead tells may
// be a moment old, and what it is given to write it hands to the leader.
func Visit(ctx context.Context, r Remote, database string, f func(*Session) error) error {
	var faults []error
	for _, endpoint := range r.Endpoints {
		s, err := visit(ctx, r, database, endpoint)
		if err == nil {
			defer s.client.Close()
			return f(s)
		}
		faults = append(faults, fmt.Errorf("%s: %w", endpoint, err))
		if ctx.Err() != nil {
			break
		}
	}
	if len(faults) == 0 {
		faults = append(faults, errors.New("no endpoint is given"))
	}
	return fmt.Errorf("cannot reach database %s at %w", database, joined(faults))
}

// visit connects to one endpoint.
func visit(ctx context.Context, r Remote, database, endpoint string) (*Session, error) {
	// A model of nothing: only the schema is read.
	m, err := model.NewClientDBModel(database, map[string]model.Model{})
	if err != nil {
		return nil, err
	}
	quiet := logr.Discard()
	c, err := client.NewOVSDBClient(m, client.WithEndpoint(endpoint), client.WithLogger(&quiet), client.WithTLSConfig(r.TLS))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, memberTimeout)
	defer cancel()
	if err := c.Connect(ctx); err != nil {
		c.Close()
		if ctx.Err() != nil { // the library does not wrap it
			return nil, errors.New("the server does not answer")
		}
		return nil, plain(err)
	}
	s := &Session{client: c, database: database, endpoint: endpoint, schema: c.Schema()}
	if len(s.schema.Tables) == 0 {
		c.Close()
		return nil, errors.New("connection lost at once")
	}
	return s, nil
}

// Endpoint is where the conversation takes place.
func (s *Session) Endpoint() string { return s.endpoint }

// Has tells whether the database has a table with these columns: older versions
// have fewer.
func (s *Session) Has(table string, columns ...string) bool {
	return hasColumns(s.schema, table, columns)
}

// Read is like that of DB.
func (s *Session) Read(ctx context.Context, queries ...Query) ([][]Values, error) {
	return rowsOf(s.Transact(ctx, selects(queries)...))
}

// Transact carries out operations, all or none of them.
func (s *Session) Transact(ctx context.Context, ops ...Operation) ([]Result, error) {
	if !s.schema.ValidateOperations(ops...) {
		return nil, fmt.Errorf("database %s at %s lacks a table or column that is asked for: its version is too old", s.database, s.endpoint)
	}
	ctx, cancel := context.WithTimeout(ctx, transactTimeout)
	defer cancel()
	results, err := s.client.Transact(ctx, ops...)
	if err != nil {
		return nil, fmt.Errorf("transaction with %s failed: %w", s.endpoint, err)
	}
	return verdict(s.endpoint, ops, results)
}
