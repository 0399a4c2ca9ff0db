//go:build linux

package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

// startOVN makes the host what the packages ovn-central and ovn-host leave: the
// databases, ovn-northd and ovn-controller run, and nobody told them anything.
func (h *host) startOVN() {
	h.t.Helper()
	h.must(h.StartCentral(h.ctx(), lab.Central{}))
	h.must(h.StartController(h.ctx(), lab.Chassis{}))
}

// nbctl asks the northbound database of this host.
func (h *host) nbctl(args ...string) string {
	h.t.Helper()
	return h.run(append([]string{"ovn-nbctl", "--timeout=20"}, args...)...)
}

// northbound is all that the northbound database of this host holds beside what OVN
// itself has there.
func (h *host) northbound() string {
	h.t.Helper()
	return h.sh(`
db=unix:/run/ovn/ovnnb_db.sock
for t in $(ovsdb-client --timeout=10 --no-headings -f csv list-tables $db OVN_Northbound | grep -vE '^(NB_Global|Connection|SSL)$'); do
	ovsdb-client --timeout=10 --no-headings -f csv dump $db OVN_Northbound $t | sed "/ table\$/d; s/^/$t /"
done`)
}

// onOVN runs f on hosts with an OVN of their own, in both forms and with a new
// engine and switch, and checks that nothing is left when f has removed what it
// made.
func onOVN(t *testing.T, f func(t *testing.T, p *project)) {
	t.Parallel()
	for _, k := range kinds[:3] {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			p := &project{host: composeHost(t, k.form, k.on)}
			p.startOVN()
			f(t, p)
			p.expectClean()
			p.expectEmptyNB()
		})
	}
}

func (h *host) expectEmptyNB() {
	h.t.Helper()
	h.eventually("nothing is left in the northbound database", func() error {
		if left := h.northbound(); left != "" {
			return fmt.Errorf("left over:\n%s", left)
		}
		return nil
	})
}

// The overlay of the plan: a switch of that name comes into being, and containers
// on it talk.
func TestOVNPlanOverlay(t *testing.T) {
	onOVN(t, func(t *testing.T, p *project) {
		p.network("overlay", "--opt", "ovn.switch=production-ls", "--opt", "ovn.encap=geneve")
		p.container("aa", "overlay")
		p.container("bb", "overlay")
		p.ping("aa", "bb")
		p.tcp("aa", "bb", "bb")
		if got := p.nbctl("--bare", "--columns=name", "list", "Logical_Switch"); got != "production-ls" {
			t.Errorf("the switches are %q", got)
		}
		if got := p.ovs("get", "Open_vSwitch", ".", "external_ids:ovn-encap-type"); got != "geneve" {
			t.Errorf("the chassis has the encapsulation %s", got)
		}
		p.isInstalled("aa", "overlay")
		p.expectHealth(map[string]int{"overlay": 2})
		p.docker("rm", "-f", "aa", "bb")
		p.docker("network", "rm", "overlay")
	})
}

// isInstalled checks that the container's port is bound to this chassis, has the
// container's addresses and may use no others.
func (h *host) isInstalled(container, network string) {
	h.t.Helper()
	port := h.portOf(container, network)
	mac := h.docker("inspect", "-f", fmt.Sprintf("{{(index .NetworkSettings.Networks %q).MacAddress}}", network), container)
	want := mac + " " + h.address(container, network)
	for _, column := range []string{"addresses", "port_security"} {
		if got := h.nbctl("--bare", "--columns="+column, "list", "Logical_Switch_Port", port); got != want {
			h.t.Errorf("%s of the port of %s are %q, want %q", column, container, got, want)
		}
	}
	if got := h.ovs("get", "Interface", port, "external_ids:ovn-installed"); got != `"true"` {
		h.t.Errorf("the port of %s is installed: %s", container, got)
	}
	h.eventually("OVN says that the port is up", func() error {
		if up := h.nbctl("--bare", "--columns=up", "list", "Logical_Switch_Port", port); up != "true" {
			return fmt.Errorf("it is %q", up)
		}
		return nil
	})
}

