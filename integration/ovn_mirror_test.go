//go:build linux

package integration

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

// On a logical switch an observer gets what the containers of its host send and
// receive, from and to other hosts too, and sends nothing. Its mirror is one of OVN where
// the central and the host know such, and one of Open vSwitch elsewhere, as that to a
// port of others always is.
func TestOVNMirror(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]lab.FleetOptions{"own": {}, "newer": {Root: string(newer), CentralRoot: string(newer)}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			logical := 0
			if name == "newer" {
				logical = 1
			}
			f := newFleet(t, 2, o)
			f.network("prod", "10.7.0.0/24", "--opt", "ovn.switch=prod", "--opt", "gateway_mode=none", "--opt", "mirror.dest=mon0", "--opt", "port_security=false")
			f.network("other", "10.8.0.0/24", "--opt", "ovn.switch=other", "--opt", "gateway_mode=none", "--opt", "port_security=false")
			h, far := f.hosts[0], f.hosts[1]
			backup, err := f.hc.BackupNB(t.Context())
			h.must(err)
			h.container("near", "prod")
			h.container("near2", "prod")
			far.container("far", "prod")
			h.container("o1", "other")
			h.container("o2", "other")
			h.observe("eye", "prod")
			mon := h.plug("mon", "")
			h.sh("ip link set v-mon down; ip link set v-mon name mon0; ip link set mon0 up")
			h.ovs("add-port", "br-int", "mon0")
			h.copies("prod", 2, 2)
			tap, o2, distant, near := mon.capture(), h.in("o2").capture(), far.in("far").capture(), h.in("near").capture()
			watch := func(round string) (eye *capture) {
				h.docker("start", "eye")
				h.copies("prod", 2, 2)
				eye = h.in("eye").capture()
				for _, c := range []*capture{eye, tap} {
					c.h.eventually(c.name+" sees a whole conversation", func() error { return c.converse("near", "near2", 3) })
					c.conversation("near", "near2", 5)
					c.away("near", far, "far", 5)
				}
				h.in("o1").send("others" + round)
				o2.hears("others" + round)
				far.in("far").send("from-far" + round)
				for _, c := range []*capture{near, eye, tap} {
					c.hears("from-far" + round)
				}
				for _, c := range []*capture{eye, tap} {
					c.send("from-" + c.name + round)
				}
				h.in("near2").send("after" + round)
				distant.hears("after" + round)
				for _, c := range []*capture{distant, near, o2} {
					c.sawNone("from-eye"+round, "from-mon"+round)
				}
				for _, c := range []*capture{eye, tap} {
					c.hears("after" + round)
					c.sawNone("others" + round)
				}
				return eye
			}
			eye := watch("1")
			h.counted("prod")
			h.healthy()
			f.logicalMirrors(logical)
			if rows := h.mirrorRows(); len(rows) != 2-logical {
				t.Errorf("of its own the driver has the mirrors %v", rows)
			}
			// The first packets of a container are copied.
			for i := range 3 {
				addr := fmt.Sprintf("10.7.0.%d", 200+i)
				h.docker("run", "--rm", "--network", "prod", "--ip", addr, "lab", "ping", "-c", "1", h.addressOf("near"))
				h.must(eye.within(lag, func() error {
					if got := len(eye.frames(addr + " > " + h.addressOf("near") + ": ICMP echo request")); got != 1 {
						return fmt.Errorf("of the first ping of a container there are %d copies", got)
					}
					return nil
				}))
			}
			survives := func(fault string, do func()) {
				t.Helper()
				t.Log("fault:", fault)
				h.keepsTalking("near", "near2")
				do()
				h.copies("prod", 2, 2)
				eye.overhears("near", "near2")
				f.logicalMirrors(logical)
				h.eventually("there are two mirrors, and as they should be", func() error {
					if out := h.ovs("--bare", "--columns=select_all,name", "list", "Mirror"); strings.Contains(out, "true") || strings.Count(out, "false") != 2 {
						return errors.New(out)
					}
					return nil
				})
			}
			survives("mirrors cleared", func() { h.ovs("clear", "bridge", "br-int", "mirrors") })
			survives("mirror changed", func() {
				eye := strings.TrimSpace(h.ovs("--bare", "--columns=_uuid", "find", "Mirror", "name!=ocn-mon0"))
				for uuid := range strings.FieldsSeq(eye) {
					h.ovs("set", "mirror", uuid, "select_all=true", "select_vlan=7")
				}
			})
			if logical > 0 {
				survives("mirror of OVN removed", func() { f.nbctl("mirror-del") })
				survives("ports referring to no mirror", func() {
					for uuid := range strings.FieldsSeq(f.nbctl("--bare", "--columns=_uuid", "find", "Logical_Switch_Port", "external_ids:container_name=near")) {
						f.nbctl("clear", "Logical_Switch_Port", uuid, "mirror_rules")
					}
				})
			}
			survives("northbound database restored", func() { h.must(f.hc.RestoreNB(t.Context(), f.CentralOf(f.hc.Host), backup)) })
			survives("driver KILL", func() { h.killDriver(); h.startDriver() })
			survives("ovs-vswitchd KILL", func() {
				h.must(h.KillVswitchd(h.ctx(), syscall.SIGKILL))
				h.must(h.StartVswitchd(h.ctx()))
			})
			survives("ovn-controller KILL", func() {
				h.must(h.KillController(h.ctx(), syscall.SIGKILL))
				h.must(h.StartController(h.ctx(), f.ChassisOf(h.Host)))
			})
			// An observer that comes while they talk.
			h.docker("stop", "-t", "0", "eye")
			h.copies("prod", 1, 2)
			f.logicalMirrors(0)
			h.keepsTalking("near", "near2")
			h.docker("start", "eye")
			h.in("eye").capture().overhears("near", "near2")
			h.must(h.StopController(h.ctx(), true))
			h.docker("stop", "-t", "0", "eye")
			h.must(h.StartController(h.ctx(), f.ChassisOf(h.Host)))
			watch("2")
			if ports := f.nbctl("--bare", "--columns=name", "find", "Logical_Switch_Port", "external_ids:container_name=eye"); ports != "" {
				t.Errorf("the observer has the logical switch port %s", ports)
			}
			out := far.dockerFails("run", "--rm", "--network", "prod", "--ip", h.address("eye", "prod"), "lab", "true")
			if !strings.Contains(out, "is already used") {
				t.Errorf("the observer's address on another host: %s", out)
			}
			out = h.dockerFails("network", "create", "--driver", "ovs-container-network", "--opt", "ovn.switch=x", "--opt", "mirror.vlan=7", "x")
			if !strings.Contains(out, `option mirror.vlan="7": on OVN's bridge`) {
				t.Errorf("mirror.vlan on a logical switch: %s", out)
			}
			h.docker("rm", "-f", "near", "near2")
			h.advises("prod", "the mirror to port mon0: "+uncopied, startOne, "the mirror to container eye: "+uncopied, startOne)
			h.container("near", "prod")
			h.copies("prod", 2, 1)
			h.advises("prod")
			h.docker("rm", "-f", "eye", "near", "o1", "o2")
			f.logicalMirrors(0)
			h.copiesChosen(f, logical)
			far.docker("rm", "-f", "far")
			for _, h := range f.hosts {
				h.docker("network", "rm", "prod", "other")
			}
			f.expectEmpty()
		})
	}
}

