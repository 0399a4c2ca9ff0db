//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

// The floor is what Docker itself costs with any remote driver: one that
// answers everything at once, and does nothing but make a veth pair in Join and
// remove it in DeleteEndpoint. No switch, no disk.
const (
	floorDriver = "ocn-floor"
	// floorGateway is the option of a network that wants Docker's gateway
	// service.
	floorGateway = "gateway=docker"
)

type floor struct {
	links  *netlink.Handle
	server http.Server

	mu    sync.Mutex
	gates map[string]bool // networks with the gateway service
	index map[string]int  // of the host's end, by endpoint
}

// newFloor serves the driver to the host's engine from this process. Its links
// are made in the host's namespace.
func newFloor(h *lab.Host) (*floor, error) {
	ns, err := netns.GetFromPid(h.NSPID())
	if err != nil {
		return nil, fmt.Errorf("floor: %w", err)
	}
	defer ns.Close()
	links, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("floor: %w", err)
	}
	f := &floor{links: links, gates: map[string]bool{}, index: map[string]int{}}
	const dir = "/run/docker/plugins"
	if err := os.MkdirAll(h.Path(dir), 0o755); err != nil {
		return nil, fmt.Errorf("floor: %w", err)
	}
	l, err := net.Listen("unix", h.Path(dir)+"/"+floorDriver+".sock")
	if err != nil {
		return nil, fmt.Errorf("floor: %w", err)
	}
	f.server.Handler = http.HandlerFunc(f.serve)
	go f.server.Serve(l) //nolint:errcheck // it ends with Close
	return f, nil
}

func (f *floor) close() {
	f.server.Close()
	f.links.Close()
}

func (f *floor) serve(w http.ResponseWriter, r *http.Request) {
	var req struct {
		NetworkID, EndpointID string
		Options               struct {
			Generic map[string]string `json:"com.docker.network.generic"`
		}
	}
	json.NewDecoder(r.Body).Decode(&req) //nolint:errcheck // calls without a body need none of it
	var answer any = object{}
	var err error
	switch r.URL.Path {
	case "/Plugin.Activate":
		answer = object{"Implements": []string{"NetworkDriver"}}
	case "/NetworkDriver.GetCapabilities":
		answer = object{"Scope": "local"}
	case "/NetworkDriver.CreateNetwork":
		f.mu.Lock()
		f.gates[req.NetworkID] = len(req.Options.Generic) > 0
		f.mu.Unlock()
	case "/NetworkDriver.EndpointOperInfo":
		answer = object{"Value": object{}}
	case "/NetworkDriver.Join":
		answer, err = f.join(req.NetworkID, req.EndpointID)
	case "/NetworkDriver.DeleteEndpoint":
		err = f.remove(req.EndpointID)
	}
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		answer = object{"Err": err.Error()}
	}
	json.NewEncoder(w).Encode(answer) //nolint:errcheck // the engine is gone
}

func (f *floor) join(network, endpoint string) (any, error) {
	v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "fh-" + endpoint[:10]}, PeerName: "fc-" + endpoint[:10]}
	if err := f.links.LinkAdd(v); err != nil {
		return nil, fmt.Errorf("make %s: %w", v.Name, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.index[endpoint] = v.Index
	return object{
		"InterfaceName":         object{"SrcName": v.PeerName, "DstPrefix": "eth"},
		"DisableGatewayService": !f.gates[network],
	}, nil
}

func (f *floor) remove(endpoint string) error {
	f.mu.Lock()
	index, there := f.index[endpoint]
	delete(f.index, endpoint)
	f.mu.Unlock()
	if !there {
		return nil
	}
	return f.links.LinkDel(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Index: index}})
}
