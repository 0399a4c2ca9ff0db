//go:build linux

package integration

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// segment is a broadcast domain: those in it see each other's frames, nobody
// else does.
type segment struct {
	name    string
	bridge  string
	members []*capture
}

// broadcastHost makes these segments, most of them on one bridge:
//
//	red, blue   a network without vlan each
//	tag100      two networks with vlan=100, a container with vlan=100 for its own
//	            attachment, and an access port made by hand
//	tag200      one network with vlan=200, and an access port made by hand
//	native      a network with vlan=none, and a port made by hand with no vlan at
//	            all: it sees the other segments too, but tagged
//	elsewhere   vlan=100 on another bridge
func broadcastHost(h *host) (segments []segment, trunk *capture) {
	const iso, other = "br-iso", "br-other"
	for _, n := range []struct{ name, bridge, vlan, subnet string }{
		{"red", iso, "", "10.1.0.0/24"},
		{"blue", iso, "auto", "10.2.0.0/24"},
		{"v100", iso, "100", "10.3.0.0/25"},
		{"w100", iso, "100", "10.3.0.128/25"},
		{"v200", iso, "200", "10.4.0.0/24"},
		{"open", iso, "none", "10.5.0.0/24"},
		{"far", other, "100", "10.6.0.0/24"},
	} {
		args := []string{"-o", "bridge=" + n.bridge, "-o", "gateway_mode=none", "--subnet", n.subnet}
		if n.vlan != "" {
			args = append(args, "-o", "vlan="+n.vlan)
		}
		h.network(n.name, args...)
	}
	for _, c := range []struct{ name, network string }{
		{"red1", "red"}, {"red2", "red"},
		{"blue1", "blue"}, {"blue2", "blue"},
		{"v100a", "v100"}, {"w100a", "w100"}, {"red100", "name=red,driver-opt=vlan=100"},
		{"v200a", "v200"},
		{"open1", "open"}, {"open2", "open"},
		{"far1", "far"},
	} {
		h.container(c.name, c.network)
	}
	in := func(name string) *capture { return h.in(name).capture() }
	hand := func(name, bridge, addr string, columns ...string) *capture {
		return h.byHand(name, bridge, addr, columns...).capture()
	}
	trunk = hand("trunk", iso, "10.5.0.200/24")
	return []segment{
		{"red", iso, []*capture{in("red1"), in("red2")}},
		{"blue", iso, []*capture{in("blue1"), in("blue2")}},
		{"tag100", iso, []*capture{in("v100a"), in("w100a"), in("red100"), hand("hand100", iso, "", "tag=100")}},
		{"tag200", iso, []*capture{in("v200a"), hand("hand200", iso, "", "tag=200")}},
		{"native", iso, []*capture{in("open1"), in("open2"), trunk}},
		{"elsewhere", other, []*capture{in("far1"), hand("handfar", other, "", "tag=100")}},
	}, trunk
}

// everybodySends has every member send frames of its own, "PREFIX-NAME".
func everybodySends(segments []segment, prefix string) {
	for _, s := range segments {
		for _, m := range s.members {
			m.send(prefix + "-" + m.name)
		}
	}
}

// everybodySees waits until every member has seen those of all its neighbours.
// It is the positive control of each test of absence.
func everybodySees(segments []segment, prefix string) {
	for _, s := range segments {
		for _, m := range s.members {
			for _, from := range s.members {
				if from != m {
					m.sees(prefix + "-" + from.name)
				}
			}
		}
	}
}

// Networks that do not say vlan, networks with different ones, and different
// bridges share no broadcast, multicast or flooded frame; networks with the same
// vlan do, and vlan=none does with a port attached by hand. Tagged frames of a
// container never reach another segment.
func TestBroadcastDomains(t *testing.T) {
	oldAndNew(t, func(t *testing.T, h *host) {
		segments, trunk := broadcastHost(h)

		everybodySends(segments, "first")
		everybodySees(segments, "first")

		// A tag takes a frame of a port that may use it into the segment: so
		// these frames are what they should be.
		trunk.send("trunk-to-100", "100")
		for _, m := range segments[2].members {
			m.sees("trunk-to-100")
		}

		// The same from ports that may not. vlan=none must not get out by it
		// either, so nobody else sees it, the trunk included.
		var forbidden []string
		inject := func(from string, tags ...string) {
			text := "in-" + from + "-" + strings.ReplaceAll(strings.Join(tags, "-"), ":", "")
			h.in(from).send(text, tags...)
			forbidden = append(forbidden, text)
		}
		for _, from := range []string{"open1", "red1", "v200a"} {
			inject(from, "100")
			inject(from, "1")
			inject(from, "100", "100")
			inject(from, "88a8:100")
			inject(from, "88a8:100", "100")
		}
		everybodySends(segments, "last")
		everybodySees(segments, "last")

		for i, s := range segments {
			for _, m := range s.members {
				for j, o := range segments {
					for _, from := range o.members {
						foreign := []string{"first-" + from.name, "last-" + from.name}
						switch {
						case i == j:
						case m == trunk && o.bridge == s.bridge:
							checkTags(t, h, trunk, o, foreign)
						default:
							m.sawNone(foreign...)
						}
					}
				}
				for _, text := range forbidden {
					if !strings.HasPrefix(text, "in-"+m.name+"-") {
						m.sawNone(text)
					}
				}
				if i != 2 && m != trunk {
					m.sawNone("trunk-to-100")
				}
			}
		}
	})
}