// What doctor says of a mirror that copies nobody, and what to do.
const (
	uncopied = "no container is copied"
	startOne = "start a container on the network that does not observe itself"
)

// copiesChosen checks on a logical switch that what a named container receives is copied,
// and nothing that it sends or others receive.
func (h *host) copiesChosen(f *fleet, logical int) {
	h.t.Helper()
	h.network("chosen", "--opt", "ovn.switch=chosen", "--opt", "gateway_mode=none", "--opt", "port_security=false",
		"--opt", "mirror.ports=named", "--opt", "mirror.direction=in")
	h.observe("watcher", "chosen")
	h.container("unnamed", "chosen")
	h.advises("chosen", "the mirror to container watcher: "+uncopied+"; no container of the network is named named", startOne, "docker start named")
	h.container("named", "chosen")
	h.copies("chosen", 1, 1) // once the name is known
	h.advises("chosen")
	f.logicalMirrors(logical)
	watcher, unnamed := h.in("watcher").capture(), h.in("unnamed").capture()
	h.ping("unnamed", h.addressOf("named"))
	h.eventually("watcher hears what the named container receives", func() error {
		h.in("unnamed").send("settle")
		return watcher.within(lag, func() error {
			if len(watcher.frames(mark("settle", "broadcast"))) == 0 {
				return errors.New("it does not")
			}
			return nil
		})
	})
	// Of a size of their own.
	h.in("unnamed").run("ping", "-c", "5", "-i", "0.1", "-s", "321", "-W", "1", h.addressOf("named"))
	h.in("named").send("from-named")
	unnamed.hears("from-named")
	h.in("unnamed").send("from-unnamed")
	watcher.hears("from-unnamed")
	watcher.sawNone("from-named")
	if got := watcher.frames(mark("from-unnamed", "broadcast")); len(got) != 1 {
		h.t.Errorf("of what the named container receives there are %d copies", len(got))
	}
	pings := slices.DeleteFunc(watcher.frames(", length 329"), func(frame string) bool { return !strings.Contains(frame, "ICMP echo request") })
	if len(pings) != 5 {
		h.t.Errorf("of 5 pings to the named container there are %d copies", len(pings))
	}
	if got := watcher.frames("ICMP echo reply"); len(got) > 0 {
		h.t.Errorf("what the named container sends, and the other receives, is copied: %s", got[0])
	}
	h.docker("rm", "-f", "watcher", "named", "unnamed")
	f.logicalMirrors(0)
	h.docker("network", "rm", "chosen")
}

