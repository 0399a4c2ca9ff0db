package ovs

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

const notTaken = "ovs-vswitchd has not acted on the change: is it running?"

// hang stops ovs-vswitchd; the returned function lets it go on.
func (r *rig) hang() (resume func()) {
	r.t.Helper()
	check(r.t, r.vsd.Process.Signal(syscall.SIGSTOP))
	return func() { check(r.t, r.vsd.Process.Signal(syscall.SIGCONT)) }
}

// While ovs-vswitchd does nothing, attaching fails with that cause, detaching
// works, and what was wanted works when it goes on.
func TestVswitchdHangs(t *testing.T) {
	r := newRig(t)
	n := newNet("n1", "br-int", 5)
	n = r.attach(n, endpoint(1), endpoint(2))
	r.quiet(n)
	resume := r.hang()

	more := join(n, network.PhaseJoining, endpoint(3))
	got := failures(t, r.f.Apply(t.Context(), more))
	if len(got) != 1 || !strings.HasPrefix(got[endpoint(3).ID], notTaken) {
		t.Errorf("attach: %v", got)
	}
	err := r.f.Apply(t.Context(), newNet("n2", "br2", 0))
	if err == nil || !strings.HasPrefix(err.Error(), "bridge br2 is not ready: "+notTaken) {
		t.Errorf("new bridge: %v", err)
	}
	s := r.f.Observe(n)
	if diff := cmp.Diff("[ovs-vswitchd does not act on changes]", fmt.Sprint(s.Problems)); diff != "" || s.Health != healthDegraded {
		t.Errorf("%s: %s", s.Health, diff)
	}

	r.remove(n, endpoint(2), endpoint(3))
	check(t, r.f.Remove(t.Context(), newNet("n2", "br2", 0), false))
	for _, i := range []int{2, 3} {
		if host, _ := endpoint(i).ID.Links(); r.linked(endpoint(i)) || findPort(r.view(), host) != nil {
			t.Errorf("%s is left", host)
		}
	}
	if findBridge(r.view(), "br2") != nil {
		t.Error("br2 is left")
	}
	if !r.linked(endpoint(1)) || findPort(r.view(), "ocn000000000001") == nil {
		t.Error("the other endpoint was harmed")
	}

	resume()
	check(t, r.f.Ready(t.Context(), network.Config{}))
	n = join(newNet("n1", "br-int", 5), network.PhaseJoined, endpoint(1))
	n = r.attach(n, endpoint(4))
	eventually(t, "good health", func() bool { return r.f.Observe(n).Health == healthOK })
	r.quiet(n)
	r.unchangedBy(n)
}

// A port that was made while ovs-vswitchd hung is proved by the next Apply.
func TestVswitchdHangsAndProves(t *testing.T) {
	r := newRig(t)
	n := newNet("n1", "br-int", 5)
	r.attach(n, endpoint(9))
	resume := r.hang()
	joining := join(n, network.PhaseJoining, endpoint(1))
	if failures(t, r.f.Apply(t.Context(), joining)) == nil {
		t.Error("attached without ovs-vswitchd")
	}
	if got := failures(t, r.f.Apply(t.Context(), joining)); got == nil {
		t.Error("a second try did not look whether the port works")
	}
	resume()
	r.apply(joining)
	if got := r.vsctl("get", "interface", "ocn000000000001", "ofport"); strings.HasPrefix(got, "-") || got == "[]" {
		t.Errorf("ofport %s", got)
	}
}

// ovs-vswitchd killed and started again finds all as it was; nothing is written.
func TestVswitchdRestarts(t *testing.T) {
	r := newRig(t)
	n := r.attach(newNet("n1", "br-int", 5), endpoint(1), endpoint(2))
	r.enter(endpoint(1))
	r.quiet(n)
	good := r.text()
	end(r.vsd)
	r.startVswitchd()
	r.quiet(n)
	r.apply(n)
	if diff := cmp.Diff(good, r.text()); diff != "" {
		t.Error(diff)
	}
	if s := r.f.Observe(n); s.Health != healthOK {
		t.Errorf("observed %+v", s)
	}
	r.unchangedBy(n)
}

// A database that is lost with all it held is filled again: every network is
// called dirty, and its containers go on with the links they have.
func TestDatabaseWiped(t *testing.T) {
	r := newRig(t)
	mine := r.attach(newNet("n1", "br-int", 5), endpoint(1), endpoint(2))
	r.vsctl("add-br", "br9", "--", "set", "bridge", "br9", "datapath_type=netdev")
	foreign := newNet("n2", "br9", 0)
	foreign.OwnsBridge = false
	foreign = r.attach(foreign, endpoint(3))
	for i := range 3 {
		r.enter(endpoint(i + 1))
	}
	r.quiet(mine)
	want := strings.Replace(r.text(), "bridge br9 \n", "bridge br9 restored-by=ovs-container-network\n", 1)

	r.dirty.take("")
	end(r.dbd)
	r.wipe()
	r.startDB()
	check(t, r.f.Ready(t.Context(), network.Config{}))
	eventually(t, "everything is dirty", func() bool { return r.dirty.take("") > 0 })
	r.apply(mine)
	r.apply(foreign)
	r.guard()
	if diff := cmp.Diff(want, r.text()); diff != "" {
		t.Error(diff)
	}
	if s := r.f.Observe(mine); s.Health != healthOK {
		t.Errorf("ours: %+v", s)
	}
	if s := r.f.Observe(foreign); s.Health != healthDegraded || s.Endpoints[endpoint(3).ID].Health != healthOK {
		t.Errorf("of others: %+v", s)
	}
	r.quiet(mine)
	r.unchangedBy(mine)
}

// Nothing is decided before the links of the host are known: a link that is not
// listed yet is not gone.
func TestApplyBeforeLinks(t *testing.T) {
	r := newRig(t)
	n := r.attach(newNet("n1", "br-int", 5), endpoint(1))
	r.f.known = make(chan struct{})
	if err := r.f.Apply(t.Context(), n); err == nil || !strings.Contains(err.Error(), "not known yet") {
		t.Errorf("got %v", err)
	}
	check(t, r.f.listLinks())
	r.apply(n)
}
