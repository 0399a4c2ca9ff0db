package ovn

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/ipam"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// poolHost is a host with its pools, as Docker and the core use them.
type poolHost struct {
	*Pools
	t *testing.T

	mu      sync.Mutex // guards nets
	nets    []network.Network
	damaged network.ID
}

func (r *rig) poolHost(name string) *poolHost {
	r.t.Helper()
	h := &poolHost{t: r.t}
	h.restart(r.host(name))
	return h
}

// restart is a new process of the driver, on the same records.
func (h *poolHost) restart(f *Fabric) {
	networks := func() []network.Network {
		h.mu.Lock()
		defer h.mu.Unlock()
		return slices.Clone(h.nets)
	}
	h.Pools = NewPools(f, networks, func(id network.ID) bool { return id == h.damaged })
}

// knows has the core know a network, changed if it does already.
func (h *poolHost) knows(n network.Network) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.nets = append(slices.DeleteFunc(h.nets, func(o network.Network) bool { return o.ID == n.ID }), n)
}

func (h *poolHost) forgets(id network.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.nets = slices.DeleteFunc(h.nets, func(o network.Network) bool { return o.ID == id })
}

// used is what the core tells an audit.
func (h *poolHost) used(id network.ID) (map[netip.Addr]bool, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range h.nets {
		if n.ID == id {
			used := make(map[netip.Addr]bool)
			for _, ep := range n.Endpoints {
				used[ep.Addrs[0].Addr()] = true
			}
			return used, true
		}
	}
	return nil, false
}

// network does what `docker network create` asks of an IPAM driver and of the core:
// pool, gateway, further addresses, network.
func (h *poolHost) network(id, sw, subnet, ipRange string, aux ...string) (ipam.PoolID, network.Network, error) {
	h.t.Helper()
	ctx := h.t.Context()
	pool, err := h.RequestPool(ctx, sw, subnet, ipRange, strings.Contains(subnet, ":"))
	if err != nil {
		return "", network.Network{}, err
	}
	gw, err := h.RequestAddress(ctx, pool.ID, ipam.Request{Gateway: true})
	if err != nil {
		return pool.ID, network.Network{}, err
	}
	for _, a := range aux {
		if _, err := h.RequestAddress(ctx, pool.ID, ipam.Request{Addr: a}); err != nil {
			return pool.ID, network.Network{}, err
		}
	}
	n := onSwitch(sw)
	n.ID = network.ID(id)
	n.Subnets = []network.Subnet{{Prefix: pool.Prefix, Gateway: gw.Addr(), Space: ipam.AddressSpace}}
	h.knows(n)
	ok, err := h.Claim(ctx, n, pool.Prefix)
	if err == nil && !ok {
		err = fmt.Errorf("the pool of network %s was not found", id)
	}
	return pool.ID, n, err
}

// remove does what `docker network rm` asks.
func (h *poolHost) remove(id ipam.PoolID, n network.Network, aux ...string) {
	h.t.Helper()
	h.forgets(n.ID)
	for _, a := range append([]string{n.Subnets[0].Gateway.String()}, aux...) {
		check(h.t, h.ReleaseAddress(h.t.Context(), id, a))
	}
	check(h.t, h.ReleasePool(h.t.Context(), id))
}

func (h *poolHost) ask(id ipam.PoolID, addr string) (string, error) {
	a, err := h.RequestAddress(h.t.Context(), id, ipam.Request{Addr: addr})
	return a.String(), err
}

// must asks for an address, any if it is empty, and must get want.
func (h *poolHost) must(id ipam.PoolID, addr, want string) {
	h.t.Helper()
	if got, err := h.ask(id, addr); err != nil || got != want {
		h.t.Fatalf("asked for %q: got %s, %v, want %s", addr, got, err, want)
	}
}

// refused asks for an address and must not get it; why is in the error.
func (h *poolHost) refused(id ipam.PoolID, addr string, why ...string) {
	h.t.Helper()
	got, err := h.ask(id, addr)
	wants(h.t, err, why...)
	if err == nil {
		h.t.Fatalf("got %s", got)
	}
}

