package link

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

func TestMany(t *testing.T) {
	inNS(t, func() {
		k := open(t)
		const n = 200
		vs, aliases := make([]Veth, n), map[string]string{}
		var wg sync.WaitGroup
		errs := make([]error, n)
		start := time.Now()
		for i := range vs {
			vs[i] = pair(i)
			vs[i].Shield = true
			aliases[vs[i].Host] = vs[i].Alias
			wg.Go(func() { _, errs[i] = k.Ensure(vs[i]) })
		}
		wg.Wait()
		t.Logf("%d parallel Ensure: %v", n, time.Since(start))
		check(t, errors.Join(errs...))
		if have, _ := shielded(t, k); len(have) != n {
			t.Errorf("%d shields", len(have))
		}

		// The same, at once, with faults among them.
		check(t, k.change(vs[3].Host, up(false)))
		check(t, k.Delete(vs[4].Host, vs[4].Alias))
		vs[5].Alias = "ocn:other"
		gone := k.EnsureAll(vs)
		if len(gone) != 1 || !errors.Is(gone[vs[5].Host], ErrForeign) {
			t.Errorf("errors %v", gone)
		}
		vs[5].Alias = aliases[vs[5].Host]
		for _, v := range vs {
			if in := get(t, k, v.Host); !in.Up || in.Alias != v.Alias {
				t.Errorf("%+v", in)
			}
		}
		start = time.Now()
		gen := ruleset(t)
		if errs := k.EnsureAll(vs); errs != nil {
			t.Error(errs)
		}
		t.Logf("EnsureAll of %d that are well: %v", n, time.Since(start))
		if ruleset(t) != gen {
			t.Error("ruleset changed though nothing was missing")
		}

		check(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br-other"}}))
		aliases["br-other"] = "ocn:x"
		start = time.Now()
		gone = k.DeleteAll(aliases)
		t.Logf("DeleteAll of %d: %v", n, time.Since(start))
		if len(gone) != 1 || !errors.Is(gone["br-other"], ErrForeign) {
			t.Errorf("errors %v", gone)
		}
		infos, err := k.List()
		check(t, err)
		if len(infos) != 2 { // lo, br-other
			t.Errorf("left: %v", infos)
		}
		if have, table := shielded(t, k); len(have) != 0 || table {
			t.Errorf("%d shields left, table %v", len(have), table)
		}
	})
}

func TestParallelDelete(t *testing.T) {
	inNS(t, func() {
		k := open(t)
		vs := make([]Veth, 100)
		for i := range vs {
			vs[i] = pair(i)
			vs[i].Shield = i%2 == 0
		}
		if errs := k.EnsureAll(vs); errs != nil {
			t.Fatal(errs)
		}
		// A neighbour with nothing in common but the time it is looked at.
		other := pair(1000)
		_, err := k.Ensure(other)
		check(t, err)
		var wg sync.WaitGroup
		errs := make([]error, 2*len(vs))
		start := time.Now()
		for i := range errs { // each twice
			wg.Go(func() { errs[i] = k.Delete(vs[i/2].Host, vs[i/2].Alias) })
		}
		wg.Wait()
		t.Logf("%d parallel Delete: %v", len(errs), time.Since(start))
		check(t, errors.Join(errs...))
		infos, err := k.List()
		check(t, err)
		if len(infos) != 3 || !exists(t, k, other.Host) { // and lo
			t.Errorf("left: %v", infos)
		}
		if have, table := shielded(t, k); len(have) != 0 || table {
			t.Errorf("shields %v, table %v", have, table)
		}
	})
}

func TestSamePairInParallel(t *testing.T) {
	inNS(t, func() {
		k := open(t)
		for i := range 20 {
			v := pair(i)
			v.Shield = true
			var wg sync.WaitGroup
			errs := make([]error, 4)
			for j := range errs {
				wg.Go(func() { _, errs[j] = k.Ensure(v) })
			}
			wg.Wait()
			check(t, errors.Join(errs...))
		}
	})
}
