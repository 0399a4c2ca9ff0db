package link

import (
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// change is what one RTM_SETLINK sets on a link, in one message: attributes,
// and flags if the first element is a message header.
type change []nl.NetlinkRequestData

// up sets a link up or down.
func up(yes bool) change {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Change = unix.IFF_UP
	if yes {
		msg.Flags = unix.IFF_UP
	}
	return change{msg}
}

// noIPv6Address stops the kernel from giving the link a link-local address when
// it comes up. The host end has no business being an IPv6 host, and its address
// would show up as a neighbour on the network. This is the attribute behind
// "ip link set addrgenmode none", because /proc/sys may be read-only for us.
func noIPv6Address() change {
	mode := nl.NewRtAttr(unix.IFLA_INET6_ADDR_GEN_MODE, []byte{nl.IN6_ADDR_GEN_MODE_NONE})
	spec := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	spec.AddRtAttr(unix.AF_INET6, nil).AddChild(mode)
	return change{spec}
}

// change changes a link, named in the message itself: no look-up goes before.
func (k *Kernel) change(name string, c change) error {
	r := k.main.request(unix.RTM_SETLINK, unix.NLM_F_ACK)
	if len(c) > 0 {
		if _, ok := c[0].(*nl.IfInfomsg); !ok {
			r.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
		}
	}
	for _, d := range c {
		r.AddData(d)
	}
	r.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	if _, err := r.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("change link %s: %w", name, err)
	}
	return nil
}