func wants(t *testing.T, err error, why ...string) {
	t.Helper()
	for _, w := range why {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Fatalf("got the error %v, want one with %q", err, w)
		}
	}
}

// bookOf is the book of a switch without what every book has, as it is in the
// database, sorted.
func (r *rig) bookOf(f *Fabric, sw string) string {
	r.t.Helper()
	rows, err := f.nb.Select(r.t.Context(), "DHCP_Options", bookIs(sw), "external_ids")
	check(r.t, err)
	var lines []string
	for _, row := range rows {
		for k, v := range row["external_ids"].(ovsdb.Map).GoMap {
			if _, base := bookIDs(sw)[k.(string)]; !base {
				lines = append(lines, fmt.Sprint(k, "=", v))
			}
		}
	}
	return sorted(lines)
}

// seesKey waits until a host knows of an entry in a book.
func (r *rig) seesKey(h *poolHost, sw, key string) {
	r.t.Helper()
	r.sees(h.f, key, func(v ovsdb.View) bool { return findBook(v, sw).ExternalIDs[key] != "" })
}

func (r *rig) nothingLeft() {
	r.t.Helper()
	if left := r.has() + r.nbctl("list", "DHCP_Options"); left != "" {
		r.t.Fatalf("left over:\n%s", left)
	}
}

// Three hosts that take 200 addresses each from one pool at once get 600 different
// ones, and nothing is left when they have given them back.
func TestPoolsAtOnce(t *testing.T) {
	r := newRig(t)
	const each = 200
	for _, streams := range []int{1, 8} {
		hosts := []*poolHost{r.poolHost(fmt.Sprint("a", streams)), r.poolHost(fmt.Sprint("b", streams)), r.poolHost(fmt.Sprint("c", streams))}
		ids := make([]ipam.PoolID, len(hosts))
		nets := make([]network.Network, len(hosts))
		atOnce(t, len(hosts), func(i int) (err error) {
			ids[i], nets[i], err = hosts[i].network(fmt.Sprint("net", i), "ls1", "10.4.0.0/22", "")
			return err
		})
		var mu sync.Mutex
		holders := make(map[string]int)
		start := time.Now()
		atOnce(t, len(hosts)*streams, func(i int) error {
			for range each / streams {
				a, err := hosts[i/streams].ask(ids[i/streams], "")
				if err != nil {
					return err
				}
				mu.Lock()
				holders[a]++
				mu.Unlock()
			}
			return nil
		})
		took := time.Since(start)
		t.Logf("3 hosts, %d requests at a time on each: %d addresses in %v, %.0f a second, %.2f transactions each", streams, len(holders), took.Round(time.Millisecond),
			float64(len(holders))/took.Seconds(), float64(transactions(hosts))/float64(len(holders)))
		if len(holders) != 3*each || holders["10.4.0.1/22"] != 0 {
			t.Errorf("%d different addresses were given, the gateway %d times", len(holders), holders["10.4.0.1/22"])
		}
		if booked := strings.Count(r.bookOf(hosts[0].f, "ls1"), "ip "); booked != 3*each+1 {
			t.Errorf("%d addresses are booked", booked)
		}
		var all []string
		for a := range holders {
			all = append(all, strings.TrimSuffix(a, "/22"))
		}
		atOnce(t, len(hosts), func(i int) error {
			for _, a := range all { // of others, too: those stay
				if err := hosts[i].ReleaseAddress(t.Context(), ids[i], a); err != nil {
					return err
				}
			}
			return nil
		})
		if booked := strings.Count(r.bookOf(hosts[0].f, "ls1"), "ip "); booked != 1 {
			t.Errorf("%d addresses are booked still", booked)
		}
		for i, h := range hosts {
			h.remove(ids[i], nets[i])
		}
		r.nothingLeft()
	}
}

func transactions(hosts []*poolHost) (n uint64) {
	for _, h := range hosts {
		n += h.f.nb.Transactions()
	}
	return n
}

func atOnce(t *testing.T, n int, do func(i int) error) {
	t.Helper()
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() { errs[i] = do(i) })
	}
	wg.Wait()
	for _, err := range errs {
		check(t, err)
	}
}

