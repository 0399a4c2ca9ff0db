//go:build linux

package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// answer answers ARP requests and pings for addr in one VLAN.
func answer(device, addr, vlan string) error {
	dev, err := net.InterfaceByName(device)
	if err != nil {
		return err
	}
	ip, err := netip.ParseAddr(addr)
	if err != nil || !ip.Is4() {
		return fmt.Errorf("%q is no IPv4 address", addr)
	}
	tag, err := strconv.ParseUint(vlan, 10, 12)
	if err != nil {
		return err
	}
	fd, err := listen(dev.Index)
	if err != nil {
		return err
	}
	fmt.Println("answering")
	frame, control := make([]byte, 1<<16), make([]byte, 256)
	for {
		n, oob, _, _, err := unix.Recvmsg(fd, frame, control, 0)
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		f, got := untag(frame[:n], control[:oob])
		if got != uint16(tag) {
			continue
		}
		reply := replyTo(f, dev.HardwareAddr, ip.As4())
		if reply == nil {
			continue
		}
		if got != 0 {
			reply = withTag(reply, got)
		}
		if err := unix.Sendto(fd, reply, 0, &unix.SockaddrLinklayer{Ifindex: dev.Index}); err != nil {
			return fmt.Errorf("send %d bytes: %w", len(reply), err)
		}
	}
}

// listen opens a socket for all frames of a device, each with what the kernel knows
// of its tag, which it takes out of the frame.
func listen(index int) (fd int, err error) {
	all := int(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL)))
	if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, all); err != nil {
		return 0, fmt.Errorf("open packet socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil {
		return 0, fmt.Errorf("ask for tags: %w", err)
	}
	return fd, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: uint16(all), Ifindex: index})
}

// untag returns a frame without its tag, and the tag's VLAN, 0 for none.
func untag(frame, control []byte) (without []byte, vlan uint16) {
	if messages, err := unix.ParseSocketControlMessage(control); err == nil {
		for _, m := range messages {
			// struct tpacket_auxdata of linux/if_packet.h
			if m.Header.Type == unix.PACKET_AUXDATA && len(m.Data) >= 18 && binary.NativeEndian.Uint32(m.Data)&unix.TP_STATUS_VLAN_VALID != 0 {
				return frame, binary.NativeEndian.Uint16(m.Data[16:]) & 0xfff
			}
		}
	}
	if len(frame) > 18 && binary.BigEndian.Uint16(frame[12:]) == 0x8100 {
		vlan = binary.BigEndian.Uint16(frame[14:]) & 0xfff
		return append(append([]byte{}, frame[:12]...), frame[16:]...), vlan
	}
	return frame, 0
}

func withTag(f []byte, vlan uint16) []byte {
	b := binary.BigEndian.AppendUint16(append([]byte{}, f[:12]...), 0x8100)
	return append(binary.BigEndian.AppendUint16(b, vlan), f[12:]...)
}

// replyTo is the answer to an ARP request or a ping for an address, nil for all else.
func replyTo(f []byte, mac net.HardwareAddr, ip [4]byte) []byte {
	if len(f) < 42 || [6]byte(f[6:12]) == [6]byte(mac) {
		return nil
	}
	r := append([]byte{}, f...)
	copy(r[0:6], f[6:12])
	copy(r[6:12], mac)
	switch binary.BigEndian.Uint16(f[12:]) {
	case etherARP:
		if binary.BigEndian.Uint16(f[20:]) != 1 || [4]byte(f[38:42]) != ip {
			return nil
		}
		r[21] = 2 // reply
		copy(r[32:42], f[22:32])
		copy(r[22:28], mac)
		copy(r[28:32], ip[:])
		return r
	case etherIPv4:
		icmp := 14 + int(f[14]&0xf)*4
		if f[23] != unix.IPPROTO_ICMP || [4]byte(f[30:34]) != ip || len(f) < icmp+8 || f[icmp] != 8 {
			return nil
		}
		copy(r[26:30], f[30:34])
		copy(r[30:34], f[26:30])
		r[icmp] = 0 // echo reply: the sum of the rest grows by what the type lost
		sum := uint32(binary.BigEndian.Uint16(f[icmp+2:])) + 8<<8
		binary.BigEndian.PutUint16(r[icmp+2:], uint16(sum+sum>>16))
		return r
	}
	return nil
}
