package dhcp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/mdlayher/ndp"
	"golang.org/x/sys/unix"
)

// conn6 is a packet socket on a port that gets what routers advertise and what is
// sent to DHCPv6 clients. It talks from the link-local address that the container's
// kernel will have, and is found there while that is not up.
type conn6 struct {
	file *os.File
	port Port
	self netip.Addr
}

const (
	ip6Len                   = 40
	serverPort6, clientPort6 = 547, 546
)

var (
	allRouters = netip.MustParseAddr("ff02::2")
	allServers = netip.MustParseAddr("ff02::1:2") // and relays
)

// clientFrames6 takes IPv6, without extension headers, that is an advertisement of a
// router, a solicitation of a neighbour, or UDP to the port of clients.
var clientFrames6 = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 12},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.ETH_P_IPV6, Jf: 9},
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: ethernetLen + 6},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.IPPROTO_ICMPV6, Jf: 3},
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: ethernetLen + ip6Len},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 134, Jt: 4},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 135, Jt: 3, Jf: 4},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.IPPROTO_UDP, Jf: 3},
	{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: ethernetLen + ip6Len + 2},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: clientPort6, Jf: 1},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0},
}

func dial6(p Port) (*conn6, error) {
	c, err := dialFor(p, clientFrames6)
	if err != nil {
		return nil, err
	}
	return &conn6{file: c.file, port: p, self: withMAC(netip.MustParsePrefix("fe80::/64"), p.MAC)}, nil
}

func (c *conn6) close() { c.file.Close() }

// withMAC is the address of a host by its MAC address (RFC 4291, appendix A).
func withMAC(p netip.Prefix, mac net.HardwareAddr) netip.Addr {
	a := p.Masked().Addr().As16()
	copy(a[8:], []byte{mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]})
	return netip.AddrFrom16(a)
}

// heard is what came in: one of the two.
type heard struct {
	router  *ndp.RouterAdvertisement
	message *dhcpv6.Message
	from    netip.Addr
}

// receive waits for something to a client. Who asks for its link-local address
// meanwhile gets an answer.
func (c *conn6) receive(ctx context.Context, until time.Time) (heard, error) {
	if err := c.file.SetReadDeadline(until); err != nil {
		return heard{}, err
	}
	stop := context.AfterFunc(ctx, func() { c.file.SetReadDeadline(time.Unix(1, 0)) }) //nolint:errcheck // the deadline before serves
	defer stop()
	b := make([]byte, 1<<16)
	for {
		n, err := c.file.Read(b)
		switch {
		case ctx.Err() != nil:
			return heard{}, ctx.Err()
		case errors.Is(err, os.ErrDeadlineExceeded):
			return heard{}, errLate
		case err != nil:
			return heard{}, fmt.Errorf("receive IPv6: %w", err)
		}
		p, ok := parse6(b[:n])
		if !ok {
			continue
		}
		h, answer := c.understand(p)
		if answer != nil {
			if err := c.send(answer); err != nil {
				return heard{}, err
			}
		}
		if h.router != nil || h.message != nil {
			return h, nil
		}
	}
}

// understand returns what a packet says, and the answer to it, if it is of the kind
// that is answered at once.
func (c *conn6) understand(p packet6) (h heard, answer []byte) {
	h.from = p.from
	if p.proto == unix.IPPROTO_UDP {
		if m, err := dhcpv6.MessageFromBytes(p.data[udpLen:]); err == nil && p.to == c.self {
			h.message = m
		}
		return h, nil
	}
	if p.hops != ndp.HopLimit || len(p.data) < 2 || p.data[1] != 0 {
		return h, nil // it was routed here, or is of no kind that is known
	}
	m, err := ndp.ParseMessage(p.data)
	if err != nil {
		return h, nil
	}
	switch m := m.(type) {
	case *ndp.RouterAdvertisement:
		if p.from.IsLinkLocalUnicast() {
			h.router = m
		}
	case *ndp.NeighborSolicitation:
		// A kernel that has it already answers the same. Who looks for duplicates, without
		// an address of its own, may be that kernel.
		if m.TargetAddress != c.self || p.from.IsUnspecified() {
			return h, nil
		}
		answer, _ = c.discovery(&ndp.NeighborAdvertisement{
			Solicited: true, Override: true, TargetAddress: c.self,
			Options: []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Target, Addr: c.port.MAC}},
		}, p.from, p.mac)
	}
	return h, answer
}