// Hosts that make and remove their networks on one switch all the time, each with
// its gateway and an address that is set aside, are never in each other's way.
func TestPoolsComeAndGo(t *testing.T) {
	r := newRig(t)
	hosts := []*poolHost{r.poolHost("h1"), r.poolHost("h2"), r.poolHost("h3"), r.poolHost("h4")}
	atOnce(t, len(hosts), func(i int) error {
		for range 15 {
			id, n, err := hosts[i].network(fmt.Sprint("net", i), "ls1", "10.4.0.0/24", "", "10.4.0.9")
			if err != nil {
				return err
			}
			if n.Subnets[0].Gateway.String() != "10.4.0.1" {
				return fmt.Errorf("the gateway is %s", n.Subnets[0].Gateway)
			}
			if a, err := hosts[i].ask(id, ""); err != nil || a == "10.4.0.9/24" || a == "10.4.0.1/24" {
				return fmt.Errorf("got %s, %w", a, err)
			}
			hosts[i].remove(id, n, "10.4.0.9")
		}
		return nil
	})
	r.nothingLeft()
}

// What a pool is on one host, it is on all: prefix, gateway, addresses set aside.
func TestPoolIsOne(t *testing.T) {
	r := newRig(t)
	h1, h2 := r.poolHost("h1"), r.poolHost("h2")
	id1, n1, err := h1.network("net1", "ls1", "10.4.0.0/24", "10.4.0.128/25", "10.4.0.200")
	check(t, err)
	check(t, r.publish(h1.f, n1))

	_, err = h2.RequestPool(t.Context(), "ls1", "10.5.0.0/24", "", false)
	wants(t, err, "--subnet 10.5.0.0/24: the pool of logical switch ls1 is 10.4.0.0/24 on all hosts; give --subnet 10.4.0.0/24, or leave it out")
	_, err = h2.RequestPool(t.Context(), "ls1", "", "10.9.0.0/25", false)
	wants(t, err, "--ip-range 10.9.0.0/25 needs a --subnet")
	_, err = h2.RequestPool(t.Context(), "ls 1", "", "", false)
	wants(t, err, `--ipam-opt ovn.switch="ls 1"`, "allowed is")

	id2, n2, err := h2.network("net2", "ls1", "", "", "10.4.0.200")
	check(t, err)
	if p := n2.Subnets[0]; p != n1.Subnets[0] {
		t.Errorf("the subnet is %v on one host and %v on the other", n1.Subnets[0], p)
	}
	h1.must(id1, "", "10.4.0.128/24") // the range of h1
	h2.must(id2, "", "10.4.0.2/24")
	h2.must(id2, "10.4.0.129", "10.4.0.129/24")
	r.seesKey(h1, "ls1", "ip 10.4.0.129")
	h1.must(id1, "", "10.4.0.130/24")
	h1.must(id1, "10.4.0.7", "10.4.0.7/24") // outside its range, by name
	h1.refused(id1, "10.4.0.7", "10.4.0.7 is already booked on host h1 on logical switch ls1")
	h2.refused(id2, "10.4.0.7", "10.4.0.7 is already booked on host h1 on logical switch ls1", "give another with --ip")
	h2.refused(id2, "10.4.0.1", "10.4.0.1 is a gateway on logical switch ls1")
	h2.refused(id2, "10.4.0.200", "10.4.0.200 is set aside on logical switch ls1 (--aux-address)")
	h2.refused(id2, "10.9.0.1", "outside pool 10.4.0.0/24")
	h2.refused(id2, "10.4.0.255", "broadcast address")

	// A container that runs is named.
	check(t, r.publish(h1.f, n1, endpoint(1, "10.4.0.7")))
	r.seesKey(h2, "ls1", "10.4.0.7")
	h2.refused(id2, "10.4.0.7", "address 10.4.0.7 is already used by container c1 on host h1 on logical switch ls1: give another with --ip")
	// A network whose addresses come from elsewhere respects the pool.
	other := onSwitch("ls1")
	other.Subnets[0].Prefix = netip.MustParsePrefix("10.4.0.0/24")
	r.seesKey(h2, "ls1", "ip 10.4.0.130")
	wants(t, r.publish(h2.f, other, endpoint(2, "10.4.0.130")), "10.4.0.130 is already booked on host h1")
	check(t, r.publish(h2.f, other, endpoint(3, "10.4.0.77")))
	r.seesKey(h1, "ls1", "10.4.0.77")
	h1.refused(id1, "10.4.0.77", "10.4.0.77 is already used by container c3 on host h2")

	for what, want := range map[string]string{"h1": "10.4.0.1 10.4.0.128/25 4 127", "h2": "10.4.0.1 invalid Prefix 8 254"} {
		h := map[string]*poolHost{"h1": h1, "h2": h2}[what]
		s := h.Summaries()
		if got := fmt.Sprint(s[0].Gateway, " ", s[0].Range, " ", s[0].Used, " ", s[0].Total); len(s) != 1 || got != want {
			t.Errorf("%s: summary %s, want %s", what, got, want)
		}
	}

	h1.remove(id1, n1, "10.4.0.200")
	h2.refused(id2, "10.4.0.200", "set aside")
	if left := r.bookOf(h2.f, "ls1"); strings.Contains(left, "id-of-h1") && !strings.Contains(left, "10.4.0.7=ocn") {
		t.Errorf("of h1 there is left:\n%s", left)
	}
}

