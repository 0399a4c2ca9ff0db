//go:build linux

package lab

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// pidIn reads the pid file of a daemon: its number in the host, or 0 if it does
// not run.
func (h *Host) pidIn(file string) int {
	b, err := os.ReadFile(h.Path(file))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || !h.running(pid) {
		return 0
	}
	return pid
}

func (h *Host) running(pid int) bool {
	_, err := os.Stat(h.Path(fmt.Sprintf("/proc/%d", pid)))
	return err == nil
}

// signal signals a daemon and, if the signal is one to end it, waits until it is
// gone. A daemon that does not run is fine.
func (h *Host) signal(ctx context.Context, pidFile string, sig syscall.Signal, limit time.Duration) error {
	pid := h.pidIn(pidFile)
	if pid == 0 {
		return nil
	}
	if _, err := h.Shell(ctx, fmt.Sprintf("kill -%d %d || test ! -e /proc/%d", sig, pid, pid)); err != nil {
		return err
	}
	if sig != syscall.SIGKILL && sig != syscall.SIGTERM {
		return nil
	}
	return poll(ctx, limit, fmt.Sprintf("host %s: end of process %d of %s", h.name, pid, pidFile), func() (bool, error) {
		return !h.running(pid), nil
	})
}

// spawn starts a program that does not detach by itself, in a session of its
// own with its output appended to log, and returns its number in the host.
func (h *Host) spawn(ctx context.Context, log string, args ...string) (int, error) {
	out, err := h.Run(ctx, append([]string{"sh", "-ec", `log=$1; shift; setsid "$@" </dev/null >>"$log" 2>&1 & echo $!`, "sh", log}, args...)...)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(out))
}

// tail returns the end of a log for an error message.
func (h *Host) tail(log string) string {
	b, err := os.ReadFile(h.Path(log))
	if err != nil {
		return err.Error()
	}
	lines := strings.SplitAfter(string(b), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "")
}
