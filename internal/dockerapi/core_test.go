package dockerapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/ovs-container-network/ovs-container-network/internal/ipam"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// Ids as Docker makes them. What the fake core answers hangs on the network.
var (
	nid      = strings.Repeat("a1b2c3d4", 8)
	eid      = strings.Repeat("0e1f2a3b", 8)
	badID    = strings.Repeat("bad0", 16)  // its calls fail
	panicID  = strings.Repeat("dead", 16)  // its calls panic
	gatesID  = strings.Repeat("9a7e", 16)  // its Join returns gateways
	alonesID = strings.Repeat("a10e", 16)  // its Join disables Docker's gateway service
	swarmID  = "q2jk9x0v5m1h8p7w3z6tybd4c" // as a swarm names networks
)

// fakeCore writes down what it is asked.
type fakeCore struct {
	joined *network.Joined // what Join says; nil: a link

	mu    sync.Mutex
	calls []string
	ctx   func(context.Context) // is given the context of each call
}

func (c *fakeCore) asked(ctx context.Context, id network.ID, format string, args ...any) error {
	c.mu.Lock()
	c.calls = append(c.calls, fmt.Sprintf(format, args...))
	look := c.ctx
	c.mu.Unlock()
	if look != nil {
		look(ctx)
	}
	switch string(id) {
	case badID:
		return errors.New("cannot do it: option vlan=\"5000\": allowed are 1..4094, none, auto")
	case panicID:
		panic("of the core")
	}
	return nil
}

// take returns the calls since the last time.
func (c *fakeCore) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	calls := c.calls
	c.calls = nil
	return calls
}

func (c *fakeCore) CreateNetwork(ctx context.Context, req network.CreateRequest) error {
	return c.asked(ctx, req.ID, "CreateNetwork %+v", req)
}

func (c *fakeCore) DeleteNetwork(ctx context.Context, id network.ID) error {
	return c.asked(ctx, id, "DeleteNetwork %s", id)
}

func (c *fakeCore) CreateEndpoint(ctx context.Context, req network.EndpointRequest) (network.Endpoint, error) {
	ep := network.Endpoint{ID: req.ID, MAC: req.MAC, Addrs: req.Addrs}
	if ep.MAC == "" {
		ep.MAC = "02:00:00:00:00:01"
	}
	return ep, c.asked(ctx, req.Network, "CreateEndpoint %+v", req)
}

func (c *fakeCore) DeleteEndpoint(ctx context.Context, id network.ID, eid network.EndpointID) error {
	return c.asked(ctx, id, "DeleteEndpoint %s %s", id, eid)
}

func (c *fakeCore) Join(ctx context.Context, req network.JoinRequest) (network.Joined, error) {
	j := network.Joined{Link: "oc-0e1f2a3b0e1f"}
	switch string(req.Network) {
	case gatesID:
		j.Gateway, j.Gateway6 = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
	case alonesID:
		j.DisableGateway = true
	}
	if c.joined != nil {
		j = *c.joined
	}
	return j, c.asked(ctx, req.Network, "Join %+v", req)
}

func (c *fakeCore) Leave(ctx context.Context, id network.ID, eid network.EndpointID) error {
	return c.asked(ctx, id, "Leave %s %s", id, eid)
}

func (c *fakeCore) RequestPool(ctx context.Context, pool, sub string, opts map[string]string, v6 bool) (ipam.Pool, error) {
	err := c.asked(ctx, "", "RequestPool %q %q %v %v", pool, sub, opts, v6)
	if pool == "bad" {
		err = errors.New(`--subnet "bad": not a subnet`)
	}
	if pool == "" {
		pool = "10.100.0.0/24"
	}
	p, _ := netip.ParsePrefix(pool)
	return ipam.Pool{ID: ipam.PoolID("1/" + pool), Prefix: p}, err
}

func (c *fakeCore) ReleasePool(ctx context.Context, id ipam.PoolID) error {
	return c.asked(ctx, "", "ReleasePool %s", id)
}

func (c *fakeCore) RequestAddress(ctx context.Context, id ipam.PoolID, req ipam.Request) (netip.Prefix, error) {
	err := c.asked(ctx, "", "RequestAddress %s %+v", id, req)
	if id == "full" {
		err = errors.New("all addresses of 10.0.0.0/30 are in use")
	}
	return netip.MustParsePrefix("10.100.0.2/24"), err
}

func (c *fakeCore) ReleaseAddress(ctx context.Context, id ipam.PoolID, addr string) error {
	return c.asked(ctx, "", "ReleaseAddress %s %s", id, addr)
}

// api is a Server on a fake core, in a sandbox with no other interfaces on a
// host with no open ports.
type api struct {
	*Server
	core    *fakeCore
	handler http.Handler
	log     *bytes.Buffer
}

func newAPI() *api {
	a := &api{core: &fakeCore{}, log: &bytes.Buffer{}}
	a.Server = &Server{
		Networks: a.core, IPAM: a.core,
		Log:        slog.New(slog.NewTextHandler(&locked{w: a.log}, nil)),
		OtherLinks: func(string) (bool, error) { return false, nil },
	}
	a.handler = a.Handler()
	return a
}

// locked is a writer that several goroutines may use.
type locked struct {
	mu sync.Mutex
	w  *bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// ask sends one request as the engine does.
func (a *api) ask(method, path, body string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	req.Header.Set("Accept", contentType)
	rec := httptest.NewRecorder()
	a.handler.ServeHTTP(rec, req)
	return rec
}

// post is a call.
func (a *api) post(call, body string) *httptest.ResponseRecorder {
	return a.ask("POST", "/"+call, body)
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
