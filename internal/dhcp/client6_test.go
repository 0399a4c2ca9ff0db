package dhcp

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func (w *wire) acquire6(listen time.Duration) (Lease6, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	return Acquire6(ctx, w.port, listen)
}

func (w *wire) renew6(l Lease6, all bool) (Lease6, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return Renew6(ctx, w.port, l, all)
}

// newWire6 has a server with the addresses fd07::1 and fe80::1.
func newWire6(t *testing.T) *wire {
	w := newWire(t)
	run(t, "ip", "addr", "add", "fe80::1/64", "dev", "srv", "nodad")
	run(t, "ip", "addr", "add", "fd07::1/64", "dev", "srv", "nodad")
	return w
}

const ownAddr = "fd07::ff:fe00:7/64" // by the MAC address

func texts(l Lease6) (list []string) {
	for _, a := range l.Addrs {
		list = append(list, a.String())
	}
	return list
}

// What there is of IPv6 on a segment, with the device where the kernel keeps off it
// and where it does not.
func TestClient6(t *testing.T) {
	const ra = "--enable-ra"
	for name, c := range map[string]struct {
		args    []string
		managed string // a part of the address of the server
		addrs   int
		own     bool // the address by the MAC address
		router  bool
	}{
		"nobody":                    {},
		"only IPv4":                 {args: []string{"--dhcp-range=10.7.0.50,10.7.0.60"}},
		"a server without a router": {args: []string{"--dhcp-range=fd07::100,fd07::1ff,64,10m"}, managed: "fd07::1", addrs: 1},
		"stateful":                  {args: []string{ra, "--dhcp-range=fd07::100,fd07::1ff,64,10m"}, managed: "fd07::1", addrs: 1, router: true},
		"stateful and SLAAC":        {args: []string{ra, "--dhcp-range=fd07::100,fd07::1ff,slaac,64,10m"}, managed: "fd07::1", addrs: 2, own: true, router: true},
		"SLAAC":                     {args: []string{ra, "--dhcp-range=fd07::,ra-only,10m"}, addrs: 1, own: true, router: true},
		"stateless":                 {args: []string{ra, "--dhcp-range=fd07::,ra-stateless,ra-names,10m"}, addrs: 1, own: true, router: true},
	} {
		for _, away := range []bool{false, true} {
			t.Run(name+map[bool]string{false: "/kernel", true: "/no kernel"}[away], func(t *testing.T) {
				alone(func() {
					w := newWire6(t)
					if away {
						run(t, "nsenter", "--net="+w.port.NetNS, "sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/cli/disable_ipv6")
					}
					if c.args != nil {
						w.dnsmasq(append(c.args, "--dhcp-option=option6:dns-server,[fd07::53]")...)
					}
					at := time.Now()
					l, err := w.eventually6(c.addrs > 0)
					t.Logf("%+v, %v after %s", l, err, time.Since(at))
					if c.addrs == 0 {
						if !errors.Is(err, ErrNoIPv6) {
							t.Errorf("got %+v, %v", l, err)
						}
						return
					}
					if err != nil || len(l.Addrs) != c.addrs || l.Managed != (c.managed != "") || l.Router.IsValid() != c.router || l.Expire.Sub(l.From) < 10*time.Minute {
						t.Fatalf("got %+v, %v", l, err)
					}
					want := "/64"
					if !c.router {
						want = "/128"
					}
					if got := texts(l); c.managed != "" && (!strings.HasPrefix(got[0], c.managed) || !strings.HasSuffix(got[0], want)) || slices.Contains(got, ownAddr) != c.own {
						t.Errorf("the addresses are %q", got)
					}
					if c.router && (l.Router != netip.MustParseAddr("fe80::1") && !l.Router.IsLinkLocalUnicast()) || !slices.Contains(l.DNS, netip.MustParseAddr("fd07::53")) {
						t.Errorf("the router is %v, name servers are %v", l.Router, l.DNS)
					}
					for _, all := range []bool{false, true} {
						again, err := w.renew6(l, all)
						if err != nil || !slices.Equal(again.Addrs, l.Addrs) || !again.From.After(l.From) || again.Router != l.Router || again.Managed != l.Managed {
							t.Errorf("renewed (all %v): %+v, %v", all, again, err)
						}
					}
				})
			})
		}
	}
}

// eventually6 asks until there is an answer: dnsmasq takes a while to start.
func (w *wire) eventually6(some bool) (l Lease6, err error) {
	for deadline := time.Now().Add(10 * time.Second); ; {
		l, err = w.acquire6(time.Second)
		if err == nil || !some || time.Now().After(deadline) {
			return l, err
		}
	}
}

// A server knows a port by its MAC address or its client identifier, takes back what
// is released, and refuses what it does not know.
func TestManaged(t *testing.T) {
	alone(func() {
		w := newWire6(t)
		serve := func(first, last string) (stop func()) {
			return w.dnsmasq("--enable-ra", "--dhcp-range=fd07::"+first+",fd07::"+last+",64,10m")
		}
		stop := serve("100", "1ff")
		l, err := w.eventually6(true)
		if again, _ := w.acquire6(time.Second); err != nil || !slices.Equal(again.Addrs, l.Addrs) {
			t.Errorf("asked twice: %+v and %+v, %v", l, again, err)
		}
		addr := l.Addrs[0].Addr().String()
		has := func(addr string) bool { return strings.Contains(w.file("leases"), " "+addr+" ") }
		w.eventually("the server has it in its file, by the MAC address", func() bool {
			return has(addr) && strings.Contains(w.file("leases"), "00:03:00:01:02:00:00:00:00:07")
		})
		plain := w.port
		w.port.ID = []byte("\x00printer")
		other, err := w.acquire6(time.Second)
		if err != nil || other.Addrs[0] == l.Addrs[0] {
			t.Errorf("another client has %v, %v", other.Addrs, err)
		}
		w.port.ID = []byte("\xff\x00\x00\x00\x09\x00\x03\x00\x01\x02\x00\x00\x00\x00\x09")
		if _, err := w.acquire6(time.Second); err != nil {
			t.Error(err)
		}
		w.eventually("the server has the other clients", func() bool {
			return strings.Contains(w.file("leases"), " 00:04:") && strings.Contains(w.file("leases"), "00:03:00:01:02:00:00:00:00:09")
		})
		w.port = plain
		if err := Release6(w.port, l); err != nil {
			t.Error(err)
		}
		w.eventually("the server has it back", func() bool { return !has(addr) })
		if _, err := w.renew6(l, false); !errors.Is(err, ErrRefused) {
			t.Errorf("renewed what was released: %v", err)
		}

		// A server that has other addresses.
		stop()
		if _, err := w.renew6(l, false); !errors.Is(err, ErrSilent) {
			t.Errorf("renewed without a server: %v", err)
		}
		serve("500", "5ff")
		if l, err := w.eventually6(true); err != nil || !strings.HasPrefix(texts(l)[0], "fd07::5") {
			t.Errorf("the new server gave %v, %v", l.Addrs, err)
		}
	})
}
