//go:build linux

package integration

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// observe starts a container that observes a network.
func (h *host) observe(name, network string, args ...string) {
	h.t.Helper()
	h.container(name, "name="+network+",driver-opt=mirror.dest=self", args...)
}

// mirrors are those of a network in the driver's own view.
func (h *host) mirrors(name string) []network.MirrorStatus {
	h.t.Helper()
	s, err := h.askStatus()
	if err != nil {
		return nil
	}
	for _, n := range s.Networks {
		if n.Name == name {
			return n.Mirrors
		}
	}
	return nil
}

// copies waits until each mirror of a network copies so many ports.
func (h *host) copies(network string, mirrors, ports int) {
	h.t.Helper()
	h.eventually(fmt.Sprintf("%d mirrors of %s copy %d ports", mirrors, network, ports), func() error {
		got := h.mirrors(network)
		for _, m := range got {
			if m.Ports != ports {
				return fmt.Errorf("%+v", m)
			}
		}
		if len(got) != mirrors {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})
}

// mirrorRows are the names of the rows of ours, sorted.
func (h *host) mirrorRows() []string {
	h.t.Helper()
	rows := strings.Fields(h.ovs("--bare", "--columns=name", "find", "Mirror", "external_ids:owner=ovs-container-network"))
	slices.Sort(rows)
	return rows
}

// sawEach fails unless each kind of frame with a text was recorded so often.
func (c *capture) sawEach(times int, texts ...string) {
	c.h.t.Helper()
	c.sees(texts...)
	for _, text := range texts {
		for _, kind := range frameKinds {
			if got := c.frames(mark(text, kind)); len(got) != times {
				c.h.t.Errorf("%s has %d copies of %q, %s, want %d", c.name, len(got), text, kind, times)
			}
		}
	}
}

var echo = regexp.MustCompile(`ICMP echo (request|reply), id \d+, seq (\d+)`)

// addressOf is the first address of a container.
func (h *host) addressOf(container string) string {
	h.t.Helper()
	return strings.Fields(h.docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}", container))[0]
}

// conversation checks that the place sees a conversation of two containers complete
// and once: count pings, with an answer to each.
func (c *capture) conversation(from, to string, count int) {
	c.h.t.Helper()
	c.h.must(c.converse(from, to, count))
}

// watches waits until such a conversation is seen: what the driver and ovs-vswitchd
// know of the mirror may be a moment old.
func (c *capture) watches(from, to string) {
	c.h.t.Helper()
	c.h.eventually(c.name+" sees a whole conversation", func() error { return c.converse(from, to, 5) })
	for i, from := range []string{from, to} {
		// Flows of before that do not copy stay until ovs-vswitchd has looked at them.
		try := 0
		c.h.eventually(c.name+" sees every kind of frame of "+from, func() error {
			try++
			text := fmt.Sprintf("settle-%d-%d-%d", len(c.frames("")), i, try)
			c.h.in(from).send(text)
			return c.within(lag, func() error {
				for _, kind := range frameKinds {
					if len(c.frames(mark(text, kind))) == 0 {
						return fmt.Errorf("no %s", kind)
					}
				}
				return nil
			})
		})
	}
}

// within polls what a capture has.
func (c *capture) within(limit time.Duration, f func() error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(limit); ; {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-deadline:
			return err
		}
	}
}

// lag is how long a frame may take into a capture.
const lag = 2 * time.Second

