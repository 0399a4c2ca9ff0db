package ovn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovs"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// convert gives the northbound database another schema, as an upgrade of the central
// does.
func (r *rig) convert(change func(tables map[string]any)) {
	r.t.Helper()
	r.nb.kill()
	r.run("ovsdb-tool", "convert", r.nb.file, r.schema("ovn-nb", change))
	r.nb.start()
}

// mirrorTypes makes the schema one whose mirrors have these types.
func mirrorTypes(types ...any) func(tables map[string]any) {
	enum := func(values ...any) map[string]any {
		return map[string]any{"type": map[string]any{"key": map[string]any{"type": "string", "enum": []any{"set", values}}}}
	}
	return func(tables map[string]any) {
		columns := tables["Mirror"].(map[string]any)["columns"].(map[string]any)
		columns["type"], columns["filter"] = enum(types...), enum("from-lport", "to-lport", "both")
	}
}

func noMirrors(tables map[string]any) {
	delete(tables, "Mirror")
	delete(tables["Logical_Switch_Port"].(map[string]any)["columns"].(map[string]any), "mirror_rules")
}

// controller answers as ovn-controller does when it is asked for its version, until stop.
func (r *rig) controller(version string) (stop func()) {
	r.t.Helper()
	check(r.t, os.WriteFile(filepath.Join(r.dir, "ovn-controller.pid"), []byte("1\n"), 0o600))
	l, err := net.Listen("unix", filepath.Join(r.dir, "ovn-controller.1.ctl"))
	check(r.t, err)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			var asked struct{ Method string }
			if json.NewDecoder(c).Decode(&asked) == nil && asked.Method == "version" {
				json.NewEncoder(c).Encode(map[string]any{"id": 0, "result": "ovn-controller " + version + "\nOpen vSwitch Library 3.7.1\n", "error": nil}) //nolint:errcheck // the other end sees it
			}
			c.Close()
		}
	}()
	r.t.Cleanup(func() { l.Close() })
	return func() { l.Close() }
}

// northd writes its version as ovn-northd does.
func (r *rig) northd(version string) {
	r.t.Helper()
	r.transact(
		map[string]any{"op": "delete", "table": "NB_Global", "where": []any{}},
		map[string]any{"op": "insert", "table": "NB_Global", "row": map[string]any{"options": []any{"map", []any{[]any{"northd_internal_version", version}}}}},
	)
}

// transact changes or reads the northbound database as it is: an old ovn-nbctl does not
// know what it may hold.
func (r *rig) transact(ops ...map[string]any) (rows []map[string]any) {
	r.t.Helper()
	text, err := json.Marshal(append([]any{"OVN_Northbound"}, anys(ops)...))
	check(r.t, err)
	var results []struct {
		Rows           []map[string]any
		Error, Details string
	}
	check(r.t, json.Unmarshal([]byte(r.run("ovsdb-client", "transact", "unix:"+r.nb.sock, string(text))), &results))
	for _, res := range results {
		if res.Error != "" {
			r.t.Fatalf("%s: %s: %s", text, res.Error, res.Details)
		}
		rows = append(rows, res.Rows...)
	}
	return rows
}

func anys[T any](list []T) (all []any) {
	for _, v := range list {
		all = append(all, v)
	}
	return all
}

func (r *rig) rows(table string, columns ...string) []map[string]any {
	r.t.Helper()
	return r.transact(map[string]any{"op": "select", "table": table, "where": []any{}, "columns": append(columns, "_uuid")})
}

// mirrored are the mirrors with the ports that refer to them.
func (r *rig) mirrored() string {
	r.t.Helper()
	ports := r.rows("Logical_Switch_Port", "name", "mirror_rules")
	var lines []string
	for _, m := range r.rows("Mirror", "name", "type", "filter", "sink") {
		var refer []string
		for _, p := range ports {
			// A set of one is written as that one.
			if rules := fmt.Sprint(p["mirror_rules"]); strings.Contains(rules, fmt.Sprint(m["_uuid"].([]any)[1])) {
				refer = append(refer, p["name"].(string))
			}
		}
		slices.Sort(refer)
		lines = append(lines, fmt.Sprintf("%s %s %s to %s: %s", m["name"], m["type"], m["filter"], m["sink"], strings.Join(refer, " ")))
	}
	return sorted(lines)
}