// ipam=ovn on a new switch takes the subnet that Docker chose; on one that has a
// subnet already, it says what to type, which then works.
func TestOVNPlanIPAM(t *testing.T) {
	onOVN(t, func(t *testing.T, p *project) {
		p.network("first", "--opt", "ipam=ovn", "--opt", "ovn.switch=ls1")
		p.container("aa", "first")
		subnet := p.docker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", "first")
		if got := p.nbctl("get", "Logical_Switch", "ls1", "other_config:subnet"); got != `"`+subnet+`"` {
			t.Errorf("the switch has the subnet %s, Docker %s", got, subnet)
		}
		p.leases("aa", "first")

		const chosen = "10.90.0.0/24"
		p.nbctl("ls-add", "ls2", "--", "set", "Logical_Switch", "ls2", "other_config:subnet="+chosen)
		before := p.northbound()
		out := p.dockerFails("network", "create", "--driver", "ovs-container-network", "--opt", "ipam=ovn", "--opt", "ovn.switch=ls2", "second")
		if want := "give --subnet " + chosen; !strings.Contains(out, `ovn.switch="ls2"`) || !strings.Contains(out, want) {
			t.Errorf("the message does not say %q:\n%s", want, out)
		}
		if now := p.northbound(); now != before {
			t.Errorf("the refused network changed the northbound database from\n%s\nto\n%s", before, now)
		}
		p.network("second", "--opt", "ipam=ovn", "--opt", "ovn.switch=ls2", "--subnet", chosen)
		p.network("third", "--opt", "ipam=ovn", "--opt", "ovn.switch=ls2", "--ipam-driver", "null")
		p.container("bb", "second")
		p.container("cc", "third")
		p.leases("bb", "second")
		p.leases("cc", "third")
		p.ping("cc", p.address("bb", "second"))
		p.container("ff", "third")
		p.resolves("ff", "cc", p.address("cc", "third"))

		// With our own IPAM, of this host alone and of all hosts.
		p.network("fourth", "--opt", "ipam=ovn", "--opt", "ovn.switch=ls3", "--ipam-driver", "ovs-container-network", "--subnet", "10.91.0.0/24")
		p.network("fifth", "--opt", "ipam=ovn", "--opt", "ovn.switch=ls4", "--ipam-driver", "ovs-container-network", "--ipam-opt", "ovn.switch=ls4", "--subnet", "10.92.0.0/24")
		for name, network := range map[string]string{"dd": "fourth", "ee": "fifth"} {
			p.container(name, network)
			p.leases(name, network)
		}
		p.docker("rm", "-f", "aa", "bb", "cc", "dd", "ee", "ff")
		p.docker("network", "rm", "first", "second", "third", "fourth", "fifth")
		if left := p.nbctl("--bare", "--columns=name", "list", "Logical_Switch"); left != "ls2" {
			t.Errorf("a switch of others has to stay; there are %q", left)
		}
		p.nbctl("ls-del", "ls2")
	})
}

// resolves checks that Docker's own name server tells a container these addresses of
// another one.
func (h *host) resolves(from, name string, addrs ...string) {
	h.t.Helper()
	out := h.exec(from, "nslookup", name, "127.0.0.11")
	for _, a := range addrs {
		if a == "" || !slices.Contains(strings.Fields(out), a) {
			h.t.Errorf("the address of %s is %q, and its name has:\n%s", name, a, out)
		}
	}
}

// leases checks that OVN's DHCP offers a container the address that it has.
func (h *host) leases(container, network string) {
	h.t.Helper()
	addr := h.address(container, network)
	if got := h.exec(container, "ip", "-o", "-4", "addr", "show", "eth0"); addr == "" || !strings.Contains(got, " "+addr+"/") {
		h.t.Errorf("the address of %s is %q, and in the container: %s", container, addr, got)
	}
	h.eventually("DHCP gives "+container+" its address", func() error {
		out, err := h.Run(h.ctx(), "docker", "exec", container, "sh", "-c", "udhcpc -i eth0 -n -q -t 3 -s /bin/true 2>&1")
		if err == nil && !strings.Contains(out, "lease of "+addr+" obtained") {
			err = fmt.Errorf("it says %s", out)
		}
		return err
	})
}

