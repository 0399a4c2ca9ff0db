//go:build linux

package lab

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"
)

const (
	dockerPID    = "/run/docker.pid"
	dockerSocket = "/run/docker.sock"

	// dockerTimeout leaves room for what dockerd itself waits for at its start:
	// 15 seconds and more for each network whose plugin does not answer.
	dockerTimeout = 90 * time.Second

	// DockerLog is where dockerd's output goes.
	DockerLog = "/var/log/dockerd.log"
)

// StartDocker starts dockerd with the arguments, next to a containerd of its own
// service as a distribution has it, and returns when the API answers. The end
// of the log is in the error if it does not. If dockerd runs already, nothing
// changes.
func (h *Host) StartDocker(ctx context.Context, args ...string) error {
	if h.pidIn(dockerPID) != 0 {
		return nil
	}
	if err := needTools(h.Path, "dockerd", "docker", "containerd", "runc", "iptables"); err != nil {
		return fmt.Errorf("host %s: %w", h.name, err)
	}
	if err := h.startContainerd(ctx); err != nil {
		return err
	}
	pid, err := h.spawn(ctx, DockerLog, append([]string{"dockerd"}, args...)...)
	if err != nil {
		return err
	}
	api := h.docker()
	defer api.CloseIdleConnections()
	err = poll(ctx, dockerTimeout, "dockerd's API answers", func() (bool, error) {
		if !h.running(pid) {
			return false, fmt.Errorf("dockerd ended")
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/_ping", nil)
		if err != nil {
			return false, err
		}
		resp, err := api.Do(req)
		if err != nil {
			return false, nil // not yet
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK, nil
	})
	if err != nil {
		return fmt.Errorf("host %s: %w\n%s", h.name, err, h.tail(DockerLog))
	}
	return nil
}

// StopDocker asks dockerd to exit, as `systemctl stop docker` does, and waits.
func (h *Host) StopDocker(ctx context.Context) error {
	return h.signal(ctx, dockerPID, syscall.SIGTERM, dockerTimeout)
}

// KillDocker kills dockerd alone. containerd and the containers go on, as they
// do on a real host when dockerd crashes.
func (h *Host) KillDocker(ctx context.Context) error {
	return h.signal(ctx, dockerPID, syscall.SIGKILL, dockerTimeout)
}

// ImportImage makes an image of a tar file of the machine, as [Image] builds
// one, without any registry. Containers of it end at once when they are stopped.
func (h *Host) ImportImage(ctx context.Context, tar, name string) error {
	f, err := os.Open(tar)
	if err != nil {
		return fmt.Errorf("import image: %w", err)
	}
	defer f.Close()
	_, err = h.run(ctx, f, "docker", "import", "--change", `CMD ["/bin/pause"]`, "-", name)
	return err
}

func (h *Host) startContainerd(ctx context.Context) error {
	const socket, log = "/run/containerd/containerd.sock", "/var/log/containerd.log"
	answers := func() bool {
		c, err := net.Dial("unix", h.Path(socket))
		if err != nil {
			return false
		}
		c.Close()
		return true
	}
	if answers() {
		return nil
	}
	pid, err := h.spawn(ctx, log, "containerd")
	if err != nil {
		return err
	}
	err = poll(ctx, dockerTimeout, "containerd answers", func() (bool, error) {
		if !h.running(pid) {
			return false, fmt.Errorf("containerd ended")
		}
		return answers(), nil
	})
	if err != nil {
		return fmt.Errorf("host %s: %w\n%s", h.name, err, h.tail(log))
	}
	return nil
}

// docker is a client of the host's engine.
func (h *Host) docker() *http.Client {
	return &http.Client{
		Timeout: 5 * time.Second,
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", h.Path(dockerSocket))
		}},
	}
}