// rule inserts or deletes a reference of a port to a mirror.
func (r *rig) rule(port, mutator, mirror string) {
	r.t.Helper()
	for _, m := range r.rows("Mirror", "name") {
		if m["name"] == mirror {
			r.transact(map[string]any{
				"op": "mutate", "table": "Logical_Switch_Port", "where": []any{[]any{"name", "==", port}}, "mutations": []any{[]any{"mirror_rules", mutator, m["_uuid"]}},
			})
		}
	}
}

func observer(number int, addr string) network.Endpoint {
	ep := endpoint(number, addr)
	ep.Observer = true
	return ep
}

func (r *rig) expectMirrored(lines ...string) {
	r.t.Helper()
	if got, want := r.mirrored(), strings.Join(lines, "\n"); got != want {
		r.t.Errorf("mirrors:\n%s\nwant\n%s", got, want)
	}
}

// An observer has a mirror to which the ports refer that it watches, those of its own
// host alone, and beside what others have them refer to.
func TestMirrors(t *testing.T) {
	r := newRig(t)
	r.convert(mirrorTypes("gre", "erspan", "local"))
	r.controller("23.06.0")
	r.northd("23.06.0-20.27.4-70.6")
	h1, h2 := r.host("h1"), r.host("h2")
	n := onSwitch("ls1")
	eye, two, three := observer(1, "10.1.0.5"), endpoint(2, "10.1.0.6"), endpoint(3, "10.1.0.7")
	check(t, r.publish(h1, n, two)) // before its observer
	r.transact(map[string]any{"op": "insert", "table": "Mirror", "row": map[string]any{"name": "theirs", "type": "gre", "filter": "to-lport", "index": 1, "sink": "192.0.2.9"}})
	r.rule("ocn000000000002", "insert", "theirs")
	theirs := func(ports string) string { return "theirs gre to-lport to 192.0.2.9: " + ports }
	check(t, r.publish(h1, n, eye, two))
	check(t, r.publish(h1, n, eye, two, three)) // and after
	check(t, r.publish(h2, n, observer(4, "10.1.0.8"), endpoint(5, "10.1.0.9")))
	mine := "ocn-net-ls1-ocn000000000001 local both to ocn000000000001: ocn000000000002 ocn000000000003"
	other := "ocn-net-ls1-ocn000000000004 local both to ocn000000000004: ocn000000000005"
	r.expectMirrored(mine, other, theirs("ocn000000000002"))
	if !h1.here(n).CopiedByOVN {
		t.Error("the fabric of bridges is not told")
	}
	for _, m := range r.rows("Mirror", "name", "external_ids") {
		ids := fmt.Sprint(m["external_ids"])
		for _, want := range []string{"[endpoint_id 000000000001]", "[host h1]", "[host_id id-of-h1]", "[network_id net-ls1]", "[owner ovs-container-network]"} {
			if m["name"] == "ocn-net-ls1-ocn000000000001" && !strings.Contains(ids, want) {
				t.Errorf("its external_ids are %s, want %s too", ids, want)
			}
		}
	}
	state := func() string {
		return fmt.Sprint(r.rows("Mirror", "_version"), r.rows("Logical_Switch_Port", "_version"))
	}
	before := state()
	check(t, r.publish(h1, n, eye, two, three))
	if after := state(); after != before {
		t.Errorf("the same again makes of\n%s\nthis:\n%s", before, after)
	}
	mirror := []any{[]any{"name", "==", "ocn-net-ls1-ocn000000000001"}}
	for what, damage := range map[string]func(){
		"mirror removed": func() { r.transact(map[string]any{"op": "delete", "table": "Mirror", "where": mirror}) },
		"mirror changed": func() {
			r.transact(map[string]any{"op": "update", "table": "Mirror", "where": mirror, "row": map[string]any{"filter": "to-lport", "sink": "x"}})
		},
		"rule removed": func() { r.rule("ocn000000000003", "delete", "ocn-net-ls1-ocn000000000001") },
		"rule added":   func() { r.rule("ocn000000000005", "insert", "ocn-net-ls1-ocn000000000001") },
	} {
		damage()
		eventually(t, what+" is put right", func() bool {
			check(t, r.publish(h1, n, eye, two, three))
			return r.mirrored() == strings.Join([]string{mine, other, theirs("ocn000000000002")}, "\n")
		})
	}

	// What is wrong with a mirror is the observer's fault alone.
	r.transact(map[string]any{"op": "mutate", "table": "Mirror", "where": mirror, "mutations": []any{[]any{"external_ids", "delete", []any{"set", []any{"owner"}}}}})
	r.sees(h1, "its mirror is no longer marked", func(v ovsdb.View) bool { return len(mirrorsOf(v, n.ID)) == 0 })
	var partial *network.ApplyError
	if err := r.publish(h1, n, eye, two, three, endpoint(6, "10.1.0.10")); !errors.As(err, &partial) || len(partial.Endpoints) != 1 || partial.Endpoints[eye.ID] == nil {
		t.Errorf("with the mirror's name taken: %v", err)
	}
	if !strings.Contains(r.has(), "switch_port ocn000000000006") {
		t.Errorf("the container has no port: %s", r.has())
	}
	if h1.here(n).CopiedByOVN {
		t.Error("the fabric of bridges is to make no mirror, and nobody else makes one")
	}
	gone := endpoint(6, "10.1.0.10")
	gone.Phase = network.PhaseDeleting
	r.transact(map[string]any{"op": "delete", "table": "Mirror", "where": mirror})
	check(t, r.publish(h1, n, eye, two, three, gone))

	// An observer whose record cannot be read keeps its mirror.
	check(t, r.publish(h1, n, two, three))
	r.expectMirrored(mine, other, theirs("ocn000000000002"))

	// Named containers, one direction.
	n.Config.Mirror = &network.Mirror{Containers: []string{"c3"}, Direction: network.DirectionIn}
	check(t, r.publish(h1, n, eye, two, three))
	r.expectMirrored("ocn-net-ls1-ocn000000000001 local to-lport to ocn000000000001: ocn000000000003", other, theirs("ocn000000000002"))
	three.ContainerName, n.Config.Mirror.Direction = "renamed", network.DirectionOut
	check(t, r.publish(h1, n, eye, two, three))
	r.expectMirrored("ocn-net-ls1-ocn000000000001 local from-lport to ocn000000000001: ", other, theirs("ocn000000000002"))

	eye.Phase = network.PhaseDeleting
	check(t, r.publish(h1, n, eye, two, three))
	r.expectMirrored(other, theirs("ocn000000000002"))
	if got, want := r.has(), "switch ls1, switch_port ocn000000000002, switch_port ocn000000000003, switch_port ocn000000000005"; got != want {
		t.Errorf("the database has %s, want %s", got, want)
	}
}

