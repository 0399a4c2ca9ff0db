package dhcp

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/mdlayher/ndp"
)

// ErrNoIPv6 says that there is no IPv6 to be had: no router or server gives
// addresses.
var ErrNoIPv6 = errors.New("no router advertises a prefix for addresses and no DHCPv6 server answered")

const (
	// again6 is how long an answer is waited for before the question is asked for a
	// second time. RFC 4861 and 8415 have 4 seconds and one, but a port is new, and what
	// is sent to a MAC address that was on another one a moment ago may get lost.
	again6 = patience
	// answer6 is how long routers may take for an answer (RFC 4861, section 6.2.6), and
	// some more. lookSoon is when those are looked for that were slower than the first, for
	// which a container does not wait.
	answer6  = 600 * time.Millisecond
	lookSoon = 10 * time.Second
	// routersAgain is how long routers are left alone after that (RFC 4861, section 10).
	// For servers the time doubles.
	routersAgain = 4 * time.Second
	// ManagedWait is how long servers are waited for of which a router says that they
	// are there, and a server for which an answer of its own was chosen.
	ManagedWait = 3 * time.Second
)

// Acquire6 gets what IPv6 there is for a port. If it hears of none for the time
// listen, or until ctx ends, that is ErrNoIPv6.
//
// Routers and servers are asked at the same time, and of servers the first answer is
// taken: a container waits.
func Acquire6(ctx context.Context, p Port, listen time.Duration) (Lease6, error) {
	c, err := dial6(p)
	if err != nil {
		return Lease6{}, err
	}
	defer c.close()
	ask, err := p.message6(dhcpv6.MessageTypeSolicit, netip.Addr{})
	if err != nil {
		return Lease6{}, err
	}
	l, err := c.listen(ctx, ask, listen, func(l Lease6, ra *ndp.RouterAdvertisement, settled bool) bool {
		// Of a router that hardly wants to be the default one, a better one may be there.
		return settled || l.Router.IsValid() && rank(ra) >= 0
	})
	if soon := l.From.Add(lookSoon); err == nil && !l.Managed && soon.Before(l.Renew) {
		l.Renew = soon
	}
	return l, err
}

// listen asks routers, and servers if there is a question for them, and makes the
// most of what it hears. Of routers it is content with what enough says of, which is
// told whether all had the time to answer.
func (c *conn6) listen(ctx context.Context, ask *dhcpv6.Message, wait time.Duration, enough func(l Lease6, ra *ndp.RouterAdvertisement, settled bool) bool) (Lease6, error) {
	begin := time.Now()
	end, settled := begin.Add(wait), begin.Add(answer6)
	routers, servers, pause := begin, begin, again6
	if ask == nil {
		servers = end
	}
	var all []heard
	var ra *ndp.RouterAdvertisement // what they say together
	var plain Lease6
	var offer *dhcpv6.Message
	waits := false
	content := func(now time.Time) bool {
		managed := ra != nil && ra.ManagedConfiguration && ask != nil
		return ra != nil && (len(plain.Addrs) > 0 && enough(plain, ra, !now.Before(settled)) || managed) && (!managed || offer != nil)
	}
	for now := begin; now.Before(end) && !content(now); now = time.Now() {
		if !now.Before(routers) {
			frame, err := c.solicitation()
			if err == nil {
				err = c.send(frame)
			}
			if err != nil {
				return Lease6{}, err
			}
			if routers = begin.Add(again6); !now.Before(routers) {
				routers = now.Add(routersAgain)
			}
		}
		if ask != nil && offer == nil && !now.Before(servers) {
			if err := c.ask(ask, now.Sub(begin)); err != nil {
				return Lease6{}, err
			}
			servers, pause = now.Add(pause), 2*pause
		}
		until := end
		for _, t := range []time.Time{routers, servers, settled} {
			if t.Before(until) && t.After(now) {
				until = t
			}
		}
		h, err := c.receive(ctx, until)
		if ctx.Err() != nil {
			break
		}
		if err != nil && !errors.Is(err, errLate) {
			return Lease6{}, err
		}
		if h.router != nil && len(all) < most6 {
			all = append(all, h)
			sum := together(all)
			ra, plain = sum.router, advertised(sum, c.port.MAC, now)
			if ask != nil && ra.ManagedConfiguration && !waits && end.Before(now.Add(ManagedWait)) {
				waits = true // once, however often routers advertise
				end = now.Add(ManagedWait)
			}
		}
		if ask != nil && offers(ask, h.message) {
			offer = h.message
		}
	}
	err := ErrNoIPv6
	if offer != nil && (ra == nil || ra.ManagedConfiguration) {
		var l Lease6
		if l, err = c.request(ctx, ask, offer, ra); err == nil {
			return l.with(plain), nil
		}
	}
	if len(plain.Addrs) == 0 && (ask != nil || len(plain.Ends) == 0) {
		return Lease6{}, err
	}
	return plain, nil
}

