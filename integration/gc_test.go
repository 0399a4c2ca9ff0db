//go:build linux

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/control"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// gc runs gc and returns what it names, as "kind name".
func (h *host) gc(flags ...string) (pieces []string, text string) {
	h.t.Helper()
	args := append([]string{buildDir + "/ovs-container-network", "gc"}, flags...)
	var g control.Garbage
	h.must(json.Unmarshal([]byte(h.run(append(args, "-o", "json", "--dry-run")...)), &g))
	for _, p := range g.Pieces {
		pieces = append(pieces, p.Kind+" "+p.Name)
	}
	return pieces, h.run(args...)
}

// gc shows and then removes what nobody owns, of every kind, and nothing else:
// no container notices, and what others made stays.
func TestGC(t *testing.T) {
	t.Parallel()
	h := newHost(t, service, own)
	h.network("web", "--subnet", "10.1.0.0/24", "--ipam-driver", "ovs-container-network")
	h.container("aa", "web")
	h.container("bb", "web")
	h.byHand("other", "br-int", "", "tag=7", "external_ids:owner=somebody")
	web, like := h.netID("web"), h.endID("aa", "web")
	h.stopDriver()

	ghost, broken := strings.Repeat("c1", 32), strings.Repeat("c2", 32)
	h.forge(h.record("networks", web, "network.json"), h.record("networks", ghost, "network.json"), "network", func(r map[string]any) {
		r["id"], r["name"], r["created"] = ghost, "ghost", time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
		r["config"].(map[string]any)["vlan"] = 77
		r["subnets"] = []any{}
		delete(r, "engine")
	})
	h.must(os.MkdirAll(h.record("networks", ghost, "endpoints"), 0o700))
	h.must(os.MkdirAll(h.record("networks", broken, "endpoints"), 0o700))
	h.must(os.WriteFile(h.record("networks", broken, "network.json"), []byte("null and void"), 0o600))
	pools, err := filepath.Glob(h.record("pools", "*.json"))
	h.must(err)
	h.forge(pools[0], h.record("pools", "local_1_10.9.0.0_24.json"), "pool", func(r map[string]any) {
		r["id"], r["prefix"], r["addrs"], r["seq"] = "local/1/10.9.0.0/24", "10.9.0.0/24", []any{}, 99
		for _, key := range []string{"network", "gateway", "own", "last"} {
			delete(r, key)
		}
	})
	h.startDriver()
	pool := h.status().Pools[0].ID
	h.sh(fmt.Sprintf(`curl -sf --unix-socket /run/docker/plugins/ovs-container-network.sock \
	-d '{"PoolID":"%s","Address":"10.1.0.99"}' http://x/IpamDriver.RequestAddress`, pool))

	stray := strings.Repeat("e1", 32)
	port, _ := network.EndpointID(stray).Links()
	want := []string{"address 10.1.0.99", "network ghost", "pool 10.9.0.0/24", "port " + port,
		"record " + stateDir + "/networks/" + broken + "/network.json"}
	h.within(70*time.Second, "gc finds what can only be told after a while", func() error {
		got, _ := h.gc("--dry-run")
		for _, w := range want {
			if w != "port "+port && !slices.Contains(got, w) {
				return fmt.Errorf("%s is not in %q", w, got)
			}
		}
		return nil
	})
	h.forgeEndpoint(web, like, stray, "10.1.0.88/24", "02:00:00:00:02:88", network.PhaseJoined, true)
	h.must(os.Remove(h.record("networks", web, "endpoints", stray+".json")))
	for _, flag := range []string{"--dry-run", "-o=table"} { // before and when it is removed
		found, text := h.gc(flag)
		if slices.Sort(found); !slices.Equal(found, want) {
			t.Errorf("gc finds %q\nwant %q", found, want)
		}
		for _, w := range want {
			_, name, _ := strings.Cut(w, " ")
			if !strings.Contains(text, name) {
				t.Errorf("gc %s does not show %s:\n%s", flag, name, text)
			}
		}
	}
	// A link tells no network: it might have been one of the record's.
	if found, _ := h.gc(); !slices.Equal(found, []string{"link " + port}) {
		t.Errorf("then gc finds %q", found)
	}
	if found, text := h.gc("--dry-run"); len(found) > 0 || !strings.Contains(text, "Everything has an owner") {
		t.Errorf("there is still %q:\n%s", found, text)
	}
	if left := h.leftovers(); strings.Contains(left, port) || strings.Contains(left, ghost) || strings.Contains(left, broken) || strings.Contains(left, "10.9.0.0") {
		t.Errorf("left over:\n%s", left)
	}
	h.ping("aa", "bb")
	if tag := h.ovs("get", "Port", "v-other", "tag"); tag != "7" {
		t.Errorf("the port of somebody else has tag %s", tag)
	}
	h.healthy()
	h.ovs("del-port", "v-other")
	h.docker("rm", "-f", "aa", "bb")
	h.docker("network", "rm", "web")
	h.expectClean()
}

// A firewall that flushes the whole rule set takes the driver's table with it: it
// is back within seconds, and doctor says so if it is not.
func TestFlushedRuleSet(t *testing.T) {
	t.Parallel()
	h := newHost(t, service, own)
	h.network("web", "--subnet", "10.1.0.0/24", "--opt", "gateway_mode=none")
	h.container("aa", "web")
	h.container("bb", "web")
	chains := func() string {
		return h.sh("nft list table netdev ovs-container-network 2>/dev/null | grep -c 'hook ingress' || true")
	}
	if got := chains(); got != "2" {
		t.Fatalf("%s chains", got)
	}
	h.sh("kill -STOP " + h.driverPID())
	h.sh("nft flush ruleset")
	if got := chains(); got != "0" {
		t.Fatalf("%s chains", got)
	}
	h.sh("kill -CONT " + h.driverPID())
	h.eventually("the chains are back", func() error {
		if got := chains(); got != "2" {
			return fmt.Errorf("there are %s", got)
		}
		return nil
	})
	h.healthy()
	h.ping("aa", "bb")
	h.docker("rm", "-f", "aa", "bb")
	h.docker("network", "rm", "web")
	h.expectClean()
}