// OVN copies where the central and this host both know how, and what was made for it goes
// when one of them no longer does. Who does not answer has not changed.
func TestMirrorsChosen(t *testing.T) {
	r := newRig(t)
	r.convert(noMirrors)
	stop := r.controller("26.03.1")
	r.northd("22.03.2-20.21.0-58.3")
	h := r.host("h1")
	n, eye, two := onSwitch("ls1"), observer(1, "10.1.0.5"), endpoint(2, "10.1.0.6")
	chosen := func(f *Fabric, what string, want bool) {
		t.Helper()
		eventually(t, what+" is reached", func() bool { _, err := f.nb.View(); return err == nil })
		check(t, r.publish(f, n, eye, two))
		if got := f.here(n).CopiedByOVN; got != want {
			t.Errorf("%s: OVN copies: %v, want %v", what, got, want)
		}
	}
	reconnect := func(what string, change func(map[string]any)) {
		t.Helper()
		r.convert(change)
		eventually(t, what+" is reached", func() bool {
			v, err := h.nb.View()
			return err == nil && v.Has("Mirror") == (what != "no table") && v.Allows("Mirror", "type", "local") == (what == "type local")
		})
	}
	chosen(h, "no table", false)
	reconnect("no type local", mirrorTypes("gre", "erspan"))
	chosen(h, "no type local", false)
	reconnect("type local", mirrorTypes("gre", "erspan", "local"))
	chosen(h, "old ovn-northd", false)
	r.northd("26.03.0-21.6.0-87.0")
	chosen(h, "type local", true)
	made := "ocn-net-ls1-ocn000000000001 local both to ocn000000000001: ocn000000000002"
	r.expectMirrored(made)
	stop()
	chosen(h, "ovn-controller that does not answer", true)
	h.mirrors.Store(false) // as after a start
	chosen(h, "what an earlier life has made", true)
	r.expectMirrored(made)
	stop = r.controller("23.03.1")
	chosen(h, "old ovn-controller", false)
	r.expectMirrored()
	stop()
	stop = r.controller("23.06.2")
	chosen(h, "new ovn-controller", true)
	r.expectMirrored(made)
	stop()
}

