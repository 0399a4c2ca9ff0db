//go:build linux

package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/ovs-container-network/ovs-container-network/internal/control"
	"github.com/ovs-container-network/ovs-container-network/internal/ipam"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// exact compares what Docker knows with everything that the driver keeps for it:
// its status, Open vSwitch's rows, links, shields, records and pools. Each must
// hold exactly that. It returns nil, or all that differs. It looks once: whoever
// calls it while something changes tries again.
func (h *host) exact() error {
	known, err := h.dockerView()
	if err != nil {
		return fmt.Errorf("ask Docker: %w", err)
	}
	status, err := h.askStatus()
	if err != nil {
		return fmt.Errorf("ask the driver: %w", err)
	}
	d := &differences{}
	d.driver(known, status)
	for _, look := range []func(*differences, dockerView, control.Status) error{
		h.exactRows, h.exactLinks, h.exactShields, h.exactRecords, h.exactPools,
	} {
		if err := look(d, known, status); err != nil {
			return errors.Join(append(d.found, err)...)
		}
	}
	return errors.Join(d.found...)
}

// differences collects what is not as it should be.
type differences struct{ found []error }

func (d *differences) add(format string, args ...any) {
	d.found = append(d.found, fmt.Errorf(format, args...))
}

// sets compares the names of things that are there with those that should be.
func (d *differences) sets(what string, have, want map[string]bool) {
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if !have[name] {
			d.add("%s is missing: %s", what, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(have)) {
		if !want[name] {
			d.add("%s is left over: %s", what, name)
		}
	}
}

// dockerView is what Docker knows of our networks, by id.
type dockerView map[string]dockerNetwork

type dockerNetwork struct {
	ID     string
	Name   string
	Driver string
	IPAM   struct {
		Driver  string
		Options map[string]string
		Config  []struct {
			Subnet, Gateway    string
			AuxiliaryAddresses map[string]string
		}
	}
	Containers map[string]struct {
		Name, EndpointID, MacAddress, IPv4Address, IPv6Address string
	}

	ends map[string]dockerEnd // of containers, by endpoint id
	odd  map[string]bool      // endpoints without a container
}

type dockerEnd struct{ container, mac, ipv4, ipv6 string }

// ofOurs tells whether a driver is this one, in whatever form.
func ofOurs(driver string) bool {
	return driver == network.Owner || strings.HasPrefix(driver, network.Owner+":")
}

func (h *host) dockerView() (dockerView, error) {
	var all []dockerNetwork
	if err := h.inspect(&all, "network", "docker network ls -q --no-trunc"); err != nil {
		return nil, err
	}
	view := dockerView{}
	for _, n := range all {
		if !ofOurs(n.Driver) {
			continue
		}
		n.ends, n.odd = map[string]dockerEnd{}, map[string]bool{}
		for key, c := range n.Containers {
			if strings.HasPrefix(key, "ep-") { // Docker itself has lost the container
				n.odd[c.EndpointID] = true
				continue
			}
			n.ends[c.EndpointID] = dockerEnd{c.Name, c.MacAddress, c.IPv4Address, c.IPv6Address}
		}
		view[n.ID] = n
	}
	return view, h.addContainers(view)
}

// addContainers checks that networks and running containers agree, which are two
// places in dockerd.
func (h *host) addContainers(view dockerView) error {
	var all []struct {
		Name            string
		NetworkSettings struct {
			Networks map[string]struct{ NetworkID, EndpointID string }
		}
	}
	if err := h.inspect(&all, "container", "docker ps -q --no-trunc"); err != nil {
		return err
	}
	for _, c := range all {
		for _, at := range c.NetworkSettings.Networks {
			n, ours := view[at.NetworkID]
			if !ours || n.odd[at.EndpointID] {
				continue
			}
			if _, there := n.ends[at.EndpointID]; !there {
				return fmt.Errorf("container %s has endpoint %.12s on network %s, which does not have it", c.Name, at.EndpointID, n.Name)
			}
		}
	}
	return nil
}

// inspect reads the objects of a kind that a command lists.
func (h *host) inspect(into any, kind, list string) error {
	out, err := h.Shell(h.ctx(), "ids=$("+list+"); [ -z \"$ids\" ] && echo '[]' || docker "+kind+" inspect $ids")
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(out), into)
}

