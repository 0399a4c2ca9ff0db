package link

import (
	"bytes"
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Veth is a veth pair as it shall be: Host stays here and is the switch port,
// Peer is moved by dockerd into the container, and renamed there.
type Veth struct {
	Host, Peer string
	PeerMAC    net.HardwareAddr // nil: the kernel picks one
	MTU        int              // of both ends; 0: the kernel's default
	Alias      string           // of Host; proves that the pair is ours
	// Shield is needed by the userspace datapath. It reads and writes Host
	// through a packet socket, and so the host's own stack sees the frames too,
	// and answers them. With Shield it does not. Without it a shield left from
	// before is removed: the kernel datapath would not get a frame past it.
	Shield  bool
	Offload Offload // of Peer
}

// unfinished is the link group of a host end from its creation until its alias
// is set; see the package comment. Any number but 0 (the default) serves.
const unfinished = 0x6f766e73

// ipv6MinMTU is the MTU below which the kernel drops a link's IPv6 state.
const ipv6MinMTU = 1280

// Ensure makes the pair exist as described and reports whether it had to create
// it. Host ends up up, without an IPv6 address of its own, shielded if asked;
// Peer is left down, dockerd sets it up.
//
// An existing pair is checked and repaired. Its Peer is looked at only if it is
// still here, and its offloads stay what they are once it is not. If Host names a link that is not ours, or the Peer of ours has
// another name, that is an error and nothing is changed. A pair that could not
// be completed is removed again, if this call created it.
func (k *Kernel) Ensure(v Veth) (created bool, err error) {
	r := k.ensure([]Veth{v})[0]
	return r.created, r.err
}

// EnsureAll is Ensure for many pairs, with one nf_tables transaction for all.
// It returns the errors by Host, nil when there are none.
func (k *Kernel) EnsureAll(vs []Veth) map[string]error {
	var errs map[string]error
	for i, r := range k.ensure(vs) {
		if r.err != nil {
			if errs == nil {
				errs = map[string]error{}
			}
			errs[vs[i].Host] = r.err
		}
	}
	return errs
}

// result is how far one pair of an ensure came.
type result struct {
	created bool
	setUp   bool // Host is still to be set up
	err     error
}

// ensure works in three steps over all pairs, so that a host end is never up
// without its shield: exist, shield, up.
func (k *Kernel) ensure(vs []Veth) []result {
	rs := make([]result, len(vs))
	find := k.finder(len(vs))
	shield := map[string]bool{}
	for i, v := range vs {
		if rs[i].err = k.exist(v, find, &rs[i]); rs[i].err == nil {
			shield[v.Host] = v.Shield
		}
	}
	unshielded := k.shields.set(shield)
	for i, v := range vs {
		r := &rs[i]
		if r.err == nil {
			r.err = unshielded[v.Host]
		}
		if r.err == nil && r.setUp {
			r.err = k.change(v.Host, up(true))
		}
		if r.err != nil && r.created {
			r.created = false
			if err := k.Delete(v.Host, v.Alias); err != nil {
				r.err = errors.Join(r.err, err)
			}
		}
		if r.err != nil {
			r.err = fmt.Errorf("veth %s: %w", v.Host, r.err)
		}
	}
	return rs
}

// exist makes the pair exist with everything but the shield and Host up.
func (k *Kernel) exist(v Veth, find finder, r *result) error {
	if err := v.check(); err != nil {
		return err
	}
	in, ok, err := find.name(v.Host)
	if err != nil {
		return err
	}
	if !ok {
		err := k.create(v)
		if err == nil {
			r.created, r.setUp = true, true
			if err = k.finish(v); err == nil {
				err = k.setOffload(v.Peer, v.Offload) // before dockerd takes it
			}
			return err
		}
		if !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("create: %w", err)
		}
		// Either somebody was faster, or it is Peer whose name is taken.
		in, ok, err = k.Get(v.Host)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("create: the name of its other end, %s, is taken: %w", v.Peer, ErrForeign)
		}
	}
	if err := in.owned(v.Alias); err != nil {
		return err
	}
	r.setUp = !in.Up
	return k.repair(v, in, find)
}

func (v Veth) check() error {
	var mac error
	if len(v.PeerMAC) != 0 && len(v.PeerMAC) != 6 {
		mac = fmt.Errorf("%s is not an Ethernet address", v.PeerMAC)
	}
	var alias error
	if v.Alias == "" || len(v.Alias) > 255 { // IFALIASZ
		alias = fmt.Errorf("alias %q must have 1 to 255 bytes", v.Alias)
	}
	return errors.Join(checkName(v.Host), checkName(v.Peer), mac, alias)
}

