package link

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// MTUOf returns the MTU of the link that has an address; false when none has.
func (k *Kernel) MTUOf(addr netip.Addr) (mtu int, ok bool, err error) {
	msgs, err := k.dump(unix.RTM_GETADDR, unix.RTM_NEWADDR, nl.NewIfAddrmsg(unix.AF_UNSPEC))
	if err != nil {
		return 0, false, fmt.Errorf("list addresses: %w", err)
	}
	for _, m := range msgs {
		attrs, err := nl.ParseRouteAttr(m[unix.SizeofIfAddrmsg:])
		if err != nil {
			return 0, false, fmt.Errorf("parse an address from the kernel: %w", err)
		}
		has := false
		for _, a := range attrs {
			// IFA_ADDRESS is the other end's on a point-to-point link, and the only
			// one in IPv6.
			if a.Attr.Type == unix.IFA_LOCAL || a.Attr.Type == unix.IFA_ADDRESS {
				ip, valid := netip.AddrFromSlice(a.Value)
				has = has || valid && ip == addr.Unmap()
			}
		}
		if !has {
			continue
		}
		info, there, err := k.getIndex(int(nl.DeserializeIfAddrmsg(m).Index))
		return info.MTU, there, err
	}
	return 0, false, nil
}
