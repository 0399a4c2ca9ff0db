package network_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/ovs-container-network/ovs-container-network/internal/network"
)

// leased makes a network n with dhcp=true and --ipam-driver null.
func (r *rig) leased(options ...string) {
	r.t.Helper()
	options = append(options, "ipam=external", "dhcp=true")
	r.must(nil, r.CreateNetwork(context.Background(), CreateRequest{ID: nid("n"), Options: opts(options...)}))
}

func (r *rig) reportOf(name string) Report {
	reports := r.Reports()
	return reports[slices.IndexFunc(reports, func(n Report) bool { return n.ID == nid(name) })]
}

// A lease is there when CreateEndpoint returns, and Join tells what comes with it.
func TestLease(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.leased()
		ep, err := r.CreateEndpoint(context.Background(), endpointRequest("n", "a", ""))
		if err != nil || !slices.Equal(ep.Addrs, []netip.Prefix{netip.MustParsePrefix("10.7.0.50/24")}) {
			t.Fatalf("got %+v, %v", ep, err)
		}
		if again, err := r.CreateEndpoint(context.Background(), endpointRequest("n", "a", "")); err != nil || again.Lease.From != ep.Lease.From {
			t.Errorf("the same call again: %+v, %v", again, err)
		}
		j, err := r.Join(context.Background(), JoinRequest{Network: nid("n"), ID: eid("a"), Sandbox: sandbox("a")})
		if err != nil || j.Gateway.String() != "10.7.0.1" || len(j.Routes) != 1 || j.DisableGateway || j.Link == "" {
			t.Errorf("Join says %+v, %v", j, err)
		}
		n, _ := r.find("n")
		ep, _ = r.findEndpoint("a")
		if p := n.Port(ep); p.MTU != 1400 {
			t.Errorf("the port is %+v", p)
		}
		r.leave("n", "a")
		r.must(nil, r.DeleteEndpoint(context.Background(), nid("n"), eid("a")))
		if !slices.Equal(r.inside.returned(), []netip.Addr{netip.MustParseAddr("10.7.0.50")}) {
			t.Errorf("released is %v", r.inside.returned())
		}
	})
}

// A server may say what cannot be done, or what is so anyway. None of it keeps a
// container from starting.
func TestOddRoutes(t *testing.T) {
	prefix, addr := netip.MustParsePrefix, netip.MustParseAddr
	inBubble(t, func(t *testing.T, r *rig) {
		r.leased()
		for i, c := range []struct {
			router string
			routes []Route
			want   []Route
		}{
			{"10.7.0.1", []Route{{To: prefix("10.7.0.0/24")}, {prefix("10.8.0.0/16"), addr("10.7.0.9")}, {prefix("10.8.0.0/16"), addr("10.7.0.8")}}, []Route{{prefix("10.8.0.0/16"), addr("10.7.0.9")}}},
			{"192.0.2.1", nil, []Route{{To: prefix("192.0.2.1/32")}}},
			{"192.0.2.1", []Route{{To: prefix("192.0.2.1/32")}, {prefix("10.8.0.0/16"), addr("192.0.2.1")}}, []Route{{To: prefix("192.0.2.1/32")}, {prefix("10.8.0.0/16"), addr("192.0.2.1")}}},
			{"10.7.0.1", []Route{{prefix("10.8.0.0/16"), addr("192.0.2.7")}, {prefix("224.0.0.0/4"), addr("10.7.0.1")}}, nil},
		} {
			r.inside.with(func(i *fakeInside) { i.router, i.routes = addr(c.router), c.routes })
			name := string(rune('a' + i))
			r.endpoint("n", name, "")
			j, err := r.Join(context.Background(), JoinRequest{Network: nid("n"), ID: eid(name), Sandbox: sandbox(name)})
			if err != nil || j.Gateway != addr(c.router) || !slices.Equal(j.Routes, c.want) {
				t.Errorf("%+v: Join says %+v, %v", c, j, err)
			}
		}
	})
}

// No answer is an error in time, and nothing stays.
func TestNoLease(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.leased("dhcp.timeout=3s")
		r.inside.silent = true
		start := time.Now()
		refused(t, r.tryEndpoint("n", "a", ""), "no DHCP server answered", "dhcp.timeout")
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("it took %s", took)
		}
		time.Sleep(time.Minute)
		if _, there := r.findEndpoint("a"); there {
			t.Error("the endpoint stays")
		}
	})
}