// All options of the plan in one command.
func TestOVNPlanAllOptions(t *testing.T) {
	onOVN(t, func(t *testing.T, p *project) {
		p.network("all", "--opt", "bridge=br-int", "--opt", "tenant_id=tenant-1", "--opt", "vlan=100", "--opt", "mtu=1400",
			"--opt", "ipam=docker", "--opt", "ovn.switch=ls1", "--opt", "ovn.encap=geneve", "--opt", "external_ids=key1=value1,key2=value2")
		p.container("aa", "all")
		p.container("bb", "all")
		p.ping("aa", "bb")
		if got := p.exec("aa", "cat", "/sys/class/net/eth0/mtu"); got != "1400" {
			t.Errorf("the mtu is %s", got)
		}
		port := p.portOf("aa", "all")
		if got := p.ovs("port-to-br", port); got != "br-int" {
			t.Errorf("the port is on %s", got)
		}
		if got := p.ovs("get", "Port", port, "tag"); got != "[]" {
			t.Errorf("the port has the tag %s, which flows of OVN know nothing of", got)
		}
		ids := map[string]string{"tenant_id": "tenant-1", "key1": "value1", "key2": "value2", "container_name": "aa"}
		for key, want := range ids {
			for _, row := range [][]string{{"ovs-vsctl", "Port"}, {"ovs-vsctl", "Interface"}, {"ovn-nbctl", "Logical_Switch_Port"}} {
				if got := p.run(row[0], "--timeout=10", "get", row[1], port, "external_ids:"+key); strings.Trim(got, `"`) != want {
					t.Errorf("%s of %s: %s is %s", row[1], port, key, got)
				}
			}
		}
		for key, want := range map[string]string{"tenant_id": "tenant-1", "key1": "value1", "key2": "value2", "vlan": "100"} {
			if got := p.nbctl("get", "Logical_Switch", "ls1", "external_ids:"+key); strings.Trim(got, `"`) != want {
				t.Errorf("%s of the switch is %s", key, got)
			}
		}
		n := p.status().Networks[0]
		if n.VLAN != "100" || n.MTU != 1400 || n.Bridge != "br-int" || n.Tenant != "tenant-1" || n.Owned {
			t.Errorf("status shows %+v", n)
		}
		p.docker("rm", "-f", "aa", "bb")
		p.docker("network", "rm", "all")
	})
}

// planFile is the Compose file of the plan.
const planFile = `
services:
  app:
    image: busybox
    command: sleep infinity
    networks: [pods]
  other:
    image: busybox
    command: sleep infinity
    networks: [pods]

networks:
  pods:
    driver: ovs-container-network
    driver_opts:
      bridge: br-int
      ovn.switch: k8s-ls
    ipam:
      driver: default
      config: [{subnet: 10.244.0.0/16}]
`

// The Compose file of the plan: services reach each other by name on the logical
// switch, a second `up` changes nothing, and `down` leaves nothing.
func TestOVNPlanCompose(t *testing.T) {
	onOVN(t, func(t *testing.T, p *project) {
		p.sh("cat >/root/plan.yml <<'EOF'" + planFile + "EOF")
		p.args = []string{"compose", "--project-name", "shop", "--file", "/root/plan.yml"}
		p.up()
		if addr := p.address("shop-app-1", "shop_pods"); !strings.HasPrefix(addr, "10.244.") {
			t.Errorf("the address is %s", addr)
		}
		p.ping("shop-app-1", "other")
		p.isInstalled("shop-app-1", "shop_pods")
		if got := p.nbctl("--bare", "--columns=name", "list", "Logical_Switch"); got != "k8s-ls" {
			t.Errorf("the switches are %q", got)
		}
		p.expectHealth(map[string]int{"shop_pods": 2})
		before := p.identity()
		p.up()
		if after := p.identity(); after != before {
			t.Errorf("a second up changed something; before:\n%s\nafter:\n%s", before, after)
		}
		p.down()
	})
}