// checkTags checks with which tag the frames of a segment leave by a trunk.
func checkTags(t *testing.T, h *host, trunk *capture, s segment, texts []string) {
	t.Helper()
	var want string
	switch s.name {
	case "tag100", "tag200":
		want = strings.TrimPrefix(s.name, "tag")
	default: // chosen by the driver
		want = strconv.Itoa(h.vlanOf(s.name))
	}
	for _, text := range texts {
		tags := trunk.tags(text)
		if len(tags) == 0 {
			t.Errorf("%s saw no frame %q", trunk.name, text)
		}
		for _, tag := range tags {
			if !slices.Equal(tag, []string{want}) {
				t.Errorf("%s saw %q with tags %v, want %s", trunk.name, text, tag, want)
			}
		}
	}
}

// vlanOf is the VLAN of a network by the driver's own view, 0 for none.
func (h *host) vlanOf(network string) (vlan int) {
	h.t.Helper()
	h.eventually("the driver knows the network "+network, func() error {
		for _, n := range h.status().Networks {
			if n.Name == network {
				if n.VLAN != "none" {
					var err error
					vlan, err = strconv.Atoi(n.VLAN)
					h.must(err)
				}
				return nil
			}
		}
		return fmt.Errorf("no such network")
	})
	return vlan
}

// The host's own stack stays out of a network: it answers for none of its
// addresses, takes no packet that is addressed to its end of a link, sends
// nothing, and nothing arrives twice.
func TestHostStackStaysOut(t *testing.T) {
	oldAndNew(t, func(t *testing.T, h *host) {
		h.network("duo", "-o", "bridge=br-duo", "-o", "gateway_mode=none",
			"--ipv6", "--subnet", "10.8.0.0/24", "--subnet", "fd08::/64")
		h.container("aa", "duo")
		h.container("bb", "duo")
		h.plug("world", "")
		h.sh("ip addr add 198.51.100.1/24 dev v-world; ip addr add 2001:db8::1/64 dev v-world nodad")
		// The host does answer on a link that is not shielded: what a script made.
		hand := h.byHand("hand", "br-duo", "10.8.0.200/24").capture()
		hand.run("ip", "addr", "add", "fd08::200/64", "dev", "eth0", "nodad")
		aa, bb := h.in("aa").capture(), h.in("bb").capture()
		answers := []string{"Reply 172.17.0.1 ", "Reply 198.51.100.1 "}

		for _, p := range []*capture{hand, aa} {
			before := h.echoes()
			for _, addr := range []string{"172.17.0.1", "198.51.100.1", "2001:db8::1"} {
				p.run("ip", "route", "add", addr, "dev", "eth0")
				p.tryPing(addr)
			}
			// Nor if its address is known without asking.
			p.run("ip", "neigh", "replace", "172.17.0.1", "lladdr", p.hostEnd("eth0").MAC, "dev", "eth0", "nud", "permanent")
			p.run("ip", "neigh", "replace", "2001:db8::1", "lladdr", p.hostEnd("eth0").MAC, "dev", "eth0", "nud", "permanent")
			p.tryPing("172.17.0.1")
			p.tryPing("2001:db8::1")
			h.ping("aa", "bb")
			for family, n := range h.echoes() {
				if n -= before[family]; p == hand && n == 0 {
					t.Errorf("%s: the host takes no packet from the port that was made by hand: this test proves nothing", family)
				} else if p == aa && n != 0 {
					t.Errorf("%s: the host's stack took %d packets that a container sent", family, n)
				}
			}
			for _, a := range answers {
				got := p.frames(a)
				if p == hand && len(got) == 0 {
					t.Errorf("the host does not answer %q to the port that was made by hand: this test proves nothing", a)
				} else if p == aa && len(got) > 0 {
					t.Errorf("the host answers a container: %s", got[0])
				}
			}
		}

		aa.tryPing("ff02::1%eth0")
		aa.send("once")
		bb.sees("once")
		bb.send("control")
		aa.sees("control")
		for _, kind := range frameKinds {
			if got := bb.frames(mark("once", kind)); len(got) != 1 {
				t.Errorf("a frame %q arrives %d times", kind, len(got))
			}
		}
		out := h.exec("aa", "ping", "-c", "20", "-i", "0.05", "bb")
		if strings.Contains(out, "DUP") || !strings.Contains(out, "20 packets received") {
			t.Errorf("20 packets are not answered once each:\n%s", out)
		}
		known := []string{aa.link("eth0").MAC, bb.link("eth0").MAC}
		for _, c := range []*capture{aa, bb} {
			sources := c.sources()
			if len(sources) < len(known) {
				t.Errorf("%s recorded frames of %v alone", c.name, sources)
			}
			for mac := range sources {
				if !slices.Contains(known, mac) {
					t.Errorf("%s got frames of %s, which belongs to none of the containers", c.name, mac)
				}
			}
		}
		h.docker("rm", "-f", "aa", "bb")
		h.ovs("del-port", "br-duo", "v-hand")
		h.docker("network", "rm", "duo")
		h.expectClean()
	})
}

// tryPing pings, with whatever result.
func (p place) tryPing(addr string) {
	p.h.t.Helper()
	p.h.sh("nsenter --net=" + p.netns + " ping -c 2 -i 0.2 -W 1 " + addr + " || true")
}

// echoes is how many pings the host's stack took so far, by family.
func (h *host) echoes() map[string]int {
	h.t.Helper()
	count := map[string]int{}
	for line := range strings.Lines(h.run("nstat", "-asz", "IcmpInEchos", "Icmp6InEchos")) {
		if f := strings.Fields(line); strings.HasPrefix(f[0], "Icmp") {
			n, err := strconv.Atoi(f[1])
			h.must(err)
			count[f[0]] = n
		}
	}
	return count
}
