package ipam

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
)

func addrs(text ...string) []netip.Addr {
	list := []netip.Addr{}
	for _, s := range text {
		list = append(list, netip.MustParseAddr(s))
	}
	return list
}

// Each step is a request, or a release when it begins with "-". "gw" asks for
// the gateway, "*" for any address.
func TestRequestAddress(t *testing.T) {
	tests := []struct {
		name, pool, sub string
		steps           []string // "request => answer"
	}{
		{"automatic", "10.0.0.0/24", "", []string{
			"* => 10.0.0.1/24", "* => 10.0.0.2/24", "-10.0.0.1", "* => 10.0.0.3/24",
		}},
		{"wraps", "10.0.0.0/29", "", []string{
			"gw => 10.0.0.1/29", "* => 10.0.0.2/29", "* => 10.0.0.3/29", "* => 10.0.0.4/29", "* => 10.0.0.5/29", "* => 10.0.0.6/29",
			"* => no free address in pool 10.0.0.0/29: 6 of 6 in use",
			"-10.0.0.3", "* => 10.0.0.3/29", "-10.0.0.6", "-10.0.0.2", "* => 10.0.0.6/29", "* => 10.0.0.2/29",
		}},
		{"explicit", "10.0.0.0/24", "", []string{
			"10.0.0.5 => 10.0.0.5/24",
			"10.0.0.5 => address 10.0.0.5 is already in use in pool 10.0.0.0/24",
			"10.0.0.0 => address 10.0.0.0 is the network address of pool 10.0.0.0/24 and cannot be used",
			"10.0.0.255 => address 10.0.0.255 is the broadcast address of pool 10.0.0.0/24 and cannot be used",
			"10.0.1.1 => address 10.0.1.1 is outside pool 10.0.0.0/24",
			"fd00::1 => address fd00::1 is outside pool 10.0.0.0/24",
			"::ffff:10.0.0.6 => address ::ffff:10.0.0.6 is outside pool 10.0.0.0/24",
			`10.0.0 => "10.0.0" is not an address: pool 10.0.0.0/24 wants one such as 10.0.0.1`,
			"-10.0.0.5", "10.0.0.5 => 10.0.0.5/24",
			"* => 10.0.0.1/24", // explicit ones do not move the search
		}},
		{"gateway", "10.0.0.0/24", "", []string{
			"gw => 10.0.0.1/24", "gw => 10.0.0.1/24", "gw 10.0.0.1 => 10.0.0.1/24",
			"gw 10.0.0.2 => pool 10.0.0.0/24 already has the gateway 10.0.0.1: release it before asking for 10.0.0.2",
			"10.0.0.1 => address 10.0.0.1 is already in use in pool 10.0.0.0/24 as its gateway",
			"* => 10.0.0.2/24", "-10.0.0.1", "gw 10.0.0.9 => 10.0.0.9/24", "gw => 10.0.0.9/24",
		}},
		{"gateway explicit", "10.0.0.0/24", "", []string{
			"gw 10.0.0.254 => 10.0.0.254/24", "gw 10.0.0.254 => 10.0.0.254/24", "* => 10.0.0.1/24",
		}},
		{"gateway's address taken", "10.0.0.0/24", "", []string{
			"10.0.0.1 => 10.0.0.1/24", "gw 10.0.0.1 => address 10.0.0.1 is already in use in pool 10.0.0.0/24",
			"gw 10.0.0.0 => address 10.0.0.0 is the network address of pool 10.0.0.0/24 and cannot be used",
			"gw => 10.0.0.2/24", "* => 10.0.0.3/24",
		}},
		{"range", "10.0.0.0/24", "10.0.0.128/30", []string{
			"gw => 10.0.0.1/24", "10.0.0.9 => 10.0.0.9/24",
			"* => 10.0.0.128/24", "* => 10.0.0.129/24", "* => 10.0.0.130/24", "* => 10.0.0.131/24",
			"* => no free address in pool 10.0.0.0/24 (range 10.0.0.128/30): 4 of 4 in use",
			"10.0.0.132 => 10.0.0.132/24", "-10.0.0.129", "* => 10.0.0.129/24",
		}},
		{"range at the start", "10.0.0.0/24", "10.0.0.0/30", []string{
			"gw => 10.0.0.1/24", "* => 10.0.0.2/24", "* => 10.0.0.3/24",
			"* => no free address in pool 10.0.0.0/24 (range 10.0.0.0/30): 3 of 3 in use",
		}},
		{"range at the end", "10.0.0.0/24", "10.0.0.254/31", []string{
			"* => 10.0.0.254/24", "* => no free address in pool 10.0.0.0/24 (range 10.0.0.254/31): 1 of 1 in use",
		}},
		{"/30", "10.0.0.0/30", "", []string{"* => 10.0.0.1/30", "* => 10.0.0.2/30", "* => no free address in pool 10.0.0.0/30: 2 of 2 in use"}},
		{"/31", "10.0.0.0/31", "", []string{"gw => 10.0.0.0/31", "* => 10.0.0.1/31", "* => no free address in pool 10.0.0.0/31: 2 of 2 in use"}},
		{"/32", "10.0.0.7/32", "", []string{"10.0.0.7 => 10.0.0.7/32", "gw => no free address in pool 10.0.0.7/32: 1 of 1 in use"}},
		{"very last", "255.255.255.252/32", "", []string{"* => 255.255.255.252/32"}},
		{"IPv6", "fd00::/64", "", []string{
			"gw => fd00::1/64", "* => fd00::2/64", "fd00::ffff:ffff:ffff:ffff => fd00::ffff:ffff:ffff:ffff/64",
			":: => address :: is outside pool fd00::/64",
			"fd00::3%eth0 => address fd00::3%eth0 is outside pool fd00::/64",
			"fd00:: => address fd00:: is the subnet-router anycast address of pool fd00::/64 and cannot be used",
			"FD00:0::2 => address fd00::2 is already in use in pool fd00::/64",
		}},
		{"IPv6 /126", "fd00::/126", "", []string{
			"* => fd00::1/126", "* => fd00::2/126", "* => fd00::3/126", "* => no free address in pool fd00::/126: 3 of 3 in use",
		}},
		{"IPv6 /127", "fd00::/127", "", []string{"gw => fd00::/127", "* => fd00::1/127", "* => no free address in pool fd00::/127: 2 of 2 in use"}},
		{"IPv6 /128", "fd00::7/128", "", []string{"* => fd00::7/128"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := New(newStore(), nil, "host")
			id := mustPool(t, r, tt.pool, tt.sub).ID
			for _, step := range tt.steps {
				if addr, ok := strings.CutPrefix(step, "-"); ok {
					if err := r.ReleaseAddress(id, addr); err != nil {
						t.Errorf("%s: %v", step, err)
					}
					continue
				}
				what, want, _ := strings.Cut(step, " => ")
				req := Request{Addr: what}
				if rest, ok := strings.CutPrefix(what, "gw"); ok {
					req = Request{Addr: strings.TrimSpace(rest), Gateway: true}
				} else if what == "*" {
					req.Addr = ""
				}
				a, err := r.RequestAddress(id, req)
				got := a.String()
				if err != nil {
					got = err.Error()
				}
				if got != want {
					t.Errorf("%s\ngot  %s\nwant %s", what, got, want)
				}
			}
		})
	}
}

