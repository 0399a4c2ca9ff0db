package ovn

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// kinds are those of leftovers with their names.
func kinds(found []network.Leftover) string {
	var lines []string
	for _, l := range found {
		lines = append(lines, l.String())
	}
	return strings.Join(lines, ", ")
}

// What a chassis that is gone has left is listed and then removed, a switch with its
// last claim, and nothing of the hosts that live.
func TestRetire(t *testing.T) {
	r := newRig(t)
	s := newSouth(r, nil)
	h1, h2 := r.host("h1", s.remote()), r.host("h2", s.remote())
	s.chassis("h1", "geneve", "10.99.0.1")
	s.chassis("h2", "geneve", "10.99.0.2")
	stop := s.northd()
	check(t, r.publish(h1, onSwitch("ls1"), endpoint(1, "10.1.0.5")))
	check(t, r.publish(h2, onSwitch("ls1"), endpoint(2, "10.1.0.6")))
	check(t, r.publish(h2, onSwitch("ls2"), endpoint(3, "10.1.0.5")))
	h := handle{id: "abc", sw: "ls2", host: "id-of-h2", network: "net-ls2", prefix: netip.MustParsePrefix("10.1.0.0/24")}
	gateway, booked := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.1.0.9")
	v, err := h2.nb.View()
	check(t, err)
	check(t, h2.write(t.Context(), enter(findBook(v, "ls2"), map[string]string{
		h.key(): h.value(), keyPool4: h.prefix.String(), ipKey(booked): h.id + " " + h.host, ipKey(gateway): forGateway, refKey(gateway, h.id): h.host,
	}))[0])
	before := r.has()
	r.sees(h1, "the pool of h2", func(v ovsdb.View) bool { b := findBook(v, "ls2"); return b != nil && b.pooled() })
	r.sees(h1, "the entries of h2", func(ovsdb.View) bool { return len(r.book(h1, "ls1")) == 4 && len(r.book(h1, "ls2")) == 2 })

	found, err := h1.Retire(t.Context(), "h2", false)
	check(t, err)
	want := "logical port ocn000000000002, logical port ocn000000000003, address 02:00:00:00:00:02, address 10.1.0.6, " +
		"address 02:00:00:00:00:03, address 10.1.0.5, pool ls2 abc, claim ls1 claim.id-of-h2.net-ls1, claim ls2 claim.id-of-h2.net-ls2, chassis h2"
	if got := kinds(found); got != want {
		t.Fatalf("found %s\nwant  %s", got, want)
	}
	if r.has() != before || len(r.book(h1, "ls1")) != 4 {
		t.Errorf("looking changed something: %s", r.has())
	}
	for range 2 { // twice is harmless
		for _, l := range found {
			if err := l.Remove(t.Context()); err != nil {
				t.Errorf("%s: %v", l, err)
			}
		}
	}
	if got, want := r.has(), "switch ls1, switch_port ocn000000000001"; got != want {
		t.Errorf("the database has %s, want %s", got, want)
	}
	if got := r.nbctl("--bare", "--columns=external_ids", "list", "DHCP_Options"); strings.Contains(got, "ls2") || strings.Contains(got, "10.1.0.9") {
		t.Errorf("a book holds %s", got)
	}
	if got := r.book(h1, "ls1"); len(got) != 2 || got["10.1.0.5"] == "" {
		t.Errorf("the book has %v", got)
	}
	if got := s.sbctl("--bare", "--columns=name", "list", "Chassis") + s.sbctl("--bare", "--columns=name", "list", "Chassis_Private") +
		s.sbctl("--bare", "--columns=ip", "list", "Encap"); got != "h1h110.99.0.1" {
		t.Errorf("the southbound database has %s", got)
	}
	if _, err := h1.Retire(t.Context(), "h2", false); err == nil || !strings.Contains(err.Error(), "there is no chassis h2") {
		t.Errorf("again: %v", err)
	}
	stop()
}

// A chassis that lives, or of which that cannot be told, is retired by force only,
// and this host never.
func TestRetireRefuses(t *testing.T) {
	r := newRig(t)
	s := newSouth(r, nil)
	h1 := r.host("h1", s.remote())
	s.chassis("h1", "geneve", "10.99.0.1")
	s.chassis("h2", "geneve", "10.99.0.2")
	refused := func(name string, force bool, want string) {
		t.Helper()
		found, err := h1.Retire(t.Context(), name, force)
		if err == nil || !strings.Contains(err.Error(), want) || len(found) > 0 {
			t.Errorf("%s: %v, %v, want %q", name, found, err, want)
		}
	}
	refused("h1", true, "h1 is this host")
	refused("h3", true, "there is no chassis h3, and nothing in the northbound database is of it; there are h1, h2")
	refused("h2", false, "it cannot be told whether chassis h2 lives: ovn-northd does not act")
	s.northd()
	s.lives("h2")
	refused("h2", false, "chassis h2 lives")
	s.sbctl("set", "SB_Global", ".", "options:enable_chassis_nb_cfg_update=false")
	r.nbctl("set", "NB_Global", ".", "options:enable_chassis_nb_cfg_update=false")
	eventually(t, "chassis are told to be mute", func() bool { f, err := h1.Fleet(t.Context()); return err == nil && f.Mute })
	refused("h2", false, "it cannot be told whether chassis h2 lives: chassis are told not to answer")
	found, err := h1.Retire(t.Context(), "h2", true)
	if err != nil || kinds(found) != "chassis h2" {
		t.Errorf("by force: %s, %v", kinds(found), err)
	}
	s.db.kill()
	refused("h2", true, "cannot reach database OVN_Southbound")
}

// What a host claimed under an earlier name is its own as long as it has ports.
func TestRetireRenamed(t *testing.T) {
	r := newRig(t)
	s := newSouth(r, nil)
	h1 := r.host("h1", s.remote())
	s.chassis("old", "geneve", "10.99.0.2")
	check(t, r.publish(h1, onSwitch("ls1")))
	r.nbctl("set", "Logical_Switch", "ls1", "external_ids:claim.id-x.net-a=old", "external_ids:claim.id-y.net-b=old",
		"external_ids:"+claimKey(h1.cfg.HostID, "net-ls1")+"=old",
		"--", "lsp-add", "ls1", "px", "--", "set", "Logical_Switch_Port", "px", "external_ids:owner="+network.Owner, "external_ids:host_id=id-x", "external_ids:host=new")
	r.sees(h1, "the claims", func(v ovsdb.View) bool { s, _ := findSwitch(v, "ls1"); return s != nil && len(s.claims()) == 3 })
	found, err := h1.Retire(t.Context(), "old", true)
	if want := "claim ls1 claim.id-y.net-b, chassis old"; err != nil || kinds(found) != want {
		t.Errorf("found %s, %v, want %s", kinds(found), err, want)
	}
}

// Life reads like what a person asks.
func TestLife(t *testing.T) {
	now := time.UnixMilli(1700000000000)
	for want, m := range map[string]Member{
		"it was never seen to live":          {},
		"its last sign of life was 1m5s ago": {Seen: now.Add(-65 * time.Second)},
		"its last sign of life was 0s ago":   {Seen: now.Add(time.Hour)}, // its clock is ahead
	} {
		if got := m.Life(now); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
