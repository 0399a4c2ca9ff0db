// Package link owns everything we do to kernel links: the veth pairs that join
// containers to the switch, the shields that keep the host's own network stack
// away from them, and the questions we ask about links of others.
//
// It hides rtnetlink, nf_tables and ethtool. It runs no program, enters no
// namespace and writes nothing below /proc/sys, because a managed Docker plugin
// has CAP_NET_ADMIN but neither CAP_SYS_ADMIN nor a writable /proc/sys.
//
// What is ours is proven by the interface alias (IFLA_IFALIAS) of the host end.
// A link without the expected alias is never changed and never removed.
//
// Making a pair is intent only until its alias is set, and the kernel takes no
// alias at creation. So a pair is born in a link group of ours and leaves it in
// the request that sets the alias: a pair left behind between the two, by a
// crash, is recognised as ours and finished or removed.
package link

import (
	"errors"
	"fmt"
	"sync"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// ErrForeign is wrapped in the error of a call that would have had to change a
// link which is not ours.
var ErrForeign = errors.New("link is not ours")

// Kernel is the network configuration of the namespace in which Open was
// called. It is safe for concurrent use, from any thread.
//
// Its sockets are opened once and kept. The kernel serialises link changes
// anyway, so requests gain nothing from more sockets, with one exception:
// removing a link waits for RCU grace periods with the global lock partly
// released, so removals have a socket of their own and do not hold up others.
type Kernel struct {
	main sockets // everything but removal; NETLINK_ROUTE and NETLINK_GENERIC
	gone sockets // removal

	ethtoolFD int
	shields   shields
	removals  removals
	closing   sync.Once
}

// sockets are what nl.NetlinkRequest wants, by netlink protocol. nl locks each
// socket from request to reply.
type sockets map[int]*nl.SocketHandle

// replyTimeout bounds the wait for a reply the kernel never sends. Link changes
// are made inside the send call, before any wait, so that it never cuts one off.
const replyTimeout = 30 // seconds

// Open returns the Kernel of the calling thread's network namespace.
func Open() (*Kernel, error) {
	k := &Kernel{ethtoolFD: -1, main: sockets{}, gone: sockets{}}
	for _, s := range []struct {
		set      sockets
		protocol int
	}{
		{k.main, unix.NETLINK_ROUTE},
		{k.main, unix.NETLINK_GENERIC},
		{k.gone, unix.NETLINK_ROUTE},
	} {
		if err := s.set.open(s.protocol); err != nil {
			k.Close()
			return nil, fmt.Errorf("open netlink socket: %w", err)
		}
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		k.Close()
		return nil, fmt.Errorf("open socket for ethtool requests: %w", err)
	}
	k.ethtoolFD = fd
	k.shields.open()
	return k, nil
}

// Close releases the sockets. Calls after Close fail.
func (k *Kernel) Close() {
	k.closing.Do(func() {
		for _, set := range []sockets{k.main, k.gone} {
			for _, h := range set {
				h.Close()
			}
		}
		if k.ethtoolFD >= 0 {
			unix.Close(k.ethtoolFD)
		}
		k.shields.close()
	})
}

func (s sockets) open(protocol int) error {
	sock, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), protocol)
	if err != nil {
		return err
	}
	s[protocol] = &nl.SocketHandle{Socket: sock}
	timeout := unix.Timeval{Sec: replyTimeout}
	return errors.Join(
		sock.SetSendTimeout(&timeout),
		sock.SetReceiveTimeout(&timeout),
		sock.SetExtAck(true), // the kernel's own words in our errors
	)
}

// request begins a request; it goes out on s with Execute.
func (s sockets) request(kind, flags int, data ...nl.NetlinkRequestData) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(kind, flags)
	r.Sockets = s
	for _, d := range data {
		r.AddData(d)
	}
	return r
}

// HasKernelDatapath reports whether the Open vSwitch datapath of the kernel can
// be used. Asking makes the kernel load its module if it has one.
func (k *Kernel) HasKernelDatapath() bool {
	_, err := k.main.request(nl.GENL_ID_CTRL, unix.NLM_F_ACK,
		genlHeader{nl.GENL_CTRL_CMD_GETFAMILY, nl.GENL_CTRL_VERSION},
		nl.NewRtAttr(nl.GENL_CTRL_ATTR_FAMILY_NAME, nl.ZeroTerminated("ovs_datapath")),
	).Execute(unix.NETLINK_GENERIC, 0)
	return err == nil
}

// genlHeader is struct genlmsghdr: command, version, two reserved bytes. The
// library's own has only the first two and sends what lies behind it in memory.
type genlHeader [4]byte

func (genlHeader) Len() int            { return 4 }
func (h genlHeader) Serialize() []byte { return h[:] }
