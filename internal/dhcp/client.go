package dhcp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// ErrRefused is the answer of a server that does not grant, or no longer, what was
// asked for: the address is not to be used.
var ErrRefused = errors.New("the DHCP server refused the address")

// ErrSilent says that no server answered in time.
var ErrSilent = errors.New("no DHCP server answered")

// Port is the device that a lease is for.
type Port struct {
	NetNS string // path of its network namespace; empty: ours
	Index int
	MAC   net.HardwareAddr
	ID    []byte // client identifier; empty: the server goes by the MAC address
}

// patience is how long an answer is waited for before the question is asked again:
// the first frames of a new port may get lost. It doubles, with some chance in it
// (RFC 2131, section 4.1, which was written for slower networks).
const patience = 500 * time.Millisecond

// Acquire gets a lease, if possible of the address want, which may be one that the port
// had and lost. It asks until ctx ends.
func Acquire(ctx context.Context, p Port, want netip.Addr, lost bool) (Lease, error) {
	c, err := dial(p)
	if err != nil {
		return Lease{}, err
	}
	defer c.close()
	for {
		l, err := c.acquire(ctx, p, want, lost)
		if !errors.Is(err, ErrRefused) || ctx.Err() != nil {
			return l, err
		}
		// Somebody else was quicker. Not at once: a server may refuse for long.
		select {
		case <-ctx.Done():
			return l, err
		case <-time.After(patience):
		}
		want = netip.Addr{}
	}
}

// acquire asks once. Where an address was lost, answers have to go to everybody: a port
// that is guarded gets none for an address that is not its own yet.
func (c *conn) acquire(ctx context.Context, p Port, want netip.Addr, lost bool) (Lease, error) {
	mods := []dhcpv4.Modifier{dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), dhcpv4.WithBroadcast(lost)}
	if want.IsValid() {
		mods = append(mods, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(want.AsSlice())))
	}
	ask, err := message(p, mods...)
	if err != nil {
		return Lease{}, err
	}
	offer, _, err := c.exchange(ctx, frame{msg: ask}, dhcpv4.MessageTypeOffer)
	if err != nil {
		return Lease{}, err
	}
	take, err := message(p, dhcpv4.WithTransactionID(offer.TransactionID),
		dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithBroadcast(lost),
		dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(offer.YourIPAddr)),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(offer.ServerIdentifier())))
	if err != nil {
		return Lease{}, err
	}
	at := time.Now()
	ack, mac, err := c.exchange(ctx, frame{msg: take}, dhcpv4.MessageTypeAck)
	if err != nil {
		return Lease{}, err
	}
	return granted(ack, mac, at)
}

// Renew has a lease prolonged by the server that granted it, or by any if all is
// set (rebinding). It asks until ctx ends. The error is ErrRefused if the address
// must not be used any more.
func Renew(ctx context.Context, p Port, l Lease, all bool) (Lease, error) {
	c, err := dial(p)
	if err != nil {
		return Lease{}, err
	}
	defer c.close()
	ask, err := message(p, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithClientIP(l.Addr.Addr().AsSlice()))
	if err != nil {
		return Lease{}, err
	}
	f := frame{msg: ask, from: l.Addr.Addr()}
	if mac, err := net.ParseMAC(l.ServerMAC); err == nil && !all {
		f.to, f.mac = l.Server, mac
	}
	at := time.Now()
	ack, mac, err := c.exchange(ctx, f, dhcpv4.MessageTypeAck)
	if err != nil {
		return Lease{}, err
	}
	got, err := granted(ack, mac, at)
	if err == nil && (got.Addr.Addr() != l.Addr.Addr() || !all && got.Server != l.Server) {
		return Lease{}, fmt.Errorf("the DHCP server %v answers the renewal of %v at %v with %v", got.Server, l.Addr, l.Server, got.Addr)
	}
	return got, err
}

// Release gives a lease back. Nobody answers.
func Release(p Port, l Lease) error {
	mac, err := net.ParseMAC(l.ServerMAC)
	if err != nil {
		return err
	}
	c, err := dial(p)
	if err != nil {
		return err
	}
	defer c.close()
	msg, err := message(p, dhcpv4.WithMessageType(dhcpv4.MessageTypeRelease), dhcpv4.WithClientIP(l.Addr.Addr().AsSlice()),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(l.Server.AsSlice())))
	if err != nil {
		return err
	}
	return c.send(frame{msg: msg, from: l.Addr.Addr(), to: l.Server, mac: mac}, p.MAC)
}

// asked are the options that a server is asked for.
var asked = dhcpv4.WithRequestedOptions(
	dhcpv4.OptionSubnetMask, dhcpv4.OptionClasslessStaticRoute, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer,
	dhcpv4.OptionDomainName, dhcpv4.OptionInterfaceMTU, dhcpv4.OptionRenewTimeValue, dhcpv4.OptionRebindingTimeValue,
)

func message(p Port, mods ...dhcpv4.Modifier) (*dhcpv4.DHCPv4, error) {
	all := []dhcpv4.Modifier{dhcpv4.WithHwAddr(p.MAC)}
	if len(p.ID) > 0 {
		all = append(all, dhcpv4.WithOption(dhcpv4.OptClientIdentifier(p.ID)))
	}
	m, err := dhcpv4.New(append(all, mods...)...)
	if err != nil {
		return nil, fmt.Errorf("cannot make a DHCP message: %w", err)
	}
	if t := m.MessageType(); t == dhcpv4.MessageTypeDiscover || t == dhcpv4.MessageTypeRequest {
		asked(m)
	}
	return m, nil
}

// granted checks what a server granted.
func granted(ack *dhcpv4.DHCPv4, mac net.HardwareAddr, at time.Time) (Lease, error) {
	l := leaseOf(ack, mac, at)
	switch a := l.Addr.Addr(); {
	case !a.Is4() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || !l.Addr.IsValid():
		return Lease{}, fmt.Errorf("the DHCP server %v granted %v, which is no address of a host", l.Server, l.Addr)
	case !l.Server.IsValid():
		return Lease{}, errors.New("the DHCP server does not say who it is")
	}
	return l, nil
}

// exchange sends a question, again and again, until it is answered with one kind of
// message, or refused, or ctx ends.
func (c *conn) exchange(ctx context.Context, f frame, kind dhcpv4.MessageType) (answer *dhcpv4.DHCPv4, from net.HardwareAddr, err error) {
	begin := time.Now()
	for wait := patience; ; wait = min(2*wait, 16*patience) {
		f.msg.NumSeconds = uint16(min(time.Since(begin)/time.Second, 0xffff))
		if err := c.send(f, c.port.MAC); err != nil {
			return nil, nil, err
		}
		until := time.Now().Add(wait + rand.N(wait/4))
		for {
			answer, from, err = c.receive(ctx, until)
			if errors.Is(err, errLate) {
				break
			}
			if err != nil {
				return nil, nil, silence(ctx, err)
			}
			if answer.TransactionID != f.msg.TransactionID || !bytes.Equal(answer.ClientHWAddr, c.port.MAC) {
				continue
			}
			switch answer.MessageType() {
			case kind:
				return answer, from, nil
			case dhcpv4.MessageTypeNak:
				if kind == dhcpv4.MessageTypeAck {
					return nil, nil, fmt.Errorf("%w (%v: %q)", ErrRefused, answer.ServerIdentifier(), answer.Message())
				}
			}
		}
	}
}

// silence says why there was no answer.
func silence(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return ErrSilent
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
