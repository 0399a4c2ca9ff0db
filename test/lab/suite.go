//go:build linux

package lab

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
)

// Suite finds the root of a Debian suite, for [WithRoot]. `scripts/setup.sh root
// SUITE` makes it.
func Suite(name string) (string, error) {
	cache := cmp.Or(os.Getenv("OCN_LAB_CACHE"), "/var/cache/ovs-container-network-lab")
	root := filepath.Join(cache, name)
	if _, err := os.Stat(filepath.Join(root, ".setup-stamp")); err != nil {
		return "", fmt.Errorf("no root of %s: run scripts/setup.sh root %s", name, name)
	}
	return root, nil
}
