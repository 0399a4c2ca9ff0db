//go:build linux

package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

// containerID is how the engine names cgroups of containers and plugins.
var containerID = regexp.MustCompile(`^[0-9a-f]{64}$`)

// cgroupsLocked lists the cgroups of the host's containers, as paths below a
// hierarchy. A killed host has nobody left to remove them, and the machine's
// cgroup tree is the one thing that it shares. The host's own /proc shows the
// processes of its containers too, whose pid namespaces are below its own.
func (h *Host) cgroupsLocked() []string {
	var groups []string
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/root/proc/[0-9]*/cgroup", h.proc.pid))
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // ended meanwhile
		}
		for line := range strings.Lines(string(b)) {
			_, group, ok := strings.Cut(strings.TrimSpace(line), ":/") // "4:memory:/docker/ID"
			if dir := containerDir(group); ok && dir != "" {
				groups = append(groups, dir)
			}
		}
	}
	groups = append(groups, h.diskCgroups()...)
	slices.Sort(groups)
	return slices.Compact(groups)
}

// containerDir cuts a cgroup path behind the container's own part of it.
func containerDir(group string) string {
	parts := strings.Split(group, "/")
	i := slices.IndexFunc(parts, containerID.MatchString)
	return strings.Join(parts[:i+1], "/")
}

// diskCgroups lists the cgroups that containers and plugins on the host's disk
// have by default: they may have no process left that shows them.
func (h *Host) diskCgroups() []string {
	var groups []string
	for _, kind := range []string{"containers", "plugins"} {
		entries, _ := os.ReadDir(filepath.Join(diskDir(h.dir, "/var/lib/docker"), kind))
		for _, e := range entries {
			if containerID.MatchString(e.Name()) {
				groups = append(groups, "docker/"+e.Name())
			}
		}
	}
	return groups
}

// removeCgroups removes the groups from every hierarchy: with version 1 there is
// one per controller below the root, with version 2 the root is the only one.
func removeCgroups(groups []string) error {
	if len(groups) == 0 {
		return nil
	}
	roots, _ := filepath.Glob(cgroupRoot + "/*")
	var errs []error
	for _, root := range append(roots, cgroupRoot) {
		for _, g := range groups {
			errs = append(errs, removeCgroup(filepath.Join(root, g)))
		}
	}
	return errors.Join(errs...)
}

// removeCgroup removes a group and those in it, the deepest first. A group whose
// last process is only just gone may be busy for a moment.
func removeCgroup(dir string) error {
	var dirs []string
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, p)
		}
		return nil
	})
	for _, d := range slices.Backward(dirs) {
		for deadline := time.Now().Add(2 * time.Second); ; <-time.After(10 * time.Millisecond) {
			err := unix.Rmdir(d)
			if err == nil || errors.Is(err, unix.ENOENT) {
				break
			}
			if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
				return fmt.Errorf("remove cgroup %s: %w", d, err)
			}
		}
	}
	return nil
}
