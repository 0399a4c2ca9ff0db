//go:build faults

package main

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/ovs-container-network/ovs-container-network/internal/ipam"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovn"
)

// This is the build of the tests in which the daemon dies at a step of a call.
// OCN_FAULT_RECORD names a file to which each step is appended when it is
// reached. OCN_FAULT_AT names a file: when it is there and holds the name of the
// step that is reached, the process kills itself, as SIGKILL does it, and the
// file is gone, so that the next process lives.

func step(name string) {
	if path := os.Getenv("OCN_FAULT_RECORD"); path != "" {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
		if err == nil {
			fmt.Fprintln(f, name)
			f.Close()
		}
	}
	path := os.Getenv("OCN_FAULT_AT")
	if path == "" {
		return
	}
	text, err := os.ReadFile(path)
	if err != nil || strings.TrimSpace(string(text)) != name || os.Rename(path, path+".hit") != nil {
		return
	}
	syscall.Kill(os.Getpid(), syscall.SIGKILL) //nolint:errcheck // cannot fail
	select {}
}

// stepStore steps after each record that was written.
type stepStore struct{ network.Store }

func faultyStore(s network.Store) network.Store { return stepStore{s} }

func (s stepStore) PutNetwork(n network.Network, sync bool) error {
	defer step("stored:network-" + string(n.Phase))
	return s.Store.PutNetwork(n, sync)
}

func (s stepStore) PutEndpoint(e network.Endpoint, sync bool) error {
	defer step("stored:endpoint-" + string(e.Phase))
	return s.Store.PutEndpoint(e, sync)
}

func (s stepStore) DeleteNetwork(id network.ID) error {
	defer step("forgotten:network")
	return s.Store.DeleteNetwork(id)
}

func (s stepStore) DeleteEndpoint(e network.Endpoint) error {
	defer step("forgotten:endpoint")
	return s.Store.DeleteEndpoint(e)
}

// stepFabric steps after each change of a whole network, named by what of it
// was not at rest.
type stepFabric struct{ network.Fabric }

func faultyFabric(f *ovn.Fabric) network.Fabric {
	f.Step = func(what string) { step("switch:" + strings.ReplaceAll(what, " ", "-")) }
	return stepFabric{f}
}

func (f stepFabric) Apply(ctx context.Context, n network.Network) error {
	phases := map[string]bool{string(n.Phase): true}
	for _, ep := range n.Endpoints {
		if ep.Phase != network.PhaseJoined {
			phases["endpoint-"+string(ep.Phase)] = true
		}
	}
	defer step("applied:" + strings.Join(slices.Sorted(maps.Keys(phases)), "+"))
	return f.Fabric.Apply(ctx, n)
}

func (f stepFabric) Remove(ctx context.Context, n network.Network, keepBridge bool) error {
	defer step("removed:network")
	return f.Fabric.Remove(ctx, n, keepBridge)
}

// stepClaims steps after each change of who owns a pool.
type stepClaims struct{ network.Pools }

func faultyClaims(p network.Pools) network.Pools { return stepClaims{p} }

func (p stepClaims) Claim(id network.ID, s network.Subnet, static bool) (bool, error) {
	defer step("pools:claim")
	return p.Pools.Claim(id, s, static)
}

func (p stepClaims) Unclaim(id network.ID) error {
	defer step("pools:unclaim")
	return p.Pools.Unclaim(id)
}

func (p stepClaims) Abandon(id network.ID, addrs []netip.Addr) error {
	defer step("pools:abandon")
	return p.Pools.Abandon(id, addrs)
}

// stepPools steps after each record of a pool, named by what changed in it.
type stepPools struct {
	ipam.Store
	mu   sync.Mutex // guards last
	last map[ipam.PoolID]ipam.Pool
}

func faultyPools(s ipam.Store, held []ipam.Pool) ipam.Store {
	p := &stepPools{Store: s, last: map[ipam.PoolID]ipam.Pool{}}
	for _, pool := range held {
		p.last[pool.ID] = pool
	}
	return p
}

func (s *stepPools) PutPool(p ipam.Pool) error {
	defer step("stored:pool-" + s.change(p))
	return s.Store.PutPool(p)
}

func (s *stepPools) change(p ipam.Pool) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	was, known := s.last[p.ID]
	s.last[p.ID] = p
	switch {
	case !known:
		return "made"
	case len(p.Addrs) > len(was.Addrs):
		return "booked"
	case len(p.Addrs) < len(was.Addrs):
		return "freed"
	case p.Network != was.Network:
		return "claimed"
	}
	return "changed"
}

func (s *stepPools) DeletePool(id ipam.PoolID) error {
	defer step("forgotten:pool")
	return s.Store.DeletePool(id)
}

// faultyHandler steps when a call has arrived and before it is answered.
func faultyHandler(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		method := strings.TrimPrefix(r.URL.Path, "/")
		step("call:" + method)
		h.ServeHTTP(&stepWriter{ResponseWriter: w, method: method}, r)
	})
}

type stepWriter struct {
	http.ResponseWriter
	method string
	begun  bool
}

func (w *stepWriter) begin() {
	if !w.begun {
		w.begun = true
		step("answer:" + w.method)
	}
}

func (w *stepWriter) WriteHeader(code int) {
	w.begin()
	w.ResponseWriter.WriteHeader(code)
}

func (w *stepWriter) Write(b []byte) (int, error) {
	w.begin()
	return w.ResponseWriter.Write(b)
}
