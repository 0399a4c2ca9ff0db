package dhcp

import (
	"encoding/hex"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// What a server may leave out, and what makes no sense.
func TestLeaseOf(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		options             []dhcpv4.Option
		bits                int
		renew, rebind, ends time.Duration // 0: never
	}{
		"only a time":   {[]dhcpv4.Option{dhcpv4.OptIPAddressLeaseTime(80 * time.Second)}, 8, 40 * time.Second, 70 * time.Second, 80 * time.Second},
		"no end":        {[]dhcpv4.Option{dhcpv4.OptIPAddressLeaseTime(forever)}, 8, 0, 0, 0},
		"no time":       {nil, 8, 0, 0, 0},
		"a mask":        {[]dhcpv4.Option{dhcpv4.OptSubnetMask(net.CIDRMask(22, 32))}, 22, 0, 0, 0},
		"upside down":   {[]dhcpv4.Option{dhcpv4.OptIPAddressLeaseTime(80 * time.Second), dhcpv4.OptRenewTimeValue(79 * time.Second), dhcpv4.OptRebindingTimeValue(100 * time.Second)}, 8, 40 * time.Second, 70 * time.Second, 80 * time.Second},
		"its own times": {[]dhcpv4.Option{dhcpv4.OptIPAddressLeaseTime(80 * time.Second), dhcpv4.OptRenewTimeValue(10 * time.Second), dhcpv4.OptRebindingTimeValue(20 * time.Second)}, 8, 10 * time.Second, 20 * time.Second, 80 * time.Second},
	} {
		mods := []dhcpv4.Modifier{dhcpv4.WithYourIP(net.IPv4(10, 0, 0, 5))}
		for _, o := range c.options {
			mods = append(mods, dhcpv4.WithOption(o))
		}
		ack, err := dhcpv4.New(mods...)
		if err != nil {
			t.Fatal(err)
		}
		l := leaseOf(ack, net.HardwareAddr{2, 0, 0, 0, 0, 1}, at)
		for what, pair := range map[string][2]time.Time{
			"renewal": {l.Renew, at.Add(c.renew)}, "rebinding": {l.Rebind, at.Add(c.rebind)}, "end": {l.Expire, at.Add(c.ends)},
		} {
			want := pair[1]
			if c.ends == 0 {
				want = time.Time{}
			}
			if !pair[0].Equal(want) {
				t.Errorf("%s: %s at %v, want %v", name, what, pair[0], want)
			}
		}
		if l.Addr != netip.PrefixFrom(netip.MustParseAddr("10.0.0.5"), c.bits) {
			t.Errorf("%s: address %v", name, l.Addr)
		}
	}
}

// Whatever a server says is an address of a host with times in order, or an error.
func FuzzGranted(f *testing.F) {
	m, _ := dhcpv4.New(dhcpv4.WithYourIP(net.IPv4(10, 0, 0, 5)), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 0, 0, 1))),
		dhcpv4.WithOption(dhcpv4.OptIPAddressLeaseTime(time.Minute)), dhcpv4.WithOption(dhcpv4.OptRouter(net.IPv4(10, 0, 0, 1))),
		dhcpv4.WithOption(dhcpv4.OptClasslessStaticRoute(&dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4(10, 8, 0, 0), Mask: net.CIDRMask(16, 32)}, Router: net.IPv4(0, 0, 0, 0)})))
	f.Add(m.ToBytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := dhcpv4.FromBytes(b)
		if err != nil {
			return
		}
		at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		l, err := granted(m, nil, at)
		if err != nil {
			return
		}
		if !l.Addr.IsValid() || !l.Addr.Addr().Is4() || l.Addr.Bits() == 0 || l.Addr.Addr().IsUnspecified() {
			t.Errorf("granted %v", l.Addr)
		}
		if !l.Expire.IsZero() && (l.Renew.Before(at) || l.Rebind.Before(l.Renew) || l.Expire.Before(l.Rebind)) {
			t.Errorf("times %v, %v, %v", l.Renew, l.Rebind, l.Expire)
		}
		for _, r := range l.Routes {
			if !r.To.IsValid() || r.Via.IsValid() && !r.Via.Is4() {
				t.Errorf("route %v", r)
			}
		}
	})
}

// Frames that are cut off or lie about their length are nobody's.
func FuzzPayload(f *testing.F) {
	m, _ := dhcpv4.New()
	whole := frame{msg: m}.marshal(net.HardwareAddr{2, 0, 0, 0, 0, 1})
	f.Add(whole)
	f.Add(whole[:50])
	short, _ := hex.DecodeString("ffffffffffff02000000000108004500001c00000000401100000000000000000000004300440008")
	f.Add(short)
	f.Fuzz(func(t *testing.T, b []byte) {
		if p := payloadOf(b); len(p) > len(b) {
			t.Errorf("%d bytes out of %d", len(p), len(b))
		}
	})
}