func TestStatic(t *testing.T) {
	r := New(newStore(), nil, "host")
	for pool, want := range map[string]string{
		"10.0.0.0/24": "container web: network is ipam=static: give every container an address (--ip / ipv4_address)",
		"fd00::/64":   "container web: network is ipam=static: give every container an address (--ip6 / ipv6_address)",
	} {
		p := mustPool(t, r, pool, "")
		if _, _, err := r.Claim("n-"+pool, p.Prefix, netip.Addr{}, true); err != nil {
			t.Fatal(err)
		}
		_, err := r.RequestAddress(p.ID, Request{Name: "web"})
		wantError(t, err, want)
		mustAddr(t, r, p.ID, Request{Gateway: true})
		mustAddr(t, r, p.ID, Request{Addr: first(p.Prefix).Next().String()})
	}
}

func TestGatewayOnceIsNotWrittenTwice(t *testing.T) {
	store := newStore()
	r := New(store, nil, "host")
	id := mustPool(t, r, "10.0.0.0/24", "").ID
	mustAddr(t, r, id, Request{Gateway: true})
	writes := store.writes
	mustAddr(t, r, id, Request{Gateway: true})
	mustAddr(t, r, id, Request{Gateway: true, Addr: "10.0.0.1"})
	if store.writes != writes {
		t.Error("an unchanged pool was written")
	}
}

