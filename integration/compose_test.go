//go:build linux

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

// project is a Compose project on a host with the driver.
type project struct {
	*host
	args []string // of docker, before the verb
}

// Compose talks in different ways to old and new engines.
var (
	composeForms   = []string{"service", "service-new-engine", "plugin-new-engine"}
	composeEngines = []string{"service", "service-new-engine"}
)

// composed runs f with an empty project on hosts of these kinds, in parallel.
// When f has taken everything down, nothing may be left.
func composed(t *testing.T, on []string, f func(t *testing.T, p *project)) {
	t.Parallel()
	for _, k := range kinds {
		if !slices.Contains(on, k.name) {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			p := &project{host: composeHost(t, k.form, k.on)}
			networks := p.docker("network", "ls", "-q")
			f(t, p)
			if left := p.docker("ps", "-aq"); left != "" {
				t.Errorf("containers are left: %s", left)
			}
			// Docker never removes the network of its gateway service.
			_, _ = p.Run(p.ctx(), "docker", "network", "rm", "docker_gwbridge")
			if left := p.docker("network", "ls", "-q"); left != networks {
				t.Errorf("networks before:\n%s\nand now:\n%s", networks, left)
			}
			p.expectClean()
		})
	}
}

// composeHost boots a host with Compose, the driver and the image busybox.
func composeHost(t *testing.T, f form, on suite) *host {
	t.Helper()
	var opts []lab.Option
	if on != newer {
		const program = "/usr/libexec/docker/cli-plugins/docker-compose"
		root, err := lab.Suite(string(newer))
		if err != nil {
			t.Fatal(err)
		}
		opts = append(opts, lab.WithBind(root+program, program))
	}
	h := newHost(t, f, on, opts...)
	h.docker("tag", "lab", "busybox")
	return h
}

// of makes it a project of files, which are those of examples/compose, for users,
// and of testdata/compose.
func (p *project) of(files ...string) *project {
	p.t.Helper()
	p.args = []string{"compose", "--project-name", "shop"}
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join("../examples/compose", file))
		if os.IsNotExist(err) {
			text, err = os.ReadFile(filepath.Join("testdata/compose", file))
		}
		p.must(err)
		p.must(os.WriteFile(p.Path("/root/"+file), text, 0o644))
		p.args = append(p.args, "--file", "/root/"+file)
	}
	return p
}

// compose runs a command of Compose that must succeed.
func (p *project) compose(args ...string) string {
	p.t.Helper()
	return p.docker(append(slices.Clone(p.args), args...)...)
}

// composeFails runs one that must fail and say all of these.
func (p *project) composeFails(says []string, args ...string) {
	p.t.Helper()
	out := p.dockerFails(append(slices.Clone(p.args), args...)...)
	for _, s := range says {
		if !strings.Contains(out, s) {
			p.t.Errorf("docker compose %s does not say %q:\n%s", strings.Join(args, " "), s, out)
		}
	}
}

func (p *project) up(args ...string) {
	p.t.Helper()
	p.compose(append([]string{"up", "-d"}, args...)...)
}
func (p *project) down() { p.t.Helper(); p.compose("down", "--timeout", "0") }

// identity is what a command that changes nothing leaves as it is.
func (p *project) identity() string {
	p.t.Helper()
	ids := p.docker("ps", "-aq", "--no-trunc")
	args := append([]string{"inspect", "-f", "{{.Name}} {{.Id}} {{.State.StartedAt}}"}, strings.Fields(ids)...)
	return p.docker("network", "ls", "-q", "--no-trunc") + "\n" + p.docker(args...)
}

// page is what a web server answers to a container.
func (p *project) page(container, url, want string) {
	p.t.Helper()
	p.eventually(fmt.Sprintf("%s gets %q from %s", container, want, url), func() error {
		out, err := p.Run(p.ctx(), "docker", "exec", container, "timeout", "5", "wget", "-q", "-O", "-", url)
		if err == nil && strings.TrimSpace(out) != want {
			err = fmt.Errorf("got %q", out)
		}
		return err
	})
}

// expectHealth checks status: each network is in order and has so many endpoints.
func (p *project) expectHealth(ends map[string]int) {
	p.t.Helper()
	p.eventually(fmt.Sprintf("status shows these networks with as many containers, all in order: %v", ends), func() error {
		s := p.status()
		for _, n := range s.Networks {
			named := 0
			for _, e := range n.Ends {
				if e.Container != "" && e.Health == "ok" {
					named++
				}
			}
			if want, ok := ends[n.Name]; !ok || n.Health != "ok" || len(n.Ends) != want || named != want {
				return fmt.Errorf("%+v", n)
			}
		}
		if len(s.Networks) != len(ends) {
			return fmt.Errorf("%d networks", len(s.Networks))
		}
		return nil
	})
}