// Leases are renewed at half their time, as long as the container lives.
func TestRenewal(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.leased()
		r.join("n", "a", "")
		r.inside.asked()
		time.Sleep(130 * time.Second)
		if got := r.inside.asked(); !slices.Equal(got, []string{"40s renew", "1m20s renew", "2m0s renew"}) {
			t.Errorf("the server was asked %q", got)
		}
		r.restart()
		time.Sleep(31 * time.Second)
		if got := r.inside.asked(); !slices.Equal(got, []string{"30s renew"}) {
			t.Errorf("after a restart the server was asked %q", got)
		}
		r.leave("n", "a")
		r.must(nil, r.DeleteEndpoint(context.Background(), nid("n"), eid("a")))
		time.Sleep(time.Hour)
		if got := r.inside.asked(); len(got) > 0 {
			t.Errorf("after the end the server was asked %q", got)
		}
	})
}

// A lease that is renewed for ever is not looked after any more, nor one whose
// container has left.
func TestNothingDue(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.leased()
		r.join("n", "a", "")
		r.join("n", "b", "")
		time.Sleep(41 * time.Second) // both were renewed
		r.leave("n", "b")
		r.inside.with(func(i *fakeInside) { i.term = 0 })
		time.Sleep(time.Minute)
		r.inside.asked()
		time.Sleep(24 * time.Hour)
		if got := r.inside.asked(); len(got) > 0 {
			t.Errorf("the server was asked %q", got)
		}
	})
}

// The address of a lease that ran out while the driver was away is nobody's, and the
// container that comes back can have it.
func TestPartingRunsOut(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.leased("dhcp.release=10m")
		r.inside.term = time.Hour
		r.join("n", "a", "", "dhcp.client_id=printer")
		first, _ := r.findEndpoint("a")
		r.leave("n", "a")
		for range 2 { // Docker asks again if the answer was lost
			r.must(nil, r.DeleteEndpoint(context.Background(), nid("n"), eid("a")))
		}
		if ep, _ := r.findEndpoint("a"); ep.Phase != PhaseParting {
			t.Errorf("the endpoint is %+v", ep)
		}
		r.stop()
		time.Sleep(2 * time.Hour)
		r.load()
		r.run()
		time.Sleep(time.Minute)
		if _, there := r.findEndpoint("a"); there || len(r.inside.returned()) > 0 {
			t.Errorf("the endpoint stays: %v; released %v", there, r.inside.returned())
		}
		r.inside.with(func(i *fakeInside) { clear(i.granted); i.next = first.Addrs[0].Addr() })
		r.join("n", "b", "", "dhcp.client_id=printer")
		if ep, _ := r.findEndpoint("b"); !slices.Equal(ep.Addrs, first.Addrs) {
			t.Errorf("the endpoint is %+v", ep)
		}
		r.check()
	})
}

// A container that lost its address gets one of a lease that never ends, also if that
// does not come onto its link at once.
func TestEndlessNotConfigured(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.leased()
		r.join("n", "a", "")
		r.inside.with(func(i *fakeInside) { i.silent = true })
		time.Sleep(2 * time.Minute)
		r.inside.with(func(i *fakeInside) { i.silent, i.term, i.unset = false, 0, errors.New("not now") })
		time.Sleep(2 * time.Minute)
		if ep, _ := r.findEndpoint("a"); ep.Has4() || len(r.inside.asked()) == 0 {
			t.Errorf("the endpoint is %+v", ep)
		}
		r.inside.with(func(i *fakeInside) { i.unset = nil })
		time.Sleep(2 * time.Minute)
		if ep, _ := r.findEndpoint("a"); !ep.Has4() {
			t.Errorf("the endpoint is %+v", ep)
		}
	})
}

// A short lease has its turn of any server, too.
func TestShortLease(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.leased()
		r.inside.term = 10 * time.Second
		r.join("n", "a", "")
		r.inside.asked()
		r.inside.with(func(i *fakeInside) { i.silent = true })
		time.Sleep(9500 * time.Millisecond)
		if got := r.inside.asked(); !slices.Equal(got, []string{"5s renew", "9s rebind"}) {
			t.Errorf("the server was asked %q", got)
		}
	})
}

