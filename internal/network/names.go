package network

import (
	"crypto/sha256"
	"encoding/hex"
	"net"
	"strings"
)

// How the names of our links start: of the host end, and of the container's end
// while it is in the host's namespace.
const (
	LinkPrefix = "ocn"
	PeerPrefix = "oc-"
)

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
	return LinkPrefix + key[:12], PeerPrefix + key[:12]
}

// macFor derives the MAC of an endpoint that was given none: locally
// administered, unicast (IEEE 802, the two low bits of the first byte). The same
// address on the same network always has the same MAC, so that neighbours which
// remember it reach the container that takes the address over. On a logical switch
// that holds for all hosts.
func macFor(n Network, ep Endpoint) net.HardwareAddr {
	key := string(ep.ID)
	switch {
	case ep.ClientID != "":
		key = string(ep.Network) + " client " + ep.ClientID
	case len(ep.Addrs) == 0:
	case n.Config.OVN != nil:
		key = "switch " + n.Config.OVN.Switch + " " + ep.Addrs[0].Addr().String()
	default:
		key = string(ep.Network) + " " + ep.Addrs[0].Addr().String()
	}
	sum := sha256.Sum256([]byte(key))
	mac := net.HardwareAddr(sum[:6])
	mac[0] = mac[0]&^1 | 2
	return mac
}
