//go:build linux

package integration

import (
	"strings"
	"testing"
)

// exact sees every kind of thing that should not be there, and every one that
// should.
func TestExact(t *testing.T) {
	t.Parallel()
	h := newHost(t, service, own)
	w := h.settle()
	w.within(exactAgain, "all is exact", h.exact)
	h.docker("network", "create", "-d", "ovs-container-network", "--ipam-driver", "ovs-container-network",
		"--subnet", "10.4.0.0/24", "--aux-address", "router=10.4.0.9", "spare")
	h.must(h.exact())
	port, other := h.portOf("a1", "web"), h.portOf("a2", "web")
	s := h.status()
	h.stopDriver() // lest it mends
	h.sh(`
ip link add oc-0123456789ab type veth peer name ocn0123456789ab
nft add chain netdev ovs-container-network lost
ovs-vsctl add-br br-lost -- set Bridge br-lost external_ids:owner=ovs-container-network datapath_type=netdev
ovs-vsctl del-port ` + port + `
ovs-vsctl set Port ` + other + ` trunks=7
nft delete chain netdev ovs-container-network ` + other + `
cd ` + stateDir + `
sed -i 's/"10.4.0.9"/"10.4.0.8"/' pools/*10.4*
touch pools/x.json.new networks/y
rm networks/` + h.netID("web") + `/endpoints/` + h.endID("a1", "web") + `.json`)
	d := &differences{}
	known, err := h.dockerView()
	h.must(err)
	for _, err := range []error{
		h.exactRows(d, known, s), h.exactLinks(d, known, s), h.exactShields(d, known, s),
		h.exactRecords(d, known, s), h.exactPools(d, known, s),
	} {
		h.must(err)
	}
	var found []string
	for _, err := range d.found {
		found = append(found, err.Error())
	}
	for _, want := range []string{
		"link is left over: oc-0123456789ab", "link is left over: ocn0123456789ab",
		"shield is left over: lost", "shield is missing: " + other,
		"bridge of ours is left over: br-lost",
		"port " + other + " is access [",
		"port is missing: " + port, "interface is missing: " + port,
		"record is left over: pools/x.json.new", "record is left over: networks/y", "record is missing: networks/",
		"is missing: 10.4.0.9", "is left over: 10.4.0.8",
	} {
		if !strings.Contains(strings.Join(found, "\n"), want) {
			t.Errorf("it is not told that %s, only\n%s", want, strings.Join(found, "\n"))
		}
	}
	if len(found) != 13 {
		t.Errorf("told is\n%s", strings.Join(found, "\n"))
	}
}
