package ovn

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// south is a southbound database beside the northbound one of a rig.
type south struct {
	*rig
	db *dbServer
}

// newSouth starts one; change may alter its schema.
func newSouth(r *rig, change func(tables map[string]any)) *south {
	r.t.Helper()
	s := &south{rig: r, db: r.serve("sb", r.schema("ovn-sb", change))}
	s.sbctl("init")
	return s
}

func (s *south) sbctl(args ...string) string {
	s.t.Helper()
	return s.run("ovn-sbctl", append([]string{"--timeout=10", "--db=unix:" + s.db.sock}, args...)...)
}

// remote is the setting of a host that finds the database.
func (s *south) remote() string { return "external_ids:ovn-remote=unix:" + s.db.sock }

// chassis registers one that has never followed anything.
func (s *south) chassis(name, encap, ip string) {
	s.t.Helper()
	s.sbctl("chassis-add", name, encap, ip, "--", "set", "Chassis", name, "hostname="+name+".example", "other_config:port-up-notif=true",
		"--", "create", "Chassis_Private", "name="+name)
}

// northd runs ovn-northd until stop, or the test, ends.
func (s *south) northd() (stop func()) {
	s.t.Helper()
	cmd := exec.Command("ovn-northd", "--ovnnb-db=unix:"+s.nb.sock, "--ovnsb-db=unix:"+s.db.sock, "--unixctl="+filepath.Join(s.dir, "northd.ctl"), "-vconsole:off")
	cmd.Env = append(os.Environ(), "OVN_RUNDIR="+s.dir, "OVS_RUNDIR="+s.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	check(s.t, cmd.Start())
	stop = sync.OnceFunc(func() { cmd.Process.Kill(); cmd.Wait() })
	s.t.Cleanup(stop)
	return stop
}

// lives has a chassis follow what it is asked, until the test ends.
func (s *south) lives(name string) {
	s.t.Helper()
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			cfg, err := exec.Command("ovn-sbctl", "--timeout=5", "--db=unix:"+s.db.sock, "get", "SB_Global", ".", "nb_cfg").Output()
			if err == nil {
				exec.Command("ovn-sbctl", "--timeout=5", "--db=unix:"+s.db.sock, "set", "Chassis_Private", name, //nolint:errcheck // again at the next tick
					"nb_cfg="+strings.TrimSpace(string(cfg)), fmt.Sprintf("nb_cfg_timestamp=%d", time.Now().UnixMilli())).Run()
			}
		}
	})
	s.t.Cleanup(func() { close(done); wg.Wait() })
}

// The fleet is what the southbound database tells of each chassis, on versions that
// have a table of their own for signs of life and on those that have not.
func TestFleet(t *testing.T) {
	r := newRig(t)
	s := newSouth(r, nil)
	f := r.host("h1", s.remote())
	s.chassis("h2", "geneve,vxlan", "10.99.0.2")
	s.chassis("h1", "geneve", "10.99.0.1")
	s.sbctl("set", "Chassis", "h1", "other_config:fdb-timestamp=true")
	s.sbctl("set", "SB_Global", ".", "nb_cfg=7", "options:northd_internal_version=23.03.1-x")
	s.sbctl("set", "Chassis_Private", "h2", "nb_cfg=4", "nb_cfg_timestamp=1700000000000")
	got, err := f.Fleet(t.Context())
	check(t, err)
	want := Fleet{Northd: "23.03.1-x", cfg: 7, Chassis: []Member{
		{Name: "h1", Hostname: "h1.example", Here: true, Encaps: []Tunnel{{"geneve", "10.99.0.1"}}, Version: "23.09+", Behind: 7},
		{
			Name: "h2", Hostname: "h2.example", Encaps: []Tunnel{{"geneve", "10.99.0.2"}, {"vxlan", "10.99.0.2"}}, Version: "21.03+",
			Seen: time.UnixMilli(1700000000000), Behind: 3,
		},
	}}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}

	old := newSouth(newRig(t), func(tables map[string]any) { delete(tables, "Chassis_Private") })
	f = old.host("h1", old.remote())
	old.sbctl("chassis-add", "h2", "geneve", "10.99.0.2", "--", "set", "Chassis", "h2", "nb_cfg=4", "--", "set", "SB_Global", ".", "nb_cfg=6")
	if got, err = f.Fleet(t.Context()); err != nil || len(got.Chassis) != 1 || got.Chassis[0].Behind != 2 || !got.Chassis[0].Seen.IsZero() {
		t.Errorf("without Chassis_Private: %+v, %v", got, err)
	}
	old.db.kill()
	if _, err := f.Fleet(t.Context()); err == nil || !strings.Contains(err.Error(), "cannot reach database OVN_Southbound at unix:"+old.db.sock) {
		t.Errorf("without a database: %v", err)
	}
}

