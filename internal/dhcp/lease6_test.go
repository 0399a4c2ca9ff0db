package dhcp

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/mdlayher/ndp"
	"golang.org/x/sys/unix"
)

var mac7 = net.HardwareAddr{2, 0, 0, 0, 0, 7}

func prefix6(text string, on, auto bool, preferred, valid time.Duration) *ndp.PrefixInformation {
	p := netip.MustParsePrefix(text)
	return &ndp.PrefixInformation{Prefix: p.Addr(), PrefixLength: uint8(p.Bits()), OnLink: on, AutonomousAddressConfiguration: auto, PreferredLifetime: preferred, ValidLifetime: valid}
}

// Of what a router advertises, addresses are made only of what is meant for that.
func TestAdvertised(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	ra := &ndp.RouterAdvertisement{RouterLifetime: time.Hour, Options: []ndp.Option{
		prefix6("fd01::/64", true, true, time.Minute, time.Hour),
		prefix6("fd02::/64", false, true, time.Minute, 2*time.Hour),
		prefix6("fd03::/64", true, false, time.Minute, time.Hour),
		prefix6("fd04::/48", true, true, time.Minute, time.Hour),
		prefix6("fd05::/64", true, true, 2*time.Hour, time.Hour),
		prefix6("fd06::/64", true, true, 0, 0),
		prefix6("fe80::/64", true, true, time.Minute, time.Hour),
		prefix6("fd01::/64", true, true, time.Minute, time.Hour),
	}}
	from := netip.MustParseAddr("fe80::1")
	l := advertised(heard{router: ra, from: from}, mac7, at)
	if got := texts(l); !slices.Equal(got, []string{"fd01::ff:fe00:7/64", "fd02::ff:fe00:7/128"}) || l.Router != from {
		t.Errorf("got %q over %v", got, l.Router)
	}
	if !l.Renew.Equal(at.Add(30*time.Minute)) || !l.Expire.Equal(at.Add(2*time.Hour)) || l.Rebind.After(l.Expire) {
		t.Errorf("the times are %v, %v, %v", l.Renew, l.Rebind, l.Expire)
	}
	l = advertised(heard{router: &ndp.RouterAdvertisement{Options: []ndp.Option{prefix6("fd01::/64", true, true, ndp.Infinity, ndp.Infinity)}}, from: from}, mac7, at)
	if l.Router.IsValid() || len(l.Addrs) != 1 || !l.Expire.IsZero() || !l.Renew.Equal(at.Add(30*time.Minute)) {
		t.Errorf("without end, and no router: %+v", l)
	}
	ra.Options = nil
	for i := range 20 {
		ra.Options = append(ra.Options, prefix6(fmt.Sprintf("fd01:0:0:%d::/64", i), true, true, time.Minute, time.Hour))
	}
	if got := texts(advertised(heard{router: ra, from: from}, mac7, at)); len(got) != 16 || got[0] != "fd01::ff:fe00:7/64" || got[15] != "fd01::15:0:ff:fe00:7/64" {
		t.Errorf("of twenty prefixes it makes %q", got)
	}
}

// A DHCPv6 server knows a port by its MAC address, or by what is in or made of its client
// identifier.
func TestIdentity6(t *testing.T) {
	for id, want := range map[string]string{
		"":                             "0003 0001 020000000007",
		"\x00printer":                  "0004 ",
		"\x01\x02\x00\x00\x00\x00\x07": "0004 ",
		"\xff\x00\x00\x00\x09\x00\x02\x00\x00\x00\x09\x01": "0002 00000009 01",
	} {
		want := strings.ReplaceAll(want, " ", "")
		duid, iaid, err := Port{MAC: mac7, ID: []byte(id)}.identity6()
		if err != nil {
			t.Fatalf("%x: %v", id, err)
		}
		got := hex.EncodeToString(duid.ToBytes())
		if !strings.HasPrefix(got, want) || want == "0004" && len(got) != 4+32 || want != "0004" && got != want {
			t.Errorf("%x: the DUID is %s, want %s", id, got, want)
		}
		if own := id != "" && id[0] == 0xff; own != (iaid == [4]byte{0, 0, 0, 9}) {
			t.Errorf("%x: the IAID is %x", id, iaid)
		}
	}
}

// reply6 is an answer of a server.
func reply6(t testing.TB, options ...dhcpv6.Option) *dhcpv6.Message {
	m, err := dhcpv6.NewMessage(dhcpv6.WithServerID(&dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: mac7}))
	if err != nil {
		t.Fatal(err)
	}
	m.MessageType = dhcpv6.MessageTypeReply
	for _, o := range options {
		m.AddOption(o)
	}
	return m
}

