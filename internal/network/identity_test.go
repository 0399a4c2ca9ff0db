package network_test

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/ovs-container-network/ovs-container-network/internal/network"
)

// ours makes a network with leases whose addresses our IPAM driver books.
func (r *rig) ours(name string, options ...string) {
	r.t.Helper()
	req := CreateRequest{ID: nid(name), Options: opts(append(options, "ipam=external", "dhcp=true")...), Subnets: subnets("10.7.0.0/24")}
	req.Subnets[0].Space = ourSpace
	r.must(nil, r.CreateNetwork(context.Background(), req))
}

// start attaches a container as an engine does that tells our IPAM driver its name, or
// none. The endpoint's name is one of the test's own.
func (r *rig) start(network, name, container, addr string, options ...string) Endpoint {
	r.t.Helper()
	r.pools.mu.Lock()
	r.pools.names = map[string]string{addr: container}
	r.pools.mu.Unlock()
	req := endpointRequest(network, name, addr+"/24", options...)
	req.MAC = req.Options["mac"]
	delete(req.Options, "mac")
	ep, err := r.CreateEndpoint(context.Background(), req)
	r.must(nil, err)
	r.must(nil, r.tryJoin(network, name))
	return ep
}

func (r *rig) end(network, name string) {
	r.t.Helper()
	r.leave(network, name)
	r.must(nil, r.DeleteEndpoint(context.Background(), nid(network), eid(name)))
}

// A container is known to a DHCP server by what its user says, else by its name, else
// it is a new one at each start.
func TestIdentity(t *testing.T) {
	const host = "@01234567"
	long := strings.Repeat("n", 254-len(host))
	for name, c := range map[string]struct {
		container string
		options   []string
		id        string // the client id
		same      bool   // at the next start
	}{
		"by its name":                               {"web-1.a_b", nil, "\x00web-1.a_b" + host, true},
		"by its client id":                          {"web", []string{"dhcp.client_id=printer"}, "\x00printer", true},
		"by its MAC address":                        {"web", []string{"mac=02:00:00:00:00:07"}, "", true},
		"an engine up to 28":                        {"", nil, "", false},
		"an observer has no lease":                  {"web", []string{"mirror.dest=self"}, "", false},
		"of two letters":                            {"ab", nil, "\x00ab" + host, true},
		"a name that looks like bytes, and is none": {"01:02", nil, "", false},
		"not the name of a container":               {"a name", nil, "", false},
		"no name of one letter":                     {"a", nil, "", false},
		"with a line":                               {"web\n", nil, "", false},
		"as long as may be":                         {long, nil, "\x00" + long + host, true},
		"too long":                                  {long + "n", nil, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.ours("n", "mirror.ports=db")
				var seen []Endpoint
				for _, end := range []string{"first", "second"} {
					seen = append(seen, r.start("n", end, c.container, "10.7.0.9", c.options...))
					if shown := r.reportOf("n").Ends[0].ClientID; c.id != "" && "\x00"+shown != c.id {
						t.Errorf("the report shows %q", shown)
					}
					r.end("n", end)
				}
				if got := string(seen[0].ClientIDBytes()); got != c.id {
					t.Errorf("the server sees %q, want %q", got, c.id)
				}
				if same := seen[0].MAC == seen[1].MAC; same != c.same {
					t.Errorf("started again with %s after %s", seen[1].MAC, seen[0].MAC)
				}
				if released := len(r.inside.returned()); (released == 0) != (c.same || seen[0].Observer) {
					t.Errorf("%d leases were given back", released)
				}
			})
		})
	}
}

// A name is an identity for one container at a time: another one that has it, as after
// a rename, starts all the same.
func TestIdentityTaken(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.ours("n", "bridge=br-a")
		r.ours("same", "bridge=br-a")
		r.ours("elsewhere", "bridge=br-b")
		first := r.start("n", "first", "web", "10.7.0.9")
		for network, known := range map[string]bool{"n": false, "same": false, "elsewhere": true} {
			ep := r.start(network, "on "+network, "web", "10.7.0.9")
			if (ep.ClientID == "web@01234567") != known || ep.MAC == first.MAC {
				t.Errorf("on %s it is %q with %s", network, ep.ClientID, ep.MAC)
			}
			r.end(network, "on "+network)
		}
		r.start("n", "explicit", "db", "10.7.0.10", "dhcp.client_id=printer@01234567")
		if ep := r.start("n", "printer", "printer", "10.7.0.11"); ep.ClientID != "" {
			t.Errorf("it is known by what another one was given: %q", ep.ClientID)
		}
		r.kill(sandbox("first"))
		time.Sleep(time.Minute)
		if ep := r.start("n", "third", "web", "10.7.0.12"); ep.ClientID != "web@01234567" || ep.MAC != first.MAC {
			t.Errorf("after the death of the first it is %q with %s", ep.ClientID, ep.MAC)
		}
		r.settle()
		r.check()
	})
}