// driver compares the driver's own view.
func (d *differences) driver(known dockerView, s control.Status) {
	for _, damaged := range s.Damaged {
		d.add("damaged: %s", damaged)
	}
	have, want := map[string]bool{}, map[string]bool{}
	for id := range known {
		want[id] = true
	}
	for _, n := range s.Networks {
		have[string(n.ID)] = true
		if n.Phase != network.PhaseActive {
			d.add("network %s is %s", n.ID.Short(), n.Phase)
		}
		d.endpoints(known[string(n.ID)], n)
	}
	d.sets("network in status", have, want)
}

func (d *differences) endpoints(known dockerNetwork, n network.Report) {
	have, want := map[string]bool{}, map[string]bool{}
	for id := range known.ends {
		want[id] = true
	}
	for _, e := range n.Ends {
		id := string(e.ID)
		if known.odd[id] {
			continue
		}
		have[id] = true
		k, there := known.ends[id]
		if !there {
			continue // told below
		}
		if e.Phase != network.PhaseJoined || e.Health != "ok" {
			d.add("endpoint of %s on %s is %s and %s: %s", k.container, n.Name, e.Phase, e.Health, e.Reason)
		}
		if k.mac != "" && !strings.EqualFold(k.mac, e.MAC) {
			d.add("endpoint of %s on %s has MAC %s, Docker says %s", k.container, n.Name, e.MAC, k.mac)
		}
		for _, addr := range []string{k.ipv4, k.ipv6} {
			if addr != "" && !slices.Contains(e.Addrs, addr) {
				d.add("endpoint of %s on %s has %v, Docker says %s", k.container, n.Name, e.Addrs, addr)
			}
		}
	}
	d.sets("endpoint in status on network "+n.ID.Short(), have, want)
}

// ports are the names of the ports that Docker's containers need, with the id of
// the endpoint. Those that only Docker's own leftovers need are in odd.
func (v dockerView) ports() (want map[string]string, odd map[string]bool) {
	want, odd = map[string]string{}, map[string]bool{}
	for _, n := range v {
		for id := range n.ends {
			port, _ := network.EndpointID(id).Links()
			want[port] = id
		}
		for id := range n.odd {
			port, peer := network.EndpointID(id).Links()
			odd[port], odd[peer] = true, true
		}
	}
	return want, odd
}

func names[V any](of map[string]V) map[string]bool {
	set := make(map[string]bool, len(of))
	for name := range of {
		set[name] = true
	}
	return set
}

// ourLink is how the names of our links look.
var ourLink = regexp.MustCompile(`^(ocn|oc-)[0-9a-f]{12}$`)

// exactLinks compares the links.
func (h *host) exactLinks(d *differences, known dockerView, _ control.Status) error {
	var links []struct{ Ifname, Ifalias string }
	out, err := h.Run(h.ctx(), "ip", "-j", "link")
	if err == nil {
		err = json.Unmarshal([]byte(out), &links)
	}
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	want, odd := known.ports()
	have := map[string]bool{}
	for _, l := range links {
		if !ourLink.MatchString(l.Ifname) || odd[l.Ifname] {
			continue
		}
		have[l.Ifname] = true
		if id, wanted := want[l.Ifname]; wanted && l.Ifalias != network.Owner+" "+id {
			d.add("link %s has alias %q", l.Ifname, l.Ifalias)
		}
	}
	d.sets("link", have, names(want))
	return nil
}