// The development file of the plan: a service comes up on br-int with an address,
// a second `up` changes nothing, a changed option makes the network anew.
func TestComposeDevelopment(t *testing.T) {
	composed(t, composeForms, func(t *testing.T, p *project) {
		p.of("development.yml").up()
		addr := p.address("shop-app-1", "shop_lan")
		if got := p.exec("shop-app-1", "ip", "-o", "-4", "addr", "show", "eth0"); addr == "" || !strings.Contains(got, " "+addr+"/") {
			t.Errorf("the address is %q, and in the container: %s", addr, got)
		}
		if port := p.portOf("shop-app-1", "shop_lan"); !strings.Contains(p.ovs("list-ports", "br-int"), port) {
			t.Errorf("the port %s is not on br-int", port)
		}
		p.expectHealth(map[string]int{"shop_lan": 1})

		before := p.identity()
		p.up()
		if after := p.identity(); after != before {
			t.Errorf("a second up changed something; before:\n%s\nafter:\n%s", before, after)
		}
		p.sh("sed -i 's/br-int}/br-int, mtu: 1400}/' /root/development.yml")
		p.compose("kill") // or Compose waits ten seconds for its end
		p.compose("up", "-d", "--yes", "--timeout", "0")
		if got := p.exec("shop-app-1", "cat", "/sys/class/net/eth0/mtu"); got != "1400" {
			t.Errorf("the mtu is %s after it was changed in the file", got)
		}
		p.expectHealth(map[string]int{"shop_lan": 1})
		p.down()
		// Networks are made at once, and made again at once, as Compose does it.
		p.sh(`
make() { docker network create -d ovs-container-network -o bridge=br-$1 $1; }
for i in 1 2 3 4 5 6 7 8 9 10; do
	make one & first=$!
	make two
	wait $first
	docker network rm one two
done`)
	})
}

// Two tenants with equal subnets and equal names: each reaches its own, over IPv4
// and IPv6, by name, alias and address. Options of networks and of attachments
// arrive, addresses follow the scale, and names a restart.
func TestComposeTenants(t *testing.T) {
	composed(t, composeForms, func(t *testing.T, p *project) {
		p.of("tenants.yml").up()
		p.expectHealth(map[string]int{"shop_blue": 2, "shop_red": 2})
		reach := func(tenant string) {
			t.Helper()
			for _, server := range []string{tenant + "-web", "www", "10.20.0.80", "[fd20::80]"} {
				p.page("shop-"+tenant+"-client-1", "http://"+server+"/", tenant)
			}
		}
		reach("blue")
		reach("red")
		if out, err := p.Run(p.ctx(), "docker", "exec", "shop-blue-client-1", "nslookup", "red-web"); err == nil {
			t.Errorf("a tenant resolves a name of the other:\n%s", out)
		}
		blue := map[string]string{"tenant_id": "blue", "cost": "17"}
		p.expectPort("shop-blue-client-1", "shop_blue", 101, 1450, blue)
		p.expectPort("shop-blue-web-1", "shop_blue", 101, 1400, blue, map[string]string{"role": "web", "team": "shop"})
		p.expectPort("shop-red-web-1", "shop_red", 102, 1450, map[string]string{"tenant_id": "red", "cost": "42"})
		if got, want := p.ovs("list-br"), "br-tenants"; got != want {
			t.Errorf("the bridges are %q, not %s alone", got, want)
		}
		p.scale(t)
		p.compose("restart", "--timeout", "0", "blue-web", "red-web")
		reach("blue")
		reach("red")
		p.expectHealth(map[string]int{"shop_blue": 2, "shop_red": 2})
		p.down()
		p.expectNoPools()
	})
}

// scale takes a service of tenants.yml up to three containers and back. The fixed
// addresses and the gateway are outside of the range of IPv4, and thus not counted.
func (p *project) scale(t *testing.T) {
	t.Helper()
	p.expectUsed("shop_blue", 1, 3)
	p.up("--scale", "blue-client=3", "--timeout", "0")
	p.expectHealth(map[string]int{"shop_blue": 4, "shop_red": 2})
	p.expectUsed("shop_blue", 3, 5)
	names := p.exec("shop-blue-web-1", "nslookup", "blue-client")
	addrs := map[string]bool{}
	for i := range 3 {
		name := fmt.Sprintf("shop-blue-client-%d", i+1)
		p.page(name, "http://www/", "blue")
		for _, a := range []string{p.address(name, "shop_blue"), p.address6(name, "shop_blue")} {
			addrs[a] = true
			if a == "" || !strings.Contains(names, a) {
				t.Errorf("the name of the service does not resolve to %q of %s:\n%s", a, name, names)
			}
		}
	}
	if len(addrs) != 6 {
		t.Errorf("three containers have the addresses %v", addrs)
	}
	p.up("--scale", "blue-client=1", "--timeout", "0")
	p.expectHealth(map[string]int{"shop_blue": 2, "shop_red": 2})
	p.expectUsed("shop_blue", 1, 3)
}

