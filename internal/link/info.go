package link

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Info is what the kernel says of one link.
type Info struct {
	Name    string
	Kind    string // "veth", "tuntap", "bridge", "openvswitch", "vlan"…; "device" when the kernel names none: hardware, loopback
	Index   int
	Up      bool // told to be up
	Carrier bool // up, and has a carrier
	MTU     int
	MAC     net.HardwareAddr
	Alias   string
	Master  int // index of the bridge or bond it belongs to, 0 when none
	// PeerIndex is the index of a veth's other end, and of the lower link of a
	// vlan or the like; 0 when there is none. It counts in the namespace where
	// that link lives: ours unless PeerAway.
	PeerIndex int
	PeerAway  bool

	group uint32
}

// Get looks a link up by name. A link that does not exist is no error.
func (k *Kernel) Get(name string) (Info, bool, error) {
	if checkName(name) != nil {
		return Info{}, false, nil // no link can have this name
	}
	return k.get("link "+name, nl.NewIfInfomsg(unix.AF_UNSPEC),
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
}

func (k *Kernel) getIndex(index int) (Info, bool, error) {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	return k.get(fmt.Sprintf("link with index %d", index), msg)
}

func (k *Kernel) get(what string, data ...nl.NetlinkRequestData) (Info, bool, error) {
	data = append(data, skipStats())
	msgs, err := k.main.request(unix.RTM_GETLINK, 0, data...).Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if errors.Is(err, unix.ENODEV) {
		return Info{}, false, nil
	}
	if err != nil {
		return Info{}, false, fmt.Errorf("look up %s: %w", what, err)
	}
	if len(msgs) != 1 {
		return Info{}, false, fmt.Errorf("look up %s: kernel answered with %d links", what, len(msgs))
	}
	in, err := parseInfo(msgs[0])
	return in, err == nil, err
}

// List returns all links, in the kernel's order.
func (k *Kernel) List() ([]Info, error) {
	msgs, err := k.dump(unix.RTM_GETLINK, unix.RTM_NEWLINK, nl.NewIfInfomsg(unix.AF_UNSPEC), skipStats())
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	infos := make([]Info, 0, len(msgs))
	for _, m := range msgs {
		in, err := parseInfo(m)
		if err != nil {
			return nil, err
		}
		infos = append(infos, in)
	}
	return infos, nil
}

// dump repeats a dump request that the kernel marks as interrupted: links came
// or went between two parts of the reply, so that some may be missing or double.
func (k *Kernel) dump(kind int, reply uint16, data ...nl.NetlinkRequestData) (msgs [][]byte, err error) {
	for range 20 {
		msgs, err = k.main.request(kind, unix.NLM_F_DUMP, data...).Execute(unix.NETLINK_ROUTE, reply)
		if !errors.Is(err, netlink.ErrDumpInterrupted) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return msgs, err
}

// skipStats asks for links without their counters, a third of each answer.
func skipStats() *nl.RtAttr {
	const rtextFilterSkipStats = 1 << 3
	return nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(rtextFilterSkipStats))
}

func parseInfo(msg []byte) (Info, error) {
	l, err := netlink.LinkDeserialize(nil, msg)
	if err != nil {
		return Info{}, fmt.Errorf("parse link from kernel: %w", err)
	}
	a := l.Attrs()
	return Info{
		Name:      a.Name,
		Kind:      l.Type(),
		Index:     a.Index,
		Up:        a.RawFlags&unix.IFF_UP != 0,
		Carrier:   a.RawFlags&unix.IFF_LOWER_UP != 0,
		MTU:       a.MTU,
		MAC:       a.HardwareAddr,
		Alias:     a.Alias,
		Master:    a.MasterIndex,
		PeerIndex: a.ParentIndex,
		PeerAway:  a.NetNsID != -1, // the kernel names a namespace only when it is another one
		group:     a.Group,
	}, nil
}

// checkName tells whether the kernel would take name (dev_valid_name).
func checkName(name string) error {
	if name == "" || len(name) >= unix.IFNAMSIZ || name == "." || name == ".." {
		return fmt.Errorf("%q cannot be the name of a link", name)
	}
	for _, c := range []byte(name) {
		if c == '/' || c == ':' || c <= ' ' {
			return fmt.Errorf("%q cannot be the name of a link", name)
		}
	}
	return nil
}
