package ovsdb

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/ovn-kubernetes/libovsdb/cache"
	"github.com/ovn-kubernetes/libovsdb/client"
	"github.com/ovn-kubernetes/libovsdb/model"
	"github.com/ovn-kubernetes/libovsdb/ovsdb"
)

// Times of a connection.
const (
	connectTimeout = 5 * time.Second
	memberTimeout  = 2 * time.Second // of a member of a cluster, before the next is tried
	retryAfter     = 250 * time.Millisecond
	watchEvery     = time.Second
	echoEvery      = 15 * time.Second
	echoTimeout    = 5 * time.Second

	// BootBudget is how long, from New on, calls wait for a database that has
	// never been seen: at boot the parties start in any order.
	BootBudget = 60 * time.Second
	// CallBudget bounds one such wait below the 30 s after which dockerd gives up.
	CallBudget = 24 * time.Second
	// LostBudget is how long a call waits for a database that was there before.
	LostBudget = 3 * time.Second
)

// Table is one table to keep in the cache: a row type and pointers to the
// fields of Row that are wanted. Naming the columns keeps the cache right on
// servers whose schema has more.
type Table struct {
	Row    Row
	Fields []any
	Only   []Match // the rows wanted, those of any of these; none is all
	// Optional is a table that older versions lack. It has no rows there.
	Optional bool
}

// Match selects the rows whose column, by a pointer to its field of Table.Row, is
// Value or, if that is a map, holds it.
type Match struct {
	Field any
	Value any
}

// Row is a row type: a pointer to a struct with ovsdb tags and a UUID.
type Row interface {
	Table() string
	model.CloneableModel
}

// Config says what to connect to and what to watch.
type Config struct {
	Remote   func() (Remote, error) // asked before every try
	OnDemand bool                   // nothing happens before Start
	Database string                 // such as Open_vSwitch
	Tables   []Table
	Log      *slog.Logger

	// Changed is told of every change of a cached row: old is nil for a new
	// one, new for a deleted one. It must be quick and must not call the DB.
	Changed func(old, new Row)
	// Synced is told when a connection's cache is complete.
	Synced func()
}

// Remote says where a database is.
type Remote struct {
	// Endpoints are unix:/path, tcp:host:port or ssl:host:port. More than one are
	// the members of a cluster (ovsdb(7)), of which only the leader is used: what
	// the others know may be old.
	Endpoints []string
	TLS       *tls.Config // for ssl:
}

// At is a Remote of one place that never changes.
func At(endpoint string) func() (Remote, error) {
	return func() (Remote, error) { return Remote{Endpoints: []string{endpoint}}, nil }
}

// DB is the connection. All methods may be called at any time by anybody.
type DB struct {
	cfg   Config
	start time.Time
	queue chan []*group

	wanted  chan struct{} // closed when the connection is wanted
	want    func()
	stopped chan struct{} // closed when Run has ended

	transactions atomic.Uint64

	mu      sync.Mutex // guards the following
	conn    *conn      // nil while not connected
	seen    bool       // was connected once
	since   time.Time  // of being connected, or of not being
	lastErr error
	place   string        // the endpoint or endpoints last tried
	changed chan struct{} // closed and replaced at every change
}

// conn is one client with its cache. It is never used again once lost.
type conn struct {
	client   client.Client
	cache    *cache.TableCache
	schema   ovsdb.DatabaseSchema
	endpoint string
	doubt    string // why it may not answer
}

// New makes a DB. Nothing happens before Run.
func New(cfg Config) (*DB, error) {
	if _, err := modelOf(cfg.Database, cfg.Tables); err != nil {
		return nil, err
	}
	now := time.Now()
	db := &DB{
		cfg: cfg, start: now, since: now,
		queue:   make(chan []*group, 1024),
		wanted:  make(chan struct{}),
		stopped: make(chan struct{}),
		changed: make(chan struct{}),
	}
	if r, err := cfg.Remote(); err == nil {
		db.place = strings.Join(r.Endpoints, ",")
	}
	db.want = sync.OnceFunc(func() { close(db.wanted) })
	if !cfg.OnDemand {
		db.want()
	}
	return db, nil
}

func modelOf(database string, tables []Table) (model.ClientDBModel, error) {
	types := make(map[string]model.Model, len(tables))
	for _, t := range tables {
		types[t.Row.Table()] = t.Row
	}
	m, err := model.NewClientDBModel(database, types)
	if err != nil {
		return m, fmt.Errorf("row types of %s: %w", database, err)
	}
	return m, nil
}

// Start has a database that is connected on demand connected from now on. Twice
// is harmless.
func (db *DB) Start() { db.want() }

// Run keeps the connection until ctx ends. It is called once.
func (db *DB) Run(ctx context.Context) error {
	defer close(db.stopped)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { db.runCommits(ctx) })
	select {
	case <-ctx.Done():
		return nil
	case <-db.wanted:
	}
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-retry.C:
		}
		db.connectOnce(ctx)
		retry.Reset(retryAfter)
	}
}

