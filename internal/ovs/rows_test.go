package ovs

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// row is a row as the server has it.
type row map[string]any

func (w row) uuid() string { return w["_uuid"].([]any)[1].(string) }

func (w row) name() string { return fmt.Sprint(w["name"]) }

// ids are the external_ids.
func (w row) ids() map[string]string {
	ids := map[string]string{}
	for _, pair := range w["external_ids"].([]any)[1].([]any) {
		p := pair.([]any)
		ids[p[0].(string)] = p[1].(string)
	}
	return ids
}

// set returns the elements of a column that holds a set, in words.
func (w row) set(column string) (elements []string) {
	v, isList := w[column].([]any)
	switch {
	case !isList:
		return []string{fmt.Sprint(w[column])}
	case v[0] == "uuid":
		return []string{v[1].(string)}
	}
	for _, e := range v[1].([]any) {
		if u, ok := e.([]any); ok {
			e = u[1]
		}
		elements = append(elements, fmt.Sprint(e))
	}
	return elements
}

// tableNames are the tables in which others may have rows that this driver must
// not touch.
var tableNames = []string{"Open_vSwitch", "Bridge", "Port", "Interface", "Mirror", "QoS", "Queue", "Controller", "Manager"}

// rows asks the server, past the fabric, for all rows.
func (r *rig) rows() map[string][]row {
	r.t.Helper()
	query := []any{"Open_vSwitch"}
	for _, t := range tableNames {
		query = append(query, map[string]any{"op": "select", "table": t, "where": []any{}})
	}
	text, err := json.Marshal(query)
	check(r.t, err)
	var results []struct{ Rows []row }
	check(r.t, json.Unmarshal([]byte(r.run("ovsdb-client", "--timeout=20", "transact", "unix:"+r.sock, string(text))), &results))
	rows := make(map[string][]row)
	for i, t := range tableNames {
		rows[t] = results[i].Rows
	}
	return rows
}

// volatile are the columns in which Open vSwitch itself says what it sees.
var volatile = strings.Fields(`_version bridges cur_cfg next_cfg statistics status rstp_status rstp_statistics
	datapath_id datapath_version datapath_types iface_types ovs_version db_version dpdk_initialized dpdk_version
	admin_state link_state link_resets link_speed duplex mac_in_use mtu ifindex ofport error
	lacp_current cfm_fault cfm_fault_status cfm_flap_count cfm_health cfm_mpid cfm_remote_mpids cfm_remote_opstate bfd_status`)

// foreignRows are all rows that this driver did not make, as text. Of a bridge
// only the ports of others count.
func (r *rig) foreignRows() map[string]string {
	r.t.Helper()
	rows := r.rows()
	own := make(map[string]bool) // by name: bridges of ours, whose own port carries no mark
	mine := make(map[string]bool)
	for _, b := range rows["Bridge"] {
		own[b.name()] = b.ids()[network.KeyOwner] == network.Owner || b.ids()[keyRestored] == network.Owner
	}
	for _, p := range rows["Port"] {
		mine[p.uuid()] = p.ids()[network.KeyOwner] == network.Owner
	}
	for _, m := range rows["Mirror"] {
		mine[m.uuid()] = m.ids()[network.KeyOwner] == network.Owner
	}
	foreign := make(map[string]string)
	for table, list := range rows {
		for _, w := range list {
			if table != "Queue" && table != "QoS" && table != "Manager" && (w.ids()[network.KeyOwner] == network.Owner || own[w.name()]) {
				continue
			}
			var text []string
			for _, column := range slices.Sorted(maps.Keys(w)) {
				if slices.Contains(volatile, column) {
					continue
				}
				v := fmt.Sprint(w[column])
				if column == "mirrors" {
					v = fmt.Sprint(slices.DeleteFunc(w.set(column), func(uuid string) bool { return mine[uuid] }))
				}
				if column == "ports" {
					ports := slices.DeleteFunc(w.set(column), func(uuid string) bool { return mine[uuid] })
					slices.Sort(ports)
					v = fmt.Sprint(ports)
				}
				text = append(text, column+"="+v)
			}
			foreign[table+" "+w.uuid()] = strings.Join(text, "\n")
		}
	}
	return foreign
}

// guard notes the rows of others. When the test ends they must all be there, as
// they are now. A test that changes such rows by hand calls it again.
func (r *rig) guard() {
	r.t.Helper()
	if r.foreign == nil {
		r.t.Cleanup(func() {
			after := r.foreignRows()
			for key, text := range r.foreign {
				if diff := cmp.Diff(text, after[key]); diff != "" {
					r.t.Errorf("row of others changed: %s: %s", key, diff)
				}
			}
		})
	}
	r.foreign = r.foreignRows()
}

// text shows the bridges but foreign0 and br-probe with the ports that carry our mark, for
// golden comparisons. What the kernel or chance decides is left out.
func (r *rig) text() string {
	r.t.Helper()
	rows := r.rows()
	byUUID := make(map[string]row)
	for _, list := range rows {
		for _, w := range list {
			byUUID[w.uuid()] = w
		}
	}
	var out strings.Builder
	for _, b := range sorted(rows["Bridge"]) {
		if b.name() == "foreign0" || b.name() == "br-probe" {
			continue
		}
		fmt.Fprintf(&out, "bridge %s %s\n", b.name(), idText(b))
		var ports []row
		for _, uuid := range b.set("ports") {
			ports = append(ports, byUUID[uuid])
		}
		for _, p := range sorted(ports) {
			if p.name() == b.name() {
				continue
			}
			fmt.Fprintf(&out, "  port %s tag %v mode %v trunks %v %s\n", p.name(), p["tag"], p["vlan_mode"], p.set("trunks"), idText(p))
			for _, uuid := range p.set("interfaces") {
				i := byUUID[uuid]
				fmt.Fprintf(&out, "    interface %s type %q %s\n", i.name(), i["type"], idText(i))
			}
		}
	}
	return out.String()
}

func sorted(rows []row) []row {
	return slices.SortedFunc(slices.Values(rows), func(a, b row) int { return strings.Compare(a.name(), b.name()) })
}

func idText(w row) string {
	ids := w.ids()
	var pairs []string
	for _, k := range slices.Sorted(maps.Keys(ids)) {
		pairs = append(pairs, k+"="+ids[k])
	}
	return strings.Join(pairs, " ")
}
