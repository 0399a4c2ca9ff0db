package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Settings are what a link in a container has besides itself.
type Settings struct {
	Addr   netip.Prefix // invalid: none
	Routes []Route
}

// Route leads to a destination.
type Route struct {
	To  netip.Prefix
	Via netip.Addr // invalid: its hosts are on the link
}

// Configure gives a link in the namespace mounted at path, by its number there, what
// want says, and takes away what old says and want does not. A route to a
// destination to which another one leads already is left out: that is somebody
// else's. It enters the namespace, which takes CAP_SYS_ADMIN.
func (k *Kernel) Configure(path string, index int, old, want Settings) error {
	err := inside(path, func(h *netlink.Handle) error {
		l, err := h.LinkByIndex(index)
		if err != nil {
			return err
		}
		if old.Addr.IsValid() && old.Addr != want.Addr {
			err := h.AddrDel(l, &netlink.Addr{IPNet: ipNet(old.Addr)})
			if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
				return fmt.Errorf("remove address %s: %w", old.Addr, err)
			}
		}
		for _, r := range old.Routes { // they went with the last address, if that did
			if err := h.RouteDel(r.on(l, old.Addr)); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("remove route to %s: %w", r.To, err)
			}
		}
		if !want.Addr.IsValid() {
			return nil
		}
		addr := &netlink.Addr{IPNet: ipNet(want.Addr)}
		give := h.AddrReplace
		if want.Addr.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD // as Docker gives it: it can be used at once
			give = h.AddrAdd              // what the kernel has made of a prefix keeps its times
		}
		if err := give(l, addr); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("give address %s: %w", want.Addr, err)
		}
		for _, r := range want.Routes {
			if err := h.RouteAdd(r.on(l, want.Addr)); err != nil && !errors.Is(err, unix.EEXIST) {
				return fmt.Errorf("give route to %s: %w", r.To, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("link %d in namespace %s: %w", index, path, err)
	}
	return nil
}

// on is the route over a link that has an address.
func (r Route) on(l netlink.Link, addr netip.Prefix) *netlink.Route {
	route := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(r.To)}
	if !r.Via.IsValid() {
		route.Scope = netlink.SCOPE_LINK
		return route
	}
	route.Gw = r.Via.AsSlice()
	if !addr.Contains(r.Via) {
		route.Flags = int(netlink.FLAG_ONLINK)
	}
	return route
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// inside runs f with a handle of the namespace mounted at path.
func inside(path string, f func(*netlink.Handle) error) error {
	fd, err := openNetNS(path)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		// Never unlocked: the thread ends with this function and with it its stay in
		// another namespace.
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter: %w", err)
			return
		}
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			done <- err
			return
		}
		defer h.Close()
		done <- f(h)
	}()
	return <-done
}
