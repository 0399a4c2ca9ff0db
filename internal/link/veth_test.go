package link

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	mdlayher "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

func TestEnsureCreates(t *testing.T) {
	inNS(t, func() {
		k := open(t)
		v := pair(1)
		created, err := k.Ensure(v)
		check(t, err)
		if !created {
			t.Error("not reported as created")
		}
		host, peer := get(t, k, v.Host), get(t, k, v.Peer)
		if host.Kind != "veth" || !host.Up || host.MTU != v.MTU || host.Alias != v.Alias || host.group != 0 ||
			host.PeerIndex != peer.Index || host.PeerAway {
			t.Errorf("host end %+v", host)
		}
		if peer.Up || peer.MTU != v.MTU || peer.MAC.String() != v.PeerMAC.String() {
			t.Errorf("peer %+v", peer)
		}
		if !txChecksum(t, k, v.Peer) {
			t.Error("checksum offload is off though nobody asked")
		}
		if have, table := shielded(t, k); len(have) != 0 || table {
			t.Errorf("shields %v, table %v", have, table)
		}
		created, err = k.Ensure(v)
		check(t, err)
		if created || get(t, k, v.Host).Index != host.Index {
			t.Error("created again")
		}
	})
}

// ruleset identifies the state of nf_tables: it counts transactions.
func ruleset(t *testing.T) uint32 {
	c, err := mdlayher.Dial(unix.NETLINK_NETFILTER, nil)
	check(t, err)
	defer c.Close()
	msgs, err := c.Execute(mdlayher.Message{
		Header: mdlayher.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN, Flags: mdlayher.Request},
		Data:   make([]byte, 4),
	})
	check(t, err)
	ad, err := mdlayher.NewAttributeDecoder(msgs[0].Data[4:])
	check(t, err)
	ad.ByteOrder = binary.BigEndian
	for ad.Next() {
		if ad.Type() == unix.NFTA_GEN_ID {
			return ad.Uint32()
		}
	}
	t.Fatal("no generation in the answer")
	return 0
}

func TestEnsureRepairs(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(t *testing.T, k *Kernel, v Veth)
	}{
		{"nothing", func(*testing.T, *Kernel, Veth) {}},
		{"host down", func(t *testing.T, k *Kernel, v Veth) { check(t, k.change(v.Host, up(false))) }},
		{"host mtu", func(t *testing.T, k *Kernel, v Veth) { v.MTU = 1300; check(t, k.setMTU(v, get(t, k, v.Host))) }},
		{"host mtu without IPv6", func(t *testing.T, k *Kernel, v Veth) {
			v.MTU = 1000
			check(t, k.setMTU(v, get(t, k, v.Host)))
		}},
		{"peer mtu and address", func(t *testing.T, k *Kernel, v Veth) {
			l, err := netlink.LinkByName(v.Peer)
			check(t, err)
			check(t, netlink.LinkSetMTU(l, 1400))
			check(t, netlink.LinkSetHardwareAddr(l, net.HardwareAddr{2, 9, 9, 9, 9, 9}))
		}},
		{"chain", func(t *testing.T, k *Kernel, v Veth) {
			for _, err := range k.shields.set(map[string]bool{v.Host: false}) {
				t.Fatal(err)
			}
		}},
		{"checksum offload", func(t *testing.T, k *Kernel, v Veth) {
			_, err := k.ethtool(v.Peer, ethtoolValue{cmd: unix.ETHTOOL_STXCSUM, data: 1})
			check(t, err)
			if !txChecksum(t, k, v.Peer) {
				t.Fatal("offload does not turn on")
			}
		}},
		{"recreated under a remaining chain", func(t *testing.T, k *Kernel, v Veth) {
			l, err := netlink.LinkByName(v.Host)
			check(t, err)
			check(t, netlink.LinkDel(l))
		}},
		{"left unfinished", func(t *testing.T, k *Kernel, v Veth) {
			check(t, k.Delete(v.Host, v.Alias))
			check(t, k.create(v))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inNS(t, func() {
				k := open(t)
				v := pair(1)
				v.Shield, v.Offload = true, OffloadNone
				_, err := k.Ensure(v)
				check(t, err)
				tt.spoil(t, k, v)
				_, err = k.Ensure(v)
				check(t, err)

				host, peer := get(t, k, v.Host), get(t, k, v.Peer)
				if !host.Up || host.MTU != v.MTU || host.Alias != v.Alias || host.group != 0 {
					t.Errorf("host end %+v", host)
				}
				if peer.MTU != v.MTU || peer.MAC.String() != v.PeerMAC.String() {
					t.Errorf("peer %+v", peer)
				}
				if txChecksum(t, k, v.Peer) {
					t.Error("checksum offload is on")
				}
				if have, _ := shielded(t, k); !have[v.Host] || len(have) != 1 {
					t.Errorf("shields %v", have)
				}
				// No address also after a repair, and nothing is changed once all is well.
				check(t, k.change(v.Peer, up(true)))
				noIPv6(t, v.Host)
				gen := ruleset(t)
				created, err := k.Ensure(v)
				check(t, err)
				if created || ruleset(t) != gen {
					t.Errorf("created %v, ruleset %d became %d", created, gen, ruleset(t))
				}
			})
		})
	}
}

