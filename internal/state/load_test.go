package state_test

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ovs-container-network/ovs-container-network/internal/ipam"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
	. "github.com/ovs-container-network/ovs-container-network/internal/state"
)

const (
	nid  = network.ID("3de7188c573cd264d17219a02e8691110cc13cb81e92f99a8c041f5ae50cd6cb")
	eid  = network.EndpointID("cb849d78a725cfea04fe084f3bde2b9d47d5e839b5b9477c6e45ea7d1c66b66b")
	eid2 = network.EndpointID("50fa4515ec18ef3ba9a13a0df6e2e3744315c15b7873af0e117f5adc88eb8ce8")
	pool = ipam.PoolID("local/0123456789abcdef/fd00::/64")
)

// open opens a directory that is closed when the test ends.
func open(t *testing.T, path string) *Dir {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	d, err := Open(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func load(t *testing.T, d *Dir) Contents {
	t.Helper()
	c, err := d.Load()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// anEndpoint, aNetwork and aPool have a value in every field that is stored.
func anEndpoint(id network.EndpointID) network.Endpoint {
	tag, secure := uint16(7), false
	return network.Endpoint{
		ID: id, Network: nid, MAC: "02:42:ac:11:00:02",
		Booked: []netip.Addr{netip.MustParseAddr("10.0.0.3")},
		Addrs:  []netip.Prefix{netip.MustParsePrefix("10.0.0.2/24"), netip.MustParsePrefix("fd00::2/64")},
		VLAN:   &tag, Trunk: &network.VLANs{10, 20, 21}, MTU: 1400, Secure: &secure, Observer: true, ExternalIDs: map[string]string{"k": "v=1", "é": "\u2028<&>"}, Sandbox: "/run/docker/netns/0a1b",
		Phase: network.PhaseJoined, Changed: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), ContainerID: "c1", ContainerName: "web",
		ClientID: "printer", OwnMAC: true, Lease: aLease(), Lease6: aLease6(), Release: time.Date(2026, 1, 3, 0, 0, 0, 0, time.UTC),
	}
}

func aLease6() *network.Lease6 {
	at := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	return &network.Lease6{
		Ends:  map[netip.Addr]time.Time{netip.MustParseAddr("fd07::100"): at.Add(3), netip.MustParseAddr("fd07::2"): {}},
		Addrs: []netip.Prefix{netip.MustParsePrefix("fd07::5/64")}, Managed: true, Router: netip.MustParseAddr("fe80::1"),
		DNS: []netip.Addr{netip.MustParseAddr("fd07::53")}, Server: "0003000102",
		From: at, Renew: at.Add(time.Minute), Rebind: at.Add(2 * time.Minute), Expire: at.Add(3 * time.Minute),
	}
}

func aLease() *network.Lease {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	return &network.Lease{
		Addr: netip.MustParsePrefix("10.0.0.5/24"), Router: netip.MustParseAddr("10.0.0.1"), MTU: 1400,
		Routes: []network.Route{{To: netip.MustParsePrefix("10.8.0.0/16"), Via: netip.MustParseAddr("10.0.0.9")}, {To: netip.MustParsePrefix("192.0.2.1/32")}},
		DNS:    []netip.Addr{netip.MustParseAddr("10.0.0.2")}, Domain: "lan", Server: netip.MustParseAddr("10.0.0.1"), ServerMAC: "02:00:00:00:00:01",
		From: at, Renew: at.Add(1), Rebind: at.Add(2), Expire: at.Add(3),
	}
}

func aNetwork() network.Network {
	return network.Network{
		ID: nid, Name: "blue",
		Config: network.Config{
			Bridge: "br-int", VLANMode: network.VLANTag, VLAN: 7, Trunk: network.VLANs{1, 4094}, MTU: 1400, TenantID: "tenant \"1\"", ExternalIDs: map[string]string{"k": ""},
			IPAM: network.IPAMStatic, Gateway: network.GatewayExternal, Internal: true, OVN: anOVN(), PortSecurity: true, Mirror: aMirror(),
			DHCP: true, DHCPTimeout: 7 * time.Second, DHCPRelease: network.ReleaseAfter, DHCPGrace: time.Hour,
		},
		Subnets: []network.Subnet{{Prefix: netip.MustParsePrefix("10.0.0.0/24"), Gateway: netip.MustParseAddr("10.0.0.1"), Space: "ours"}},
		Booked:  []network.Subnet{{Prefix: netip.MustParsePrefix("172.18.0.0/16")}},
		Phase:   network.PhaseActive, OwnsBridge: true, Engine: "QWER:TYUI", Enforced: true, Created: time.Date(2026, 1, 2, 3, 4, 5, 999, time.UTC),
		Endpoints: map[network.EndpointID]*network.Endpoint{},
	}
}

func anOVN() *network.OVN {
	return &network.OVN{
		Switch: "ls/1", Encap: network.EncapVXLAN, Localnet: "physnet1", Router: "r", External: "physnet2",
		ExternalAddrs:  []netip.Prefix{netip.MustParsePrefix("198.51.100.10/24"), netip.MustParsePrefix("fd00:51::10/64")},
		ExternalNext:   []netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("fd00:51::1")},
		SNAT:           true,
		GatewayChassis: []string{"h2", "h1"},
		DHCPOptions:    map[string]string{"dns_server": "{192.0.2.1,192.0.2.2}"},
		Subnets:        []network.Subnet{{Prefix: netip.MustParsePrefix("10.9.0.0/24"), Gateway: netip.MustParseAddr("10.9.0.1")}},
	}
}

func aMirror() *network.Mirror {
	return &network.Mirror{Port: "mon0", VLAN: 900, Containers: []string{"db", "web"}, Direction: network.DirectionIn}
}

func aPool() ipam.Pool {
	return ipam.Pool{
		ID: pool, Prefix: netip.MustParsePrefix("fd00::/64"), Range: netip.MustParsePrefix("fd00::/96"), Auto: true,
		Gateway: netip.MustParseAddr("fd00::1"), Network: string(nid), Static: true, Seq: 1<<64 - 1, Last: netip.MustParseAddr("fd00::9"),
		Addrs:  []netip.Addr{netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::9")},
		Orphan: true, Own: []netip.Addr{netip.MustParseAddr("fd00::1")},
	}
}

var same = cmp.Options{
	cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty(),
	cmpopts.SortSlices(func(a, b network.Network) bool { return a.ID < b.ID }), cmpopts.SortSlices(func(a, b ipam.Pool) bool { return a.ID < b.ID }),
}

// Every field of every record comes back as it was written. A field that is new
// has to be filled in above.
func TestRoundTrip(t *testing.T) {
	for _, sync := range []bool{false, true} {
		path := t.TempDir()
		d := open(t, path)
		n := aNetwork()
		put(t, d, n, sync)
		for _, id := range []network.EndpointID{eid, eid2} {
			ep := anEndpoint(id)
			if id == eid2 {
				ep.Trunk = &network.VLANs{} // which is not nil: none
			}
			n.Endpoints[id] = &ep
			if err := d.PutEndpoint(ep, sync); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.PutPool(aPool()); err != nil {
			t.Fatal(err)
		}
		d.Close()
		want := Contents{Networks: []network.Network{n}, Pools: []ipam.Pool{aPool()}}
		if diff := cmp.Diff(want, load(t, open(t, path)), same); diff != "" {
			t.Errorf("sync=%v (-written +read):\n%s", sync, diff)
		}
	}
	for _, v := range []any{aNetwork(), aNetwork().Config, *anOVN(), *aMirror(), aNetwork().Subnets[0], anEndpoint(eid), *aLease(), *aLease6(), aPool()} {
		r := reflect.ValueOf(v)
		for i := range r.NumField() {
			if f := r.Type().Field(i); f.Tag.Get("json") != "-" && r.Field(i).IsZero() {
				t.Errorf("%s.%s is not tested", r.Type(), f.Name)
			}
		}
	}
}

// A record that is written again is replaced as a whole.
func TestReplace(t *testing.T) {
	d := open(t, t.TempDir())
	n := aNetwork()
	put(t, d, n, true)
	long := anEndpoint(eid)
	long.ContainerName = strings.Repeat("x", 10_000)
	small := network.Endpoint{ID: eid, Network: nid, Phase: network.PhaseDeleting}
	for _, ep := range []network.Endpoint{long, small} {
		if err := d.PutEndpoint(ep, false); err != nil {
			t.Fatal(err)
		}
	}
	n = network.Network{ID: nid, Phase: network.PhaseDeleting, Endpoints: map[network.EndpointID]*network.Endpoint{eid: &small}}
	put(t, d, n, false)
	if diff := cmp.Diff(Contents{Networks: []network.Network{n}}, load(t, d), same); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func put(t *testing.T, d *Dir, n network.Network, sync bool) {
	t.Helper()
	if err := d.PutNetwork(n, sync); err != nil {
		t.Fatal(err)
	}
}

// What is deleted is gone from the disk, a second time is success, and what was
// not deleted stays.
func TestDelete(t *testing.T) {
	path := t.TempDir()
	d := open(t, path)
	other := aNetwork()
	other.ID = "x1p2r3sjkq8dj2v0c8k0l4a7b"
	put(t, d, other, true)
	put(t, d, aNetwork(), true)
	for _, id := range []network.EndpointID{eid, eid2} {
		if err := d.PutEndpoint(anEndpoint(id), true); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.PutPool(aPool()); err != nil {
		t.Fatal(err)
	}
	before := tree(t, path)
	for range 2 {
		if err := errors.Join(d.DeleteEndpoint(anEndpoint(eid)), d.DeletePool(pool), d.DeletePool("local/never/10.0.0.0/8")); err != nil {
			t.Error(err)
		}
	}
	if got := len(before) - len(tree(t, path)); got != 2 {
		t.Errorf("%d files are gone, want 2: %v", got, tree(t, path))
	}
	for range 2 {
		if err := errors.Join(d.DeleteNetwork(nid), d.DeleteNetwork("never"), d.DeleteEndpoint(anEndpoint(eid2))); err != nil {
			t.Error(err)
		}
	}
	if diff := cmp.Diff(Contents{Networks: []network.Network{other}}, load(t, d), same); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if slices.ContainsFunc(tree(t, path), func(f string) bool { return strings.Contains(f, string(nid)) }) {
		t.Errorf("left: %v", tree(t, path))
	}
}

// tree lists everything below a directory.
func tree(t *testing.T, path string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(path, func(p string, _ fs.DirEntry, err error) error {
		if p != path {
			all = append(all, strings.TrimPrefix(p, path+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A write that cannot be done is an error, and the record that was there stays.
func TestWriteFails(t *testing.T) {
	path := t.TempDir()
	d := open(t, path)
	put(t, d, aNetwork(), true)
	// A directory where the temporary file has to be.
	blocked := filepath.Join(path, "networks", string(nid), "network.json.new")
	if err := os.MkdirAll(blocked, 0o700); err != nil {
		t.Fatal(err)
	}
	changed := aNetwork()
	changed.Name = "changed"
	if err := d.PutNetwork(changed, true); err == nil {
		t.Error("no error")
	}
	if got := load(t, d).Networks; len(got) != 1 || got[0].Name != "blue" {
		t.Errorf("got %+v", got)
	}
	if err := d.PutEndpoint(network.Endpoint{ID: eid, Network: "unknown"}, true); err == nil {
		t.Error("an endpoint of an unknown network was stored")
	}
}

// An empty directory holds nothing, and one that is no directory is an error that
// says so.
func TestOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	d := open(t, path)
	if diff := cmp.Diff(Contents{}, load(t, d)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(context.Background(), file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("got %v", err)
	}
	if err := os.RemoveAll(filepath.Join(path, "networks")); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Load(); err == nil || !strings.Contains(err.Error(), "networks") {
		t.Errorf("got %v", err)
	}
}

// A change that is not synced is added to an endpoint's file and never rewrites
// what was synced before; the last record counts.
func TestLaterRecordsAreAppended(t *testing.T) {
	path, files := filled(t)
	before := read(t, files["endpoint"])
	d := open(t, path)
	c := load(t, d)
	for _, ep := range c.Networks[0].Endpoints {
		ep.Phase = network.PhaseDeleting
		if err := d.PutEndpoint(*ep, false); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(t, files["endpoint"]); !strings.HasPrefix(got, before) || got == before {
		t.Errorf("the file was not appended to: %q", got)
	}
	for id, ep := range load(t, d).Networks[0].Endpoints {
		if ep.Phase != network.PhaseDeleting {
			t.Errorf("endpoint %s is %s after the last record said deleting", id, ep.Phase)
		}
	}
}
