package ovs

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// newOVNRig has OVN's bridge, and a network on a logical switch.
func newOVNRig(t *testing.T) (*rig, network.Network) {
	t.Helper()
	r := newRig(t)
	r.vsctl("add-br", "br-int", "--", "set", "bridge", "br-int", "datapath_type=netdev", "fail_mode=secure")
	n := newNet("n1", "br-int", 0)
	n.Config.OVN = &network.OVN{Switch: "ls1"}
	return r, n
}

// Where OVN copies to an observer the mirror is the one that ovn-controller writes, which
// the test plays: there is never one of ours beside it, and a start waits for it.
func TestMirrorOfOVN(t *testing.T) {
	r, n := newOVNRig(t)
	n = r.attach(n, observer(1), endpoint(2))
	const name = "ocn-n1-ocn000000000001"
	mine := name + " on br-int: all false out ocn000000000002 in ocn000000000002 vlans [] to ocn000000000001[]"
	r.expectMirrors(mine)
	if got := r.vsctl("get", "interface", "ocn000000000001", "external_ids:mirror-id"); got != "ocn000000000001" {
		t.Errorf("OVN would call the observer's port %s", got)
	}
	if got := r.vsctl("--if-exists", "get", "interface", "ocn000000000002", "external_ids:mirror-id") + r.vsctl("--if-exists", "get", "interface", "ocn000000000001", "external_ids:iface-id"); got != "" {
		t.Errorf("another port, or as another one: %s", got)
	}
	observed := func() network.MirrorStatus {
		t.Helper()
		s := r.f.Observe(n)
		if len(s.Mirrors) != 1 || s.Mirrors[0].Name != name {
			t.Fatalf("status: %+v", s.Mirrors)
		}
		return s.Mirrors[0]
	}

	n.CopiedByOVN = true
	check(t, r.f.Yield(t.Context(), n))
	r.expectMirrors()
	r.unchangedBy(n)
	if m := observed(); m.Idle != "ovn-controller has not made its mirror" {
		t.Errorf("status: %+v", m)
	}
	r.vsctl("set", "interface", "ocn000000000002", "external_ids:ovn-installed=true")
	eventually(t, "the port is known to be installed", func() bool { return installed(findIface(r.view(), "ocn000000000002")) })
	for _, ep := range []network.Endpoint{observer(1), endpoint(2)} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		var late *UncopiedError
		if err := r.f.Await(ctx, n, ep.ID); !errors.As(err, &late) || late.Mirror != name || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("without the mirror the start of %s gets %v", ep.ID, err)
		}
		cancel()
	}
	writes := func() {
		t.Helper()
		r.dirty.take("n1")
		r.vsctl("--id=@o", "get", "port", "ocn000000000001", "--", "--id=@p", "get", "port", "ocn000000000002", "--", "--id=@m", "create", "mirror",
			"name="+name, "select_src_port=@p", "select_dst_port=@p", "output_port=@o", "external_ids:ovn-owned=true", "--", "add", "bridge", "br-int", "mirrors", "@m")
		eventually(t, "the network is dirty", func() bool { return r.dirty.take("n1") > 0 })
	}
	writes()
	for _, ep := range []network.Endpoint{observer(1), endpoint(2)} {
		check(t, r.f.Await(t.Context(), n, ep.ID))
	}
	if m := observed(); m.Idle != "" || m.Ports != 1 {
		t.Errorf("status: %+v", m)
	}

	// The flows in use are looked at again, once for each change, where Open vSwitch does
	// not do that.
	alone := r.view().Has("Mirror", "filter")
	r.wire.take()
	r.apply(n)
	if looked := strings.Count(strings.Join(r.wire.take(), "\n"), keyQinQ); looked == 0 != alone {
		t.Errorf("flows are looked at by Open vSwitch: %v, by us: %v", alone, looked > 0)
	}
	r.apply(n)
	if writes := r.wire.take(); len(writes) > 0 {
		t.Errorf("the same again writes %s", strings.Join(writes, "\n"))
	}

	// What ovn-controller does not look at it has to write anew.
	r.dirty.take("n1")
	r.vsctl("set", "mirror", name, "select_all=true")
	eventually(t, "the network is dirty", func() bool { return r.dirty.take("n1") > 0 })
	eventually(t, "the changed mirror goes", func() bool {
		r.apply(n)
		return r.vsctl("--bare", "--columns=name", "list", "mirror") == ""
	})
	writes()
	r.apply(n)

	// When OVN no longer copies, its mirror is waited for to go.
	n.CopiedByOVN = false
	r.apply(n)
	r.expectMirrors()
	r.dirty.take("n1")
	r.vsctl("clear", "bridge", "br-int", "mirrors")
	eventually(t, "the network is dirty", func() bool { return r.dirty.take("n1") > 0 })
	eventually(t, "it is our turn", func() bool {
		r.apply(n)
		return r.mirrorText() == mine
	})

	// It goes with the observer's port, also while ovn-controller is away.
	n.CopiedByOVN = true
	r.apply(n)
	writes()
	r.remove(n, observer(1))
	if left := r.vsctl("--bare", "--columns=name", "list", "mirror"); left != "" {
		t.Errorf("with the observer gone there is still %s", left)
	}
}

// Where a bridge has no room for its mirror, an observer is refused, whoever makes that.
func TestMirrorsOfOVNTooMany(t *testing.T) {
	r, n := newOVNRig(t)
	n.CopiedByOVN = true
	n = r.attach(n, endpoint(2))
	for range maxMirrors {
		r.vsctl("--id=@m", "create", "mirror", "name=theirs", "output_vlan=99", "--", "add", "bridge", "br-int", "mirrors", "@m")
	}
	eventually(t, "they are known", func() bool { return len(findBridge(r.view(), "br-int").Mirrors) == maxMirrors })
	err := r.f.Apply(t.Context(), join(n, network.PhaseJoining, observer(1)))
	if want := "bridge br-int has 32 mirrors, more Open vSwitch does not take"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}