// Mirrors of endpoints that nobody knows are removed, and those of a host that is gone.
func TestMirrorsLeft(t *testing.T) {
	r := newRig(t)
	r.convert(mirrorTypes("local"))
	r.controller("26.03.1")
	r.northd("26.03.0-21.6.0-87.0")
	s := newSouth(r, nil)
	h1, h2 := r.host("h1", s.remote()), r.host("h2", s.remote())
	n := onSwitch("ls1")
	check(t, r.publish(h1, n, observer(1, "10.1.0.5")))
	check(t, r.publish(h2, n, observer(2, "10.1.0.6")))
	nobody := func(network.ID, network.EndpointID) bool { return false }
	found, err := h1.leftovers([]network.Network{n.WithEndpoint(observer(1, "10.1.0.5"))}, nobody)
	check(t, err)
	if len(found) > 0 {
		t.Errorf("of what is known %s is left over", kinds(found))
	}
	found, err = h1.leftovers([]network.Network{n}, nobody)
	check(t, err)
	removed := 0
	for _, l := range found {
		if l.Kind == "logical mirror" {
			check(t, l.Remove(t.Context()))
			removed++
		}
	}
	second := "ocn-net-ls1-ocn000000000002 local both to ocn000000000002: "
	r.expectMirrored(second)
	found, err = h1.Retire(t.Context(), "h2", true)
	check(t, err)
	if got := kinds(found); removed != 1 || !strings.HasPrefix(got, "logical mirror ocn-net-ls1-ocn000000000002, ") {
		t.Errorf("%d mirrors removed; of the other host %s", removed, got)
	}
	check(t, found[0].Remove(t.Context()))
	r.expectMirrored()
}

// A change of a mirror of this host wakes its network.
func TestMirrorsWatched(t *testing.T) {
	var woken []network.ID
	f := &Fabric{dirty: func(ids ...network.ID) { woken = append(woken, ids...) }}
	f.rowChanged(&mirror{ExternalIDs: map[string]string{network.KeyNetworkID: "n1"}}, nil)
	if !slices.Equal(woken, []network.ID{"n1"}) {
		t.Errorf("woken: %v", woken)
	}
}

func TestKnowsLocal(t *testing.T) {
	for version, want := range map[string]bool{"23.03.1": false, "23.06.0": true, "22.12": false, "26.03.1": true, "24.03.2": true, "": false, "x": false} {
		if got := knowsLocal(version); got != want {
			t.Errorf("ovn-controller %q: %v", version, got)
		}
	}
}

// A start that OVN is too late for says which mirror is missing, or that it is the port.
func TestLate(t *testing.T) {
	f := newRig(t).host("h1")
	for _, c := range []struct {
		err  error
		says string
	}{
		{&ovs.UncopiedError{Mirror: "ocn-n1-eye", Err: context.DeadlineExceeded}, "ovn-controller has not made mirror ocn-n1-eye within 20s: "},
		{context.DeadlineExceeded, "OVN has not installed the port within 20s: "},
	} {
		if got := f.late(t.Context(), c.err); !strings.HasPrefix(got.Error(), c.says) {
			t.Errorf("%v: it says %v, want %s…", c.err, got, c.says)
		}
	}
}