// connectOnce tries each endpoint, and returns when none will do, when the
// connection is lost, or when ctx ends.
func (db *DB) connectOnce(ctx context.Context) {
	r, err := db.cfg.Remote()
	if err == nil && len(r.Endpoints) == 0 {
		err = errors.New("no endpoint is given")
	}
	db.mu.Lock()
	db.place = strings.Join(r.Endpoints, ",")
	db.mu.Unlock()
	if err != nil {
		db.setConn(nil, err)
		return
	}
	var faults []error
	for _, endpoint := range r.Endpoints {
		used, err := db.use(ctx, endpoint, r)
		if used || ctx.Err() != nil {
			return
		}
		if strings.HasPrefix(endpoint, "ssl:") {
			err = refusal(err)
		}
		if len(r.Endpoints) > 1 {
			err = fmt.Errorf("%s: %w", endpoint, err)
		}
		faults = append(faults, err)
	}
	db.setConn(nil, joined(faults))
}

// refusal explains what is seen of a server that does not take our certificate: since
// TLS 1.3 it may only close the connection, when all seemed well.
func refusal(err error) error {
	text := err.Error()
	for _, end := range []string{"broken pipe", "connection reset", "EOF", "closed the connection", "lost at once", "remote error: tls"} {
		if strings.Contains(text, end) {
			return fmt.Errorf("the server ended the connection, as it does when the certificate is not of its CA: %w", err)
		}
	}
	return err
}

// joined is errors.Join in one line.
func joined(faults []error) error {
	if len(faults) == 1 {
		return faults[0]
	}
	texts := make([]string, len(faults))
	for i, err := range faults {
		texts[i] = err.Error()
	}
	return errors.New(strings.Join(texts, "; "))
}

// use connects to one endpoint and, if that works, serves until the connection
// is lost.
func (db *DB) use(ctx context.Context, endpoint string, r Remote) (used bool, err error) {
	quiet := logr.Discard()
	options := []client.Option{client.WithEndpoint(endpoint), client.WithLogger(&quiet), client.WithTLSConfig(r.TLS)}
	tables, err := db.tablesAt(ctx, endpoint, r)
	if err != nil {
		return false, err
	}
	m, err := modelOf(db.cfg.Database, tables)
	if err != nil {
		return false, err
	}
	c, err := client.NewOVSDBClient(m, options...)
	if err != nil {
		return false, err
	}
	// The library drops the notice if nobody listens at that moment.
	lost := make(chan struct{})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(lost)
		select {
		case <-c.DisconnectNotify():
		case <-stop:
		}
	})
	defer wg.Wait()
	defer close(stop)
	defer c.Close()

	leading := alwaysLeading
	if len(r.Endpoints) > 1 {
		l, err := db.askLeader(ctx, options)
		if err != nil {
			return false, err
		}
		defer l.close()
		leading = l.leading
	}
	if err := leading(); err != nil {
		return false, err
	}
	cn, err := db.dial(ctx, c, tables)
	if err != nil {
		return false, err
	}
	cn.endpoint = endpoint
	if len(r.Endpoints) > 1 {
		cn.doubt = ": has its cluster lost its majority?"
	}
	db.setConn(cn, nil)
	db.cfg.Log.Info("connected", "database", db.cfg.Database, "endpoint", endpoint)
	if db.cfg.Synced != nil {
		db.cfg.Synced()
	}
	err = db.watch(ctx, c, lost, leading)
	db.drop(cn, err)
	if ctx.Err() == nil {
		db.cfg.Log.Warn("connection lost", "database", db.cfg.Database, "endpoint", endpoint, "err", err)
	}
	return true, nil
}

// tablesAt are those to keep of what a server has. The library refuses one that lacks
// any of a model, so the schema is asked for first where that may be.
func (db *DB) tablesAt(ctx context.Context, endpoint string, r Remote) ([]Table, error) {
	if !slices.ContainsFunc(db.cfg.Tables, func(t Table) bool { return t.Optional }) {
		return db.cfg.Tables, nil
	}
	s, err := visit(ctx, r, db.cfg.Database, endpoint)
	if err != nil {
		return nil, err
	}
	defer s.client.Close()
	return slices.DeleteFunc(slices.Clone(db.cfg.Tables), func(t Table) bool { return t.Optional && !s.Has(t.Row.Table()) }), nil
}

// dial connects and fills the cache, by one Monitor call for all tables: with
// more, the library's caches of a client cannot be trusted.
func (db *DB) dial(ctx context.Context, c client.Client, kept []Table) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if err := c.Connect(ctx); err != nil {
		return nil, plain(err)
	}
	cn := &conn{client: c, cache: c.Cache(), schema: c.Schema()}
	if cn.cache == nil {
		return nil, errors.New("connection lost at once")
	}
	for _, t := range db.cfg.Tables {
		isKept := slices.ContainsFunc(kept, func(k Table) bool { return k.Row.Table() == t.Row.Table() })
		if t.Optional && isKept != hasColumns(cn.schema, t.Row.Table(), nil) {
			return nil, errors.New("the schema has changed at this moment")
		}
	}
	cn.cache.AddEventHandler(&cache.EventHandlerFuncs{
		AddFunc:    func(_ string, row model.Model) { db.note(nil, row) },
		UpdateFunc: func(_ string, old, row model.Model) { db.note(old, row) },
		DeleteFunc: func(_ string, old model.Model) { db.note(old, nil) },
	})
	var tables []client.MonitorOption
	for _, t := range kept {
		where := make([]model.Condition, len(t.Only))
		for i, m := range t.Only {
			where[i] = model.Condition{Field: m.Field, Function: includes, Value: m.Value}
		}
		tables = append(tables, client.WithConditionalTable(t.Row, where, t.Fields...))
	}
	if _, err := c.Monitor(ctx, c.NewMonitor(tables...)); err != nil {
		return nil, plain(err)
	}
	return cn, nil
}

