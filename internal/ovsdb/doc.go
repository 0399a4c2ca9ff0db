// Package ovsdb keeps one connection to one OVSDB database (RFC 7047) alive and
// hides the library that speaks the protocol.
//
// It owns the connection, a cache of the monitored columns, and the order of
// writes: transactions that arrive while one is under way are combined into the
// next (group commit). Results of a transaction are checked here, once.
//
// A lost connection is replaced by a new client with a new cache, rather than
// by the library's own reconnect, which panics when it gives up, claims to be
// connected while it is not, and can lose a table's rows.
//
// It refuses to know what the rows mean.
package ovsdb
