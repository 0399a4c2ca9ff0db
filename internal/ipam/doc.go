// Package ipam hands out address pools and addresses for one host.
//
// It owns the pools Docker asked for, which addresses of each are taken, and
// the rule which one comes next. Every change is in the Store before it is
// answered, so nothing is replayed after a restart. The package does no I/O of
// its own and imports only the standard library.
//
// Equal and overlapping subnets in different pools are allowed: two tenants
// may both use 10.0.0.0/24. Docker's IPAM calls name no network, hence every
// RequestPool makes a new pool with a new id and cannot be idempotent. A pool
// is tied to its network later, by Claim. A pool whose Network is empty long
// after its creation was left behind by a crash between the two.
//
// It refuses pools no container can use (multicast, loopback, IPv6 link-local,
// IPv4-mapped, everything), a pool of the other family than asked for, unknown
// IPAM options, addresses outside their pool, taken ones, and those the
// protocol reserves: network and broadcast address in IPv4, the subnet-router
// anycast address in IPv6 (RFC 4291 2.6.1). Point-to-point prefixes, /31 and
// /127 (RFC 3021, RFC 6164), and single addresses use all they have.
// Releasing what is not there is always a success.
package ipam

// Address spaces as told to Docker. Both hold the same kind of pool; they
// differ so that Docker can tell a swarm-wide request from a local one.
const (
	AddressSpace       = "ovs-container-network"
	GlobalAddressSpace = "ovs-container-network-global"
)