// Sync tells whether ovn-northd acts, and has those chassis that live say so.
func TestSync(t *testing.T) {
	r := newRig(t)
	s := newSouth(r, nil)
	f := r.host("h1", s.remote())
	s.chassis("h1", "geneve", "10.99.0.1")
	s.chassis("h2", "geneve", "10.99.0.2")
	if err := f.Sync(t.Context(), 300*time.Millisecond); !errors.Is(err, ErrNorthd) {
		t.Errorf("without northd: %v", err)
	}
	s.northd()
	for range 2 {
		check(t, f.Sync(t.Context(), bounded))
	}
	s.lives("h1")
	fleet, err := f.Followed(t.Context(), 2*time.Second)
	check(t, err)
	one, _ := fleet.Find("h1")
	two, _ := fleet.Find("h2")
	if one.Behind != 0 || one.Seen.IsZero() || two.Behind == 0 {
		t.Errorf("h1 lives: %+v, and h2 does not: %+v", one, two)
	}
	s.lives("h2")
	if fleet, err = f.Followed(t.Context(), bounded); err != nil || slices.ContainsFunc(fleet.Chassis, func(m Member) bool { return m.Behind > 0 }) {
		t.Errorf("both live: %+v, %v", fleet, err)
	}
	r.nb.kill()
	if err := f.Sync(t.Context(), bounded); err == nil || errors.Is(err, ErrNorthd) {
		t.Errorf("without a database: %v", err)
	}
}

// Sockets of the host are found where a managed plugin sees them.
func TestSeenFromHere(t *testing.T) {
	f := &Fabric{cfg: Config{RunDir: "/host/run/ovn"}}
	for in, want := range map[string]string{
		"unix:/run/ovn/ovnsb_db.sock":     "unix:/host/run/ovn/ovnsb_db.sock",
		"unix:/var/run/ovn/ovnsb_db.sock": "unix:/host/run/ovn/ovnsb_db.sock",
		"unix:/srv/sb.sock":               "unix:/srv/sb.sock",
		"tcp:192.0.2.1:6642":              "tcp:192.0.2.1:6642",
	} {
		if got := f.seenFromHere(in); got != want {
			t.Errorf("%s is seen at %s, want %s", in, got, want)
		}
	}
}

// Clashes finds addresses that ports of others have, also those that OVN gave, and
// ports that are on another switch.
func TestClashes(t *testing.T) {
	r := newRig(t)
	f := r.host("h1")
	n := onSwitch("ls1")
	eps := []network.Endpoint{endpoint(1, "10.1.0.5"), endpoint(2, "10.1.0.6"), endpoint(3, "10.1.0.7")}
	check(t, r.publish(f, n, eps...))
	for _, ep := range eps {
		ep.Phase = network.PhaseJoined
		n = n.WithEndpoint(ep)
	}
	look := func() string {
		t.Helper()
		found, err := f.Clashes(t.Context(), n)
		check(t, err)
		var lines []string
		for _, c := range found {
			lines = append(lines, fmt.Sprintf("%s %s %s %q %v", c.Endpoint, c.Address, c.Other, c.Whose, c.Astray))
		}
		return sorted(lines)
	}
	if got := look(); got != "" {
		t.Fatalf("found %s", got)
	}
	r.nbctl("lsp-add", "ls1", "theirs", "--", "set", "Logical_Switch_Port", "theirs", `addresses=["02:00:00:00:00:99 10.1.0.5 fd00::99","dynamic","unknown"]`,
		"--", "lsp-add", "ls1", "given", "--", "set", "Logical_Switch_Port", "given", `dynamic_addresses="02:00:00:00:00:02 10.1.0.100"`,
		"--", "ls-add", "ls9", "--", "lsp-add", "ls9", "elsewhere", "--", "lsp-set-addresses", "elsewhere", "02:00:00:00:00:01 10.1.0.5")
	want := `000000000001 10.1.0.5 theirs "" false` + "\n" + `000000000002 02:00:00:00:00:02 given "" false`
	if got := look(); got != want {
		t.Errorf("found\n%s\nwant\n%s", got, want)
	}
	r.nbctl("lsp-del", "theirs", "--", "lsp-del", "given")
	port := r.nbctl("get", "Logical_Switch_Port", "ocn000000000003", "_uuid")
	r.nbctl("remove", "Logical_Switch", "ls1", "ports", port, "--", "add", "Logical_Switch", "ls9", "ports", port)
	if got, want := look(), `000000000003   "" true`; got != want {
		t.Errorf("found %s, want %s", got, want)
	}
}

// A network whose packets a tunnel has no room for says so; one without tunnels does
// not.
func TestTooLarge(t *testing.T) {
	r := newRig(t)
	f := r.host("h1", "external_ids:ovn-encap-ip=192.0.2.7") // no link has it: 1500 is taken
	for _, c := range []struct {
		mtu      int
		localnet string
		want     string
	}{
		{1442, "", ""},
		{1500, "", "mtu 1500 is more than the tunnel leaves (1442): large packets to other hosts are dropped"},
		{1500, "physnet1", ""},
	} {
		n := onSwitch("ls1", func(n *network.Network) { n.Config.MTU, n.Config.OVN.Localnet = c.mtu, c.localnet })
		if got := strings.Join(f.Observe(n).Notes, "; "); got != c.want {
			t.Errorf("mtu %d, localnet %q: %q, want %q", c.mtu, c.localnet, got, c.want)
		}
	}
	alone := r.host("h2") // its tunnels end at 127.0.0.1
	if got := alone.Observe(onSwitch("ls1", func(n *network.Network) { n.Config.MTU = 1500 })).Notes; len(got) > 0 {
		t.Errorf("on a single host: %q", got)
	}
	if has, err := f.HasAddress(netip.MustParseAddr("192.0.2.7")); has || err != nil {
		t.Errorf("a link has 192.0.2.7: %v, %v", has, err)
	}
}
