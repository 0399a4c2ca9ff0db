//go:build linux

// Package lab makes whole hosts out of namespaces, for tests and for a person
// who wants to look around.
//
// A [Host] is one process with network, mount, pid, uts and ipc namespaces of
// its own, its own root, /run, Open vSwitch and dockerd. Every tool inside uses
// its default paths (`ovs-vsctl`, `docker`, /run/openvswitch/db.sock,
// /run/docker/plugins), so what is tested is what a user runs. Killing process 1
// of the host is a power cut: [Host.Kill] does that, and [Host.Boot] starts the
// host again with the disk it had and an empty /run.
//
// The root of a host is an overlay over the machine's root, or over a
// debootstrap root ([WithRoot], made by scripts/setup.sh). Whatever the host
// writes goes to the lab's directory and is thrown away with it: a host cannot
// change a file of the machine. Only the machine's root file system is below, not
// what is mounted in it; and while a host runs, what the machine changes there may
// or may not show. What a test builds is therefore brought in by [WithBind], or
// written through [Host.Path]. A host has no network but the one the test gives it
// ([Host.Plug] joins it to the lab's own switch).
//
// A [Fleet] is several hosts with OVN: each an underlay ([Host.Underlay]) and
// ovn-controller ([Host.StartController]), with the databases on a host of their
// own or on three ([Host.StartCentral]). [Lab.StartOutside] adds the world that
// a fleet's gateways lead to. All of these may be called again: they start what
// does not run and put back what a power cut has taken.
//
// A [Lab] made with [New] lives as long as its process: the hosts notice the end
// of the process, however it ends, and power off. One made with [Open] stays,
// which is what the command in cmd/lab does.
//
// The package needs root, and fails rather than skips when a tool is missing.
// Test binaries must call [Main] first in TestMain.
package lab
