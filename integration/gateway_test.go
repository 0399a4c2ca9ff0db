//go:build linux

package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// With gateway_mode=docker, the default, a container reaches the world behind
// the host under the host's address, and published ports are shown and reached
// from the host and from the world.
func TestGatewayDocker(t *testing.T) {
	everywhere(t, func(t *testing.T, h *host) {
		world := h.world()
		seen := world.capture()
		h.network("net", "--subnet", "10.40.0.0/24")
		h.container("web", "net", "-p", "8080:80", "-p", "8081:81/udp")
		h.container("peer", "net")
		h.startWeb("web")

		for _, c := range []string{"web", "peer"} {
			h.ping(c, worldAddr)
			if got := h.defaultRoutes(c); len(got) != 1 {
				t.Errorf("%s has the default routes %q", c, got)
			}
		}
		if len(seen.frames("198.51.100.1 > "+worldAddr+": ICMP echo request")) == 0 {
			t.Error("the world did not see the host's address")
		}
		if len(seen.frames(" 10.40.0.")) != 0 {
			t.Errorf("the world saw an address of the network: %s", seen.frames(" 10.40.0.")[0])
		}

		h.expectPublished("web", 8080)
		if ports := h.docker("ps", "--filter", "name=web", "--format", "{{.Ports}}"); !strings.Contains(ports, "0.0.0.0:8080->80/tcp") || !strings.Contains(ports, "0.0.0.0:8081->81/udp") {
			t.Errorf("docker ps shows the ports %q", ports)
		}
		h.exec("peer", "sh", "-c", `printf 'GET /passwd HTTP/1.0\r\n\r\n' | nc -w 3 web 80 | grep -q tcpdump`)
		udp := h.in("web").captureOn("eth1")
		h.eventually("UDP comes in by the published port", func() error {
			world.run("bash", "-c", "echo hello >/dev/udp/198.51.100.1/8081")
			if len(udp.frames(".81: UDP, length 6")) == 0 {
				return fmt.Errorf("no such packet")
			}
			return nil
		})

		h.docker("restart", "web")
		h.startWeb("web")
		h.expectPublished("web", 8080)
		h.docker("rm", "-f", "web", "peer")
		h.sh("! timeout 3 bash -c 'exec 3<>/dev/tcp/127.0.0.1/8080' 2>/dev/null")
		h.docker("network", "rm", "net")
	})
}

// With gateway_mode=external the default route is the network's gateway on the
// bridge, a router of somebody else, in both families, and nothing else.
func TestGatewayExternal(t *testing.T) {
	oldAndNew(t, func(t *testing.T, h *host) {
		h.network("ext", "-o", "bridge=br-ext", "-o", "vlan=50", "-o", "gateway_mode=external",
			"--subnet", "10.50.0.0/24", "--gateway", "10.50.0.254", "--ipv6", "--subnet", "fd50::/64", "--gateway", "fd50::fe")
		router := h.byHand("router", "br-ext", "10.50.0.254/24", "tag=50")
		router.run("ip", "addr", "add", "fd50::fe/64", "dev", "eth0", "nodad")
		far := h.plug("far", "203.0.113.2/24")
		far.run("ip", "addr", "add", "2001:db8:113::2/64", "dev", "eth0", "nodad")
		h.sh(`
ip link set v-far netns router
ip netns exec router sh -ec '
	ip link set v-far up
	ip addr add 203.0.113.1/24 dev v-far
	ip addr add 2001:db8:113::1/64 dev v-far nodad
	echo 1 >/proc/sys/net/ipv4/ip_forward
	echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
ip -n far route add default via 203.0.113.1
ip -n far route add default via 2001:db8:113::1`)
		seen := far.capture()

		h.container("aa", "ext")
		h.container("bb", "ext", "--ip", "10.50.0.20")
		h.container("cc", "bridge")
		h.docker("network", "connect", "--ip", "10.50.0.30", "ext", "cc")
		h.ping("aa", "203.0.113.2")
		h.ping("aa", "2001:db8:113::2")
		h.ping("bb", "203.0.113.2")
		h.ping("aa", "bb")
		h.ping("bb", "cc")
		far.can("ping", "-c", "1", "-W", "1", "10.50.0.30")
		if len(seen.frames("10.50.0.20 > 203.0.113.2: ICMP echo request")) == 0 {
			t.Error("the container's own address was not seen behind the router")
		}
		want := []string{"default via 10.50.0.254 dev eth0", "default via fd50::fe dev eth0"}
		for _, c := range []string{"aa", "bb"} {
			if got := h.defaultRoutes(c); !slices.Equal(got, want) {
				t.Errorf("%s has the default routes %q, not %q", c, got, want)
			}
			h.expectDevices(c, "eth0")
		}
		h.docker("restart", "aa")
		h.ping("aa", "203.0.113.2")
		h.ping("aa", "2001:db8:113::2")
		h.docker("rm", "-f", "aa", "bb", "cc")
		h.ovs("del-port", "br-ext", "v-router")
		h.docker("network", "rm", "ext")
		h.expectClean()
	})
}

