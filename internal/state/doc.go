// Package state keeps the desired state in files, one small JSON file per
// network, endpoint and address pool:
//
//	networks/NETWORK/network.json
//	networks/NETWORK/endpoints/ENDPOINT.json
//	pools/NAME.json
//	host-id
//	lock
//
// A record is one line of JSON and carries the version of its layout. A file is
// written beside its place, synced, renamed over it, and the directory synced,
// so that a crash at any point leaves the old record or the new one. What changes
// of an endpoint later is appended to its file, where the last line counts,
// without a sync: a power cut ends the container anyway. A file that cannot be
// read, or has a newer version, is reported and never overwritten or removed.
//
// The directory belongs to one process at a time: Open takes a lock.
package state