// ask sends a question for which somebody has waited for so long.
func (c *conn6) ask(m *dhcpv6.Message, waited time.Duration) error {
	m.UpdateOption(dhcpv6.OptElapsedTime(min(waited, 0xffff*10*time.Millisecond)))
	return c.send(c.question(m))
}

// offers tells whether an advertisement of a server, of addresses, answers ask.
func offers(ask, m *dhcpv6.Message) bool {
	if m == nil || m.MessageType != dhcpv6.MessageTypeAdvertise || !answers(ask, m) {
		return false
	}
	_, err := granted6(m, iaid(ask), nil, time.Time{})
	return err == nil
}

func answers(ask, m *dhcpv6.Message) bool {
	mine, theirs := ask.Options.ClientID(), m.Options.ClientID()
	return m.TransactionID == ask.TransactionID && mine != nil && theirs != nil && bytes.Equal(mine.ToBytes(), theirs.ToBytes())
}

func iaid(ask *dhcpv6.Message) (id [4]byte) {
	if ia := ask.Options.OneIANA(); ia != nil {
		id = ia.IaId
	}
	return id
}

// request takes what a server offers.
func (c *conn6) request(ctx context.Context, ask, offer *dhcpv6.Message, ra *ndp.RouterAdvertisement) (Lease6, error) {
	l, err := granted6(offer, iaid(ask), ra, time.Now())
	if err != nil {
		return Lease6{}, err
	}
	m, err := c.port.message6(dhcpv6.MessageTypeRequest, l.Addrs[0].Addr(), dhcpv6.WithServerID(offer.Options.ServerID()))
	if err != nil {
		return Lease6{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, ManagedWait)
	defer cancel()
	return c.exchange(ctx, m, ra)
}

// exchange asks servers, again and again, until one replies or ctx ends.
func (c *conn6) exchange(ctx context.Context, m *dhcpv6.Message, ra *ndp.RouterAdvertisement) (Lease6, error) {
	begin := time.Now()
	for wait := again6; ; wait *= 2 {
		at := time.Now()
		if err := c.ask(m, at.Sub(begin)); err != nil {
			return Lease6{}, err
		}
		for until := at.Add(wait); ; {
			h, err := c.receive(ctx, until)
			if errors.Is(err, errLate) {
				break
			}
			if err != nil {
				return Lease6{}, silence(ctx, err)
			}
			if h.message != nil && h.message.MessageType == dhcpv6.MessageTypeReply && answers(m, h.message) {
				return granted6(h.message, iaid(m), ra, at)
			}
		}
	}
}

// Renew6 has what Acquire6 got prolonged: by the server that granted it, or by any if
// all is set (rebinding), or by a router. It asks until ctx ends. The error is
// ErrRefused if the address of a server must not be used any more.
func Renew6(ctx context.Context, p Port, l Lease6, all bool) (Lease6, error) {
	c, err := dial6(p)
	if err != nil {
		return Lease6{}, err
	}
	defer c.close()
	if !l.Managed {
		got, err := c.listen(ctx, nil, time.Hour, func(got Lease6, _ *ndp.RouterAdvertisement, settled bool) bool {
			return settled && !slices.ContainsFunc(l.Addrs, func(a netip.Prefix) bool {
				_, heard := got.Ends[a.Addr()] // also one that is taken back
				return !heard
			})
		})
		if err != nil {
			return Lease6{}, err
		}
		if got = got.after(l, time.Now()); len(got.Addrs) == 0 {
			return Lease6{}, fmt.Errorf("%w (routers have taken back its prefixes)", ErrRefused)
		}
		return got, nil
	}
	kind, mods := dhcpv6.MessageTypeRebind, []dhcpv6.Modifier(nil)
	if !all {
		server, err := serverID(l)
		if err != nil {
			return Lease6{}, err
		}
		kind, mods = dhcpv6.MessageTypeRenew, append(mods, dhcpv6.WithServerID(server))
	}
	m, err := p.message6(kind, l.Addrs[0].Addr(), mods...)
	if err != nil {
		return Lease6{}, err
	}
	got, err := c.exchange(ctx, m, nil)
	if err != nil {
		return Lease6{}, err
	}
	if got.Addrs[0].Addr() == l.Addrs[0].Addr() {
		got.Addrs[0] = l.Addrs[0] // with its subnet
	}
	return got.with(Lease6{Addrs: l.Addrs[1:], Router: l.Router, DNS: l.DNS}), nil
}

// Release6 gives the address of a server back. It does not wait for the answer.
func Release6(p Port, l Lease6) error {
	if !l.Managed {
		return nil
	}
	server, err := serverID(l)
	if err != nil {
		return err
	}
	m, err := p.message6(dhcpv6.MessageTypeRelease, l.Addrs[0].Addr(), dhcpv6.WithServerID(server))
	if err != nil {
		return err
	}
	c, err := dial6(p)
	if err != nil {
		return err
	}
	defer c.close()
	return c.ask(m, 0)
}

func serverID(l Lease6) (dhcpv6.DUID, error) {
	b, err := hex.DecodeString(l.Server)
	if err != nil {
		return nil, fmt.Errorf("server %q: %w", l.Server, err)
	}
	return dhcpv6.DUIDFromBytes(b)
}

// message6 makes a message about the association of a port, with its address if
// there is one.
func (p Port) message6(kind dhcpv6.MessageType, addr netip.Addr, mods ...dhcpv6.Modifier) (*dhcpv6.Message, error) {
	duid, id, err := p.identity6()
	if err != nil {
		return nil, err
	}
	ia := &dhcpv6.OptIANA{IaId: id}
	if addr.IsValid() {
		ia.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: addr.AsSlice()})
	}
	m, err := dhcpv6.NewMessage(append([]dhcpv6.Modifier{dhcpv6.WithClientID(duid), dhcpv6.WithOption(ia)}, mods...)...)
	if err != nil {
		return nil, fmt.Errorf("cannot make a DHCPv6 message: %w", err)
	}
	m.MessageType = kind
	if kind != dhcpv6.MessageTypeRelease {
		m.AddOption(dhcpv6.OptRequestedOption(dhcpv6.OptionDNSRecursiveNameServer))
	}
	return m, nil
}

// identity6 is by what a server knows a port: what is in a client identifier of the
// kind that has both (RFC 4361), else a UUID made of it; without one the MAC address.
func (p Port) identity6() (duid dhcpv6.DUID, id [4]byte, err error) {
	copy(id[:], p.MAC[len(p.MAC)-4:])
	switch {
	case len(p.ID) == 0:
		return &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: p.MAC}, id, nil
	case p.ID[0] == 0xff && len(p.ID) > 4+1+2:
		duid, err = dhcpv6.DUIDFromBytes(p.ID[5:])
		return duid, [4]byte(p.ID[1:5]), err
	}
	hash := sha256.Sum256(p.ID)
	hash[6], hash[8] = hash[6]&0x0f|0x80, hash[8]&0x3f|0x80 // version 8 (RFC 9562)
	return &dhcpv6.DUIDUUID{UUID: [16]byte(hash[:16])}, id, nil
}
