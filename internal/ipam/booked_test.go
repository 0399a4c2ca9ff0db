package ipam

import (
	"errors"
	"net/netip"
	"testing"
)

// attach is what a test does to the registry of claimed: network n1 has the pool of
// the addresses 10.0.0.0/24, whose gateway is .1, and a second one, fd00::/64.
type attach struct {
	t     *testing.T
	store *memStore
	r     *Registry
	ids   map[bool]PoolID // by whether it is IPv6
}

func attaching(t *testing.T) *attach {
	t.Helper()
	store := newStore()
	a := &attach{t, store, New(store, nil, "host"), map[bool]PoolID{}}
	for _, subnet := range []string{"10.0.0.0/24", "fd00::/64"} {
		prefix := netip.MustParsePrefix(subnet)
		six := prefix.Addr().Is6()
		p, err := a.r.RequestPool(subnet, "", nil, six)
		if err != nil {
			t.Fatal(err)
		}
		a.ids[six] = p.ID
		gw := mustAddr(t, a.r, p.ID, Request{Gateway: true, Name: "gateway"})
		mustAddr(t, a.r, p.ID, Request{Addr: prefix.Addr().Next().Next().String(), Name: "aux"})
		if _, ok, err := a.r.Claim("n1", prefix, netip.MustParsePrefix(gw).Addr(), false); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	return a
}

func (a *attach) pool(addr string) PoolID { return a.ids[netip.MustParseAddr(addr).Is6()] }

// book asks for an address for a container, of an engine that tells its name.
func (a *attach) book(addr, name string) {
	a.t.Helper()
	mustAddr(a.t, a.r, a.pool(addr), Request{Addr: addr, Name: name})
}

func (a *attach) release(addr string) {
	a.t.Helper()
	if err := a.r.ReleaseAddress(a.pool(addr), addr); err != nil {
		a.t.Error(err)
	}
}

// entered creates an endpoint with addresses, which has to be that of a container.
func (a *attach) entered(want string, list ...string) {
	a.t.Helper()
	if got := a.r.Entered("n1", addrs(list...)); got != want {
		a.t.Errorf("an endpoint with %v is that of %q, want %q", list, got, want)
	}
}

// restart is another process with what the last one has stored.
func (a *attach) restart() { a.r = New(a.store, a.r.snapshot(), "host") }

// An endpoint is that of the container for which its addresses were booked, and never
// another's, whatever became of requests before.
func TestNameOfBooking(t *testing.T) {
	for name, do := range map[string]func(a *attach){
		"booked": func(a *attach) { a.book("10.0.0.5", "web"); a.entered("web", "10.0.0.5") },
		"both families": func(a *attach) {
			a.book("10.0.0.5", "web")
			a.book("fd00::5", "web")
			a.entered("web", "10.0.0.5", "fd00::5")
		},
		"an engine up to 28": func(a *attach) { a.book("10.0.0.5", ""); a.entered("", "10.0.0.5") },
		"no address":         func(a *attach) { a.book("10.0.0.5", "web"); a.entered("") },
		"another's address":  func(a *attach) { a.book("10.0.0.5", "web"); a.entered("", "10.0.0.6") },
		"gateway, aux":       func(a *attach) { a.entered("", "10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2") },
		"names that disagree": func(a *attach) {
			a.book("10.0.0.5", "web")
			a.book("fd00::5", "db")
			a.entered("", "10.0.0.5", "fd00::5")
		},
		"one name missing": func(a *attach) {
			a.book("10.0.0.5", "web")
			a.book("fd00::5", "")
			a.entered("", "10.0.0.5", "fd00::5")
		},
		"another network": func(a *attach) {
			a.book("10.0.0.5", "web")
			if got := a.r.Entered("n2", addrs("10.0.0.5")); got != "" {
				a.t.Errorf("on another network it is that of %q", got)
			}
			a.entered("web", "10.0.0.5")
		},
		"one after the other": func(a *attach) {
			a.book("10.0.0.5", "web")
			a.entered("web", "10.0.0.5")
			a.book("10.0.0.6", "db")
			a.entered("db", "10.0.0.6")
		},
		"asked again in the same process": func(a *attach) {
			a.book("10.0.0.5", "web") // the answer was lost
			a.book("10.0.0.6", "web")
			a.entered("web", "10.0.0.6")
		},
		"CreateEndpoint again": func(a *attach) {
			a.book("10.0.0.5", "web")
			a.entered("web", "10.0.0.5")
			a.entered("", "10.0.0.5")
		},
		"a failed CreateEndpoint": func(a *attach) {
			a.book("10.0.0.5", "web")
			a.entered("web", "10.0.0.5")
			a.release("10.0.0.5")
			a.book("10.0.0.5", "")
			a.entered("", "10.0.0.5")
		},
		"given back before CreateEndpoint": func(a *attach) {
			a.book("10.0.0.5", "web")
			a.release("10.0.0.5")
			a.book("10.0.0.5", "")
			a.entered("", "10.0.0.5")
		},
		"given back, then another": func(a *attach) {
			a.book("10.0.0.5", "web")
			a.release("10.0.0.5")
			a.book("10.0.0.5", "db")
			a.entered("db", "10.0.0.5")
		},
		"given up by a dockerd that died": func(a *attach) {
			a.book("10.0.0.5", "web")
			a.book("10.0.0.6", "db")
			a.entered("db", "10.0.0.6")
			a.entered("", "10.0.0.5")
		},
		"the audit frees it": func(a *attach) {
			a.book("10.0.0.5", "web")
			a.r.owe(a.pool("10.0.0.5"), netip.MustParseAddr("10.0.0.5"))
			if freed, err := a.r.Audit(usedBy()); err != nil || len(freed) != 1 {
				a.t.Error(freed, err)
			}
			a.book("10.0.0.5", "")
			a.entered("", "10.0.0.5")
		},
		"the second booking fails": func(a *attach) {
			a.book("10.0.0.5", "web")
			if _, err := a.r.RequestAddress(a.pool("fd00::1"), Request{Addr: "fd00::1", Name: "web"}); err == nil {
				a.t.Error("the gateway was given to a container")
			}
			a.book("10.0.0.5", "") // is free again
			a.entered("", "10.0.0.5")
		},
		"it cannot be stored": func(a *attach) {
			a.store.fail = errors.New("no room")
			if _, err := a.r.RequestAddress(a.pool("10.0.0.5"), Request{Addr: "10.0.0.5", Name: "web"}); err == nil {
				a.t.Error("booked what cannot be stored")
			}
			a.store.fail = nil
			a.entered("", "10.0.0.5")
		},
		"the process dies before CreateEndpoint": func(a *attach) {
			a.book("10.0.0.5", "web")
			a.restart()
			a.entered("", "10.0.0.5")
		},
		"the process dies between the families": func(a *attach) {
			a.book("10.0.0.5", "web")
			a.restart()
			a.book("fd00::5", "web")
			a.entered("web", "10.0.0.5", "fd00::5")
		},
		"the process dies over RequestAddress": func(a *attach) {
			a.book("10.0.0.5", "web")
			a.restart()
			a.r.Loosen(usedBy())
			a.book("10.0.0.5", "web") // Docker asks again
			a.entered("web", "10.0.0.5")
		},
	} {
		t.Run(name, func(t *testing.T) { do(attaching(t)) })
	}
}