func (c *capture) converse(from, to string, count int) error {
	c.h.t.Helper()
	addr := c.h.addressOf(to)
	var before int
	c.h.eventually("all pings of "+from+" are answered", func() error {
		before = len(c.frames("ICMP echo"))
		out, err := c.h.Run(c.h.ctx(), c.h.in(from).command("ping", "-c", fmt.Sprint(count), "-i", "0.02", "-W", "1", addr)...)
		if err == nil && !strings.Contains(out, fmt.Sprintf("%d received", count)) {
			err = errors.New(out)
		}
		return err
	})
	return c.within(lag, func() error {
		var seen, want []string
		for _, f := range c.frames("ICMP echo")[before:] {
			m := echo.FindStringSubmatch(f)
			seen = append(seen, m[1]+" "+m[2])
		}
		for i := range count {
			want = append(want, fmt.Sprintf("request %d", i+1), fmt.Sprintf("reply %d", i+1))
		}
		slices.Sort(seen) // on a busy machine an answer comes after the next ping
		slices.Sort(want)
		if !slices.Equal(seen, want) {
			return fmt.Errorf("%s sees %v, want %v", c.name, seen, want)
		}
		return nil
	})
}

// An observer gets everything that containers of its network send and receive, each
// frame once, and nothing of others on the bridge. It sends nothing. Containers and
// observers come and go in any order.
func TestMirror(t *testing.T) {
	oldAndNew(t, func(t *testing.T, h *host) {
		const br = "br-mir"
		h.ovs("add-br", br, "--", "set", "bridge", br, "datapath_type=netdev")
		h.network("web", "-o", "bridge="+br, "-o", "gateway_mode=none", "--subnet", "10.1.0.0/24")
		h.network("shop", "-o", "bridge="+br, "-o", "gateway_mode=none", "--subnet", "10.2.0.0/24")
		tag := h.status().Networks[0].VLAN
		// Somebody else's mirror, which stays as it is.
		h.plug("theirs", "")
		h.ovs("add-port", br, "v-theirs", "--", "--id=@p", "get", "port", "v-theirs", "--", "--id=@m", "create", "mirror",
			"name=theirs", "select_all=true", "output_port=@p", "--", "add", "bridge", br, "mirrors", "@m")
		theirs := func() string {
			return h.ovs("--columns=select_all,select_src_port,select_dst_port,select_vlan,output_port,output_vlan,external_ids", "find", "Mirror", "name=theirs")
		}
		before := theirs()

		h.container("a1", "web")
		h.container("s1", "shop")
		h.container("s2", "shop")
		h.observe("eye", "web")
		h.container("b1", "web") // after its observer
		h.copies("web", 1, 2)
		hand := h.byHand("hand", br, "", "tag="+tag).capture()
		a, eye, s2 := h.in("a1").capture(), h.in("eye").capture(), h.in("s2").capture()
		h.in("s1").send("s1")
		h.in("a1").send("a1")
		h.in("b1").send("b1")
		s2.sees("s1")
		eye.sawEach(1, "a1", "b1")
		eye.conversation("a1", "b1", 20)
		eye.sawNone("s1")

		h.in("eye").send("eye")
		h.in("b1").send("after")
		for _, c := range []*capture{a, hand} {
			c.sees("after")
			c.sawNone("eye")
		}
		s2.sawNone("eye", "a1", "b1", "after")

		// What passes between others in the VLAN of the network is not its own.
		h.byHand("hand2", br, "", "tag="+tag).send("hand2")
		hand.sees("hand2") // and a, as it is flooded: so it is what a receives
		eye.sawEach(1, "hand2")

		// A second observer, and both restart.
		h.observe("eye2", "web")
		h.copies("web", 2, 2)
		h.docker("restart", "-t", "0", "eye", "eye2", "a1")
		h.copies("web", 2, 2)
		for _, name := range []string{"eye", "eye2"} {
			eye := h.in(name).capture()
			eye.conversation("a1", "b1", 5)
			h.in("a1").send("again-" + name)
			eye.sawEach(1, "again-"+name)
		}
		// Observer and observed are also on other networks, where they talk.
		h.docker("network", "connect", "shop", "eye")
		h.ping("eye", h.address("s1", "shop"))
		h.docker("rm", "-f", "eye")
		h.copies("web", 1, 2)

		h.counted("web")
		if after := theirs(); after != before {
			t.Errorf("the mirror of others was\n%s\nand is\n%s", before, after)
		}
		h.docker("rm", "-f", "a1", "b1", "s1", "s2")
		h.copies("web", 1, 0)
		h.eventually("doctor advises on a mirror that copies nothing", func() error {
			out, _ := h.Run(h.ctx(), buildDir+"/ovs-container-network", "doctor")
			if !strings.Contains(out, "ADVICE: mirrors, network web: the mirror to container eye2: no container is copied") {
				return errors.New(out)
			}
			return nil
		})
		h.docker("rm", "-f", "eye2")
		if rows := h.mirrorRows(); len(rows) > 0 {
			t.Errorf("without observers there are the mirrors %v", rows)
		}
		h.docker("network", "rm", "web", "shop")
		if after := theirs(); after != before {
			t.Errorf("the mirror of others was\n%s\nand is\n%s", before, after)
		}
		h.expectClean()
	})
}

