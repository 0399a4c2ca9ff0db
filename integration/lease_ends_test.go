//go:build linux

package integration

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// kea runs Kea, which grants for as short as one likes, in a place that was attached
// by hand; the machine's own, so on a host of its system. It gives the addresses of
// 10.42.0.first to 10.42.0.last for 15 seconds.
func (p place) kea(first, last int) (stop func()) {
	p.h.t.Helper()
	dir := "/tmp/kea"
	config := fmt.Sprintf(`{"Dhcp4": {
"interfaces-config": {"interfaces": ["eth0"]}, "authoritative": true,
"lease-database": {"type": "memfile", "name": "%[1]s/leases.csv", "lfc-interval": 0},
"valid-lifetime": 15, "renew-timer": 4, "rebind-timer": 8,
"subnet4": [{"id": 1, "subnet": "10.42.0.0/24", "pools": [{"pool": "10.42.0.%[2]d - 10.42.0.%[3]d"}], "option-data": [{"name": "routers", "data": "10.42.0.1"}]}],
"loggers": [{"name": "kea-dhcp4", "severity": "INFO", "output_options": [{"output": "stdout"}]}]}}`, dir, first, last)
	p.h.sh("mkdir -p " + dir + "; : >" + dir + "/log; cat >" + dir + "/conf <<'EOF'\n" + config + "\nEOF")
	p.h.sh(fmt.Sprintf("KEA_LOCKFILE_DIR=%[1]s KEA_PIDFILE_DIR=%[1]s KEA_DHCP_DATA_DIR=%[1]s setsid nsenter --net=%[2]s kea-dhcp4 -c %[1]s/conf </dev/null >>%[1]s/log 2>&1 & echo $! >%[1]s/pid", dir, p.netns))
	p.h.eventually("Kea serves", func() error {
		if b, _ := os.ReadFile(p.h.Path(dir + "/log")); !strings.Contains(string(b), "DHCP4_STARTED") {
			return fmt.Errorf("it says %s", b)
		}
		return nil
	})
	return func() {
		p.h.sh("kill -9 $(cat " + dir + "/pid); rm -f " + dir + "/*.pid")
	}
}

// grants counts how often Kea granted an address.
func (p place) grants(addr string) int {
	b, _ := os.ReadFile(p.h.Path("/tmp/kea/leases.csv"))
	return strings.Count("\n"+string(b), "\n"+addr+",")
}

// A lease outlives dockerd and the driver, and ends at its time when no server
// prolongs it: the container is without an address until a server is back.
func TestLeaseEnds(t *testing.T) {
	t.Parallel()
	h := newHost(t, service, own)
	h.must(h.StopDocker(h.ctx()))
	h.startDocker("--live-restore")
	h.network("n", ownLeases("bridge=br-dhcp")...)
	server := h.byHand("server", "br-dhcp", "10.42.0.1/24")
	stop := server.kea(50, 99)
	h.container("aa", "n", "--mac-address", "02:00:00:00:00:a1")
	addr := h.leaseFrom("aa", "n", "10.42.0")
	aa := h.in("aa")
	renewed := func(what string) {
		t.Helper()
		seen := server.grants(addr)
		h.eventually("the lease is renewed "+what, func() error {
			if server.grants(addr) == seen {
				return fmt.Errorf("it was granted %d times", seen)
			}
			return nil
		})
	}
	has := func(want string) error {
		got, health, reason := h.leased("aa")
		in := strings.Join(aa.inet("eth0"), " ")
		switch {
		case want == "" && (in != "" || len(got) > 0 || health == "ok" || !strings.Contains(reason, "is over")),
			want != "" && (in != want || strings.Join(got, " ") != want || health != "ok"):
			return fmt.Errorf("it has %q; status shows %q, %s: %s", in, got, health, reason)
		}
		return nil
	}
	renewed("by Kea")
	h.must(h.KillDocker(h.ctx()))
	renewed("without dockerd")
	h.killDriver()
	h.startDriver()
	renewed("by another driver")
	h.startDocker()
	h.driverAnswers()
	renewed("with another dockerd")
	if now := h.leaseFrom("aa", "n", "10.42.0"); now != addr {
		t.Errorf("it has %s instead of %s", now, addr)
	}

	stop()
	h.within(time.Minute, "the lease ends", func() error { return has("") })
	if routes := aa.run("ip", "route"); routes != "" {
		t.Errorf("without an address it has the routes %s", routes)
	}
	stop = server.kea(50, 99)
	h.within(2*time.Minute, "the lease is back", func() error { return has(addr + "/24") })
	h.leaseFrom("aa", "n", "10.42.0")

	// A server whose addresses are others: Kea says nothing to who renews the old one.
	stop()
	stop = server.kea(150, 199)
	h.within(time.Minute, "the container has an address of the new pool", func() error {
		if got := aa.inet("eth0"); len(got) != 1 || !strings.HasPrefix(got[0], "10.42.0.1") {
			return fmt.Errorf("it has %s", got)
		}
		return nil
	})
	h.ping("aa", "10.42.0.1")

	// A dockerd that is killed takes its containers along, unless it is told not to.
	addr = strings.TrimSuffix(aa.inet("eth0")[0], "/24")
	h.must(h.KillDocker(h.ctx()))
	h.dockerArgs = nil
	h.startDocker()
	h.driverAnswers()
	h.docker("start", "aa")
	if now := h.leaseFrom("aa", "n", "10.42.0"); now != addr {
		t.Errorf("started again with the same MAC address it has %s instead of %s", now, addr)
	}
	h.docker("rm", "-f", "aa")
	h.ovs("del-port", "br-dhcp", "v-server")
	h.docker("network", "rm", "n")
	stop()
	h.expectClean()
}
