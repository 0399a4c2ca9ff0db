package ovn

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// Many hosts that make the same switch at once get one, with a claim of each, and
// it goes when all of them, at once, have left.
func TestSwitchAtOnce(t *testing.T) {
	r := newRig(t)
	const n = 8
	var hosts []*Fabric
	for i := range n {
		hosts = append(hosts, r.host(fmt.Sprint("h", i)))
	}
	for round := range 5 {
		all(t, hosts, func(f *Fabric) error {
			return r.publish(f, onSwitch("ls1"), endpoint(1000*round+hostNumber(f), fmt.Sprintf("10.1.0.%d", 10+hostNumber(f))))
		})
		v, err := hosts[0].nb.View()
		check(t, err)
		s, count := findSwitch(v, "ls1")
		if count != 1 || len(s.claims()) != n {
			t.Fatalf("%d switches, claims %v", count, s.claims())
		}
		if got := strings.Count(r.has(), "switch_port ocn"); got != n {
			t.Errorf("%d ports: %s", got, r.has())
		}
		all(t, hosts, func(f *Fabric) error {
			ep := endpoint(1000*round+hostNumber(f), fmt.Sprintf("10.1.0.%d", 10+hostNumber(f)))
			ep.Phase = network.PhaseDeleting
			n := onSwitch("ls1")
			n.Phase = network.PhaseDeleting
			if err := r.publish(f, n, ep); err != nil {
				return err
			}
			return f.unclaim(t.Context(), "ls1", claimKey(f.cfg.HostID, n.ID))
		})
		if left := r.has() + r.nbctl("list", "DHCP_Options"); left != "" {
			t.Fatalf("left over: %s", left)
		}
	}
}

// hostNumber is that of a host of TestSwitchAtOnce.
func hostNumber(f *Fabric) (n int) {
	fmt.Sscanf(f.cfg.HostID, "id-of-h%d", &n)
	return n
}

// all does something on all hosts at once; all must succeed.
func all(t *testing.T, hosts []*Fabric, do func(*Fabric) error) {
	t.Helper()
	var wg sync.WaitGroup
	errs := make([]error, len(hosts))
	for i, f := range hosts {
		wg.Go(func() { errs[i] = do(f) })
	}
	wg.Wait()
	for _, err := range errs {
		check(t, err)
	}
}

