//go:build linux

package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

// ovnWatch is a host with what a command that must change nothing could change
// there: of Docker, of Open vSwitch, and of OVN's northbound database.
type ovnWatch struct {
	*host
	before []string
}

func watchedOVN(h *host) *ovnWatch {
	w := &ovnWatch{host: h}
	w.look()
	return w
}

// look takes what is there now for right.
func (w *ovnWatch) look() { w.t.Helper(); w.before = w.ovnScene() }

func (h *host) ovnScene() []string {
	h.t.Helper()
	text := h.scene() + "\n" + h.sh("ovs-vsctl --timeout=10 get Open_vSwitch . external_ids | tr , '\\n' | sed 's/^/setting /'")
	if _, err := os.Stat(h.Path("/run/ovn/ovnnb_db.sock")); err == nil {
		text += "\n" + h.northbound()
	}
	return strings.Split(text, "\n")
}

func (w *ovnWatch) unchanged(what string) {
	w.t.Helper()
	w.eventually(what, func() error {
		var faults []error
		now := w.ovnScene()
		for _, line := range w.before {
			if !slices.Contains(now, line) {
				faults = append(faults, fmt.Errorf("missing: %s", line))
			}
		}
		for _, line := range now {
			if !slices.Contains(w.before, line) {
				faults = append(faults, fmt.Errorf("too much: %s", line))
			}
		}
		return errors.Join(faults...)
	})
}

// refuse runs a docker command that has to fail with a message that says all of
// these, before Docker itself gives up, and to leave nothing.
func (w *ovnWatch) refuse(says []string, args ...string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx(), 29*time.Second)
	defer cancel()
	out, err := w.Run(ctx, append([]string{"docker"}, args...)...)
	if err == nil {
		w.t.Errorf("docker %q was not refused", args)
		w.sh("exec 2>&1; docker rm -f bad; docker network rm bad || true")
	}
	for _, s := range append(says, "(request ") {
		if err != nil && !strings.Contains(out, s) {
			w.t.Errorf("docker %q: the message does not say %q:\n%s", args, s, out)
		}
	}
	w.unchanged(fmt.Sprintf("docker %q leaves nothing", args))
}

