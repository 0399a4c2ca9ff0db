package network_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/ovs-container-network/ovs-container-network/internal/network"
)

var (
	one6, two6  = netip.MustParsePrefix("fd07::100/64"), netip.MustParsePrefix("fd07::200/64")
	own6        = netip.MustParsePrefix("fd07::ff:fe00:7/64")
	router6     = netip.MustParseAddr("fe80::1")
	toRouter6   = Route{To: netip.MustParsePrefix("fe80::1/128")}
	address4Of0 = netip.MustParsePrefix("10.7.0.50/24")
)

// leased6 is leased, with IPv6 on the segment.
func (r *rig) leased6(managed bool, addrs []netip.Prefix, options ...string) {
	r.t.Helper()
	r.inside.with(func(i *fakeInside) { i.six, i.managed, i.term6 = addrs, managed, 100*time.Second })
	r.leased(options...)
}

func (r *rig) addrs(name string) []netip.Prefix {
	ep, _ := r.findEndpoint(name)
	return ep.Addrs
}

// What there is of IPv6 comes with the lease, and goes with it.
func TestLease6(t *testing.T) {
	for _, managed := range []bool{true, false} {
		inBubble(t, func(t *testing.T, r *rig) {
			r.leased6(managed, []netip.Prefix{one6, own6})
			ep, err := r.CreateEndpoint(context.Background(), endpointRequest("n", "a", ""))
			if err != nil || !slices.Equal(ep.Addrs, []netip.Prefix{address4Of0, one6, own6}) {
				t.Fatalf("got %+v, %v", ep, err)
			}
			j, err := r.Join(context.Background(), JoinRequest{Network: nid("n"), ID: eid("a"), Sandbox: sandbox("a")})
			if err != nil || j.Gateway6 != router6 || !slices.Contains(j.Routes, toRouter6) || !j.Gateway.IsValid() {
				t.Errorf("Join says %+v, %v", j, err)
			}
			if e := r.reportOf("n").Ends[0]; !slices.Contains(e.Addrs, one6.String()) || e.Lease6 == nil || e.Health != "ok" {
				t.Errorf("the report is %+v", e)
			}
			for _, a := range []netip.Prefix{one6, own6} {
				if !r.Uses(nid("n"), a.Addr()) {
					t.Errorf("%s is not in use", a)
				}
			}
			r.leave("n", "a")
			r.must(nil, r.DeleteEndpoint(context.Background(), nid("n"), eid("a")))
			if got := len(r.inside.seen6().released6); got != 0 && !managed || got != 1 && managed || len(r.inside.returned()) != 1 {
				t.Errorf("managed %v: released %v and %v", managed, r.inside.seen6().released6, r.inside.returned())
			}
		})
	}
}

// Where no default route is the network's, IPv6 has none either; a router that
// another link of the container leads to has one already.
func TestRouter6(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.leased6(false, []netip.Prefix{own6}, "bridge=a")
		r.must(nil, r.CreateNetwork(context.Background(), CreateRequest{ID: nid("b"), Options: opts("ipam=external", "dhcp=true", "bridge=b")}))
		r.must(nil, r.CreateNetwork(context.Background(), CreateRequest{ID: nid("c"), Options: opts("ipam=external", "dhcp=true", "bridge=c", "gateway_mode=none")}))
		for network, want := range map[string]bool{"n": true, "c": false} {
			r.endpoint(network, network+"1", "")
			j, err := r.Join(context.Background(), JoinRequest{Network: nid(network), ID: eid(network + "1"), Sandbox: sandbox(network)})
			if err != nil || j.Gateway6.IsValid() != want || slices.Contains(j.Routes, toRouter6) != want {
				t.Errorf("%s: Join says %+v, %v", network, j, err)
			}
		}
		r.endpoint("b", "b1", "")
		j, err := r.Join(context.Background(), JoinRequest{Network: nid("b"), ID: eid("b1"), Sandbox: sandbox("n")})
		if err != nil || j.Gateway6.IsValid() || slices.Contains(j.Routes, toRouter6) {
			t.Errorf("the second link: Join says %+v, %v", j, err)
		}
	})
}