// packet6 is what the filter let pass.
type packet6 struct {
	from, to netip.Addr
	mac      net.HardwareAddr // of the sender
	proto    byte
	hops     byte
	data     []byte // from the header of UDP or ICMPv6 on
}

// parse6 takes a frame apart, if it is whole.
func parse6(b []byte) (p packet6, ok bool) {
	if len(b) < ethernetLen+ip6Len+udpLen || b[ethernetLen]>>4 != 6 {
		return p, false
	}
	ip := b[ethernetLen:]
	length := int(binary.BigEndian.Uint16(ip[4:]))
	if length < udpLen || length > len(ip)-ip6Len {
		return p, false
	}
	p = packet6{mac: net.HardwareAddr(bytes.Clone(b[6:12])), proto: ip[6], hops: ip[7], data: ip[ip6Len : ip6Len+length]}
	p.from, p.to = netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40]))
	if p.proto == unix.IPPROTO_UDP {
		end := int(binary.BigEndian.Uint16(p.data[4:]))
		if end < udpLen || end > len(p.data) || binary.BigEndian.Uint16(p.data[2:]) != clientPort6 {
			return p, false
		}
		p.data = p.data[:end]
	}
	return p, p.proto == unix.IPPROTO_UDP || p.proto == unix.IPPROTO_ICMPV6
}

func (c *conn6) send(frame []byte) error {
	if _, err := c.file.Write(frame); err != nil {
		return fmt.Errorf("send IPv6: %w", err)
	}
	return nil
}

// groupMAC is where a multicast address is on Ethernet (RFC 2464, section 7).
func groupMAC(to netip.Addr) net.HardwareAddr {
	a := to.As16()
	return net.HardwareAddr{0x33, 0x33, a[12], a[13], a[14], a[15]}
}

// discovery is the frame of a message to a neighbour.
func (c *conn6) discovery(m ndp.Message, to netip.Addr, mac net.HardwareAddr) ([]byte, error) {
	data, err := ndp.MarshalMessageChecksum(m, c.self, to)
	if err != nil {
		return nil, fmt.Errorf("make a message to a neighbour: %w", err)
	}
	return c.frame(to, mac, unix.IPPROTO_ICMPV6, data), nil
}

// solicitation asks the routers of the link to advertise themselves. With an address
// and a MAC address to answer to, they need not do so to everybody, which they may
// not do often.
func (c *conn6) solicitation() ([]byte, error) {
	return c.discovery(&ndp.RouterSolicitation{
		Options: []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: c.port.MAC}},
	}, allRouters, groupMAC(allRouters))
}

// question is the frame of a message to all servers.
func (c *conn6) question(m *dhcpv6.Message) []byte {
	payload := m.ToBytes()
	data := make([]byte, udpLen, udpLen+len(payload))
	length := uint16(udpLen + len(payload))
	binary.BigEndian.PutUint16(data, clientPort6)
	binary.BigEndian.PutUint16(data[2:], serverPort6)
	binary.BigEndian.PutUint16(data[4:], length)
	data = append(data, payload...)
	// The pseudo header: addresses, length, protocol (RFC 8200, section 8.1).
	from, to := c.self.As16(), allServers.As16()
	s := uint32(sum(0, from[:])) + uint32(sum(0, to[:])) + unix.IPPROTO_UDP + uint32(length)
	check := ^sum(s, data)
	if check == 0 {
		check = 0xffff
	}
	binary.BigEndian.PutUint16(data[6:], check)
	return c.frame(allServers, groupMAC(allServers), unix.IPPROTO_UDP, data)
}

func (c *conn6) frame(to netip.Addr, mac net.HardwareAddr, proto byte, data []byte) []byte {
	b := make([]byte, ethernetLen+ip6Len, ethernetLen+ip6Len+len(data))
	copy(b, mac)
	copy(b[6:], c.port.MAC)
	binary.BigEndian.PutUint16(b[12:], unix.ETH_P_IPV6)
	ip := b[ethernetLen:]
	ip[0], ip[6], ip[7] = 0x60, proto, ndp.HopLimit
	binary.BigEndian.PutUint16(ip[4:], uint16(len(data)))
	from, dst := c.self.As16(), to.As16()
	copy(ip[8:], from[:])
	copy(ip[24:], dst[:])
	return append(b, data...)
}
