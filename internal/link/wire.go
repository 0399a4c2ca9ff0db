package link

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Wire moves a link into the namespace mounted at path, names it there by pattern,
// such as eth%d for the lowest free number, and sets it up, all in one request: the
// kernel does it under one lock, and nobody sees a half of it. moved is false if
// there is no such link here, as when it was moved before. The error wraps
// os.ErrNotExist if no namespace is there.
//
// The namespace is not entered: this takes CAP_NET_ADMIN over it and no more.
func (k *Kernel) Wire(name, path, pattern string) (moved bool, err error) {
	in, ok, err := k.Get(name)
	if err != nil || !ok {
		return false, err
	}
	fd, err := openNetNS(path)
	if err != nil {
		return false, fmt.Errorf("namespace %s: %w", path, err)
	}
	defer unix.Close(fd)
	// By its number: the name is what it shall have.
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index, msg.Flags, msg.Change = int32(in.Index), unix.IFF_UP, unix.IFF_UP
	_, err = k.main.request(unix.RTM_SETLINK, unix.NLM_F_ACK, msg,
		nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(fd))),
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(pattern)),
	).Execute(unix.NETLINK_ROUTE, 0)
	if errors.Is(err, unix.ENODEV) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("move link %s into namespace %s: %w", name, path, err)
	}
	return true, nil
}

// openNetNS opens the network namespace mounted at path.
func openNetNS(path string) (fd int, err error) {
	// Not a regular open: what is in its place may be a fifo.
	fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	var fs unix.Statfs_t
	if err = unix.Fstatfs(fd, &fs); err == nil && fs.Type != unix.NSFS_MAGIC {
		err = fmt.Errorf("not a namespace: %w", os.ErrNotExist)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
