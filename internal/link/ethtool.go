package link

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Offload is what the container's end of a pair leaves to others to do with the
// frames that it sends.
type Offload int

const (
	// OffloadAll is the kernel's default, right where the kernel forwards.
	OffloadAll Offload = iota
	// OffloadNone is for a userspace datapath that takes frames as they are:
	// checksums that are not finished are lost in a packet socket.
	OffloadNone
	// OffloadTCP is for a userspace datapath that takes checksums to be finished
	// and long segments of TCP. What the header of a packet socket cannot
	// describe (struct virtio_net_hdr), or Open vSwitch does not read, the
	// kernel does itself: segments of UDP, of SCTP and inside of tunnels would be
	// dropped, and SCTP has another checksum.
	OffloadTCP
)

// offloaded is the link group of a host end whose other end is OffloadTCP.
const offloaded = 0x6f766e74

func (o Offload) group() uint32 {
	if o == OffloadTCP {
		return offloaded
	}
	return 0
}

// Offloaded tells whether this is a host end whose other end leaves checksums
// and segments of TCP to the switch.
func (in Info) Offloaded() bool { return in.group == offloaded }

// setOffload sets the offloads of a link, which stay when it is moved to another
// namespace. OffloadAll leaves them alone.
func (k *Kernel) setOffload(name string, o Offload) error {
	switch o {
	case OffloadNone:
		return k.computeChecksums(name)
	case OffloadTCP:
		if err := k.offloadTCP(name); err != nil {
			return fmt.Errorf("set the offloads of %s: %w", name, err)
		}
	}
	return nil
}

// ethtoolValue is struct ethtool_value.
type ethtoolValue struct{ cmd, data uint32 }

// ethtoolRequest is struct ifreq with a pointer to what the command in its first
// word is about.
type ethtoolRequest struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [16]byte
}

// computeChecksums turns transmit checksum offload of a link off, so that its
// frames carry finished checksums also where they leave through a packet
// socket.
//
// The old ETHTOOL_STXCSUM is one system call, covers SCTP as well and needs no
// feature names; the way by feature bits first fetches all names of the link.
// Segmentation offloads go with it, they depend on it.
func (k *Kernel) computeChecksums(name string) error {
	if _, err := k.ethtool(name, ethtoolValue{cmd: unix.ETHTOOL_STXCSUM}); err != nil {
		return fmt.Errorf("turn off checksum offload of %s: %w", name, err)
	}
	return nil
}

func (k *Kernel) ethtool(name string, v ethtoolValue) (uint32, error) {
	err := k.ethtoolIO(name, unsafe.Pointer(&v))
	return v.data, err
}

func (k *Kernel) ethtoolIO(name string, data unsafe.Pointer) error {
	r := ethtoolRequest{data: data}
	copy(r.name[:unix.IFNAMSIZ-1], name)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(k.ethtoolFD), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&r)))
	if errno != 0 {
		return errno
	}
	return nil
}

const (
	maxFeatures   = 256 // more than any kernel has
	featureSet    = 4   // ETH_SS_FEATURES
	featureLength = 32  // ETH_GSTRING_LEN
)

// featureChange is struct ethtool_sfeatures.
type featureChange struct {
	cmd, size uint32
	blocks    [maxFeatures / 32]struct{ valid, requested uint32 }
}

func (c *featureChange) set(bit int, on bool) {
	b := &c.blocks[bit/32]
	b.valid |= 1 << (bit % 32)
	if on {
		b.requested |= 1 << (bit % 32)
	}
}

func (k *Kernel) offloadTCP(name string) error {
	names, err := k.featureNames(name)
	if err != nil {
		return err
	}
	c := featureChange{cmd: unix.ETHTOOL_SFEATURES, size: uint32(len(names)+31) / 32}
	for bit, feature := range names {
		if on, known := keepForTCP(feature); known {
			c.set(bit, on)
		}
	}
	return k.ethtoolIO(name, unsafe.Pointer(&c))
}

// keepForTCP tells whether a feature belongs to OffloadTCP; those that have
// nothing to do with it are not known.
func keepForTCP(feature string) (on, known bool) {
	switch feature {
	case "tx-checksum-ip-generic", "tx-tcp-segmentation", "tx-tcp6-segmentation":
		return true, true
	case "tx-checksum-sctp":
		return false, true
	}
	return false, strings.HasPrefix(feature, "tx-gso-") || strings.HasPrefix(feature, "tx-") && strings.HasSuffix(feature, "-segmentation")
}

// features are the names of the running kernel's features in the order of their
// bits, the same for all links.
var features struct {
	sync.Mutex
	names []string // nil until somebody asked
}

// featureNames asks for features once, of any link.
func (k *Kernel) featureNames(link string) ([]string, error) {
	features.Lock()
	defer features.Unlock()
	if features.names != nil {
		return features.names, nil
	}
	count := struct { // struct ethtool_sset_info
		cmd, _ uint32
		mask   uint64
		n      uint32
	}{cmd: unix.ETHTOOL_GSSET_INFO, mask: 1 << featureSet}
	if err := k.ethtoolIO(link, unsafe.Pointer(&count)); err != nil {
		return nil, err
	}
	if count.n == 0 || count.n > maxFeatures {
		return nil, errors.New("the kernel does not say which there are")
	}
	var list struct { // struct ethtool_gstrings
		cmd, set, n uint32
		names       [maxFeatures][featureLength]byte
	}
	list.cmd, list.set, list.n = unix.ETHTOOL_GSTRINGS, featureSet, count.n
	if err := k.ethtoolIO(link, unsafe.Pointer(&list)); err != nil {
		return nil, err
	}
	for _, n := range list.names[:count.n] {
		name, _, _ := bytes.Cut(n[:], []byte{0})
		features.names = append(features.names, string(name))
	}
	return features.names, nil
}
