//go:build linux

package integration

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// keepsTalking has one container ping another until the mirror was seen to copy that
// (overhears), and waits until ovs-vswitchd has flows for it.
func (h *host) keepsTalking(from, to string) {
	h.t.Helper()
	argv := h.in(from).command("ping", "-i", "0.2", "-s", "300", h.addressOf(to))
	h.sh("setsid " + strings.Join(argv, " ") + " </dev/null >/tmp/talk 2>&1 & echo $! >/run/talk.pid")
	h.eventually(from+" and "+to+" talk", func() error {
		if out := h.sh("tail -n 3 /tmp/talk"); !strings.Contains(out, "icmp_seq=5 ") {
			return errors.New(out)
		}
		return nil
	})
}

// overhears waits until both directions of a conversation that began before are
// copied, and ends it. Its flows are in use all the time, so that ovs-vswitchd does not
// make them anew by itself.
func (c *capture) overhears(from, to string) {
	c.h.t.Helper()
	count := func(kind string) int { return len(c.frames("ICMP echo " + kind)) }
	requests, replies := count("request"), count("reply")
	c.h.eventually(fmt.Sprintf("%s overhears %s and %s", c.name, from, to), func() error {
		if more, answers := count("request")-requests, count("reply")-replies; more < 3 || answers < 3 {
			return fmt.Errorf("%d requests, %d replies", more, answers)
		}
		return nil
	})
	c.h.sh("kill $(cat /run/talk.pid)")
}

// A mirror works again after whatever happens to Open vSwitch, the driver, the
// engine, and the rows themselves.
func TestMirrorFaults(t *testing.T) {
	oldAndNew(t, func(t *testing.T, h *host) {
		h.network("web", "-o", "gateway_mode=none", "--subnet", "10.1.0.0/24", "--ipam-driver", "ovs-container-network")
		h.observe("eye", "web", "--restart=always")
		h.container("a1", "web", "--restart=always")
		h.container("b1", "web", "--restart=always")
		eye, a := h.in("eye").capture(), h.in("a1").capture()
		t.Cleanup(func() {
			if t.Failed() {
				out, _ := h.Shell(context.Background(), "ovs-vsctl --timeout=3 list mirror; ovs-vsctl --timeout=3 --columns=_uuid,name list port; ovs-appctl dpctl/dump-flows; tail -n 20 /var/log/openvswitch/ovs-vswitchd.log")
				t.Log(out)
			}
		})
		survives := func(fault string, do func()) {
			t.Helper()
			t.Log("fault:", fault)
			restarts := strings.HasPrefix(fault, "containers")
			if !restarts {
				h.keepsTalking("a1", "b1")
			}
			do()
			if restarts {
				h.copies("web", 1, 2)
				eye, a = h.in("eye").capture(), h.in("a1").capture()
			}
			h.copies("web", 1, 2)
			if !restarts {
				eye.overhears("a1", "b1")
			}
			eye.watches("a1", "b1")
			text := strings.ReplaceAll(fault, " ", "-")
			h.in("eye").send("eye-" + text)
			h.in("b1").send(text)
			a.sees(text)
			eye.sawEach(1, text)
			a.sawNone("eye-" + text)
			if rows := h.mirrorRows(); len(rows) != 1 {
				t.Errorf("after %s there are the mirrors %v", fault, rows)
			}
		}
		survives("nothing", func() {})
		survives("mirrors cleared", func() { h.ovs("clear", "bridge", "br-int", "mirrors") })
		survives("mirror changed", func() {
			h.ovs("set", "mirror", h.mirrorRows()[0], "select_all=true", "select_vlan=7", "select_src_port=[]", "--", "clear", "mirror", h.mirrorRows()[0], "output_port")
		})
		if h.form == service {
			survives("mirrors cleared without the driver", func() {
				h.stopDriver()
				h.ovs("clear", "bridge", "br-int", "mirrors")
				h.run("ovs-appctl", "revalidator/purge") // the flow that comes again does not copy
				h.in("eye").send("alone")                // to nobody, though there is no mirror
				h.startDriver()
			})
			a.sawNone("alone")
		}
		survives("ovs-vswitchd KILL", func() {
			h.must(h.KillVswitchd(h.ctx(), syscall.SIGKILL))
			h.must(h.StartVswitchd(h.ctx()))
		})
		survives("database wiped", func() { h.must(h.WipeOVSDB(h.ctx())) })
		survives("driver KILL", func() {
			h.killDriver()
			if h.form == service {
				h.startDriver()
			}
		})
		survives("containers KILL", func() { h.docker("kill", "eye", "a1"); h.docker("start", "eye", "a1") })
		survives("containers with dockerd KILL", func() { h.must(h.KillDocker(h.ctx())); h.startDocker() })
		h.docker("rm", "-f", "eye", "a1", "b1")
		h.docker("network", "rm", "web")
		h.expectClean()
	})
}