// A pool goes with its last part, before or after the switch, and takes the book
// with it.
func TestPoolAndSwitch(t *testing.T) {
	r := newRig(t)
	h1, h2 := r.poolHost("h1"), r.poolHost("h2")
	ctx := t.Context()
	key1 := func(n network.Network) string { return claimKey(h1.f.cfg.HostID, n.ID) }

	// The network first, as Docker does it.
	id, n, err := h1.network("net1", "ls1", "10.4.0.0/24", "")
	check(t, err)
	check(t, r.publish(h1.f, n))
	check(t, h1.f.unclaim(ctx, "ls1", key1(n)))
	if got := r.bookOf(h1.f, "ls1"); !strings.Contains(got, "handle ") || r.has() != "" {
		t.Fatalf("left are %q and the book:\n%s", r.has(), got)
	}
	h1.remove(id, n)
	r.nothingLeft()

	// A create that is given up.
	pool, err := h1.RequestPool(ctx, "ls1", "", "", false)
	check(t, err)
	check(t, h1.ReleasePool(ctx, pool.ID))
	check(t, h1.ReleasePool(ctx, pool.ID))
	check(t, h1.ReleaseAddress(ctx, pool.ID, "10.208.0.1"))
	r.nothingLeft()

	// A switch that is there says what its pool is.
	n2 := onSwitch("ls2")
	check(t, r.publish(h2.f, n2))
	r.sees(h1.f, "the switch", func(v ovsdb.View) bool { s, _ := findSwitch(v, "ls2"); return s != nil })
	_, err = h1.RequestPool(ctx, "ls2", "10.4.0.0/24", "", false)
	wants(t, err, "the pool of logical switch ls2 is 10.1.0.0/24")
	id, n, err = h1.network("net1", "ls2", "", "")
	check(t, err)
	if got := n.Subnets[0].Prefix.String(); got != "10.1.0.0/24" {
		t.Errorf("the pool is %s", got)
	}
	h1.must(id, "", "10.1.0.2/24")
	check(t, h2.f.unclaim(ctx, "ls2", claimKey(h2.f.cfg.HostID, n2.ID)))
	h1.remove(id, n)
	r.nothingLeft()

	// One that this driver did not make keeps nothing of it either.
	r.nbctl("ls-add", "ls3", "--", "set", "Logical_Switch", "ls3", "other_config:subnet=10.3.0.0/24")
	r.sees(h1.f, "the switch", func(v ovsdb.View) bool { s, _ := findSwitch(v, "ls3"); return s != nil })
	id, n, err = h1.network("net1", "ls3", "", "")
	check(t, err)
	h1.must(id, "", "10.3.0.2/24")
	h1.remove(id, n)
	r.nothingLeft()
}

