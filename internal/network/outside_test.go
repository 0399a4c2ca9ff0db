package network_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/ovs-container-network/ovs-container-network/internal/network"
)

// With ipam=external nothing that Docker has booked is used, and the link is the
// driver's to bring in: in the Join, or as soon as there is a sandbox.
func TestSelfWired(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24", "ipam=external")
		r.must(nil, r.tryCreate("n", "10.0.0.0/24", "ipam=external"))
		if r.tryCreate("n", "10.0.1.0/24", "ipam=external") == nil {
			t.Error("the same network with another subnet is accepted")
		}
		r.create("same", "10.0.0.0/24", "ipam=external") // no overlap of what is not used
		n, _ := r.find("n")
		if !n.SelfWired() || len(n.Subnets) > 0 {
			t.Errorf("the network is %+v", n)
		}
		r.endpoint("n", "a", "10.0.0.2/24")
		r.endpoint("same", "b", "10.0.0.2/24")
		j, err := r.Join(context.Background(), JoinRequest{Network: nid("n"), ID: eid("a"), Sandbox: sandbox("a")})
		if err != nil || j.Link != "" || !j.DisableGateway || j.Gateway.IsValid() {
			t.Errorf("Join says %+v, %v", j, err)
		}
		if ep, _ := r.findEndpoint("a"); len(ep.Addrs) > 0 || r.inside.at("a") != sandbox("a") {
			t.Errorf("the endpoint is %+v, its link in %q", ep, r.inside.at("a"))
		}

		r.kill(sandbox("b")) // it is not made yet
		r.must(nil, r.tryJoin("same", "b"))
		synctest.Wait()
		if r.inside.at("b") != "" {
			t.Error("wired into a sandbox that is not there")
		}
		time.Sleep(time.Second)
		r.revive(sandbox("b"))
		time.Sleep(5 * time.Millisecond)
		if r.inside.at("b") != sandbox("b") {
			t.Error("not wired into its sandbox")
		}

		r.inside.fail = errors.New("no room")
		r.endpoint("n", "c", "10.0.0.3/24")
		refused(t, r.tryJoin("n", "c"), "no room")
		time.Sleep(time.Second)
		if _, there := r.findEndpoint("c"); there {
			t.Error("an endpoint stays whose link could not be brought in")
		}
	})
}

// With --ipam-driver null Docker brings the link in as always; with ours there is
// no sense in it, unless there are leases.
func TestExternalOtherIPAM(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.must(nil, r.CreateNetwork(context.Background(), CreateRequest{ID: nid("n"), Options: opts("ipam=external")}))
		r.endpoint("n", "a", "")
		j, err := r.Join(context.Background(), JoinRequest{Network: nid("n"), ID: eid("a"), Sandbox: sandbox("a")})
		if _, peer := eid("a").Links(); err != nil || j.Link != peer || !j.DisableGateway || r.inside.at("a") != "" {
			t.Errorf("Join says %+v, %v", j, err)
		}
		ours := subnets("10.0.0.0/24")
		ours[0].Space = ourSpace
		err = r.CreateNetwork(context.Background(), CreateRequest{ID: nid("m"), Options: opts("ipam=external"), Subnets: ours})
		refused(t, err, `ipam="external"`, "--ipam-driver null, or dhcp=true too")
		if _, there := r.find("m"); there {
			t.Error("the refused network stays")
		}
		r.ours("m")
		if n, _ := r.find("m"); !n.SelfWired() || r.pools.count() != 1 {
			t.Errorf("the network is %+v, pools are claimed by %d", n, r.pools.count())
		}
	})
}

// A daemon that starts between the Join and the sandbox goes on waiting for it.
func TestSelfWiredAcrossRestart(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24", "ipam=external")
		r.kill(sandbox("a"))
		r.join("n", "a", "10.0.0.2/24")
		r.restart()
		time.Sleep(time.Second)
		r.revive(sandbox("a"))
		time.Sleep(5 * time.Millisecond)
		if r.inside.at("a") != sandbox("a") {
			t.Error("not wired into its sandbox")
		}
	})
}
