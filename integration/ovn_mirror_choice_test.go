//go:build linux

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

const nbSchema = "/usr/share/ovn/ovn-nb.ovsschema"

// convertNB gives the northbound database another schema while it is in use.
func (f *fleet) convertNB(file string) {
	f.t.Helper()
	f.hc.run("ovsdb-client", "convert", "unix:/run/ovn/ovnnb_db.sock", file)
}

// olderNB is the file of a schema without mirrors of type local.
func (f *fleet) olderNB() string {
	f.t.Helper()
	raw, err := os.ReadFile(f.hc.Path(nbSchema))
	f.hc.must(err)
	var schema struct {
		Name    string                    `json:"name"`
		Version string                    `json:"version"`
		Tables  map[string]map[string]any `json:"tables"`
	}
	f.hc.must(json.Unmarshal(raw, &schema))
	schema.Tables["Mirror"]["columns"].(map[string]any)["type"] = map[string]any{
		"type": map[string]any{"key": map[string]any{"type": "string", "enum": []any{"set", []any{"gre", "erspan"}}}},
	}
	raw, err = json.Marshal(schema)
	f.hc.must(err)
	const file = "/tmp/older.ovsschema"
	f.hc.must(os.WriteFile(f.hc.Path(file), raw, 0o644))
	return file
}

// A central that is upgraded while containers are watched makes their mirrors from then
// on. Nothing is copied twice, and the observer need not be started anew.
func TestOVNMirrorUpgrade(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1, lab.FleetOptions{Root: string(newer), CentralRoot: string(newer)})
	h := f.hosts[0]
	f.convertNB(f.olderNB())
	f.network("prod", "10.7.0.0/24", "--opt", "ovn.switch=prod", "--opt", "gateway_mode=none")
	h.container("near", "prod")
	h.container("near2", "prod")
	h.observe("eye", "prod")
	h.copies("prod", 1, 2)
	f.logicalMirrors(0)
	if rows := h.mirrorRows(); len(rows) != 1 {
		t.Errorf("before the upgrade there are the mirrors %v", rows)
	}
	h.keepsTalking("near", "near2")
	eye := h.in("eye").capture()
	f.convertNB(nbSchema)
	f.logicalMirrors(1)
	h.eventually("the driver's own mirror is gone", func() error {
		if rows := h.mirrorRows(); len(rows) > 0 {
			return fmt.Errorf("%v", rows)
		}
		return nil
	})
	h.copies("prod", 1, 2)
	eye.overhears("near", "near2")
	times := make(map[string]int)
	for _, frame := range eye.frames("ICMP echo") {
		times[echo.FindString(frame)]++
	}
	for frame, n := range times {
		if n > 1 {
			t.Errorf("%s was copied %d times", frame, n)
		}
	}
	eye.watches("near", "near2")
	h.docker("rm", "-f", "eye", "near", "near2")
	f.logicalMirrors(0)
	h.docker("network", "rm", "prod")
	f.expectEmpty()
}

// An ovn-controller of before 23.06 would take a mirror of type local for a tunnel.
func TestOVNMirrorOldChassis(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1, lab.FleetOptions{CentralRoot: string(newer)})
	h := f.hosts[0]
	f.network("prod", "10.7.0.0/24", "--opt", "ovn.switch=prod", "--opt", "gateway_mode=none")
	h.observe("eye", "prod")
	h.container("near", "prod")
	h.copies("prod", 1, 1)
	f.logicalMirrors(0)
	if rows := h.mirrorRows(); len(rows) != 1 {
		t.Errorf("there are the mirrors %v", rows)
	}
	if ports := h.ovs("list-ports", "br-int"); strings.Contains(ports, "ovn-ocn") {
		t.Errorf("ovn-controller has made a port of the mirror:\n%s", ports)
	}
	h.docker("rm", "-f", "eye", "near")
	h.docker("network", "rm", "prod")
	f.expectEmpty()
}