// owned is nil if the link is a host end with this alias, or one that was never
// given an alias because the process ended in between.
func (in Info) owned(alias string) error {
	switch {
	case in.Kind != "veth":
		return fmt.Errorf("%s is a %s: %w", in.Name, in.Kind, ErrForeign)
	case in.Alias == alias, in.Alias == "" && in.group == unfinished:
		return nil
	}
	return fmt.Errorf("%s is a veth with alias %q: %w", in.Name, in.Alias, ErrForeign)
}

// create makes the bare pair, both ends down.
func (k *Kernel) create(v Veth) error {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("veth"))
	peer := info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.VETH_INFO_PEER, nil)
	nl.NewIfInfomsgChild(peer, unix.AF_UNSPEC)
	peer.AddRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(v.Peer))
	if len(v.PeerMAC) > 0 {
		peer.AddRtAttr(unix.IFLA_ADDRESS, v.PeerMAC)
	}
	data := []nl.NetlinkRequestData{
		nl.NewIfInfomsg(unix.AF_UNSPEC),
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(v.Host)),
		nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(unfinished)),
		info,
	}
	if v.MTU > 0 {
		peer.AddRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(v.MTU)))
		data = append(data, nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(v.MTU))))
	}
	_, err := k.main.request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, data...).
		Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// finish gives Host what cannot be given at creation. It comes before any end is
// up, or the host end would get a link-local address.
//
// The group says what became of Peer's offloads, which nobody can ask once Peer
// is in a container.
func (k *Kernel) finish(v Veth) error {
	ours := change{
		nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(v.Alias)),
		nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(v.Offload.group())),
	}
	err := k.change(v.Host, append(ours, noIPv6Address()...))
	if errors.Is(err, unix.EAFNOSUPPORT) {
		// No IPv6 in this kernel or on this link. The kernel checks this before
		// it changes anything.
		err = k.change(v.Host, ours)
	}
	return err
}

// repair makes an existing pair of ours what it should be.
func (k *Kernel) repair(v Veth, in Info, find finder) error {
	if err := k.repairPeer(v, in, find); err != nil {
		return err
	}
	if v.MTU > 0 && in.MTU != v.MTU {
		if err := k.setMTU(v, in); err != nil {
			return err
		}
	}
	if in.Alias == "" {
		return k.finish(v)
	}
	return nil
}

// repairPeer repairs Peer if it is still here.
func (k *Kernel) repairPeer(v Veth, in Info, find finder) error {
	if in.PeerAway {
		return nil
	}
	peer, ok, err := find.index(in.PeerIndex)
	if err != nil || !ok {
		return err
	}
	if peer.Name != v.Peer {
		return fmt.Errorf("its other end is here but called %s, not %s", peer.Name, v.Peer)
	}
	var c change
	if len(v.PeerMAC) > 0 && !bytes.Equal(peer.MAC, v.PeerMAC) {
		c = append(c, nl.NewRtAttr(unix.IFLA_ADDRESS, v.PeerMAC))
	}
	if v.MTU > 0 && peer.MTU != v.MTU {
		c = append(c, nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(v.MTU))))
	}
	if len(c) > 0 {
		err = k.change(v.Peer, c)
	}
	if err == nil && in.Alias != "" && in.group != v.Offload.group() {
		err = k.change(v.Host, change{nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(v.Offload.group()))})
	}
	if err == nil {
		err = k.setOffload(v.Peer, v.Offload)
	}
	if errors.Is(err, unix.ENODEV) {
		return nil // dockerd took it just now
	}
	return err
}

// setMTU changes the MTU of Host. Growing past the least MTU of IPv6 makes the
// kernel build the link's IPv6 state anew, with its default of giving it an
// address at once if it is up: so it goes down for that moment.
func (k *Kernel) setMTU(v Veth, in Info) error {
	c := change{nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(v.MTU)))}
	if in.MTU >= ipv6MinMTU || v.MTU < ipv6MinMTU {
		return k.change(v.Host, c)
	}
	if err := errors.Join(k.change(v.Host, up(false)), k.change(v.Host, c)); err != nil {
		return err
	}
	if err := k.change(v.Host, noIPv6Address()); err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
		return err
	}
	if in.Up {
		return k.change(v.Host, up(true))
	}
	return nil
}
