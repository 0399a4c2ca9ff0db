// Package network is the core: what a network and an endpoint are, what their
// options mean, and the life of both from Docker's first call to the last
// trace of them.
//
// It owns the desired state. Every call of Docker becomes a change of a Network
// value that is stored before anything is made, and one body, Fabric.Apply,
// makes reality equal that value: for a new container, for a repair, after a
// restart. A failed delete stays as a tombstone (PhaseDeleting) until Apply has
// finished it, because Docker ignores errors of deletes and never asks again.
//
// It refuses to know how a port is made (Fabric), where state is kept (Store),
// how Docker speaks (package dockerapi), and it never calls Docker.
package network
