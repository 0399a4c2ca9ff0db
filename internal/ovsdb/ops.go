package ovsdb

import "slices"

// What operations are made of (RFC 7047, section 5).

// ByUUID selects the row with that UUID.
func ByUUID(uuid string) []Condition {
	return []Condition{{Column: "_uuid", Function: "==", Value: UUID{GoUUID: uuid}}}
}

// ByName selects the rows with that name.
func ByName(name string) []Condition {
	return []Condition{{Column: "name", Function: "==", Value: name}}
}

// StringMap is the value of a column that maps texts to texts.
func StringMap(m map[string]string) Map {
	out := Map{GoMap: make(map[any]any, len(m))}
	for k, v := range m {
		out.GoMap[k] = v
	}
	return out
}

// Texts is a set of texts; without any the empty set.
func Texts(list ...string) Set {
	set := Set{GoSet: make([]any, 0, len(list))}
	for _, s := range list {
		set.GoSet = append(set.GoSet, s)
	}
	return set
}

// UUIDs is a set of references, also to rows that the same transaction inserts, by
// the names it gives them.
func UUIDs(ids ...string) Set {
	set := Set{GoSet: make([]any, 0, len(ids))}
	for _, id := range ids {
		set.GoSet = append(set.GoSet, UUID{GoUUID: id})
	}
	return set
}

// Is makes the transaction fail unless the one row that where selects has these
// values: what was decided from the cache holds when it is carried out.
func Is(table string, where []Condition, values Values) Operation {
	return wait("==", table, where, values)
}

// IsNot makes the transaction fail if a row that where selects has exactly these
// values. With the value that where asks for, it says that there is no such row.
func IsNot(table string, where []Condition, values Values) Operation {
	return wait("!=", table, where, values)
}

func wait(until, table string, where []Condition, values Values) Operation {
	now := 0
	columns := make([]string, 0, len(values))
	for c := range values {
		columns = append(columns, c)
	}
	slices.Sort(columns)
	return Operation{
		Op: "wait", Table: table, Timeout: &now, Where: where,
		Columns: columns, Until: until, Rows: []Values{values},
	}
}

// Insert adds a row, to which others of the transaction refer by name.
func Insert(table, name string, row Values) Operation {
	return Operation{Op: "insert", Table: table, UUIDName: name, Row: row}
}

// Mutate changes columns of the rows that where selects.
func Mutate(table string, where []Condition, ms ...Mutation) Operation {
	return Operation{Op: "mutate", Table: table, Where: where, Mutations: ms}
}

// SetIDs gives a row these external_ids and leaves its others alone. Inserting
// into a map does not replace a key (RFC 7047, section 5.1), so the keys are
// deleted first.
func SetIDs(table, uuid string, ids map[string]string) Operation {
	keys := make([]string, 0, len(ids))
	for k := range ids {
		keys = append(keys, k)
	}
	return Mutate(table, ByUUID(uuid),
		Mutation{Column: "external_ids", Mutator: "delete", Value: Texts(keys...)},
		Mutation{Column: "external_ids", Mutator: "insert", Value: StringMap(ids)})
}
