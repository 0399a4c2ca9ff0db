//go:build linux

package integration

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// With userspace-tso-enable containers leave checksums and the segmentation of
// TCP to the switch, where the switch can do it; TCP, and UDP in segments, works
// in every mixture. When the setting goes, the containers that suffer are named,
// and a restart mends them.
func TestTSO(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		if (k.form == plugin) != (k.on == newer) {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			h := bareHost(t, k.form, k.on)
			h.must(h.StartOVSDB(h.ctx()))
			h.ovs("--no-wait", "set", "Open_vSwitch", ".", "other_config:userspace-tso-enable=true")
			h.must(h.StartVswitchd(h.ctx()))
			h.startDocker()
			h.must(h.ImportImage(h.ctx(), image, "lab"))
			h.install()
			h.testTSO()
			h.expectClean()
		})
	}
}

func (h *host) testTSO() {
	addrs := map[string]string{}
	start := func(name string) {
		addrs[name] = fmt.Sprintf("10.1.0.%d", 11+len(addrs))
		h.container(name, "web", "--ip", addrs[name])
	}
	talk := func(from, to string) {
		h.t.Helper()
		h.tcp(from, to, addrs[to])
		h.bulk(from, to, addrs[to])
		h.udpSegments(from, to, addrs[to])
	}
	h.network("web", "--subnet", "10.1.0.0/24", "--opt", "vlan=none")
	start("a1")
	start("a2")
	h.offloads("a1", true)
	h.offloads("a2", true)
	talk("a1", "a2")

	// A tunnel takes such segments only since Open vSwitch 3.5.
	h.ovs("add-port", "br-int", "gnv0", "--", "set", "Interface", "gnv0", "type=geneve", "options:remote_ip=192.0.2.1")
	start("a3")
	h.offloads("a3", h.on == newer)
	talk("a1", "a3")
	talk("a3", "a1")
	h.healthOf("a3", "")
	if h.on == newer {
		h.healthOf("a1", "")
	} else {
		h.healthOf("a1", "gnv0")
		h.docker("restart", "a1")
		h.offloads("a1", false)
		h.healthOf("a1", "")
	}
	h.ovs("del-port", "gnv0")
	h.healthOf("a2", "")

	h.ovs("remove", "Open_vSwitch", ".", "other_config", "userspace-tso-enable")
	h.must(h.KillVswitchd(h.ctx(), syscall.SIGTERM))
	h.must(h.StartVswitchd(h.ctx()))
	h.ping("a2", addrs["a3"])
	h.exec("a3", "iperf3", "-s", "-1", "-D")
	if _, err := h.Run(h.ctx(), "docker", "exec", "a2", "iperf3", "-c", addrs["a3"], "-n", "1M", "--connect-timeout", "2000"); err == nil {
		h.t.Error("TCP of a2 works: what status says of it is not true")
	}
	h.healthOf("a2", "restart the container")
	for _, name := range []string{"a1", "a2", "a3"} {
		h.docker("restart", name)
		h.offloads(name, false)
		h.healthOf(name, "")
	}
	talk("a2", "a3")
	h.docker("rm", "-f", "a1", "a2", "a3")
	h.docker("network", "rm", "web")
}

// offloads checks what a running container leaves to the switch, and that the
// mark on its port says so.
func (h *host) offloads(container string, want bool) {
	h.t.Helper()
	features := map[string]string{}
	for line := range strings.Lines(h.exec(container, "ethtool", "-k", "eth0")) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		features[name], _, _ = strings.Cut(value, " ")
	}
	word := map[bool]string{true: "on", false: "off"}
	expected := map[string]string{}
	for _, name := range []string{"tx-checksum-ip-generic", "tx-tcp-segmentation", "tx-tcp6-segmentation"} {
		expected[name] = word[want]
	}
	if want { // what the switch would drop
		for _, name := range []string{"tx-udp-segmentation", "tx-udp_tnl-segmentation", "tx-checksum-sctp"} {
			expected[name] = "off"
		}
	}
	for name, want := range expected {
		if features[name] != want {
			h.t.Errorf("%s: %s is %q, want %s", container, name, features[name], want)
		}
	}
	marked := strings.Fields(h.ovs("--bare", "--columns=name", "find", "Interface", "external_ids:offload=on"))
	if got := slices.Contains(marked, h.portOf(container, "web")); got != want {
		h.t.Errorf("%s: its port has the mark: %v, want %v", container, got, want)
	}
}

// healthOf waits until status says of a container what it should, or that it is
// well if that is empty.
func (h *host) healthOf(container, want string) {
	h.t.Helper()
	h.eventually("status says of "+container+": "+want, func() error {
		for _, n := range h.status().Networks {
			for _, e := range n.Ends {
				if e.Container == container && (want == "" && e.Health == "ok" || want != "" && e.Health == "degraded" && strings.Contains(e.Reason, want)) {
					return nil
				}
			}
		}
		return fmt.Errorf("it says %+v", h.status().Networks)
	})
}

// bulk checks that so much passes over TCP that it is sent in long segments.
func (h *host) bulk(from, to, addr string) {
	h.t.Helper()
	h.exec(to, "iperf3", "-s", "-1", "-D")
	h.eventually("20 MB pass from "+from+" to "+to, func() error {
		_, err := h.Run(h.ctx(), "docker", "exec", from, "iperf3", "-c", addr, "-n", "20M", "--connect-timeout", "2000")
		return err
	})
}

// udpSegments checks that what a program hands over as one piece of five
// datagrams (UDP_SEGMENT, as QUIC does) arrives as these five.
func (h *host) udpSegments(from, to, addr string) {
	h.t.Helper()
	const size, count = 1000, 5
	var server net.PacketConn
	h.inside(to, func() (err error) {
		server, err = net.ListenPacket("udp4", addr+":9000")
		return err
	})
	defer server.Close()
	h.eventually("segments of UDP pass from "+from+" to "+to, func() error {
		h.inside(from, func() error { return sendSegments(addr+":9000", size, count) })
		server.SetReadDeadline(time.Now().Add(time.Second)) //nolint:errcheck // the read fails then
		for i := range count {
			n, _, err := server.ReadFrom(make([]byte, 70000))
			if err != nil || n != size {
				return fmt.Errorf("datagram %d: %d bytes, %v", i, n, err)
			}
		}
		return nil
	})
}

func sendSegments(addr string, size, count int) error {
	conn, err := net.Dial("udp4", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	raw, err := conn.(*net.UDPConn).SyscallConn()
	if err != nil {
		return err
	}
	var refused error
	if err := raw.Control(func(fd uintptr) { refused = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, size) }); err != nil {
		return err
	}
	_, err = conn.Write(make([]byte, size*count))
	return errors.Join(refused, err)
}

// inside runs f in the network namespace of a container. Sockets that it opens
// stay there.
func (h *host) inside(container string, f func() error) {
	h.t.Helper()
	path := h.Path(h.in(container).netns)
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends
		ns, err := os.Open(path)
		if err == nil {
			defer ns.Close()
			if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err == nil {
				err = f()
			}
		}
		done <- err
	}()
	h.must(<-done)
}