// check is refuse for a `network create`; see refusal.
func (w *ovnWatch) check(r refusal) {
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

// opt is --opt for each of these.
func opt(options ...string) (args []string) {
	for _, o := range options {
		args = append(args, "--opt", o)
	}
	return args
}

const ourIPAM = "--ipam-driver=ovs-container-network"

// ovnRefusals are options that no host takes, whatever OVN it has.
func ovnRefusals() []refusal {
	out := opt("ovn.switch=ls", "ovn.router=r", "ovn.external_network=physnet1", "ovn.external_address=198.51.100.10/24")
	return []refusal{
		{wrong: []string{"ovn.colour=red"}, args: opt("ovn.switch=ls"), says: []string{"unknown option", "ovn.encap, ovn.external_address"}, short: true},
		{wrong: []string{"ovn.encap=geneve"}, says: []string{"needs ovn.switch too"}},
		{wrong: []string{"ovn.localnet=physnet1", "vlan=7"}[:1], args: opt("vlan=7"), says: []string{"needs ovn.switch too"}},
		{
			wrong: []string{"ovn.router=r", "ovn.external_network=physnet1", "ovn.snat=true", "ovn.gateway_chassis=h1", "ovn.dhcp_options=mtu=1400"},
			says:  []string{"needs ovn.switch too", "needs ovn.external_address too"}, short: true,
		},
		{wrong: []string{"ipam=ovn"}, says: []string{"give ovn.switch too"}},
		{wrong: []string{"port_security=true"}, says: []string{"allowed is false, or true with ovn.switch"}},
		{wrong: []string{"vlan=auto"}, args: opt("ovn.switch=ls"), says: []string{"1..4094 and none"}},
		{wrong: []string{"ovn.router=r"}, args: append(opt("ovn.switch=ls"), "--ipam-driver", "null"), says: []string{"give --subnet and --gateway"}},
		{wrong: []string{"ovn.external_network=physnet1"}, args: opt("ovn.switch=ls", "ovn.router=r"), says: []string{"needs ovn.external_address too"}},
		{wrong: []string{"ovn.external_network=physnet1"}, args: append(opt("ovn.switch=ls", "ovn.router=r", "ovn.external_address=198.51.100.10/24"), "--internal"), says: []string{"--internal"}},
		{wrong: []string{"ovn.external_gateway=198.51.99.1"}, args: out, says: []string{"not a neighbour", "allowed"}},
		{wrong: []string{"ovn.switch=a b", "ovn.encap=stt", "ovn.localnet=a:b", "ovn.router=", "ovn.snat=1", "port_security=on", "ovn.dhcp_options=lease=1"},
			says: []string{"1 to 63", "geneve, vxlan", "true, false", "no DHCP option lease"}, short: true},
	}
}

// On a host that is no chassis of OVN, a network with ovn.switch is refused with
// what is missing and the command that sets it; so it is while the northbound
// database is not reached. Plain networks are made all the same.
func TestOVNNotSetUp(t *testing.T) {
	t.Parallel()
	for _, k := range kinds[:2] {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			w := watchedOVN(newHost(t, k.form, k.on))
			for _, r := range ovnRefusals() {
				if r.short || k.form == service {
					w.check(r)
				}
			}
			onSwitch := create(opt("ovn.switch=ls")...)
			const set = "run ovs-vsctl set Open_vSwitch . external_ids:"
			w.refuse([]string{"not set up for OVN", "lacks ovn-remote, ovn-encap-type, ovn-encap-ip:", set + "ovn-remote=tcp:CENTRAL:6642"}, onSwitch...)
			w.ovs("set", "Open_vSwitch", ".", "external_ids:ovn-remote=tcp:127.0.0.1:1", "external_ids:ovn-encap-type=geneve")
			w.look()
			w.refuse([]string{"lacks ovn-encap-ip:", set + "ovn-encap-ip="}, onSwitch...)
			w.ovs("set", "Open_vSwitch", ".", "external_ids:ovn-encap-ip=127.0.0.1")
			w.look()
			w.refuse([]string{"cannot reach database OVN_Northbound at unix:", "/ovn/ovnnb_db.sock: ", "no such file"}, onSwitch...)
			if k.form == service {
				for remote, says := range map[string]string{
					"tcp:127.0.0.1:1": "at tcp:127.0.0.1:1: connect: connection refused",
					"http://h1":       "allowed are unix:/path, tcp:host:port and ssl:host:port",
					"ssl:127.0.0.1:1": "give --tls-key, --tls-cert and --tls-ca",

					"unix:/run/openvswitch/db.sock": "target database OVN_Northbound not found",
				} {
					w.ovs("set", "Open_vSwitch", ".", "external_ids:ovn-nb="+strconv.Quote(remote))
					w.look()
					w.refuse([]string{says}, onSwitch...)
				}
			}
			w.network("plain")
			w.docker("network", "rm", "plain")
			w.unchanged("a plain network came and went")
			if k.form == service {
				w.unregistered()
				w.stopDriver()
				if out, err := w.Run(w.ctx(), buildDir+"/ovs-container-network", "serve", "--ovn-nb", "h1"); err == nil || !strings.Contains(out, `--ovn-nb: northbound database "h1": allowed are`) {
					t.Errorf("serve --ovn-nb h1: %v: %s", err, out)
				}
			}
		})
	}
}

// unregistered sets the host up for an OVN that does not get to know it as a chassis,
// for no ovn-controller runs.
func (w *ovnWatch) unregistered() {
	w.t.Helper()
	w.must(w.StartCentral(w.ctx(), lab.Central{}))
	w.ovs("remove", "Open_vSwitch", ".", "external_ids", "ovn-nb")
	w.ovs("set", "Open_vSwitch", ".", "external_ids:ovn-remote=unix:/run/ovn/ovnsb_db.sock", "external_ids:ovn-bridge-datapath-type=netdev")
	w.eventually("the northbound database is reached", func() error {
		if nb := w.status().Northbound; nb == nil || !nb.Connected {
			return fmt.Errorf("it is %+v", nb)
		}
		return nil
	})
	w.look()
	w.refuse([]string{"bridge br-int is not there: ovn-controller makes it; does it run? (systemctl status ovn-controller)"}, create(opt("ovn.switch=ls")...)...)
}

