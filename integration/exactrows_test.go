//go:build linux

package integration

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/ovs-container-network/ovs-container-network/internal/control"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// ovsRow is a row of Open vSwitch's database as JSON has it (RFC 7047, 5.1).
type ovsRow map[string]any

func (r ovsRow) text(column string) string {
	s, _ := r[column].(string)
	return s
}

// ids are the external_ids.
func (r ovsRow) ids() map[string]string {
	ids := map[string]string{}
	for _, pair := range r.list("external_ids") {
		if kv, ok := pair.([]any); ok && len(kv) == 2 {
			ids[fmt.Sprint(kv[0])] = fmt.Sprint(kv[1])
		}
	}
	return ids
}

// list are the members of a set or a map.
func (r ovsRow) list(column string) []any {
	v, _ := r[column].([]any)
	if len(v) == 2 {
		if members, ok := v[1].([]any); ok {
			return members
		}
		return []any{r[column]} // a set of one is written as its member
	}
	if r[column] == nil {
		return nil
	}
	return []any{r[column]}
}

// uuids are the references in a column.
func (r ovsRow) uuids(column string) (ids []string) {
	for _, m := range r.list(column) {
		if pair, ok := m.([]any); ok && len(pair) == 2 {
			ids = append(ids, fmt.Sprint(pair[1]))
		}
	}
	return ids
}

// ovsRows reads bridges, ports and interfaces in one transaction.
func (h *host) ovsRows() (bridges, ports, interfaces []ovsRow, err error) {
	out, err := h.Run(h.ctx(), "timeout", "10", "ovsdb-client", "transact", "unix:/run/openvswitch/db.sock", `["Open_vSwitch",
{"op":"select","table":"Bridge","where":[],"columns":["name","ports","external_ids"]},
{"op":"select","table":"Port","where":[],"columns":["_uuid","name","tag","trunks","vlan_mode","external_ids"]},
{"op":"select","table":"Interface","where":[],"columns":["name","ofport","error","external_ids"]}]`)
	if err != nil {
		return nil, nil, nil, err
	}
	var answer []struct{ Rows []ovsRow }
	if err := json.Unmarshal([]byte(out), &answer); err != nil || len(answer) < 3 {
		return nil, nil, nil, fmt.Errorf("ovsdb-client answers %s: %w", out, err)
	}
	return answer[0].Rows, answer[1].Rows, answer[2].Rows, nil
}

// exactRows compares bridges, ports and interfaces that carry our mark.
func (h *host) exactRows(d *differences, known dockerView, s control.Status) error {
	bridges, ports, interfaces, err := h.ovsRows()
	if err != nil {
		return fmt.Errorf("read Open vSwitch's database: %w", err)
	}
	d.bridges(bridges, s)
	bridgeOf := map[string]string{}
	for _, b := range bridges {
		for _, id := range b.uuids("ports") {
			bridgeOf[id] = b.text("name")
		}
	}
	wanted := map[string]string{} // bridge by port
	vlans := map[string]string{}  // of ports, in words
	for _, n := range s.Networks {
		for _, e := range n.Ends {
			vlans[e.Port] = wantedVLANs(n, e)
		}
		for id := range known[string(n.ID)].ends {
			port, _ := network.EndpointID(id).Links()
			wanted[port] = n.Bridge
		}
	}
	_, odd := known.ports()
	have := map[string]bool{}
	for _, p := range ports {
		name := p.text("name")
		if p.ids()[network.KeyOwner] != network.Owner && !ourLink.MatchString(name) || odd[name] {
			continue
		}
		have[name] = true
		for _, id := range p.uuids("_uuid") {
			if want, ok := wanted[name]; ok && bridgeOf[id] != want {
				d.add("port %s is on bridge %q, want %s", name, bridgeOf[id], want)
			}
		}
		if got, want := vlansOf(p), vlans[name]; wanted[name] != "" && want != "" && got != want {
			d.add("port %s is %s, want %s", name, got, want)
		}
	}
	d.sets("port", have, names(wanted))
	d.interfaces(interfaces, names(wanted), odd)
	return h.exactTaps(d, interfaces)
}

// vlansOf are the mode, the tag and the trunks of a port.
func vlansOf(p ovsRow) string {
	trunks := make(network.VLANs, 0, len(p.list("trunks")))
	for _, tag := range p.list("trunks") {
		n, _ := tag.(float64)
		trunks = append(trunks, uint16(n))
	}
	slices.Sort(trunks)
	return fmt.Sprintf("%s %v %s", p.text("vlan_mode"), p.list("tag"), trunks)
}

// wantedVLANs are those by the driver's status, empty where they are not known.
func wantedVLANs(n network.Report, e network.EndpointReport) string {
	tag := strings.Replace(e.VLAN, "none", "0", 1)
	switch {
	case n.Switch != "" || e.Phase != network.PhaseJoined || e.Observer:
		return ""
	case e.Trunk == "":
		return "access [" + tag + "] "
	case tag == "0":
		return "trunk [] " + e.Trunk
	}
	return "native-untagged [" + tag + "] " + e.Trunk
}

// bridges compares the bridges that are marked as ours with those that a network
// owns.
func (d *differences) bridges(rows []ovsRow, s control.Status) {
	marked, all := map[string]bool{}, map[string]bool{}
	for _, b := range rows {
		all[b.text("name")] = true
		if b.ids()[network.KeyOwner] == network.Owner {
			marked[b.text("name")] = true
		}
	}
	owned := map[string]bool{}
	for _, n := range s.Networks {
		if !all[n.Bridge] {
			d.add("bridge of network %s is missing: %s", n.Name, n.Bridge)
		}
		if n.Owned {
			owned[n.Bridge] = true
		}
	}
	d.sets("bridge of ours", marked, owned)
}

func (d *differences) interfaces(rows []ovsRow, want, odd map[string]bool) {
	have := map[string]bool{}
	for _, i := range rows {
		name := i.text("name")
		if i.ids()[network.KeyOwner] != network.Owner && !ourLink.MatchString(name) || odd[name] {
			continue
		}
		have[name] = true
		if n, ok := i["ofport"].(float64); !ok || n <= 0 || i.text("error") != "" {
			d.add("interface %s has ofport %v and error %q", name, i["ofport"], i.text("error"))
		}
	}
	d.sets("interface", have, want)
}

// exactTaps finds devices of bridges that Open vSwitch has forgotten.
func (h *host) exactTaps(d *differences, interfaces []ovsRow) error {
	var links []struct{ Ifname string }
	out, err := h.Run(h.ctx(), "ip", "-j", "link", "show", "type", "tun")
	if out = strings.TrimSpace(out); err == nil && out != "" {
		err = json.Unmarshal([]byte(out), &links)
	}
	if err != nil {
		return fmt.Errorf("list taps: %w", err)
	}
	known := map[string]bool{}
	for _, i := range interfaces {
		known[i.text("name")] = true
	}
	for _, l := range links {
		if strings.HasPrefix(l.Ifname, "br-") && !known[l.Ifname] {
			d.add("device of a bridge that is gone: %s", l.Ifname)
		}
	}
	return nil
}
