//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process is process 1 of a host, as the machine sees it. The identity of its
// pid namespace goes with the number, because a number alone may have been
// given to somebody else by the time it is used.
type process struct {
	pid  int
	ns   string        // what /proc/PID/ns/pid says, "pid:[4026532345]"
	done chan struct{} // closed when it is reaped; nil if another process started it
	life *os.File      // its end tells process 1 to power off; nil if the host outlives us
}

func pidNS(pid int) string {
	s, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	return s
}

func (p *process) alive() bool { return p != nil && p.ns != "" && pidNS(p.pid) == p.ns }

// save writes what findProcess reads: "PID NAMESPACE".
func (p *process) save(path string) error {
	return os.WriteFile(path, fmt.Appendf(nil, "%d %s\n", p.pid, p.ns), 0o644)
}

// findProcess returns the process of a pid file, or nil if it does not run.
func findProcess(path string) *process {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	p := &process{}
	if _, err := fmt.Sscan(string(b), &p.pid, &p.ns); err != nil || !strings.HasPrefix(p.ns, "pid:") || !p.alive() {
		return nil
	}
	return p
}

// kill ends the process, and with it every process of its pid namespace and of
// those below: the kernel does not let process 1 go before all of them are gone.
func (p *process) kill() error {
	if p.life != nil {
		defer p.life.Close()
	}
	fd, err := unix.PidfdOpen(p.pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", p.pid, err)
	}
	defer unix.Close(fd)
	// The pidfd is of the process we mean only if the namespace still matches
	// now that nobody else can take the number.
	if p.alive() {
		if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill process %d: %w", p.pid, err)
		}
		if err := waitReadable(fd, 20*time.Second); err != nil {
			return fmt.Errorf("process %d does not die: %w", p.pid, err)
		}
	}
	if p.done != nil {
		<-p.done
	}
	return nil
}

func waitReadable(fd int, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if n > 0 {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