// With ipam: static every service has the address of the file, and one without is
// refused with the advice. Options that are wrong are refused by `up`, network or
// attachment, all faults in one message, and leave nothing of the driver's.
func TestComposeRefused(t *testing.T) {
	composed(t, composeEngines, func(t *testing.T, p *project) {
		p.of("static.yml").up()
		if a, b := p.address("shop-db-1", "shop_plan"), p.address("shop-app-1", "shop_plan"); a != "10.30.0.10" || b != "10.30.0.20" {
			t.Errorf("the addresses are %s and %s", a, b)
		}
		p.ping("shop-app-1", "db")
		p.of("static.yml", "unnumbered.yml").composeFails([]string{"ipam=static", "ipv4_address"}, "up", "-d")
		p.expectHealth(map[string]int{"shop_plan": 2})
		p.down()

		p.of("wrong.yml").composeFails([]string{`vlan="4095"`, `mtu="12"`, `colour="green"`, "1..4094", "576..65535"}, "up", "-d")
		p.expectClean()
		if out := p.docker("ps", "-aq") + p.docker("network", "ls", "-q", "--filter", "name=shop"); out != "" {
			t.Errorf("left after a refused up: %s", out)
		}
		p.of("wrong-attachment.yml").composeFails([]string{`vlan="4095"`, `bridge="br-int"`, "external_ids, mirror.dest, mtu, port_security, "}, "up", "-d")
		p.expectHealth(map[string]int{"shop_lan": 0})
		p.down()
	})
}

// A service on two networks, of which one is external, is reached by name from
// both, joins nothing, and leaves the external network to its owner.
func TestComposeTwoNetworks(t *testing.T) {
	composed(t, composeEngines, func(t *testing.T, p *project) {
		p.of("between.yml").composeFails([]string{"plant"}, "up", "-d")
		p.down()
		p.network("plant", "--subnet", "10.40.0.0/24", "--opt", "bridge=br-plant", "--opt", "vlan=300")
		p.container("stranger", "plant")
		p.up()
		p.expectHealth(map[string]int{"plant": 3, "shop_office": 2})
		both := func() {
			t.Helper()
			for from, names := range map[string][]string{
				"shop-left-1": {"middle", "from-plant"}, "shop-right-1": {"middle", "from-office", "10.41.0.99"}, "shop-middle-1": {"left", "right"},
			} {
				for _, name := range names {
					p.ping(from, name)
				}
			}
		}
		both()
		p.noPing("shop-left-1", p.address("shop-right-1", "shop_office"))
		p.noPing("stranger", p.address("shop-left-1", "plant")) // its VLAN is another
		p.expectPort("shop-middle-1", "plant", 310, 1500)
		p.expectPort("shop-middle-1", "shop_office", 0, 1300, map[string]string{"side": "office"})
		p.expectPort("stranger", "plant", 300, 1500)
		p.compose("restart", "--timeout", "0", "middle", "left")
		both()
		p.down()
		p.expectHealth(map[string]int{"plant": 1})
		p.docker("rm", "-f", "stranger")
		p.docker("network", "rm", "plant")
	})
}

// A service that publishes a port and has a network beside that cannot, whatever
// the two are and are called, comes up and is reached from the host, first and
// after each restart. One that nobody can publish is refused and says why.
func TestComposePublished(t *testing.T) {
	composed(t, composeEngines, func(t *testing.T, p *project) {
		p.docker("run", "-d", "--name", "outside", "--network", "host", "lab")
		p.of("front-back.yml").up()
		p.page("outside", "http://127.0.0.1:8080/", "hello")
		if got := p.compose("port", "web", "80"); got != "0.0.0.0:8080" {
			t.Errorf("the port of web shows as %q", got)
		}
		p.ping("shop-web-1", "db")
		if got := p.exec("shop-db-1", "ip", "route"); strings.Contains(got, "default") {
			t.Errorf("the database has a way out:\n%s", got)
		}
		p.down()

		p.of("published.yml").up()
		for start := range 3 {
			if start > 0 {
				p.compose("kill")
				p.up()
			}
			for i := range 9 {
				p.page("outside", fmt.Sprintf("http://127.0.0.1:%d/", 8001+i), fmt.Sprint("s", i+1))
			}
		}
		for service, word := range map[string]string{
			"only-internal": "--internal", "only-none": "gateway_mode=none", "only-external": "gateway_mode=external", "internal-none": "",
		} {
			p.composeFails([]string{"published ports (-p) would be ignored", word}, "--profile", "refused", "up", "-d", service)
		}
		p.compose("--profile", "refused", "down", "--timeout", "0")
		p.docker("rm", "-f", "outside")
	})
}
