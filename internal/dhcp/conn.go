package dhcp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"
)

// conn is a packet socket on a port that gets what is sent to DHCP clients.
type conn struct {
	file *os.File
	port Port
}

// frame is a message with where it goes.
type frame struct {
	msg      *dhcpv4.DHCPv4
	from, to netip.Addr       // invalid: 0.0.0.0, and everybody
	mac      net.HardwareAddr // of the next hop; nil: everybody
}

const (
	ethernetLen, ipLen, udpLen = 14, 20, 8
	serverPort, clientPort     = 67, 68
	// minPayload is what a BOOTP message has at least (RFC 1542, section 2.1): old
	// relays drop shorter ones.
	minPayload = 300
)

// clientFrames takes IPv4 that is UDP to the port of clients and no later
// fragment, untagged: cards and switches have taken the tag off by then.
var clientFrames = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 12},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.ETH_P_IP, Jf: 8},
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: ethernetLen + 9},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.IPPROTO_UDP, Jf: 6},
	{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: ethernetLen + 6},
	{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: 0x1fff, Jt: 4},
	{Code: unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH, K: ethernetLen},
	{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_IND, K: ethernetLen + 2},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: clientPort, Jf: 1},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0},
}

// incoming drops what the device sends: it is no answer, but ours, or forged by the
// container, which could give itself an address so.
var incoming = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0xfffff000 + 4}, // SKF_AD_OFF + SKF_AD_PKTTYPE
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.PACKET_OUTGOING, Jf: 1},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0},
}

// dial opens the socket in the namespace of the port.
func dial(p Port) (*conn, error) { return dialFor(p, clientFrames) }

func dialFor(p Port, frames []unix.SockFilter) (*conn, error) {
	fd, err := socketIn(p.NetNS)
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	frames = append(slices.Clone(incoming), frames...)
	filter := unix.SockFprog{Len: uint16(len(frames)), Filter: &frames[0]}
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &filter)
	if err == nil {
		// Only now: before it has a protocol, nothing comes in. Of all protocols: such a
		// socket gets its copy before packet filters, which keep the host off a device.
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: p.Index})
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("listen on device %d: %w", p.Index, err)
	}
	return &conn{file: os.NewFile(uintptr(fd), "packet socket"), port: p}, nil
}

func networkOrder(v uint16) uint16 { return v<<8 | v>>8&0xff }

// socketIn opens a packet socket in the namespace mounted at path. A socket stays
// in the namespace where it was opened.
func socketIn(path string) (fd int, err error) {
	open := func() (int, error) {
		return unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	}
	if path == "" {
		return open()
	}
	there, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(there)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		// Never unlocked: the thread ends with this function and with it its stay in
		// another namespace.
		if err = unix.Setns(there, unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("enter namespace %s: %w", path, err)
			return
		}
		fd, err = open()
	}()
	<-done
	return fd, err
}

func (c *conn) close() { c.file.Close() }

// send sends a message with the MAC address of a client.
func (c *conn) send(f frame, client net.HardwareAddr) error {
	if _, err := c.file.Write(f.marshal(client)); err != nil {
		return fmt.Errorf("send a DHCP message: %w", err)
	}
	return nil
}

// errLate says that nothing came until the time that was given.
var errLate = errors.New("nothing came in time")

// receive waits for a message to a client, whose it may be.
func (c *conn) receive(ctx context.Context, until time.Time) (*dhcpv4.DHCPv4, net.HardwareAddr, error) {
	if err := c.file.SetReadDeadline(until); err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { c.file.SetReadDeadline(time.Unix(1, 0)) }) //nolint:errcheck // the deadline before serves
	defer stop()
	b := make([]byte, 1<<16)
	for {
		n, err := c.file.Read(b)
		switch {
		case ctx.Err() != nil:
			return nil, nil, ctx.Err()
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, nil, errLate
		case err != nil:
			return nil, nil, fmt.Errorf("receive DHCP messages: %w", err)
		}
		if payload := payloadOf(b[:n]); payload != nil {
			if m, err := dhcpv4.FromBytes(payload); err == nil && m.OpCode == dhcpv4.OpcodeBootReply {
				return m, net.HardwareAddr(append([]byte(nil), b[6:12]...)), nil
			}
		}
	}
}

// payloadOf returns what is in the datagram of a frame that the filter let pass,
// nil if it is cut off. Checksums are not looked at: between virtual devices they
// may not be there yet.
func payloadOf(b []byte) []byte {
	if len(b) < ethernetLen+ipLen+udpLen {
		return nil
	}
	ip := b[ethernetLen:]
	header, total := int(ip[0]&0xf)*4, int(binary.BigEndian.Uint16(ip[2:]))
	if ip[0]>>4 != 4 || header < ipLen || total > len(ip) || total < header+udpLen {
		return nil
	}
	udp := ip[header:total]
	length := int(binary.BigEndian.Uint16(udp[4:]))
	if length < udpLen || length > len(udp) || binary.BigEndian.Uint16(udp[2:]) != clientPort {
		return nil
	}
	return udp[udpLen:length]
}

// marshal makes the whole Ethernet frame.
func (f frame) marshal(client net.HardwareAddr) []byte {
	payload := f.msg.ToBytes()
	if short := minPayload - len(payload); short > 0 {
		payload = append(payload, make([]byte, short)...)
	}
	from, to := [4]byte{}, [4]byte{255, 255, 255, 255}
	if f.from.Is4() {
		from = f.from.As4()
	}
	if f.to.Is4() {
		to = f.to.As4()
	}
	mac := f.mac
	if len(mac) != 6 {
		mac = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	}
	b := make([]byte, ethernetLen+ipLen+udpLen, ethernetLen+ipLen+udpLen+len(payload))
	copy(b, mac)
	copy(b[6:], client)
	binary.BigEndian.PutUint16(b[12:], unix.ETH_P_IP)
	ip := b[ethernetLen : ethernetLen+ipLen]
	ip[0], ip[8], ip[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(ip[2:], uint16(ipLen+udpLen+len(payload)))
	copy(ip[12:], from[:])
	copy(ip[16:], to[:])
	binary.BigEndian.PutUint16(ip[10:], ^sum(0, ip))
	udp := b[ethernetLen+ipLen:]
	length := uint16(udpLen + len(payload))
	binary.BigEndian.PutUint16(udp, clientPort)
	binary.BigEndian.PutUint16(udp[2:], serverPort)
	binary.BigEndian.PutUint16(udp[4:], length)
	b = append(b, payload...)
	// The pseudo header: addresses, protocol, length (RFC 768).
	s := sum(uint32(unix.IPPROTO_UDP)+uint32(length), b[ethernetLen+12:])
	if s = ^s; s == 0 {
		s = 0xffff
	}
	binary.BigEndian.PutUint16(b[ethernetLen+ipLen+6:], s)
	return b
}

// sum is the checksum of RFC 1071 over b, not yet inverted.
func sum(s uint32, b []byte) uint16 {
	for ; len(b) > 1; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
