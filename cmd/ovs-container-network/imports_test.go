package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/ovs-container-network/ovs-container-network"

// allowed are the packages of ours that each package under internal may import:
// arrows point down, from the edges over the tools to the core.
var allowed = map[string][]string{
	"internal/network":     {},
	"internal/ipam":        {},
	"internal/ovsdb":       {},
	"internal/link":        {},
	"internal/dhcp":        {},
	"internal/state":       {"internal/network", "internal/ipam"},
	"internal/ovs":         {"internal/network", "internal/ovsdb", "internal/link", "internal/dhcp"},
	"internal/ovn":         {"internal/network", "internal/ipam", "internal/ovs", "internal/ovsdb", "internal/link"},
	"internal/dockerapi":   {"internal/network", "internal/ipam"},
	"internal/dockerwatch": {"internal/network"},
	"internal/control":     {"internal/network", "internal/ipam", "internal/diag"},
	"internal/diag":        {},
}

// only are packages that one package of ours hides from all others.
var only = map[string][]string{
	"github.com/ovn-kubernetes/libovsdb/client": {"internal/ovsdb"},
	"github.com/ovn-kubernetes/libovsdb/cache":  {"internal/ovsdb"},
	"github.com/vishvananda/netlink":            {"internal/link"},
	"github.com/vishvananda/netns":              {"internal/link"},
	"github.com/mdlayher/netlink":               {"internal/link"},
	"github.com/google/nftables":                {"internal/link"},
	"github.com/insomniacslk/dhcp/dhcpv4":       {"internal/dhcp"},
	"os/exec":                                   {},
}

// Imports point down, each library has one package that knows it, and the daemon
// runs no other program. Tests may import what they like.
func TestImports(t *testing.T) {
	const root = "../.."
	seen := map[string]bool{}
	for _, top := range []string{"cmd", "internal"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			dir, err := filepath.Rel(root, filepath.Dir(path))
			if err != nil {
				return err
			}
			seen[dir] = true
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
			if err != nil {
				return err
			}
			for _, spec := range file.Imports {
				name, err := strconv.Unquote(spec.Path.Value)
				if err != nil {
					return err
				}
				checkImport(t, path, dir, name)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for dir := range seen {
		if _, known := allowed[dir]; !known && strings.HasPrefix(dir, "internal/") {
			t.Errorf("%s is a new package: say above what it may import", dir)
		}
	}
	for dir := range allowed {
		if !seen[dir] {
			t.Errorf("there is no package %s", dir)
		}
	}
}

func checkImport(t *testing.T, path, dir, name string) {
	t.Helper()
	if ours, ok := strings.CutPrefix(name, module+"/"); ok && strings.HasPrefix(dir, "internal/") && !slices.Contains(allowed[dir], ours) {
		t.Errorf("%s imports %s, which package %s may not", path, ours, dir)
	}
	for library, by := range only {
		if (name == library || strings.HasPrefix(name, library+"/")) && !slices.Contains(by, dir) {
			t.Errorf("%s imports %s, which only %v may", path, name, by)
		}
	}
}
