//go:build linux

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// hostPath is the search path of a Debian root, with the toolchain last.
const hostPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/go/bin"

// runTimeout bounds a command whose caller set no deadline.
const runTimeout = 2 * time.Minute

// Run runs a command in the host and returns what it wrote to stdout and
// stderr. The error of a command that failed contains that output.
func (h *Host) Run(ctx context.Context, args ...string) (string, error) {
	return h.run(ctx, nil, args...)
}

// Shell runs a script by `sh -ec` in the host.
func (h *Host) Shell(ctx context.Context, script string) (string, error) {
	return h.run(ctx, nil, "sh", "-ec", script)
}

func (h *Host) run(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, runTimeout)
		defer cancel()
	}
	var out bytes.Buffer
	cmd := h.Command(ctx, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &out
	err := cmd.Run()
	if err != nil {
		if ctx.Err() != nil {
			err = errors.Join(ctx.Err(), err)
		}
		return out.String(), fmt.Errorf("host %s: %s: %w\n%s", h.name, strings.Join(args, " "), err, out.String())
	}
	return out.String(), nil
}

// Command prepares a command in the host, with the environment of a login there
// and not the one of this process. Cancelling ctx kills it and what it started,
// except for daemons that made a session of their own. More can be appended to
// its Env. On a host that is off, it fails to start.
func (h *Host) Command(ctx context.Context, args ...string) *exec.Cmd {
	pid := h.NSPID()
	cmd := exec.CommandContext(ctx, "nsenter", append(enter(pid), args...)...)
	cmd.Env = environ()
	cmd.Dir = "/"
	if pid == 0 {
		cmd.Err = fmt.Errorf("host %s is off", h.name)
		return cmd
	}
	// nsenter forks to get into the pid namespace, so the signal has to go to
	// the group: killing nsenter alone would leave the command running.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

func enter(pid int) []string {
	return []string{"--target", strconv.Itoa(pid), "--mount", "--uts", "--ipc", "--net", "--pid", "--"}
}

// Exec replaces this process by a command in the host, with the terminal it
// has. It returns only if that fails.
func (h *Host) Exec(args ...string) error {
	pid := h.NSPID()
	if pid == 0 {
		return fmt.Errorf("host %s is off", h.name)
	}
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		return err
	}
	env := environ()
	if t := os.Getenv("TERM"); t != "" {
		env = append(env, "TERM="+t)
	}
	return syscall.Exec(nsenter, append(append([]string{nsenter}, enter(pid)...), args...), env)
}

// environ is the environment of commands in a host.
func environ() []string {
	return []string{"PATH=" + hostPath, "HOME=/root", "USER=root", "LANG=C.UTF-8"}
}

// Path is where the machine finds a file of the running host, to read it or to
// dial its socket. Symbolic links are followed as the host follows them: the
// machine would take an absolute one, like /var/run, for its own.
func (h *Host) Path(p string) string {
	root := fmt.Sprintf("/proc/%d/root", h.NSPID())
	done, left := "/", strings.Split(p, "/")
	for links := 0; len(left) > 0; {
		next := filepath.Join(done, left[0])
		left = left[1:]
		to, err := os.Readlink(root + next)
		if err != nil || links == 40 { // no link, or not there; or a loop, as the kernel counts
			done = next
			continue
		}
		links++
		left = append(strings.Split(to, "/"), left...)
		if filepath.IsAbs(to) {
			done = "/"
		}
	}
	return root + done
}

// onMachine finds a file of the machine, as Host.Path finds one of a host.
func onMachine(p string) string { return p }

// needTools says which programs are missing.
func needTools(find func(path string) string, names ...string) error {
	missing := slices.DeleteFunc(names, func(name string) bool {
		return slices.ContainsFunc(filepath.SplitList(hostPath), func(dir string) bool {
			fi, err := os.Stat(find(filepath.Join(dir, name)))
			return err == nil && fi.Mode()&0o111 != 0
		})
	})
	if len(missing) > 0 {
		return fmt.Errorf("missing %s: scripts/setup.sh installs it", strings.Join(missing, ", "))
	}
	return nil
}

// poll asks until the answer is yes or an error, or the time is up.
func poll(ctx context.Context, limit time.Duration, what string, ask func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not after %v", limit))
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := ask(); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, context.Cause(ctx))
		}
	}
}
