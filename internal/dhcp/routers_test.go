package dhcp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/mdlayher/ndp"
	"golang.org/x/sys/unix"
)

// router is one that answers solicitations after a while.
type router struct {
	number byte // fe80::number, and the last of its MAC address
	delay  time.Duration
	ra     ndp.RouterAdvertisement
}

// of is a router with one prefix that lives for an hour.
func of(number byte, delay time.Duration, prefer ndp.Preference, prefix string) router {
	return router{number, delay, ndp.RouterAdvertisement{
		RouterLifetime: 30 * time.Minute, RouterSelectionPreference: prefer,
		Options: []ndp.Option{prefix6(prefix, true, true, 30*time.Minute, time.Hour)},
	}}
}

func (r router) from() netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 15: r.number})
}

// routers has routers at the server's end, until stop or the end of the test.
func (w *wire) routers(list ...router) (stop func()) {
	w.t.Helper()
	link, err := net.InterfaceByName("srv")
	if err != nil {
		w.t.Fatal(err)
	}
	c, err := dialFor(Port{Index: link.Index, MAC: link.HardwareAddr}, []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff}})
	if err != nil {
		w.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b := make([]byte, 1<<16)
		for {
			n, err := c.file.Read(b)
			if err != nil {
				return
			}
			p, ok := parse6(b[:n])
			if !ok || p.proto != unix.IPPROTO_ICMPV6 || p.data[0] != 133 {
				continue
			}
			for _, r := range list {
				answer := &conn6{file: c.file, port: Port{MAC: net.HardwareAddr{2, 0, 0, 0, 1, r.number}}, self: r.from()}
				frame, err := answer.discovery(&r.ra, p.from, p.mac)
				if err != nil {
					w.t.Error(err)
					return
				}
				time.AfterFunc(r.delay, func() {
					if err := answer.send(frame); err != nil && !errors.Is(err, os.ErrClosed) {
						w.t.Error(err)
					}
				})
			}
		}
	}()
	stop = func() { c.file.Close(); <-ended }
	w.t.Cleanup(stop)
	return stop
}

const one, two, three = "fd01::ff:fe00:7/64", "fd02::ff:fe00:7/64", "fd03::ff:fe00:7/64"

// until asks again and again until all that is expected has come: on a busy machine an
// answer may come too late.
func until(t *testing.T, what, router string, ask func() (Lease6, error), addrs ...string) Lease6 {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		l, err := ask()
		if err == nil && slices.Equal(texts(l), addrs) && l.Router.String() == router && len(l.Ends) == len(addrs) {
			return l
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %+v, %v, want %q over %s", what, l, err, addrs, router)
		}
	}
}

// Another router's prefix never replaces a valid one: a container starts with that of
// the router that answered first, gets those of slower ones soon, and loses each when
// its own time is over.
func TestTwoRouters(t *testing.T) {
	t.Parallel()
	alone(func() {
		w := newWire(t)
		renew := func(l Lease6) func() (Lease6, error) {
			return func() (Lease6, error) {
				ctx, cancel := context.WithTimeout(context.Background(), 900*time.Millisecond)
				defer cancel()
				return Renew6(ctx, w.port, l, false)
			}
		}
		first, second := of(1, 0, ndp.Medium, "fd01::/64"), of(2, 200*time.Millisecond, ndp.High, "fd02::/64")
		stop := w.routers(first, second)
		l := until(t, "at the start", "fe80::1", func() (Lease6, error) { return w.acquire6(time.Second) }, one)
		if l.Renew.Sub(l.From) > lookSoon {
			t.Errorf("the other one is looked for at %v, from %v", l.Renew, l.From)
		}
		l = until(t, "both answer", "fe80::1", renew(l), one, two)
		if l.Renew.Sub(l.From) < 25*time.Minute || l.Renew.Sub(l.From) > lookAgain {
			t.Errorf("it is renewed at %v, from %v", l.Renew, l.From)
		}
		mine := l.Addrs[0].Addr()
		end := l.Ends[mine]
		stop()

		// One of the two falls silent, and another one comes.
		third := of(3, 0, ndp.Medium, "fd03::/64")
		second.ra.Options = []ndp.Option{prefix6("fd02::/64", true, true, time.Hour, 3*time.Hour)}
		stop = w.routers(second, third)
		l = until(t, "the first is silent", "fe80::1", renew(l), one, two, three)
		if !l.Ends[mine].Equal(end) || !l.Ends[l.Addrs[1].Addr()].After(end) || l.Expire.Before(l.From.Add(2*time.Hour)) {
			t.Errorf("the ends are %v, and all is over at %v; of the first it was %v", l.Ends, l.Expire, end)
		}
		stop()

		// Only strangers are there.
		stop = w.routers(third)
		l.Addrs, l.Ends = l.Addrs[:1], map[netip.Addr]time.Time{mine: end}
		until(t, "only another one answers", "fe80::1", renew(l), one, three)
		l.Ends[mine] = time.Now().Add(-time.Second)
		until(t, "the time of the first is over", "fe80::1", renew(l), three)
		stop()
		l.Ends[mine] = end
		if l, err := renew(l)(); err == nil {
			t.Errorf("nobody answers: %+v", l)
		}

		// Taken back, and there is nothing else.
		first.ra.Options = []ndp.Option{prefix6("fd01::/64", true, true, 0, 0)}
		w.routers(first)
		until(t, "it is taken back", "fe80::1", renew(l), one)
		l.Ends[mine] = time.Now().Add(-time.Second)
		if l, err := renew(l)(); !errors.Is(err, ErrRefused) {
			t.Errorf("it was taken back, and its time is over: %+v, %v", l, err)
		}
	})
}

// The default route is by a router that wants to be the default one, if there is any:
// for others a container does not start at once.
func TestRouterPreference(t *testing.T) {
	t.Parallel()
	low, none := of(1, 0, ndp.Low, "fd01::/64"), of(1, 0, ndp.Medium, "fd01::/64")
	none.ra.RouterLifetime = 0
	bare := router{2, 200 * time.Millisecond, ndp.RouterAdvertisement{RouterLifetime: time.Hour}}
	for name, c := range map[string]struct {
		routers []router
		want    string
		addrs   []string
	}{
		"a low one alone":               {[]router{low}, "fe80::1", []string{one}},
		"none of default routes":        {[]router{none}, "invalid IP", []string{one}},
		"a low one and a slower medium": {[]router{low, of(2, 200*time.Millisecond, ndp.Medium, "fd02::/64")}, "fe80::2", []string{one, two}},
		"none and one without a prefix": {[]router{none, bare}, "fe80::2", []string{one}},
		"medium and a slower high":      {[]router{of(1, 0, ndp.Medium, "fd01::/64"), of(2, 200*time.Millisecond, ndp.High, "fd02::/64")}, "fe80::1", []string{one}},
		"both with one prefix":          {[]router{low, of(2, 200*time.Millisecond, ndp.High, "fd01::/64")}, "fe80::2", []string{one}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			alone(func() {
				w := newWire(t)
				w.routers(c.routers...)
				until(t, name, c.want, func() (Lease6, error) { return w.acquire6(1200 * time.Millisecond) }, c.addrs...)
			})
		})
	}
}
