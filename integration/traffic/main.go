//go:build linux

// Command traffic has two network namespaces exchange numbered packets and
// tells how many were lost.
//
//	traffic NETNS_A NETNS_B ADDR_A ADDR_B PORT OUTFILE
//
// A sends a packet every 10 ms, B returns it. OUTFILE is replaced about four
// times a second by a Report. The program needs neither the daemons that made
// the namespaces nor the containers in them, so it goes on while they are away.
// It ends on SIGTERM, and when one of the paths no longer leads to the namespace
// it led to: a socket would keep alive what should go with its container.
package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "traffic:", err)
		os.Exit(1)
	}
}

// Times of the exchange and of its report.
const (
	interval  = 10 * time.Millisecond
	reportGap = 250 * time.Millisecond
)

func run(args []string) error {
	if len(args) != 6 {
		return fmt.Errorf("usage: traffic NETNS_A NETNS_B ADDR_A ADDR_B PORT OUTFILE")
	}
	port, err := strconv.ParseUint(args[4], 10, 16)
	if err != nil {
		return fmt.Errorf("port: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	a, err := open(ctx, args[0], args[2], uint16(port))
	if err != nil {
		return err
	}
	b, err := open(ctx, args[1], args[3], uint16(port))
	if err != nil {
		return err
	}
	t := newTally()
	go echo(b.conn)
	go receive(a.conn, t)
	send := time.NewTicker(interval)
	report := time.NewTicker(reportGap)
	for {
		select {
		case <-send.C:
			// Whatever keeps a packet from going out, it is lost.
			a.conn.WriteToUDPAddrPort(t.next(time.Now()), b.addr) //nolint:errcheck
		case <-report.C:
			if err := t.write(args[5]); err != nil {
				return err
			}
			if !a.same() || !b.same() {
				return nil
			}
		case <-ctx.Done():
			return t.write(args[5])
		}
	}
}

// end is a socket in a namespace.
type end struct {
	conn *net.UDPConn
	addr netip.AddrPort
	path string
	was  unix.Stat_t // what the path led to
}

// open makes a socket in the namespace. It stays there, whatever thread uses it.
func open(ctx context.Context, path, addr string, port uint16) (end, error) {
	ip, err := netip.ParseAddr(addr)
	if err != nil {
		return end{}, err
	}
	e := end{addr: netip.AddrPortFrom(ip, port), path: path}
	if err := unix.Stat(path, &e.was); err != nil {
		return end{}, fmt.Errorf("namespace %s: %w", path, err)
	}
	done := make(chan error)
	go func() {
		// Never unlocked: the thread ends with the goroutine and takes its
		// namespace along.
		runtime.LockOSThread()
		done <- e.listen(ctx)
	}()
	return e, <-done
}

func (e *end) listen(ctx context.Context) error {
	fd, err := unix.Open(e.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("namespace %s: %w", e.path, err)
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter %s: %w", e.path, err)
	}
	conn, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", e.addr.String())
	if err != nil {
		return err
	}
	e.conn = conn.(*net.UDPConn)
	return nil
}

// same tells whether the path still leads to the namespace.
func (e *end) same() bool {
	var now unix.Stat_t
	return unix.Stat(e.path, &now) == nil && now.Ino == e.was.Ino && now.Dev == e.was.Dev
}

// echo returns what comes.
func echo(conn *net.UDPConn) {
	b := make([]byte, 64)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(b)
		if err == nil {
			conn.WriteToUDPAddrPort(b[:n], from) //nolint:errcheck // then it is lost
		}
	}
}

// receive counts the answers.
func receive(conn *net.UDPConn, t *tally) {
	b := make([]byte, 64)
	for {
		if n, _, err := conn.ReadFromUDPAddrPort(b); err == nil {
			t.answered(b[:n], time.Now())
		}
	}
}
