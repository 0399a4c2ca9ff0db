package ovn

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/ovs"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// The southbound database is what all chassis have in common. It is large, and
// nothing here needs to follow it: it is visited when somebody asks.
const southbound = "OVN_Southbound"

// Fleet is what the southbound database tells of the chassis in one moment.
type Fleet struct {
	Chassis []Member // by name
	Northd  string   // version of ovn-northd, as it says itself
	// Mute is set where chassis were told not to answer (ovn-nb(5),
	// enable_chassis_nb_cfg_update): whether they live cannot be seen.
	Mute bool

	cfg int // what northd last asked chassis to follow
}

// Member is one chassis.
type Member struct {
	Name, Hostname string
	Here           bool // it is this host
	Encaps         []Tunnel
	Version        string    // of ovn-controller; with a + at least that; empty: not known
	Seen           time.Time // its last sign of life, by its own clock; zero: never, or not known
	Behind         int       // how many changes it has been asked to follow since
}

// Tunnel is where the other chassis send packets to, and how.
type Tunnel struct{ Type, IP string }

// Find returns the chassis of that name.
func (f Fleet) Find(name string) (Member, bool) {
	i := slices.IndexFunc(f.Chassis, func(m Member) bool { return m.Name == name })
	if i < 0 {
		return Member{}, false
	}
	return f.Chassis[i], true
}

// remoteSouth says where the southbound database is: where ovn-controller finds it.
func (f *Fabric) remoteSouth() (ovsdb.Remote, error) {
	c, err := f.Chassis()
	if err != nil {
		return ovsdb.Remote{}, err
	}
	text := c.Settings["ovn-remote"]
	if text == "" {
		return ovsdb.Remote{}, errors.New("this host is no chassis: external_ids:ovn-remote of Open_vSwitch is not set")
	}
	r := ovsdb.Remote{}
	if r.Endpoints, err = ParseEndpoints(text); err != nil {
		return r, fmt.Errorf("external_ids:ovn-remote of Open_vSwitch: %w", err)
	}
	for i, e := range r.Endpoints {
		r.Endpoints[i] = f.seenFromHere(e)
	}
	if slices.ContainsFunc(r.Endpoints, usesTLS) {
		r.TLS, err = f.tlsConfig(c)
	}
	return r, err
}

// seenFromHere translates a socket of the host, whose /run is elsewhere in a managed
// plugin.
func (f *Fabric) seenFromHere(endpoint string) string {
	for _, run := range []string{"unix:/var/run/", "unix:/run/"} {
		if rest, ok := strings.CutPrefix(endpoint, run); ok {
			return "unix:" + filepath.Join(filepath.Dir(f.cfg.RunDir), rest)
		}
	}
	return endpoint
}

// visitSouth calls do with a connection to the southbound database.
func (f *Fabric) visitSouth(ctx context.Context, do func(*ovsdb.Session) error) error {
	r, err := f.remoteSouth()
	if err != nil {
		return err
	}
	return ovsdb.Visit(ctx, r, southbound, do)
}

// Fleet asks the southbound database for all chassis.
func (f *Fabric) Fleet(ctx context.Context) (fleet Fleet, err error) {
	err = f.visitSouth(ctx, func(s *ovsdb.Session) error {
		fleet, err = f.fleet(ctx, s)
		return err
	})
	return fleet, err
}

// followEvery is the pause between two looks at who has followed.
const followEvery = 100 * time.Millisecond

// Followed is Fleet once every chassis has followed what it was asked to, or after
// limit.
func (f *Fabric) Followed(ctx context.Context, limit time.Duration) (fleet Fleet, err error) {
	return f.awaitFleet(ctx, limit, func(fleet Fleet) bool {
		return fleet.Mute || !slices.ContainsFunc(fleet.Chassis, func(m Member) bool { return m.Behind > 0 })
	})
}