// counted waits until status shows packets of each mirror.
func (h *host) counted(network string) {
	h.t.Helper()
	h.eventually("packets are counted", func() error {
		for _, m := range h.mirrors(network) {
			if !m.Counted || m.Packets == 0 || m.Bytes == 0 {
				return fmt.Errorf("%+v", m)
			}
		}
		return nil
	})
	if out := h.run(buildDir+"/ovs-container-network", "status"); !strings.Contains(out, "MIRROR OF") {
		h.t.Errorf("status does not show them:\n%s", out)
	}
}

// advises waits until doctor says of the mirrors of a network this cause and what to
// type, without calling it a fault; or nothing, if there is no cause.
func (h *host) advises(network string, cause ...string) {
	h.t.Helper()
	h.eventually(fmt.Sprintf("doctor says of the mirrors of %s %q", network, cause), func() error {
		report, err := h.doctor()
		if err != nil {
			return err
		}
		var said []string
		for _, f := range report.Findings {
			if f.Check == "mirrors" && f.Subject == "network "+network && f.Severity == "advice" {
				said = append(append(said, f.Cause), f.Mend...)
			}
		}
		if !slices.Equal(said, cause) || !report.Healthy {
			return fmt.Errorf("it finds %v", report.Findings)
		}
		return nil
	})
}

