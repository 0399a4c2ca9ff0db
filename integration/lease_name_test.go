//go:build linux

package integration

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// engine asks the driver what Docker 29 asks for a network with our IPAM driver and
// its containers: no host of the lab has that engine.
type engine struct {
	h             *host
	network, pool string
	gateway       string
}

// attached is a container on the network of an engine.
type attached struct {
	place
	id, booked, mac string
}

func randomID() string {
	var b [32]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

type object = map[string]any

// ask calls a method of the driver and reads its answer.
func (e *engine) ask(method string, request, answer any) {
	e.h.t.Helper()
	body, err := json.Marshal(request)
	e.h.must(err)
	out := e.h.run("curl", "-s", "--unix-socket", "/run/docker/plugins/ovs-container-network.sock", "-d", string(body), "http://x/"+method)
	if strings.Contains(out, `"Err":`) || answer != nil && json.Unmarshal([]byte(out), answer) != nil {
		e.h.t.Fatalf("%s %s: %s", method, body, out)
	}
}

// create makes the network.
func (e *engine) create(subnet, ipRange string, options object) {
	e.h.t.Helper()
	var spaces struct{ LocalDefaultAddressSpace string }
	e.ask("IpamDriver.GetDefaultAddressSpaces", object{}, &spaces)
	var pool struct{ PoolID string }
	e.ask("IpamDriver.RequestPool", object{"AddressSpace": spaces.LocalDefaultAddressSpace, "Pool": subnet, "SubPool": ipRange, "Options": object{}, "V6": false}, &pool)
	e.network, e.pool = randomID(), pool.PoolID
	e.gateway = e.book("", object{"RequestAddressType": "com.docker.network.gateway"})
	e.ask("NetworkDriver.CreateNetwork", object{
		"NetworkID": e.network, "Options": object{"com.docker.network.generic": options, "com.docker.network.enable_ipv6": false},
		"IPv4Data": []object{{"AddressSpace": spaces.LocalDefaultAddressSpace, "Pool": subnet, "Gateway": e.gateway}},
	}, nil)
}

// remove removes it.
func (e *engine) remove() {
	e.h.t.Helper()
	e.release(e.gateway)
	e.ask("IpamDriver.ReleasePool", object{"PoolID": e.pool}, nil)
	e.ask("NetworkDriver.DeleteNetwork", object{"NetworkID": e.network}, nil)
}

// book asks for an address.
func (e *engine) book(addr string, options object) string {
	e.h.t.Helper()
	var a struct{ Address string }
	e.ask("IpamDriver.RequestAddress", object{"PoolID": e.pool, "Address": addr, "Options": options}, &a)
	return a.Address
}

func (e *engine) release(addr string) {
	e.h.t.Helper()
	addr, _, _ = strings.Cut(addr, "/")
	e.ask("IpamDriver.ReleaseAddress", object{"PoolID": e.pool, "Address": addr}, nil)
}

// start starts a container; meanwhile is done when its address is booked.
func (e *engine) start(name, mac string, options object, meanwhile func()) attached {
	e.h.t.Helper()
	c := attached{place: place{e.h, name, "/run/netns/" + name}, id: randomID()}
	c.booked = e.book("", object{"com.docker.network.endpoint.name": name})
	meanwhile()
	var made struct{ Interface struct{ MacAddress string } }
	e.ask("NetworkDriver.CreateEndpoint", object{
		"NetworkID": e.network, "EndpointID": c.id, "Interface": object{"Address": c.booked, "AddressIPv6": "", "MacAddress": mac}, "Options": options,
	}, &made)
	if c.mac = made.Interface.MacAddress; mac != "" {
		c.mac = mac
	}
	e.h.sh("ip netns add " + name)
	var joined struct{ InterfaceName *object }
	e.ask("NetworkDriver.Join", object{"NetworkID": e.network, "EndpointID": c.id, "SandboxKey": c.netns, "Options": object{}}, &joined)
	if joined.InterfaceName != nil {
		e.h.t.Errorf("Docker is to bring the link in with what it has booked: %v", joined)
	}
	return c
}

func (e *engine) stop(c attached) {
	e.h.t.Helper()
	for _, method := range []string{"Leave", "DeleteEndpoint"} {
		e.ask("NetworkDriver."+method, object{"NetworkID": e.network, "EndpointID": c.id}, nil)
	}
	e.release(c.booked)
	e.h.sh("ip netns del " + c.name)
}

// clientID is by what a server knows who has an address: as it shows it, and * for who
// told nothing. Empty: nobody has it.
func (p place) clientID(addr string) string {
	for _, line := range p.leases() {
		if f := strings.Fields(line); len(f) == 5 && f[2] == addr {
			return f[4]
		}
	}
	return ""
}

// A DHCP server knows a container by the name that Docker 29 tells our IPAM driver,
// unless its user says something else; the address that is booked is asked for. Older
// engines tell no name: all works, and each start is that of a new machine.
func TestLeaseByName(t *testing.T) {
	t.Parallel()
	t.Run("29", func(t *testing.T) {
		t.Parallel()
		h := bareHost(t, service, own)
		h.must(h.StartOVS(h.ctx()))
		h.startDriver()
		namedLeases(h)
		h.expectClean()
	})
	t.Run("28", func(t *testing.T) {
		t.Parallel()
		h := newHost(t, service, newer)
		namelessLeases(h)
		h.expectClean()
	})
}

func namedLeases(h *host) {
	e := &engine{h: h}
	e.create("10.42.0.0/24", "10.42.0.64/26", object{"ipam": "external", "dhcp": "true", "bridge": "br-dhcp"})
	server := h.byHand("server", "br-dhcp", "10.42.0.1/24")
	server.dhcpServer("10.42.0")
	nothing := func() {}
	// is checks who a container is to the server, and that all agree on its address.
	is := func(c attached, id string) (addr string) {
		h.t.Helper()
		if got := c.inet("eth0"); len(got) != 1 {
			h.t.Fatalf("%s has %q", c.name, got)
		}
		addr = strings.TrimSuffix(c.inet("eth0")[0], "/24")
		if got := server.clientID(addr); got != id {
			h.t.Errorf("%s with %s is %q to the server, want %q", c.name, addr, got, id)
		}
		c.run("ping", "-c", "1", "-W", "5", "10.42.0.1")
		for _, n := range h.status().Networks {
			for _, end := range n.Ends {
				known := ""
				if id != "*" {
					known = "00:" + strings.TrimPrefix(fmt.Sprintf("% x", end.ClientID), " ")
					known = strings.ReplaceAll(known, " ", ":")
				}
				if string(end.ID) == c.id && (end.MAC != c.mac || id != "*" && known != id || id == "*" && end.ClientID != "") {
					h.t.Errorf("status shows %+v, want %s, %s", end, c.mac, id)
				}
			}
		}
		return addr
	}
	// named is what a server sees of a name: the host is part of it.
	named := func(name string) string {
		return strings.ReplaceAll(fmt.Sprintf("00 % x", name+"@"+h.status().HostID[:8]), " ", ":")
	}
	web, db := named("web"), named("db")
	first := e.start("web", "", object{}, nothing)
	other := e.start("db", "", object{}, nothing)
	kept := is(first, web)
	is(other, db)
	for _, c := range []attached{first, other} {
		if got := c.inet("eth0"); len(got) != 1 || got[0] != c.booked {
			h.t.Errorf("%s has %s, booked is %s", c.name, got, c.booked)
		}
	}
	h.killDriver()
	h.startDriver()
	e.stop(first)
	again := e.start("web", "", object{}, nothing)
	if got := is(again, web); got != kept || again.mac != first.mac || again.booked == first.booked {
		h.t.Errorf("started again it has %s and %s after %s and %s; booked are %s and %s", got, again.mac, kept, first.mac, first.booked, again.booked)
	}

	// Its user says who it is.
	e.stop(other)
	other = e.start("db", "", object{"dhcp.client_id": "printer"}, nothing)
	is(other, "00:70:72:69:6e:74:65:72")
	e.stop(other)
	other = e.start("db", "02:00:00:00:00:db", object{}, nothing)
	is(other, "*")
	e.stop(other)

	// A driver that dies after it was told the name does not know it. Nothing breaks.
	other = e.start("db", "", object{}, func() { h.killDriver(); h.startDriver() })
	addr := is(other, "*")
	e.stop(other)
	h.eventually("the lease of who is nobody is given back", func() error {
		if id := server.clientID(addr); id != "" {
			return fmt.Errorf("%s is that of %s", addr, id)
		}
		return nil
	})

	e.stop(again)
	if id := server.clientID(kept); id != web {
		h.t.Errorf("the lease is not kept: %s is that of %q", kept, id)
	}
	h.ovs("del-port", "br-dhcp", "v-server")
	e.remove()
}

func namelessLeases(h *host) {
	h.ours("n", "--subnet", "10.42.0.0/24", "--ip-range", "10.42.0.64/26", "--opt", "ipam=external", "--opt", "dhcp=true", "--opt", "bridge=br-dhcp")
	server := h.byHand("server", "br-dhcp", "10.42.0.1/24")
	server.dhcpServer("10.42.0")
	h.container("aa", "n")
	macs := map[string]bool{}
	for range 2 {
		addr := h.leaseFrom("aa", "n", "10.42.0") // what Docker has booked was asked for
		if id := server.clientID(addr); id != "*" {
			h.t.Errorf("to the server %s is %q", addr, id)
		}
		h.expectUsed("n", 1)
		macs[h.in("aa").link("eth0").MAC] = true
		h.docker("restart", "-t", "1", "aa")
	}
	if len(macs) != 2 {
		h.t.Errorf("the MAC addresses of two starts are %v", macs)
	}
	h.docker("rm", "-f", "aa")
	h.expectUsed("n", 0)
	h.ovs("del-port", "br-dhcp", "v-server")
	h.docker("network", "rm", "n")
}
