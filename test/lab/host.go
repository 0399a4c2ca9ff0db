//go:build linux

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Host is a computer of the lab. Its methods may be called concurrently, but a
// host that is switched off under a command makes the command fail.
type Host struct {
	name string
	lab  *Lab
	dir  string // host.json, pid, disk/ (what survives a power cut)

	mu   sync.Mutex // guards the fields below
	spec spec
	proc *process // nil while the host is off
}

// spec is what a host is made of, kept in host.json so that the host can be
// booted again by another process.
type spec struct {
	Root   string      `json:"root"`
	Binds  [][2]string `json:"binds,omitempty"`
	Cables []cable     `json:"cables,omitempty"`
}

// Option changes what a host is made of.
type Option func(*spec)

// WithRoot makes the host run another system than the machine's own: root is a
// directory with a complete one, as [Suite] finds it. It is only read.
func WithRoot(root string) Option {
	return func(s *spec) { s.Root = root }
}

// WithBind shows src, a file or directory of the machine, as dst in the host,
// and writes to it go through to the machine. It is how a program that a test
// built gets in.
func WithBind(src, dst string) Option {
	return func(s *spec) { s.Binds = append(s.Binds, [2]string{src, dst}) }
}

// Name is the hostname.
func (h *Host) Name() string { return h.name }

// NSPID is the machine's number of process 1 of the host, for nsenter and for
// `ip link set DEV netns PID`; 0 while the host is off.
func (h *Host) NSPID() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.proc.alive() {
		return 0
	}
	return h.proc.pid
}

// Boot switches the host on: an empty /run, the disk as it was left, and the
// cables plugged in again. No daemon is started. A running host is an error.
func (h *Host) Boot(ctx context.Context) error {
	if h.NSPID() != 0 {
		return fmt.Errorf("host %s is running", h.name)
	}
	if err := h.Kill(); err != nil { // if it died by itself, there may be remains
		return err
	}
	h.mu.Lock()
	err := h.bootLocked(ctx)
	cables := h.spec.Cables
	h.mu.Unlock()
	if err != nil {
		return fmt.Errorf("boot host %s: %w", h.name, err)
	}
	for _, c := range cables {
		if err := h.connect(ctx, c); err != nil {
			return errors.Join(err, h.Kill())
		}
	}
	return nil
}

const bootTimeout = 20 * time.Second

func (h *Host) bootLocked(ctx context.Context) error {
	if err := needTools(onMachine, "nsenter", "ip"); err != nil {
		return err
	}
	if err := h.saveLocked(); err != nil {
		return err
	}
	env, err := json.Marshal(initSpec{spec: h.spec, Name: h.name, Dir: h.dir, Hide: h.lab.base, Stay: h.lab.lock == nil})
	if err != nil {
		return err
	}

	ready, readyW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	lifeR, life, err := os.Pipe()
	if err != nil {
		readyW.Close()
		return err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{initEnv + "=" + string(env)}
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{readyW, lifeR}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Setsid:     true, // an interrupt from the terminal is for us, not for the host
	}
	err = cmd.Start()
	readyW.Close()
	lifeR.Close()
	if err != nil {
		life.Close()
		return err
	}
	p := &process{pid: cmd.Process.Pid, ns: pidNS(cmd.Process.Pid), done: make(chan struct{}), life: life}
	go func() { // ends with process 1; kill waits for it
		_ = cmd.Wait()
		close(p.done)
	}()

	deadline := time.Now().Add(bootTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	_ = ready.SetReadDeadline(deadline)
	said, err := io.ReadAll(ready)
	if err == nil && string(said) != initReady {
		err = errors.New(strings.TrimSpace(string(said)))
		if len(said) == 0 {
			err = errors.New("process 1 ended without a word")
		}
	}
	if err == nil {
		err = p.save(filepath.Join(h.dir, "pid"))
	}
	if err != nil {
		return errors.Join(err, p.kill())
	}
	h.proc = p
	return nil
}

// Kill cuts the power: every process of the host dies at once by SIGKILL, no
// daemon writes anything any more. Its disk stays for Boot. What the kernel does
// not clean up by itself, cgroups of containers and the far ends of cables, is
// removed. Killing a host that is off changes nothing.
func (h *Host) Kill() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.proc == nil {
		return nil
	}
	groups := h.cgroupsLocked()
	if err := h.proc.kill(); err != nil {
		return fmt.Errorf("kill host %s: %w", h.name, err)
	}
	h.proc = nil
	_ = os.Remove(filepath.Join(h.dir, "pid"))
	return errors.Join(removeCgroups(groups), h.disconnectLocked())
}

// Reboot is a power cut and a boot.
func (h *Host) Reboot(ctx context.Context) error {
	if err := h.Kill(); err != nil {
		return err
	}
	return h.Boot(ctx)
}

// Remove cuts the power and throws the host away, disk included.
func (h *Host) Remove() error {
	if err := h.Kill(); err != nil {
		return err
	}
	if err := removeCgroups(h.diskCgroups()); err != nil {
		return err
	}
	h.lab.mu.Lock()
	delete(h.lab.hosts, h.name)
	h.lab.mu.Unlock()
	if err := os.RemoveAll(h.dir); err != nil {
		return fmt.Errorf("remove host %s: %w", h.name, err)
	}
	return nil
}

func (h *Host) saveLocked() error {
	if err := os.MkdirAll(h.dir, 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(h.spec, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(h.dir, "host.json"), b, 0o644)
}
