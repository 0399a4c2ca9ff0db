package ipam

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestRequestPool(t *testing.T) {
	tests := []struct {
		pool, sub string
		v6        bool
		want      string // prefix, and range
		err       string
	}{
		{pool: "10.0.0.0/24", want: "10.0.0.0/24"},
		{pool: "10.0.0.5/24", want: "10.0.0.0/24"},
		{pool: "10.0.0.0/8", want: "10.0.0.0/8"},
		{pool: "10.0.0.7/32", want: "10.0.0.7/32"},
		{pool: "169.254.0.0/16", want: "169.254.0.0/16"},
		{pool: "10.0.0.0/24", sub: "10.0.0.130/25", want: "10.0.0.0/24 10.0.0.128/25"},
		{pool: "10.0.0.0/24", sub: "10.0.0.0/24", want: "10.0.0.0/24"},
		{pool: "fd00::1/64", v6: true, want: "fd00::/64"},
		{pool: "fd00::/64", sub: "fd00::100/120", v6: true, want: "fd00::/64 fd00::100/120"},
		{pool: "2000::/3", v6: true, want: "2000::/3"},

		{pool: "10.0.0.0", err: `--subnet "10.0.0.0" is not a subnet: give an address and its bits, such as 10.0.0.0/24`},
		{pool: "10.0.0.0/33", err: `--subnet "10.0.0.0/33" is not a subnet: give an address and its bits, such as 10.0.0.0/24`},
		{pool: "fe80::1%eth0/64", v6: true, err: `--subnet "fe80::1%eth0/64" is not a subnet: give an address and its bits, such as fd00:1::/64`},
		{pool: "10.0.0.0/24", v6: true, err: "--subnet 10.0.0.0/24 is of the wrong family: an IPv6 subnet was asked for, such as fd00:1::/64"},
		{pool: "fd00::/64", err: "--subnet fd00::/64 is of the wrong family: an IPv4 subnet was asked for, such as 10.0.0.0/24"},
		{pool: "::ffff:10.0.0.0/120", v6: true, err: "--subnet ::ffff:10.0.0.0/120 is IPv4-mapped: give it in plain IPv4 or IPv6, such as fd00:1::/64"},
		{pool: "::/90", v6: true, err: "--subnet ::/90 cannot be used: it overlaps ::/127 (unspecified and loopback)"},
		{pool: "10.0.0.0/0", err: "--subnet 0.0.0.0/0 is every address there is: give the network's own subnet, or use --ipam-driver null"},
		{pool: "::/0", v6: true, err: "--subnet ::/0 is every address there is: give the network's own subnet, or use --ipam-driver null"},
		{pool: "0.0.0.0/24", err: "--subnet 0.0.0.0/24 cannot be used: it overlaps 0.0.0.0/8 (this network)"},
		{pool: "127.1.0.0/16", err: "--subnet 127.1.0.0/16 cannot be used: it overlaps 127.0.0.0/8 (loopback)"},
		{pool: "64.0.0.0/2", err: "--subnet 64.0.0.0/2 cannot be used: it overlaps 127.0.0.0/8 (loopback)"},
		{pool: "239.0.0.0/24", err: "--subnet 239.0.0.0/24 cannot be used: it overlaps 224.0.0.0/4 (multicast)"},
		{pool: "255.255.255.255/32", err: "--subnet 255.255.255.255/32 cannot be used: it overlaps 255.255.255.255/32 (limited broadcast)"},
		{pool: "::1/128", v6: true, err: "--subnet ::1/128 cannot be used: it overlaps ::/127 (unspecified and loopback)"},
		{pool: "fe80::/64", v6: true, err: "--subnet fe80::/64 cannot be used: it overlaps fe80::/10 (link-local)"},
		{pool: "ff02::/64", v6: true, err: "--subnet ff02::/64 cannot be used: it overlaps ff00::/8 (multicast)"},
		{sub: "10.0.0.0/25", err: "--ip-range 10.0.0.0/25 needs a --subnet that contains it"},
		{pool: "10.0.0.0/24", sub: "x", err: `--ip-range "x" is not a subnet: give an address and its bits, such as 10.0.0.0/24`},
		{pool: "10.0.0.0/24", sub: "10.0.1.0/25", err: "--ip-range 10.0.1.0/25 is not within --subnet 10.0.0.0/24"},
		{pool: "10.0.0.0/24", sub: "10.0.0.0/23", err: "--ip-range 10.0.0.0/23 is not within --subnet 10.0.0.0/24"},
		{pool: "10.0.0.0/24", sub: "fd00::/64", err: "--ip-range fd00::/64 is of the wrong family: an IPv4 subnet was asked for, such as 10.0.0.0/24"},
		{pool: "10.0.0.0/24", sub: "10.0.0.0/32", err: "--ip-range 10.0.0.0/32 holds no address of --subnet 10.0.0.0/24 that a container can have"},
		{pool: "10.0.0.0/24", sub: "10.0.0.255/32", err: "--ip-range 10.0.0.255/32 holds no address of --subnet 10.0.0.0/24 that a container can have"},
	}
	for _, tt := range tests {
		t.Run(tt.pool+" "+tt.sub, func(t *testing.T) {
			store := newStore()
			r := New(store, nil, "host")
			p, err := r.RequestPool(tt.pool, tt.sub, nil, tt.v6)
			if tt.err != "" {
				wantError(t, err, tt.err)
				if store.writes > 0 || len(r.Pools()) > 0 {
					t.Error("a refused pool left something behind")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := p.Prefix.String()
			if p.Range.IsValid() {
				got += " " + p.Range.String()
			}
			if got != tt.want || p.Auto {
				t.Errorf("got %s (auto %t), want %s", got, p.Auto, tt.want)
			}
		})
	}
}

func TestEqualSubnetsAreDifferentPools(t *testing.T) {
	r := New(newStore(), nil, "host")
	a, b := mustPool(t, r, "10.0.0.0/24", ""), mustPool(t, r, "10.0.0.0/24", "")
	if a.ID == b.ID {
		t.Fatalf("both pools are %s", a.ID)
	}
	if !strings.HasPrefix(string(a.ID), "local/") || !strings.HasSuffix(string(a.ID), "/10.0.0.0/24") {
		t.Errorf("id %s tells nobody what it is", a.ID)
	}
	for _, p := range []Pool{a, b} {
		if got := mustAddr(t, r, p.ID, Request{Addr: "10.0.0.9"}); got != "10.0.0.9/24" {
			t.Errorf("got %s", got)
		}
	}
}

func TestOptionsAreRefusedTogether(t *testing.T) {
	r := New(newStore(), nil, "host")
	_, err := r.RequestPool("", "", map[string]string{"b": "blue", "a": ""}, false)
	wantError(t, err, `unknown --ipam-opt a="", b="blue": allowed is ovn.switch`)
}

func TestRelease(t *testing.T) {
	store := newStore()
	r := New(store, nil, "host")
	p := mustPool(t, r, "10.0.0.0/24", "")
	mustAddr(t, r, p.ID, Request{Gateway: true})
	writes := store.writes
	for _, addr := range []string{"10.0.0.7", "10.9.9.9", "fd00::1", "", "nonsense"} {
		if err := r.ReleaseAddress(p.ID, addr); err != nil {
			t.Errorf("release %q: %v", addr, err)
		}
	}
	if err := r.ReleaseAddress("local/0/x", "10.0.0.1"); err != nil {
		t.Error(err)
	}
	if err := r.ReleasePool("local/0/x"); err != nil {
		t.Error(err)
	}
	if store.writes != writes {
		t.Error("releasing nothing was written")
	}
	if err := r.ReleaseAddress(p.ID, "10.0.0.1"); err != nil {
		t.Error(err)
	}
	if got, _ := r.Lookup(p.ID); got.Gateway.IsValid() || len(got.Addrs) != 0 {
		t.Errorf("gateway released, left %+v", got)
	}
	e := r.entry(p.ID)
	for range 2 {
		if err := r.ReleasePool(p.ID); err != nil {
			t.Error(err)
		}
	}
	if e.value.Load() != nil {
		t.Error("a request that found the pool just before its release would store it again")
	}
	if len(store.files) != 0 || len(r.Pools()) != 0 {
		t.Error("a released pool is still there")
	}
	_, err := r.RequestAddress(p.ID, Request{})
	wantError(t, err, "unknown address pool "+string(p.ID)+"; was the state directory removed?")
}

func TestClaim(t *testing.T) {
	r := New(newStore(), nil, "host")
	prefix := netip.MustParsePrefix("10.0.0.0/24")
	gw := netip.MustParseAddr("10.0.0.254")
	oldest := mustPool(t, r, "10.0.0.0/24", "")
	withGW := mustPool(t, r, "10.0.0.0/24", "")
	mustAddr(t, r, withGW.ID, Request{Addr: gw.String(), Gateway: true})
	newest := mustPool(t, r, "10.0.0.0/24", "")
	mustPool(t, r, "10.0.0.0/25", "")

	claim := func(network string, gateway netip.Addr, want PoolID) {
		t.Helper()
		id, ok, err := r.Claim(network, prefix, gateway, true)
		if err != nil || ok != (want != "") || id != want {
			t.Errorf("claim for %s: got %s %t %v, want %q", network, id, ok, err, want)
		}
	}
	claim("n1", gw, withGW.ID)
	claim("n1", gw, withGW.ID)
	claim("n2", netip.Addr{}, newest.ID)
	claim("n3", gw, oldest.ID)
	claim("n4", gw, "")
	claim("n2", gw, newest.ID)
	if p, _ := r.Lookup(newest.ID); p.Network != "n2" || !p.Static {
		t.Errorf("claimed pool is %+v", p)
	}
	if err := r.Unclaim("n2"); err != nil {
		t.Fatal(err)
	}
	if err := r.Unclaim("n2"); err != nil {
		t.Fatal(err)
	}
	if p, _ := r.Lookup(newest.ID); p.Network != "" || p.Static {
		t.Errorf("unclaimed pool is %+v", p)
	}
	claim("n4", gw, newest.ID)
	if _, _, err := r.Claim("", prefix, gw, false); err == nil {
		t.Error("a network without an id got a pool")
	}
}

func TestReload(t *testing.T) {
	store := newStore()
	r := New(store, nil, "host")
	a := mustPool(t, r, "10.0.0.0/24", "10.0.0.128/25")
	b := mustPool(t, r, "", "")
	c, err := r.RequestPool("", "", nil, true)
	if err != nil {
		t.Fatal(err)
	}
	d := mustPool(t, r, "10.0.0.0/24", "")
	for _, v6 := range []bool{false, true} { // a hole that is not filled at once, neither after a restart
		hole, _ := r.RequestPool("", "", nil, v6)
		behind, err := r.RequestPool("", "", nil, v6)
		if err != nil {
			t.Fatal(err)
		}
		mustAddr(t, r, behind.ID, Request{Gateway: true})
		if err := r.ReleasePool(hole.ID); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []Pool{a, b, c} {
		mustAddr(t, r, p.ID, Request{Gateway: true})
		for range 3 {
			mustAddr(t, r, p.ID, Request{})
		}
	}
	if _, _, err := r.Claim("n1", a.Prefix, netip.MustParseAddr("10.0.0.1"), false); err != nil {
		t.Fatal(err)
	}
	if err := r.ReleaseAddress(a.ID, "10.0.0.129"); err != nil {
		t.Fatal(err)
	}
	if err := r.ReleasePool(d.ID); err != nil {
		t.Fatal(err)
	}

	again := New(newStore(), store.load(t), "host")
	if got, want := again.snapshot(), r.snapshot(); !reflect.DeepEqual(got, want) {
		t.Errorf("after reload\n%+v\nbefore\n%+v", got, want)
	}
	for _, p := range []Pool{a, b, c} {
		if got, want := mustAddr(t, again, p.ID, Request{}), mustAddr(t, r, p.ID, Request{}); got != want {
			t.Errorf("next address is %s after reload, %s without", got, want)
		}
	}
	for _, v6 := range []bool{false, true} {
		x, _ := again.RequestPool("", "", nil, v6)
		y, _ := r.RequestPool("", "", nil, v6)
		if x.Prefix != y.Prefix || x.ID == y.ID {
			t.Errorf("next pool is %v %v after reload, %v %v without", x.ID, x.Prefix, y.ID, y.Prefix)
		}
	}
}

// A file edited by hand may be unsorted; no address may be handed out twice for it.
func TestLoadUnsorted(t *testing.T) {
	r := New(newStore(), []Pool{{ID: "x", Prefix: netip.MustParsePrefix("10.0.0.0/29"), Addrs: addrs("10.0.0.3", "10.0.0.1", "10.0.0.3", "10.0.0.2")}}, "")
	if got := mustAddr(t, r, "x", Request{}); got != "10.0.0.4/29" {
		t.Errorf("got %s", got)
	}
}

func TestJSON(t *testing.T) {
	p := Pool{ID: "local/1/10.0.0.0/24", Prefix: netip.MustParsePrefix("10.0.0.0/24"), Seq: 1, Addrs: []netip.Addr{}}
	got, err := json.Marshal(p)
	if want := `{"id":"local/1/10.0.0.0/24","prefix":"10.0.0.0/24","seq":1,"addrs":[]}`; err != nil || string(got) != want {
		t.Errorf("got  %s %v\nwant %s", got, err, want)
	}
	store := newStore()
	r := New(store, nil, "host")
	id := mustPool(t, r, "10.0.0.0/24", "10.0.0.128/25").ID
	mustAddr(t, r, id, Request{Gateway: true})
	mustAddr(t, r, id, Request{})
	if _, _, err := r.Claim("n1", p.Prefix, netip.Addr{}, true); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(`{"id":%q,"prefix":"10.0.0.0/24","range":"10.0.0.128/25","gateway":"10.0.0.1","network":"n1","static":true,"seq":1,"last":"10.0.0.128","addrs":["10.0.0.1","10.0.0.128"],"own":["10.0.0.1","10.0.0.128"]}`, id)
	if got := string(store.files[id]); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if err := r.ReleaseAddress(id, "10.0.0.1"); err != nil {
		t.Fatal(err)
	}
	if err := r.ReleaseAddress(id, "10.0.0.128"); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(store.files[id]), `"addrs":[],`) {
		t.Errorf("an empty list is stored as %s", store.files[id])
	}
}

func TestStoreFailureChangesNothing(t *testing.T) {
	store := newStore()
	r := New(store, nil, "host")
	p := mustPool(t, r, "10.0.0.0/24", "")
	mustAddr(t, r, p.ID, Request{Gateway: true})
	mustAddr(t, r, p.ID, Request{})
	if _, _, err := r.Claim("n1", p.Prefix, netip.Addr{}, true); err != nil {
		t.Fatal(err)
	}
	free := mustPool(t, r, "10.1.0.0/24", "")
	before, files := r.snapshot(), store.load(t)

	broken := errors.New("disk full")
	store.setFail(broken)
	do := map[string]func() error{
		"cannot store pool 10.9.0.0/24: disk full": func() error { _, err := r.RequestPool("10.9.0.0/24", "", nil, false); return err },
		"cannot store pool 10.208.0.0/24: disk full": func() error {
			_, err := r.RequestPool("", "", nil, false)
			return err
		},
		"cannot delete pool 10.0.0.0/24: disk full": func() error { return r.ReleasePool(p.ID) },
		"container web: cannot store pool 10.0.0.0/24: disk full": func() error {
			_, err := r.RequestAddress(p.ID, Request{Addr: "10.0.0.9", Name: "web"})
			return err
		},
		"cannot store pool 10.0.0.0/24: disk full": func() error { return r.ReleaseAddress(p.ID, "10.0.0.1") },
		"cannot store pool 10.1.0.0/24: disk full": func() error {
			_, _, err := r.Claim("n2", free.Prefix, netip.Addr{}, false)
			return err
		},
	}
	for want, f := range do {
		err := f()
		wantError(t, err, want)
		if !errors.Is(err, broken) {
			t.Errorf("%v does not wrap the store's error", err)
		}
	}
	wantError(t, r.Unclaim("n1"), "cannot store pool 10.0.0.0/24: disk full")
	if got := r.snapshot(); !reflect.DeepEqual(got, before) || len(r.pools) != len(before) {
		t.Errorf("state changed to %+v", got)
	}
	store.setFail(nil)
	if got := store.load(t); len(got) != len(files) {
		t.Errorf("store changed to %+v", got)
	}
	if err := r.ReleasePool(p.ID); err != nil { // nothing stayed locked
		t.Error(err)
	}
}

func TestPoolsDoNotWaitForEachOther(t *testing.T) {
	store := newStore()
	r := New(store, nil, "host")
	slow, quick := mustPool(t, r, "10.0.0.0/24", ""), mustPool(t, r, "10.1.0.0/24", "")
	g := gate{make(chan struct{}), make(chan struct{})}
	store.gates["slow"] = g
	done := make(chan error)
	go func() {
		_, _, err := r.Claim("slow", slow.Prefix, netip.Addr{}, false)
		done <- err
	}()
	<-g.reached
	mustAddr(t, r, quick.ID, Request{})
	mustPool(t, r, "10.0.0.0/24", "")
	mustPool(t, r, "", "")
	if _, ok, err := r.Claim("n1", quick.Prefix, netip.Addr{}, false); !ok || err != nil {
		t.Error(ok, err)
	}
	if list := r.Pools(); len(list) != 4 || list[0].Network != "" {
		t.Errorf("the pool being written shows as %+v", list)
	}
	select {
	case err := <-done:
		t.Fatalf("the slow write ended early: %v", err)
	default:
	}
	close(g.open)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if list := r.Pools(); list[0].Network != "slow" {
		t.Errorf("after the write it is %+v", list[0])
	}
}

func TestConcurrent(t *testing.T) {
	store := newStore()
	r := New(store, nil, "host")
	ids := []PoolID{mustPool(t, r, "10.0.0.0/22", "").ID, mustPool(t, r, "10.0.0.0/22", "").ID, mustPool(t, r, "fd00::/64", "").ID}
	type got struct {
		id   PoolID
		addr netip.Prefix
	}
	var mu sync.Mutex
	held := map[got]bool{}
	autos := map[netip.Prefix]bool{}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 100 {
				id := ids[(g+i)%len(ids)]
				a, err := r.RequestAddress(id, Request{})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if held[got{id, a}] {
					t.Errorf("%v of %s was given twice", a, id)
				}
				held[got{id, a}] = true
				if i%3 == 0 { // forget before the release: from then on another may get it
					delete(held, got{id, a})
				}
				mu.Unlock()
				if i%3 == 0 {
					if err := r.ReleaseAddress(id, a.Addr().String()); err != nil {
						t.Error(err)
					}
				}
				if i%10 == 0 {
					p, err := r.RequestPool("", "", nil, i%20 == 0)
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					if autos[p.Prefix] {
						t.Errorf("pool %v was given twice", p.Prefix)
					}
					autos[p.Prefix] = true
					mu.Unlock()
				}
				r.Pools()
			}
		})
	}
	wg.Wait()
	total := 0
	for _, id := range ids {
		p, _ := r.Lookup(id)
		total += len(p.Addrs)
		if !slices.IsSortedFunc(p.Addrs, netip.Addr.Compare) {
			t.Errorf("%s is not sorted", id)
		}
	}
	if total != len(held) {
		t.Errorf("%d addresses taken, %d held", total, len(held))
	}
}

func TestClaimsRace(t *testing.T) {
	r := New(newStore(), nil, "host")
	for range 8 {
		mustPool(t, r, "10.0.0.0/24", "")
	}
	won := make([]PoolID, 8)
	var wg sync.WaitGroup
	for g := range won {
		wg.Go(func() {
			id, ok, err := r.Claim(fmt.Sprint("n", g), netip.MustParsePrefix("10.0.0.0/24"), netip.Addr{}, false)
			if !ok || err != nil {
				t.Error(ok, err)
			}
			won[g] = id
		})
	}
	wg.Wait()
	slices.Sort(won)
	if n := len(slices.Compact(won)); n != 8 {
		t.Errorf("8 networks share %d pools", n)
	}
}
