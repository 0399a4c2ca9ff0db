//go:build linux

package integration

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Sockets that systemd hands over are used and outlive the daemon: a call that
// comes while it is restarted waits and is answered.
func TestSocketActivation(t *testing.T) {
	t.Parallel()
	h := bareHost(t, service, own)
	h.must(h.StartOVS(h.ctx()))
	h.startDocker()
	h.must(h.ImportImage(h.ctx(), image, "lab"))

	const socket = "/run/docker/plugins/ovs-container-network.sock"
	h.must(os.MkdirAll(filepath.Dir(h.Path(socket)), 0o755))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: h.Path(socket), Net: "unix"})
	h.must(err)
	defer l.Close()
	file, err := l.File()
	h.must(err)
	defer file.Close()
	start := func() {
		t.Helper()
		cmd := h.Command(h.ctx(), "sh", "-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec setsid "+buildDir+"/ovs-container-network serve --log-level debug </dev/null >>/var/log/ocn.log 2>&1")
		cmd.ExtraFiles = []*os.File{file}
		h.must(cmd.Start())
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		h.eventually("the driver answers", func() error {
			_, err := h.Run(h.ctx(), buildDir+"/ovs-container-network", "status")
			return err
		})
	}
	start()
	h.network("web", "--subnet", "10.1.0.0/24")
	h.container("aa", "web")
	h.stopDriver()

	done := make(chan error, 1)
	go func() {
		_, err := h.Run(h.ctx(), "docker", "run", "-d", "--name", "bb", "--network", "web", "lab")
		done <- err
	}()
	start()
	if err := <-done; err != nil {
		t.Fatalf("a start while the driver was away: %v", err)
	}
	h.ping("aa", "bb")
	h.docker("rm", "-f", "aa", "bb")
	h.docker("network", "rm", "web")
	h.expectClean()
}

// make install puts the binary, the units and the order of Docker after Open
// vSwitch in place, and make uninstall takes away these and not the state.
func TestInstall(t *testing.T) {
	t.Parallel()
	h := demoHost(t)
	h.sh("cd /root/ocn && make install DESTDIR=/root/dest 2>&1; mkdir -p /root/dest/var/lib/ovs-container-network/networks")
	files := h.sh("cd /root/dest && find . -type f")
	for _, want := range []string{"bin/ovs-container-network", "ovs-container-network.service", "ovs-container-network.socket", "docker.service.d/"} {
		if !strings.Contains(files, want) {
			t.Errorf("%s is not installed:\n%s", want, files)
		}
	}
	units := h.sh("cat $(find /root/dest -path '*systemd*' -type f)")
	for _, want := range []string{
		"ListenStream=/run/docker/plugins/ovs-container-network.sock", "SocketMode=0600",
		"Before=docker.service", "After=", "openvswitch-switch.service", "Type=notify",
	} {
		if !strings.Contains(units, want) {
			t.Errorf("no unit says %s:\n%s", want, units)
		}
	}
	if out := h.sh("$(find /root/dest -path '*/bin/ovs-container-network') version 2>&1 | head -1"); !strings.Contains(out, h.sh("cat /root/ocn/VERSION")) {
		t.Errorf("the installed program says %q", out)
	}
	h.sh("cd /root/ocn && make uninstall DESTDIR=/root/dest 2>&1")
	if left := h.sh("find /root/dest -type f"); left != "" {
		t.Errorf("uninstall leaves:\n%s", left)
	}
	h.sh("test -d /root/dest/var/lib/ovs-container-network/networks")
}
