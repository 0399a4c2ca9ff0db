package ovsdb

import "github.com/ovn-kubernetes/libovsdb/ovsdb"

// rename returns op with prefix before every named UUID it defines or uses, in
// the places where this project uses them: uuid-name, and sets in rows, conditions
// and mutations.
func rename(op Operation, prefix string) Operation {
	if op.UUIDName != "" {
		op.UUIDName = prefix + op.UUIDName
	}
	if op.Row != nil {
		row := make(Values, len(op.Row))
		for k, v := range op.Row {
			row[k] = renameValue(v, prefix)
		}
		op.Row = row
	}
	if op.Where != nil {
		where := make([]Condition, len(op.Where))
		for i, c := range op.Where {
			c.Value = renameValue(c.Value, prefix)
			where[i] = c
		}
		op.Where = where
	}
	if op.Mutations != nil {
		ms := make([]Mutation, len(op.Mutations))
		for i, m := range op.Mutations {
			m.Value = renameValue(m.Value, prefix)
			ms[i] = m
		}
		op.Mutations = ms
	}
	return op
}

func renameValue(v any, prefix string) any {
	switch v := v.(type) {
	case UUID:
		if !ovsdb.IsValidUUID(v.GoUUID) {
			v.GoUUID = prefix + v.GoUUID
		}
		return v
	case Set:
		set := make([]any, len(v.GoSet))
		for i, e := range v.GoSet {
			set[i] = renameValue(e, prefix)
		}
		return Set{GoSet: set}
	}
	return v
}
