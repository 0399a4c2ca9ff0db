package control_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	. "github.com/ovs-container-network/ovs-container-network/internal/control"
	"github.com/ovs-container-network/ovs-container-network/internal/ipam"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// serve answers on a socket until the test ends.
func serve(t *testing.T, h http.Handler) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "control.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-done })
	return socket
}

// What the daemon knows is what the command line gets, with every address, and
// asked for anew each time.
func TestStatus(t *testing.T) {
	want := Status{
		Version: "1.2.3", Form: "managed plugin", Started: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), HostID: "0123",
		OVS: Database{Connected: true, Since: time.Date(2026, 1, 2, 3, 4, 6, 0, time.UTC), Version: "3.1.0"},
		Networks: []network.Report{{
			ID: "n", Name: "blue", Bridge: "br0", VLAN: "7", VLANMode: network.VLANTag, MTU: 1500, Gateway: network.GatewayDocker,
			Subnets: []network.Subnet{{Prefix: netip.MustParsePrefix("10.0.0.0/24")}, {Prefix: netip.MustParsePrefix("fd00::/64"), Gateway: netip.MustParseAddr("fd00::1")}},
			Phase:   network.PhaseActive, Health: "degraded", Problems: []network.Problem{{Cause: "<&>"}}, Notes: []string{"note"},
			Ends: []network.EndpointReport{{
				ID: "e", MAC: "02:00:00:00:00:01", Addrs: []string{"10.0.0.2/24"}, VLAN: "none", ExternalIDs: map[string]string{"k": "v"},
				EndpointStatus: network.EndpointStatus{Port: "ocn1", OFPort: 3, Linked: true, Health: "ok"},
			}},
		}},
		Pools:   []ipam.Summary{{ID: "local/1/10.0.0.0/24", Prefix: netip.MustParsePrefix("10.0.0.0/24"), Used: 1, Total: 1<<64 - 1}},
		Damaged: []string{"/x: broken"},
	}
	asked := 0
	c := NewClient(serve(t, Daemon{Status: func() Status { asked++; want.HostID = fmt.Sprint(asked); return want }}.Handler()))
	for i := range 3 {
		got, err := c.Status(t.Context())
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" || err != nil || asked != i+1 {
			t.Errorf("asked %d times, %v (-want +got):\n%s", asked, err, diff)
		}
	}
}

// A daemon that is not there, does not answer, or answers nonsense is an error a
// user can act on.
func TestNoStatus(t *testing.T) {
	stale := filepath.Join(t.TempDir(), "stale.sock")
	l, err := net.Listen("unix", stale)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	answer := func(status int, text string) string {
		return serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			fmt.Fprint(w, text)
		}))
	}
	missing := filepath.Join(t.TempDir(), "missing.sock")
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for socket, words := range map[string][]string{
		missing:                     {"cannot reach the daemon at " + missing, "no such file", "is the plugin enabled, or the service running?"},
		stale:                       {"cannot reach the daemon at " + stale, "connection refused"},
		file:                        {"cannot reach the daemon at " + file, "connection refused"},
		answer(500, "out of order"): {"500", "out of order"},
		answer(404, ""):             {"404"},
		answer(200, "{"):            {"EOF"},
		answer(200, "[]"):           {"cannot unmarshal"},
	} {
		s, err := NewClient(socket).Status(t.Context())
		if err == nil {
			t.Errorf("%s: got %+v", socket, s)
			continue
		}
		for _, w := range words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("got %q, want %q in it", err, w)
			}
		}
		if strings.Contains(err.Error(), "http://") {
			t.Errorf("the user is told of a URL: %q", err)
		}
	}
}

// A daemon that hangs is given up with the caller's deadline.
func TestHangingDaemon(t *testing.T) {
	gate := make(chan struct{})
	socket := serve(t, Daemon{Status: func() Status { <-gate; return Status{} }}.Handler())
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := NewClient(socket).Status(ctx)
	close(gate)
	if err == nil || !strings.Contains(err.Error(), "did not answer in time") || !strings.Contains(err.Error(), socket) || strings.Contains(err.Error(), "http://") {
		t.Errorf("got %v", err)
	}
}

// The socket offers what the commands need and nothing else.
func TestOnlyWhatIsOffered(t *testing.T) {
	socket := serve(t, Daemon{Status: func() Status { return Status{} }}.Handler())
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}}
	for call, want := range map[string]int{
		"GET /v1/status": 200, "POST /v1/status": 405, "DELETE /v1/status": 405, "GET /": 404, "GET /v2/status": 404, "POST /NetworkDriver.CreateNetwork": 404,
	} {
		method, path, _ := strings.Cut(call, " ")
		req, err := http.NewRequestWithContext(t.Context(), method, "http://daemon"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %s, want %d", call, resp.Status, want)
		}
		if want == 200 && resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s is answered as %q", call, resp.Header.Get("Content-Type"))
		}
	}
}

// The chassis are asked for only while OVN is used; that they are not known is no
// error of the rest.
func TestWhole(t *testing.T) {
	fleet := Fleet{Northd: "23.03.1", Chassis: []Chassis{{
		Name: "h1", Hostname: "h1.example", Here: true, Encaps: []Encap{{Type: "geneve", IP: "10.99.0.1"}}, OVN: "22.09+",
		Seen: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Behind: 2,
	}}}
	asked := 0
	d := Daemon{Status: func() Status { return Status{Version: "1"} }, Fleet: func(context.Context) Fleet { asked++; return fleet }}
	if s, err := NewClient(serve(t, d.Handler())).Whole(t.Context()); err != nil || s.Fleet != nil || asked != 0 {
		t.Errorf("without OVN: %+v, %v, asked %d times", s.Fleet, err, asked)
	}
	d.Status = func() Status { return Status{Version: "1", Northbound: &Database{Connected: true}} }
	s, err := NewClient(serve(t, d.Handler())).Whole(t.Context())
	if err != nil || s.Fleet == nil || cmp.Diff(fleet, *s.Fleet) != "" {
		t.Errorf("got %+v, %v", s.Fleet, err)
	}
	d.Fleet = nil
	if s, err := NewClient(serve(t, d.Handler())).Whole(t.Context()); err != nil || s.Version != "1" || s.Fleet == nil || s.Fleet.Error == "" {
		t.Errorf("a daemon that does not know of chassis: %+v, %v", s.Fleet, err)
	}
}

// What is to be retired, and how, is what the daemon is told.
func TestRetire(t *testing.T) {
	d := Daemon{Status: func() Status { return Status{} }, Retire: func(_ context.Context, chassis string, force, dryRun bool) Garbage {
		return Garbage{Refused: fmt.Sprint(chassis, force, dryRun)}
	}}
	c := NewClient(serve(t, d.Handler()))
	for _, how := range []struct{ force, dryRun bool }{{}, {force: true}, {dryRun: true}} {
		g, err := c.Retire(t.Context(), "a b&force=x", how.force, how.dryRun)
		if want := fmt.Sprint("a b&force=x", how.force, how.dryRun); err != nil || g.Refused != want {
			t.Errorf("told %q, %v, want %q", g.Refused, err, want)
		}
	}
}
