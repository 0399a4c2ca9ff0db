package dhcp

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"
)

// wire is a veth pair: the server in a namespace of its own, the client's device in
// another, which is mounted.
type wire struct {
	t    *testing.T
	dir  string
	port Port
}

func run(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// newWire must be called on a locked thread, which it puts into the server's
// namespace for good.
func newWire(t *testing.T) *wire {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("OCN_UNIT") == "1" {
			t.Skip("needs root")
		}
		t.Fatal("needs root (OCN_UNIT=1 skips)")
	}
	w := &wire{t: t, dir: t.TempDir()}
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	// The client's: a process holds it.
	holder := exec.Command("unshare", "--net", "sleep", "600")
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { holder.Process.Kill(); holder.Wait() }) //nolint:errcheck // it was killed
	w.port.NetNS = filepath.Join("/proc", strconv.Itoa(holder.Process.Pid), "ns/net")
	mine, _ := os.Readlink("/proc/thread-self/ns/net")
	for deadline := time.Now().Add(10 * time.Second); ; {
		if theirs, _ := os.Readlink(w.port.NetNS); theirs != "" && theirs != mine {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("unshare did not come up")
		}
		runtime.Gosched()
	}
	pid := strconv.Itoa(holder.Process.Pid)
	run(t, "ip", "link", "add", "srv", "type", "veth", "peer", "name", "cli")
	run(t, "ip", "link", "set", "cli", "netns", pid)
	run(t, "ip", "link", "set", "srv", "up")
	run(t, "ip", "link", "set", "lo", "up")
	run(t, "ip", "addr", "add", "10.7.0.1/24", "dev", "srv")
	run(t, "nsenter", "-t", pid, "-n", "ip", "link", "set", "cli", "address", "02:00:00:00:00:07", "up")
	w.port.Index = w.index(pid)
	w.port.MAC, _ = net.ParseMAC("02:00:00:00:00:07")
	return w
}

func (w *wire) index(pid string) int {
	out, err := exec.Command("nsenter", "-t", pid, "-n", "ip", "-o", "link", "show", "dev", "cli").Output()
	number, _, _ := strings.Cut(string(out), ":")
	n, bad := strconv.Atoi(number)
	if err != nil || bad != nil {
		w.t.Fatalf("%q: %v", out, errors.Join(err, bad))
	}
	return n
}

// serve starts dnsmasq and returns how to end it.
func (w *wire) serve(args ...string) (stop func()) {
	w.t.Helper()
	var log bytes.Buffer
	leases := filepath.Join(w.dir, "leases")
	cmd := exec.Command("dnsmasq", slices.Concat([]string{
		"--keep-in-foreground", "--user=root", "--conf-file=/dev/null", "--port=0", "--interface=srv", "--bind-interfaces",
		"--dhcp-leasefile=" + leases, "--pid-file=", "--log-facility=-", "--log-dhcp", "--no-ping", "--dhcp-authoritative",
	}, args)...)
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	stop = func() {
		cmd.Process.Kill() //nolint:errcheck // it may have ended
		cmd.Wait()         //nolint:errcheck // it was killed
		if w.t.Failed() {
			w.t.Logf("dnsmasq: %s", log.String())
		}
	}
	w.t.Cleanup(stop)
	return stop
}

func (w *wire) acquire(want string) Lease {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	a, _ := netip.ParseAddr(want)
	l, err := Acquire(ctx, w.port, a)
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

// heard counts the frames that arrived at the server's end.
func (w *wire) heard() int {
	w.t.Helper()
	b, err := os.ReadFile("/proc/thread-self/net/dev")
	if err != nil {
		w.t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(b), "srv:")
	n, err := strconv.Atoi(strings.Fields(line)[1])
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// lateContext ends a while after its deadline, as one does whose timer is late.
type lateContext struct{ context.Context }

func (c lateContext) Deadline() (time.Time, bool) { return time.Now(), true }

// A lease from a real server: got, renewed, rebound by another, refused, given back.
func TestClient(t *testing.T) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with its namespace
		testClient(t)
	}()
	<-done
}

