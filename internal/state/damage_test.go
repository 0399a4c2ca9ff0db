package state_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
	. "github.com/ovs-container-network/ovs-container-network/internal/state"
)

// filled is a state directory with a network, two endpoints and a pool.
func filled(t *testing.T) (path string, files map[string]string) {
	t.Helper()
	path = t.TempDir()
	d := open(t, path)
	put(t, d, aNetwork(), true)
	err := errors.Join(d.PutEndpoint(anEndpoint(eid), true), d.PutEndpoint(anEndpoint(eid2), true), d.PutPool(aPool()), d.Close())
	if err != nil {
		t.Fatal(err)
	}
	pools, err := filepath.Glob(filepath.Join(path, "pools", "*.json"))
	if err != nil || len(pools) != 1 {
		t.Fatal(pools, err)
	}
	net := filepath.Join(path, "networks", string(nid))
	return path, map[string]string{
		"network": filepath.Join(net, "network.json"), "endpoint": filepath.Join(net, "endpoints", string(eid)+".json"), "pool": pools[0],
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A record that cannot be read is reported with its path and ids, and left as it
// is; all others are read.
func TestDamagedRecords(t *testing.T) {
	for name, spoil := range map[string]func(text string) string{
		"empty":         func(string) string { return "" },
		"truncated":     func(text string) string { return text[:len(text)/2] },
		"last byte":     func(text string) string { return strings.TrimSuffix(strings.TrimSpace(text), "}") },
		"garbage":       func(text string) string { return strings.Repeat("\x00", len(text)) },
		"two in a line": func(text string) string { return strings.TrimSpace(text) + text },
		"newer at last": func(text string) string { return text + strings.Replace(text, `"version":1`, `"version":2`, 1) },
		"newer":         func(text string) string { return strings.Replace(text, `"version":1`, `"version":2`, 1) },
		"no version": func(text string) string {
			return strings.Replace(text, `"version":1,`, ``, 1)
		},
		"other thing": func(string) string { return `{"version":1}` },
		"null":        func(string) string { return "null" },
		"list":        func(string) string { return "[]" },
		"wrong type": func(text string) string {
			return strings.NewReplacer(`"phase":"`, `"phase":["`, `"seq":`, `"seq":-`).Replace(text)
		},
		"other id": func(text string) string {
			return strings.NewReplacer(string(eid), string(eid2), `"id":"`+string(nid), `"id":"0`+string(nid), "0123456789abcdef", "fedcba9876543210").Replace(text)
		},
	} {
		for _, what := range []string{"network", "endpoint", "pool"} {
			if name == "twice" && what == "endpoint" {
				continue // of an endpoint's records the last counts
			}
			t.Run(name+" "+what, func(t *testing.T) {
				t.Parallel()
				path, files := filled(t)
				spoiled := spoil(read(t, files[what]))
				write(t, files[what], spoiled)
				d := open(t, path)
				for range 2 {
					checkDamage(t, load(t, d), what, files[what])
					if got := read(t, files[what]); got != spoiled {
						t.Errorf("the record was changed: %q", got)
					}
				}
			})
		}
	}
}

// checkDamage fails if anything but the one record is reported, or missing.
func checkDamage(t *testing.T, c Contents, what, path string) {
	t.Helper()
	networks, endpoints, pools, damaged, bad := 1, 2, 1, 1, 0
	want := network.Damage{Path: path, Network: nid}
	switch what {
	case "network":
		networks, endpoints = 0, 0
	case "endpoint":
		endpoints, want.Endpoint = 1, eid
	case "pool":
		pools, damaged, bad = 0, 0, 1
	}
	gotEndpoints := 0
	for _, n := range c.Networks {
		gotEndpoints += len(n.Endpoints)
	}
	if len(c.Networks) != networks || gotEndpoints != endpoints || len(c.Pools) != pools || len(c.Damaged) != damaged || len(c.BadPools) != bad {
		t.Fatalf("got %+v", c)
	}
	switch {
	case bad == 1:
		if !strings.Contains(c.BadPools[0].Error(), path) {
			t.Errorf("got %v, want %s in it", c.BadPools[0], path)
		}
	case c.Damaged[0].Err == nil:
		t.Error("no reason is given")
	default:
		want.Err = c.Damaged[0].Err
		if c.Damaged[0] != want {
			t.Errorf("got %+v, want %+v", c.Damaged[0], want)
		}
	}
}

// A record that may not be read at all is reported too.
func TestUnreadableRecord(t *testing.T) {
	path, files := filled(t)
	if err := errors.Join(os.Remove(files["endpoint"]), os.Mkdir(files["endpoint"], 0o700)); err != nil {
		t.Fatal(err)
	}
	checkDamage(t, load(t, open(t, path)), "endpoint", files["endpoint"])
}

// A write that was cut off at any byte leaves the old record or, for a new one,
// nothing, and does not disturb the next write.
func TestCutOffWrites(t *testing.T) {
	path, files := filled(t)
	d := open(t, path)
	before := load(t, d)
	for _, file := range files {
		text := read(t, file)
		for _, cut := range []int{0, 1, len(text) / 2, len(text)} {
			write(t, file+".new", text[:cut])
			write(t, filepath.Join(filepath.Dir(file), "never-written.json.new"), text[:cut])
			if diff := cmp.Diff(before, load(t, d), same); diff != "" {
				t.Errorf("%s cut at %d (-want +got):\n%s", file, cut, diff)
			}
		}
	}
	changed := aNetwork()
	changed.Name = "changed"
	put(t, d, changed, true)
	if err := errors.Join(d.PutEndpoint(anEndpoint(eid), true), d.PutPool(aPool())); err != nil {
		t.Error(err)
	}
	c := load(t, d)
	if len(c.Networks) != 1 || c.Networks[0].Name != "changed" || len(c.Networks[0].Endpoints) != 2 || len(c.Damaged)+len(c.BadPools) != 0 {
		t.Errorf("got %+v", c)
	}
}

// What changed of an endpoint is appended to its file. When that is cut off at any
// byte, or holds nothing yet but its length, the record before it counts, and the
// next change is not spoiled by the rest.
func TestCutOffChanges(t *testing.T) {
	path, files := filled(t)
	d := open(t, path)
	whole := read(t, files["endpoint"])
	changed := anEndpoint(eid)
	changed.Phase, changed.Sandbox = network.PhaseLeft, ""
	if err := d.PutEndpoint(changed, false); err != nil {
		t.Fatal(err)
	}
	both := read(t, files["endpoint"])
	line, appended := strings.CutPrefix(both, whole)
	if !appended { // replaced as a whole: nothing of it can be cut off
		line = ""
	}
	get := func() network.Endpoint {
		t.Helper()
		c := load(t, d)
		if len(c.Damaged) > 0 || len(c.Networks) != 1 {
			t.Fatalf("got %+v", c)
		}
		return *c.Networks[0].Endpoints[eid]
	}
	if diff := cmp.Diff(changed, get(), same); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for cut := range max(0, len(line)-1) {
		if cut > 10 && cut < len(line)-10 && cut%13 != 0 {
			continue
		}
		for what, rest := range map[string]string{"cut off": line[:cut], "not written": strings.Repeat("\x00", cut)} {
			write(t, files["endpoint"], whole+rest)
			if got := get(); got.Phase != network.PhaseJoined {
				t.Fatalf("%s after %d of %d bytes: got %+v", what, cut, len(line), got)
			}
			if err := d.PutEndpoint(changed, false); err != nil {
				t.Fatal(err)
			}
			if got := get(); got.Phase != network.PhaseLeft {
				t.Fatalf("the change after one that was %s after %d bytes: got %+v", what, cut, got)
			}
		}
	}
}

// A network directory without a record is what a crash in the middle of making or
// removing a network leaves: it is dropped, unless there are endpoints in it.
func TestDirectoryWithoutRecord(t *testing.T) {
	for name, c := range map[string]struct {
		leave   []string // below the network's directory
		dropped bool
	}{
		"nothing":              {nil, true},
		"no endpoints":         {[]string{"endpoints/"}, true},
		"cut off write":        {[]string{"network.json.new"}, true},
		"both cut off":         {[]string{"network.json.new", "endpoints/" + string(eid) + ".json.new"}, true},
		"an endpoint":          {[]string{"endpoints/" + string(eid) + ".json"}, false},
		"an unreadable record": {[]string{"network.json/"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir()
			d := open(t, path)
			dir := filepath.Join(path, "networks", string(nid))
			if err := os.MkdirAll(filepath.Join(dir, "endpoints"), 0o700); err != nil {
				t.Fatal(err)
			}
			if name == "nothing" {
				if err := os.Remove(filepath.Join(dir, "endpoints")); err != nil {
					t.Fatal(err)
				}
			}
			for _, file := range c.leave {
				if strings.HasSuffix(file, "/") {
					if err := os.MkdirAll(filepath.Join(dir, file), 0o700); err != nil {
						t.Fatal(err)
					}
				} else {
					write(t, filepath.Join(dir, file), "{}")
				}
			}
			got := load(t, d)
			_, err := os.Stat(dir)
			if gone := errors.Is(err, os.ErrNotExist); gone != c.dropped {
				t.Errorf("the directory is gone: %v", gone)
			}
			if c.dropped && len(got.Damaged) != 0 || !c.dropped && (len(got.Damaged) != 1 || got.Damaged[0].Network != nid || got.Damaged[0].Endpoint != "") {
				t.Errorf("damaged: %+v", got.Damaged)
			}
		})
	}
}
