package dhcp

import (
	"context"
	"errors"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// A lease from a real server: got, renewed, rebound by another, refused, given back.
func TestClient(t *testing.T) {
	for name, s := range servers {
		t.Run(name, func(t *testing.T) { alone(func() { testClient(t, s) }) })
	}
}

// alone runs f on a thread of its own, which ends with the namespaces that f puts it
// into.
func alone(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		f()
	}()
	<-done
}

func testClient(t *testing.T, s server) {
	w := newWire(t)
	ctx, cancel := context.WithTimeout(context.Background(), 700*time.Millisecond)
	before := w.heard()
	if _, err := Acquire(lateContext{ctx}, w.port, netip.Addr{}, false); !errors.Is(err, ErrSilent) {
		t.Errorf("without a server: %v", err)
	}
	cancel()
	if n := w.heard() - before; n < 2 || n > 5 {
		t.Errorf("without a server %d frames were sent", n)
	}

	stop := s.serve(w, "50", "60")
	l := w.acquire("10.7.0.55")
	want := Lease{
		Addr: netip.MustParsePrefix("10.7.0.55/24"), Router: netip.MustParseAddr("10.7.0.254"), MTU: 1400, Domain: "lan.example",
		DNS:    []netip.Addr{netip.MustParseAddr("10.7.0.2"), netip.MustParseAddr("10.7.0.3")},
		Routes: []Route{{netip.MustParsePrefix("10.8.0.0/16"), netip.MustParseAddr("10.7.0.9")}, {To: netip.MustParsePrefix("10.9.1.0/24")}},
		Server: netip.MustParseAddr("10.7.0.1"),
	}
	compare := cmp.Options{
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
		cmpopts.IgnoreFields(Lease{}, "ServerMAC", "From", "Renew", "Rebind", "Expire"),
	}
	if diff := cmp.Diff(want, l, compare); diff != "" {
		t.Errorf("the lease (-want +got):\n%s", diff)
	}
	if whole, renew := l.Expire.Sub(l.From), l.Renew.Sub(l.From); whole != 10*time.Minute || renew < 4*time.Minute || renew > 6*time.Minute || !l.Rebind.After(l.Renew) || !l.Rebind.Before(l.Expire) {
		t.Errorf("the times are %v, %v, %v, %v", l.From, l.Renew, l.Rebind, l.Expire)
	}
	// Who asked for an address of old was answered at everybody's. Its server looks for it
	// now as one looks for any machine, and the kernel has the address by then.
	address := func(what string) {
		run(t, "nsenter", "--net="+w.port.NetNS, "ip", "addr", what, l.Addr.String(), "dev", "cli")
	}
	address("add")
	for _, all := range []bool{false, true} {
		if again, err := w.renew(l, all); err != nil || again.Addr != l.Addr || !again.From.After(l.From) {
			t.Errorf("renewed (all %v): %+v, %v", all, again, err)
		}
	}
	address("del")
	if err := Release(w.port, l); err != nil {
		t.Error(err)
	}
	w.eventually("the server has the address back", func() bool { return !s.has(w, "10.7.0.55") })
	// Somebody else has it now, who tells by a client identifier who it is.
	w.port.ID = []byte{0, 'x'}
	if other := w.acquire("10.7.0.55"); other.Addr != l.Addr {
		t.Errorf("another one that wanted %v got %v", l.Addr, other.Addr)
	}
	w.eventually("the server knows the client identifier", func() bool { return s.knows(w, "00:78") })
	w.port.ID = []byte{0, 'y'}
	if _, err := w.renew(l, true); !errors.Is(err, ErrRefused) {
		t.Errorf("renewed what another one has: %v", err)
	}

	w.port.ID = nil

	// A server that has other addresses.
	stop()
	s.serve(w, "100", "110")
	if l = w.acquire("10.7.0.55"); l.Addr.Addr().Compare(netip.MustParseAddr("10.7.0.99")) <= 0 {
		t.Errorf("the new server gave %v", l.Addr)
	}
	if err := Release(w.port, l); err != nil {
		t.Error(err)
	}
	w.eventually("the new server has the address back", func() bool { return !s.has(w, l.Addr.Addr().String()) })
	// What one who never had an address asks for is had if it is free and the server's to
	// give; else there is another one.
	for i, want := range []string{"10.7.0.107", "10.7.0.107", "10.7.0.7", "192.0.2.7"} {
		w.port.ID = []byte{0, byte('a' + i)}
		if l := w.ask(want, false); (l.Addr.Addr().String() == want) != (i == 0) {
			t.Errorf("one who asked for %s got %v", want, l.Addr)
		}
	}
}