// Options of the network: one direction, named containers, a port of others, a VLAN.
func TestMirrorOptions(t *testing.T) {
	oldAndNew(t, func(t *testing.T, h *host) {
		const br = "br-mir"
		for _, d := range []string{"in", "out"} {
			h.network(d, "-o", "bridge="+br, "-o", "gateway_mode=none", "-o", "mirror.ports=a-"+d+",late", "-o", "mirror.direction="+d)
			h.observe("eye-"+d, d)
			h.container("a-"+d, d)
			h.container("b-"+d, d)
			h.copies(d, 1, 1) // once the name is known
		}
		in, out := h.in("eye-in").capture(), h.in("eye-out").capture()
		for _, c := range []string{"a-in", "b-in", "a-out", "b-out"} {
			h.in(c).send(c)
		}
		in.sawEach(1, "b-in")
		out.sawEach(1, "a-out")
		in.sawNone("a-in", "b-out")
		out.sawNone("b-out", "a-in", "b-in")
		h.container("late", "in")
		h.copies("in", 1, 2)
		h.docker("rename", "late", "later")
		h.copies("in", 1, 1)
		if m := h.mirrors("in")[0]; !slices.Equal(m.Missing, []string{"late"}) {
			t.Errorf("of the missing container status says %+v", m)
		}
		h.advises("in", "the mirror to container eye-in: no container of the network is named late", "docker start late")

		// A port that is there later, goes, and comes again.
		h.network("port", "-o", "bridge="+br, "-o", "gateway_mode=none", "-o", "mirror.dest=v-tap")
		h.container("p1", "port")
		h.container("p2", "port")
		if m := h.mirrors("port"); len(m) != 1 || m[0].Idle != "bridge br-mir has no port v-tap" {
			t.Errorf("of the missing port status says %+v", m)
		}
		mend := "ovs-vsctl add-port br-mir v-tap"
		h.advises("port", "the mirror to port v-tap: bridge br-mir has no port v-tap", mend)
		h.sh(mend + " || true") // before there is such a device, which newer ones call an error
		h.advises("port", "the mirror to port v-tap: port v-tap of bridge br-mir has no device that works", "ovs-vsctl --columns=name,type,error list Interface v-tap")
		h.ovs("del-port", "v-tap")
		tap := h.byHand("tap", br, "")
		h.copies("port", 1, 2)
		h.advises("port")
		h.eventually("the mirror is at work", func() error {
			if m := h.mirrors("port"); len(m) != 1 || m[0].Idle != "" {
				return fmt.Errorf("%+v", m)
			}
			return nil
		})
		seen, p2 := tap.capture(), h.in("p2").capture()
		seen.conversation("p1", "p2", 10)
		h.in("p1").send("p1")
		seen.sawEach(1, "p1")
		tap.send("tap")
		h.in("p1").send("p1-after")
		p2.sees("p1-after")
		p2.sawNone("tap")
		h.ovs("del-port", "v-tap")
		h.eventually("the mirror goes with its port", func() error {
			if rows := h.mirrorRows(); len(rows) != 2 {
				return fmt.Errorf("%v", rows)
			}
			return nil
		})
		h.advises("port", "the mirror to port v-tap: bridge br-mir has no port v-tap", mend)
		h.sh(mend)
		h.eventually("the mirror comes with its port", func() error {
			if rows := h.mirrorRows(); len(rows) != 3 {
				return fmt.Errorf("%v", rows)
			}
			return nil
		})
		h.advises("port")
		h.in("p1").send("p1-again")
		seen.sawEach(1, "p1-again")

		// Into a VLAN: a trunk sees the copies with that tag, an access port without.
		h.network("vlan", "-o", "bridge="+br, "-o", "gateway_mode=none", "-o", "vlan=10", "-o", "mirror.vlan=900")
		h.network("auto", "-o", "bridge="+br, "-o", "gateway_mode=none")
		trunk, access := h.byHand("trunk", br, "", "trunks=900").capture(), h.byHand("access", br, "", "tag=900").capture()
		h.container("v1", "vlan")
		h.container("v2", "vlan")
		h.copies("vlan", 1, 2)
		h.in("v1").send("v1")
		trunk.sawEach(1, "v1")
		access.sawEach(1, "v1")
		for _, tags := range trunk.tags("v1") {
			if !slices.Equal(tags, []string{"900"}) {
				t.Errorf("the copies have the tags %v", tags)
			}
		}

		// A container that runs becomes an observer.
		h.container("joins", "none")
		h.docker("network", "disconnect", "none", "joins")
		h.docker("network", "connect", "--driver-opt", "mirror.dest=self", "vlan", "joins")
		h.copies("vlan", 2, 2)
		joined, v2 := h.in("joins").capture(), h.in("v2").capture()
		joined.watches("v1", "v2")
		h.in("joins").send("from-joins")
		h.in("v1").send("v1-joined")
		joined.sawEach(1, "v1-joined")
		v2.sees("v1-joined")
		v2.sawNone("from-joins")
		h.docker("rm", "-f", "joins", "eye-in", "eye-out", "a-in", "b-in", "a-out", "b-out", "later", "p1", "p2", "v1", "v2")
		h.docker("network", "rm", "in", "out", "port", "vlan", "auto")
		if rows := h.mirrorRows(); len(rows) > 0 {
			t.Errorf("with the networks gone, these mirrors are left: %v", rows)
		}
		if h.form == service {
			h.stopDriver()
			h.startDriver("--docker-host none")
			out := h.dockerFails("network", "create", "--driver", "ovs-container-network", "-o", "mirror.ports=web1", "nameless")
			if !strings.Contains(out, `option mirror.ports="web1"`) || !strings.Contains(out, "allowed there is all") {
				t.Errorf("without Docker's API docker says %s", out)
			}
		}
	})
}
