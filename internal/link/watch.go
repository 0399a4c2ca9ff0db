package link

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Event says that a link came, changed or went. It is a hint to look, several
// changes may have happened since.
type Event struct {
	Name  string
	Index int
	Gone  bool // removed, or moved to another namespace
	Up    bool
	Alias string
	// Offloaded is that of Info.
	Offloaded bool
	// Overflow: events were lost, the other fields are empty. List again.
	Overflow bool
}

// watchBuffer holds the news of some thousand links that come at once.
const watchBuffer = 8 << 20

// Watch calls f for each event of a link in the calling thread's network
// namespace until ctx ends, and returns ctx's error then. The first event is an
// overflow: from then on nothing is missed, and what there is already can be
// listed. f is called from one goroutine and should not take long.
func (k *Kernel) Watch(ctx context.Context, f func(Event)) error {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK)
	if err != nil {
		return fmt.Errorf("watch links: %w", err)
	}
	// Beyond the system's limit with CAP_NET_ADMIN; a smaller buffer still works.
	if s.SetReceiveBufferSize(watchBuffer, true) != nil {
		s.SetReceiveBufferSize(watchBuffer, false)
	}
	stop := context.AfterFunc(ctx, s.Close) // wakes Receive
	defer func() {
		if stop() {
			s.Close()
		}
	}()
	f(Event{Overflow: true})
	for {
		msgs, from, err := s.Receive()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		switch {
		case errors.Is(err, unix.ENOBUFS):
			f(Event{Overflow: true})
			continue
		case errors.Is(err, unix.EINTR), err == nil && from.Pid != nl.PidKernel:
			continue
		case err != nil:
			return fmt.Errorf("watch links: %w", err)
		}
		for _, m := range msgs {
			gone := m.Header.Type == unix.RTM_DELLINK
			if !gone && m.Header.Type != unix.RTM_NEWLINK {
				continue
			}
			// A port that leaves a bridge is announced as a removed link of the
			// family AF_BRIDGE. The link itself remains.
			if len(m.Data) < unix.SizeofIfInfomsg || m.Data[0] != unix.AF_UNSPEC {
				continue
			}
			in, err := parseInfo(m.Data)
			if err != nil {
				f(Event{Overflow: true}) // an event we cannot tell, so look
				continue
			}
			f(Event{Name: in.Name, Index: in.Index, Gone: gone, Up: in.Up && !gone, Alias: in.Alias, Offloaded: in.Offloaded()})
		}
	}
}