// What servers grant, and how they refuse.
func TestGranted6(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	id := [4]byte{0, 0, 0, 7}
	ia := func(t1, t2 time.Duration, options ...dhcpv6.Option) *dhcpv6.OptIANA {
		return &dhcpv6.OptIANA{IaId: id, T1: t1, T2: t2, Options: dhcpv6.IdentityOptions{Options: options}}
	}
	addr := func(text string, preferred, valid time.Duration) *dhcpv6.OptIAAddress {
		return &dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP(text), PreferredLifetime: preferred, ValidLifetime: valid}
	}
	status := func(code iana.StatusCode) *dhcpv6.OptStatusCode { return &dhcpv6.OptStatusCode{StatusCode: code} }
	good := addr("fd01::5", 60*time.Second, 100*time.Second)
	ra := &ndp.RouterAdvertisement{Options: []ndp.Option{prefix6("fd01::/64", true, false, time.Minute, time.Hour)}}
	for name, c := range map[string]struct {
		m                   *dhcpv6.Message
		ra                  *ndp.RouterAdvertisement
		want                string
		renew, rebind, ends time.Duration
	}{
		"its own times": {reply6(t, ia(20*time.Second, 40*time.Second, good)), ra, "fd01::5/64", 20 * time.Second, 40 * time.Second, 100 * time.Second},
		"no times":      {reply6(t, ia(0, 0, good)), nil, "fd01::5/128", 30 * time.Second, 48 * time.Second, 100 * time.Second},
		"upside down":   {reply6(t, ia(90*time.Second, 110*time.Second, good)), ra, "fd01::5/64", 30 * time.Second, 48 * time.Second, 100 * time.Second},
		"no end":        {reply6(t, ia(0, 0, addr("fd01::5", forever, forever))), ra, "fd01::5/64", 30 * time.Minute, 0, 0},
		"no binding":    {m: reply6(t, ia(0, 0, status(iana.StatusNoBinding)))},
		"not on link":   {m: reply6(t, status(iana.StatusNotOnLink))},
		"taken back":    {m: reply6(t, ia(0, 0, addr("fd01::5", 0, 0)))},
		"no address":    {m: reply6(t)},
		"a wrong one":   {m: reply6(t, ia(0, 0, addr("fe80::5", time.Minute, time.Minute), addr("::1", time.Minute, time.Minute)))},
		"of another":    {m: reply6(t, &dhcpv6.OptIANA{IaId: [4]byte{1}, Options: dhcpv6.IdentityOptions{Options: dhcpv6.Options{good}}})},
	} {
		l, err := granted6(c.m, id, c.ra, at)
		if c.want == "" {
			if !errors.Is(err, ErrRefused) {
				t.Errorf("%s: %+v, %v", name, l, err)
			}
			continue
		}
		times := [3]time.Time{at.Add(c.renew), at.Add(c.rebind), at.Add(c.ends)}
		if c.ends == 0 {
			times[1], times[2] = time.Time{}, time.Time{}
		}
		if err != nil || !slices.Equal(texts(l), []string{c.want}) || times != [3]time.Time{l.Renew, l.Rebind, l.Expire} || !l.Managed {
			t.Errorf("%s: %+v, %v; want %s and %v", name, l, err, c.want, times)
		}
	}
}

// Frames that are cut off or lie about their length are nobody's, and whatever else
// comes gives addresses of a host, or none.
func FuzzIPv6(f *testing.F) {
	c := &conn6{port: Port{MAC: mac7}, self: withMAC(netip.MustParsePrefix("fe80::/64"), mac7)}
	frame := func(proto byte, data []byte) []byte {
		b := c.frame(c.self, mac7, proto, data)
		from := netip.MustParseAddr("fe80::1").As16()
		copy(b[ethernetLen+8:], from[:])
		return b
	}
	ra, err := ndp.MarshalMessage(&ndp.RouterAdvertisement{RouterLifetime: time.Hour, Options: []ndp.Option{prefix6("fd01::/64", true, true, time.Minute, time.Hour)}})
	if err != nil {
		f.Fatal(err)
	}
	ns, err := ndp.MarshalMessage(&ndp.NeighborSolicitation{TargetAddress: c.self})
	if err != nil {
		f.Fatal(err)
	}
	payload := reply6(f, &dhcpv6.OptIANA{Options: dhcpv6.IdentityOptions{Options: dhcpv6.Options{&dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP("fd01::5"), ValidLifetime: time.Minute}}}}).ToBytes()
	udp := make([]byte, udpLen, udpLen+len(payload))
	binary.BigEndian.PutUint16(udp[2:], clientPort6)
	binary.BigEndian.PutUint16(udp[4:], uint16(udpLen+len(payload)))
	for _, seed := range [][]byte{frame(unix.IPPROTO_ICMPV6, ra), frame(unix.IPPROTO_ICMPV6, ns), frame(unix.IPPROTO_UDP, append(udp, payload...)), nil} {
		f.Add(seed)
	}
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := parse6(b)
		if !ok {
			return
		}
		var l Lease6
		h, _ := c.understand(p)
		switch {
		case h.router != nil:
			l = advertised(h, mac7, at)
		case h.message != nil:
			var err error
			if l, err = granted6(h.message, [4]byte{}, nil, at); err != nil {
				return
			}
		}
		for _, a := range l.Addrs {
			if !a.IsValid() || !a.Addr().Is6() || a.Addr().IsLinkLocalUnicast() || a.Addr().IsMulticast() || a.Addr().IsUnspecified() || a.Bits() == 0 {
				t.Errorf("the address %v", a)
			}
		}
		if len(l.Addrs) > 0 && (l.Renew.Before(at) || !l.Expire.IsZero() && (l.Rebind.Before(l.Renew) || l.Expire.Before(l.Rebind))) {
			t.Errorf("times %v, %v, %v", l.Renew, l.Rebind, l.Expire)
		}
	})
}
