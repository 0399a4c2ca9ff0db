package ovsdb

import (
	"slices"

	"github.com/ovn-kubernetes/libovsdb/cache"
	"github.com/ovn-kubernetes/libovsdb/ovsdb"
)

// View reads one connection's cache. Rows it returns are shared: read only.
// After a connection is lost a View goes on showing what was known last.
type View struct {
	cache  *cache.TableCache
	schema ovsdb.DatabaseSchema
}

// Has tells whether the database has a table with these columns: older versions
// have fewer.
func (v View) Has(table string, columns ...string) bool { return hasColumns(v.schema, table, columns) }

// Allows tells whether a column takes a value that not all versions have in its enum.
func (v View) Allows(table, column, value string) bool {
	t := v.schema.Table(table)
	if t == nil {
		return false
	}
	c := t.Column(column)
	return c != nil && c.TypeObj != nil && c.TypeObj.Key != nil && slices.Contains(c.TypeObj.Key.Enum, any(value))
}

func hasColumns(schema ovsdb.DatabaseSchema, table string, columns []string) bool {
	t := schema.Table(table)
	for _, c := range columns {
		if t == nil || t.Column(c) == nil {
			return false
		}
	}
	return t != nil
}

// Find returns the row that key names, by its UUID or by a column that the
// schema has a unique index on.
func Find[T Row](v View, key T) (row T, ok bool) {
	t := v.cache.Table(key.Table())
	if t == nil {
		return row, false
	}
	_, m, err := t.RowByModel(key)
	if err != nil || m == nil {
		return row, false
	}
	row, ok = m.(T)
	return row, ok
}

// All returns the rows of T's table by UUID.
func All[T Row](v View) map[string]T {
	var key T
	t := v.cache.Table(key.Table())
	if t == nil {
		return nil
	}
	shared := t.RowsShallow()
	rows := make(map[string]T, len(shared))
	for uuid, m := range shared {
		if row, ok := m.(T); ok {
			rows[uuid] = row
		}
	}
	return rows
}