// A server that is away is asked again, then any, then the address goes; it comes
// back with a server.
func TestServerAway(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.leased()
		r.join("n", "a", "")
		r.inside.asked()
		r.inside.with(func(i *fakeInside) { i.silent = true })
		time.Sleep(79 * time.Second)
		got := strings.Join(r.inside.asked(), ", ")
		if !strings.Contains(got, "40s renew") || !strings.Contains(got, "1m10s rebind") || strings.Contains(got, "discover") {
			t.Errorf("the server was asked %q", got)
		}
		ep, _ := r.findEndpoint("a")
		if len(ep.Addrs) == 0 {
			t.Error("the address is gone before its time")
		}
		time.Sleep(12 * time.Second)
		ep, _ = r.findEndpoint("a")
		if len(ep.Addrs) > 0 {
			t.Error("the address stays after its time")
		}
		if n := r.reportOf("n"); n.Health != "degraded" || !strings.Contains(n.Ends[0].Reason, "lease of 10.7.0.50 is over") {
			t.Errorf("the report is %+v", n)
		}
		r.inside.with(func(i *fakeInside) { i.silent = false })
		time.Sleep(time.Minute)
		synctest.Wait()
		ep, _ = r.findEndpoint("a")
		if len(ep.Addrs) == 0 || ep.Addrs[0].String() != "10.7.0.50/24" || r.inside.addrs[eid("a")].Addr != ep.Addrs[0] {
			t.Errorf("the endpoint is %+v, in the container is %+v", ep, r.inside.addrs)
		}
		if n := r.reportOf("n"); n.Health != "ok" {
			t.Errorf("the report is %+v", n)
		}
	})
}

// What a server takes back is given up at once, and what it gives instead is used.
func TestLeaseTakenBack(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.leased()
		r.join("n", "a", "")
		r.inside.with(func(i *fakeInside) { i.granted[netip.MustParseAddr("10.7.0.50")] = "somebody" })
		time.Sleep(41 * time.Second)
		ep, _ := r.findEndpoint("a")
		if len(ep.Addrs) != 1 || ep.Addrs[0].String() != "10.7.0.51/24" || r.inside.addrs[eid("a")].Addr != ep.Addrs[0] {
			t.Errorf("the endpoint is %+v, in the container is %+v", ep, r.inside.addrs)
		}
		// The old address is free here, the new one is not.
		r.inside.with(func(i *fakeInside) { i.next = netip.MustParseAddr("10.7.0.51") })
		refused(t, r.tryEndpoint("n", "b", ""), "gave an address to two", "10.7.0.51")
		r.inside.with(func(i *fakeInside) { i.next = netip.MustParseAddr("10.7.0.50") })
		r.endpoint("n", "c", "")
	})
}

// What becomes of a lease.
func TestRelease(t *testing.T) {
	for _, c := range []struct {
		option string
		mac    string
		id     string
		want   bool
	}{
		{"", "", "", true},
		{"", "02:00:00:00:00:07", "", false},
		{"", "", "printer", false},
		{"dhcp.release=immediately", "", "printer", true},
		{"dhcp.release=never", "", "", false},
		{"dhcp.release=1m", "", "", true},
		{"dhcp.release=1m", "", "printer", false}, // it runs out by then
	} {
		inBubble(t, func(t *testing.T, r *rig) {
			var options []string
			if c.option != "" {
				options = append(options, c.option)
			}
			r.leased(options...)
			req := endpointRequest("n", "a", "")
			req.MAC = c.mac
			if c.id != "" {
				req.Options["dhcp.client_id"] = c.id
			}
			_, err := r.CreateEndpoint(context.Background(), req)
			r.must(nil, err)
			r.must(nil, r.tryJoin("n", "a"))
			r.leave("n", "a")
			r.must(nil, r.DeleteEndpoint(context.Background(), nid("n"), eid("a")))
			if got := len(r.inside.returned()); got > 1 || got == 1 != c.want {
				t.Errorf("%+v: released %v", c, r.inside.returned())
			}
		})
	}
}

