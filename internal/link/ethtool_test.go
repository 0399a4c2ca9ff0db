package link

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// offloads are the names of the features of a link that are on and have to do
// with sending.
func offloads(t *testing.T, k *Kernel, link string) []string {
	t.Helper()
	names, err := k.featureNames(link)
	check(t, err)
	var got struct { // struct ethtool_gfeatures
		cmd, size uint32
		blocks    [maxFeatures / 32]struct{ available, requested, active, never uint32 }
	}
	got.cmd, got.size = unix.ETHTOOL_GFEATURES, uint32(len(got.blocks))
	check(t, k.ethtoolIO(link, unsafe.Pointer(&got)))
	on := map[string]bool{}
	for bit, name := range names {
		if strings.HasPrefix(name, "tx-") && got.blocks[bit/32].active&(1<<(bit%32)) != 0 {
			on[name] = true
		}
	}
	return slices.Sorted(maps.Keys(on))
}

// Of all that a new link leaves to others, OffloadTCP keeps the two that Open
// vSwitch understands. The host end remembers it, also when the other end is in
// a container, and every setting can be changed as long as it is not.
func TestOffload(t *testing.T) {
	inNS(t, func() {
		k := open(t)
		ns, _ := otherNS(t)
		v := pair(1)
		_, err := k.Ensure(v)
		check(t, err)
		all := offloads(t, k, v.Peer)
		tcp := slices.DeleteFunc(slices.Clone(all), func(name string) bool {
			about := strings.HasSuffix(name, "-segmentation") || strings.HasPrefix(name, "tx-gso") || strings.HasPrefix(name, "tx-checksum")
			return about && !slices.Contains([]string{"tx-checksum-ip-generic", "tx-tcp-segmentation", "tx-tcp6-segmentation"}, name)
		})
		if !slices.Contains(all, "tx-udp-segmentation") || len(tcp) >= len(all) {
			t.Fatalf("the kernel offers only %v: the test shows nothing", all)
		}
		is := func(when string, want []string, marked bool) {
			t.Helper()
			if diff := cmp.Diff(want, offloads(t, k, v.Peer)); diff != "" {
				t.Errorf("%s: %s", when, diff)
			}
			if got := get(t, k, v.Host); got.Offloaded() != marked || got.Alias != v.Alias {
				t.Errorf("%s: host end %+v, want marked %v", when, got, marked)
			}
		}
		is("made with all", all, false)
		check(t, k.Delete(v.Host, v.Alias))

		v.Offload = OffloadTCP
		for _, when := range []string{"made", "again"} {
			_, err = k.Ensure(v)
			check(t, err)
			is(when+" for TCP", tcp, true)
		}
		v.Offload = OffloadNone
		_, err = k.Ensure(v)
		check(t, err)
		for _, name := range offloads(t, k, v.Peer) {
			if strings.HasPrefix(name, "tx-tcp") || strings.HasPrefix(name, "tx-checksum") {
				t.Errorf("none: %s is on", name)
			}
		}
		if get(t, k, v.Host).Offloaded() {
			t.Error("none: still marked")
		}
		v.Offload = OffloadTCP
		_, err = k.Ensure(v)
		check(t, err)
		is("for TCP again", tcp, true)

		// Made, but the process ended before it was finished.
		check(t, k.Delete(v.Host, v.Alias))
		check(t, k.create(v))
		_, err = k.Ensure(v)
		check(t, err)
		is("left unfinished", tcp, true)

		move(t, v.Peer, ns, "")
		v.Offload = OffloadNone
		_, err = k.Ensure(v)
		check(t, err)
		if !get(t, k, v.Host).Offloaded() {
			t.Error("the mark went though the other end, in a container, is as it was")
		}
		within(t, ns, func() {
			if diff := cmp.Diff(tcp, offloads(t, open(t), "eth0")); diff != "" {
				t.Errorf("in the container: %s", diff)
			}
		})
	})
}
