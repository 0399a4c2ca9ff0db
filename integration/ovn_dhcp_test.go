//go:build linux

package integration

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// OVN's DHCP hands out what ovn.dhcp_options says, of every kind of value, beside
// the address that the container has, over IPv4 and IPv6.
func TestOVNDHCP(t *testing.T) {
	onOVN(t, func(t *testing.T, p *project) {
		p.network("six", "--opt", "ovn.switch=ls", "--opt", "ipam=ovn", "--ipv6", "--subnet", "10.66.0.0/24", "--subnet", "fd00:66::/64",
			"--opt", "ovn.dhcp_options=lease_time=600,domain_name=example.org,domain_search_list=a.example,dns_server={192.0.2.53,192.0.2.54,fd00::53},"+
				"bootfile_name=x/y.img,tftp_server=boot.example,classless_static_route={10.0.0.0/8,10.66.0.9},T1=30,domain_search=b.example")
		p.container("aa", "six")
		p.leases("aa", "six")
		p.container("bb", "six")
		p.resolves("bb", "aa", p.address("aa", "six"), p.address6("aa", "six"))
		p.sh(`docker exec -i aa sh -c 'cat >/tmp/show; chmod +x /tmp/show' <<'EOF'
#!/bin/sh
env >>/tmp/env
EOF`)
		p.exec("aa", "udhcpc", "-i", "eth0", "-n", "-q", "-t", "5", "-O", "search", "-O", "bootfile", "-O", "tftp", "-O", "staticroutes", "-s", "/tmp/show")
		env := p.exec("aa", "cat", "/tmp/env")
		for _, want := range []string{
			"ip=" + p.address("aa", "six"), "lease=600", "domain=example.org", "search=a.example", "dns=192.0.2.53 192.0.2.54", "bootfile=x/y.img", "tftp=boot.example",
			"staticroutes=10.0.0.0/8 10.66.0.9", "mtu=1442", "opt58=0000001e",
		} {
			if !strings.Contains(env+"\n", want+"\n") {
				t.Errorf("DHCP does not say %s:\n%s", want, env)
			}
		}
		p.eventually("DHCPv6 offers the address", func() error {
			offer, err := solicit(p.ctx(), p.Path(p.in("aa").netns))
			if err != nil {
				return err
			}
			for what, part := range map[string][]byte{
				"address":          netip.MustParseAddr(p.address6("aa", "six")).AsSlice(),
				"server for names": netip.MustParseAddr("fd00::53").AsSlice(),
				"domain":           []byte("b.example"), // OVN does not write it as RFC 1035 has it
			} {
				if !bytes.Contains(offer, part) {
					return fmt.Errorf("the %s is not in %x", what, offer)
				}
			}
			return nil
		})
		p.docker("rm", "-f", "aa", "bb")
		p.docker("network", "rm", "six")
	})
}

// solicit asks for an address by DHCPv6 on eth0 of a network namespace and returns
// what a server offers (RFC 8415).
func solicit(ctx context.Context, netns string) (offer []byte, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // the thread ends with the goroutine, in that namespace
		offer, err = solicitHere(ctx, netns)
	}()
	<-done
	return offer, err
}

func solicitHere(ctx context.Context, netns string) ([]byte, error) {
	ns, err := os.Open(netns)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	eth0, err := net.InterfaceByName("eth0")
	if err != nil {
		return nil, err
	}
	conn, err := new(net.ListenConfig).ListenPacket(ctx, "udp6", "[::]:546")
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ask := []byte{1, 0x12, 0x34, 0x56} // SOLICIT and the number of the transaction
	option := func(code byte, data ...byte) { ask = append(append(ask, 0, code, 0, byte(len(data))), data...) }
	option(1, append([]byte{0, 3, 0, 1}, eth0.HardwareAddr...)...) // who asks
	option(3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0)                  // an address
	option(6, 0, 23, 0, 24)                                        // and servers and domains for names
	to := &net.UDPAddr{IP: net.ParseIP("ff02::1:2"), Port: 547, Zone: fmt.Sprint(eth0.Index)}
	if _, err := conn.WriteTo(ask, to); err != nil {
		return nil, err
	}
	if err := conn.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return nil, err
	}
	offer := make([]byte, 1500)
	n, _, err := conn.ReadFrom(offer)
	if err == nil && (n < 4 || offer[0] != 2 || !bytes.Equal(offer[1:4], ask[1:4])) {
		err = fmt.Errorf("not an offer: %x", offer[:n])
	}
	return offer[:n], err
}