// awaitFleet returns the fleet when it is as it should be, or after limit.
func (f *Fabric) awaitFleet(ctx context.Context, limit time.Duration, done func(Fleet) bool) (fleet Fleet, err error) {
	err = f.visitSouth(ctx, func(s *ovsdb.Session) error {
		end := time.NewTimer(limit)
		defer end.Stop()
		for {
			if fleet, err = f.fleet(ctx, s); err != nil || done(fleet) {
				return err
			}
			again := time.NewTimer(followEvery)
			select {
			case <-again.C:
			case <-end.C:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	return fleet, err
}

func (f *Fabric) fleet(ctx context.Context, s *ovsdb.Session) (fleet Fleet, err error) {
	queries := []ovsdb.Query{
		{Table: "SB_Global", Columns: []string{"nb_cfg", "options"}},
		{Table: "Chassis", Columns: chassisColumns(s)},
		{Table: "Encap", Columns: []string{"_uuid", "type", "ip"}},
	}
	// What each chassis has followed is in a table of its own since OVN 20.09, so
	// that not all of them read it.
	private := s.Has("Chassis_Private", "name", "nb_cfg", "nb_cfg_timestamp")
	if private {
		queries = append(queries, ovsdb.Query{Table: "Chassis_Private", Columns: []string{"name", "nb_cfg", "nb_cfg_timestamp"}})
	}
	rows, err := s.Read(ctx, queries...)
	if err != nil {
		return fleet, err
	}
	if len(rows[0]) > 0 {
		fleet.cfg = intOf(rows[0][0]["nb_cfg"])
		options := pairsOf(rows[0][0]["options"])
		fleet.Northd, fleet.Mute = options["northd_internal_version"], options["enable_chassis_nb_cfg_update"] == "false"
	}
	tunnels := make(map[string]Tunnel, len(rows[2]))
	for _, r := range rows[2] {
		for _, id := range uuidsOf(r["_uuid"]) {
			tunnels[id] = Tunnel{textOf(r["type"]), textOf(r["ip"])}
		}
	}
	here := f.chassisName()
	for _, r := range rows[1] {
		m := Member{Name: textOf(r["name"]), Hostname: textOf(r["hostname"]), Version: versionOf(r)}
		m.Here = m.Name == here
		for _, id := range uuidsOf(r["encaps"]) {
			m.Encaps = append(m.Encaps, tunnels[id])
		}
		slices.SortFunc(m.Encaps, func(a, b Tunnel) int { return strings.Compare(a.Type+a.IP, b.Type+b.IP) })
		m.Behind = lag(fleet.cfg, intOf(r["nb_cfg"]))
		fleet.Chassis = append(fleet.Chassis, m)
	}
	if private {
		fleet.follow(rows[3])
	}
	if i := slices.IndexFunc(fleet.Chassis, func(m Member) bool { return m.Here }); i >= 0 {
		if v := f.controllerVersion(ctx); v != "" {
			fleet.Chassis[i].Version = v
		}
	}
	slices.SortFunc(fleet.Chassis, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	return fleet, nil
}

// chassisColumns are those that this version has: features moved from external_ids
// to other_config with OVN 20.06.
func chassisColumns(s *ovsdb.Session) []string {
	columns := []string{"name", "hostname", "encaps", "nb_cfg", "external_ids"}
	if s.Has("Chassis", "other_config") {
		columns = append(columns, "other_config")
	}
	return columns
}

// follow enters what Chassis_Private tells.
func (f *Fleet) follow(rows []ovsdb.Values) {
	for _, r := range rows {
		i := slices.IndexFunc(f.Chassis, func(m Member) bool { return m.Name == textOf(r["name"]) })
		if i < 0 {
			continue
		}
		f.Chassis[i].Behind = lag(f.cfg, intOf(r["nb_cfg"]))
		if ms := intOf(r["nb_cfg_timestamp"]); ms > 0 {
			f.Chassis[i].Seen = time.UnixMilli(int64(ms))
		}
	}
}

// lag is how far a chassis is behind. One that is ahead has followed a database
// that was put back from a backup since.
func lag(asked, followed int) int {
	if followed > asked {
		return 1
	}
	return asked - followed
}

// features that ovn-controller tells of itself, the newest first, with the release
// that brought each. A version it tells nobody but who asks it on its host.
var features = []struct{ name, since string }{
	{"fdb-timestamp", "23.09"},
	{"mac-binding-timestamp", "22.09"},
	{"port-up-notif", "21.03"},
}

func versionOf(chassis ovsdb.Values) string {
	config, ids := pairsOf(chassis["other_config"]), pairsOf(chassis["external_ids"])
	for _, f := range features {
		if config[f.name] == "true" || ids[f.name] == "true" {
			return f.since + "+"
		}
	}
	return ""
}

// controllerVersion is that of this host, empty if it does not say. A process is asked
// until it has answered once.
func (f *Fabric) controllerVersion(ctx context.Context) string {
	var since time.Time
	if info, err := os.Stat(filepath.Join(f.cfg.RunDir, "ovn-controller.pid")); err == nil {
		since = info.ModTime()
	}
	f.mu.Lock()
	known := f.controller
	f.mu.Unlock()
	if known.version != "" && known.since.Equal(since) {
		return known.version
	}
	answer, err := ovs.Appctl(ctx, f.cfg.RunDir, "ovn-controller", "version")
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(answer, "\n")
	known.version, known.since = strings.TrimSpace(strings.TrimPrefix(line, "ovn-controller")), since
	f.mu.Lock()
	defer f.mu.Unlock()
	f.controller = known
	return known.version
}

// Controller tells whether ovn-controller runs here and is connected to the
// southbound database: nil if it is.
func (f *Fabric) Controller(ctx context.Context) error {
	status, err := ovs.Appctl(ctx, f.cfg.RunDir, "ovn-controller", "connection-status")
	if err != nil {
		return err
	}
	if status = strings.TrimSpace(status); status != "connected" {
		c, err := f.Chassis()
		if err != nil {
			return err
		}
		return fmt.Errorf("ovn-controller runs and is %s: it does not reach the southbound database at %s", status, c.Settings["ovn-remote"])
	}
	return nil
}

// HasAddress tells whether a link of this host has an address.
func (f *Fabric) HasAddress(ip netip.Addr) (bool, error) {
	_, ok, err := f.cfg.Links.MTUOf(ip)
	return ok, err
}

// What a value of a row is, as the library decodes it.

func intOf(v any) int {
	switch v := v.(type) {
	case float64:
		return int(v)
	case int:
		return v
	}
	return 0
}

func textOf(v any) string {
	s, _ := v.(string)
	return s
}

func pairsOf(v any) map[string]string {
	m, _ := v.(ovsdb.Map)
	out := make(map[string]string, len(m.GoMap))
	for k, v := range m.GoMap {
		out[textOf(k)] = textOf(v)
	}
	return out
}