func noIPv6(t *testing.T, name string) {
	t.Helper()
	l, err := netlink.LinkByName(name)
	check(t, err)
	addrs, err := netlink.AddrList(l, unix.AF_INET6)
	check(t, err)
	if len(addrs) != 0 {
		t.Errorf("%s has %v", name, addrs)
	}
}

func TestNoLinkLocalAddress(t *testing.T) {
	inNS(t, func() {
		k := open(t)
		v := pair(1)
		_, err := k.Ensure(v)
		check(t, err)
		check(t, k.change(v.Peer, up(true)))
		peer, err := netlink.LinkByName(v.Peer)
		check(t, err)
		// The peer gets its address in the same moment the host end would.
		addrs, err := netlink.AddrList(peer, unix.AF_INET6)
		check(t, err)
		if _, err := os.Stat("/proc/sys/net/ipv6"); err == nil && len(addrs) == 0 {
			t.Error("the peer has no link-local address, so the test shows nothing")
		}
		if !get(t, k, v.Host).Carrier {
			t.Error("no carrier")
		}
		noIPv6(t, v.Host)
	})
}

func TestForeignIsUntouched(t *testing.T) {
	bridge := func(t *testing.T, name string) {
		check(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}))
	}
	for _, tt := range []struct {
		name string
		have func(t *testing.T, k *Kernel, v Veth)
	}{
		{"bridge", func(t *testing.T, k *Kernel, v Veth) { bridge(t, v.Host) }},
		{"veth without alias", func(t *testing.T, k *Kernel, v Veth) {
			check(t, k.create(v))
			check(t, k.change(v.Host, change{nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(0))}))
		}},
		{"veth of another", func(t *testing.T, k *Kernel, v Veth) {
			v.Alias += "0"
			v.Peer, v.Shield = "other", false
			_, err := k.Ensure(v)
			check(t, err)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inNS(t, func() {
				k := open(t)
				v := pair(1)
				v.Shield = true
				tt.have(t, k, v)
				before := get(t, k, v.Host)
				if created, err := k.Ensure(v); created || !errors.Is(err, ErrForeign) {
					t.Errorf("ensure: %v, %v", created, err)
				}
				if err := k.Delete(v.Host, v.Alias); !errors.Is(err, ErrForeign) {
					t.Errorf("delete: %v", err)
				}
				if diff := cmp.Diff(before, get(t, k, v.Host), cmp.AllowUnexported(Info{})); diff != "" {
					t.Error(diff)
				}
				if have, _ := shielded(t, k); len(have) != 0 {
					t.Errorf("shields %v", have)
				}
			})
		})
	}

	t.Run("name of the peer", func(t *testing.T) {
		inNS(t, func() {
			k := open(t)
			v := pair(1)
			bridge(t, v.Peer)
			if _, err := k.Ensure(v); !errors.Is(err, ErrForeign) {
				t.Error(err)
			}
			if exists(t, k, v.Host) {
				t.Error("host end is there")
			}
		})
	})
}