// What does not fit to what OVN has is refused when the network is created or the
// container attached, by a message that names it and says what would do, and
// nothing of it is left in the databases.
func TestOVNBadInput(t *testing.T) {
	t.Parallel()
	h := newHost(t, service, own)
	h.startOVN()
	h.network("one", append(opt("ovn.switch=ls1", "ovn.router=r1"), "--subnet", "10.7.0.0/24")...)
	h.network("tagged", append(opt("ovn.switch=ls2", "ovn.localnet=physnet1", "vlan=100"), "--subnet", "10.8.0.0/24")...)
	h.network("way", append(opt("ovn.switch=ls3", "ovn.router=r2", "ovn.external_network=physnet1", "ovn.external_address=198.51.100.10/24"), "--subnet", "10.9.0.0/24")...)
	h.network("dhcp", append(opt("ovn.switch=ls4", "ipam=ovn", "ovn.dhcp_options=lease_time=600"), "--subnet", "10.11.0.0/24")...)
	h.nbctl("ls-add", "theirs", "--", "set", "Logical_Switch", "theirs", "other_config:subnet=10.12.0.0/24")
	for range 2 {
		h.nbctl("create", "Logical_Switch", "name=twin")
		h.nbctl("create", "Logical_Router", "name=rtwin")
	}
	h.container("aa", "one", "--ip", "10.7.0.9")
	h.docker("run", "-d", "--name", "cc", "lab")
	h.portOf("aa", "one")
	h.ping("aa", "10.7.0.1") // all that OVN writes by itself is there
	w := watchedOVN(h)
	for _, r := range ovnRefusals() {
		w.check(r)
	}
	subnet := func(s string, more ...string) []string { return append([]string{ourIPAM, "--subnet", s}, more...) }
	for _, r := range []refusal{
		{wrong: []string{"ovn.switch=ls1"}, args: subnet("10.70.0.0/24"), says: []string{"has subnet 10.7.0.0/24, not 10.70.0.0/24", "give --subnet 10.7.0.0/24"}},
		{wrong: []string{"ovn.switch=ls1"}, args: []string{"--ipv6", "--subnet", "10.70.0.0/24", "--subnet", "fd00:70::/64"}, says: []string{"10.7.0.0/24"}},
		{wrong: []string{"ovn.switch=theirs"}, args: subnet("10.70.0.0/24"), says: []string{"give --subnet 10.12.0.0/24"}},
		{wrong: []string{"vlan=7"}, args: append(subnet("10.7.0.0/24"), opt("ovn.switch=ls1")...), says: []string{"ls1 has no VLAN", "leave the option out"}},
		{wrong: []string{"vlan=101"}, args: append(subnet("10.8.0.0/24"), opt("ovn.switch=ls2")...), says: []string{"ls2 has VLAN 100", "leave the option out"}},
		{wrong: []string{"ovn.localnet=physnet1"}, args: append(subnet("10.7.0.0/24"), opt("ovn.switch=ls1")...), says: []string{"ls1 was made without a physical network"}},
		{wrong: []string{"ovn.localnet=physnet2"}, args: append(subnet("10.8.0.0/24"), opt("ovn.switch=ls2")...), says: []string{"the physical network of logical switch ls2 is physnet1"}},
		{wrong: []string{"ovn.router=r1"}, args: append(subnet("10.8.0.0/24"), opt("ovn.switch=ls2")...), says: []string{"ls2 was made without a router"}},
		{wrong: []string{"ovn.router=r2"}, args: append(subnet("10.7.0.0/24"), opt("ovn.switch=ls1")...), says: []string{"the router of logical switch ls1 is r1"}},
		{wrong: []string{"ovn.router=r1"}, args: append(subnet("10.12.0.0/24"), opt("ovn.switch=theirs")...), says: []string{"not made by this driver"}},
		{wrong: []string{"ovn.localnet=physnet1"}, args: append(subnet("10.12.0.0/24"), opt("ovn.switch=theirs")...), says: []string{"not made by this driver"}},
		{wrong: []string{"ovn.router=r1"}, args: append(subnet("10.7.0.128/25"), opt("ovn.switch=ls9")...), says: []string{"--subnet 10.7.0.128/25 overlaps 10.7.0.0/24", "choose another subnet or router"}},
		{wrong: []string{"ovn.router=r2"}, args: append(subnet("198.51.100.0/25"), opt("ovn.switch=ls9")...), says: []string{"overlaps 198.51.100.0/24"}},
		{wrong: []string{"ovn.router=r1"}, args: append(subnet("10.7.0.0/24", "--gateway", "10.7.0.8"), opt("ovn.switch=ls1")...), says: []string{"is 10.7.0.1, not 10.7.0.8", "give --gateway 10.7.0.1"}},
		{wrong: []string{"ovn.external_network=physnet2"}, args: append(subnet("10.70.0.0/24"), opt("ovn.switch=ls9", "ovn.router=r2", "ovn.external_address=198.51.100.10/24")...), says: []string{"r2 has its way out on physnet1"}},
		{wrong: []string{"ovn.external_address=198.51.100.11/24"}, args: append(subnet("10.70.0.0/24"), opt("ovn.switch=ls9", "ovn.router=r2", "ovn.external_network=physnet1")...), says: []string{"is 198.51.100.10/24"}},
		{wrong: []string{"ovn.encap=vxlan"}, args: opt("ovn.switch=ls9"), says: []string{"ovn-encap-type=geneve", "ovs-vsctl set Open_vSwitch . external_ids:ovn-encap-type=geneve,vxlan"}},
		{wrong: []string{"bridge=br-other"}, args: opt("ovn.switch=ls9"), says: []string{"allowed is br-int"}},
		{wrong: []string{"bridge=br-int"}, says: []string{"OVN's integration bridge", "br-docker"}},
		{wrong: []string{"mtu=65501"}, args: opt("ovn.switch=ls9"), says: []string{"userspace datapath", "576..65500"}},
		{wrong: []string{"ipam=ovn"}, args: append(opt("ovn.switch=ls9"), "--ipam-driver", "null"), says: []string{"ls9 does not exist or has no subnet", "give --subnet"}},
		{args: append(subnet("10.11.0.0/24"), opt("ovn.switch=ls4", "ipam=ovn", "ovn.dhcp_options=lease_time=700")...), says: []string{"ovn.dhcp_options", "lease_time=700", "lease_time=600"}},
		{args: opt("ovn.switch=twin"), says: []string{"2 logical switches are named twin"}},
		{args: append(subnet("10.70.0.0/24"), opt("ovn.switch=ls9", "ovn.router=rtwin")...), says: []string{"2 logical routers are named rtwin"}},
	} {
		w.check(r)
	}
	w.wrongAttachments()
	h.docker("rm", "-f", "aa", "cc")
	h.docker("network", "rm", "one", "tagged", "way", "dhcp")
	h.sh("for t in Logical_Switch Logical_Router; do for u in $(ovn-nbctl --bare --columns=_uuid list $t); do ovn-nbctl destroy $t $u; done; done")
	h.expectClean()
	h.expectEmptyNB()
}

