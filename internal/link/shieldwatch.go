package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// WatchShields calls f when the table of the shields was removed, as `nft flush
// ruleset` does with all tables, or when that may have been missed, until ctx
// ends. A kernel without nf_tables has nothing to watch: it returns nil at once.
// f is called from one goroutine.
func (k *Kernel) WatchShields(ctx context.Context, f func()) error {
	s, err := nl.Subscribe(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
	if unsupported(err) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch nf_tables: %w", err)
	}
	stop := context.AfterFunc(ctx, s.Close) // wakes Receive
	defer func() {
		if stop() {
			s.Close()
		}
	}()
	for {
		msgs, _, err := s.Receive()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		switch {
		case errors.Is(err, unix.ENOBUFS):
			f()
			continue
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("watch nf_tables: %w", err)
		}
		for _, m := range msgs {
			if m.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_DELTABLE &&
				bytes.Contains(m.Data, append([]byte(shieldTable.Name), 0)) {
				f()
			}
		}
	}
}