// isolated makes one network of each sort that has no way to publish a port.
func (h *host) isolated() (names []string) {
	h.network("lone", "-o", "gateway_mode=none", "--subnet", "10.61.0.0/24", "--ipv6", "--subnet", "fd61::/64")
	h.network("inner", "--internal", "--subnet", "10.62.0.0/24")
	h.network("both", "--internal", "-o", "gateway_mode=none", "--subnet", "10.63.0.0/24")
	h.network("routed", "-o", "gateway_mode=external", "--subnet", "10.64.0.0/24", "--gateway", "10.64.0.1")
	return []string{"lone", "inner", "both", "routed"}
}

// Without a gateway there is no default route and no second interface. A
// published port that nobody would serve is refused, with the reason and leaving
// nothing.
func TestNoGateway(t *testing.T) {
	oldAndNew(t, func(t *testing.T, h *host) {
		h.world()
		names := h.isolated()
		for _, n := range names[:3] {
			h.container(n+"a", n)
			h.container(n+"b", n)
			h.ping(n+"a", n+"b")
			if got := h.defaultRoutes(n + "a"); len(got) != 0 {
				t.Errorf("on %s a container has the default routes %q", n, got)
			}
			h.expectDevices(n+"a", "eth0")
			h.noPing(n+"a", worldAddr)
		}
		before := h.ovs("list-ports", "br-int")
		for n, why := range map[string]string{
			"lone": "gateway_mode=none", "inner": "--internal", "both": "--internal", "routed": "gateway_mode=external",
		} {
			for _, start := range [][]string{
				{"run", "-d", "--name", "pub", "--network", n, "-p", "8090:80", "lab"},
				{"start", "pub"},
			} {
				out := h.dockerFails(start...)
				if !strings.Contains(out, "published ports (-p) would be ignored") || !strings.Contains(out, why) {
					t.Errorf("docker %s says %q", strings.Join(start, " "), out)
				}
				if now := h.ovs("list-ports", "br-int"); now != before {
					t.Errorf("after a refused start on %s the ports are\n%s\nbefore\n%s", n, now, before)
				}
			}
			if got := h.docker("network", "inspect", "-f", "{{len .Containers}}", n); (got == "2") != (n != "routed") {
				t.Errorf("Docker shows %s containers on %s", got, n)
			}
			h.docker("rm", "pub")
		}
		// Ports that are exposed only are nobody's business.
		h.container("exposed", "lone", "--expose", "80")
		h.docker("rm", "-f", "exposed")
		for _, n := range names[:3] {
			h.docker("rm", "-f", n+"a", n+"b")
		}
		h.docker(append([]string{"network", "rm"}, names...)...)
		h.expectClean()
	})
}

