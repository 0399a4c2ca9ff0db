package link

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Lend sets a container's end of a link up while it is still here, for a packet
// socket to talk through it. The host's stack is kept off it, as by a shield: it
// would answer for the host in the container's network. back undoes it.
func (k *Kernel) Lend(peer string) (back func() error, err error) {
	back = func() error {
		err := k.change(peer, up(false))
		if errors.Is(err, unix.ENODEV) {
			err = nil
		}
		return errors.Join(err, k.shields.set(map[string]bool{peer: false})[peer])
	}
	err = k.shields.set(map[string]bool{peer: true})[peer]
	if err == nil {
		err = k.change(peer, noIPv6Address())
		if errors.Is(err, unix.EAFNOSUPPORT) {
			err = nil
		}
	}
	if err == nil {
		err = k.change(peer, up(true))
	}
	if err != nil {
		return nil, errors.Join(err, back())
	}
	return back, nil
}