func TestInvalid(t *testing.T) {
	k := &Kernel{}
	for _, v := range []Veth{
		{}, {Host: "h", Peer: "p"}, {Host: "sixteen-bytes-xx", Peer: "p", Alias: "a"}, {Host: "h", Peer: "a/b", Alias: "a"},
		{Host: "h", Peer: "p", Alias: "a", PeerMAC: net.HardwareAddr{1}},
	} {
		if err := k.exist(v, finder{}, &result{}); err == nil {
			t.Errorf("%+v taken", v)
		}
	}
}

func TestFailedEnsureIsUndone(t *testing.T) {
	inNS(t, func() {
		k := open(t)
		v := pair(1)
		v.Shield = true
		gone := func() {
			t.Helper()
			if exists(t, k, v.Host) || exists(t, k, v.Peer) {
				t.Error("left behind")
			}
		}
		v.MTU = 70000 // more than a veth takes
		if created, err := k.Ensure(v); created || err == nil {
			t.Errorf("created %v, %v", created, err)
		}
		gone()

		// The pair is made, but nf_tables refuses.
		v.MTU = 1442
		k.shields.dropLocked()
		var err error
		k.shields.conn, err = nftables.New(nftables.AsLasting(),
			nftables.WithTestDial(func([]mdlayher.Message) ([]mdlayher.Message, error) { return nil, unix.EPERM }),
			nftables.WithSockOptions(func(c *mdlayher.Conn) error { k.shields.sock = c; return nil }))
		check(t, err)
		if created, err := k.Ensure(v); created || !errors.Is(err, unix.EPERM) {
			t.Errorf("created %v, %v", created, err)
		}
		gone()
	})
}

func TestPeerAway(t *testing.T) {
	inNS(t, func() {
		k := open(t)
		ns, path := otherNS(t)
		v := pair(1)
		v.Shield, v.Offload = true, OffloadNone
		_, err := k.Ensure(v)
		check(t, err)
		move(t, v.Peer, ns, "")
		created, err := k.Ensure(v)
		check(t, err)
		if created || !get(t, k, v.Host).PeerAway {
			t.Errorf("created %v, host end %+v", created, get(t, k, v.Host))
		}
		names, err := k.LinksIn(path)
		check(t, err)
		if diff := cmp.Diff([]string{"eth0"}, names); diff != "" {
			t.Error(diff)
		}
		within(t, ns, func() {
			inside := open(t)
			if txChecksum(t, inside, "eth0") {
				t.Error("checksum offload is on again after the move")
			}
		})
		check(t, k.Delete(v.Host, v.Alias))
		names, err = k.LinksIn(path)
		check(t, err)
		if len(names) != 0 {
			t.Errorf("left in the container: %v", names)
		}
	})
}

func TestDelete(t *testing.T) {
	inNS(t, func() {
		k := open(t)
		check(t, k.Delete("absent", "ocn:x"))
		v, w := pair(1), pair(2)
		v.Shield, w.Shield = true, true
		if errs := k.EnsureAll([]Veth{v, w}); errs != nil {
			t.Fatal(errs)
		}
		check(t, k.Delete(v.Host, v.Alias))
		if have, _ := shielded(t, k); have[v.Host] || !have[w.Host] || exists(t, k, v.Host) {
			t.Errorf("shields %v", have)
		}
		check(t, k.Delete(w.Host, w.Alias))
		check(t, k.Delete(w.Host, w.Alias))
		if have, table := shielded(t, k); len(have) != 0 || table {
			t.Errorf("shields %v, table %v", have, table)
		}
		// A table whose last chain went with its link, as before Linux 6.16.
		k.shields.mu.Lock()
		k.shields.conn.AddTable(shieldTable)
		check(t, k.shields.flushLocked())
		k.shields.mu.Unlock()
		check(t, k.Delete(v.Host, v.Alias))
		if _, table := shielded(t, k); table {
			t.Error("empty table is still there")
		}
		check(t, k.create(v)) // and not finished
		check(t, k.Delete(v.Host, v.Alias))
		if exists(t, k, v.Host) {
			t.Error("unfinished pair is still there")
		}
	})
}
