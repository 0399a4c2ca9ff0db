package ovs

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ovs-container-network/ovs-container-network/internal/link"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

func TestVersions(t *testing.T) {
	for version, want := range map[string]bool{
		"": false, "unknown": false, "3": false, "2.17.9": false, "3.1.0": false, "3.4.90": false,
		"3.5.0": true, "3.10.1": true, "4.0.0": true, "4.0.0-1+deb": true,
	} {
		if got := atLeast(version, 3, 5); got != want {
			t.Errorf("%q is at least 3.5: %v", version, got)
		}
	}
}

// What new links may leave to the switch follows from the setting, and from
// where a frame can come out in this version.
func TestOffloadDecision(t *testing.T) {
	const tso = "other_config:userspace-tso-enable=true"
	geneve := []string{"--", "add-port", "br1", "gnv0", "--", "set", "interface", "gnv0", "type=geneve", "options:remote_ip=192.0.2.1"}
	elsewhere := []string{"--", "add-br", "br2", "--", "set", "bridge", "br2", "datapath_type=netdev",
		"--", "add-port", "br2", "vx0", "--", "set", "interface", "vx0", "type=vxlan", "options:remote_ip=192.0.2.1"}
	patch := []string{"--", "add-port", "br1", "pa", "--", "set", "interface", "pa", "type=patch", "options:peer=pb"}
	for name, c := range map[string]struct {
		setting, version string
		setup            [][]string
		want             link.Offload
	}{
		"off":                            {"other_config:a=b", "4.0.0", nil, link.OffloadNone},
		"false":                          {"other_config:userspace-tso-enable=false", "4.0.0", nil, link.OffloadNone},
		"kernel datapath":                {tso, "4.0.0", [][]string{{"--", "set", "bridge", "br1", `datapath_type=""`}}, link.OffloadAll},
		"new":                            {tso, "4.0.0", nil, link.OffloadTCP},
		"new, tunnel":                    {tso, "3.5.0", [][]string{geneve}, link.OffloadTCP},
		"new, AF_XDP":                    {tso, "4.0.0", [][]string{{"--", "add-port", "br1", "x0", "--", "set", "interface", "x0", "type=afxdp-nonpmd"}}, link.OffloadNone},
		"old":                            {"other_config:userspace-tso-enable=TRUE", "3.1.0", nil, link.OffloadTCP},
		"old, tunnel":                    {tso, "3.1.0", [][]string{geneve}, link.OffloadNone},
		"old, tunnel in a bond":          {tso, "3.4.1", [][]string{{"--", "add-bond", "br1", "bond", "e0", "e1", "--", "set", "interface", "e1", "type=gre", "options:remote_ip=192.0.2.1"}}, link.OffloadNone},
		"old, AF_XDP":                    {tso, "3.1.0", [][]string{{"--", "add-port", "br1", "x0", "--", "set", "interface", "x0", "type=afxdp"}}, link.OffloadNone},
		"old, uplink and internal":       {tso, "3.1.0", [][]string{{"--", "add-port", "br1", "eth0", "--", "add-port", "br1", "in0", "--", "set", "interface", "in0", "type=internal"}}, link.OffloadTCP},
		"old, tunnel elsewhere":          {tso, "3.1.0", [][]string{elsewhere}, link.OffloadTCP},
		"old, tunnel behind a patch":     {tso, "3.1.0", [][]string{elsewhere, patch}, link.OffloadNone},
		"old, patch without tunnel":      {tso, "3.1.0", [][]string{patch}, link.OffloadTCP},
		"version not known, tunnel":      {tso, "", [][]string{geneve}, link.OffloadNone},
		"version not known, no tunnel":   {tso, "", nil, link.OffloadTCP},
		"version not readable, a tunnel": {tso, "next", [][]string{geneve}, link.OffloadNone},
	} {
		t.Run(strings.NewReplacer(" ", "-", ",", "").Replace(name), func(t *testing.T) {
			r := newIdleRig(t)
			args := []string{"set", "Open_vSwitch", ".", c.setting, "ovs-version=" + `"` + c.version + `"`,
				"--", "add-br", "br1", "--", "set", "bridge", "br1", "datapath_type=netdev"}
			for _, more := range c.setup {
				args = append(args, more...)
			}
			r.vsctl(args...)
			r.startFabric()
			v := r.view()
			if got := offloadOn(v, findBridge(v, "br1")); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
			want := Acceleration{TSO: strings.EqualFold(c.setting, tso), TunnelsWithOffload: c.version >= "3.5.0" && c.version < "5", Version: c.version}
			if diff := cmp.Diff(want, r.f.Acceleration()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// offloading tells whether the host end of an endpoint says that its container
// leaves work to the switch, and whether the database has the mark.
func (r *rig) offloading(ep network.Endpoint) (marked, written bool) {
	r.t.Helper()
	host, _ := ep.ID.Links()
	in, ok, err := r.k.Get(host)
	check(r.t, err)
	if !ok {
		r.t.Fatalf("no link %s", host)
	}
	return in.Offloaded(), r.vsctl("--if-exists", "get", "interface", host, "external_ids:offload") == "on"
}

// Links that offload are marked, in the kernel and in the database, and the mark
// outlives a restart of the driver and a loss of the row. Their fault is told
// when the switch no longer does its part; links that finish their frames have
// none.
func TestOffloadMark(t *testing.T) {
	r := newRig(t)
	n := r.attach(newNet("n1", "br-int", 5), endpoint(1))
	r.enter(endpoint(1))
	r.vsctl("set", "Open_vSwitch", ".", "other_config:userspace-tso-enable=true", "ovs-version=3.1.0")
	eventually(t, "the setting", func() bool { return r.f.Acceleration().TSO })
	n = r.attach(n, endpoint(2), endpoint(3))
	for i := 2; i <= 3; i++ {
		r.enter(endpoint(i))
	}
	marks := func(when string) {
		t.Helper()
		for i, want := range map[int]bool{1: false, 2: true, 3: true} {
			if marked, written := r.offloading(endpoint(i)); marked != want || written != want {
				t.Errorf("%s: endpoint %d is marked %v, in the database %v, want %v", when, i, marked, written, want)
			}
		}
	}
	marks("made")
	r.unchangedBy(n) // and restarts the driver
	host, _ := endpoint(2).ID.Links()
	r.vsctl("del-port", host)
	eventually(t, "the port again", func() bool { r.apply(n); return r.vsctl("--if-exists", "get", "interface", host, "name") != "" })
	marks("made again")

	reasons := func(want string) {
		t.Helper()
		eventually(t, "what Observe says", func() bool {
			s := r.f.Observe(n)
			for i, ep := range []network.Endpoint{endpoint(1), endpoint(2), endpoint(3)} {
				got := s.Endpoints[ep.ID]
				if i == 0 && got.Health != healthOK {
					t.Fatalf("one that finishes its frames: %+v", got)
				}
				if i > 0 && got.Reason != want {
					return false
				}
			}
			return (s.Health == healthOK) == (want == "")
		})
	}
	reasons("")
	r.vsctl("add-port", "br-int", "gnv0", "--", "set", "interface", "gnv0", "type=geneve", "options:remote_ip=192.0.2.1")
	reasons("its TCP and UDP do not pass port gnv0: it was started with offloads on, which this version of Open vSwitch drops there: restart the container")
	r.vsctl("set", "Open_vSwitch", ".", "ovs-version=3.5.0")
	reasons("")
	r.vsctl("remove", "Open_vSwitch", ".", "other_config", "userspace-tso-enable")
	reasons("its TCP and UDP do not work: it was started with offloads on, and userspace-tso-enable of Open vSwitch is off now: restart the container")
	r.remove(n, endpoint(1), endpoint(2), endpoint(3))
}
