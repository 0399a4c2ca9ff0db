// Package dockerapi is the surface that Docker sees: the remote network driver
// and IPAM driver protocols of libnetwork, on one HTTP handler.
//
// It owns the wire types, the decoding of every string into a typed value, and
// the form of errors: one sentence, followed by the id under which the log has
// the request. It answers what an engine from 20.10 to 29 asks, each call as
// often as it comes.
//
// It refuses to decide anything, and to keep anything.
package dockerapi
