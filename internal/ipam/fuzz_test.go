package ipam

import (
	"net/netip"
	"testing"
)

func FuzzRequestPool(f *testing.F) {
	for _, s := range []string{"", "10.0.0.0/24", "10.0.0.5/24", "0.0.0.0/0", "::/0", "fd00::/64", "::ffff:1.2.3.4/100", "255.255.255.254/31", "240.0.0.0/5", "fd00::/1", "8000::/1"} {
		f.Add(s, "", false)
		f.Add(s, "10.0.0.128/25", false)
		f.Add(s, "fd00::1/128", true)
	}
	f.Fuzz(func(t *testing.T, pool, sub string, v6 bool) {
		r := New(newStore(), nil, "host")
		p, err := r.RequestPool(pool, sub, nil, v6)
		if err != nil {
			if n := len(r.Pools()); n != 0 {
				t.Errorf("%d pools after %v", n, err)
			}
			return
		}
		if p.Prefix != p.Prefix.Masked() || p.Prefix.Addr().Is6() != v6 || p.Prefix.Addr().Is4In6() || p.Prefix.Bits() == 0 {
			t.Errorf("got pool %v", p.Prefix)
		}
		if p.Range.IsValid() && (p.Range != p.Range.Masked() || p.Range.Bits() < p.Prefix.Bits() || !p.Prefix.Contains(p.Range.Addr())) {
			t.Errorf("got range %v in %v", p.Range, p.Prefix)
		}
		gw, err := r.RequestAddress(p.ID, Request{Gateway: true})
		if err != nil {
			t.Fatal(err)
		}
		checkAddr(t, p, gw)
		s := r.Pools()[0]
		if s.Total == 0 {
			t.Errorf("%v has no addresses", p.Prefix)
		}
		if a, err := r.RequestAddress(p.ID, Request{}); err == nil {
			checkAddr(t, p, a)
			if a == gw || p.Range.IsValid() && !p.Range.Contains(a.Addr()) {
				t.Errorf("got %v, gateway %v, range %v", a, gw, p.Range)
			}
		} else if s.Used < s.Total {
			t.Error(err)
		}
	})
}

// checkAddr fails when a is none a container in p may have.
func checkAddr(t *testing.T, p Pool, a netip.Prefix) {
	t.Helper()
	host := p.Prefix.Addr().BitLen() - p.Prefix.Bits()
	switch {
	case a.Bits() != p.Prefix.Bits() || !p.Prefix.Contains(a.Addr()):
		t.Errorf("%v is outside %v", a, p.Prefix)
	case a.Addr().IsMulticast() || a.Addr().IsLoopback() || a.Addr().IsUnspecified() || a.Addr() == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		t.Errorf("no machine can have %v", a)
	case host > 1 && a.Addr() == p.Prefix.Addr():
		t.Errorf("%v is the network's own", a)
	case host > 1 && a.Addr().Is4() && !p.Prefix.Contains(a.Addr().Next()):
		t.Errorf("%v is the broadcast address", a)
	}
}

// Each byte of ops is one step: what to do, and with which of four addresses.
func FuzzRequestAddress(f *testing.F) {
	f.Add("10.0.0.0/29", "10.0.0.4/30", "10.0.0.5", []byte{0, 1, 2, 3, 4, 8, 16, 0, 0, 0, 0, 0, 0})
	f.Add("fd00::/125", "", "fd00::", []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0})
	f.Add("10.0.0.0/31", "", "::ffff:10.0.0.1", []byte{2, 2, 1, 5, 3, 7})
	f.Add("10.0.0.0/8", "", "10.0.0.1%x", []byte{1, 0, 1, 0})
	f.Fuzz(func(t *testing.T, pool, sub, addr string, ops []byte) {
		store := newStore()
		r := New(store, nil, "host")
		p, err := r.RequestPool(pool, sub, nil, !isIPv4(pool))
		if err != nil {
			return
		}
		texts := []string{addr, first(p.Prefix).String(), last(p.Prefix).String(), p.Prefix.Addr().String()}
		held := map[netip.Addr]bool{}
		for _, op := range ops {
			text := texts[op>>3&3]
			switch op & 7 {
			case 0, 1, 2, 4:
				req := Request{Gateway: op&7 == 2 || op&7 == 4}
				if op&3 != 0 && text != "" {
					req.Addr = text
				}
				before, _ := r.Lookup(p.ID)
				a, err := r.RequestAddress(p.ID, req)
				if err != nil {
					break
				}
				checkAddr(t, p, a)
				if held[a.Addr()] && !(req.Gateway && before.Gateway == a.Addr()) {
					t.Errorf("%v was given twice", a)
				}
				if req.Addr != "" && a.Addr() != netip.MustParseAddr(req.Addr) {
					t.Errorf("asked for %s, got %v", req.Addr, a)
				}
				held[a.Addr()] = true
			case 3:
				if err := r.ReleaseAddress(p.ID, text); err != nil {
					t.Error(err)
				}
				if a, err := netip.ParseAddr(text); err == nil {
					delete(held, a)
				}
			default:
				r = New(store, store.load(t), "host")
			}
			if got, _ := r.Lookup(p.ID); len(got.Addrs) != len(held) {
				t.Errorf("%v taken, %v held", got.Addrs, held)
			}
		}
	})
}

func isIPv4(prefix string) bool {
	p, err := netip.ParsePrefix(prefix)
	return err == nil && p.Addr().Is4()
}