// An ovn-controller makes br-int as soon as it runs, and forwards nothing there
// without OVN. So a plain network is on another bridge, and a switch on that one.
func TestOVNBesidePlain(t *testing.T) {
	onOVN(t, func(t *testing.T, p *project) {
		// Also where its datapath is one that works, as the kernel's is on most hosts.
		p.ovs("set", "Open_vSwitch", ".", "external_ids:ovn-bridge-datapath-type=netdev")
		p.eventually("ovn-controller has made its bridge", func() error {
			id, err := p.Run(p.ctx(), "ovs-vsctl", "--timeout=5", "get", "Bridge", "br-int", "datapath_id")
			if err == nil && strings.TrimSpace(id) == "[]" {
				err = fmt.Errorf("ovs-vswitchd has not")
			}
			return err
		})
		p.network("plain")
		p.network("logical", "--opt", "ovn.switch=ls", "--opt", "bridge=br-int")
		p.both("br-docker", "br-int")
	})
}

// Where plain networks are on br-int before OVN comes, it is given another bridge.
func TestOVNAfterPlain(t *testing.T) {
	t.Parallel()
	h := newHost(t, service, own)
	p := &project{host: h}
	p.network("plain")
	p.ovs("set", "Open_vSwitch", ".", "external_ids:ovn-bridge=br-ovn")
	p.startOVN()
	p.network("logical", "--opt", "ovn.switch=ls")
	p.both("br-int", "br-ovn")
	p.expectClean()
	p.expectEmptyNB()
}

// both checks a plain and a logical network that have bridges of their own, and
// removes them.
func (p *project) both(plain, logical string) {
	p.t.Helper()
	for _, name := range []string{"aa", "bb"} {
		p.container(name, "plain")
	}
	for _, name := range []string{"cc", "dd"} {
		p.container(name, "logical")
	}
	p.ping("aa", "bb")
	p.ping("cc", "dd")
	for name, network := range map[string]string{"aa": "plain", "cc": "logical"} {
		want := plain
		if network == "logical" {
			want = logical
		}
		if got := p.ovs("port-to-br", p.portOf(name, network)); got != want {
			p.t.Errorf("the port of the %s network is on %s, want %s", network, got, want)
		}
	}
	p.expectHealth(map[string]int{"plain": 2, "logical": 2})
	p.docker("rm", "-f", "aa", "bb", "cc", "dd")
	p.docker("network", "rm", "plain", "logical")
}

// A container on a logical switch can send with its own addresses only, unless its
// network or its attachment says otherwise; IPv6 works beside IPv4.
func TestOVNPortSecurity(t *testing.T) {
	onOVN(t, func(t *testing.T, p *project) {
		p.network("guarded", "--opt", "ovn.switch=ls", "--ipv6", "--subnet", "10.66.0.0/24", "--subnet", "fd00:66::/64")
		p.network("open", "--opt", "ovn.switch=ls", "--opt", "port_security=false", "--ipam-driver", "null", "--opt", "ipam=ovn")
		p.container("bb", "guarded")
		p.container("aa", "guarded", "--cap-add", "NET_ADMIN")
		p.container("cc", "name=guarded,driver-opt=port_security=false", "--cap-add", "NET_ADMIN")
		p.container("dd", "open", "--cap-add", "NET_ADMIN")
		peer, peer6 := p.address("bb", "guarded"), p.address6("bb", "guarded")
		for i, c := range []struct {
			name  string
			freed bool
		}{{"aa", false}, {"cc", true}, {"dd", true}} {
			p.ping(c.name, peer)
			p.ping(c.name, peer6)
			other := fmt.Sprintf("10.66.0.%d", 200+i)
			p.exec(c.name, "ip", "addr", "add", other+"/24", "dev", "eth0")
			ping := []string{"docker", "exec", c.name, "ping", "-c", "2", "-W", "1", "-I", other, peer}
			if c.freed {
				p.eventually(c.name+" sends with another address", func() error {
					_, err := p.Run(p.ctx(), ping...)
					return err
				})
			} else if out, err := p.Run(p.ctx(), ping...); err == nil {
				t.Errorf("%s sends with an address that is not its own:\n%s", c.name, out)
			}
		}
		p.docker("rm", "-f", "aa", "bb", "cc", "dd")
		p.docker("network", "rm", "guarded", "open")
	})
}
