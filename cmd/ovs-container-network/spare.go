package main

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// spare is a listener that can accept one connection when no file descriptor is
// left: what needs one is then refused with the reason, where a connection that
// is not accepted would hang for as long as that lasts.
type spare struct {
	net.Listener
	mu     sync.Mutex  // guards the following
	kept   *os.File    // nil while it is lent, or could not be taken back yet
	retry  *time.Timer // of taking it back
	closed bool
}

func newSpare(l net.Listener) *spare {
	s := &spare{Listener: l}
	s.keep()
	return s
}

// keepAgain is the pause before the next try to take a descriptor aside.
const keepAgain = time.Second

// keep takes a descriptor aside, now or when there is room again.
func (s *spare) keep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept != nil || s.closed {
		return
	}
	if s.kept, _ = os.Open(os.DevNull); s.kept == nil {
		s.retry = time.AfterFunc(keepAgain, s.keep)
	}
}

// lend gives it away, and tells whether there was one.
func (s *spare) lend() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.retry != nil {
		s.retry.Stop()
	}
	if s.kept == nil {
		return false
	}
	s.kept.Close()
	s.kept = nil
	return true
}

// Accept implements net.Listener.
func (s *spare) Accept() (net.Conn, error) {
	c, err := s.Listener.Accept()
	if !errors.Is(err, unix.EMFILE) && !errors.Is(err, unix.ENFILE) {
		s.keep()
		return c, err
	}
	if !s.lend() {
		return nil, err
	}
	if c, err = s.Listener.Accept(); err != nil {
		s.keep()
		return nil, err
	}
	return &lent{Conn: c, back: sync.OnceFunc(s.keep)}, nil
}

// Close implements net.Listener.
func (s *spare) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.lend()
	return s.Listener.Close()
}

// lent is the connection that uses the spare descriptor.
type lent struct {
	net.Conn
	back func()
}

// Close implements net.Conn.
func (c *lent) Close() error {
	defer c.back()
	return c.Conn.Close()
}