// A container whose ports another network publishes may be on any network of
// ours, in whatever order Docker attaches them at a start.
func TestPublishElsewhere(t *testing.T) {
	everywhere(t, func(t *testing.T, h *host) {
		h.world()
		names := h.isolated()
		h.docker("network", "create", "user")
		h.network("net", "--subnet", "10.65.0.0/24")
		containers := []struct {
			name, publisher string
			port            int
			others          []string
		}{
			// Docker's default bridge comes before "routed" and stays the gateway.
			{"runbridge", "bridge", 8100, names},
			{"runnet", "net", 8101, []string{"lone", "inner"}},
			{"madeuser", "user", 8102, []string{"lone", "inner"}},
			{"madenet", "net", 8103, []string{"lone", "inner"}},
		}
		serving := func() {
			t.Helper()
			for _, c := range containers {
				h.startWeb(c.name)
				h.expectPublished(c.name, c.port)
			}
		}
		for _, c := range containers {
			verb := []string{"run", "-d"}
			if strings.HasPrefix(c.name, "made") {
				verb = []string{"create"}
			}
			h.docker(append(verb, "--name", c.name, "--restart", "always", "--network", c.publisher, "-p", fmt.Sprintf("%d:80", c.port), "lab")...)
			for _, n := range c.others {
				h.docker("network", "connect", n, c.name)
			}
			h.docker("start", c.name)
			h.docker("restart", c.name)
		}
		serving()
		h.ping("runnet", h.address("madeuser", "lone"))
		h.ping("runbridge", h.address("madenet", "inner"))
		// A network with a router takes the default route, and by Docker's rules
		// the ports, from Docker's gateway service. It gives them back.
		h.docker("network", "connect", "routed", "runnet")
		if got := h.defaultRoutes("runnet"); len(got) != 1 || !strings.HasPrefix(got[0], "default via 10.64.0.1 ") {
			t.Errorf("with a router the default routes are %q", got)
		}
		h.docker("restart", "runnet")
		h.docker("network", "disconnect", "routed", "runnet")
		serving()

		// What Docker was told last counts, however short ago.
		for i := range 5 {
			h.docker("create", "--name", "late", "--network", "inner", "-p", fmt.Sprintf("%d:80", 8110+i), "lab")
			h.docker("network", "connect", "net", "late")
			h.docker("start", "late")
			h.docker("rm", "-f", "late")
		}

		h.must(h.StopDocker(h.ctx()))
		h.startDocker()
		for _, c := range containers {
			h.eventually(c.name+" runs again", func() error {
				if s := h.docker("inspect", "-f", "{{.State.Status}} {{.State.Error}}", c.name); strings.TrimSpace(s) != "running" {
					return fmt.Errorf("it is %s", s)
				}
				return nil
			})
		}
		serving()
		for _, c := range containers {
			h.docker("rm", "-f", c.name)
		}
		h.docker(append([]string{"network", "rm", "user", "net"}, names...)...)
	})
}

// worldAddr is beyond the host, which is 198.51.100.1 there. The world knows no
// route to any network of the host.
const worldAddr = "198.51.100.2"

func (h *host) world() place {
	h.t.Helper()
	p := h.plug("world", worldAddr+"/24")
	h.run("ip", "addr", "add", "198.51.100.1/24", "dev", "v-world")
	return p
}

// startWeb starts a web server of /etc on port 80 of a container.
func (h *host) startWeb(container string) {
	h.t.Helper()
	h.docker("exec", "-d", container, "httpd", "-f", "-p", "80", "-h", "/etc")
}

// expectPublished checks that port 80 of a container is published as port, and
// reached there from the host and from the world.
func (h *host) expectPublished(container string, port int) {
	h.t.Helper()
	if got := h.docker("port", container, "80/tcp"); !strings.Contains(got, fmt.Sprint("0.0.0.0:", port)) {
		h.t.Errorf("docker port %s shows %q, not %d", container, got, port)
	}
	const get = `exec 3<>/dev/tcp/%s/%d; printf 'GET /passwd HTTP/1.0\r\n\r\n' >&3; grep -q tcpdump:x:101 <&3`
	h.outside().can("timeout", "5", "bash", "-c", fmt.Sprintf(get, "127.0.0.1", port))
	world := place{h, "the world", "/run/netns/world"}
	world.can("timeout", "5", "bash", "-c", fmt.Sprintf(get, "198.51.100.1", port))
}

// defaultRoutes of a container, IPv4 first, as far as they say where to.
func (h *host) defaultRoutes(container string) (routes []string) {
	h.t.Helper()
	p := h.in(container)
	for _, family := range []string{"-4", "-6"} {
		for line := range strings.Lines(p.run("ip", family, "route", "show", "default")) {
			f := strings.Fields(line)
			routes = append(routes, strings.Join(f[:min(5, len(f))], " "))
		}
	}
	return routes
}

// expectDevices checks which devices a container has besides lo.
func (h *host) expectDevices(container string, want ...string) {
	h.t.Helper()
	var names []string
	for _, l := range h.in(container).links() {
		if l.Name != "lo" {
			names = append(names, l.Name)
		}
	}
	if !slices.Equal(names, want) {
		h.t.Errorf("%s has the devices %v, not %v", container, names, want)
	}
}
