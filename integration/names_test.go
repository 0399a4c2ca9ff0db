//go:build linux

package integration

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// What docs/troubleshooting.md says of names outside: whether they resolve, and
// from where Docker's resolver asks, by gateway_mode and engine.
func TestNamesOutside(t *testing.T) {
	t.Parallel()
	for _, engine := range []struct {
		name string
		on   suite
		host bool // the host's servers are asked from the host
	}{{"old-engine", own, false}, {"new-engine", newer, true}} {
		t.Run(engine.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, service, engine.on)
			s := h.nameServer("192.0.2.53")
			h.must(os.WriteFile(h.Path("/etc/resolv.conf"), []byte("nameserver 192.0.2.53\n"), 0o644))
			for _, mode := range []struct {
				name   string
				create []string
				works  bool
				dns    bool // the same with --dns
			}{
				{"docker", nil, true, true},
				// No router leads to the server.
				{"external", []string{"--opt", "gateway_mode=external"}, engine.host, false},
				{"none", []string{"--opt", "gateway_mode=none"}, false, false},
				{"internal", []string{"--internal"}, false, false},
			} {
				h.network("net-"+mode.name, append(mode.create, "--subnet", "10.1.0.0/24")...)
				s.expect(mode.works, engine.host, "--network", "net-"+mode.name)
				s.expect(mode.dns, false, "--network", "net-"+mode.name, "--dns", s.addr)
				h.docker("network", "rm", "net-"+mode.name)
			}
			h.expectClean()
		})
	}
}

// nameServer is a DNS server on the host that knows one answer.
type nameServer struct {
	*host
	addr string

	mu   sync.Mutex
	from []string // who asked
}

const anyAnswer = "198.51.100.7"

// nameServer starts one on an address that the host gets for it.
func (h *host) nameServer(addr string) *nameServer {
	h.t.Helper()
	h.sh("ip addr add " + addr + "/32 dev lo")
	conn, err := listenIn(fmt.Sprintf("/proc/%d/ns/net", h.NSPID()), addr+":53")
	h.must(err)
	s := &nameServer{host: h, addr: addr}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.serve(conn)
	}()
	h.t.Cleanup(func() {
		conn.Close()
		<-ended
	})
	return s
}

// listenIn opens a UDP socket in a network namespace.
func listenIn(ns, addr string) (net.PacketConn, error) {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	defer home.Close()
	there, err := os.Open(ns)
	if err != nil {
		return nil, err
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	conn, err := net.ListenPacket("udp4", addr)
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		return nil, back // and the thread ends with its goroutine
	}
	runtime.UnlockOSThread()
	return conn, err
}

// serve answers every question for an IPv4 address.
func (s *nameServer) serve(conn net.PacketConn) {
	buf := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		s.mu.Lock()
		s.from = append(s.from, from.(*net.UDPAddr).IP.String())
		s.mu.Unlock()
		end := 12 // of the question's name
		for end < n && buf[end] != 0 {
			end += int(buf[end]) + 1
		}
		if end+5 > n {
			continue
		}
		reply := append([]byte{}, buf[:end+5]...)
		reply[2] |= 0x80 // an answer
		reply[3] = 0x80  // recursion is offered
		copy(reply[6:12], []byte{0, 0, 0, 0, 0, 0})
		if buf[end+2] == 1 { // type A
			reply[7] = 1
			reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4)
			reply = append(reply, net.ParseIP(anyAnswer).To4()...)
		}
		conn.WriteTo(reply, from) //nolint:errcheck // who does not hear it asks again
	}
}

// expect looks a name up in a container and checks whether that works, and if it
// does, from where the server was asked.
func (s *nameServer) expect(works, fromHost bool, args ...string) {
	s.t.Helper()
	s.mu.Lock()
	s.from = nil
	s.mu.Unlock()
	// One who gets no answer asks for as long as it is let.
	patience := "3"
	if works {
		patience = "20"
	}
	all := append(append([]string{"docker", "run", "--rm"}, args...), "lab", "timeout", patience, "nslookup", "outside.example")
	out, err := s.Run(s.ctx(), all...)
	if got := strings.Contains(out, anyAnswer); got != works {
		s.t.Errorf("%s: names outside resolve: %v, want %v\n%s\n%v", strings.Join(args, " "), got, works, out, err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, from := range s.from {
		if (from == s.addr) != fromHost {
			s.t.Errorf("%s: asked from %s, want from the host: %v", strings.Join(args, " "), from, fromHost)
		}
	}
	if !works && len(s.from) > 0 || works && len(s.from) == 0 {
		s.t.Errorf("%s: the server was asked by %v", strings.Join(args, " "), s.from)
	}
}
