//go:build linux

package integration

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// bothForms is everywhere for tests to which the engine does not matter: one
// form on the old system and one on the new.
func bothForms(t *testing.T, f func(t *testing.T, h *host)) {
	t.Parallel()
	for _, k := range kinds {
		if (k.form == plugin) == (k.on == newer) {
			t.Run(k.name, func(t *testing.T) {
				t.Parallel()
				h := newHost(t, k.form, k.on)
				f(t, h)
				h.expectClean()
			})
		}
	}
}

// Containers talk again after Open vSwitch was killed, one daemon or the other,
// and after its whole database was lost: bridges and ports are made anew. A
// bridge of somebody else stays somebody else's, and is reported.
func TestSwitchFaults(t *testing.T) {
	bothForms(t, func(t *testing.T, h *host) {
		w := h.settle()
		h.must(h.KillVswitchd(h.ctx(), syscall.SIGKILL))
		h.must(h.StartVswitchd(h.ctx()))
		w.works()
		h.must(h.KillOVSDB(h.ctx()))
		h.must(h.StartOVSDB(h.ctx()))
		w.works()
		h.must(h.StopOVS(h.ctx()))
		h.must(h.StartOVS(h.ctx()))
		w.works()

		h.ovs("add-br", "br-ext", "--", "set", "Bridge", "br-ext", "datapath_type=netdev", "fail_mode=standalone")
		h.network("ext", "--subnet", "10.3.0.0/24", "--opt", "bridge=br-ext", "--opt", "vlan=none")
		for _, name := range []string{"e1", "e2"} {
			w.residents[name] = "ext"
			h.container(name, "ext")
		}
		h.ping("e1", "e2")
		h.within(60*time.Second, "all is in order", w.inOrder)
		h.must(h.WipeOVSDB(h.ctx()))
		w.degraded["ext"] = "br-ext"
		w.works()
		h.ping("e1", "e2")
		h.container("e3", "ext")
		h.ping("e3", "e1")
		h.docker("rm", "-f", "e3")
		for bridge, want := range map[string]string{"br-int": "ovs-container-network", "br-ext": ""} {
			if owner := strings.Trim(h.ovs("--if-exists", "get", "Bridge", bridge, "external_ids:owner"), `"`); owner != want {
				t.Errorf("bridge %s has owner %q, want %q", bridge, owner, want)
			}
		}
		w.leave()
		if _, err := h.Run(h.ctx(), "ovs-vsctl", "--timeout=10", "br-exists", "br-ext"); err != nil {
			t.Errorf("the bridge of somebody else went with the network: %v", err)
		}
	})
}

// What is changed by hand is put right within seconds; a link that is gone is
// reported, and a restart of its container brings it back. In the end, with all
// in order, the driver writes nothing.
func TestRepair(t *testing.T) {
	t.Parallel()
	h := newHost(t, service, own)
	w := h.settle()
	port := h.portOf("a1", "web")
	b1 := h.portOf("b1", "shop")
	h.ovs("add-port", "br-int", "zz", "tag=42", "--", "set", "Interface", "zz", "type=internal")
	for _, hand := range []struct {
		what string
		does []string
	}{
		{"bridge deleted", []string{"ovs-vsctl", "del-br", "br-int"}},
		{"port deleted", []string{"ovs-vsctl", "del-port", port}},
		{"tag changed", []string{"ovs-vsctl", "set", "Port", port, "tag=99"}},
		{"tag removed", []string{"ovs-vsctl", "clear", "Port", port, "tag"}},
		{"port made a trunk", []string{"ovs-vsctl", "set", "Port", port, "vlan_mode=trunk", "trunks=1,2"}},
		{"ids changed", []string{"ovs-vsctl", "set", "Port", b1, "external_ids:tenant_id=other"}},
		{"ids removed", []string{"ovs-vsctl", "remove", "Port", b1, "external_ids", "env"}},
		{"link set down", []string{"ip", "link", "set", port, "down"}},
	} {
		h.run(hand.does...)
		h.within(20*time.Second, "it is put right after: "+hand.what, w.inOrder)
		w.talk()
	}
	w.works()

	h.sh("ip link del " + port)
	h.eventually("the lost link is reported", func() error {
		for _, n := range h.status().Networks {
			for _, e := range n.Ends {
				if e.Port == port && n.Health == "degraded" && strings.Contains(e.Reason, "restart the container") {
					return nil
				}
			}
		}
		return w.inOrder()
	})
	w.ping("b1", "b2")
	h.docker("restart", "a1")
	w.works()
	w.quiet()
	h.sh("ip link del " + h.portOf("a2", "web"))
	w.leave()
	h.expectClean()
}

// quiet checks that a driver that has nothing to do writes nothing, while its
// status is asked: the database reports our own marks and nothing between them.
func (w *town) quiet() {
	w.t.Helper()
	w.within(60*time.Second, "all is in order", w.inOrder)
	w.sh(`watch() { timeout 60 ovsdb-client --format=json monitor Open_vSwitch "$@" </dev/null >>/run/writes 2>&1 & }
watch Open_vSwitch '!initial,next_cfg,bridges,external_ids'
watch Bridge '!initial,name,ports,external_ids'
watch Port '!initial,name,interfaces,tag,trunks,vlan_mode,external_ids'
watch Interface '!initial,name,type,external_ids'`)
	writes := func() []string { return strings.Split(w.sh("cat /run/writes"), "\n") }
	marks := 0
	mark := func() {
		w.t.Helper()
		w.eventually("our mark in every table is reported", func() error {
			marks++
			text := fmt.Sprintf("external_ids:mark=mark-%d", marks)
			w.ovs("--no-wait", "set", "Open_vSwitch", ".", text, "--", "set", "Bridge", "br-int", text,
				"--", "set", "Port", "br-int", text, "--", "set", "Interface", "br-int", text)
			all := strings.Join(writes(), "\n")
			if strings.Count(all, fmt.Sprintf(`"mark-%d"`, marks)) < 4 {
				return fmt.Errorf("reported was\n%s", all)
			}
			return nil
		})
	}
	mark()
	before, marksBefore := len(writes()), marks
	for watch := time.After(3 * time.Second); ; {
		if err := w.inOrder(); err != nil {
			w.t.Fatal(err)
		}
		select {
		case <-watch:
			mark()
			if changes := writes()[before:]; len(changes) != 4*(marks-marksBefore) {
				w.t.Errorf("a driver with nothing to do made changes besides our marks:\n%s", strings.Join(changes, "\n"))
			}
			return
		default:
		}
	}
}
