//go:build linux

package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// Every network option and every option of one attachment does what it says:
// vlan and mtu on the port and on the wire, tenant_id and external_ids in the
// rows, and so do the container's id and name, however it came to the network.
func TestNetworkOptions(t *testing.T) {
	everywhere(t, func(t *testing.T, h *host) {
		h.network("db", "-o", "bridge=br-db", "-o", "vlan=321", "-o", "mtu=1400", "-o", "tenant_id=Acme & Sons",
			"-o", "external_ids=site=Berlin,rack=7", "-o", "gateway_mode=none", "--subnet", "10.20.0.0/24")
		h.network("plain", "--subnet", "10.21.0.0/24")

		h.container("aa", "db")
		h.container("bb", "name=db,driver-opt=vlan=99,driver-opt=mtu=1300,driver-opt=external_ids=role=front")
		h.container("cc", "plain")
		h.docker("network", "connect", "--driver-opt", "vlan=99", "--driver-opt", "mtu=1300",
			"--driver-opt", `"external_ids=role=Back,rack=8"`, "db", "cc")
		h.docker("create", "--name", "dd", "--network", "plain", "lab")
		h.docker("network", "connect", "db", "dd")
		h.docker("start", "dd")

		site := map[string]string{"tenant_id": "Acme & Sons", "site": "Berlin", "rack": "7"}
		h.expectPort("aa", "db", 321, 1400, site)
		h.expectPort("bb", "db", 99, 1300, site, map[string]string{"role": "front"})
		h.expectPort("cc", "db", 99, 1300, site, map[string]string{"role": "Back", "rack": "8"})
		h.expectPort("dd", "db", 321, 1400, site)
		h.expectPort("cc", "plain", h.vlanOf("plain"), 1500)
		h.expectPort("dd", "plain", h.vlanOf("plain"), 1500)
		if v := h.vlanOf("plain"); v == 0 {
			t.Error("without vlan the network has no VLAN")
		}
		if opts := h.docker("network", "inspect", "-f", "{{.Options.vlan}} {{.Options.tenant_id}}", "db"); opts != "321 Acme & Sons" {
			t.Errorf("docker network inspect shows the options %q", opts)
		}
		for _, on := range []struct{ bridge, container, network string }{
			{"br-db", "aa", "db"}, {"br-db", "cc", "db"}, {"br-int", "cc", "plain"},
		} {
			if b := h.ovs("port-to-br", h.portOf(on.container, on.network)); b != on.bridge {
				t.Errorf("%s is attached to %s, not to %s", on.container, b, on.bridge)
			}
		}

		h.ping("aa", h.address("dd", "db"))
		h.ping("bb", h.address("cc", "db"))
		h.noPing("aa", h.address("bb", "db"))
		// What fits goes through in one piece, what does not is refused.
		h.in("aa").can("ping", "-c", "1", "-W", "1", "-M", "do", "-s", "1372", h.address("dd", "db"))
		h.in("bb").can("ping", "-c", "1", "-W", "1", "-M", "do", "-s", "1272", h.address("cc", "db"))
		h.sh("! nsenter --net=" + h.in("aa").netns + " ping -c 1 -W 1 -M do -s 1373 " + h.address("dd", "db"))

		// A new name and a new start are followed.
		h.docker("rename", "aa", "renamed")
		h.expectPort("renamed", "db", 321, 1400, site)
		h.docker("restart", "bb", "dd")
		h.expectPort("bb", "db", 99, 1300, site, map[string]string{"role": "front"})
		h.expectPort("dd", "db", 321, 1400, site)

		h.docker("rm", "-f", "renamed", "bb", "cc", "dd")
		h.docker("network", "rm", "db", "plain")
	})
}

// Frames of every allowed size pass whole. Larger ones are refused where one of
// them would end ovs-vswitchd: on the userspace datapath, above 65500 bytes.
func TestLargeMTU(t *testing.T) {
	t.Parallel()
	h := newHost(t, service, own)
	for i, mtu := range []int{576, 9000, 65500} {
		name := fmt.Sprintf("mtu%d", mtu)
		h.network(name, "-o", fmt.Sprint("mtu=", mtu), "-o", "gateway_mode=none", "--subnet", fmt.Sprintf("10.%d.0.0/24", 22+i))
		h.container(name+"a", name)
		h.container(name+"b", name)
		a, b := h.in(name+"a"), h.in(name+"b")
		for _, got := range []int{a.link("eth0").MTU, a.hostEnd("eth0").MTU, b.link("eth0").MTU, b.hostEnd("eth0").MTU} {
			if got != mtu {
				t.Errorf("%s: an end of a link has mtu %d", name, got)
			}
		}
		a.can("ping", "-c", "1", "-W", "1", "-M", "do", "-s", fmt.Sprint(mtu-28), h.address(name+"b", name))
	}
	h.tcp("mtu9000a", "mtu9000b", "mtu9000b")
	for _, refused := range []string{
		h.dockerFails("network", "create", "-d", "ovs-container-network", "-o", "mtu=65501", "larger"),
		h.dockerFails("run", "-d", "--name", "cc", "--network", "name=mtu9000,driver-opt=mtu=65501", "lab"),
	} {
		if !strings.Contains(refused, `mtu="65501"`) || !strings.Contains(refused, "65500") {
			t.Errorf("the refusal does not name the option and what is allowed: %s", refused)
		}
	}
	h.docker("rm", "-f", "cc")
	h.ping("mtu576a", "mtu576b")
}

