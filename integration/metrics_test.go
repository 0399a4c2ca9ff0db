//go:build linux

package integration

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// The daemon counts calls, waits and repairs; on a host where nothing happens
// there is no transaction. Each metric that docs/performance.md names is there.
func TestMetrics(t *testing.T) {
	t.Parallel()
	h := newHost(t, service, own)
	h.network("web", "--subnet", "10.1.0.0/24", "--opt", "gateway_mode=none")
	h.container("aa", "web")
	p, err := readPage("docs/performance.md")
	h.must(err)
	metrics := ""
	for _, b := range p.blocks {
		if b.lang == "sh" && testedBy.FindStringSubmatch(b.remark)[1] == "TestMetrics" {
			metrics = sudo.ReplaceAllString(b.text, "")
		}
	}
	text := h.sh(metrics)
	for _, want := range []string{
		`ocn_call_seconds_count{call="NetworkDriver.Join",result="ok"} 1`, `ocn_call_own_seconds_count{call="NetworkDriver.CreateEndpoint"} 1`,
		`ocn_wait_seconds_count{for="ovsdb"}`, `ocn_wait_seconds_count{for="vswitchd"}`, `ocn_wait_seconds_count{for="disk"}`,
		"ocn_repair_seconds_count", "ocn_networks 1", "ocn_endpoints 1", "ocn_calls_active 0",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	counter := regexp.MustCompile(`(?m)^ocn_ovsdb_transactions_total (\d+)$`)
	last := ""
	h.eventually("nothing is written any more", func() error {
		now := counter.FindString(h.sh(metrics))
		if now == "" || now != last {
			defer func() { last = now }()
			return fmt.Errorf("from %q to %q", last, now)
		}
		return nil
	})
	h.docker("rm", "-f", "aa")
	h.docker("network", "rm", "web")
	h.expectClean()
}
