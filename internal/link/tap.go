package link

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// DeleteIdleTap removes a tap that no program has open. Open vSwitch's userspace
// datapath leaves such a one for a bridge that was removed while ovs-vswitchd
// did not run. An absent link, another kind of link, and a tap that is up and in
// use are left alone, without an error.
func (k *Kernel) DeleteIdleTap(name string) error {
	in, ok, err := k.Get(name)
	if err != nil || !ok || in.Kind != "tuntap" && in.Kind != "tun" {
		return err
	}
	// A tap that is up has a carrier while a program has it open.
	if in.Carrier {
		return nil
	}
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(in.Index)
	_, err = k.gone.request(unix.RTM_DELLINK, unix.NLM_F_ACK, msg).Execute(unix.NETLINK_ROUTE, 0)
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete tap %s: %w", name, err)
	}
	return nil
}