// An address and a MAC address are given once on a switch, whatever the hosts.
func TestAddressOnce(t *testing.T) {
	r := newRig(t)
	h1, h2 := r.host("h1"), r.host("h2")
	check(t, r.publish(h1, onSwitch("ls1"), endpoint(1, "10.1.0.5")))
	for what, ep := range map[string]network.Endpoint{
		"address 10.1.0.5":              endpoint(2, "10.1.0.5"),
		"MAC address 02:00:00:00:00:01": {ID: "000000000003", MAC: "02:00:00:00:00:01", Addrs: []netip.Prefix{netip.MustParsePrefix("10.1.0.6/24")}, Phase: network.PhaseJoining},
	} {
		err := r.publish(h2, onSwitch("ls1"), ep)
		want := what + " is already used by container c1 on host h1 on logical switch ls1"
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	check(t, r.publish(h2, onSwitch("ls2"), endpoint(4, "10.1.0.5"))) // another switch
	if got, want := r.has(), "switch ls1, switch ls2, switch_port ocn000000000001, switch_port ocn000000000004"; got != want {
		t.Errorf("the database has %s, want %s", got, want)
	}
	// What a host left in its own way, it removes.
	r.sees(h1, "its own entry", func(ovsdb.View) bool { return len(r.book(h1, "ls1")) == 2 })
	check(t, r.publish(h1, onSwitch("ls1"), endpoint(5, "10.1.0.5")))
	if got, want := r.has(), "switch ls1, switch ls2, switch_port ocn000000000004, switch_port ocn000000000005"; got != want {
		t.Errorf("the database has %s, want %s", got, want)
	}
}

// A switch that this driver did not make is joined and left as it was.
func TestForeignSwitch(t *testing.T) {
	r := newRig(t)
	r.nbctl("ls-add", "ls1", "--", "set", "Logical_Switch", "ls1", "other_config:subnet=10.1.0.0/24", "external_ids:theirs=yes")
	before := r.nbctl("--columns=name,other_config,external_ids", "list", "Logical_Switch")
	f := r.host("h1")
	n := onSwitch("ls1")
	check(t, r.publish(f, n, endpoint(1, "10.1.0.5")))
	ep := endpoint(1, "10.1.0.5")
	ep.Phase = network.PhaseDeleting
	check(t, r.publish(f, n, ep))
	check(t, f.unclaim(t.Context(), "ls1", claimKey(f.cfg.HostID, n.ID)))
	if after := r.nbctl("--columns=name,other_config,external_ids", "list", "Logical_Switch"); after != before {
		t.Errorf("the switch was\n%s\nand is\n%s", before, after)
	}
	if left := r.has() + r.nbctl("list", "DHCP_Options"); left != "" {
		t.Errorf("left over: %s", left)
	}
}

// A switch on which somebody else has a port stays when the last network goes.
func TestSwitchInUse(t *testing.T) {
	r := newRig(t)
	f := r.host("h1")
	n := onSwitch("ls1")
	check(t, r.publish(f, n))
	r.nbctl("lsp-add", "ls1", "theirs")
	check(t, f.unclaim(t.Context(), "ls1", claimKey(f.cfg.HostID, n.ID)))
	if got := r.nbctl("--bare", "--columns=name", "list", "Logical_Switch_Port"); got != "theirs" {
		t.Errorf("ports: %s", got)
	}
	r.nbctl("lsp-del", "theirs")
	check(t, f.unclaim(t.Context(), "ls1", claimKey(f.cfg.HostID, n.ID)))
	if left := r.has(); left != "" {
		t.Errorf("left over: %s", left)
	}
}

// What is lost of the database is put back, whatever it is.
func TestPutBack(t *testing.T) {
	r := newRig(t)
	f := r.host("h1")
	n := onSwitch("ls1", func(n *network.Network) {
		n.Config.OVN.Router, n.Config.OVN.Localnet, n.Config.IPAM = "r1", "physnet1", network.IPAMOVN
		n.Config.OVN.External, n.Config.OVN.ExternalAddrs = "physnet2", []netip.Prefix{netip.MustParsePrefix("198.51.100.10/24")}
		n.Config.OVN.ExternalNext, n.Config.OVN.SNAT = []netip.Addr{netip.MustParseAddr("198.51.100.1")}, true
	})
	ep := endpoint(1, "10.1.0.5")
	check(t, r.publish(f, n, ep))
	whole := r.state()
	for what, args := range map[string][]string{
		"port":        {"lsp-del", "ocn000000000001"},
		"switch":      {"ls-del", "ls1"},
		"localnet":    {"lsp-del", "ls1-localnet"},
		"router":      {"lr-del", "r1"},
		"router port": {"lrp-del", "r1-to-ls1"},
		"its peer":    {"lsp-del", "ls1-to-r1"},
		"way out":     {"ls-del", "r1-out-physnet2"},
		"route":       {"lr-route-del", "r1"},
		"translation": {"lr-nat-del", "r1"},
		"book":        {"--all", "destroy", "DHCP_Options"},
		"everything":  {"ls-del", "ls1", "--", "ls-del", "r1-out-physnet2", "--", "lr-del", "r1", "--", "--all", "destroy", "DHCP_Options"},
	} {
		r.nbctl(args...)
		eventually(t, what+" is back", func() bool { return r.publish(f, n, ep) == nil && r.state() == whole })
	}
	ep.Phase, n.Phase = network.PhaseDeleting, network.PhaseDeleting
	check(t, r.publish(f, n, ep))
	check(t, f.unclaim(t.Context(), "ls1", claimKey(f.cfg.HostID, n.ID)))
	if left := r.has() + r.nbctl("list", "DHCP_Options"); left != "" {
		t.Errorf("left over: %s", left)
	}
}

// state is the northbound database for comparison, without UUIDs.
func (r *rig) state() string {
	var all []string
	for table, columns := range map[string]string{
		"Logical_Switch":              "name,other_config,external_ids",
		"Logical_Switch_Port":         "name,type,addresses,port_security,options,external_ids",
		"Logical_Router":              "name,external_ids",
		"Logical_Router_Port":         "name,mac,networks,external_ids",
		"Logical_Router_Static_Route": "ip_prefix,nexthop",
		"NAT":                         "type,external_ip,logical_ip",
		"DHCP_Options":                "cidr,options,external_ids",
		"Gateway_Chassis":             "chassis_name,priority",
	} {
		lines := strings.Split(r.nbctl("--format=csv", "--no-headings", "--columns="+columns, "list", table), "\n")
		for _, l := range lines {
			all = append(all, table+" "+l)
		}
	}
	return sorted(all)
}

// While the chassis' own name is not known, ports stay as they are: with another one
// OVN would let go of the containers of this host.
func TestWithoutName(t *testing.T) {
	r := newRig(t)
	f := r.host("h1")
	check(t, r.publish(f, onSwitch("ls1"), endpoint(1, "10.1.0.5")))
	before := r.state()
	r.run("ovs-vsctl", "--timeout=10", "--no-wait", "--db=unix:"+filepath.Join(r.dir, "h1.sock"), "remove", "Open_vSwitch", ".", "external_ids", "system-id")
	eventually(t, "the name is gone", func() bool { _, err := f.named(); return err != nil })
	ep := endpoint(1, "10.1.0.5")
	ep.Phase = network.PhaseJoined
	if err := r.publish(f, onSwitch("ls1"), ep); err == nil || !strings.Contains(err.Error(), "system-id") {
		t.Errorf("published without a name: %v", err)
	}
	if after := r.state(); after != before {
		t.Errorf("the database was\n%s\nand is\n%s", before, after)
	}
}
