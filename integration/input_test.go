//go:build linux

package integration

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

// watch is a host and how it looked before a command that must change nothing.
type watch struct {
	*host
	before string
}

// watched looks at the host.
func watched(h *host) *watch { return &watch{h, h.scene()} }

// look takes what is there now for right.
func (w *watch) look() { w.before = w.scene() }

// scene is all that a command to the driver could leave behind.
func (h *host) scene() string {
	h.t.Helper()
	seen := h.sh(`
docker network ls --format 'network {{.Name}}' | grep -v docker_gwbridge
docker ps -a --format 'container {{.Names}}'
for b in $(ovs-vsctl --timeout=10 list-br); do echo bridge $b; ovs-vsctl --timeout=10 list-ports $b | sed 's/^/port /'; done
ip -o link | awk -F '[:@ ]+' '{print "link", $2}' | grep -vE 'docker_gwbridge|ovs-netdev'
nft list tables 2>/dev/null || true
find /var/lib/ovs-container-network -name '*.json*' | sed 's/^/record /'`)
	lines := strings.Split(seen, "\n")
	for _, p := range h.status().Pools {
		lines = append(lines, fmt.Sprintf("pool %s with %d addresses", p.ID, p.Used))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

var requestID = regexp.MustCompile(`\(request ([0-9a-f]{8})\)`)

// refuse runs a docker command that has to fail, with a message that says all of
// says and a number that leads to it in the log, and that has to leave nothing.
func (w *watch) refuse(says []string, args ...string) {
	w.t.Helper()
	out, err := w.briefly(append([]string{"docker"}, args...)...)
	if err == nil {
		w.t.Errorf("docker %q was not refused", args)
		w.sh("exec 2>&1; docker rm -f bad; docker network rm bad || docker network disconnect " + strings.Join(args[len(args)-2:], " ") + " || true")
		w.unchanged("all is as before")
		return
	}
	for _, s := range says {
		if !strings.Contains(out, s) {
			w.t.Errorf("docker %q: the message does not say %q:\n%s", args, s, out)
		}
	}
	if id := requestID.FindStringSubmatch(out); id == nil {
		w.t.Errorf("docker %q: the message has no request id:\n%s", args, out)
	} else {
		log := "/var/log/ocn.log"
		if w.form == plugin {
			log = lab.DockerLog
		}
		w.eventually("the log has the request", func() error {
			_, err := w.Run(w.ctx(), "grep", "-q", "req="+id[1], log)
			return err
		})
	}
	w.unchanged(fmt.Sprintf("docker %q leaves nothing", args))
}

// briefly runs a command that has to end within 15 seconds.
func (h *host) briefly(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(h.ctx(), 15*time.Second)
	defer cancel()
	return h.Run(ctx, args...)
}

func (w *watch) unchanged(what string) {
	w.t.Helper()
	w.eventually(what, func() error {
		before, now := strings.Split(w.before, "\n"), strings.Split(w.scene(), "\n")
		var faults []error
		for _, line := range before {
			if !slices.Contains(now, line) {
				faults = append(faults, fmt.Errorf("missing: %s", line))
			}
		}
		for _, line := range now {
			if !slices.Contains(before, line) {
				faults = append(faults, fmt.Errorf("too much: %s", line))
			}
		}
		return errors.Join(faults...)
	})
}

// create is the command that makes network bad.
func create(args ...string) []string {
	return append(append([]string{"network", "create", "--driver", "ovs-container-network"}, args...), "bad")
}

// refusal is a `network create` that must be refused.
type refusal struct {
	wrong []string // options KEY=VALUE: the message has to name each key with its value
	args  []string // the rest of the command
	says  []string // what else the message has to say
	short bool     // the engine or the form may matter
}

func (r refusal) check(w *watch) {
	w.t.Helper()
	var args []string
	says := slices.Clone(r.says)
	for _, opt := range r.wrong {
		key, value, _ := strings.Cut(opt, "=")
		args = append(args, "--opt", opt)
		says = append(says, key+"="+strconv.Quote(value))
	}
	w.refuse(says, create(append(args, r.args...)...)...)
}

// refusals is what no network may be created with, on any host.
func refusals() []refusal {
	ours := func(args ...string) []string {
		return append([]string{"--ipam-driver", "ovs-container-network"}, args...)
	}
	two := []string{"--subnet", "10.20.0.0/24", "--subnet", "10.21.0.0/24"}
	all := []refusal{
		{wrong: []string{"bridgee=br1"}, says: []string{"allowed are bridge, dhcp, dhcp.release, ", "external_ids, gateway_mode, ipam, ", "mirror.dest, mirror.direction, mirror.ports, mirror.vlan, mtu, ", "trunk, vlan"}},
		{
			wrong: []string{"bridgee=br1", "vlan=abc", "mtu=12", "ipam=foo", "bridge=a b", "gateway_mode=foo"},
			says:  []string{"1..4094, none, auto", "576..65535", "docker, static", "1 to 15", "docker, external, none"}, short: true,
		},
		{wrong: []string{"vlan=5"}, args: []string{"--opt", "VLAN=6"}, says: []string{"given twice"}},
		{wrong: []string{"trunk=10,20-30"}, args: []string{"--opt", "vlan=21"}, says: []string{"VLAN 21 is the native one", "leave it out of the list"}, short: true},
		{wrong: []string{"vlan=auto"}, args: []string{"--opt", "trunk=10"}, says: []string{"allowed with trunk are 1..4094"}},
		{wrong: []string{"trunk=10"}, args: []string{"--opt", "ovn.switch=ls0"}, says: []string{"leave out one of trunk and ovn.switch"}},
		{wrong: []string{"gateway_mode=external"}, args: []string{"--opt", "trunk=10"}, says: []string{"without a native VLAN", "vlan=N"}},
		{wrong: []string{"external_ids=novalue,owner=me"}, says: []string{"has no =", "owner is reserved"}},
		{wrong: []string{"bridge=docker0", "vlan=abc"}},
		{wrong: []string{"mtu=1279"}, args: []string{"--ipv6", "--subnet", "10.20.0.0/24", "--subnet", "fd00:20::/64"}, says: []string{"1280", "IPv6"}, short: true},
		{wrong: []string{"gateway_mode=external"}, args: []string{"--internal"}, says: []string{"--internal"}},
		{wrong: []string{"gateway_mode=external"}, args: []string{"--ipam-driver", "null"}, says: []string{"--subnet", "--gateway"}, short: true},
		{args: two, says: []string{"--subnet", "one subnet of each"}, short: true},
		{args: ours(two...), says: []string{"--subnet", "one subnet of each"}, short: true},
		{args: ours("--ipam-opt", "foo=bar"), says: []string{"--ipam-opt", `foo="bar"`}},
		{args: ours("--subnet", "224.1.0.0/24"), says: []string{"--subnet 224.1.0.0/24", "multicast"}},
		{args: ours("--subnet", "10.20.0.0/24", "--gateway", "10.20.0.255"), says: []string{"10.20.0.255", "broadcast"}, short: true},
		{args: ours("--subnet", "10.20.0.0/24", "--aux-address", "router=10.20.0.1"), says: []string{"10.20.0.1", "in use"}, short: true},
	}
	for _, c := range []struct {
		key, allowed string
		values       []string
	}{
		{"vlan", "1..4094, none, auto", []string{"0", "4095", "-1", "abc", "100x", "+5", "", " 5", "1.5", "4294967297"}},
		{"trunk", "numbers of 1..4094 and ranges", []string{"", "0", "1-4095", "abc", "10,", "10,,20", "10-", "30-20", "10,10", "5-9,7", "10, 20", "+5", "none", "auto"}},
		{"mtu", "576..65535, 1280 and up with IPv6", []string{"12", "575", "65536", "70000", "abc", "", "-1500", "1500x", "4294968796"}},
		{"bridge", "1 to 15", []string{"abcdefghijklmnop", "", "a b", "a/b", "a;b", "a\nb", "-br", ".", "..", "brücke", "a,b", "a%b"}},
		{"external_ids", "k=v,k=v", []string{
			"", "novalue", "=x", "a=1,", "a=1,a=2", "a b=c", "a=b\nc", `a="b"`, "a='b'",
			"owner=me", "network_id=1", "tenant_id=1", "Container_Name=x", "iface-id=1", "attached-mac=02:00:00:00:00:01", "ovn-x=1",
		}},
		{"ipam", "docker, static", []string{"foo", ""}},
		{"gateway_mode", "docker, external, none", []string{"foo", ""}},
		{"tenant_id", "1 to 255", []string{"", "a\nb", strings.Repeat("x", 256)}},
	} {
		for _, v := range c.values {
			all = append(all, refusal{wrong: []string{c.key + "=" + v}, says: []string{c.allowed}})
		}
	}
	return all
}

// Options that cannot work are refused when a network is created: all faults in
// one message that names every key, its value and what is allowed, and nothing
// is left. The same for bridges that belong to somebody else.
func TestBadInput(t *testing.T) {
	t.Parallel()
	w := watched(newHost(t, service, own))
	for _, r := range refusals() {
		r.check(w)
	}
	takenNames(w)
	uplinks(w)
	noUplinks(w)
	integrationBridges(w)
	w.expectClean()
}

// takenNames has bridge names refused that something else has.
func takenNames(w *watch) {
	w.sh(`ovs-vsctl --timeout=10 add-br br-mine -- set bridge br-mine datapath_type=netdev -- add-port br-mine int0 -- set interface int0 type=internal
ovs-vsctl --timeout=10 add-br br-broken -- set bridge br-broken datapath_type=nonsense
ip link add lnx0 type bridge
ip link add eth1 type veth peer name far1`)
	w.look()
	for _, name := range []string{"docker0", "lnx0", "eth1", "lo", "int0"} {
		refusal{wrong: []string{"bridge=" + name}, says: []string{"choose another name"}}.check(w)
	}
	refusal{args: []string{"--opt", "bridge=br-broken"}, says: []string{"bridge br-broken is not ready", "nonsense"}}.check(w)
	w.ovs("del-br", "br-broken")
}

// uplinks has automatic VLANs refused where they would reach a real one.
func uplinks(w *watch) {
	for _, u := range []struct{ port, make, says string }{
		{"p0", "-- set interface p0 type=patch options:peer=p1 -- add-br br-far -- set bridge br-far datapath_type=netdev -- add-port br-far p1 -- set interface p1 type=patch options:peer=p0", "patch"},
		{"vx0", "-- set interface vx0 type=vxlan options:remote_ip=192.0.2.1", "vxlan"},
		{"eth1", "", "veth"},
	} {
		w.sh("ovs-vsctl --timeout=10 add-port br-mine " + u.port + " " + u.make)
		w.look()
		says := []string{`vlan="auto"`, "br-mine has an uplink", "port " + u.port, u.says, "1..4094 and none"}
		w.refuse(says, create("--opt", "bridge=br-mine")...)
		w.refuse(says, create("--opt", "bridge=br-mine", "--opt", "vlan=auto")...)
		for _, vlan := range []string{"7", "none"} {
			w.network("good", "--opt", "bridge=br-mine", "--opt", "vlan="+vlan)
			w.docker("network", "rm", "good")
			w.unchanged("the bridge of others stays with its ports")
		}
		w.ovs("del-port", u.port)
		w.ovs("--if-exists", "del-br", "br-far")
	}
}

// noUplinks has automatic VLANs given beside ports that lead nowhere, and none
// that one of them has.
func noUplinks(w *watch) {
	w.sh(`ip link add byhand type veth peer name farhand
ip tuntap add tap0 mode tap
ovs-vsctl --timeout=10 add-port br-mine byhand tag=4094 -- add-port br-mine tap0 trunks=4092,4093 vlan_mode=trunk`)
	w.look()
	w.network("good", "--opt", "bridge=br-mine")
	if n := w.status().Networks[0]; n.VLAN != "4091" || n.Health != "ok" || n.Owned {
		w.t.Errorf("beside ports with the tags 4092..4094 the network got vlan %s, health %s, owned %v", n.VLAN, n.Health, n.Owned)
	}
	w.docker("network", "rm", "good")
	w.unchanged("the bridge of others stays with its ports")
	w.ovs("del-br", "br-mine")
}

// integrationBridges keeps plain networks off OVN's bridge.
func integrationBridges(w *watch) {
	w.ovs("set", "Open_vSwitch", ".", "external_ids:ovn-remote=unix:/run/ovn/ovnsb_db.sock")
	w.look()
	onOVN := refusal{wrong: []string{"bridge=br-int"}, says: []string{"OVN's integration bridge", "br-docker"}}
	onOVN.check(w)
	w.ovs("add-br", "br-int", "--", "set", "bridge", "br-int", "datapath_type=netdev")
	w.look()
	onOVN.check(w)
	w.network("good")
	if n := w.status().Networks[0]; n.Bridge != "br-docker" || !n.Owned {
		w.t.Errorf("beside OVN's br-int the network got bridge %s, owned %v", n.Bridge, n.Owned)
	}
	w.docker("network", "rm", "good")
	w.unchanged("OVN's bridge stays and br-docker goes")

	// ovn-controller may be told to use another bridge; it marks the one it has.
	w.ovs("set", "Open_vSwitch", ".", "external_ids:ovn-bridge=br-ovn")
	refusal{wrong: []string{"bridge=br-ovn"}, says: []string{"OVN's integration bridge"}}.check(w)
	w.ovs("remove", "Open_vSwitch", ".", "external_ids", "ovn-remote")
	w.ovs("br-set-external-id", "br-int", "ct-zone-x", "1")
	onOVN.check(w)
	w.ovs("del-br", "br-int")
}

// What is refused looks the same from every engine in both forms, and nothing
// is left of an attachment that was refused either: no two addresses or MACs in
// one segment, no way into the segment of a network that has it to itself.
func TestBadInputEverywhere(t *testing.T) {
	everywhere(t, func(t *testing.T, h *host) {
		w := watched(h)
		for _, r := range refusals() {
			if r.short {
				r.check(w)
			}
		}
		segments(w)
	})
}

func segments(w *watch) {
	ours := []string{"--ipam-driver", "ovs-container-network"}
	w.network("ten", append(ours, "--subnet", "10.7.0.0/24", "--opt", "vlan=10", "--opt", "gateway_mode=external")...)
	w.network("eleven", append(ours, "--subnet", "10.7.0.0/25", "--gateway", "10.7.0.100", "--opt", "vlan=11")...)
	w.network("other", append(ours, "--subnet", "10.7.0.0/24", "--opt", "vlan=10", "--opt", "bridge=br-two")...)
	w.network("plain", append(ours, "--subnet", "10.7.0.0/24", "--opt", "vlan=none")...)
	w.network("auto", append(ours, "--subnet", "10.7.0.0/24")...)
	w.container("aa", "ten", "--ip", "10.7.0.9", "--mac-address", "02:00:00:00:00:01")
	w.container("bb", "eleven", "--ip", "10.7.0.8", "--mac-address", "02:00:00:00:00:01")
	w.container("cc", "bridge")
	w.portOf("aa", "ten") // its name is known now
	tag := ""
	for _, n := range w.status().Networks {
		if n.Name == "auto" {
			tag = n.VLAN
		}
	}
	w.look()

	w.refuse([]string{"10.7.0.128/25", "10.7.0.0/24 of network ten", "br-int", "vlan 10"},
		create(append(ours, "--subnet", "10.7.0.128/25", "--opt", "vlan=10")...)...)
	w.refuse([]string{"10.7.0.64/26", "10.7.0.0/24 of network plain", "br-int", "vlan none"},
		create(append(ours, "--subnet", "10.7.0.64/26", "--opt", "vlan=none")...)...)
	w.refuse([]string{`vlan="` + tag + `"`, "network auto has this tag to itself"}, create("--opt", "vlan="+tag)...)
	w.refuse([]string{`trunk="7,` + tag + `"`, "network auto has tag " + tag + " to itself"}, create("--opt", "trunk=7,"+tag)...)

	attach := func(says []string, network string, opts ...string) {
		w.t.Helper()
		var args []string
		for _, o := range opts {
			args = append(args, "--driver-opt", o)
		}
		w.refuse(says, append(append([]string{"network", "connect"}, args...), network, "cc")...)
		w.refuse(says, "run", "--detach", "--rm", "--name", "bad", "--network", "name="+network+",driver-opt="+strings.Join(opts, ",driver-opt="), "lab")
	}
	attach([]string{`foo="1"`, "external_ids, mirror.dest, mtu, port_security, trunk, vlan"}, "ten", "foo=1")
	attach([]string{`vlan="4095"`, "1..4094, none"}, "ten", "vlan=4095")
	attach([]string{`vlan="auto"`, "1..4094, none"}, "ten", "vlan=auto")
	attach([]string{`mtu="12"`, `vlan="0"`, `foo="1"`, `external_ids="owner=me"`}, "ten", "mtu=12", "vlan=0", "foo=1", "external_ids=owner=me")
	attach([]string{`vlan="` + tag + `"`, "network auto"}, "ten", "vlan="+tag)
	attach([]string{`trunk="4095"`, "out of range", "or none"}, "ten", "trunk=4095")
	attach([]string{`trunk="10-11"`, "VLAN 10 is the native one"}, "ten", "trunk=10-11")
	attach([]string{`trunk="12"`, "VLAN 12 is the native one"}, "ten", "trunk=12", "vlan=12")
	attach([]string{`trunk="` + tag + `"`, "network auto has tag"}, "ten", "trunk="+tag)

	mac := []string{"02:00:00:00:00:01", "container aa", "network ten", "vlan 10"}
	w.refuse(mac, "run", "--detach", "--rm", "--name", "bad", "--network", "ten", "--mac-address", "02:00:00:00:00:01", "lab")
	w.refuse([]string{`"01:00:00:00:00:01"`, "unicast"}, "run", "--detach", "--rm", "--name", "bad", "--network", "ten", "--mac-address", "01:00:00:00:00:01", "lab")
	w.refuse([]string{"10.7.0.9", "in use"}, "run", "--detach", "--rm", "--name", "bad", "--network", "ten", "--ip", "10.7.0.9", "lab")
	w.refuse([]string{"10.7.0.9", "container aa", "network ten", "vlan 10"},
		"network", "connect", "--driver-opt", "vlan=10", "--ip", "10.7.0.9", "eleven", "cc")
	w.refuse([]string{"10.7.0.1", "gateway of network ten", "vlan 10"},
		"network", "connect", "--driver-opt", "vlan=10", "--ip", "10.7.0.1", "eleven", "cc")
	w.docker("network", "connect", "--driver-opt", "vlan=10", "--ip", "10.7.0.10", "eleven", "cc")
	w.ping("cc", "10.7.0.9")

	w.docker("rm", "-f", "aa", "bb", "cc")
	w.docker("network", "rm", "ten", "eleven", "other", "plain", "auto")
}

// allFail runs docker commands at the same time and has each fail within 15
// seconds with a message that says all of says.
func (h *host) allFail(says []string, commands ...string) {
	h.t.Helper()
	results := make(chan error, len(commands))
	for _, c := range commands {
		go func() {
			out, err := h.briefly(append([]string{"docker"}, strings.Fields(c)...)...)
			if err == nil {
				results <- fmt.Errorf("docker %s succeeded", c)
				return
			}
			var faults []error
			for _, s := range append(says, "(request ") {
				if !strings.Contains(out, s) {
					faults = append(faults, fmt.Errorf("docker %s: the message does not say %q: %w", c, s, err))
				}
			}
			results <- errors.Join(faults...)
		}()
	}
	for range commands {
		if err := <-results; err != nil {
			h.t.Error(err)
		}
	}
}

// While Open vSwitch is away, what needs it fails with the cause, what removes
// something succeeds, and when it is back all works again and nothing is left.
// The same when ovs-vswitchd alone is away.
func TestOpenVSwitchAway(t *testing.T) {
	everywhere(t, func(t *testing.T, h *host) {
		const ours = "--ipam-driver ovs-container-network"
		h.network("net", "--ipam-driver", "ovs-container-network", "--subnet", "10.1.0.0/24")
		h.container("aa", "net")
		h.container("bb", "bridge")
		w := watched(h)
		h.network("gone", "--opt", "bridge=br-gone")
		h.container("cc", "net")

		h.must(h.StopOVS(h.ctx()))
		h.allFail([]string{"cannot reach database Open_vSwitch", "openvswitch/db.sock"},
			"network create --driver ovs-container-network bad",
			"network create --driver ovs-container-network "+ours+" bad2",
			"run --detach --rm --network net lab", "network connect net bb")
		h.docker("rm", "-f", "cc")
		h.docker("network", "rm", "gone")
		h.must(h.StartOVS(h.ctx()))
		w.unchanged("nothing is left of what failed and of what was removed while Open vSwitch was away")
		works := func() {
			h.network("new", "--opt", "bridge=br-gone")
			h.container("cc", "net")
			h.docker("network", "connect", "net", "bb")
			h.ping("aa", "cc")
			h.ping("bb", "aa")
			h.docker("network", "disconnect", "net", "bb")
			h.docker("rm", "-f", "cc")
			h.docker("network", "rm", "new")
			w.unchanged("all is as before")
		}
		works()

		h.network("gone", "--opt", "bridge=br-gone")
		h.container("cc", "gone")
		h.must(h.KillVswitchd(h.ctx(), syscall.SIGKILL))
		notTaken := []string{"ovs-vswitchd", "is it running?"}
		h.allFail(notTaken, "run --detach --rm --network net lab", "network connect net bb",
			"network create --driver ovs-container-network --opt bridge=br-bad bad")
		h.docker("rm", "-f", "cc")
		h.docker("network", "rm", "gone")
		h.must(h.StartVswitchd(h.ctx()))
		w.unchanged("nothing is left of what failed and of what was removed while ovs-vswitchd was away")
		works()

		h.must(h.KillVswitchd(h.ctx(), syscall.SIGKILL))
		h.must(h.KillOVSDB(h.ctx()))
		h.must(h.StartOVSDB(h.ctx()))
		h.allFail(notTaken, "run --detach --rm --network net lab", "network connect net bb")
		h.must(h.StartVswitchd(h.ctx()))
		w.unchanged("nothing is left of what failed between the starts of the two")
		works()

		h.docker("rm", "-f", "aa", "bb")
		h.docker("network", "rm", "net")
	})
}
