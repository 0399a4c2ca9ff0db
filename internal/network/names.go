package network

import (
	"crypto/sha256"
	"encoding/hex"
	"net"
	"strings"
)

// LinkPrefix starts the name of every host end of ours.
const LinkPrefix = "ocn"

// Links returns the names of an endpoint's veth ends: host stays and is the
// OVS port, peer is moved into the container by dockerd. Both have 15 bytes,
// the most that Linux allows (IFNAMSIZ), and 48 bits of the id; ids that are
// not 12 hex digits long at least are hashed.
func (id EndpointID) Links() (host, peer string) {
	key := strings.ToLower(string(id))
	if len(key) < 12 || strings.Trim(key[:12], "0123456789abcdef") != "" {
		sum := sha256.Sum256([]byte(id))
		key = hex.EncodeToString(sum[:])
	}
	return LinkPrefix + key[:12], "oc-" + key[:12]
}

// macFor derives a MAC from an endpoint id: locally administered, unicast
// (IEEE 802, the two low bits of the first byte). salt makes another one when
// the first is taken.
func macFor(id EndpointID, salt byte) net.HardwareAddr {
	sum := sha256.Sum256(append([]byte(id), salt))
	mac := net.HardwareAddr(sum[:6])
	mac[0] = mac[0]&^1 | 2
	return mac
}
