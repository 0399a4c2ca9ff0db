//go:build linux

package integration

import (
	"strings"
	"testing"
)

// A container whose ports nothing would publish is refused whenever it is
// started, and starts as soon as it is on a network that publishes.
func TestPublishedLater(t *testing.T) {
	oldAndNew(t, func(t *testing.T, h *host) {
		h.network("open", "--subnet", "10.1.0.0/24")
		h.network("quiet", "--subnet", "10.2.0.0/24", "--opt", "gateway_mode=none")
		h.network("inner", "--subnet", "10.3.0.0/24", "--internal")
		for _, c := range [][2]string{{"c1", "quiet"}, {"c2", "inner"}} {
			h.docker("create", "--name", c[0], "-p", "80", "--network", c[1], "lab")
		}
		h.docker("run", "--rm", "--network", "none", "lab", "sleep", "7") // what follows a create at once is over
		for _, c := range []string{"c1", "c2"} {
			if out := h.dockerFails("start", c); !strings.Contains(out, "published ports (-p) would be ignored") {
				t.Errorf("the start of %s says %s", c, out)
			}
			h.docker("network", "connect", "open", c)
			h.docker("start", c)
			if out := h.docker("port", c); out == "" {
				t.Errorf("%s publishes nothing", c)
			}
		}
		h.docker("rm", "-f", "c1", "c2")
		h.docker("network", "rm", "open", "quiet", "inner")
	})
}
