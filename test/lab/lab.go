//go:build linux

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// DefaultDir is where labs are kept unless New or Open are told otherwise.
// It has to be on a disk that overlayfs accepts for its upper directory (not
// itself an overlay, not tmpfs), because every root and every container is one.
const DefaultDir = "/var/lib/ovs-container-network-lab"

// Lab owns a directory of hosts, and through it everything they leave behind.
// Its methods may be called concurrently.
type Lab struct {
	base string // parent of dir; hidden from the hosts
	dir  string
	lock *os.File // held while the owning process lives; nil if the lab outlives it

	mu    sync.Mutex // guards hosts
	hosts map[string]*Host

	switchMu sync.Mutex // held while the switch is booted, so that there is one
}

// New makes an empty lab in a new directory below base, or below DefaultDir if
// base is empty. Its hosts power off when this process ends. Directories left
// by a process that could not clean up are removed on the way.
func New(base string) (*Lab, error) {
	if base == "" {
		base = DefaultDir
	}
	if err := prepare(base); err != nil {
		return nil, err
	}
	// Without this lock a second New could take our directory, made but not
	// locked yet, for an abandoned one.
	all, err := flock(filepath.Join(base, "lock"), unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	defer all.Close()
	sweep(base)
	dir, err := os.MkdirTemp(base, "lab-")
	if err != nil {
		return nil, fmt.Errorf("make lab: %w", err)
	}
	lock, err := flock(filepath.Join(dir, "lock"), unix.LOCK_EX|unix.LOCK_NB)
	if err != nil {
		return nil, err
	}
	return &Lab{base: base, dir: dir, lock: lock, hosts: map[string]*Host{}}, nil
}

// Open returns the lab of that directory with the hosts it already has, running
// or not, and makes it if it is not there. Its hosts outlive this process; only
// Close ends them. An empty dir is the person's own lab below DefaultDir.
func Open(dir string) (*Lab, error) {
	if dir == "" {
		dir = filepath.Join(DefaultDir, "mine")
	}
	if err := prepare(dir); err != nil {
		return nil, err
	}
	l := &Lab{base: filepath.Dir(dir), dir: dir, hosts: map[string]*Host{}}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open lab: %w", err)
	}
	for _, e := range entries {
		if h, err := l.load(e.Name()); err == nil {
			l.hosts[h.name] = h
		}
	}
	return l, nil
}

// Hosts lists the hosts by name, running or not.
func (l *Lab) Hosts() map[string]*Host {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := make(map[string]*Host, len(l.hosts))
	for n, h := range l.hosts {
		m[n] = h
	}
	return m
}

// hostName is what fits into a hostname and, with an interface name behind it,
// into the 15 characters of the switch port.
var hostName = regexp.MustCompile(`^[a-z][a-z0-9]{0,8}$`)

// Host makes a host and boots it. A host that is there and switched off boots
// again with its disk, keeping the options it was made with; one that runs is
// an error.
func (l *Lab) Host(ctx context.Context, name string, opts ...Option) (*Host, error) {
	if !hostName.MatchString(name) {
		return nil, fmt.Errorf("host name %q: want a letter and at most 8 more letters or digits", name)
	}
	l.mu.Lock()
	h := l.hosts[name]
	if h == nil {
		h = l.newHost(name)
		for _, o := range opts {
			o(&h.spec)
		}
		l.hosts[name] = h
	}
	l.mu.Unlock()
	if err := h.Boot(ctx); err != nil {
		return nil, err
	}
	return h, nil
}

func (l *Lab) newHost(name string) *Host {
	return &Host{name: name, lab: l, dir: filepath.Join(l.dir, name), spec: spec{Root: "/"}}
}

// Close cuts the power of all hosts and forgets them, disks included.
func (l *Lab) Close() error {
	var errs []error
	for _, h := range l.Hosts() {
		errs = append(errs, h.Remove())
	}
	if l.lock != nil {
		l.lock.Close()
	}
	if err := errors.Join(errs...); err != nil {
		return err // what is left is needed to find out why
	}
	return os.RemoveAll(l.dir)
}

// prepare makes the directory and lifts the one limit of the machine that many
// hosts run into: each dockerd and containerd holds inotify instances, and 128
// for all of root is the kernel's default.
func prepare(dir string) error {
	if os.Geteuid() != 0 {
		return errors.New("the lab makes namespaces and mounts: it needs root")
	}
	if !mainCalled {
		return errors.New("lab.Main must be called first in main or TestMain")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make lab: %w", err)
	}
	const limit, want = "/proc/sys/fs/inotify/max_user_instances", 1024
	b, err := os.ReadFile(limit)
	if err != nil {
		return fmt.Errorf("read inotify limit: %w", err)
	}
	if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && n < want {
		if err := os.WriteFile(limit, []byte(strconv.Itoa(want)), 0); err != nil {
			return fmt.Errorf("raise inotify limit: %w", err)
		}
	}
	return nil
}

// sweep removes labs whose process is gone, which shows in their lock being
// free. Failures are left for the next time.
func sweep(base string) {
	dirs, _ := filepath.Glob(filepath.Join(base, "lab-*"))
	for _, dir := range dirs {
		lock, err := flock(filepath.Join(dir, "lock"), unix.LOCK_EX|unix.LOCK_NB)
		if err != nil {
			continue
		}
		dead := &Lab{base: base, dir: dir, lock: lock, hosts: map[string]*Host{}}
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if h, err := dead.load(e.Name()); err == nil {
				dead.hosts[h.name] = h
			}
		}
		_ = dead.Close()
	}
}

// load finds the host of that name in the lab's directory.
func (l *Lab) load(name string) (*Host, error) {
	h := l.newHost(name)
	b, err := os.ReadFile(filepath.Join(h.dir, "host.json"))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &h.spec); err != nil {
		return nil, fmt.Errorf("host %s: %w", name, err)
	}
	h.proc = findProcess(filepath.Join(h.dir, "pid"))
	return h, nil
}

// flock opens and locks a file. Closing the file frees the lock, and so does the
// end of the process.
func flock(path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), how); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}