// A lease is kept for a while after its container, and given back if that does not
// come again, also by another process.
func TestReleaseLater(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.leased("dhcp.release=10m")
		r.inside.term = 24 * time.Hour
		stop := func(name string) {
			t.Helper()
			r.leave("n", name)
			r.must(nil, r.DeleteEndpoint(context.Background(), nid("n"), eid(name)))
		}
		r.join("n", "a", "", "dhcp.client_id=printer")
		first, _ := r.findEndpoint("a")
		stop("a")
		time.Sleep(5 * time.Minute)
		if ep, _ := r.findEndpoint("a"); ep.Phase != PhaseParting || len(r.inside.returned()) > 0 || len(r.fabric.ports) > 0 || len(r.fabric.links) > 0 {
			t.Errorf("the endpoint is %+v, released %v, ports %v, links %v", ep, r.inside.returned(), r.fabric.ports, r.fabric.links)
		}
		if uses := r.Uses(nid("n"), first.Addrs[0].Addr()); uses {
			t.Error("its address is in use")
		}
		r.join("n", "b", "", "dhcp.client_id=printer")
		time.Sleep(20 * time.Minute)
		if _, there := r.findEndpoint("a"); there || len(r.inside.returned()) > 0 {
			t.Errorf("the first endpoint stays: %v; released %v", there, r.inside.returned())
		}
		stop("b")
		time.Sleep(time.Minute)
		r.restart()
		time.Sleep(8 * time.Minute)
		if len(r.inside.returned()) > 0 {
			t.Errorf("released too early: %v", r.inside.returned())
		}
		time.Sleep(2 * time.Minute)
		if _, there := r.findEndpoint("b"); there || len(r.inside.returned()) != 1 || len(r.fabric.ports) > 0 {
			t.Errorf("the endpoint stays: %v; released %v, ports %v", there, r.inside.returned(), r.fabric.ports)
		}

		// Gone with its network, without a word.
		r.join("n", "c", "", "dhcp.client_id=printer")
		stop("c")
		r.must(nil, r.DeleteNetwork(context.Background(), nid("n")))
		time.Sleep(time.Minute)
		if _, there := r.find("n"); there || len(r.inside.returned()) != 1 {
			t.Errorf("the network stays: %v; released %v", there, r.inside.returned())
		}
	})
}

// A client id is text or bytes, makes a MAC address that stays, and is for networks
// where the driver is the client.
func TestClientID(t *testing.T) {
	for text, want := range map[string]string{
		"printer-7": "\x00printer-7", "01:02:42:ac:11:00:02": "\x01\x02\x42\xac\x11\x00\x02", "01:2": "\x0001:2", "": "",
	} {
		if got := (Endpoint{ClientID: text}).ClientIDBytes(); string(got) != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("plain", "10.0.0.0/24")
		refused(t, r.tryEndpoint("plain", "x", "10.0.0.2/24", "dhcp.client_id=a"), "dhcp.client_id", "dhcp=true")
		r.leased()
		var macs []string
		for _, name := range []string{"a", "b"} {
			r.join("n", name, "", "dhcp.client_id=printer")
			ep, _ := r.findEndpoint(name)
			macs = append(macs, ep.MAC)
			r.leave("n", name)
			r.must(nil, r.DeleteEndpoint(context.Background(), nid("n"), eid(name)))
		}
		if macs[0] != macs[1] {
			t.Errorf("the same client id got %q", macs)
		}
	})
}

// The daemon dies while a server is asked: Docker asks again, and gets a lease.
func TestLeaseAcrossRestart(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.leased("dhcp.timeout=20s")
		r.inside.silent = true
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() {
			_, err := r.CreateEndpoint(ctx, endpointRequest("n", "a", ""))
			done <- err
		}()
		time.Sleep(time.Second)
		r.restart() // the call of the old process is cut off later, it writes to the same store
		r.inside.with(func(i *fakeInside) { i.silent = false })
		ep, err := r.CreateEndpoint(context.Background(), endpointRequest("n", "a", ""))
		if err != nil || len(ep.Addrs) != 1 {
			t.Errorf("asked again: %+v, %v", ep, err)
		}
		cancel()
		<-done
	})
}

// An endpoint that got a lease and is never joined is given up.
func TestLeaseNeverJoined(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.leased()
		r.endpoint("n", "a", "")
		time.Sleep(4 * time.Minute)
		if _, there := r.findEndpoint("a"); there {
			t.Error("the endpoint stays")
		}
	})
}

