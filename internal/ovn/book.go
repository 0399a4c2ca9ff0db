package ovn

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// The book of a switch is a row of DHCP_Options to which no port refers, so that
// northd makes nothing of it. Its external_ids hold, beside what it is, one pair
// for each address and MAC address that is in use on the switch: the address, and
// who has it. Inserting into a map leaves a key that is there as it is (RFC 7047,
// section 5.1), and the wait that follows fails when it was: a test-and-set that
// any number of hosts can do at once. What else is in a book, pools.go tells.

// bookCIDR is the cidr of every book, by which a transaction can tell that there is
// none yet.
const bookCIDR = "0.0.0.0/0"

func bookIDs(sw string) map[string]string {
	return map[string]string{network.KeyOwner: network.Owner, keyRole: roleBook, keySwitch: sw}
}

func bookIs(sw string) []ovsdb.Condition {
	return []ovsdb.Condition{{Column: "external_ids", Function: "includes", Value: ovsdb.StringMap(bookIDs(sw))}}
}

// newBook inserts the book of a switch, unless there is one.
func newBook(sw string, entries map[string]string) []ovsdb.Operation {
	ids := bookIDs(sw)
	maps.Copy(ids, entries)
	return []ovsdb.Operation{
		ovsdb.IsNot("DHCP_Options", bookIs(sw), ovsdb.Values{"cidr": bookCIDR}),
		ovsdb.Insert("DHCP_Options", "book", ovsdb.Values{"cidr": bookCIDR, "external_ids": ovsdb.StringMap(ids)}),
	}
}

// unchanged makes the transaction fail unless a book holds what it was seen to hold.
func unchanged(book *dhcpOptions) ovsdb.Operation {
	return ovsdb.Is("DHCP_Options", ovsdb.ByUUID(book.UUID), ovsdb.Values{"external_ids": ovsdb.StringMap(book.ExternalIDs)})
}

func findBook(v ovsdb.View, sw string) *dhcpOptions {
	return findPart(v, sw, roleBook)
}

// entries are the pairs of an endpoint in the book of its switch.
func (f *Fabric) entries(ep network.Endpoint) map[string]string {
	port, _ := ep.ID.Links()
	entries := map[string]string{ep.MAC: port + " " + f.cfg.HostID}
	if ep.Lease != nil {
		return entries // whose the address is, its server knows
	}
	for _, a := range ep.Addrs {
		entries[a.Addr().String()] = port + " " + f.cfg.HostID
	}
	return entries
}

// enter books entries, or fails if one of them is somebody else's.
func enter(book *dhcpOptions, entries map[string]string) []ovsdb.Operation {
	return []ovsdb.Operation{
		ovsdb.Mutate("DHCP_Options", ovsdb.ByUUID(book.UUID), ovsdb.Mutation{Column: "external_ids", Mutator: "insert", Value: ovsdb.StringMap(entries)}),
		book.includes(entries),
	}
}

// strike takes entries out of the book, those that are still ours.
func strike(book *dhcpOptions, entries map[string]string) ovsdb.Operation {
	return ovsdb.Mutate("DHCP_Options", ovsdb.ByUUID(book.UUID), ovsdb.Mutation{Column: "external_ids", Mutator: "delete", Value: ovsdb.StringMap(entries)})
}

// stale returns what the book has of this host itself under the keys of entries, for
// endpoints that it no longer knows. What another host has is an error that names,
// for a person, who has it.
func (f *Fabric) stale(ctx context.Context, book *dhcpOptions, entries map[string]string) (stale map[string]string, err error) {
	rows, err := f.nb.Select(ctx, "DHCP_Options", ovsdb.ByUUID(book.UUID), "external_ids")
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("the book of addresses of logical switch %s was removed", book.ExternalIDs[keySwitch])
	}
	have, _ := rows[0]["external_ids"].(ovsdb.Map)
	stale = make(map[string]string)
	keys := make([]string, 0, len(entries))
	for k := range entries {
		keys = append(keys, k)
	}
	// Addresses first: a MAC address may follow from one.
	slices.SortFunc(keys, func(a, b string) int {
		if isMAC(a) != isMAC(b) {
			return map[bool]int{true: 1, false: -1}[isMAC(a)]
		}
		return strings.Compare(a, b)
	})
	for _, key := range keys {
		who, _ := have.GoMap[key].(string)
		port, host, _ := strings.Cut(who, " ")
		switch {
		case who == "", who == entries[key]:
		case host == f.cfg.HostID:
			// The core knows of no endpoint that has it, or it would have said so.
			stale[key] = who
		default:
			return nil, f.taken(ctx, key, port, host, book.ExternalIDs[keySwitch])
		}
	}
	return stale, nil
}

func (f *Fabric) taken(ctx context.Context, key, port, host, sw string) error {
	what := "address"
	if isMAC(key) {
		what = "MAC address"
	}
	who, where := f.owner(ctx, port, host)
	advice := "give another with --ip, or have the hosts share one pool: --ipam-driver " + network.Owner + " --ipam-opt ovn.switch=" + sw
	if what == "MAC address" {
		advice = "give another with --mac-address"
	}
	return fmt.Errorf("%s %s is already used by %s on %s on logical switch %s: %s", what, key, who, where, sw, advice)
}

// isMAC tells whether an entry of the book is a MAC address.
func isMAC(key string) bool {
	mac, err := net.ParseMAC(key)
	return err == nil && mac.String() == key && len(mac) == 6
}

// owner says for a person who has a port, and where.
func (f *Fabric) owner(ctx context.Context, port, host string) (who, where string) {
	who, where = "port "+port, "host "+host
	rows, err := f.nb.Select(ctx, "Logical_Switch_Port", ovsdb.ByName(port), "external_ids")
	if err == nil && len(rows) == 1 {
		ids, _ := rows[0]["external_ids"].(ovsdb.Map)
		if name, _ := ids.GoMap[network.KeyContainerName].(string); name != "" {
			who = "container " + name
		}
		if name, _ := ids.GoMap[network.KeyHost].(string); name != "" {
			where = "host " + name
		}
	}
	return who, where
}

// dropParts removes what this driver made for a switch that is gone or not its own,
// when nobody is in its book any more.
func (f *Fabric) dropParts(ctx context.Context, v ovsdb.View, name string) error {
	b := findBook(v, name)
	if b != nil && !b.bare() {
		return nil
	}
	var ops []ovsdb.Operation
	if b != nil {
		ops = append(ops, unchanged(b))
	}
	for _, d := range partsOf(v, name) {
		ops = append(ops, ovsdb.Operation{Op: "delete", Table: "DHCP_Options", Where: ovsdb.ByUUID(d.UUID)})
	}
	if len(ops) == 0 {
		return nil
	}
	return f.write(ctx, ops)[0]
}

// holds tells whether have holds every pair of want.
func holds(have, want map[string]string) bool {
	for k, v := range want {
		if got, ok := have[k]; !ok || got != v {
			return false
		}
	}
	return true
}