// Pools of both families of one switch are apart.
func TestPoolV6(t *testing.T) {
	r := newRig(t)
	h1, h2 := r.poolHost("h1"), r.poolHost("h2")
	ctx := t.Context()
	id, n, err := h1.network("net1", "ls1", "fd00:4::/64", "")
	check(t, err)
	id4, _, err := h1.network("net1", "ls1", "10.4.0.0/24", "")
	check(t, err)
	h1.must(id, "", "fd00:4::2/64")
	h1.must(id4, "", "10.4.0.2/24")
	id2, _, err := h2.network("net2", "ls1", "fd00:4::/64", "fd00:4::ff:0/112")
	check(t, err)
	h2.must(id2, "", "fd00:4::ff:0/64")
	h2.refused(id2, "fd00:4::2", "fd00:4::2 is already booked on host", "give another with --ip6")
	h1.remove(id, n)
	if got := r.bookOf(h1.f, "ls1"); !strings.Contains(got, "pool6=fd00:4::/64") || !strings.Contains(got, "ip 10.4.0.2=") || strings.Contains(got, "ip fd00:4::2=") {
		t.Errorf("after one part of the pool has gone, the book has\n%s", got)
	}
	check(t, h2.ReleasePool(ctx, id2))
	if got := r.bookOf(h1.f, "ls1"); strings.Contains(got, "fd00") {
		t.Errorf("after the pool has gone, the book has\n%s", got)
	}
	check(t, h1.ReleasePool(ctx, id4))
	r.nothingLeft()

	// Without a subnet: a unique local prefix, the same on both hosts.
	p1, err := h1.RequestPool(ctx, "ls1", "", "", true)
	check(t, err)
	p2, err := h2.RequestPool(ctx, "ls1", "", "", true)
	check(t, err)
	if p1.Prefix != p2.Prefix || p1.Prefix.Bits() != 64 || !netip.MustParsePrefix("fd00::/8").Contains(p1.Prefix.Addr()) {
		t.Errorf("the pools are %s and %s", p1.Prefix, p2.Prefix)
	}
}

// Hosts that ask for the pool of a new switch at the same moment without saying
// which agree.
func TestPoolChosenAtOnce(t *testing.T) {
	r := newRig(t)
	hosts := []*poolHost{r.poolHost("h1"), r.poolHost("h2"), r.poolHost("h3")}
	for round := range 10 {
		pools := make([]ipam.Pool, len(hosts))
		atOnce(t, len(hosts), func(i int) (err error) {
			pools[i], err = hosts[i].RequestPool(t.Context(), fmt.Sprint("ls", round), "", "", false)
			return err
		})
		if pools[0].Prefix != pools[1].Prefix || pools[0].Prefix != pools[2].Prefix {
			t.Fatalf("the pools are %s, %s and %s", pools[0].Prefix, pools[1].Prefix, pools[2].Prefix)
		}
	}
	if n := strings.Count(r.nbctl("--bare", "--columns=cidr", "list", "DHCP_Options"), bookCIDR); n != 10 {
		t.Errorf("there are %d books", n)
	}
}

// A network takes the pool of its own switch and no other, and none if its addresses
// come from outside.
func TestPoolOfOtherSwitch(t *testing.T) {
	r := newRig(t)
	h := r.poolHost("h1")
	prefix := netip.MustParsePrefix("10.4.0.0/24")
	_, err := h.RequestPool(t.Context(), "lsa", prefix.String(), "", false)
	check(t, err)
	n := onSwitch("lsa")
	n.Config.IPAM = network.IPAMExternal
	_, err = h.Claim(t.Context(), n, prefix)
	wants(t, err, "cannot take the pool of logical switch lsa", `ipam="external"`, "leave out --ipam-opt ovn.switch=lsa", "--ipam-driver null")
	n = onSwitch("lsb")
	ok, err := h.Claim(t.Context(), n, prefix)
	if ok || err != nil {
		t.Fatal(ok, err)
	}
	wants(t, h.Stray(n, prefix), "--ipam-opt ovn.switch=lsa: the network is on logical switch lsb", "give the same switch to both")
	n.Config.OVN = nil
	ok, err = h.Claim(t.Context(), n, prefix)
	if ok || err != nil {
		t.Fatal(ok, err)
	}
	wants(t, h.Stray(n, prefix), "--ipam-opt ovn.switch=lsa: the network is on no logical switch; add --opt ovn.switch=lsa")
	check(t, h.Stray(n, netip.MustParsePrefix("10.5.0.0/24")))
}

