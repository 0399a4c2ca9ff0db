//go:build linux

package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/control"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// town is a host in use: network web with default options and containers a1 and
// a2, network shop with a tag, our IPAM driver and ids of the user with b1, b2.
// a1 and b1 have fixed addresses, a1 a fixed MAC too, so that a predecessor
// which was not forgotten would be in their way.
type town struct {
	*host
	residents map[string]string // network by container
	degraded  map[string]string // by network: what its problem has to say
}

// settle makes a town, its containers with further arguments.
func (h *host) settle(args ...string) *town {
	h.t.Helper()
	w := &town{
		host:      h,
		residents: map[string]string{"a1": "web", "a2": "web", "b1": "shop", "b2": "shop"},
		degraded:  map[string]string{},
	}
	h.network("web", "--subnet", "10.1.0.0/24")
	h.network("shop", "--subnet", "10.2.0.0/24", "--ipam-driver", "ovs-container-network",
		"--opt", "vlan=42", "--opt", "tenant_id=acme", "--opt", "external_ids=env=test")
	own := map[string][]string{
		"a1": {"--ip", "10.1.0.11", "--mac-address", "02:00:00:00:01:11"},
		"b1": {"--ip", "10.2.0.11"},
	}
	for _, name := range []string{"a1", "a2", "b1", "b2"} {
		h.container(name, w.residents[name], append(own[name], args...)...)
	}
	w.works()
	return w
}

// works checks that the containers talk, that new ones start on the old
// networks, talk to the old ones and leave nothing, and that all is in order.
func (w *town) works() {
	w.t.Helper()
	w.talk()
	for _, old := range []string{"a1", "b1"} {
		w.container("guest", w.residents[old])
		w.ping("guest", old)
		w.ping(old, "guest")
		w.docker("rm", "-f", "guest")
	}
	w.within(90*time.Second, "all is in order", w.inOrder)
}

func (w *town) talk() {
	w.t.Helper()
	w.ping("a1", "a2")
	w.ping("b1", "b2")
}

// talkBesides checks that the containers talk while dockerd may be away. pids
// are theirs, by name.
func (w *town) talkBesides(pids map[string]string, addrs map[string]string) {
	w.t.Helper()
	for _, pair := range [][2]string{{"a1", "a2"}, {"b2", "b1"}} {
		w.eventually(fmt.Sprintf("%s reaches %s", pair[0], pair[1]), func() error {
			_, err := w.Run(w.ctx(), "nsenter", "-t", pids[pair[0]], "-n", "ping", "-c", "1", "-W", "1", addrs[pair[1]])
			return err
		})
	}
}

// pids are the processes of the containers by name, and their addresses.
func (w *town) pids() (pids, addrs map[string]string) {
	w.t.Helper()
	pids, addrs = map[string]string{}, map[string]string{}
	for name, network := range w.residents {
		pids[name] = w.docker("inspect", "-f", "{{.State.Pid}}", name)
		addrs[name] = w.address(name, network)
	}
	return pids, addrs
}

// leave removes everything.
func (w *town) leave() {
	w.t.Helper()
	networks := map[string]bool{}
	for name, network := range w.residents {
		w.docker("rm", "-f", name)
		networks[network] = true
	}
	for network := range networks {
		w.docker("network", "rm", network)
	}
}

// askStatus is status for a driver that may be away.
func (h *host) askStatus() (control.Status, error) {
	ctx, cancel := context.WithTimeout(h.ctx(), 5*time.Second)
	defer cancel()
	return control.NewClient(h.Path("/run/ovs-container-network/control.sock")).Status(ctx)
}

// endpoints counts the endpoints that the driver knows, 0 if it is away.
func (h *host) endpoints() (n int) {
	s, _ := h.askStatus()
	for _, net := range s.Networks {
		n += len(net.Ends)
	}
	return n
}

