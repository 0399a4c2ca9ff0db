package link

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// TestShield gives the host end an address, so that the host stack has reason to
// take what comes in, and talks to it from the container.
func TestShield(t *testing.T) {
	for _, shield := range []bool{false, true} {
		inNS(t, func() {
			k := open(t)
			ns, _ := otherNS(t)
			v := pair(1)
			v.Shield = shield
			_, err := k.Ensure(v)
			check(t, err)
			addr(t, v.Host, "192.0.2.1/24")
			move(t, v.Peer, ns, "192.0.2.2/24")
			server, err := net.ListenPacket("udp4", "192.0.2.1:4242")
			check(t, err)
			defer server.Close()
			// The switch would read the frames here.
			tap, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			check(t, err)
			defer unix.Close(tap)
			check(t, unix.Bind(tap, &unix.SockaddrLinklayer{
				Protocol: htons(unix.ETH_P_ALL), Ifindex: get(t, k, v.Host).Index}))

			within(t, ns, func() {
				client, err := net.Dial("udp4", "192.0.2.1:4242")
				check(t, err)
				defer client.Close()
				_, err = client.Write([]byte("hello"))
				check(t, err)
			})
			check(t, server.SetReadDeadline(time.Now().Add(300*time.Millisecond)))
			_, _, err = server.ReadFrom(make([]byte, 16))
			if reached := err == nil; reached == shield {
				t.Errorf("shield %v: frame reached the host stack: %v", shield, reached)
			}
			if _, _, err := unix.Recvfrom(tap, make([]byte, 2048), 0); err != nil {
				t.Errorf("shield %v: frame did not reach the packet socket: %v", shield, err)
			}

			// Turned round, the other state holds.
			v.Shield = !shield
			_, err = k.Ensure(v)
			check(t, err)
			if have, table := shielded(t, k); have[v.Host] == shield || table == shield {
				t.Errorf("shield %v: turned round, shields %v, table %v", shield, have, table)
			}
		})
	}
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

func TestPruneShields(t *testing.T) {
	inNS(t, func() {
		k := open(t)
		check(t, k.PruneShields(func(string) bool { return false }))
		var vs []Veth
		for i := range 3 {
			v := pair(i)
			v.Shield = true
			vs = append(vs, v)
		}
		if errs := k.EnsureAll(vs); errs != nil {
			t.Fatal(errs)
		}
		check(t, k.PruneShields(func(host string) bool { return host == vs[1].Host }))
		have, _ := shielded(t, k)
		if diff := cmp.Diff(map[string]bool{vs[1].Host: true}, have); diff != "" {
			t.Error(diff)
		}
		check(t, k.PruneShields(func(string) bool { return false }))
		if have, table := shielded(t, k); len(have) != 0 || table {
			t.Errorf("shields %v, table %v", have, table)
		}
	})
}

// TestManyShields is about the answers to a large transaction, which must fit
// into the socket's buffer. Links are not needed for that where chains may wait
// for theirs (Linux 6.16).
func TestManyShields(t *testing.T) {
	inNS(t, func() {
		k := open(t)
		want := map[string]bool{}
		for i := range 2500 {
			want[pair(i).Host] = true
		}
		for host, err := range k.shields.set(map[string]bool{"absent": true}) {
			if major, minor := kernelVersion(t); major > 6 || major == 6 && minor >= 16 {
				t.Fatalf("%s: %v", host, err)
			}
			t.Skip("before Linux 6.16 a chain needs its link: ", host, err)
		}
		start := time.Now()
		for _, err := range k.shields.set(want) {
			t.Fatal(err)
		}
		made := time.Since(start)
		have, _ := shielded(t, k)
		if len(have) != len(want)+1 {
			t.Errorf("%d shields", len(have))
		}
		start = time.Now()
		shielded(t, k)
		t.Logf("%d chains made in %v, listed in %v", len(want), made, time.Since(start))
		check(t, k.PruneShields(func(host string) bool { return host == "absent" }))
		if have, _ := shielded(t, k); len(have) != 1 {
			t.Errorf("%d shields", len(have))
		}
	})
}

// TestCapability does everything with no other capability than CAP_NET_ADMIN.
func TestCapability(t *testing.T) {
	inNS(t, func() {
		ns, path := otherNS(t)
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		data[0].Permitted, data[0].Effective = 1<<unix.CAP_NET_ADMIN, 1<<unix.CAP_NET_ADMIN
		check(t, unix.Capset(&hdr, &data[0])) // of this thread, which ends with the test
		k := open(t)
		v := pair(1)
		v.Shield = true
		_, err := k.Ensure(v)
		check(t, err)
		check(t, k.change(v.Peer, change{nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(ns)))}))
		_, err = k.Ensure(v)
		check(t, err)
		names, err := k.LinksIn(path)
		check(t, err)
		if diff := cmp.Diff([]string{v.Peer}, names); diff != "" {
			t.Error(diff)
		}
		check(t, k.Delete(v.Host, v.Alias))
	})
}

func kernelVersion(t *testing.T) (major, minor int) {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	return major, minor
}
