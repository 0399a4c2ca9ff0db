package main

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ovs-container-network/ovs-container-network/internal/control"
	"github.com/ovs-container-network/ovs-container-network/internal/diag"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// aStatus has networks and endpoints in every state, as seen at now.
func aStatus(now time.Time) control.Status {
	end := func(id, container, port, health, reason string, ofport int) network.EndpointReport {
		return network.EndpointReport{
			ID: network.EndpointID(id), Container: container, MAC: "02:00:00:00:00:0" + id, Addrs: []string{"10.0.0." + id + "/24"}, VLAN: "4094",
			Phase:          network.PhaseJoined,
			EndpointStatus: network.EndpointStatus{Port: port, OFPort: ofport, Health: health, Reason: reason},
		}
	}
	v6 := end("5", "both", "ocn000000000005", "ok", "", 7)
	v6.Addrs, v6.VLAN = append(v6.Addrs, "fd00::5/64"), "none"
	tagged := func(vlan, trunk string) network.EndpointReport {
		e := end("7", "router", "ocn000000000007", "ok", "", 9)
		e.VLAN, e.Trunk = vlan, trunk
		return e
	}
	const long = "1,3,5,7,9,11,13,15,17,19,21,23-25,27,29"
	none := end("6", "", "ocn000000000006", "ok", "", 8)
	none.Addrs = nil
	return control.Status{
		Version: "1.0.0", Form: "host service", Started: now.Add(-90 * time.Minute), HostID: "0123456789abcdef",
		OVS: control.Database{Connected: true, Since: now.Add(-30*time.Second - 300*time.Millisecond), Version: "3.1.0"},
		Networks: []network.Report{{
			ID: "3de7188c573cd264d17219a02e869111", Name: "web", Bridge: "br-int", VLAN: "4094", VLANMode: network.VLANAuto, MTU: 1500,
			Gateway: network.GatewayDocker, IPAM: network.IPAMDocker, Phase: network.PhaseActive, Health: "degraded",
			Subnets:  []network.Subnet{{Prefix: netip.MustParsePrefix("10.0.0.0/24")}, {Prefix: netip.MustParsePrefix("fd00::/64")}},
			Problems: []network.Problem{{Cause: "bridge br-int got an uplink"}},
			Ends: []network.EndpointReport{
				end("2", "a", "ocn000000000002", "ok", "", 5),
				end("3", "b-with-a-long-name", "ocn000000000003", "degraded", "its link is gone: restart the container", -1),
				end("4", "", "ocn000000000004", "detached", "created", 0),
				v6, none,
			},
		}, {
			ID: "x1p2r3sjkq8dj2v0c8k0l4a7b", Bridge: "br0", VLAN: "none", VLANMode: network.VLANNone, MTU: 9000, Gateway: network.GatewayNone,
			Tenant: "blue", Phase: network.PhaseActive, Health: "ok", Notes: []string{"ipam=static is not enforced"}, Ends: []network.EndpointReport{},
			Mirrors: []network.MirrorStatus{
				{Name: "ocn-x1p2r3sjkq8d-mon0", To: "port mon0", Direction: network.DirectionIn, Ports: 2, Counted: true, Packets: 12, Bytes: 3456},
				{Name: "ocn-x1p2r3sjkq8d-vlan900", To: "vlan 900", Direction: network.DirectionIn, Missing: []string{"db", "web"}, Idle: "no container is copied"},
			},
		}, {
			ID: "0123456789abcdef0124", Name: "trunks", Bridge: "br0", VLAN: "none", Trunk: "10,20-30", VLANMode: network.VLANNone, MTU: 1500, Gateway: network.GatewayNone,
			Phase: network.PhaseActive, Health: "ok", Ends: []network.EndpointReport{tagged("none", "10,20-30"), tagged("7", "10,20-30"), tagged("7", ""), tagged("none", long)},
		}, {
			ID: "0123456789abcdef0123", Name: "going", Bridge: "br0", VLAN: "7", VLANMode: network.VLANTag, MTU: 1500, Gateway: network.GatewayExternal,
			Phase: network.PhaseDeleting, Health: "ok",
		}},
		Damaged: []string{"/var/lib/x/network.json: not a record", "/var/lib/x/pools/y.json: not a record"},
	}
}

// The table shows each network and endpoint with its health, and below it the
// reason of all that is not in order.
func TestStatusTable(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	lost := aStatus(now)
	lost.Networks, lost.Damaged = nil, nil
	lost.OVS = control.Database{Since: now, Error: "cannot reach the database at unix:/run/openvswitch/db.sock since 03:04:05: connection refused"}
	starting := control.Status{Version: "dev", Form: "managed plugin", Started: now, OVS: control.Database{Connected: true, Since: now}}
	var b strings.Builder
	for _, s := range []control.Status{aStatus(now), lost, starting, onOVN(now), centralAway(now)} {
		if err := printStatus(&b, s, now); err != nil {
			t.Error(err)
		}
		b.WriteString("----\n")
	}
	golden(t, "status.txt", b.String())
}

