package main

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// exhaust takes all file descriptors of this process until the test ends.
func exhaust(t *testing.T) (some []*os.File) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	few := unix.Rlimit{Cur: 100, Max: old.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			break
		}
		some = append(some, f)
	}
	t.Cleanup(func() {
		for _, f := range some {
			f.Close()
		}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
			t.Error(err)
		}
	})
	return some
}

// With no file descriptor left one connection at a time is accepted.
func TestSpare(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	l, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	s := newSpare(l)
	defer s.Close()
	l.(*net.UnixListener).SetDeadline(time.Now().Add(20 * time.Second))
	some := exhaust(t)
	for range 3 {
		some[0].Close() // for the client's end
		client, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		server, err := s.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := server.(*lent); !ok {
			t.Errorf("accepted a %T", server)
		}
		server.Close()
		client.Close()
		if some[0], err = os.Open(os.DevNull); err != nil {
			t.Fatal(err)
		}
	}
}
