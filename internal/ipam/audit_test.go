package ipam

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// usedBy tells what the endpoints of network n1 have; of others nothing is known.
func usedBy(list ...string) func(string) (map[netip.Addr]bool, bool) {
	used := map[netip.Addr]bool{}
	for _, a := range addrs(list...) {
		used[a] = true
	}
	return func(network string) (map[netip.Addr]bool, bool) { return used, network == "n1" }
}

// claimed is a registry with a pool of network n1 that has a gateway, an aux
// address, and two addresses of endpoints: 10.0.0.2 and 10.0.0.3.
func claimed(t *testing.T) (*memStore, *Registry, PoolID) {
	t.Helper()
	store := newStore()
	r := New(store, nil, "host")
	id := mustPool(t, r, "10.0.0.0/24", "").ID
	mustAddr(t, r, id, Request{Gateway: true})
	mustAddr(t, r, id, Request{Addr: "10.0.0.9"})
	if _, ok, err := r.Claim("n1", netip.MustParsePrefix("10.0.0.0/24"), netip.MustParseAddr("10.0.0.1"), false); !ok || err != nil {
		t.Fatal(ok, err)
	}
	for _, a := range []string{"10.0.0.2", "10.0.0.3"} {
		mustAddr(t, r, id, Request{Addr: a})
	}
	return store, r, id
}

func taken(t *testing.T, r *Registry, id PoolID) (list []string) {
	t.Helper()
	p, ok := r.Lookup(id)
	if !ok {
		t.Fatal("the pool is gone")
	}
	for _, a := range p.Addrs {
		list = append(list, a.String())
	}
	return list
}

func expectTaken(t *testing.T, r *Registry, id PoolID, want ...string) {
	t.Helper()
	if got := taken(t, r, id); !slices.Equal(got, want) {
		t.Errorf("taken are %v, want %v", got, want)
	}
}

// An address that no endpoint has at any audit of two minutes is freed; gateway
// and aux addresses never are.
func TestAuditFreesIdleAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, r, id := claimed(t)
		audit := func(used ...string) []Idle {
			freed, err := r.Audit(usedBy(used...))
			if err != nil {
				t.Fatal(err)
			}
			return freed
		}
		if freed := audit("10.0.0.2"); len(freed) > 0 {
			t.Errorf("freed %v at the first look", freed)
		}
		if idle := r.IdleAddresses(); len(idle) != 1 || idle[0].Addr.String() != "10.0.0.3" {
			t.Errorf("idle are %v", idle)
		}
		time.Sleep(time.Minute)
		audit("10.0.0.2", "10.0.0.3") // it has an endpoint after all
		time.Sleep(time.Minute)
		if freed := audit("10.0.0.2"); len(freed) > 0 {
			t.Errorf("freed %v though it was used a minute ago", freed)
		}
		time.Sleep(idleTime)
		if freed := audit("10.0.0.2"); len(freed) != 1 || freed[0].Addr.String() != "10.0.0.3" || freed[0].Network != "n1" {
			t.Errorf("freed %v", freed)
		}
		expectTaken(t, r, id, "10.0.0.1", "10.0.0.2", "10.0.0.9")
		audit("10.0.0.2")
		if idle := r.IdleAddresses(); len(idle) > 0 {
			t.Errorf("idle are %v", idle)
		}
	})
}

// Of a network that is not known nothing is freed, nor of a pool that no network
// of ours has, nor of one whose own addresses were never noted.
func TestAuditSpares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := Pool{ID: "old", Prefix: netip.MustParsePrefix("10.1.0.0/24"), Network: "n1", Addrs: addrs("10.1.0.1", "10.1.0.5")}
		other := Pool{ID: "other", Prefix: netip.MustParsePrefix("10.2.0.0/24"), Network: "n2", Addrs: addrs("10.2.0.5"), Own: []netip.Addr{}}
		foreign := Pool{ID: "foreign", Prefix: netip.MustParsePrefix("10.3.0.0/24"), Addrs: addrs("10.3.0.5")}
		r := New(newStore(), []Pool{old, other, foreign}, "host")
		for range 3 {
			if freed, err := r.Audit(usedBy()); err != nil || len(freed) > 0 {
				t.Errorf("freed %v, %v", freed, err)
			}
			time.Sleep(idleTime)
		}
	})
}

