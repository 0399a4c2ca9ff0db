//go:build linux

package integration

import (
	"strings"
	"testing"
)

// Who observes trunks gets the frames with the tags that they have on the bridge, of
// all VLANs or of those that it asks for. Where nobody says trunk it sees what a
// container sees. It sends nothing, whatever tags it writes.
func TestMirrorTrunks(t *testing.T) {
	oldAndNew(t, func(t *testing.T, h *host) {
		const br = "br-mir"
		h.ovs("add-br", br, "--", "set", "bridge", br, "datapath_type=netdev")
		for name, options := range map[string]string{"bare": "trunk=10,20-22", "native": "trunk=10 vlan=5", "v30": "vlan=30"} {
			args := []string{"-o", "bridge=" + br, "-o", "gateway_mode=none"}
			for o := range strings.FieldsSeq(options) {
				args = append(args, "-o", o)
			}
			h.network(name, args...)
		}
		h.container("t1", "bare")
		h.container("n1", "native")
		h.container("n2", "native")
		h.container("a30", "v30")
		h.container("c30", `name=v30,"driver-opt=trunk=10,22"`)
		observers := map[string]string{ // by network and options
			"eye": "bare", "eyeNone": "bare,driver-opt=trunk=none", "eye10": "bare,driver-opt=trunk=10",
			"eyeN": "native", "eye30": "v30", "eye30t": `v30,"driver-opt=trunk=10,22,30"`,
		}
		seen := make(map[string]*capture)
		for name, where := range observers {
			if i := strings.IndexByte(where, '"'); i >= 0 { // Docker reads CSV
				where = where[:i] + "driver-opt=mirror.dest=self," + where[i:]
			} else {
				where += ",driver-opt=mirror.dest=self"
			}
			h.container(name, "name="+where)
			seen[name] = h.in(name).capture()
		}
		h.copies("bare", 3, 1)
		h.copies("native", 1, 2)
		h.copies("v30", 2, 2)
		hand := h.byHand("all", br, "").capture()
		round := func(n string) {
			h.in("t1").send("t10"+n, "10")
			h.in("t1").send("t21"+n, "21")
			h.in("t1").send("tq"+n, "10", "30")
			h.in("t1").send("out"+n, "30")
			h.in("t1").send("bare" + n)
			h.in("n1").send("n" + n)
			h.in("a30").send("a" + n)
			h.in("c30").send("c22"+n, "22")
			hand.sees("t10"+n, "t21"+n, "n"+n, "a"+n, "c22"+n)
			for _, w := range []struct{ who, text, tags string }{
				{"eye", "t10", "10"}, {"eye", "t21", "21"}, {"eye", "tq", "10 30"}, {"eye", "c22", "22"},
				{"eye", "n", ""}, {"eye", "a", ""}, {"eye", "out", ""}, {"eye", "bare", ""},
				{"eyeNone", "t10", "none"}, {"eyeNone", "t21", "none"}, {"eyeNone", "tq", "30"}, {"eyeNone", "out", ""},
				{"eye10", "t10", "10"}, {"eye10", "tq", "10 30"}, {"eye10", "t21", ""}, {"eye10", "c22", ""},
				{"eyeN", "n", "5"}, {"eyeN", "t10", "10"}, {"eyeN", "a", ""}, {"eyeN", "t21", ""},
				{"eye30", "a", "none"}, {"eye30", "c22", "none"}, {"eye30", "n", ""},
				{"eye30t", "a", "30"}, {"eye30t", "c22", "22"}, {"eye30t", "t10", "10"}, {"eye30t", "n", ""},
			} {
				c, text := seen[w.who], w.text+n
				if w.tags == "" {
					c.sawNone(text)
					continue
				}
				c.sawEach(1, text)
				for _, tags := range c.tags(text) {
					if got := strings.Join(tags, " "); got != strings.TrimPrefix(w.tags, "none") {
						t.Errorf("%s has the copy of %s with the tags %q, want %s", w.who, text, got, w.tags)
					}
				}
			}
		}
		round("1")
		h.must(h.exact())
		h.healthy()
		sends := func(n string) {
			for name := range observers {
				for _, tags := range []string{"", "5", "10", "22", "30"} {
					h.in(name).send("from-"+name+tags+n, strings.Fields(tags)...)
				}
			}
		}
		var listeners []*capture
		for _, name := range []string{"t1", "n2", "a30", "c30"} {
			listeners = append(listeners, h.in(name).capture())
		}
		sends("2")
		if h.form == service { // and while its mirror is not there
			h.stopDriver()
			h.ovs("clear", "bridge", br, "mirrors")
			h.run("ovs-appctl", "revalidator/purge")
			sends("3")
			h.startDriver()
			h.copies("bare", 3, 1)
			h.copies("native", 1, 2)
			h.copies("v30", 2, 2)
		}
		round("4")
		for _, c := range listeners {
			if got := c.frames("<from-"); len(got) > 0 {
				t.Errorf("%s hears %d frames of observers, the first: %s", c.name, len(got), got[0])
			}
		}
		for _, f := range hand.frames("<from-") { // a port of others that carries all VLANs, this one too
			if !strings.Contains(f, "vlan 4095,") {
				t.Errorf("%s hears of an observer: %s", hand.name, f)
			}
		}
		h.docker("rm", "-f", "t1", "n1", "n2", "a30", "c30")
		for name := range observers {
			h.docker("rm", "-f", name)
		}
		h.docker("network", "rm", "bare", "native", "v30")
		h.expectClean()
	})
}