// watch returns when the connection is lost, or no longer answers.
func (db *DB) watch(ctx context.Context, c client.Client, lost <-chan struct{}, leading func() error) error {
	check := time.NewTicker(watchEvery)
	defer check.Stop()
	echoed := time.Now()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-lost:
			return errors.New("the server closed the connection")
		case <-check.C:
			if c.CurrentEndpoint() == "" {
				return errors.New("the server closed the connection")
			}
			if err := leading(); err != nil {
				return err
			}
			if time.Since(echoed) < echoEvery {
				continue
			}
			echoed = time.Now()
			if err := db.echo(ctx, c); err != nil {
				return fmt.Errorf("the server does not answer: %w", err)
			}
		}
	}
}

func (db *DB) echo(ctx context.Context, c client.Client) error {
	ctx, cancel := context.WithTimeout(ctx, echoTimeout)
	defer cancel()
	return c.Echo(ctx)
}

// plain strips the library's wording from the errors a person sees most.
func plain(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

func (db *DB) setConn(c *conn, err error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if (c == nil) != (db.conn == nil) {
		db.since = time.Now()
	}
	db.conn = c
	db.seen = db.seen || c != nil
	if err != nil {
		db.lastErr = err
	}
	db.broadcastLocked()
}

// drop is setConn(nil, err), unless c was dropped already, for a better reason.
func (db *DB) drop(c *conn, err error) {
	db.mu.Lock()
	current := db.conn == c
	db.mu.Unlock()
	if current {
		db.setConn(nil, err)
	}
}

func (db *DB) note(old, row model.Model) {
	db.mu.Lock()
	db.broadcastLocked()
	db.mu.Unlock()
	if db.cfg.Changed == nil {
		return
	}
	o, _ := old.(Row)
	n, _ := row.(Row)
	db.cfg.Changed(o, n)
}

func (db *DB) broadcastLocked() {
	close(db.changed)
	db.changed = make(chan struct{})
}

// State tells whether the database is connected, since when, and if not, why.
func (db *DB) State() (connected bool, since time.Time, err error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.conn != nil {
		return true, db.since, nil
	}
	return false, db.since, db.unreachableLocked()
}

// Transactions is how many were sent so far.
func (db *DB) Transactions() uint64 { return db.transactions.Load() }

// Endpoint is where the database is or, if it is a cluster, where its members are;
// empty before the first try.
func (db *DB) Endpoint() string {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.place
}

func (db *DB) unreachableLocked() error {
	why := "not tried yet"
	if db.lastErr != nil {
		why = db.lastErr.Error()
	}
	name := strings.TrimSuffix(db.place, "/")
	if !db.seen {
		return fmt.Errorf("cannot reach database %s at %s: %s (never seen since the start, %s ago)",
			db.cfg.Database, name, why, time.Since(db.start).Round(time.Second))
	}
	return fmt.Errorf("cannot reach database %s at %s: %s (since %s)",
		db.cfg.Database, name, why, db.since.Format(time.TimeOnly))
}

// Budget is how long a call should wait for something of this database that it
// has not got yet: until the boot budget is used up while seen is false, and
// shortly after.
func (db *DB) Budget(seen bool) time.Duration {
	if left := time.Until(db.start.Add(BootBudget)); !seen && left > LostBudget {
		return min(left, CallBudget)
	}
	return LostBudget
}

// View returns the cache as it is now, or an error if there is no connection.
func (db *DB) View() (View, error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.conn == nil {
		return View{}, db.unreachableLocked()
	}
	return View{db.conn.cache, db.conn.schema}, nil
}

// Ready waits for the connection, as long as Budget allows.
func (db *DB) Ready(ctx context.Context) error {
	db.mu.Lock()
	seen := db.seen
	db.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, db.Budget(seen))
	defer cancel()
	return db.Wait(ctx, func(View) (bool, error) { return true, nil })
}

// Wait calls cond with the cache now and after every change, until it is done
// or fails, or ctx ends. While there is no connection it waits for one.
func (db *DB) Wait(ctx context.Context, cond func(View) (done bool, err error)) error {
	for {
		db.mu.Lock()
		changed := db.changed
		c := db.conn
		db.mu.Unlock()
		if c != nil {
			if done, err := cond(View{c.cache, c.schema}); done || err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			db.mu.Lock()
			defer db.mu.Unlock()
			if db.conn == nil {
				return db.unreachableLocked()
			}
			return ctx.Err()
		}
	}
}