// wrongAttachments has a container refused that cannot be on network one.
func (w *ovnWatch) wrongAttachments() {
	w.t.Helper()
	attach := func(says []string, args ...string) {
		w.t.Helper()
		w.refuse(says, append(append([]string{"network", "connect"}, args...), "one", "cc")...)
	}
	attach([]string{`vlan="7"`, "leave it out"}, "--driver-opt", "vlan=7")
	attach([]string{`port_security="maybe"`, "true, false"}, "--driver-opt", "port_security=maybe")
	attach([]string{`ovn.switch="ls2"`, "external_ids, mirror.dest, mtu, port_security, "}, "--driver-opt", "ovn.switch=ls2")
	mac := w.docker("inspect", "-f", "{{.NetworkSettings.Networks.one.MacAddress}}", "aa")
	w.refuse([]string{mac, "container aa", "logical switch ls1"}, "run", "--rm", "--name", "bad", "--network", "one", "--mac-address", mac, "lab")

	// Another host has it, as the book says.
	book := w.nbctl("--bare", "--columns=_uuid", "find", "DHCP_Options", "external_ids:role=book", "external_ids:switch=ls1")
	w.nbctl("set", "DHCP_Options", book, `external_ids:"10.7.0.77"="ocn000000000077 elsewhere"`)
	w.look()
	attach([]string{"address 10.7.0.77 is already used by port ocn000000000077 on host elsewhere on logical switch ls1", "--ip"}, "--ip", "10.7.0.77")
	w.nbctl("remove", "DHCP_Options", book, "external_ids", `"10.7.0.77"`)
}

// pkiDir is where a host has keys that both forms of the driver see.
const pkiDir = "/var/lib/ovn-keys"

