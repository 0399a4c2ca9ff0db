// Package ovn is the fabric of logical switches: it writes what OVN shall make
// into the northbound database that all hosts share, and leaves the port on this
// host's integration bridge to package ovs.
//
// It owns the rows with this driver's mark. Those of one host (its logical switch
// ports, its claims) carry the host's id and are changed by that host alone;
// those of a switch belong to all hosts that claim it and go with the last claim.
// What several hosts may do at once is decided by the database: every such change
// is one transaction with a guard.
//
// An address is given once per logical switch, whoever chose it: each endpoint
// enters its addresses into the switch's book, a row of DHCP_Options that no port
// refers to, in the transaction that makes its port. OVN itself would let two
// ports have the same.
// Pools are for hosts that also choose the addresses together: the pool of a switch
// is in its book as well.
//
// It refuses to have OVN choose addresses (it renumbers them), to change a
// configured chassis, and to touch rows of others. Networks on plain bridges go
// through to package ovs untouched.
package ovn