// Readers and the store still hold the old value while a new one is made.
func TestChangesLeaveTheOldValue(t *testing.T) {
	old := Pool{Prefix: netip.MustParsePrefix("10.0.0.0/24"), Addrs: append(make([]netip.Addr, 0, 9), addrs("10.0.0.1", "10.0.0.3", "10.0.0.4")...)}
	next, _, _, err := old.take(Request{Addr: "10.0.0.2"})
	if err != nil {
		t.Fatal(err)
	}
	last, _ := next.release(netip.MustParseAddr("10.0.0.1"))
	for want, p := range map[string]Pool{
		"[10.0.0.1 10.0.0.3 10.0.0.4]":          old,
		"[10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4]": next,
		"[10.0.0.2 10.0.0.3 10.0.0.4]":          last,
	} {
		if got := fmt.Sprint(p.Addrs); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestUsage(t *testing.T) {
	tests := []struct {
		pool, sub string
		total     uint64
	}{
		{"10.0.0.0/8", "", 1<<24 - 2},
		{"10.0.0.0/24", "", 254},
		{"10.0.0.0/24", "10.0.0.0/25", 127},
		{"10.0.0.0/31", "", 2},
		{"10.0.0.0/32", "", 1},
		{"fd00::/65", "", 1<<63 - 1},
		{"fd00::/64", "", math.MaxUint64},
		{"fd00::/64", "fd00:0:0:0:1::/80", 1 << 48},
		{"fd00::/48", "", math.MaxUint64},
		{"fd00::/127", "", 2},
	}
	r := New(newStore(), nil, "host")
	for i, tt := range tests {
		id := mustPool(t, r, tt.pool, tt.sub).ID
		mustAddr(t, r, id, Request{})
		s := r.Pools()[i]
		if s.ID != id || s.Used != 1 || s.Total != tt.total {
			t.Errorf("%s %s: got %+v, want total %d", tt.pool, tt.sub, s, tt.total)
		}
	}
}

// A full /16 and a nearly empty /8 must both answer at once: the whole of this
// test takes milliseconds, or hours when addresses are tried one by one.
func TestLargePools(t *testing.T) {
	full := Pool{ID: "full", Prefix: netip.MustParsePrefix("10.0.0.0/16"), Addrs: []netip.Addr{}}
	for a := first(full.Prefix); a.Less(end(full.Prefix)); a = a.Next() {
		full.Addrs = append(full.Addrs, a)
	}
	full.Last = netip.MustParseAddr("10.0.128.0")
	r := New(newStore(), []Pool{
		full,
		{ID: "wide", Prefix: netip.MustParsePrefix("10.0.0.0/8"), Last: netip.MustParseAddr("10.255.255.254"), Addrs: addrs("10.0.0.1")},
		{ID: "six", Prefix: netip.MustParsePrefix("fd00::/64"), Last: netip.MustParseAddr("fd00::ffff:ffff:ffff:ffff"), Addrs: addrs("fd00::1")},
	}, "host")
	_, err := r.RequestAddress("full", Request{})
	wantError(t, err, "no free address in pool 10.0.0.0/16: 65534 of 65534 in use")
	for _, a := range []string{"10.0.0.1", "10.0.255.254", "10.0.128.0"} {
		if err := r.ReleaseAddress("full", a); err != nil {
			t.Fatal(err)
		}
		if got := mustAddr(t, r, "full", Request{}); got != a+"/16" {
			t.Errorf("got %s, the only free one is %s", got, a)
		}
	}
	if got := mustAddr(t, r, "wide", Request{}); got != "10.0.0.2/8" {
		t.Errorf("got %s", got)
	}
	if got := mustAddr(t, r, "six", Request{}); got != "fd00::2/64" {
		t.Errorf("got %s", got)
	}
}

// model is the plainest allocator there is: a set, and every address tried.
type model struct {
	prefix, within netip.Prefix
	taken          map[netip.Addr]bool
	gateway, last  netip.Addr
}

func (m *model) usable(a netip.Addr) bool {
	host := m.prefix.Addr().BitLen() - m.prefix.Bits()
	if !m.prefix.Contains(a) || host > 1 && a == m.prefix.Addr() {
		return false
	}
	return a.Is6() || host <= 1 || m.prefix.Contains(a.Next())
}

func (m *model) any(gateway bool) (netip.Addr, bool) {
	if gateway {
		for a := m.prefix.Addr(); m.prefix.Contains(a); a = a.Next() {
			if m.usable(a) {
				if !m.taken[a] {
					return a, true
				}
				break
			}
		}
	}
	var all []netip.Addr
	for a := m.within.Addr(); m.within.Contains(a); a = a.Next() {
		if m.usable(a) {
			all = append(all, a)
		}
	}
	start := 0
	for i, a := range all {
		if a == m.last {
			start = i + 1
		}
	}
	for i := range all {
		if a := all[(start+i)%len(all)]; !m.taken[a] {
			return a, true
		}
	}
	return netip.Addr{}, false
}

func (m *model) request(req Request) (netip.Addr, bool) {
	if req.Gateway && m.gateway.IsValid() {
		return m.gateway, req.Addr == "" || req.Addr == m.gateway.String()
	}
	var a netip.Addr
	if req.Addr == "" {
		var ok bool
		if a, ok = m.any(req.Gateway); !ok {
			return a, false
		}
	} else if a = netip.MustParseAddr(req.Addr); !m.usable(a) || m.taken[a] {
		return a, false
	}
	m.taken[a] = true
	if req.Gateway {
		m.gateway = a
	} else if req.Addr == "" {
		m.last = a
	}
	return a, true
}

func TestRandomWalk(t *testing.T) {
	for _, tt := range []struct{ pool, sub string }{
		{"10.0.0.8/29", ""}, {"10.0.0.16/28", ""}, {"10.0.0.32/27", ""}, {"10.0.0.32/27", "10.0.0.32/29"}, {"10.0.0.32/27", "10.0.0.56/29"},
		{"10.0.0.32/27", "10.0.0.44/31"}, {"10.0.0.8/30", ""}, {"10.0.0.8/31", ""}, {"10.0.0.8/32", ""},
		{"fd00::8/125", ""}, {"fd00::8/125", "fd00::c/126"}, {"fd00::8/127", ""}, {"fd00::8/128", ""},
	} {
		t.Run(tt.pool+" "+tt.sub, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(1, 2))
			store := newStore()
			r := New(store, nil, "host")
			p := mustPool(t, r, tt.pool, tt.sub)
			m := &model{prefix: p.Prefix, within: p.Prefix, taken: map[netip.Addr]bool{}}
			if p.Range.IsValid() {
				m.within = p.Range
			}
			somewhere := func() netip.Addr { // now and then just outside
				a := p.Prefix.Addr().Prev()
				for range rnd.IntN(1<<(a.BitLen()-p.Prefix.Bits()) + 2) {
					a = a.Next()
				}
				return a
			}
			for step := range 3000 {
				switch n := rnd.IntN(100); {
				case n < 42:
					req := Request{Gateway: rnd.IntN(10) == 0}
					if rnd.IntN(3) == 0 {
						req.Addr = somewhere().String()
					}
					want, ok := m.request(req)
					got, err := r.RequestAddress(p.ID, req)
					if ok != (err == nil) || ok && got != netip.PrefixFrom(want, p.Prefix.Bits()) {
						t.Fatalf("step %d: %+v: got %v %v, want %v %t", step, req, got, err, want, ok)
					}
				case n < 98:
					a := somewhere()
					delete(m.taken, a)
					if m.gateway == a {
						m.gateway = netip.Addr{}
					}
					if err := r.ReleaseAddress(p.ID, a.String()); err != nil {
						t.Fatal(err)
					}
				default:
					r = New(store, store.load(t), "host")
				}
				got, _ := r.Lookup(p.ID)
				if len(got.Addrs) != len(m.taken) || got.Gateway != m.gateway {
					t.Fatalf("step %d: %+v, model %+v", step, got, m)
				}
				for _, a := range got.Addrs {
					if !m.taken[a] {
						t.Fatalf("step %d: %v is taken, model %+v", step, a, m)
					}
				}
			}
		})
	}
}