// installKeys puts key, certificate and the authority's certificate there.
func (h *host) installKeys(name string, pair lab.KeyPair) {
	h.t.Helper()
	h.sh("mkdir -p " + pkiDir)
	for from, to := range map[string]string{pair.Key: name + "-privkey.pem", pair.Cert: name + "-cert.pem", pair.CA: name + "-cacert.pem"} {
		text, err := os.ReadFile(from)
		h.must(err)
		h.must(os.WriteFile(h.Path(filepath.Join(pkiDir, to)), text, 0o600))
	}
}

// The northbound database is reached by TLS with the keys of Open vSwitch or with
// those that the driver was given, whatever name the server's certificate has. With
// keys that do not fit, or none, a network is refused with the reason.
func TestOVNTLS(t *testing.T) {
	t.Parallel()
	for _, k := range kinds[:2] {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, k.form, k.on)
			pki, err := lab.NewPKI(t.TempDir())
			h.must(err)
			// The certificate is of this address, not of the one by which it is reached.
			central := lab.Central{Addr: "0.0.0.0", PKI: pki}
			h.must(h.StartCentral(h.ctx(), central))
			h.must(h.StartController(h.ctx(), lab.Chassis{}))
			foreign, err := lab.NewPKI(t.TempDir())
			h.must(err)
			for name, p := range map[string]*lab.PKI{"good": pki, "bad": foreign} {
				pair, err := p.Issue("driver")
				h.must(err)
				h.installKeys(name, pair)
			}
			h.ovs("set", "Open_vSwitch", ".", "external_ids:ovn-nb=ssl:127.0.0.1:6641", "external_ids:ovn-remote=unix:/run/ovn/ovnsb_db.sock",
				"external_ids:ovn-encap-type=geneve", "external_ids:ovn-encap-ip=127.0.0.1", "external_ids:ovn-bridge-datapath-type=netdev")
			h.setSSL("good", "good", "good")
			h.talkOnSwitch()

			w := watchedOVN(h)
			onSwitch := create(opt("ovn.switch=ls")...)
			h.ovs("del-ssl")
			h.must(h.KillNB(h.ctx(), syscall.SIGKILL))
			h.must(h.StartNB(h.ctx(), central))
			w.refuse([]string{"ssl:127.0.0.1:6641", "give --tls-key, --tls-cert and --tls-ca", "ovs-vsctl set-ssl"}, onSwitch...)
			for _, c := range []struct{ key, cert, ca, says string }{
				{"missing", "good", "good", "missing-privkey.pem: no such file"},
				{"bad", "good", "good", "private key does not match"},
				{"good", "good", "bad", "certificate signed by unknown authority"},
				{"bad", "bad", "good", "the certificate is not of its CA"},
			} {
				h.setSSL(c.key, c.cert, c.ca)
				w.look()
				w.refuse([]string{c.says, "cannot reach database OVN_Northbound at ssl:127.0.0.1:6641"}, onSwitch...)
			}

			h.ovs("del-ssl")
			h.stopDriver()
			flags := map[string]string{"tls-key": "good-privkey.pem", "tls-cert": "good-cert.pem", "tls-ca": "good-cacert.pem"}
			if k.form == plugin {
				for flag, file := range flags {
					variable := "OCN_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
					h.docker("plugin", "set", pluginTag, variable+"="+filepath.Join(pkiDir, file))
				}
				h.startDriver()
			} else {
				var args []string
				for flag, file := range flags {
					args = append(args, "--"+flag, filepath.Join(pkiDir, file))
				}
				h.startDriver(args...)
			}
			h.talkOnSwitch()
		})
	}
}

// setSSL tells Open vSwitch of keys.
func (h *host) setSSL(key, cert, ca string) {
	h.t.Helper()
	h.ovs("set-ssl", filepath.Join(pkiDir, key+"-privkey.pem"), filepath.Join(pkiDir, cert+"-cert.pem"), filepath.Join(pkiDir, ca+"-cacert.pem"))
}

// talkOnSwitch makes a logical switch with two containers that talk, and removes
// all of it.
func (h *host) talkOnSwitch() {
	h.t.Helper()
	h.eventually("the northbound database is reached", func() error {
		_, err := h.Run(h.ctx(), append([]string{"docker"}, create(opt("ovn.switch=ls")...)...)...)
		return err
	})
	h.container("aa", "bad")
	h.container("bb", "bad")
	h.ping("aa", "bb")
	h.docker("rm", "-f", "aa", "bb")
	h.docker("network", "rm", "bad")
	h.expectClean() // what Docker did not wait for
	h.expectEmptyNB()
}

