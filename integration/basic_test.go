//go:build linux

package integration

import (
	"strings"
	"testing"
)

// The main job: two containers on a network talk by name over ICMP, TCP and
// UDP, with no option given, and all is gone when they are removed.
func TestBasics(t *testing.T) {
	everywhere(t, func(t *testing.T, h *host) {
		h.network("web", "--subnet", "10.1.0.0/24")
		h.container("aa", "web")
		h.container("bb", "web")
		h.ping("aa", "bb")
		h.tcp("aa", "bb", "bb")
		h.docker("exec", "-d", "bb", "iperf3", "-s")
		h.eventually("UDP arrives", func() error {
			_, err := h.Run(h.ctx(), "docker", "exec", "aa", "iperf3", "-c", "bb", "-u", "-n", "20K", "--connect-timeout", "2000")
			return err
		})
		s := h.status()
		if len(s.Networks) != 1 || s.Networks[0].Health != "ok" || len(s.Networks[0].Ends) != 2 {
			t.Errorf("status is not as expected: %+v", s.Networks)
		}
		if port := h.portOf("aa", "web"); !strings.Contains(h.ovs("list-ports", "br-int"), port) {
			t.Errorf("port %s is not on br-int", port)
		}
		h.docker("rm", "-f", "aa", "bb")
		h.docker("network", "rm", "web")
	})
}