// What the last process booked without an endpoint is given to who asks for it by
// name, once; what endpoints have is not, nor what this process books.
func TestLooseAddresses(t *testing.T) {
	store, _, id := claimed(t)
	r := New(store, store.load(t), "host")
	r.Loosen(usedBy("10.0.0.2"))
	for _, a := range []string{"10.0.0.2", "10.0.0.9", "10.0.0.1"} {
		if _, err := r.RequestAddress(id, Request{Addr: a}); err == nil {
			t.Errorf("%s was given twice", a)
		}
	}
	if got := mustAddr(t, r, id, Request{}); got != "10.0.0.4/24" {
		t.Errorf("got %s without asking for it", got)
	}
	mustAddr(t, r, id, Request{Addr: "10.0.0.3"})
	if _, err := r.RequestAddress(id, Request{Addr: "10.0.0.3"}); err == nil {
		t.Error("10.0.0.3 was given twice")
	}
	expectTaken(t, r, id, "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.9")
}

// A pool that the last process made, and nobody used, is the answer to the same
// request, once and soon after the start.
func TestPoolAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore()
		r := New(store, nil, "host")
		plain := mustPool(t, r, "10.0.0.0/24", "")
		ranged := mustPool(t, r, "10.0.0.0/24", "10.0.0.128/25")
		auto := mustPool(t, r, "", "")
		used := mustPool(t, r, "10.1.0.0/24", "")
		mustAddr(t, r, used.ID, Request{Gateway: true})

		again := New(store, store.load(t), "host")
		for _, c := range []struct {
			pool, sub string
			want      PoolID
			same      bool
		}{
			{"10.0.0.0/24", "", plain.ID, true}, {"10.0.0.0/24", "", plain.ID, false},
			{"10.0.0.0/24", "10.0.0.128/25", ranged.ID, true}, {"", "", auto.ID, true}, {"", "", auto.ID, false},
			{"10.1.0.0/24", "", used.ID, false},
		} {
			if got := mustPool(t, again, c.pool, c.sub); (got.ID == c.want) != c.same {
				t.Errorf("%q %q: got %s, the last process made %s", c.pool, c.sub, got.ID, c.want)
			}
		}
		late := New(store, store.load(t), "host")
		time.Sleep(retryTime + time.Second)
		if got := mustPool(t, late, "10.0.0.0/24", ""); got.ID == plain.ID {
			t.Error("got a pool of the last process long after its end")
		}
	})
}

// A pool whose network is gone, and which Docker did not release, goes after a
// while, unless another network claims it.
func TestAuditFreesOrphans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, r, id := claimed(t)
		other := mustPool(t, r, "10.9.0.0/24", "")
		for _, again := range []bool{true, false} {
			if err := r.Unclaim("n1"); err != nil {
				t.Fatal(err)
			}
			r = New(store, store.load(t), "host") // it is remembered
			for range 2 {
				if freed, err := r.Audit(usedBy()); err != nil || len(freed) > 0 {
					t.Errorf("freed %v, %v", freed, err)
				}
				time.Sleep(idleTime - time.Second)
				if again {
					if _, ok, err := r.Claim("n1", netip.MustParsePrefix("10.0.0.0/24"), netip.Addr{}, false); !ok || err != nil {
						t.Fatal(ok, err)
					}
				}
			}
		}
		freed, err := r.Audit(usedBy())
		if _, there := r.Lookup(id); err != nil || len(freed) != 1 || freed[0].Pool != id || there {
			t.Errorf("freed %v, %v, still there: %v", freed, err, there)
		}
		if _, there := r.Lookup(other.ID); !there {
			t.Error("a pool that never had a network of ours is gone")
		}
	})
}

// What could not be freed because the disk was full is freed by the next audit,
// and an address is given to who asks for it before that.
func TestAuditFreesWhatIsOwed(t *testing.T) {
	store, r, id := claimed(t)
	other := mustPool(t, r, "10.9.0.0/24", "")
	store.setFail(errors.New("disk full"))
	for _, a := range []string{"10.0.0.2", "10.0.0.3"} {
		if r.ReleaseAddress(id, a) == nil {
			t.Fatal("released on a full disk")
		}
	}
	if r.ReleasePool(other.ID) == nil {
		t.Fatal("released on a full disk")
	}
	if _, err := r.Audit(usedBy()); err == nil {
		t.Error("the audit found nothing to do")
	}
	store.setFail(nil)
	mustAddr(t, r, id, Request{Addr: "10.0.0.2"})
	if _, err := r.Audit(usedBy("10.0.0.2")); err != nil {
		t.Error(err)
	}
	expectTaken(t, r, id, "10.0.0.1", "10.0.0.2", "10.0.0.9")
	if _, there := r.Lookup(other.ID); there {
		t.Error("the pool is still there")
	}
}