// With ipam=static only an address that is asked for is given.
func TestPoolStatic(t *testing.T) {
	r := newRig(t)
	h := r.poolHost("h1")
	id, n, err := h.network("net1", "ls1", "10.4.0.0/24", "")
	check(t, err)
	n.Config.IPAM = network.IPAMStatic
	ok, err := h.Claim(t.Context(), n, n.Subnets[0].Prefix)
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	h.refused(id, "", "ipam=static", "--ip")
	h.must(id, "10.4.0.5", "10.4.0.5/24")
}

// A full pool says so, and gives again what was given back.
func TestPoolFull(t *testing.T) {
	r := newRig(t)
	h1, h2 := r.poolHost("h1"), r.poolHost("h2")
	id1, _, err := h1.network("net1", "ls1", "10.4.0.0/29", "")
	check(t, err)
	id2, _, err := h2.network("net2", "ls1", "", "")
	check(t, err)
	for i := range 5 {
		h1.must(id1, "", fmt.Sprintf("10.4.0.%d/29", i+2))
	}
	h2.refused(id2, "", "no free address in pool 10.4.0.0/29: 6 of 6 in use")
	check(t, h1.ReleaseAddress(t.Context(), id1, "10.4.0.4"))
	r.sees(h2.f, "the address is free", func(v ovsdb.View) bool { return findBook(v, "ls1").ExternalIDs["ip 10.4.0.4"] == "" })
	h2.must(id2, "", "10.4.0.4/29")
}

// Docker asks again and again when a route of the host overlaps the answer. That
// ends.
func TestPoolOverlap(t *testing.T) {
	r := newRig(t)
	h := r.poolHost("h1")
	var err error
	for i := 0; err == nil; i++ {
		if i > 20 {
			t.Fatal("the answers have no end")
		}
		_, err = h.RequestPool(t.Context(), "ls1", "", "", false)
	}
	wants(t, err, "a route of this host overlaps it: give --subnet")
	pool := strings.Fields(err.Error()[strings.Index(err.Error(), "--subnet "):])[1]
	_, err = h.RequestPool(t.Context(), "ls1", pool, "", false)
	check(t, err)
}

// While the database is away, calls fail soon; what was to be given back is given
// back later.
func TestPoolAway(t *testing.T) {
	r := newRig(t)
	h := r.poolHost("h1")
	id, n, err := h.network("net1", "ls1", "10.4.0.0/24", "")
	check(t, err)
	h.must(id, "", "10.4.0.2/24")
	h.must(id, "", "10.4.0.3/24")
	h.Entered(n.ID)
	r.nb.kill()
	eventually(t, "the loss is noticed", func() bool { _, err := h.f.nb.View(); return err != nil })
	_, err = h.ask(id, "")
	wants(t, err, "cannot reach database OVN_Northbound")
	_, err = h.RequestPool(t.Context(), "ls2", "", "", false)
	wants(t, err, "cannot reach database OVN_Northbound")
	wants(t, h.ReleaseAddress(t.Context(), id, "10.4.0.2"), "cannot release address 10.4.0.2", "cannot reach")
	if freed, err := h.Audit(t.Context(), h.used); freed != nil || err != nil {
		t.Errorf("an audit without the database: %v, %v", freed, err)
	}
	r.nb.start()
	n = n.WithEndpoint(endpoint(3, "10.4.0.3"))
	h.knows(n)
	eventually(t, "the address is given back", func() bool {
		_, err := h.Audit(t.Context(), h.used)
		return err == nil && !strings.Contains(r.nbctl("list", "DHCP_Options"), "ip 10.4.0.2")
	})
	h.must(id, "10.4.0.2", "10.4.0.2/24")

	r.nb.kill()
	eventually(t, "the loss is noticed", func() bool { _, err := h.f.nb.View(); return err != nil })
	h.forgets(n.ID)
	wants(t, h.ReleasePool(t.Context(), id), "cannot release pool 10.4.0.0/24", "cannot reach")
	r.nb.start()
	eventually(t, "the pool is given back", func() bool {
		_, err := h.Audit(t.Context(), h.used)
		return err == nil && r.nbctl("list", "DHCP_Options") == ""
	})
}