func TestAutomaticPools(t *testing.T) {
	store := newStore()
	r := New(store, nil, "host")
	mustPool(t, r, "10.208.1.128/25", "") // half of one /24
	mustPool(t, r, "10.208.2.0/23", "")   // two of them
	mustPool(t, r, "10.208.0.0/24", "")   // and one
	p := mustPool(t, r, "", "")
	if got := p.Prefix.String(); got != "10.208.4.0/24" || !p.Auto {
		t.Errorf("got %s, auto %t", got, p.Auto)
	}
	if err := r.ReleasePool(p.ID); err != nil {
		t.Fatal(err)
	}
	if got := mustPool(t, r, "", "").Prefix.String(); got != "10.208.5.0/24" {
		t.Errorf("got %s, just after 10.208.4.0/24 was released", got)
	}

	six, err := r.RequestPool("", "", nil, true)
	if err != nil {
		t.Fatal(err)
	}
	next, _ := r.RequestPool("", "", nil, true)
	other, _ := New(newStore(), nil, "another host").RequestPool("", "", nil, true)
	again, _ := New(newStore(), nil, "host").RequestPool("", "", nil, true)
	if six.Prefix.Bits() != 64 || six.Prefix.Addr().As16()[0] != 0xfd || next.Prefix == six.Prefix || other.Prefix == six.Prefix || again.Prefix != six.Prefix {
		t.Errorf("got %v, then %v, on another host %v, on a new registry %v", six.Prefix, next.Prefix, other.Prefix, again.Prefix)
	}
	if netip.PrefixFrom(six.Prefix.Addr(), 48).Masked() != netip.PrefixFrom(next.Prefix.Addr(), 48).Masked() {
		t.Errorf("%v and %v are of different /48", six.Prefix, next.Prefix)
	}
}