// A segment without IPv6 is listened to for long once in a while.
func TestNoIPv6(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.leased()
		r.endpoint("n", "a", "")
		r.endpoint("n", "b", "")
		time.Sleep(6 * time.Minute)
		r.endpoint("n", "c", "")
		if got, want := fmt.Sprint(r.inside.seen6().listens), "[1.2s 50ms 1.2s]"; got != want {
			t.Errorf("listened for %s, want %s", got, want)
		}
		if got := r.addrs("c"); len(got) != 1 {
			t.Errorf("the addresses are %s", got)
		}
	})
}

// Without a lease there is no IPv6, and what was granted is given back.
func TestOnlyIPv6(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.leased6(true, []netip.Prefix{one6})
		r.inside.silent = true
		refused(t, r.tryEndpoint("n", "a", ""), "no DHCP server answered")
		if !slices.Equal(r.inside.seen6().released6, []netip.Addr{one6.Addr()}) {
			t.Errorf("released %v", r.inside.seen6().released6)
		}
	})
}

// IPv6 is renewed beside the lease, also by another process; it goes when nobody
// prolongs it, without the lease, and comes back.
func TestRenewal6(t *testing.T) {
	for _, managed := range []bool{true, false} {
		inBubble(t, func(t *testing.T, r *rig) {
			r.leased6(managed, []netip.Prefix{one6})
			r.join("n", "a", "")
			time.Sleep(51 * time.Second)
			r.restart()
			time.Sleep(50 * time.Second)
			if got := r.inside.seen6().renewals6; !slices.Equal(got, []string{"false", "false"}) {
				t.Errorf("renewed %q", got)
			}
			r.inside.with(func(i *fakeInside) { i.silent6, i.renewals6 = true, nil })
			time.Sleep(98 * time.Second)
			if got := r.inside.seen6().renewals6; len(got) < 3 || got[0] != "false" || got[len(got)-1] != "true" || len(r.addrs("a")) != 2 {
				t.Errorf("renewed %q; the addresses are %s", got, r.addrs("a"))
			}
			time.Sleep(12 * time.Second)
			if got := r.addrs("a"); !slices.Equal(got, []netip.Prefix{address4Of0}) || len(r.inside.has6("a")) > 0 {
				t.Errorf("the addresses are %s", got)
			}
			if n := r.reportOf("n"); n.Health != "degraded" || !strings.Contains(n.Ends[0].Reason, "IPv6 address fd07::100 is over") {
				t.Errorf("the report is %+v", n)
			}
			r.inside.with(func(i *fakeInside) { i.silent6 = false })
			time.Sleep(time.Minute)
			if got := r.addrs("a"); !slices.Equal(got, []netip.Prefix{address4Of0, one6}) || !slices.Equal(r.inside.has6("a"), []netip.Prefix{one6}) {
				t.Errorf("the addresses are %s", got)
			}
			r.check()
		})
	}
}

// While nobody answers, an address goes at its own end.
func TestOwnEnd6(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.inside.with(func(i *fakeInside) {
			i.six, i.term6, i.ends6 = []netip.Prefix{own6, two6}, 50*time.Minute, map[netip.Addr]time.Duration{own6.Addr(): 30 * time.Minute}
		})
		r.leased()
		r.join("n", "a", "")
		r.inside.with(func(i *fakeInside) { i.silent6 = true })
		for _, step := range []struct {
			after time.Duration
			want  []netip.Prefix
		}{{29*time.Minute + 50*time.Second, []netip.Prefix{own6, two6}}, {30 * time.Second, []netip.Prefix{two6}}, {20 * time.Minute, nil}} {
			time.Sleep(step.after)
			if got := r.addrs("a"); !slices.Equal(got, append([]netip.Prefix{address4Of0}, step.want...)) || len(step.want) == 1 && !slices.Equal(r.inside.has6("a"), step.want) {
				t.Errorf("the addresses are %s, in the container are %s, want %s", got, r.inside.has6("a"), step.want)
			}
		}
		r.check()
	})
}

// What has no end is looked at all the same, and not again and again if nobody is
// there.
func TestEndless6(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.inside.with(func(i *fakeInside) { i.six, i.term6 = []netip.Prefix{own6}, time.Hour })
		r.leased()
		r.join("n", "a", "")
		r.inside.with(func(i *fakeInside) { i.silent6 = true })
		time.Sleep(40 * time.Minute)
		if got := len(r.inside.seen6().renewals6); got < 5 || got > 25 {
			t.Errorf("asked %d times", got)
		}
		if got := r.addrs("a"); len(got) != 2 {
			t.Errorf("the addresses are %s", got)
		}
	})
}