// What this host has booked and nobody uses is freed after a while, the sooner if
// the last process booked it; what others have is not.
func TestPoolAudit(t *testing.T) {
	r := newRig(t)
	h1, h2 := r.poolHost("h1"), r.poolHost("h2")
	now := time.Now()
	clock := func() time.Time { return now }
	audit := func(after time.Duration, want ...string) {
		t.Helper()
		now = now.Add(after)
		freed, err := h1.Audit(t.Context(), h1.used)
		check(t, err)
		var got []string
		for _, f := range freed {
			got = append(got, fmt.Sprint(f.Network, " ", f.Addr))
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Fatalf("freed are %q, want %q", got, want)
		}
	}
	h1.now = clock
	id, n, err := h1.network("net1", "ls1", "10.4.0.0/24", "", "10.4.0.9")
	check(t, err)
	lost, err := h1.RequestPool(t.Context(), "ls1", "", "", false)
	check(t, err)
	id2, _, err := h2.network("net2", "ls1", "", "")
	check(t, err)
	h2.must(id2, "", "10.4.0.2/24")
	for _, a := range []string{"10.4.0.3", "10.4.0.4", "10.4.0.5"} {
		h1.must(id, a, a+"/24")
	}
	n = n.WithEndpoint(endpoint(3, "10.4.0.3"))
	h1.knows(n)

	audit(0)
	audit(50 * time.Second)
	if idle := h1.Idle(); len(idle) != 2 || idle[0].Addr.String() != "10.4.0.4" || idle[0].Pool != id || idle[1].Addr.String() != "10.4.0.5" {
		t.Errorf("idle are %v", idle)
	}
	h1.knows(n.WithEndpoint(endpoint(5, "10.4.0.5")))
	audit(80*time.Second, " invalid IP", "net1 10.4.0.4")
	if left := r.bookOf(h1.f, "ls1"); strings.Contains(left, string(lost.ID)) {
		t.Errorf("left is\n%s", left)
	}

	// The last process booked 10.4.0.4: it is given to the first who asks for it by
	// name, else it is freed.
	h1.must(id, "10.4.0.4", "10.4.0.4/24")
	h1.must(id, "10.4.0.6", "10.4.0.6/24")
	h1.Entered(n.ID)
	h1.refused(id, "10.4.0.6", "already booked")
	h1.restart(h1.f)
	h1.now = clock
	h1.must(id, "10.4.0.4", "10.4.0.4/24")
	h1.Entered(n.ID)
	h1.refused(id, "10.4.0.4", "already booked")
	audit(0)
	audit(50*time.Second, "net1 10.4.0.6")
	audit(80*time.Second, "net1 10.4.0.4")

	// A network of which the record cannot be read keeps what it has.
	h1.forgets(n.ID)
	h1.damaged = n.ID
	audit(0)
	audit(10 * time.Minute)
	h1.damaged = ""
	audit(0)
	audit(3*time.Minute, "net1 invalid IP")
	if left := r.bookOf(h1.f, "ls1"); strings.Contains(left, "id-of-h1") || !strings.Contains(left, "ip 10.4.0.2=") || !strings.Contains(left, "ip 10.4.0.1=gateway") {
		t.Errorf("left is\n%s", left)
	}
	check(t, h2.ReleasePool(t.Context(), id2))
	r.nothingLeft()
}