// expectPort waits until the port of a container on a network, and its
// interface, are what the options and Docker's events say.
func (h *host) expectPort(container, network string, vlan, mtu int, ids ...map[string]string) {
	h.t.Helper()
	want := map[string]string{
		"owner":          "ovs-container-network",
		"network_id":     h.docker("network", "inspect", "-f", "{{.ID}}", network),
		"network_name":   network,
		"endpoint_id":    h.endpoint(container, network, "EndpointID"),
		"container_id":   h.docker("inspect", "-f", "{{.ID}}", container),
		"container_name": container,
	}
	for _, more := range ids {
		maps.Copy(want, more)
	}
	withMAC := maps.Clone(want)
	withMAC["attached-mac"] = h.endpoint(container, network, "MacAddress")
	var name string
	for _, row := range []struct {
		table string
		ids   map[string]string
	}{{"Port", want}, {"Interface", withMAC}} {
		h.eventually(fmt.Sprintf("the %s of %s on %s has its external_ids", row.table, container, network), func() error {
			rows := h.rows(row.table, "external_ids:endpoint_id="+want["endpoint_id"])
			if len(rows) != 1 {
				return fmt.Errorf("there are %d rows of it", len(rows))
			}
			name, _ = rows[0]["name"].(string)
			if got := rows[0]["external_ids"]; !maps.Equal(asMap(got), row.ids) {
				return fmt.Errorf("they are %v, not %v", got, row.ids)
			}
			return nil
		})
	}
	port := h.row("Port", "name="+name)
	if fmt.Sprint(port["tag"]) != fmt.Sprint(vlan) || port["vlan_mode"] != "access" {
		h.t.Errorf("the port of %s on %s is tag=%v vlan_mode=%v, not an access port of VLAN %d", container, network, port["tag"], port["vlan_mode"], vlan)
	}
	p := h.in(container)
	var inside []string
	for _, l := range p.links() {
		if end := l; l.Other != 0 && p.hostEnd(l.Name).Name == name {
			inside = append(inside, l.Name)
			if end.MTU != mtu || p.hostEnd(l.Name).MTU != mtu {
				h.t.Errorf("the link of %s on %s has mtu %d inside and %d outside, not %d", container, network, end.MTU, p.hostEnd(l.Name).MTU, mtu)
			}
		}
	}
	if len(inside) != 1 {
		h.t.Errorf("the port %s leads to the devices %v of %s", name, inside, container)
	}
}

// endpoint is a field of what Docker shows of a container's attachment.
func (h *host) endpoint(container, network, field string) string {
	h.t.Helper()
	return h.docker("inspect", "-f", fmt.Sprintf("{{(index .NetworkSettings.Networks %q).%s}}", network, field), container)
}

// rows returns rows of a table of Open vSwitch, by column, ordered by name.
// Sets of one value are that value.
func (h *host) rows(table string, conditions ...string) (rows []map[string]any) {
	h.t.Helper()
	var reply struct {
		Headings []string
		Data     [][]any
	}
	out := h.ovs(append([]string{"--format=json", "find", table}, conditions...)...)
	h.must(json.Unmarshal([]byte(out), &reply))
	for _, values := range reply.Data {
		row := map[string]any{}
		for i, v := range values {
			row[reply.Headings[i]] = v
		}
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b map[string]any) int {
		return strings.Compare(fmt.Sprint(a["name"]), fmt.Sprint(b["name"]))
	})
	return rows
}

// row returns the one row that meets the condition.
func (h *host) row(table, condition string) map[string]any {
	h.t.Helper()
	rows := h.rows(table, condition)
	if len(rows) != 1 {
		h.t.Fatalf("%d rows of %s have %s", len(rows), table, condition)
	}
	return rows[0]
}

// asMap is a map of the database (RFC 7047, section 5.1) as one of Go.
func asMap(value any) map[string]string {
	m := map[string]string{}
	pair, _ := value.([]any) // "map", pairs
	if len(pair) != 2 || pair[0] != "map" {
		return m
	}
	for _, kv := range pair[1].([]any) {
		m[fmt.Sprint(kv.([]any)[0])] = fmt.Sprint(kv.([]any)[1])
	}
	return m
}
