//go:build linux

package lab

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// privateDirs are real directories of the host's disk, empty at first. The
// daemons keep their state there and must find none of the machine's; docker
// and containerd put overlays into theirs, which overlayfs refuses to have on
// top of itself, so the overlay of the root would not do. /usr/local/bin
// belongs to whoever administers the host: a newer docker command that the
// machine has there must not be found before the distribution's.
var privateDirs = []string{
	"/etc/docker", "/etc/openvswitch", "/etc/ovn",
	"/root/.docker", "/tmp", "/usr/local/bin",
	"/var/lib/containerd", "/var/lib/docker", "/var/lib/openvswitch", "/var/lib/ovn",
	"/var/log/openvswitch", "/var/log/ovn",
}

// hiddenDirs are empty at first too, but stay part of the root's file system: a
// managed plugin sees its state through a bind of /var/lib alone, which does not
// show what is mounted below.
var hiddenDirs = []string{"/var/lib/ovs-container-network"}

// mount is one of the mounts that make a host. One without a type is a bind
// mount: src is then a file or directory of the machine.
type mount struct {
	src, dst, fstype, data string

	tree int // of a bind mount, what open took hold of
}

func (m *mount) isBind() bool { return m.fstype == "" }

// open takes hold of what a bind mount shows, while the machine's root is still
// there. Nothing is mounted before attach, so that dst can be looked up in the
// host's root alone: from outside, a link such as /var/run leads out of it.
func (m *mount) open() (err error) {
	if m.isBind() {
		m.tree, err = unix.OpenTree(unix.AT_FDCWD, m.src, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	}
	if err != nil {
		return fmt.Errorf("bind %s: %w", m.src, err)
	}
	return nil
}

func (m *mount) attach() error {
	if err := m.makeTarget(); err != nil {
		return err
	}
	var err error
	if m.isBind() {
		err = unix.MoveMount(m.tree, "", unix.AT_FDCWD, m.dst, unix.MOVE_MOUNT_F_EMPTY_PATH)
		_ = unix.Close(m.tree)
	} else {
		err = unix.Mount(m.src, m.dst, m.fstype, 0, m.data)
	}
	if err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.src, m.dst, err)
	}
	return nil
}

// makeTarget makes what can be mounted on: a file for a file, otherwise a
// directory.
func (m *mount) makeTarget() error {
	if m.isBind() {
		var st unix.Stat_t
		if err := unix.Fstat(m.tree, &st); err != nil {
			return fmt.Errorf("bind %s: %w", m.src, err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			if err := os.MkdirAll(filepath.Dir(m.dst), 0o755); err != nil {
				return err
			}
			f, err := os.OpenFile(m.dst, os.O_CREATE, 0o644)
			if err != nil {
				return err
			}
			return f.Close()
		}
	}
	return os.MkdirAll(m.dst, 0o755)
}

// diskDir is where the host keeps a private directory on the machine.
func diskDir(hostDir, p string) string { return filepath.Join(hostDir, "disk/dirs", p) }

// mounts lists what is mounted in the root, in this order.
func (s *initSpec) mounts() []*mount {
	list := []*mount{
		{src: "proc", dst: "/proc", fstype: "proc"},
		// A new one: the machine's would show the machine's interfaces.
		{src: "sysfs", dst: "/sys", fstype: "sysfs"},
		{src: "/sys/fs/cgroup", dst: "/sys/fs/cgroup"},
		{src: "/dev", dst: "/dev"},
		{src: "tmpfs", dst: "/dev/shm", fstype: "tmpfs", data: "mode=1777"},
		{src: "tmpfs", dst: "/run", fstype: "tmpfs", data: "mode=755"},
	}
	for _, p := range privateDirs {
		list = append(list, &mount{src: diskDir(s.Dir, p), dst: p})
	}
	list = append(list, &mount{src: "tmpfs", dst: s.Hide, fstype: "tmpfs", data: "mode=755,size=1m"})
	for _, b := range s.Binds {
		list = append(list, &mount{src: b[0], dst: b[1]})
	}
	return list
}

// mountRoot makes the host's root and moves into it.
func (s *initSpec) mountRoot() error {
	// Before anything else: or our mounts would appear on the machine.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	root, err := s.mountOverlay()
	if err != nil {
		return err
	}
	mounts := s.mounts()
	for _, m := range mounts {
		if err := m.open(); err != nil {
			return err
		}
	}
	if err := pivot(root); err != nil {
		return err
	}
	for _, m := range mounts {
		if err := m.attach(); err != nil {
			return err
		}
	}
	// As systemd does on a real host: a managed plugin's rslave mounts see new
	// network namespaces of docker only if the host's are shared.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("make mounts shared: %w", err)
	}
	return os.MkdirAll("/run/lock", 0o755)
}

// mountOverlay mounts the root, and makes the directories of the disk.
func (s *initSpec) mountOverlay() (root string, err error) {
	root = filepath.Join(s.Dir, "root")
	upper, work := filepath.Join(s.Dir, "disk/upper"), filepath.Join(s.Dir, "disk/work")
	dirs := []string{root, upper, work}
	for _, p := range privateDirs {
		dirs = append(dirs, diskDir(s.Dir, p))
	}
	for _, d := range dirs {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return "", err
		}
	}
	if err := os.Chmod(diskDir(s.Dir, "/tmp"), 0o777|os.ModeSticky); err != nil {
		return "", err
	}
	for _, p := range hiddenDirs {
		if err := hide(filepath.Join(upper, p)); err != nil {
			return "", err
		}
	}
	// An overlay shows what is on the lower file system and nothing of what is
	// mounted in it. That matters beyond privacy: a copy of the machine's
	// /run/netns or of another engine's overlays would keep those alive as long
	// as this host runs.
	data := "lowerdir=" + s.Root + ",upperdir=" + upper + ",workdir=" + work
	if err := unix.Mount("overlay", root, "overlay", 0, data); err != nil {
		return "", fmt.Errorf("overlay of %s: %w (the lab's directory has to be on a disk, not on an overlay or tmpfs)", s.Root, err)
	}
	return root, nil
}

// hide makes a directory of an overlay's upper side, unless it is there, that
// shows nothing of the lower side (Documentation/filesystems/overlayfs, opaque
// directories).
func hide(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Setxattr(dir, "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		return fmt.Errorf("hide %s: %w", dir, err)
	}
	return nil
}

// pivot makes root the root of this mount namespace and drops the old one.
func pivot(root string) error {
	if err := os.Chdir(root); err != nil {
		return err
	}
	// Both at the same place: the old root ends up mounted over the new one,
	// where it can be detached without a directory to put it in.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot to %s: %w", root, err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach old root: %w", err)
	}
	return os.Chdir("/")
}
