package ovsdb

import "github.com/ovn-kubernetes/libovsdb/cache"

// View reads one connection's cache. Rows it returns are shared: read only.
// After a connection is lost a View goes on showing what was known last.
type View struct{ cache *cache.TableCache }

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
