package link

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// IsNetNS reports whether path is where a namespace is mounted, such as
// dockerd's /run/docker/netns/x. Once the namespace is unmounted the path may
// remain, as an empty file.
func IsNetNS(path string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(path, &fs) == nil && fs.Type == unix.NSFS_MAGIC
}

// LinksIn returns the names of the links in the network namespace mounted at
// path, without lo. The error wraps os.ErrNotExist if no namespace is there.
//
// The namespace is not entered, that would take CAP_SYS_ADMIN. The kernel lists
// links of a namespace to which ours has given a number, given CAP_NET_ADMIN
// over it.
func (k *Kernel) LinksIn(path string) ([]string, error) {
	names, err := k.linksIn(path)
	if err != nil {
		return nil, fmt.Errorf("list links in namespace %s: %w", path, err)
	}
	return names, nil
}

func (k *Kernel) linksIn(path string) ([]string, error) {
	fd, err := openNetNS(path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	id, err := k.namespaceID(fd)
	if err != nil {
		return nil, err
	}
	msgs, err := k.dump(unix.RTM_GETLINK, unix.RTM_NEWLINK, nl.NewIfInfomsg(unix.AF_UNSPEC), skipStats(),
		nl.NewRtAttr(unix.IFLA_TARGET_NETNSID, nl.Uint32Attr(uint32(id))))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, m := range msgs {
		attrs, err := nl.ParseRouteAttrAsMap(m[unix.SizeofIfInfomsg:])
		if err != nil {
			return nil, err
		}
		// A kernel that does not know the attribute (before 4.16) lists our own.
		if _, ok := attrs[unix.IFLA_TARGET_NETNSID]; !ok {
			return nil, errors.ErrUnsupported
		}
		if name := nl.BytesToString(attrs[unix.IFLA_IFNAME].Value); name != "lo" {
			names = append(names, name)
		}
	}
	return names, nil
}

// namespaceID returns the number our namespace knows another one by, and gives
// it one if it has none. The kernel forgets it with the namespace.
func (k *Kernel) namespaceID(fd int) (int32, error) {
	for attempt := 0; ; attempt++ {
		msgs, err := k.main.request(unix.RTM_GETNSID, 0, nl.NewRtGenMsg(),
			nl.NewRtAttr(netlink.NETNSA_FD, nl.Uint32Attr(uint32(fd)))).
			Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNSID)
		if err != nil {
			return 0, fmt.Errorf("get its number: %w", err)
		}
		if len(msgs) == 1 {
			attrs, err := nl.ParseRouteAttrAsMap(msgs[0][nl.NewRtGenMsg().Len():])
			if err != nil {
				return 0, err
			}
			if v := attrs[netlink.NETNSA_NSID].Value; len(v) == 4 {
				if id := int32(nl.NativeEndian().Uint32(v)); id >= 0 {
					return id, nil
				}
			}
		}
		if attempt == 1 {
			return 0, errors.New("kernel gave it no number")
		}
		_, err = k.main.request(unix.RTM_NEWNSID, unix.NLM_F_ACK, nl.NewRtGenMsg(),
			nl.NewRtAttr(netlink.NETNSA_FD, nl.Uint32Attr(uint32(fd))),
			nl.NewRtAttr(netlink.NETNSA_NSID, nl.Uint32Attr(^uint32(0)))). // -1: any
			Execute(unix.NETLINK_ROUTE, 0)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return 0, fmt.Errorf("give it a number: %w", err)
		}
	}
}
