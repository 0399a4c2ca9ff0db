package link

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ethtoolValue is struct ethtool_value; ethtoolRequest is struct ifreq with a
// pointer to it.
type ethtoolValue struct{ cmd, data uint32 }

type ethtoolRequest struct {
	name  [unix.IFNAMSIZ]byte
	value *ethtoolValue
	_     [16]byte
}

// computeChecksums turns transmit checksum offload of a link off, so that its
// frames carry finished checksums also where they leave through a packet
// socket. The setting stays when the link is moved to another namespace.
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
	r := ethtoolRequest{value: &v}
	copy(r.name[:unix.IFNAMSIZ-1], name)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(k.ethtoolFD), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&r)))
	if errno != 0 {
		return 0, errno
	}
	return v.data, nil
}
