package main

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ovs-container-network/ovs-container-network/internal/link"
)

// host is where the host's /run is seen from here: at /host/run in a managed
// plugin, whose own /run the engine uses, else in its place.
type host struct{ run string }

// hostRun is the mount point that plugin/config.json gives the host's /run.
const hostRun = "/host/run"

// A managed plugin is told by that and by its root directory, which holds this
// program and nothing else.
func findHost() host {
	info, err := os.Stat(hostRun)
	_, alone := os.Stat("/ovs-container-network")
	if err == nil && info.IsDir() && alone == nil {
		return host{run: hostRun}
	}
	return host{run: "/run"}
}

// managed tells whether this process is a managed plugin.
func (h host) managed() bool { return h.run == hostRun }

func (h host) form() string {
	if h.managed() {
		return "managed plugin"
	}
	return "host service"
}

// The sockets for Docker, below /run. The engine makes the path of the managed
// one as long as a socket's may be (107 bytes: /run/docker/plugins/, 64 digits
// of the plugin's id, and the name from plugin/config.json), so its name is
// short.
const (
	bareSocket    = "docker/plugins/ovs-container-network.sock"
	managedSocket = "docker/plugins/ocn.sock"
)

// sockets are the paths to listen on for Docker. A managed plugin is reached
// by the engine under its name:tag on the first, and, as networks are made with
// the bare name, like a host service on the second.
func (h host) sockets() []string {
	if h.managed() {
		return []string{"/run/" + managedSocket, filepath.Join(h.run, bareSocket)}
	}
	return []string{filepath.Join(h.run, bareSocket)}
}

func (h host) control() string { return filepath.Join(h.run, "ovs-container-network/control.sock") }

// sandbox translates the path of a sandbox as dockerd knows it. It is empty if
// the path cannot be seen from here: an engine with an --exec-root of its own.
func (h host) sandbox(path string) string {
	if !h.managed() {
		return path
	}
	for _, root := range []string{"/run/", "/var/run/"} {
		if rest, ok := strings.CutPrefix(path, root); ok {
			return filepath.Join(h.run, rest)
		}
	}
	return ""
}

// alive tells whether the sandbox at a path still exists: the file is a mounted
// network namespace. What libnetwork leaves behind for a while is a plain file.
func (h host) alive(path string) (alive, known bool) {
	seen := h.sandbox(path)
	if seen == "" {
		return false, false
	}
	return link.IsNetNS(seen), true
}

// kernel is the running kernel's release.
func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}