// Docker asks again, holding what it got, until a pool overlaps no route of the host.
func TestAutomaticPoolsEnd(t *testing.T) {
	var loaded []Pool
	auto := choose4()
	for n := range uint64(4000) {
		prefix := auto.subnet(slotNumber(auto.base.Addr()) + n)
		loaded = append(loaded, Pool{ID: PoolID(prefix.String()), Prefix: prefix, Auto: true, Seq: n, Addrs: []netip.Addr{prefix.Addr().Next()}})
	}
	r := New(newStore(), loaded, "host")
	seen := map[netip.Prefix]PoolID{}
	for range 4096 - 4000 {
		p := mustPool(t, r, "", "")
		if _, twice := seen[p.Prefix]; twice || !auto.base.Contains(p.Prefix.Addr()) || p.Prefix.Bits() != 24 {
			t.Fatalf("got %v (seen %t)", p.Prefix, twice)
		}
		seen[p.Prefix] = p.ID
	}
	_, err := r.RequestPool("", "", nil, false)
	wantError(t, err, "no free /24 is left in 10.208.0.0/12 for an automatic pool: choose one with --subnet")
	free := netip.MustParsePrefix("10.215.7.0/24")
	if err := r.ReleasePool(PoolID(free.String())); err != nil {
		t.Fatal(err)
	}
	if p := mustPool(t, r, "", ""); p.Prefix != free {
		t.Errorf("got %v, only %v is free", p.Prefix, free)
	}

	r = New(newStore(), nil, "host")
	mustPool(t, r, "10.0.0.0/8", "")
	if _, err = r.RequestPool("", "", nil, false); err == nil {
		t.Error("got a pool although all overlap")
	}
	mustPool(t, r, choose6("host").base.String(), "")
	_, err = r.RequestPool("", "", nil, true)
	wantError(t, err, fmt.Sprintf("no free /64 is left in %v for an automatic pool: choose one with an IPv6 --subnet", choose6("host").base))
}
