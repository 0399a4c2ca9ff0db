package link

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// inNS runs f on a thread in a fresh network namespace, with mounts of its own.
// The thread is never unlocked and so ends with f, and the namespace with it.
func inNS(t testing.TB, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("OCN_UNIT") == "1" {
			t.Skip("needs root")
		}
		t.Fatal("needs root (OCN_UNIT=1 skips)")
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := errors.New("test ended early")
		defer func() { done <- err }()
		if e := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); e != nil {
			err = e
			return
		}
		if e := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); e != nil {
			err = e
			return
		}
		f()
		err = nil
	}()
	if err := <-done; err != nil && !t.Failed() && !t.Skipped() {
		t.Fatal(err)
	}
}

// within runs f in another namespace, on the calling, locked thread.
func within(t testing.TB, ns netns.NsHandle, f func()) {
	t.Helper()
	here, err := netns.Get()
	check(t, err)
	defer here.Close()
	check(t, netns.Set(ns))
	defer func() { check(t, netns.Set(here)) }()
	f()
}

// otherNS makes a second namespace and mounts it at the path it returns.
func otherNS(t testing.TB) (netns.NsHandle, string) {
	t.Helper()
	here, err := netns.Get()
	check(t, err)
	defer here.Close()
	ns, err := netns.New() // and moves us there
	check(t, err)
	path := filepath.Join(t.TempDir(), "ns")
	check(t, os.WriteFile(path, nil, 0o644))
	check(t, unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""))
	check(t, netns.Set(here))
	t.Cleanup(func() { ns.Close() })
	return ns, path
}

func open(t testing.TB) *Kernel {
	t.Helper()
	k, err := Open()
	check(t, err)
	t.Cleanup(k.Close)
	return k
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func get(t testing.TB, k *Kernel, name string) Info {
	t.Helper()
	in, ok, err := k.Get(name)
	check(t, err)
	if !ok {
		t.Fatalf("no link %s", name)
	}
	return in
}

func exists(t testing.TB, k *Kernel, name string) bool {
	t.Helper()
	_, ok, err := k.Get(name)
	check(t, err)
	return ok
}

// pair is a description nobody else uses.
func pair(i int) Veth {
	return Veth{
		Host: fmt.Sprintf("h%d", i), Peer: fmt.Sprintf("p%d", i),
		PeerMAC: net.HardwareAddr{2, 0, 0, 0, byte(i >> 8), byte(i)},
		MTU:     1442, Alias: fmt.Sprintf("ocn:test:%d", i),
	}
}

// move does what dockerd does with the peer of a pair in Join.
func move(t testing.TB, peer string, ns netns.NsHandle, cidr string) {
	t.Helper()
	l, err := netlink.LinkByName(peer)
	check(t, err)
	check(t, netlink.LinkSetNsFd(l, int(ns)))
	within(t, ns, func() {
		check(t, netlink.LinkSetName(l, "eth0"))
		if cidr != "" {
			addr(t, "eth0", cidr)
		}
		check(t, netlink.LinkSetUp(l))
	})
}

func addr(t testing.TB, link, cidr string) {
	t.Helper()
	l, err := netlink.LinkByName(link)
	check(t, err)
	a, err := netlink.ParseAddr(cidr)
	check(t, err)
	check(t, netlink.AddrAdd(l, a))
}

func txChecksum(t testing.TB, k *Kernel, name string) bool {
	t.Helper()
	on, err := k.ethtool(name, ethtoolValue{cmd: unix.ETHTOOL_GTXCSUM})
	check(t, err)
	return on != 0
}

func shielded(t testing.TB, k *Kernel) (have map[string]bool, table bool) {
	t.Helper()
	k.shields.mu.Lock()
	defer k.shields.mu.Unlock()
	have, err := k.shields.listLocked()
	check(t, err)
	_, chains, table, err := k.shields.haveLocked(nil)
	check(t, err)
	if chains != len(have) {
		t.Errorf("table counts %d chains, %d are listed", chains, len(have))
	}
	return have, table
}