// inOrder compares the driver's view and Open vSwitch's rows with the residents:
// each has its endpoint and its port with the right tag and ids, and nobody else
// has one.
func (w *town) inOrder() error {
	s, err := w.askStatus()
	if err != nil {
		return err
	}
	if !s.OVS.Connected {
		return fmt.Errorf("status says that Open vSwitch is not connected: %s", s.OVS.Error)
	}
	rows, err := w.ports()
	if err != nil {
		return err
	}
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	found := map[string]bool{}
	for _, n := range s.Networks {
		switch want, known := w.degraded[n.Name]; {
		case !known && n.Health != "ok", known && (n.Health == "ok" || !strings.Contains(fmt.Sprint(n.Problems), want)):
			wrong("network %s is %s: %q", n.Name, n.Health, n.Problems)
		}
		for _, e := range n.Ends {
			found[e.Container] = true
			row, there := rows[e.Port]
			delete(rows, e.Port)
			switch {
			case w.residents[e.Container] != n.Name:
				wrong("endpoint %s of container %q on %s, %s since", e.ID.Short(), e.Container, n.Name, e.Phase)
			case e.Phase != network.PhaseJoined || e.Health != "ok":
				wrong("endpoint of %s is %s and %s: %s", e.Container, e.Phase, e.Health, e.Reason)
			case !there:
				wrong("no row of port %s", e.Port)
			default:
				for _, err := range row.check(n, e) {
					wrong("port %s of %s: %w", e.Port, e.Container, err)
				}
			}
		}
	}
	for name := range w.residents {
		if !found[name] {
			wrong("no endpoint of %s", name)
		}
	}
	for port, row := range rows {
		wrong("port %s belongs to nobody: %v", port, row)
	}
	return errors.Join(errs...)
}

// portRow is what Open vSwitch holds of a port of ours.
type portRow struct {
	tag, mode string
	ids       map[string]string
}

func (r portRow) check(n network.Report, e network.EndpointReport) (errs []error) {
	tag := e.VLAN
	if tag == "none" {
		tag = "0"
	}
	if r.tag != tag || r.mode != "access" {
		errs = append(errs, fmt.Errorf("has tag %s and mode %s, want an access port of %s", r.tag, r.mode, tag))
	}
	want := map[string]string{
		"owner": "ovs-container-network", "network_id": string(n.ID), "network_name": n.Name,
		"endpoint_id": string(e.ID), "container_id": e.ContainerID, "container_name": e.Container,
	}
	if n.Name == "shop" {
		want["tenant_id"], want["env"] = "acme", "test"
	}
	for key, value := range want {
		if value == "" || r.ids[key] != value {
			errs = append(errs, fmt.Errorf("has %s=%q, want %q", key, r.ids[key], value))
		}
	}
	return errs
}

// ports reads the rows of ours from the database by name.
func (h *host) ports() (map[string]portRow, error) {
	out, err := h.Run(h.ctx(), "ovs-vsctl", "--timeout=10", "--format=json", "--columns=name,tag,vlan_mode,external_ids",
		"find", "Port", "external_ids:owner=ovs-container-network")
	if err != nil {
		return nil, err
	}
	var table struct{ Data [][4]any }
	if err := json.Unmarshal([]byte(out), &table); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	rows := map[string]portRow{}
	for _, c := range table.Data {
		row := portRow{tag: fmt.Sprint(c[1]), mode: fmt.Sprint(c[2]), ids: map[string]string{}}
		for _, pair := range c[3].([]any)[1].([]any) { // ["map", [[key, value], ...]]
			kv := pair.([]any)
			row.ids[kv[0].(string)] = kv[1].(string)
		}
		rows[fmt.Sprint(c[0])] = row
	}
	return rows, nil
}

// atOnce runs a docker command for each name in parallel and meanwhile, unless
// it is nil, something else that can ask how many of them have not ended. It
// returns the names of those that failed.
func (h *host) atOnce(names []string, command func(name string) []string, meanwhile func(left func() int)) (failed []string) {
	h.t.Helper()
	type result struct {
		name string
		err  error
	}
	results := make(chan result, len(names))
	for _, name := range names {
		go func() {
			_, err := h.Run(h.ctx(), append([]string{"docker"}, command(name)...)...)
			results <- result{name, err}
		}()
	}
	if meanwhile != nil {
		meanwhile(func() int { return len(names) - len(results) })
	}
	for range names {
		if r := <-results; r.err != nil {
			h.t.Logf("as may be: %v", r.err)
			failed = append(failed, r.name)
		}
	}
	return failed
}
