//go:build linux

package integration

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// symptoms are the texts of docs/troubleshooting.md that are not seen yet.
type symptoms struct {
	*host
	left []string
}

// seen crosses off the texts that an output shows, and wants that there is one.
func (s *symptoms) seen(out string) {
	s.t.Helper()
	found := false
	lines := strings.Split(out, "\n")
	s.left = slices.DeleteFunc(s.left, func(text string) bool {
		for _, line := range lines {
			if pattern(text).MatchString(line) {
				found = true
				return true
			}
		}
		return false
	})
	if !found {
		s.t.Errorf("docs/troubleshooting.md does not say what to do about, or says it twice:\n%s", out)
	}
}

// fails runs a docker command that shows a symptom.
func (s *symptoms) fails(args ...string) { s.t.Helper(); s.seen(s.dockerFails(args...)) }

// refused is fails for a network of ours.
func (s *symptoms) refused(args ...string) {
	s.t.Helper()
	s.fails(append([]string{"network", "create", "--driver", "ovs-container-network"}, append(args, "refused")...)...)
}

// says waits until status shows a symptom.
func (s *symptoms) says(part string) {
	s.t.Helper()
	var out string
	s.eventually("status says "+part, func() (err error) {
		if out = s.run(buildDir+"/ovs-container-network", "status"); !strings.Contains(out, part) {
			err = fmt.Errorf("it says\n%s", out)
		}
		return err
	})
	s.seen(out)
}

// explained checks that docs/troubleshooting.md says what to do about a message, below a
// remark that names the test.
func (h *host) explained(out string) {
	h.t.Helper()
	p, err := readPage("docs/troubleshooting.md")
	h.must(err)
	test, _, _ := strings.Cut(h.t.Name(), "/")
	for _, b := range p.blocks {
		if b.remark == "tested by "+test && prints(out, b.text) == nil {
			return
		}
	}
	h.t.Errorf("docs/troubleshooting.md does not explain, in a block of %s:\n%s", test, out)
}

// Every message that docs/troubleshooting.md explains is one that a user meets,
// word for word, in the situation that the page describes.
func TestTroubleshooting(t *testing.T) {
	t.Parallel()
	p, err := readPage("docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	h := bareHost(t, service, own)
	s := &symptoms{host: h}
	for _, b := range p.blocks {
		if testedBy.MatchString(b.remark) {
			continue // elsewhere
		}
		for line := range strings.Lines(b.text) {
			s.left = append(s.left, strings.TrimSpace(line))
		}
	}
	h.must(h.StartOVS(h.ctx()))
	h.startDocker()
	h.must(h.ImportImage(h.ctx(), image, "lab"))

	s.refused()
	out, _ := h.Run(h.ctx(), buildDir+"/ovs-container-network", "status")
	s.seen(out)
	h.install()
	out, _ = h.Run(h.ctx(), buildDir+"/ovs-container-network", "serve")
	s.seen(out)

	s.options()
	s.bridges()
	s.attachments()
	s.switchAway()
	s.driverAway()
	s.plugins()
	for _, text := range s.left {
		t.Errorf("docs/troubleshooting.md explains what nobody met: %s", text)
	}
}

func (s *symptoms) options() {
	s.t.Helper()
	s.refused("--opt", "colour=red")
	out := s.dockerFails("network", "create", "--driver", "ovs-container-network", "--opt", "vlan=4095", "refused")
	s.seen(out)
	id := regexp.MustCompile(`\(request (\w+)\)`).FindStringSubmatch(out)
	s.seen(s.run("grep", "req="+id[1], "/var/log/ocn.log"))
}

func (s *symptoms) bridges() {
	s.t.Helper()
	s.sh(`ip link add lin0 type bridge
ip link add eth7 type veth peer name eth7p
ovs-vsctl add-br br-up -- set bridge br-up datapath_type=netdev -- add-port br-up eth7
ovs-vsctl add-br br-late -- set bridge br-late datapath_type=netdev
ip link add eth8 type veth peer name eth8p`)
	s.refused("--opt", "bridge=lin0")
	s.refused("--opt", "bridge=eth7")
	s.refused("--opt", "bridge=br-up")
	s.network("late", "--subnet", "10.8.0.0/24", "--opt", "bridge=br-late")
	s.sh("ovs-vsctl add-port br-late eth8")
	s.says("got an uplink")
	s.sh("ovs-vsctl set Open_vSwitch . external_ids:ovn-remote=unix:/run/ovn/sb.sock")
	s.refused("--opt", "bridge=br-int")
	s.sh("ovs-vsctl remove Open_vSwitch . external_ids ovn-remote")
	s.must(s.WipeOVSDB(s.ctx()))
	s.says("was lost and made again")
	s.docker("network", "rm", "late")
}

func (s *symptoms) attachments() {
	s.t.Helper()
	s.network("web", "--subnet", "10.1.0.0/24", "--opt", "vlan=10")
	s.network("quiet", "--subnet", "10.2.0.0/24", "--opt", "gateway_mode=none")
	s.network("inner", "--subnet", "10.3.0.0/24", "--internal")
	s.network("fixed", "--subnet", "10.4.0.0/24", "--ipam-driver", "ovs-container-network", "--opt", "ipam=static")
	s.network("twin", "--subnet", "10.4.0.0/24", "--ipam-driver", "ovs-container-network")
	run := func(args ...string) []string { return append([]string{"run", "-d"}, append(args, "lab")...) }
	s.fails(run("--network", "quiet", "-p", "8080:80")...)
	s.fails(run("--network", "inner", "-p", "8080:80")...)
	s.fails(run("--network", "fixed")...)
	s.refused("--subnet", "10.1.0.0/25", "--opt", "vlan=11")
	s.refused("--subnet", "10.1.0.0/25", "--opt", "vlan=10", "--ipam-driver", "ovs-container-network")
	s.container("a1", "web", "--mac-address", "02:00:00:00:00:11")
	s.portOf("a1", "web") // its name is known
	s.fails("network", "rm", "web")
	s.network("beside", "--subnet", "10.5.0.0/24", "--opt", "vlan=10")
	s.fails(run("--network", "beside", "--mac-address", "02:00:00:00:00:11")...)
	s.container("f1", "fixed", "--ip", "10.4.0.9")
	s.fails(run("--network", "fixed", "--ip", "10.4.0.9")...)
	s.fails("network", "connect", "twin", "f1")
	s.sh("ip link del " + s.portOf("a1", "web"))
	s.says("its link is gone")
}

func (s *symptoms) switchAway() {
	s.t.Helper()
	s.must(s.KillVswitchd(s.ctx(), syscall.SIGSTOP))
	s.fails("run", "-d", "--network", "web", "lab")
	s.must(s.KillVswitchd(s.ctx(), syscall.SIGCONT))
	s.must(s.KillOVSDB(s.ctx()))
	s.fails("run", "-d", "--network", "web", "lab")
	s.must(s.StartOVSDB(s.ctx()))
}

func (s *symptoms) driverAway() {
	s.t.Helper()
	s.stopDriver()
	s.fails("network", "create", "--driver", "ovs-container-network", "refused")
	s.sh("rm -r /var/lib/ovs-container-network")
	s.startDriver()
	s.fails("run", "-d", "--network", "web", "lab")
	s.fails("run", "-d", "--network", "twin", "lab")
}

func (s *symptoms) plugins() {
	s.t.Helper()
	s.docker("plugin", "create", pluginTag, buildDir+"/plugin")
	s.fails("plugin", "create", nextTag, buildDir+"/plugin")
}