func testClient(t *testing.T) {
	w := newWire(t)
	ctx, cancel := context.WithTimeout(context.Background(), 700*time.Millisecond)
	before := w.heard()
	if _, err := Acquire(lateContext{ctx}, w.port, netip.Addr{}); !errors.Is(err, ErrSilent) {
		t.Errorf("without a server: %v", err)
	}
	cancel()
	if n := w.heard() - before; n < 2 || n > 5 {
		t.Errorf("without a server %d frames were sent", n)
	}

	stop := w.serve("--dhcp-range=10.7.0.50,10.7.0.60,255.255.255.0,10m", "--dhcp-option=3,10.7.0.1", "--dhcp-option=6,10.7.0.2,10.7.0.3",
		"--dhcp-option=15,lan.example", "--dhcp-option=26,1400", "--dhcp-option=121,10.8.0.0/16,10.7.0.9,0.0.0.0/0,10.7.0.254,10.9.1.0/24,0.0.0.0")
	l := w.acquire("10.7.0.55")
	want := Lease{
		Addr: netip.MustParsePrefix("10.7.0.55/24"), Router: netip.MustParseAddr("10.7.0.254"), MTU: 1400, Domain: "lan.example",
		DNS:    []netip.Addr{netip.MustParseAddr("10.7.0.2"), netip.MustParseAddr("10.7.0.3")},
		Routes: []Route{{netip.MustParsePrefix("10.8.0.0/16"), netip.MustParseAddr("10.7.0.9")}, {To: netip.MustParsePrefix("10.9.1.0/24")}},
		Server: netip.MustParseAddr("10.7.0.1"),
	}
	compare := cmp.Options{
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
		cmpopts.IgnoreFields(Lease{}, "ServerMAC", "From", "Renew", "Rebind", "Expire"),
	}
	if diff := cmp.Diff(want, l, compare); diff != "" {
		t.Errorf("the lease (-want +got):\n%s", diff)
	}
	if whole, renew := l.Expire.Sub(l.From), l.Renew.Sub(l.From); whole != 10*time.Minute || renew < 4*time.Minute || renew > 6*time.Minute || !l.Rebind.After(l.Renew) || !l.Rebind.Before(l.Expire) {
		t.Errorf("the times are %v, %v, %v, %v", l.From, l.Renew, l.Rebind, l.Expire)
	}

	for _, all := range []bool{false, true} {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		again, err := Renew(ctx, w.port, l, all)
		cancel()
		if err != nil || again.Addr != l.Addr || !again.From.After(l.From) {
			t.Errorf("renewed (all %v): %+v, %v", all, again, err)
		}
	}
	if err := Release(w.port, l); err != nil {
		t.Error(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		b, _ := os.ReadFile(filepath.Join(w.dir, "leases"))
		if !strings.Contains(string(b), "10.7.0.55") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server still has %q", b)
		}
		time.Sleep(20 * time.Millisecond)
	}
	stop()

	// One that does not know the address any more.
	w.serve("--dhcp-range=10.7.0.100,10.7.0.110,255.255.255.0,10m")
	ctx, cancel = context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := Renew(ctx, w.port, l, true); !errors.Is(err, ErrRefused) {
		t.Errorf("after the server has changed: %v", err)
	}
	if l := w.acquire("10.7.0.55"); l.Addr.Addr().Compare(netip.MustParseAddr("10.7.0.99")) <= 0 {
		t.Errorf("the new server gave %v", l.Addr)
	}
	w.port.ID = []byte{0, 'x'}
	if l := w.acquire(""); l.Addr.Addr().Compare(netip.MustParseAddr("10.7.0.99")) <= 0 {
		t.Errorf("with a client id: %v", l.Addr)
	}
	b, _ := os.ReadFile(filepath.Join(w.dir, "leases"))
	if !strings.Contains(string(b), " 00:78") {
		t.Errorf("the server does not know the client id: %q", b)
	}
}

