//go:build linux

package integration

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

// On a logical switch an observer gets what the containers of its host send and
// receive, from and to other hosts too, and sends nothing. OVN does not know its port,
// and leaves the mirror alone.
func TestOVNMirror(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]lab.FleetOptions{"own": {}, "newer": {Root: string(newer), CentralRoot: string(newer)}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, 2, o)
			f.network("prod", "10.7.0.0/24", "--opt", "ovn.switch=prod", "--opt", "gateway_mode=none", "--opt", "mirror.dest=mon0", "--opt", "port_security=false")
			f.network("other", "10.8.0.0/24", "--opt", "ovn.switch=other", "--opt", "gateway_mode=none", "--opt", "port_security=false")
			h, far := f.hosts[0], f.hosts[1]
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
			watch := func(round string) {
				h.docker("start", "eye")
				h.copies("prod", 2, 2)
				eye := h.in("eye").capture()
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
			}
			watch("1")
			h.counted("prod")
			h.healthy()
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
			h.docker("rm", "-f", "eye", "near", "near2", "o1", "o2")
			far.docker("rm", "-f", "far")
			for _, h := range f.hosts {
				h.docker("network", "rm", "prod", "other")
			}
			f.expectEmpty()
		})
	}
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
	before := len(c.frames("> " + addr + ": ICMP echo request"))
	answers := len(c.frames(addr + " > "))
	c.h.in(from).run("ping", "-c", fmt.Sprint(count), "-i", "0.1", "-W", "1", addr)
	c.h.eventually(fmt.Sprintf("%s sees %d pings to another host and the answers", c.name, count), func() error {
		to, back := len(c.frames("> "+addr+": ICMP echo request"))-before, 0
		for _, f := range c.frames(addr + " > ")[answers:] {
			if strings.Contains(f, "ICMP echo reply") {
				back++
			}
		}
		if to != count || back != count {
			return fmt.Errorf("%d and %d", to, back)
		}
		return nil
	})
}