// The identity is that of the endpoint: it outlives the process, also one that dies
// while the server is asked.
func TestIdentityAcrossRestart(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.ours("n", "dhcp.timeout=20s", "dhcp.release=10m")
		r.inside.term = 24 * time.Hour
		r.inside.silent = true
		r.pools.names = map[string]string{"10.7.0.9": "web"}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() {
			_, err := r.CreateEndpoint(ctx, endpointRequest("n", "a", "10.7.0.9/24"))
			done <- err
		}()
		time.Sleep(time.Second)
		r.restart()
		r.inside.with(func(i *fakeInside) { i.silent = false })
		ep := r.start("n", "a", "", "10.7.0.9") // asked again, of a process that was not told the name
		if ep.ClientID != "web@01234567" || ep.Lease.Addr.Addr().String() != "10.7.0.9" {
			t.Errorf("it is %+v", ep)
		}
		r.restart()
		if again, _ := r.findEndpoint("a"); again.ClientID != "web@01234567" || again.MAC != ep.MAC || !slices.Equal(again.Booked, ep.Booked) {
			t.Errorf("it is %+v after %+v", again, ep)
		}
		r.end("n", "a")
		if parting, _ := r.findEndpoint("a"); parting.Phase != PhaseParting || len(parting.Booked) > 0 {
			t.Errorf("it is %+v", parting)
		}
		if ep := r.start("n", "b", "web", "10.7.0.10"); ep.Lease.Addr.Addr().String() != "10.7.0.9" {
			t.Errorf("the container that came back got %v", ep.Lease.Addr)
		}
		r.settle()
		if _, there := r.findEndpoint("a"); there || len(r.inside.returned()) > 0 {
			t.Errorf("the first endpoint stays: %v; released %v", there, r.inside.returned())
		}
		cancel() // the call of the old process
		<-done
	})
}

// A server is asked for the address that Docker shows, and what it gives instead is
// taken.
func TestBookedIsAskedFor(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.7.0.0/24", "ipam=external", "dhcp=true")
		if ep := r.start("n", "a", "", "10.7.0.9"); ep.Lease.Addr.Addr().String() != "10.7.0.9" {
			t.Errorf("got %v", ep.Lease.Addr)
		}
		r.inside.with(func(i *fakeInside) { i.granted[netip.MustParseAddr("10.7.0.10")] = "somebody" })
		if ep := r.start("n", "b", "", "10.7.0.10"); ep.Lease.Addr.Addr().String() != "10.7.0.50" {
			t.Errorf("got %v", ep.Lease.Addr)
		}
	})
}

// What our IPAM driver has booked is booked as long as the endpoint lives, whatever the
// lease; and what is leased is not.
func TestBookedIsUsed(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.ours("n")
		booked, leased := netip.MustParseAddr("10.7.0.9"), netip.MustParseAddr("10.7.0.50")
		r.inside.with(func(i *fakeInside) { i.granted[booked] = "somebody" })
		r.start("n", "a", "web", "10.7.0.9")
		used, known := r.UsedAddrs(nid("n"))
		if !r.Uses(nid("n"), booked) || r.Uses(nid("n"), leased) || r.Released(nid("n"), booked) || !r.Released(nid("n"), leased) || !known || len(used) != 1 || !used[booked] {
			t.Errorf("used are %v (known %v)", used, known)
		}
		r.kill(sandbox("a"))
		r.loseLink("a")
		time.Sleep(time.Minute)
		if got := r.pools.abandoned(); got != "10.7.0.9" {
			t.Errorf("freed %q", got)
		}
		r.start("n", "b", "web", "10.7.0.11")
		r.leave("n", "b")
		if r.Uses(nid("n"), netip.MustParseAddr("10.7.0.11")) {
			t.Error("used after the container has left")
		}
	})
}