// The prefix of a router that was slower comes to a container that runs, and one whose
// time is over goes, without the others.
func TestSlowerRouter6(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.leased6(false, []netip.Prefix{own6})
		r.join("n", "a", "")
		for _, six := range [][]netip.Prefix{{own6, two6}, {two6}} {
			r.inside.with(func(i *fakeInside) { i.six = six })
			time.Sleep(51 * time.Second)
			if got := r.addrs("a"); !slices.Equal(got, append([]netip.Prefix{address4Of0}, six...)) || !slices.Equal(r.inside.has6("a"), six) {
				t.Errorf("the addresses are %s, in the container are %s, want %s", got, r.inside.has6("a"), six)
			}
			r.restart()
			r.check()
		}
		if r.Uses(nid("n"), own6.Addr()) || !r.Uses(nid("n"), two6.Addr()) {
			t.Error("the old address is in use, or the new one is not")
		}
	})
}

// What is taken back is given up at once, what is given instead is used, and the old
// address is free.
func TestTakenBack6(t *testing.T) {
	for _, managed := range []bool{true, false} {
		inBubble(t, func(t *testing.T, r *rig) {
			r.leased6(managed, []netip.Prefix{one6, own6})
			r.join("n", "a", "")
			r.inside.with(func(i *fakeInside) { i.six = []netip.Prefix{two6, own6} })
			time.Sleep(51 * time.Second)
			if got, want := r.addrs("a"), []netip.Prefix{address4Of0, two6, own6}; !slices.Equal(got, want) || !slices.Equal(r.inside.has6("a"), want[1:]) {
				t.Errorf("the addresses are %s, in the container are %s", got, r.inside.has6("a"))
			}
			if r.Uses(nid("n"), one6.Addr()) || !r.Uses(nid("n"), two6.Addr()) {
				t.Error("the old address is in use, or the new one is not")
			}
			r.inside.with(func(i *fakeInside) { i.six = []netip.Prefix{two6} })
			refused(t, r.tryEndpoint("n", "b", ""), "IPv6 address is given to two", "fd07::200")
			r.inside.with(func(i *fakeInside) { i.six = []netip.Prefix{one6} })
			r.endpoint("n", "c", "")
		})
	}
}

// A kept lease keeps its IPv6.
func TestReleaseLater6(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.leased6(true, []netip.Prefix{one6}, "dhcp.release=10m")
		r.inside.with(func(i *fakeInside) { i.term, i.term6 = 24*time.Hour, 24*time.Hour })
		r.join("n", "a", "", "dhcp.client_id=printer")
		r.leave("n", "a")
		r.must(nil, r.DeleteEndpoint(context.Background(), nid("n"), eid("a")))
		time.Sleep(9 * time.Minute)
		if len(r.inside.seen6().released6) > 0 {
			t.Errorf("released too early: %v", r.inside.seen6().released6)
		}
		r.restart()
		time.Sleep(2 * time.Minute)
		if len(r.inside.seen6().released6) != 1 || len(r.inside.returned()) != 1 {
			t.Errorf("released %v and %v", r.inside.seen6().released6, r.inside.returned())
		}
	})
}

// The link-local address of a port is the fabric's business while IPv6 is looked for,
// and where there is some.
func TestLinkLocal(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.leased6(false, []netip.Prefix{own6})
		r.endpoint("n", "a", "")
		n, _ := r.find("n")
		ep, _ := r.findEndpoint("a")
		ep.MAC = "02:00:00:00:00:07"
		for what, c := range map[string]struct {
			ep   Endpoint
			want string
		}{
			"with IPv6":       {ep, "fe80::ff:fe00:7"},
			"without IPv6":    {Endpoint{MAC: ep.MAC, Lease: ep.Lease, Addrs: ep.Addrs[:1]}, ""},
			"without a lease": {Endpoint{MAC: ep.MAC}, "fe80::ff:fe00:7"},
		} {
			if got, ok := n.LinkLocal(c.ep); ok != (c.want != "") || ok && got.String() != c.want {
				t.Errorf("%s: %s, %v, want %q", what, got, ok, c.want)
			}
		}
		n.Config.DHCP = false
		if got, ok := n.LinkLocal(ep); ok {
			t.Errorf("without dhcp=true: %s", got)
		}
	})
}