// When the second address of an endpoint is refused, Docker forgets the first; what
// it gave up without a word is given back, too.
func TestPoolUnbook(t *testing.T) {
	r := newRig(t)
	h := r.poolHost("h1")
	id6, n, err := h.network("net1", "ls1", "fd00:4::/64", "")
	check(t, err)
	id, _, err := h.network("net1", "ls1", "10.4.0.0/24", "")
	check(t, err)
	h.must(id, "10.4.0.5", "10.4.0.5/24")
	h.refused(id6, "fd00:4::1", "gateway")
	freed, err := h.Audit(t.Context(), h.used)
	if err != nil || len(freed) != 1 || freed[0].Addr.String() != "10.4.0.5" {
		t.Errorf("freed are %v, %v", freed, err)
	}
	// That of an endpoint that is created stays.
	h.must(id, "10.4.0.5", "10.4.0.5/24")
	h.Entered(n.ID)
	h.refused(id6, "fd00:4::1", "gateway")
	if freed, err := h.Audit(t.Context(), h.used); err != nil || len(freed) != 0 {
		t.Errorf("freed are %v, %v", freed, err)
	}
	// An endpoint that Docker forgot, and one that is being made with its address.
	h.Abandon(n, []netip.Addr{netip.MustParseAddr("10.4.0.5")})
	h.must(id, "10.4.0.5", "10.4.0.5/24")
	h.Abandon(n, []netip.Addr{netip.MustParseAddr("10.4.0.5")})
	if freed, err := h.Audit(t.Context(), h.used); err != nil || len(freed) != 0 {
		t.Errorf("freed are %v, %v", freed, err)
	}
}

// A database that was put back to an earlier state learns again what Docker has.
func TestPoolPutBack(t *testing.T) {
	r := newRig(t)
	h := r.poolHost("h1")
	id, n, err := h.network("net1", "ls1", "10.4.0.0/24", "10.4.0.128/25")
	check(t, err)
	n.Config.IPAM = network.IPAMStatic
	h.knows(n.WithEndpoint(endpoint(1, "10.4.0.130")))
	check(t, r.publish(h.f, n, endpoint(1, "10.4.0.130")))
	r.nbctl("ls-del", "ls1", "--", "--all", "destroy", "DHCP_Options")
	r.sees(h.f, "the book is gone", func(v ovsdb.View) bool { return findBook(v, "ls1") == nil })
	h.refused(id, "", "ipam=static")
	h.must(id, "10.4.0.129", "10.4.0.129/24")
	check(t, r.publish(h.f, n, endpoint(1, "10.4.0.130")))
	h.refused(id, "10.4.0.1", "gateway")
	h.refused(id, "10.4.0.130", "already used by container c1 on host h1")
	if got := h.Network(id); got != n.ID {
		t.Errorf("the pool is of network %q", got)
	}
	check(t, h.ReleaseAddress(t.Context(), id, "10.4.0.1"))
	check(t, h.ReleasePool(t.Context(), id))
}

// The name of a pool holds whatever the name of a switch does.
func TestPoolID(t *testing.T) {
	for _, h := range []handle{
		{id: "0a", sw: "ls1", prefix: netip.MustParsePrefix("10.0.0.0/8")},
		{id: "0b", sw: "a/b:c%@+", prefix: netip.MustParsePrefix("fd00::/64"), within: netip.MustParsePrefix("fd00::ff:0/112")},
	} {
		got, err := parsePoolID(h.poolID())
		if err != nil || got != h || !Shared(h.poolID()) {
			t.Errorf("%s became %+v, %v", h.poolID(), got, err)
		}
	}
	for _, id := range []ipam.PoolID{"", "local/12/10.0.0.0/8", "ovn/", "ovn//a/10.0.0.0/8", "ovn/1/a/10.0.0.0", "ovn/1/a/10.0.0.0/8/10", "ovn/1/%zz/10.0.0.0/8", "ovn/1/a/x/8"} {
		if h, err := parsePoolID(id); err == nil {
			t.Errorf("%q became %+v", id, h)
		}
	}
	var p Pools
	check(t, p.ReleasePool(context.Background(), "ovn/x"))
	check(t, p.ReleaseAddress(context.Background(), "ovn/x", "10.0.0.1"))
}
