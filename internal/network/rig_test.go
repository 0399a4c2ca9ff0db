package network_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/ovs-container-network/ovs-container-network/internal/network"
)

// rig is a Manager among fakes. It belongs into a synctest bubble, where time
// passes only when everybody waits.
type rig struct {
	*Manager
	t      *testing.T
	fabric *fakeFabric
	store  *fakeStore
	pools  *fakePools
	inside *fakeInside
	now    func() time.Time

	mu        sync.Mutex // guards the following
	dead      map[string]bool
	invisible map[string]bool

	damaged []Damage

	nameless bool
	looked   func() // if set, called at each look at a sandbox
	stop     func()
}

// inBubble runs a test on a rig whose repair loop runs.
func inBubble(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.run()
		synctest.Wait()
		test(t, r)
	})
}

func newRig(t *testing.T) *rig {
	r := &rig{
		t: t, fabric: newFabric(t), store: newStore(t), pools: &fakePools{claimed: map[ID]int{}, static: map[ID]bool{}},
		inside: newInside(),
		dead:   map[string]bool{}, invisible: map[string]bool{}, stop: func() {},
	}
	r.load()
	t.Cleanup(func() { r.stop() })
	return r
}

// load makes a Manager of what the store holds.
func (r *rig) load() {
	r.Manager = NewManager(Options{
		Fabric: r.fabric, Store: r.store, Pools: r.pools, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Now: r.now, Damaged: r.damaged, SandboxAlive: r.alive, Inside: r.inside, Nameless: r.nameless, HostID: "0123456789abcdef",
	}, r.store.load())
	r.fabric.with(func(f *fakeFabric) { f.dirty = r.Manager.Dirty })
}

// run starts the repair loop. Its end is waited for when the test ends.
func (r *rig) run() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	m := r.Manager
	go func() { ended <- m.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			r.t.Errorf("Run: %v", err)
		}
	})
}

// restart ends the daemon and starts it again.
func (r *rig) restart() {
	r.stop()
	r.load()
	r.run()
}

// up ends an outage, as a fabric would tell.
func (r *rig) up() {
	r.fabric.with(func(f *fakeFabric) { f.down = false })
	r.Dirty()
}

func (r *rig) downFabric() { r.fabric.with(func(f *fakeFabric) { f.down = true }) }

func (r *rig) alive(sandbox string) (alive, known bool) {
	if r.looked != nil {
		r.looked()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.dead[sandbox] && !r.invisible[sandbox], !r.invisible[sandbox]
}

// hide puts a container where its sandbox cannot be seen.
func (r *rig) hide(sandbox string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.invisible[sandbox] = true
}

// kill ends a container without a word to the driver.
func (r *rig) kill(sandbox string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dead[sandbox] = true
}

func (r *rig) revive(sandbox string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.dead, sandbox)
}

// applies are the times at which Apply of a network began.
func (r *rig) applies(network string) []time.Time {
	r.fabric.mu.Lock()
	defer r.fabric.mu.Unlock()
	return slices.Clone(r.fabric.applies[nid(network)])
}

// prunes counts the looks for leftovers.
func (r *rig) prunes() int {
	r.fabric.mu.Lock()
	defer r.fabric.mu.Unlock()
	return len(r.fabric.prunes)
}

// hex64 is an id as Docker makes them.
func hex64(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])
}

func nid(name string) ID         { return ID(hex64("network " + name)) }
func eid(name string) EndpointID { return EndpointID(hex64("endpoint " + name)) }
func sandbox(name string) string { return "/run/docker/netns/" + hex64(name)[:12] }

// subnets are the subnets of a network, each with its first address as gateway.
func subnets(texts ...string) []Subnet {
	var all []Subnet
	for _, text := range texts {
		p := netip.MustParsePrefix(text)
		all = append(all, Subnet{Prefix: p.Masked(), Gateway: p.Masked().Addr().Next()})
	}
	return all
}

// opts makes options of k=v.
func opts(pairs ...string) map[string]string {
	m := map[string]string{}
	for _, pair := range pairs {
		k, v, _ := strings.Cut(pair, "=")
		m[k] = v
	}
	return m
}

func (r *rig) tryCreate(name, subnet string, options ...string) error {
	return r.CreateNetwork(context.Background(), CreateRequest{ID: nid(name), Options: opts(options...), Subnets: subnets(subnet)})
}

// create makes a network that has to succeed.
func (r *rig) create(name, subnet string, options ...string) {
	r.t.Helper()
	if err := r.tryCreate(name, subnet, options...); err != nil {
		r.t.Fatal(err)
	}
}

func endpointRequest(network, name, addr string, options ...string) EndpointRequest {
	req := EndpointRequest{Network: nid(network), ID: eid(name), Options: opts(options...)}
	if addr != "" {
		req.Addrs = []netip.Prefix{netip.MustParsePrefix(addr)}
	}
	return req
}

func (r *rig) tryEndpoint(network, name, addr string, options ...string) error {
	_, err := r.CreateEndpoint(context.Background(), endpointRequest(network, name, addr, options...))
	return err
}

// endpoint makes an endpoint that has to succeed.
func (r *rig) endpoint(network, name, addr string, options ...string) {
	r.t.Helper()
	if err := r.tryEndpoint(network, name, addr, options...); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) tryJoin(network, name string) error {
	_, err := r.Join(context.Background(), JoinRequest{Network: nid(network), ID: eid(name), Sandbox: sandbox(name)})
	return err
}

// join makes an endpoint and joins it.
func (r *rig) join(network, name, addr string, options ...string) {
	r.t.Helper()
	r.endpoint(network, name, addr, options...)
	if err := r.tryJoin(network, name); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) find(name string) (Network, bool) {
	all := r.Networks()
	i := slices.IndexFunc(all, func(n Network) bool { return n.ID == nid(name) })
	if i < 0 {
		return Network{}, false
	}
	return all[i], true
}

// findEndpoint returns an endpoint wherever it is.
func (r *rig) findEndpoint(name string) (Endpoint, bool) {
	for _, n := range r.Networks() {
		if ep, ok := n.Endpoint(eid(name)); ok {
			return ep, true
		}
	}
	return Endpoint{}, false
}

// leave takes a container off a network, without DeleteEndpoint.
func (r *rig) leave(network, name string) {
	r.t.Helper()
	if err := r.Leave(context.Background(), nid(network), eid(name)); err != nil {
		r.t.Error(err)
	}
}

// must fails the test at once if a call that returned this failed.
func (r *rig) must(_ any, err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}
