//go:build linux

package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	initEnv   = "OCN_LAB_INIT" // set: this process is process 1 of a host
	initReady = "ready"        // what it says when the host is up; anything else is the fault
	readyFD   = 3
	lifeFD    = 4
)

// initSpec is all that process 1 is told.
type initSpec struct {
	spec
	Name string
	Dir  string
	Hide string // directory of the labs: an empty one stands in its place in the host
	Stay bool   // do not power off when the starting process ends
}

// mainCalled guards against what would otherwise be a test binary that starts
// its tests again inside of a host.
var mainCalled bool

// Main must be the first thing main or TestMain does. It returns at once, unless
// this process was started to be process 1 of a host, which it then is until
// the power is cut.
func Main() {
	mainCalled = true
	if s, ok := os.LookupEnv(initEnv); ok {
		runInit(s)
	}
}

// runInit sets up the host from the inside, says so, and then reaps orphans.
func runInit(env string) {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)

	ready := os.NewFile(readyFD, "ready")
	var s initSpec
	err := json.Unmarshal([]byte(env), &s)
	if err == nil {
		err = s.setup()
	}
	if err != nil {
		fmt.Fprint(ready, err)
		os.Exit(1)
	}
	fmt.Fprint(ready, initReady)
	ready.Close()

	if !s.Stay {
		go func() {
			// Nothing is ever written: the read ends with the other process,
			// even if that was killed. Our end is the end of the host.
			_, _ = io.Copy(io.Discard, os.NewFile(lifeFD, "life"))
			os.Exit(0)
		}()
	}
	for {
		_, err := unix.Wait4(-1, nil, 0, nil)
		if errors.Is(err, unix.ECHILD) {
			<-children
		}
	}
}

func (s *initSpec) setup() error {
	if err := s.mountRoot(); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(s.Name)); err != nil {
		return fmt.Errorf("set hostname: %w", err)
	}
	if err := os.WriteFile("/etc/hostname", []byte(s.Name+"\n"), 0o644); err != nil {
		return err
	}
	return linkUp("lo")
}

func linkUp(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	req.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}
