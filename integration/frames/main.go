//go:build linux

// Command frames sends raw Ethernet frames from inside a container, some of
// which no ordinary program would send. Each carries a text by which a capture
// finds it.
//
//	frames DEVICE TEXT [TAG...]
//
// sends every kind of frame that a switch spreads: broadcast, multicast and
// unicast to an unknown address. TAGs are put before the payload, the outermost
// first: a VLAN number, or TPID:NUMBER in hexadecimal and decimal (88a8:100).
//
//	frames -answer DEVICE ADDR VLAN
//
// stands in for an interface of a VLAN that the kernel cannot make without its
// module 8021q: it answers ARP requests and pings for an IPv4 address that come with
// this tag, until it is killed. VLAN 0 is frames without a tag.
package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "frames:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 4 && args[0] == "-answer" {
		return answer(args[1], args[2], args[3])
	}
	if len(args) < 2 {
		return fmt.Errorf("usage: frames DEVICE TEXT [TAG...], or frames -answer DEVICE ADDR VLAN")
	}
	dev, err := net.InterfaceByName(args[0])
	if err != nil {
		return err
	}
	tags, err := parseTags(args[2:])
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return fmt.Errorf("open packet socket: %w", err)
	}
	for _, k := range kinds {
		b := frame(k.dst, dev.HardwareAddr, tags, k.etherType, k.body(args[1]))
		if err := unix.Sendto(fd, b, 0, &unix.SockaddrLinklayer{Ifindex: dev.Index}); err != nil {
			return fmt.Errorf("send %d bytes: %w", len(b), err)
		}
	}
	return nil
}

var (
	broadcast = []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	allNodes  = []byte{0x33, 0x33, 0x00, 0x00, 0x00, 0x01} // of IPv6
	mdns      = []byte{0x01, 0x00, 0x5e, 0x00, 0x00, 0xfb}
	nobody    = []byte{0x02, 0xde, 0xad, 0xbe, 0xef, 0x01}
)

const (
	etherIPv4       = 0x0800
	etherARP        = 0x0806
	etherExperiment = 0x88b5 // IEEE 802, for local experiments
)

// kinds are the frames of one call.
var kinds = []struct {
	dst       []byte
	etherType uint16
	body      func(text string) []byte
}{
	{broadcast, etherARP, arp},
	{broadcast, etherExperiment, named("broadcast")},
	{allNodes, etherExperiment, named("multicast")},
	{mdns, etherExperiment, named("mdns")},
	{nobody, etherExperiment, named("unknown")},
	{nobody, etherIPv4, named("nonsense")}, // in place of a packet
}

// named makes a payload that says its kind and the text.
func named(kind string) func(string) []byte {
	return func(text string) []byte { return []byte("<" + text + "> " + kind) }
}

// arp asks for an address that nobody has, with the text in the padding.
func arp(text string) []byte {
	var b bytes.Buffer
	b.Write([]byte{0, 1, 8, 0, 6, 4, 0, 1}) // Ethernet, IPv4, request
	b.Write([]byte{2, 0, 0, 0, 0, 1, 192, 0, 2, 1})
	b.Write([]byte{0, 0, 0, 0, 0, 0, 192, 0, 2, 2})
	b.Write(named("arp")(text))
	return b.Bytes()
}

type tag struct{ tpid, vlan uint16 }

func parseTags(args []string) ([]tag, error) {
	tags := make([]tag, 0, len(args))
	for _, a := range args {
		t := tag{tpid: 0x8100}
		if tpid, rest, ok := strings.Cut(a, ":"); ok {
			n, err := strconv.ParseUint(tpid, 16, 16)
			if err != nil {
				return nil, err
			}
			t.tpid, a = uint16(n), rest
		}
		n, err := strconv.ParseUint(a, 10, 12)
		if err != nil {
			return nil, err
		}
		t.vlan = uint16(n)
		tags = append(tags, t)
	}
	return tags, nil
}

// frame puts a frame together, of at least 64 bytes.
func frame(dst, src []byte, tags []tag, etherType uint16, body []byte) []byte {
	b := append(append([]byte{}, dst...), src...)
	for _, t := range tags {
		b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, t.tpid), t.vlan)
	}
	b = append(binary.BigEndian.AppendUint16(b, etherType), body...)
	return append(b, make([]byte, max(0, 64-len(b)))...)
}
