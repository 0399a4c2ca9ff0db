//go:build linux

package integration

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// station is a port of a bridge, by the VLANs in which it should be.
type station struct {
	*capture
	untagged int   // VLAN of frames without a tag; -1: they are dropped
	tagged   []int // VLANs of the list
	native   bool  // frames of the untagged VLAN may come with its tag, too
}

// hears are the tags with which a frame of a VLAN arrives, and whether it does.
func (s station) hears(vlan int, rest []string) (tags []string, heard bool) {
	switch {
	case vlan == s.untagged:
		return rest, true
	case slices.Contains(s.tagged, vlan):
		return append([]string{fmt.Sprint(vlan)}, rest...), true
	}
	return nil, false
}

// takes is the VLAN of a frame with these tags, -1 for none.
func (s station) takes(tags []string) (vlan int, rest []string) {
	if len(tags) == 0 {
		return s.untagged, nil
	}
	rest = tags[1:]
	fmt.Sscan(tags[0][strings.LastIndex(tags[0], ":")+1:], &vlan)
	switch {
	case vlan == 0: // a priority, no VLAN
		return s.untagged, rest
	case slices.Contains(s.tagged, vlan), s.native && vlan == s.untagged:
		return vlan, rest
	}
	return -1, nil
}

var framed = regexp.MustCompile(`<([\w-]+)> (\w+)`)

// heard are the tags of all frames that a station saw, by their text: in any order,
// with | between.
func (s station) heard() map[string]string {
	found := map[string]string{}
	for _, f := range s.frames("<") {
		m := framed.FindStringSubmatch(f)
		if m == nil {
			continue
		}
		var tags []string
		for _, tag := range vlanTag.FindAllStringSubmatch(f, -1) {
			tags = append(tags, tag[1])
		}
		text := strings.Join(tags, " ")
		if all, seen := found[m[1]]; seen {
			text = all + "|" + text
		}
		found[m[1]] = text
	}
	return found
}

const trunkBridge = "br-trunk"

// trunkHost has access ports of listed and other VLANs beside trunks, all on one
// bridge, and a port that others made, which hears all VLANs.
func trunkHost(h *host) (stations []station) {
	for _, n := range []struct{ name, subnet, options string }{
		{"v10", "10.10.0.0/24", "vlan=10"},
		{"v21", "10.21.0.0/24", "vlan=21"},
		{"v30", "10.30.0.0/24", "vlan=30"},
		{"v5", "10.5.0.0/25", "vlan=5"},
		{"open", "10.99.0.0/24", "vlan=none"},
		{"bare", "10.98.0.0/24", "trunk=20-22,10"},
		{"native", "10.5.0.128/25", "trunk=10,20-22 vlan=5"},
	} {
		args := []string{"-o", "bridge=" + trunkBridge, "-o", "gateway_mode=none", "--subnet", n.subnet}
		for o := range strings.FieldsSeq(n.options) {
			args = append(args, "-o", o)
		}
		h.network(n.name, args...)
	}
	add := func(name, network string, untagged int, tagged ...int) {
		h.container(name, network)
		stations = append(stations, station{h.in(name).capture(), untagged, tagged, len(tagged) > 0})
	}
	add("a10", "v10", 10)
	add("a21", "v21", 21)
	add("a30", "v30", 30)
	add("a5", "v5", 5)
	add("o1", "open", 0)
	add("t1", "bare", -1, 10, 20, 21, 22)
	add("t2", "bare", -1, 10, 20, 21, 22)
	add("n1", "native", 5, 10, 20, 21, 22)
	add("c1", `name=v30,"driver-opt=trunk=10,22"`, 30, 10, 22)
	add("c2", "name=bare,driver-opt=trunk=none,driver-opt=vlan=21", 21)
	add("c3", "name=v30,driver-opt=trunk=10,driver-opt=vlan=none", -1, 10)
	add("c4", "name=bare,driver-opt=vlan=30", 30, 10, 20, 21, 22)
	all := make([]int, 0, 4094)
	for tag := 1; tag <= 4094; tag++ {
		all = append(all, tag)
	}
	return append(stations, station{h.byHand("all", trunkBridge, "").capture(), 0, all, true})
}

// A trunk container gets and sends the frames of its list and those of its native
// VLAN, and no others, whatever tags it writes: the same for every port of the
// bridge.
func TestTrunks(t *testing.T) {
	oldAndNew(t, func(t *testing.T, h *host) {
		stations := trunkHost(h)
		want := make([]map[string]string, len(stations)) // tags by text
		for i := range want {
			want[i] = map[string]string{}
		}
		send := func(from station, text string, tags ...string) {
			from.send(text, tags...)
			vlan, rest := from.takes(tags)
			for i, to := range stations {
				if got, heard := to.hears(vlan, rest); heard && vlan >= 0 && to.name != from.name {
					want[i][text] = strings.Join(got, " ")
				}
			}
		}
		for _, s := range stations {
			for _, tags := range []string{"", "0", "5", "10", "21", "22", "30", "4094", "88a8:10", "88a8:30", "10 30", "0 10", "30 10", "88a8:21 30"} {
				send(s, s.name+"-"+strings.NewReplacer(" ", "-", ":", "").Replace(tags), strings.Fields(tags)...)
			}
		}
		for _, tag := range []string{"0", "5", "10", "21", "30"} { // the last of every segment
			send(stations[len(stations)-1], "all-last-"+tag, tag)
		}
		for i, s := range stations {
			h.eventually(s.name+" sees what is for it", func() error {
				got := s.heard()
				for text := range want[i] {
					if len(strings.Split(got[text], "|")) < len(frameKinds) {
						return fmt.Errorf("of %q it has %q", text, got[text])
					}
				}
				return nil
			})
			for text, got := range s.heard() {
				if strings.HasPrefix(text, s.name+"-") {
					continue
				}
				tags, wanted := want[i][text]
				if all := strings.Repeat("|"+tags, len(frameKinds))[1:]; !wanted || got != all {
					t.Errorf("%s sees %q with the tags %q, want %q, %v", s.name, text, got, tags, wanted)
				}
			}
		}

		// A container with interfaces in its VLANs talks to those that are in one.
		h.answers("t1", "10.10.0.200", 10)
		h.answers("t1", "10.21.0.200", 21)
		h.answers("n1", "10.10.0.201", 10)
		h.ping("a10", "10.10.0.200")
		h.ping("a10", "10.10.0.201")
		h.ping("a21", "10.21.0.200")
		h.in("n1").run("ip", "addr", "add", "10.5.0.99/25", "dev", "eth0")
		h.ping("a5", "10.5.0.99")
		h.noPing("t1", h.address("t2", "bare"))
	})
}

