//go:build linux

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

// systemctl is what Debian's units of ovn-central do when it is restarted.
const systemctl = `
systemctl() {
	for part in northd nb_ovsdb sb_ovsdb; do ovn-ctl stop_$part >/dev/null; done
	for part in nb_ovsdb sb_ovsdb; do
		(. /etc/default/ovn-central; setsid ovn-ctl run_$part $OVN_CTL_OPTS </dev/null >>/var/log/ovn/$part.log 2>&1 &)
	done
	(. /etc/default/ovn-central; ovn-ctl start_northd --ovn-manage-ovsdb=no --no-monitor $OVN_CTL_OPTS >/dev/null)
}
PATH=$PATH:/usr/share/ovn/scripts
`

// Three hosts on which ovn-central was installed become one cluster by what
// docs/ovn.md says, what the first of them held is kept, and the driver works with it.
func TestOVNProduction(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	p, err := readPage("docs/ovn.md")
	if err != nil {
		t.Fatal(err)
	}
	ini := p.below(t, "A central that may fail", "ini")
	steps := p.below(t, "A central that may fail", "sh")
	var members []*host
	for i, name := range []string{"r1", "r2", "r3"} {
		lh, err := l.Host(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		h := &host{Host: lh, t: t}
		members = append(members, h)
		h.must(h.Address(h.ctx(), "eth0", fmt.Sprintf("192.0.2.%d/24", 11+i)))
		h.must(h.StartCentral(h.ctx(), lab.Central{})) // as the package leaves it
		h.run("ovn-nbctl", "ls-add", "on-"+name)
		own := strings.ReplaceAll(ini[0], "addr=192.0.2.11", fmt.Sprintf("addr=192.0.2.%d", 11+i))
		if i > 0 {
			own = strings.Replace(own, `="`, `="--db-nb-cluster-remote-addr=192.0.2.11 --db-sb-cluster-remote-addr=192.0.2.11 `, 1)
		}
		h.must(os.MkdirAll(h.Path("/etc/default"), 0o755))
		h.must(os.WriteFile(h.Path("/etc/default/ovn-central"), []byte(own), 0o644))
	}
	for i, h := range members {
		h.sh(systemctl + sudo.ReplaceAllString(steps[0], ""))
		if i == 0 {
			h.eventually("clients are let in", func() error { return h.tries(steps[1]) })
		}
		h.eventually("it belongs to the cluster", func() error {
			out, err := h.Run(h.ctx(), "sh", "-c", sudo.ReplaceAllString(steps[2], ""))
			if err != nil || !strings.Contains(out, "Status: cluster member") || strings.Contains(out, "Leader: unknown") {
				return fmt.Errorf("%v %s", err, out)
			}
			return nil
		})
	}
	h := chassisOf(t, l, "h1", "192.0.2.1/24",
		"external_ids:ovn-nb=tcp:192.0.2.11:6641,tcp:192.0.2.12:6641,tcp:192.0.2.13:6641",
		"external_ids:ovn-remote=tcp:192.0.2.11:6642,tcp:192.0.2.12:6642,tcp:192.0.2.13:6642",
		"external_ids:ovn-encap-type=geneve", "external_ids:ovn-encap-ip=192.0.2.1")
	h.network("prod", "--subnet", "10.20.0.0/24", "--opt", "ovn.switch=production-ls")
	h.container("aa", "prod")
	h.container("bb", "prod")
	h.ping("aa", h.address("bb", "prod"))
	if out := members[0].run("ovn-nbctl", "--no-leader-only", "--bare", "--columns=name", "list", "Logical_Switch"); !strings.Contains(out, "on-r1") || !strings.Contains(out, "production-ls") {
		t.Errorf("the cluster holds the switches %s", out)
	}
	members[0].must(members[0].Kill()) // one may be lost
	h.eventually("a container starts without the first member", func() error {
		_, err := h.Run(h.ctx(), "docker", "run", "--rm", "--network", "prod", "lab", "true")
		return err
	})
	h.docker("rm", "-f", "aa", "bb")
	h.docker("network", "rm", "prod")
	h.expectClean()
}

// chassisOf is a host of another lab with the driver, whose Open vSwitch was told so.
func chassisOf(t *testing.T, l *lab.Lab, name, addr string, settings ...string) *host {
	t.Helper()
	h := onUnderlay(t, l, name, addr)
	h.ovs(append([]string{"set", "Open_vSwitch", "."}, settings...)...)
	h.must(h.StartController(h.ctx(), lab.Chassis{}))
	h.startDocker()
	h.must(h.ImportImage(h.ctx(), image, "lab"))
	h.startDriver()
	return h
}

// tries runs a script of the documentation that may fail just now.
func (h *host) tries(script string) error {
	_, err := h.Run(h.ctx(), "sh", "-ec", sudo.ReplaceAllString(script, ""))
	return err
}

// below are the blocks of that language below a heading.
func (p page) below(t *testing.T, heading, lang string) (texts []string) {
	t.Helper()
	for _, b := range p.blocks {
		if b.heading == heading && b.lang == lang {
			texts = append(texts, b.text)
		}
	}
	if len(texts) == 0 {
		t.Fatalf("%s has no %s below %q", p.name, lang, heading)
	}
	return texts
}

// Hosts come first: they work with an older central. ovn-controller makes room for its
// successor without a packet lost, and the central goes on as a newer one with the
// same databases.
func TestOVNUpgrade(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2, lab.FleetOptions{Root: "sid"})
	f.overlay()
	h := f.hosts[0]
	p, err := readPage("docs/ovn.md")
	h.must(err)
	leave := sudo.ReplaceAllString(p.below(t, "Upgrades", "sh")[0], "")
	old := h.run("ovn-controller", "--version")
	if was := f.hc.run("ovn-northd", "--version"); was == strings.Replace(old, "ovn-controller", "ovn-northd", 1) {
		t.Fatalf("the central is no older than the hosts: %s", was)
	}
	f.survives("ovn-controller replaced", func() {
		h.sh(leave)
		h.eventually("ovn-controller has ended", func() error { return h.tries("! pidof ovn-controller") })
		h.must(h.StartController(h.ctx(), f.ChassisOf(h.Host)))
	})
	f.survives("central replaced by a newer one", func() { f.replaceCentral("sid") })
	f.leave()
}

// replaceCentral has a host of another suite go on with the databases of the central.
func (f *fleet) replaceCentral(suite string) {
	f.t.Helper()
	root, err := lab.Suite(suite)
	f.hc.must(err)
	was := f.hc
	c := f.CentralOf(was.Host)
	was.must(was.StopCentral(was.ctx()))
	lh, err := f.lab.Host(f.t.Context(), "hd", lab.WithRoot(root))
	was.must(err)
	now := &host{Host: lh, t: f.t}
	now.sh("mkdir -p /var/lib/ovn")
	for _, db := range []string{"nb", "sb"} {
		file := "/var/lib/ovn/ovn" + db + "_db.db"
		text, err := os.ReadFile(was.Path(file))
		was.must(err)
		now.must(os.WriteFile(now.Path(file), text, 0o640))
		now.run("ovsdb-tool", "convert", file, filepath.Join("/usr/share/ovn", "ovn-"+db+".ovsschema"))
	}
	was.must(was.Kill())
	now.must(now.Address(now.ctx(), "eth0", c.Addr+"/24"))
	now.must(now.StartCentral(now.ctx(), c))
	for _, h := range f.hosts { // they learn who has the address now
		now.run("ping", "-c", "1", f.ChassisOf(h.Host).EncapIP)
	}
	f.hc, f.Central[0] = now, lh
}