// Every message of OVN that docs/troubleshooting.md explains is one that a user
// meets, word for word, in the situation that the page describes.
func TestOVNTroubleshooting(t *testing.T) {
	t.Parallel()
	p, err := readPage("docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t, service, own)
	s := &symptoms{host: h}
	for _, b := range p.blocks {
		if b.remark == "tested by TestOVNTroubleshooting" {
			for line := range strings.Lines(b.text) {
				s.left = append(s.left, strings.TrimSpace(line))
			}
		}
	}
	on := func(name string, more ...string) []string { return append(opt("ovn.switch="+name), more...) }
	s.refused(on("ls")...)
	h.must(h.StartCentral(h.ctx(), lab.Central{}))
	s.refused(on("ls")...) // nobody makes the bridge
	h.must(h.StartController(h.ctx(), lab.Chassis{}))
	h.eventually("the switch is made", func() error {
		_, err := h.Run(h.ctx(), append([]string{"docker"}, "network", "create", "--driver", "ovs-container-network", "--subnet", "10.7.0.0/29", "--opt", "ovn.switch=ls", "--opt", "ipam=ovn", "one")...)
		return err
	})
	s.refused(on("ls", "--subnet", "10.70.0.0/24")...)
	s.refused(on("ls", "--subnet", "10.7.0.0/29", ourIPAM, "--opt", "vlan=7")...)
	s.refused(on("ls", "--subnet", "10.7.0.0/29", ourIPAM, "--opt", "ovn.router=r")...)
	s.refused(on("ls2", "--opt", "ovn.encap=vxlan")...)
	h.network("routed", on("ls2", "--subnet", "10.8.0.0/24", "--opt", "ovn.router=r")...)
	s.refused(on("ls3", "--subnet", "10.8.0.0/25", ourIPAM, "--opt", "ovn.router=r")...)
	h.docker("network", "rm", "routed")

	run := func(args ...string) []string { return append([]string{"run", "-d"}, append(args, "lab")...) }
	book := h.nbctl("--bare", "--columns=_uuid", "find", "DHCP_Options", "external_ids:role=book")
	h.nbctl("set", "DHCP_Options", book, `external_ids:"10.7.0.5"="ocn000000000077 elsewhere"`)
	s.fails(run("--network", "one", "--ip", "10.7.0.5")...)
	h.network("free", on("ls", "--ipam-driver", "null", "--opt", "ipam=ovn")...)
	for i := range 4 {
		h.container(fmt.Sprint("c", i), "free")
	}
	s.fails(run("--network", "free")...)
	h.docker("rm", "-f", "c0", "c1", "c2", "c3")

	h.must(h.KillNorthd(h.ctx(), syscall.SIGKILL))
	s.fails(run("--network", "free")...)
	h.must(h.StartNorthd(h.ctx(), lab.Central{}))
	h.ovs("set", "Open_vSwitch", ".", "external_ids:ovn-remote=tcp:127.0.0.1:1")
	out := h.dockerFails(run("--network", "free")...)
	s.seen(out)
	if want := "ovn-controller is not connected to the southbound database at tcp:127.0.0.1:1"; !strings.Contains(out, want) {
		t.Errorf("without a southbound database docker says %s, want %q", out, want)
	}
	h.eventually("nothing is left of the refused containers", func() error {
		left, err := h.Run(h.ctx(), "ovn-nbctl", "--timeout=5", "--bare", "--columns=name", "find", "Logical_Switch_Port", "external_ids:network_name=free")
		if err == nil && strings.TrimSpace(left) != "" {
			err = fmt.Errorf("there is %s", left)
		}
		return err
	})
	h.ovs("set", "Open_vSwitch", ".", "external_ids:ovn-remote=unix:/run/ovn/ovnsb_db.sock")
	h.container("dd", "free")
	h.nbctl("lsp-del", h.portOf("dd", "free"))
	h.eventually("the port is put back", func() error {
		_, err := h.Run(h.ctx(), "ovn-nbctl", "--timeout=5", "get", "Logical_Switch_Port", h.portOf("dd", "free"), "up")
		return err
	})
	h.nbctl("create", "Logical_Switch", "name=ls")
	s.says("logical switches are named")

	h.must(h.KillNB(h.ctx(), syscall.SIGKILL))
	s.fails(run("--network", "free")...)
	for _, text := range s.left {
		t.Errorf("docs/troubleshooting.md explains what nobody met: %s", text)
	}
}
