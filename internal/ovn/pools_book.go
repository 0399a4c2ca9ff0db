package ovn

import (
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/ovs-container-network/ovs-container-network/internal/ipam"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// Keys of a book that are of its pools. All but those of the prefixes have a space,
// which no address has.
const (
	handlePrefix = "handle "
	ipPrefix     = "ip "
	refPrefix    = "ref "
	keyPool4     = "pool4"
	keyPool6     = "pool6"

	poolPrefix = "ovn/" // of a PoolID
)

// Whom an address is booked for, if for no container.
const (
	forGateway = "gateway"
	forAux     = "aux"
)

func familyKey(v6 bool) string {
	if v6 {
		return keyPool6
	}
	return keyPool4
}

// ofPools tells whether a key of a book is not of a port.
func ofPools(key string) bool { return strings.Contains(key, " ") }

// pooled tells whether any pool has something in the book.
func (d *dhcpOptions) pooled() bool {
	for key := range d.ExternalIDs {
		if ofPools(key) {
			return true
		}
	}
	return false
}

// bare tells whether nobody has anything in the book.
func (d *dhcpOptions) bare() bool {
	base := bookIDs(d.ExternalIDs[keySwitch])
	for key := range d.ExternalIDs {
		if _, known := base[key]; !known && key != keyPool4 && key != keyPool6 {
			return false
		}
	}
	return true
}

// handle is what Docker calls a pool: the part that one network of one host has in
// the pool of a switch.
type handle struct {
	id     string
	sw     string
	prefix netip.Prefix
	within netip.Prefix // --ip-range of this network; zero: all of prefix

	host    string
	network network.ID // empty until it is created
	static  bool       // only explicit addresses
}

// pair names the pool that it is a part of.
func (h handle) pair() string { return h.sw + " " + familyKey(h.prefix.Addr().Is6()) }

func (h handle) key() string { return handlePrefix + h.id }

func (h handle) value() string {
	nid, within, mode := "-", "-", "-"
	if h.network != "" {
		nid = string(h.network)
	}
	if h.within.IsValid() {
		within = h.within.String()
	}
	if h.static {
		mode = "static"
	}
	return strings.Join([]string{h.host, nid, h.prefix.String(), within, mode}, " ")
}

func parseHandle(sw, key, value string) (h handle, ok bool) {
	id, ok := strings.CutPrefix(key, handlePrefix)
	f := strings.Fields(value)
	if !ok || len(f) != 5 {
		return h, false
	}
	h = handle{id: id, sw: sw, host: f[0], static: f[4] == "static"}
	if f[1] != "-" {
		h.network = network.ID(f[1])
	}
	var err error
	if h.prefix, err = netip.ParsePrefix(f[2]); err != nil {
		return h, false
	}
	h.within, _ = netip.ParsePrefix(f[3])
	return h, true
}

// handles are those of a book.
func (d *dhcpOptions) handles() (list []handle) {
	for _, key := range slices.Sorted(maps.Keys(d.ExternalIDs)) {
		if h, ok := parseHandle(d.ExternalIDs[keySwitch], key, d.ExternalIDs[key]); ok {
			list = append(list, h)
		}
	}
	return list
}

// handle returns the one of that id; false if there is none.
func (d *dhcpOptions) handle(id string) (handle, bool) {
	return parseHandle(d.ExternalIDs[keySwitch], handlePrefix+id, d.ExternalIDs[handlePrefix+id])
}

// books are all of them, by switch.
func books(v ovsdb.View) (list []*dhcpOptions) {
	for _, d := range ovsdb.All[*dhcpOptions](v) {
		if d.ExternalIDs[keyRole] == roleBook {
			list = append(list, d)
		}
	}
	slices.SortFunc(list, func(a, b *dhcpOptions) int {
		return strings.Compare(a.ExternalIDs[keySwitch], b.ExternalIDs[keySwitch])
	})
	return list
}

func (h handle) poolID() ipam.PoolID {
	id := poolPrefix + h.id + "/" + url.PathEscape(h.sw) + "/" + h.prefix.String()
	if h.within.IsValid() {
		id += "/" + h.within.String()
	}
	return ipam.PoolID(id)
}

// parsePoolID reads what poolID has written, of which Docker keeps a copy.
func parsePoolID(id ipam.PoolID) (h handle, err error) {
	parts := strings.Split(string(id), "/")
	if !Shared(id) || len(parts) != 5 && len(parts) != 7 || parts[1] == "" || ofPools(parts[1]) {
		return h, fmt.Errorf("unknown address pool %s", id)
	}
	h.id = parts[1]
	if h.sw, err = url.PathUnescape(parts[2]); err != nil {
		return h, fmt.Errorf("unknown address pool %s: %w", id, err)
	}
	if h.prefix, err = netip.ParsePrefix(parts[3] + "/" + parts[4]); err == nil && len(parts) == 7 {
		h.within, err = netip.ParsePrefix(parts[5] + "/" + parts[6])
	}
	if err != nil {
		return h, fmt.Errorf("unknown address pool %s: %w", id, err)
	}
	return h, nil
}

// pool is the handle as Docker's side sees it.
func (h handle) pool() ipam.Pool {
	return ipam.Pool{ID: h.poolID(), Prefix: h.prefix, Range: h.within, Network: string(h.network), Static: h.static}
}

func ipKey(a netip.Addr) string { return ipPrefix + a.String() }

func refKey(a netip.Addr, handle string) string { return refPrefix + a.String() + " " + handle }

// bookedBy is the handle that has a booking, and its host; empty if it is for all.
func bookedBy(value string) (handle, host string) {
	handle, host, ok := strings.Cut(value, " ")
	if !ok {
		return "", ""
	}
	return handle, host
}

// otherRef is the key of another reference to an address, empty if there is none.
func (d *dhcpOptions) otherRef(addr, handle string) string {
	for key := range d.ExternalIDs {
		rest, ok := strings.CutPrefix(key, refPrefix)
		if a, h, _ := strings.Cut(rest, " "); ok && a == addr && h != handle {
			return key
		}
	}
	return ""
}

// freeing returns what takes the booking of an address by a handle away; nothing if
// there is none.
func (d *dhcpOptions) freeing(a netip.Addr, id string) []ovsdb.Operation {
	who, ref := d.ExternalIDs[ipKey(a)], refKey(a, id)
	if h, _ := bookedBy(who); h == id {
		return []ovsdb.Operation{strike(d, map[string]string{ipKey(a): who})}
	}
	host, has := d.ExternalIDs[ref]
	if !has {
		return nil
	}
	gone := map[string]string{ref: host}
	if other := d.otherRef(a.String(), id); other != "" {
		return []ovsdb.Operation{d.includes(map[string]string{other: d.ExternalIDs[other]}), strike(d, gone)}
	}
	if who != "" {
		gone[ipKey(a)] = who
	}
	return []ovsdb.Operation{unchanged(d), strike(d, gone)}
}

// without returns what takes a handle away with all its bookings, and with the last
// of a family the prefix of the pool.
func (d *dhcpOptions) without(id string) []ovsdb.Operation {
	h, known := d.handle(id)
	gone := make(map[string]string)
	shared := false
	for key, value := range d.ExternalIDs {
		if by, _ := bookedBy(value); by == id && strings.HasPrefix(key, ipPrefix) || key == handlePrefix+id {
			gone[key] = value
		}
		rest, ok := strings.CutPrefix(key, refPrefix)
		if addr, by, _ := strings.Cut(rest, " "); ok && by == id {
			gone[key], shared = value, true
			if who, has := d.ExternalIDs[ipPrefix+addr]; has && d.otherRef(addr, id) == "" {
				gone[ipPrefix+addr] = who
			}
		}
	}
	if known && !slices.ContainsFunc(d.handles(), func(o handle) bool {
		return o.id != id && o.prefix.Addr().Is6() == h.prefix.Addr().Is6()
	}) {
		shared = true
		if key := familyKey(h.prefix.Addr().Is6()); d.ExternalIDs[key] != "" {
			gone[key] = d.ExternalIDs[key]
		}
	}
	switch {
	case len(gone) == 0:
		return nil
	case shared: // others may be at it, too
		return []ovsdb.Operation{unchanged(d), strike(d, gone)}
	}
	return []ovsdb.Operation{strike(d, gone)}
}

// includes makes the transaction fail unless the book has these pairs.
func (d *dhcpOptions) includes(pairs map[string]string) ovsdb.Operation {
	where := append(ovsdb.ByUUID(d.UUID), ovsdb.Condition{Column: "external_ids", Function: "includes", Value: ovsdb.StringMap(pairs)})
	return ovsdb.Is("DHCP_Options", where, ovsdb.Values{"cidr": d.CIDR})
}
