package ovsdb

import (
	"context"
	"errors"

	"github.com/ovn-kubernetes/libovsdb/cache"
	"github.com/ovn-kubernetes/libovsdb/client"
	"github.com/ovn-kubernetes/libovsdb/model"
	"github.com/ovn-kubernetes/libovsdb/ovsdb"
)

const includes = ovsdb.ConditionIncludes

// serverRow is a row of the table Database in the database _Server, by which a
// server tells what it has (ovsdb-server(7)).
type serverRow struct {
	UUID      string `ovsdb:"_uuid"`
	Name      string `ovsdb:"name"`
	Model     string `ovsdb:"model"` // standalone, clustered, relay
	Connected bool   `ovsdb:"connected"`
	Leader    bool   `ovsdb:"leader"`
}

func (*serverRow) Table() string                  { return "Database" }
func (r *serverRow) CloneModel() model.Model      { c := *r; return &c }
func (r *serverRow) CloneModelInto(m model.Model) { *m.(*serverRow) = *r }

// leader follows whether a member of a cluster leads it, over a connection of its
// own: the library's way of doing so leaves a goroutine behind at every
// reconnect.
type leader struct {
	client   client.Client
	cache    *cache.TableCache
	database string
}

func alwaysLeading() error { return nil }

var errNotLeading = errors.New("this member of the cluster does not lead it")

// askLeader starts to follow the member that options name.
func (db *DB) askLeader(ctx context.Context, options []client.Option) (*leader, error) {
	m, err := model.NewClientDBModel("_Server", map[string]model.Model{"Database": &serverRow{}})
	if err != nil {
		return nil, err
	}
	c, err := client.NewOVSDBClient(m, options...)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, memberTimeout)
	defer cancel()
	if err := c.Connect(ctx); err != nil {
		c.Close()
		return nil, plain(err)
	}
	l := &leader{client: c, cache: c.Cache(), database: db.cfg.Database}
	monitor := c.NewMonitor(client.WithTable(&serverRow{}))
	monitor.Method = ovsdb.ConditionalMonitorRPC // _Server has no history
	if _, err := c.Monitor(ctx, monitor); err != nil {
		c.Close()
		return nil, plain(err)
	}
	return l, nil
}

// leading returns nil while the member leads, as far as it says.
func (l *leader) leading() error {
	if l.cache == nil {
		return errors.New("connection lost at once")
	}
	for _, r := range All[*serverRow](View{cache: l.cache}) {
		switch {
		case r.Name != l.database:
		case !r.Connected && r.Model != "standalone":
			return errors.New("this member of the cluster has lost the others")
		case r.Model == "clustered" && !r.Leader:
			return errNotLeading
		}
	}
	return nil
}

func (l *leader) close() { l.client.Close() }