// Options of DHCP that do not go together are refused.
func TestBadDHCPOptions(t *testing.T) {
	for options, words := range map[string][]string{
		"dhcp=true":                                     {`dhcp="true"`, "needs ipam=external"},
		"ipam=external dhcp=maybe":                      {`dhcp="maybe"`, "true, false"},
		"ipam=external dhcp.timeout=3s":                 {`dhcp.timeout="3s"`, "needs dhcp=true"},
		"ipam=external dhcp=true dhcp.timeout=25s":      {`dhcp.timeout="25s"`, "1s..24s"},
		"ipam=external dhcp=true dhcp.timeout=0.5s":     {`dhcp.timeout="0.5s"`, "1s..24s"},
		"ipam=external dhcp=true dhcp.timeout=soon":     {`dhcp.timeout="soon"`, "1s..24s"},
		"ipam=external dhcp=true dhcp.release=721h":     {`dhcp.release="721h"`, "out of range"},
		"ipam=external dhcp=true dhcp.release=tomorrow": {`dhcp.release="tomorrow"`, "immediately, never, or a time"},
		"ipam=external dhcp=true trunk=10":              {`dhcp="true"`, "native VLAN"},
		"ipam=external dhcp=true trunk=10 vlan=none":    {`dhcp="true"`, "native VLAN"},
	} {
		_, err := ParseOptions(opts(strings.Fields(options)...), false, nil)
		refused(t, err, words...)
	}
	c, err := ParseOptions(opts("ipam=external", "dhcp=TRUE", "dhcp.release=Never"), false, nil)
	if err != nil || !c.DHCP || c.DHCPTimeout != 10*time.Second || c.DHCPRelease != ReleaseNever {
		t.Errorf("got %+v, %v", c, err)
	}
}

// An attachment does not make a trunk of which no server is reached.
func TestLeaseOnTrunk(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.leased("vlan=5", "trunk=10")
		refused(t, r.tryEndpoint("n", "a", "", "vlan=none"), `vlan="none"`, "native VLAN")
		refused(t, r.tryEndpoint("n", "a", "", "vlan=none", "trunk=20"), `trunk="20"`, "native VLAN")
		r.endpoint("n", "b", "", "vlan=none", "trunk=none")
	})
}

// An endpoint that is deleted while its server is asked stays deleted, and holds no
// address of what the server then says.
func TestDeletedWhileAsked(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.leased()
		remove := func(string) {
			r.inside.with(func(i *fakeInside) { i.during = nil })
			go func() {
				r.leave("n", "a")
				if err := r.DeleteEndpoint(context.Background(), nid("n"), eid("a")); err != nil {
					t.Error(err)
				}
			}()
			time.Sleep(time.Second)
		}
		free := func(addr string) {
			t.Helper()
			time.Sleep(time.Minute)
			if ep, there := r.findEndpoint("a"); there || len(r.fabric.ports) > 0 {
				t.Errorf("the endpoint is %+v, the ports are %v", ep, r.fabric.ports)
			}
			r.inside.with(func(i *fakeInside) { i.next = netip.MustParseAddr(addr) })
			r.endpoint("n", "b", "")
			r.must(nil, r.DeleteEndpoint(context.Background(), nid("n"), eid("b")))
		}
		r.inside.with(func(i *fakeInside) { i.during = remove })
		if err := r.tryEndpoint("n", "a", ""); err == nil {
			t.Error("CreateEndpoint succeeded")
		}
		free("10.7.0.50")
		r.join("n", "a", "")
		r.inside.with(func(i *fakeInside) { i.during = remove })
		time.Sleep(time.Minute)
		free("10.7.0.50")
	})
}