// onOVN has a network on a logical switch beside one on a plain bridge.
func onOVN(now time.Time) control.Status {
	s := aStatus(now)
	s.Damaged, s.Networks = nil, s.Networks[:2]
	s.Networks[0].Health, s.Networks[0].Problems, s.Networks[0].Ends = "ok", nil, s.Networks[0].Ends[:1]
	s.Networks[0].VLAN, s.Networks[0].VLANMode = "none", network.VLANNone
	s.Networks[0].Switch, s.Networks[0].Router, s.Networks[0].Secure = "production-ls", "r1", true
	s.Networks[0].Notes = []string{"mtu 1500 is more than the tunnel leaves (1442): large packets to other hosts are dropped"}
	s.Northbound = &control.Database{Endpoint: "tcp:10.99.0.100:6641", Connected: true, Since: now.Add(-time.Hour)}
	s.Fleet = &control.Fleet{Northd: "23.03.1-20.27.4", Chassis: []control.Chassis{
		{Name: "h1", Hostname: "h1.example", Here: true, Encaps: []control.Encap{{Type: "geneve", IP: "10.99.0.1"}}, OVN: "23.03.1", Seen: now.Add(-5 * time.Second)},
		{
			Name: "h2", Hostname: "h2.example", Encaps: []control.Encap{{Type: "geneve", IP: "10.99.0.2"}, {Type: "vxlan", IP: "10.99.0.2"}}, OVN: "22.09+",
			Seen: now.Add(-5*time.Minute - 3*time.Second), Behind: 2,
		},
		{Name: "h3", Seen: now.Add(time.Second)},
		{Name: "h4", Behind: 7},
	}}
	return s
}

// doctor shows the chassis as status does, or why it cannot, and nothing of them where
// OVN is not used.
func TestDoctorShowsChassis(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		fleet *control.Fleet
		ends  string
	}{
		{nil, "Nothing is wrong.\n"},
		{onOVN(now).Fleet, "h4               -            -                                   -         -, asked 7 times since\n"},
		{centralAway(now).Fleet, "\nthe chassis are not known: cannot reach database OVN_Southbound at unix:/run/ovn/ovnsb_db.sock: connection refused\n"},
	} {
		var text, machine strings.Builder
		found := examined{Report: diag.Report{Healthy: true}, Fleet: c.fleet}
		if err := errors.Join(printReport(&text, "text", found, now), printReport(&machine, "json", found, now)); err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(text.String(), c.ends) {
			t.Errorf("it ends otherwise than with %q:\n%s", c.ends, text.String())
		}
		var back examined
		if err := json.Unmarshal([]byte(machine.String()), &back); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(found, back); diff != "" {
			t.Errorf("as JSON it is another (-want +got):\n%s", diff)
		}
	}
}

func centralAway(now time.Time) control.Status {
	s := onOVN(now)
	s.Northbound = &control.Database{Endpoint: "unix:/run/ovn/ovnnb_db.sock", Since: now, Error: "cannot reach database OVN_Northbound at unix:/run/ovn/ovnnb_db.sock: connection refused (since 03:04:05)"}
	s.Networks[0].Health, s.Networks[0].Problems = "degraded", []network.Problem{{Cause: s.Northbound.Error}}
	s.Fleet = &control.Fleet{Error: "cannot reach database OVN_Southbound at unix:/run/ovn/ovnsb_db.sock: connection refused"}
	return s
}

// fullDisk takes so many bytes and then fails.
type fullDisk struct{ room int }

func (d *fullDisk) Write(p []byte) (int, error) {
	if d.room -= len(p); d.room < 0 {
		return 0, errFull
	}
	return len(p), nil
}

type fullError struct{}

func (fullError) Error() string { return "no space left on device" }

var errFull error = fullError{}

// A table that could not be written is an error: it may have gone into a file.
func TestStatusTableCutOff(t *testing.T) {
	now := time.Now()
	var whole strings.Builder
	if err := printStatus(&whole, aStatus(now), now); err != nil {
		t.Fatal(err)
	}
	for _, room := range []int{0, 100, whole.Len() - 1} {
		if err := printStatus(&fullDisk{room}, aStatus(now), now); err == nil {
			t.Errorf("cut off after %d bytes of %d: no error", room, whole.Len())
		}
	}
}