// logicalMirrors waits until the northbound database has so many mirrors of ours.
func (f *fleet) logicalMirrors(want int) {
	f.t.Helper()
	f.hosts[0].eventually(fmt.Sprintf("OVN has %d mirrors", want), func() error {
		out := f.nbctl("--bare", "--columns=name", "find", "Mirror", "external_ids:owner=ovs-container-network")
		if got := len(strings.Fields(out)); got != want {
			return errors.New(out)
		}
		return nil
	})
}

// hears waits until a broadcast with a text was recorded. Other kinds of frames OVN
// drops: it knows who may send what, and where everybody is.
func (c *capture) hears(text string) {
	c.h.t.Helper()
	c.h.eventually(fmt.Sprintf("%s hears %q", c.name, text), func() error {
		if len(c.frames(mark(text, "broadcast"))) == 0 {
			return errors.New("it does not")
		}
		return nil
	})
}

// away checks that the place sees pings of a container to one of another host, and
// the answers.
func (c *capture) away(from string, to *host, container string, count int) {
	c.h.t.Helper()
	addr := to.addressOf(container)
	c.h.ping(from, addr)
	// Of a size of their own: the answer to that ping may come into the capture late.
	seen := func() (to, back int) {
		for _, f := range c.frames(", length 329") {
			switch {
			case strings.Contains(f, "> "+addr+": ICMP echo request"):
				to++
			case strings.Contains(f, addr+" > ") && strings.Contains(f, "ICMP echo reply"):
				back++
			}
		}
		return to, back
	}
	before, answers := seen()
	c.h.in(from).run("ping", "-c", fmt.Sprint(count), "-i", "0.1", "-s", "321", "-W", "1", addr)
	c.h.eventually(fmt.Sprintf("%s sees %d pings to another host and the answers", c.name, count), func() error {
		if to, back := seen(); to-before != count || back-answers != count {
			return fmt.Errorf("%d and %d", to-before, back-answers)
		}
		return nil
	})
}
