// Package dhcp is a DHCPv4 client (RFC 2131) for somebody else: it asks for the
// lease of a device that is in a container, or about to go there, with that
// device's MAC address, and leaves the addresses of all devices alone.
//
// It talks through a packet socket on the device, whichever network namespace that
// is in: before there is an address the kernel offers no other way, and a renewal
// has to leave by the port of the container and by no other, since switches learn
// from it and some compare it with what is asked for. A socket lives as long as one
// exchange: a longer one would keep the namespace of a dead container.
//
// Each call is one exchange. When to renew, what to do after a refusal and what a
// lease means for the container is the caller's.
package dhcp
