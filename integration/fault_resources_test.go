//go:build linux

package integration

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Addresses, VLANs and file descriptors run out: whoever comes too late is told,
// doctor tells everybody, and when there is room again all works.
func TestExhausted(t *testing.T) {
	t.Parallel()
	h := newHost(t, service, own)
	s := newScene(t, h)
	s.poolFull("ovs-container-network", "10.5.0.0/29", "no free address")
	s.poolFull("default", "10.6.0.0/29", "no available IPv4 addresses")
	s.vlansTaken()
	s.noDescriptors()
	s.leave()
	h.expectClean()
}

// poolFull starts one container more than a /29 has room for.
func (s *scene) poolFull(ipam, subnet, cause string) {
	s.t.Helper()
	s.network("tiny", "--subnet", subnet, "--ipam-driver", ipam)
	crowd := []string{"p1", "p2", "p3", "p4", "p5"} // 8, less network, broadcast and gateway
	start := func(name string) []string { return []string{"run", "-d", "--name", name, "--network", "tiny", "lab"} }
	s.survives("pool full, IPAM driver "+ipam, func() {
		if failed := s.atOnce(crowd, start, nil); len(failed) > 0 {
			s.t.Fatalf("%v did not start", failed)
		}
		if out := s.dockerFails(start("p6")...); !strings.Contains(out, cause) {
			s.t.Errorf("docker is told %s", out)
		}
		s.diagnoses("tiny", subnet, "no free address")
		s.docker("rm", "-f", "p1")
		s.docker("start", "p6")
		s.ping("p6", "p2")
		s.docker("rm", "-f", "p2", "p3", "p4", "p5", "p6")
	})
	s.docker("network", "rm", "tiny")
}

// vlansTaken makes others use every tag of a bridge but the one that a network
// has, and then gives one back.
func (s *scene) vlansTaken() {
	s.t.Helper()
	tags := make([]string, 0, 4092)
	for tag := 1; tag <= 4092; tag++ {
		tags = append(tags, strconv.Itoa(tag))
	}
	s.ovs("add-br", "br-full", "--", "set", "Bridge", "br-full", "datapath_type=netdev",
		"--", "add-port", "br-full", "many", "vlan_mode=trunk", "trunks="+strings.Join(tags, ","), "--", "set", "Interface", "many", "type=internal",
		"--", "add-port", "br-full", "one", "tag=4093", "--", "set", "Interface", "one", "type=internal")
	create := []string{"network", "create", "--driver", "ovs-container-network", "--opt", "bridge=br-full", "--subnet"}
	s.survives("VLANs taken", func() {
		s.docker(append(create, "10.7.0.0/24", "last")...)
		if out := s.dockerFails(append(create, "10.8.0.0/24", "late")...); !strings.Contains(out, "all 4094 VLANs of bridge br-full are in use") {
			s.t.Errorf("docker is told %s", out)
		}
		s.diagnoses("br-full", "VLAN")
		s.ovs("del-port", "one")
		s.docker(append(create, "10.8.0.0/24", "late")...)
		for _, network := range []string{"last", "late"} {
			s.container(network+"1", network)
			s.container(network+"2", network)
			s.ping(network+"1", network+"2")
			s.docker("rm", "-f", network+"1", network+"2")
			s.docker("network", "rm", network)
		}
		s.ovs("del-br", "br-full")
	})
}

// noDescriptors leaves the driver no file descriptor to open.
func (s *scene) noDescriptors() {
	s.t.Helper()
	s.survives("file descriptors exhausted", func() {
		s.limited(s.freeDescriptor(s.driverPID()), func() {
			s.run(buildDir+"/ovs-container-network", "status") // it keeps one for this
			s.diagnoses("file descriptors", "LimitNOFILE")
		})
		s.limited(3, func() { // what it closes makes no room
			s.callsFail("too many open files|file descriptors")
			s.diagnoses("file descriptors", "LimitNOFILE")
		})
	})
}