// An endpoint that is deleted when its server has granted and nobody knows yet gives
// the lease back, once, and by its port.
func TestDeletedWhenGranted(t *testing.T) {
	for _, managed := range []bool{false, true} {
		inBubble(t, func(t *testing.T, r *rig) {
			r.leased6(managed, []netip.Prefix{one6})
			addr := netip.MustParseAddr("10.7.0.50")
			deleted := make(chan error, 1)
			ports := -1
			r.inside.with(func(i *fakeInside) {
				i.after = func() {
					go func() { deleted <- r.DeleteEndpoint(context.Background(), nid("n"), eid("a")) }()
					time.Sleep(time.Second) // it has come as far as it can
				}
				i.releasing = func() error {
					r.fabric.with(func(f *fakeFabric) { ports = len(f.ports) })
					return nil
				}
			})
			r.tryEndpoint("n", "a", "") //nolint:errcheck // nobody waits for the answer any more
			r.must(nil, <-deleted)
			if got := r.inside.returned(); !slices.Equal(got, []netip.Addr{addr}) || ports != 1 {
				t.Errorf("released is %v, with %d ports", got, ports)
			}
			if got := len(r.inside.seen6().released6); got != 0 && !managed || got != 1 && managed {
				t.Errorf("managed %v: of IPv6 %d are released", managed, got)
			}
			time.Sleep(time.Minute)
			if ep, there := r.findEndpoint("a"); there || len(r.fabric.ports)+len(r.fabric.links) > 0 || len(r.inside.granted) > 0 {
				t.Errorf("the endpoint is %+v, the ports are %v, the links %v, the server has %v", ep, r.fabric.ports, r.fabric.links, r.inside.granted)
			}
			r.inside.with(func(i *fakeInside) { i.after, i.next = nil, addr })
			r.endpoint("n", "b", "") // nobody holds the addresses
		})
	}
}

// What was granted to a start that cannot be recorded is given back, once.
func TestGrantedNotStored(t *testing.T) {
	for _, six := range [][]netip.Prefix{nil, {one6}} {
		inBubble(t, func(t *testing.T, r *rig) {
			r.leased6(true, six)
			r.inside.with(func(i *fakeInside) { i.after = func() { r.store.failOn("PutEndpoint") } })
			refused(t, r.tryEndpoint("n", "a", ""), errDisk.Error())
			r.store.mend()
			if len(r.inside.returned()) != 1 || len(r.inside.seen6().released6) != len(six) {
				t.Errorf("released is %v and %v", r.inside.returned(), r.inside.seen6().released6)
			}
			time.Sleep(time.Minute)
			if _, there := r.findEndpoint("a"); there || len(r.fabric.ports) > 0 {
				t.Errorf("the endpoint stays: %v; the ports are %v", there, r.fabric.ports)
			}
		})
	}
}

// What cannot be set in a container is tried again.
func TestNotConfigured(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.leased()
		r.join("n", "a", "")
		r.inside.with(func(i *fakeInside) {
			i.granted[netip.MustParseAddr("10.7.0.50")] = "somebody"
			i.unset = errors.New("not now")
		})
		time.Sleep(41 * time.Second)
		if ep, _ := r.findEndpoint("a"); len(ep.Addrs) > 0 {
			t.Errorf("the endpoint is %+v", ep)
		}
		r.inside.with(func(i *fakeInside) { i.unset = nil })
		time.Sleep(time.Minute)
		if ep, _ := r.findEndpoint("a"); len(ep.Addrs) != 1 || r.inside.addrs[eid("a")].Addr != ep.Addrs[0] {
			t.Errorf("the endpoint is %+v, in the container is %+v", ep, r.inside.addrs)
		}
	})
}

// A process that ends while it gives a lease back leaves that to the next one.
func TestReleaseInterrupted(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.leased("dhcp.release=10m")
		r.inside.term = 24 * time.Hour
		r.join("n", "a", "", "dhcp.client_id=printer")
		r.leave("n", "a")
		r.must(nil, r.DeleteEndpoint(context.Background(), nid("n"), eid("a")))
		asked, held := make(chan struct{}), make(chan struct{})
		r.inside.with(func(i *fakeInside) {
			i.releasing = func() error {
				close(asked)
				<-held
				return errors.New("interrupted")
			}
		})
		<-asked
		r.inside.with(func(i *fakeInside) { i.releasing = nil })
		time.AfterFunc(time.Second, func() { close(held) })
		r.restart()
		time.Sleep(time.Minute)
		if _, there := r.findEndpoint("a"); there || len(r.inside.returned()) != 1 || len(r.fabric.ports) > 0 {
			t.Errorf("the endpoint stays: %v; released %v, ports %v", there, r.inside.returned(), r.fabric.ports)
		}
	})
}
