package dhcp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/mdlayher/ndp"
)

// A container cannot answer the question that is asked over its own device.
func TestForgedByTheContainer(t *testing.T) {
	alone(func() {
		w := newWire(t)
		asker, err := dial(w.port)
		if err != nil {
			t.Fatal(err)
		}
		defer asker.close()
		forger, err := dial(w.port)
		if err != nil {
			t.Fatal(err)
		}
		defer forger.close()
		ack, err := dhcpv4.New(dhcpv4.WithHwAddr(w.port.MAC), dhcpv4.WithYourIP(net.IPv4(10, 7, 0, 66)))
		if err != nil {
			t.Fatal(err)
		}
		ack.OpCode = dhcpv4.OpcodeBootReply
		b := frame{msg: ack}.marshal(w.port.MAC)
		b[14+20+3] = clientPort // of the two ports the one it goes to; the checksum is not looked at
		if payloadOf(b) == nil {
			t.Fatal("the forged frame would not be taken for an answer anyway")
		}
		if _, err := forger.file.Write(b); err != nil {
			t.Fatal(err)
		}
		got, _, err := asker.receive(context.Background(), time.Now().Add(200*time.Millisecond))
		if !errors.Is(err, errLate) {
			t.Errorf("it was answered: %v, %v", got, err)
		}
	})
}

// A server grants what it likes: a time that is too long for arithmetic is no time in
// the past.
func TestLongLease(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, whole := range []time.Duration{0, time.Second, 0x7fffffff * time.Second, 0xfffffffe * time.Second} {
		ack, err := dhcpv4.New(dhcpv4.WithYourIP(net.IPv4(10, 0, 0, 5)), dhcpv4.WithOption(dhcpv4.OptIPAddressLeaseTime(whole)))
		if err != nil {
			t.Fatal(err)
		}
		l := leaseOf(ack, net.HardwareAddr{2, 0, 0, 0, 0, 1}, at)
		if !l.Renew.After(at) || !l.Rebind.After(l.Renew) || !l.Expire.After(l.Rebind) {
			t.Errorf("%v: it is renewed at %v, rebound at %v and ends at %v", whole, l.Renew, l.Rebind, l.Expire)
		}
		l6 := Lease6{From: at}
		l6.times(0, 0, whole, whole)
		if whole > 0 && (!l6.Renew.After(at) || !l6.Rebind.After(l6.Renew) || !l6.Expire.After(l6.Rebind)) {
			t.Errorf("IPv6, %v: it is renewed at %v, rebound at %v and ends at %v", whole, l6.Renew, l6.Rebind, l6.Expire)
		}
	}
}

// One advertisement does not end an address whose time is not nearly over, whether it
// gives it a short time or none.
func TestShortenedByOnePacket(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	router, addr := netip.MustParseAddr("fe80::1"), netip.MustParsePrefix("fd01::ff:fe00:7/64")
	for old, want := range map[time.Duration]time.Duration{24 * time.Hour: 2 * time.Hour, time.Hour: time.Hour, 0: 2 * time.Hour} {
		for _, says := range []*ndp.PrefixInformation{prefix6("fd01::/64", true, true, time.Second, time.Second), prefix6("fd01::/64", true, true, 0, 0)} {
			had := Lease6{Addrs: []netip.Prefix{addr}, Router: router}
			if old > 0 {
				had.Expire = now.Add(old)
			}
			ra := &ndp.RouterAdvertisement{RouterLifetime: time.Hour, Options: []ndp.Option{says}}
			got := advertised(heard{router: ra, from: router}, mac7, now).after(had, now)
			if got.Expire != now.Add(want) || got.Renew.Before(now.Add(10*time.Minute)) || len(got.Addrs) != 1 {
				t.Errorf("of %v are left %v, renewal at %v", old, got.Expire.Sub(now), got.Renew)
			}
		}
	}
	long := Lease6{Addrs: []netip.Prefix{addr}, Ends: map[netip.Addr]time.Time{addr.Addr(): now.Add(48 * time.Hour)}}
	if got := long.after(Lease6{Addrs: long.Addrs, Expire: now.Add(time.Hour)}, now); got.Expire != now.Add(48*time.Hour) {
		t.Errorf("a longer time became %v", got.Expire)
	}
}