// limited runs f while the driver may not have a file with this number or a
// larger one. The driver must live on.
func (h *host) limited(number int, f func()) {
	h.t.Helper()
	pid := h.driverPID()
	hard := h.run("prlimit", "--pid", pid, "--nofile", "--output", "HARD", "--noheadings")
	limit := func(soft string) { h.run("prlimit", "--pid", pid, "--nofile="+soft+":") }
	limit(strconv.Itoa(number))
	f()
	limit(hard)
	if now := h.driverPID(); now != pid {
		h.t.Errorf("driver %s ended, now it is %s", pid, now)
	}
}

// freeDescriptor is the number that the next file of a process would get.
func (h *host) freeDescriptor(pid string) int {
	h.t.Helper()
	open := strings.Fields(h.run("ls", "/proc/"+pid+"/fd"))
	for n := 0; ; n++ {
		if !slices.Contains(open, strconv.Itoa(n)) {
			return n
		}
	}
}

// A driver with nothing to do writes nothing: not into Open vSwitch's database,
// not into its state directory, not to links. Nor does one that starts and finds
// all in order.
func TestHealthyWritesNothing(t *testing.T) {
	t.Parallel()
	h := newHost(t, service, own)
	w := h.settle()
	h.healthy()
	h.must(h.exact())
	files := func() string { return h.sh("find " + stateDir + " -printf '%p %y %s %i %T@ %C@\n' | sort") }
	before := files()
	writes := h.watchWrites()
	h.after(10*time.Second, nil)
	if after := files(); after != before {
		t.Errorf("the state directory was\n%s\nand is\n%s", before, after)
	}
	writes.none("nothing happened for ten seconds")
	h.stopDriver()
	h.startDriver()
	h.healthy()
	h.must(h.exact())
	writes.none("the driver was started anew")
	w.leave()
}

// writes records changes of Open vSwitch's database, in columns that the driver
// writes, and of its links.
type writes struct {
	*host
	files []string
	marks int
}

func (h *host) watchWrites() *writes {
	h.t.Helper()
	w := &writes{host: h}
	watch := func(name, command string) {
		w.files = append(w.files, "/run/writes-"+name)
		h.sh("timeout 120 " + command + " </dev/null >>/run/writes-" + name + " 2>&1 &")
	}
	const monitor = "ovsdb-client --format=json monitor Open_vSwitch "
	watch("root", monitor+"Open_vSwitch '!initial,next_cfg,bridges,external_ids'")
	watch("bridge", monitor+"Bridge '!initial,name,ports,datapath_type,external_ids'")
	watch("port", monitor+"Port '!initial,name,interfaces,tag,trunks,vlan_mode,external_ids'")
	watch("interface", monitor+"Interface '!initial,name,type,external_ids'")
	watch("link", "ip -o monitor link")
	w.mark()
	return w
}

// mark makes a change that every watch must see, so that the silence before it
// proves something, and forgets what was seen.
func (w *writes) mark() {
	w.t.Helper()
	w.eventually("every watch reports a change of ours", func() error {
		w.marks++
		mark := fmt.Sprint(60000 + w.marks)
		text := "external_ids:mark=" + mark
		w.ovs("--no-wait", "set", "Open_vSwitch", ".", text, "--", "set", "Bridge", "br-int", text,
			"--", "set", "Port", "br-int", text, "--", "set", "Interface", "br-int", text)
		w.run("ip", "link", "set", "lo", "mtu", mark)
		for _, file := range w.files {
			if !strings.Contains(w.sh("cat "+file), mark) {
				return fmt.Errorf("not %s", file)
			}
		}
		return nil
	})
	for _, file := range w.files {
		w.sh(": >" + file)
	}
}

// none fails the test if something was written.
func (w *writes) none(when string) {
	w.t.Helper()
	for _, file := range w.files {
		if seen := w.sh("grep -vE '^[0-9]+: (lo|docker|veth)' " + file + " || true"); seen != "" {
			w.t.Errorf("when %s, %s reports\n%s", when, file, seen)
		}
	}
	w.mark()
}