// exactShields compares the chains that keep the host's stack off our links.
func (h *host) exactShields(d *differences, known dockerView, s control.Status) error {
	out, err := h.Run(h.ctx(), "nft", "-j", "list", "ruleset", "netdev")
	var rules struct {
		Nftables []struct{ Chain struct{ Table, Name string } }
	}
	if err == nil {
		err = json.Unmarshal([]byte(out), &rules)
	}
	if err != nil {
		return fmt.Errorf("list nftables: %w", err)
	}
	_, odd := known.ports()
	want := map[string]bool{}
	for _, n := range s.Networks {
		for id := range known[string(n.ID)].ends {
			if port, _ := network.EndpointID(id).Links(); n.Datapath == "netdev" {
				want[port] = true
			}
		}
	}
	have := map[string]bool{}
	for _, r := range rules.Nftables {
		if r.Chain.Table == network.Owner && !odd[r.Chain.Name] {
			have[r.Chain.Name] = true
		}
	}
	d.sets("shield", have, want)
	return nil
}

// exactRecords compares the files of networks and endpoints.
func (h *host) exactRecords(d *differences, known dockerView, _ control.Status) error {
	have, want := map[string]bool{}, map[string]bool{}
	root := h.record()
	err := filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		name := strings.TrimPrefix(strings.TrimPrefix(path, root), "/")
		switch {
		case err != nil:
			return err
		case strings.HasPrefix(name, "networks/") && !e.IsDir(), strings.HasSuffix(name, ".new"):
			have[name] = true
		case e.IsDir() && filepath.Dir(name) == "networks":
			have[name] = true
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list records: %w", err)
	}
	for id, n := range known {
		dir := "networks/" + id
		want[dir], want[dir+"/network.json"] = true, true
		for end := range n.ends {
			want[dir+"/endpoints/"+end+".json"] = true
		}
		for end := range n.odd {
			delete(have, dir+"/endpoints/"+end+".json")
		}
	}
	d.sets("record", have, want)
	return nil
}

// exactPools compares the pools of our IPAM driver and the addresses booked.
func (h *host) exactPools(d *differences, known dockerView, _ control.Status) error {
	files, err := filepath.Glob(h.record("pools", "*.json"))
	if err != nil {
		return err
	}
	have, want := map[string]bool{}, map[string]bool{}
	for _, file := range files {
		var r struct{ Pool ipam.Pool }
		text, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(text, &r)
		}
		if err != nil {
			return fmt.Errorf("pool %s: %w", file, err)
		}
		p := r.Pool
		key := fmt.Sprintf("%v of network %.12s", p.Prefix, p.Network)
		have[key] = true
		d.addresses(key, p, known[p.Network])
	}
	for id, n := range known {
		for _, c := range n.IPAM.Config {
			if ofOurs(n.IPAM.Driver) && n.IPAM.Options["ovn.switch"] == "" { // that of a switch is no host's
				want[fmt.Sprintf("%s of network %.12s", c.Subnet, id)] = true
			}
		}
	}
	d.sets("pool", have, want)
	return nil
}

func (d *differences) addresses(pool string, p ipam.Pool, n dockerNetwork) {
	have, want := map[string]bool{}, map[string]bool{}
	for _, a := range p.Addrs {
		have[a.String()] = true
	}
	if p.Gateway.IsValid() { // old engines do not show it
		want[p.Gateway.String()] = true
	}
	for _, c := range n.IPAM.Config {
		for _, a := range append(slices.Collect(maps.Values(c.AuxiliaryAddresses)), c.Gateway) {
			if ip, err := netip.ParseAddr(a); err == nil && p.Prefix.Contains(ip) {
				want[ip.String()] = true
			}
		}
	}
	for _, e := range n.ends {
		for _, a := range []string{e.ipv4, e.ipv6} {
			if ip, err := netip.ParsePrefix(a); err == nil && p.Prefix.Contains(ip.Addr()) {
				want[ip.Addr().String()] = true
			}
		}
	}
	if len(n.odd) == 0 {
		d.sets("address in pool "+pool, have, want)
	}
}