// answers has a container answer for an address in a VLAN, as an interface of it
// would.
func (h *host) answers(container, addr string, vlan int) {
	h.t.Helper()
	h.must(buildFrames())
	file := "/tmp/answers-" + addr
	h.sh(fmt.Sprintf("setsid nsenter --net=%s %s -answer eth0 %s %d </dev/null >%s 2>&1 &", h.in(container).netns, framesBinary, addr, vlan, file))
	h.eventually(container+" answers for "+addr, func() error {
		b, err := os.ReadFile(h.Path(file))
		if err == nil && strings.TrimSpace(string(b)) != "answering" {
			err = fmt.Errorf("it says %q", b)
		}
		return err
	})
}

// Trunks are shown, found in order by doctor, put right when somebody changes them,
// and there after restarts.
func TestTrunkLife(t *testing.T) {
	oldAndNew(t, func(t *testing.T, h *host) {
		h.network("bare", "-o", "trunk=30,20-22,10", "-o", "gateway_mode=none", "--subnet", "10.98.0.0/24")
		h.network("native", "-o", "trunk=10", "-o", "vlan=5", "--subnet", "10.5.0.0/24")
		h.network("auto", "--subnet", "10.6.0.0/24")
		h.network("v10", "-o", "vlan=10", "-o", "gateway_mode=none", "--subnet", "10.10.0.0/24")
		h.container("t1", "bare")
		h.container("n1", "native")
		h.container("n2", "native")
		h.container("a10", "v10")
		h.docker("network", "connect", "--driver-opt", `"trunk=40-41,10"`, "auto", "a10")
		works := func() {
			t.Helper()
			h.ping("n1", "n2")
			h.answers("t1", "10.10.0.200", 10)
			h.ping("a10", "10.10.0.200")
		}
		works()
		h.healthy()
		h.must(h.exact())
		table := h.run(buildDir+"/ovs-container-network", "status")
		for _, words := range []string{"trunk 10,20-22,30", "5, trunk 10 ", "(auto)", ", trunk 10,40-41"} {
			if !strings.Contains(table, words) {
				t.Errorf("status does not say %q:\n%s", words, table)
			}
		}
		t1, n1 := h.portOf("t1", "bare"), h.portOf("n1", "native")
		for _, hand := range [][]string{
			{"clear", "Port", t1, "trunks"}, {"add", "Port", t1, "trunks", "0"}, {"set", "Port", t1, "tag=7"}, {"clear", "Port", t1, "vlan_mode"},
			{"set", "Port", n1, "vlan_mode=native-tagged"}, {"set", "Port", n1, "trunks=10,11"}, {"clear", "Port", n1, "tag"},
		} {
			h.ovs(hand...)
			h.eventually(fmt.Sprintf("it is put right after %v", hand), h.exact)
		}
		h.stopDriver()
		h.ovs("set", "Port", t1, "trunks=1")
		h.startDriver()
		h.eventually("it is put right after the driver was away", h.exact)
		h.docker("restart", "t1", "n1")
		h.eventually("all is exact after a restart of the containers", h.exact)
		works()
		h.healthy()

		// A flow that drops what the trunk sends is found.
		port := strings.TrimSpace(h.ovs("get", "Interface", h.portOf("t1", "bare"), "ofport"))
		h.run("ovs-ofctl", "add-flow", "br-int", "priority=9,in_port="+port+",actions=drop")
		h.diagnoses("container t1 on network bare", "drops what the container sends", "dl_vlan=10")
		h.run("ovs-ofctl", "--strict", "del-flows", "br-int", "priority=9,in_port="+port)
		h.healthy()

		h.docker("rm", "-f", "t1", "n1", "n2", "a10")
		h.docker("network", "rm", "bare", "native", "auto", "v10")
		h.expectClean()
	})
}

// A container makes an interface of a VLAN on its trunk. It needs a kernel that can.
func TestVLANSubInterfaces(t *testing.T) {
	t.Parallel()
	h := newHost(t, service, own)
	if _, err := h.Shell(h.ctx(), "ip link add link lo name vl7 type vlan id 7 && ip link del vl7"); err != nil {
		t.Skip("this kernel has no module 8021q: ", err)
	}
	h.docker("tag", "lab", "busybox")
	h.run("mkdir", "-p", workDir)
	p, err := readPage("docs/options.md")
	h.must(err)
	ran := 0
	for _, b := range p.blocks {
		if b.remark == "tested by TestVLANSubInterfaces" {
			h.typeIn(p.name, b)
			ran++
		}
	}
	if ran == 0 {
		t.Error("docs/options.md has no such block")
	}
	h.expectClean()
}
