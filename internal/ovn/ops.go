package ovn

import (
	"slices"

	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

func uuidIs(uuid string) []ovsdb.Condition {
	return []ovsdb.Condition{{Column: "_uuid", Function: "==", Value: ovsdb.UUID{GoUUID: uuid}}}
}

func nameIs(name string) []ovsdb.Condition {
	return []ovsdb.Condition{{Column: "name", Function: "==", Value: name}}
}

func stringMap(m map[string]string) ovsdb.Map {
	out := ovsdb.Map{GoMap: make(map[any]any, len(m))}
	for k, v := range m {
		out.GoMap[k] = v
	}
	return out
}

func texts(list ...string) ovsdb.Set {
	set := ovsdb.Set{GoSet: make([]any, 0, len(list))}
	for _, s := range list {
		set.GoSet = append(set.GoSet, s)
	}
	return set
}

func uuids(ids ...string) ovsdb.Set {
	set := ovsdb.Set{GoSet: make([]any, 0, len(ids))}
	for _, id := range ids {
		set.GoSet = append(set.GoSet, ovsdb.UUID{GoUUID: id})
	}
	return set
}

// is makes the transaction fail unless the one row that where selects has these
// values.
func is(table string, where []ovsdb.Condition, values ovsdb.Values) ovsdb.Operation {
	return wait("==", table, where, values)
}

// isNot makes the transaction fail if a row that where selects has exactly these
// values. With the value that where asks for, it says that there is no such row.
func isNot(table string, where []ovsdb.Condition, values ovsdb.Values) ovsdb.Operation {
	return wait("!=", table, where, values)
}

func wait(until, table string, where []ovsdb.Condition, values ovsdb.Values) ovsdb.Operation {
	now := 0
	columns := make([]string, 0, len(values))
	for c := range values {
		columns = append(columns, c)
	}
	slices.Sort(columns)
	return ovsdb.Operation{
		Op: "wait", Table: table, Timeout: &now, Where: where,
		Columns: columns, Until: until, Rows: []ovsdb.Values{values},
	}
}

func insert(table, name string, row ovsdb.Values) ovsdb.Operation {
	return ovsdb.Operation{Op: "insert", Table: table, UUIDName: name, Row: row}
}

func mutate(table string, where []ovsdb.Condition, ms ...ovsdb.Mutation) ovsdb.Operation {
	return ovsdb.Operation{Op: "mutate", Table: table, Where: where, Mutations: ms}
}

// setIDs gives a row these external_ids and leaves its others alone. Inserting
// into a map does not replace a key (RFC 7047, section 5.1), so the keys are
// deleted first.
func setIDs(table, uuid string, ids map[string]string) ovsdb.Operation {
	keys := ovsdb.Set{GoSet: make([]any, 0, len(ids))}
	for k := range ids {
		keys.GoSet = append(keys.GoSet, k)
	}
	return mutate(table, uuidIs(uuid),
		ovsdb.Mutation{Column: "external_ids", Mutator: "delete", Value: keys},
		ovsdb.Mutation{Column: "external_ids", Mutator: "insert", Value: stringMap(ids)})
}

// holds tells whether have holds every pair of want.
func holds(have, want map[string]string) bool {
	for k, v := range want {
		if got, ok := have[k]; !ok || got != v {
			return false
		}
	}
	return true
}