// What a server may leave out, and what makes no sense.
func TestLeaseOf(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		options             []dhcpv4.Option
		bits                int
		renew, rebind, ends time.Duration // 0: never
	}{
		"only a time":   {[]dhcpv4.Option{dhcpv4.OptIPAddressLeaseTime(80 * time.Second)}, 8, 40 * time.Second, 70 * time.Second, 80 * time.Second},
		"no end":        {[]dhcpv4.Option{dhcpv4.OptIPAddressLeaseTime(forever)}, 8, 0, 0, 0},
		"no time":       {nil, 8, 0, 0, 0},
		"a mask":        {[]dhcpv4.Option{dhcpv4.OptSubnetMask(net.CIDRMask(22, 32))}, 22, 0, 0, 0},
		"upside down":   {[]dhcpv4.Option{dhcpv4.OptIPAddressLeaseTime(80 * time.Second), dhcpv4.OptRenewTimeValue(79 * time.Second), dhcpv4.OptRebindingTimeValue(100 * time.Second)}, 8, 40 * time.Second, 70 * time.Second, 80 * time.Second},
		"its own times": {[]dhcpv4.Option{dhcpv4.OptIPAddressLeaseTime(80 * time.Second), dhcpv4.OptRenewTimeValue(10 * time.Second), dhcpv4.OptRebindingTimeValue(20 * time.Second)}, 8, 10 * time.Second, 20 * time.Second, 80 * time.Second},
	} {
		mods := []dhcpv4.Modifier{dhcpv4.WithYourIP(net.IPv4(10, 0, 0, 5))}
		for _, o := range c.options {
			mods = append(mods, dhcpv4.WithOption(o))
		}
		ack, err := dhcpv4.New(mods...)
		if err != nil {
			t.Fatal(err)
		}
		l := leaseOf(ack, net.HardwareAddr{2, 0, 0, 0, 0, 1}, at)
		for what, pair := range map[string][2]time.Time{
			"renewal": {l.Renew, at.Add(c.renew)}, "rebinding": {l.Rebind, at.Add(c.rebind)}, "end": {l.Expire, at.Add(c.ends)},
		} {
			want := pair[1]
			if c.ends == 0 {
				want = time.Time{}
			}
			if !pair[0].Equal(want) {
				t.Errorf("%s: %s at %v, want %v", name, what, pair[0], want)
			}
		}
		if l.Addr != netip.PrefixFrom(netip.MustParseAddr("10.0.0.5"), c.bits) {
			t.Errorf("%s: address %v", name, l.Addr)
		}
	}
}

// Whatever a server says is an address of a host with times in order, or an error.
func FuzzGranted(f *testing.F) {
	m, _ := dhcpv4.New(dhcpv4.WithYourIP(net.IPv4(10, 0, 0, 5)), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 0, 0, 1))),
		dhcpv4.WithOption(dhcpv4.OptIPAddressLeaseTime(time.Minute)), dhcpv4.WithOption(dhcpv4.OptRouter(net.IPv4(10, 0, 0, 1))),
		dhcpv4.WithOption(dhcpv4.OptClasslessStaticRoute(&dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4(10, 8, 0, 0), Mask: net.CIDRMask(16, 32)}, Router: net.IPv4(0, 0, 0, 0)})))
	f.Add(m.ToBytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := dhcpv4.FromBytes(b)
		if err != nil {
			return
		}
		at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		l, err := granted(m, nil, at)
		if err != nil {
			return
		}
		if !l.Addr.IsValid() || !l.Addr.Addr().Is4() || l.Addr.Bits() == 0 || l.Addr.Addr().IsUnspecified() {
			t.Errorf("granted %v", l.Addr)
		}
		if !l.Expire.IsZero() && (l.Renew.Before(at) || l.Rebind.Before(l.Renew) || l.Expire.Before(l.Rebind)) {
			t.Errorf("times %v, %v, %v", l.Renew, l.Rebind, l.Expire)
		}
		for _, r := range l.Routes {
			if !r.To.IsValid() || r.Via.IsValid() && !r.Via.Is4() {
				t.Errorf("route %v", r)
			}
		}
	})
}

// Frames that are cut off or lie about their length are nobody's.
func FuzzPayload(f *testing.F) {
	m, _ := dhcpv4.New()
	whole := frame{msg: m}.marshal(net.HardwareAddr{2, 0, 0, 0, 0, 1})
	f.Add(whole)
	f.Add(whole[:50])
	short, _ := hex.DecodeString("ffffffffffff02000000000108004500001c00000000401100000000000000000000004300440008")
	f.Add(short)
	f.Fuzz(func(t *testing.T, b []byte) {
		if p := payloadOf(b); len(p) > len(b) {
			t.Errorf("%d bytes out of %d", len(p), len(b))
		}
	})
}
