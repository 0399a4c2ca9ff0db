package ovn

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ovs-container-network/ovs-container-network/internal/link"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovs"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// Fabric implements network.Fabric for networks on logical switches and, through
// the Fabric it embeds, for those on plain bridges.
type Fabric struct {
	*ovs.Fabric
	cfg   Config
	nb    *ovsdb.DB
	log   *slog.Logger
	dirty func(...network.ID)

	settled *network.Settled
	suspect network.Suspects
	used    atomic.Bool  // the northbound database was needed
	mirrors atomic.Bool  // OVN is to copy to observers; see chooseMirrors
	shaken  atomic.Int64 // when everything was last taken for unsettled by Prune, in Unix seconds

	mu         sync.Mutex // guards the following
	copied     map[network.ID]bool
	controller struct { // what ovn-controller said, and when its process wrote its pid
		version string
		since   time.Time
	}
}

// Config is what a Fabric works with.
type Config struct {
	Local  *ovs.Fabric
	Links  *link.Kernel
	HostID string
	// NB are the endpoints of the northbound database with commas between; empty:
	// what external_ids:ovn-nb of Open vSwitch says, else the socket in RunDir.
	NB     string
	TLS    TLS
	RunDir string // OVN's, /run/ovn
	Log    *slog.Logger
	// Dirty is told of networks whose reality changed, none meaning all.
	Dirty func(...network.ID)
}

// TLS names the files for ssl: endpoints; empty: those of ovn-controller, in the
// table SSL of Open vSwitch.
type TLS struct{ Key, Certificate, CA string }

// New makes a Fabric around that of this host's Open vSwitch. The northbound
// database is not connected to before a network needs it.
func New(cfg Config) (*Fabric, error) {
	f := &Fabric{Fabric: cfg.Local, cfg: cfg, log: cfg.Log, dirty: cfg.Dirty, settled: network.NewSettled(), copied: make(map[network.ID]bool)}
	db, err := ovsdb.New(ovsdb.Config{
		Remote: f.remote, OnDemand: true, Database: "OVN_Northbound", Tables: tables(cfg.HostID), Log: cfg.Log,
		Changed: f.rowChanged, Synced: f.synced,
	})
	f.nb = db
	return f, err
}

// Run keeps both fabrics going until ctx ends.
func (f *Fabric) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return f.Fabric.Run(ctx) })
	g.Go(func() error { return f.nb.Run(ctx) })
	return g.Wait()
}

// NB tells whether the northbound database is needed and reached, where, since
// when, and if not, why.
func (f *Fabric) NB() (endpoint string, used, connected bool, since time.Time, err error) {
	connected, since, err = f.nb.State()
	return f.nb.Endpoint(), f.used.Load(), connected, since, err
}

// Ready implements network.Fabric.
func (f *Fabric) Ready(ctx context.Context, cfg network.Config) error {
	if err := f.Fabric.Ready(ctx, cfg); err != nil || cfg.OVN == nil {
		return err
	}
	if err := f.ensureChassis(ctx, cfg.OVN.Encap); err != nil {
		return err
	}
	f.start()
	defer network.Outside(ctx)()
	return f.nb.Ready(ctx)
}

// start has the northbound database connected from now on.
func (f *Fabric) start() {
	f.used.Store(true)
	f.nb.Start()
}

// write makes a change in the northbound database, in groups that do not depend on
// each other.
func (f *Fabric) write(ctx context.Context, groups ...[]ovsdb.Operation) []error {
	defer f.Outside(ctx, network.ForNorthbound)()
	errs := make([]error, len(groups))
	for i, out := range f.nb.CommitEach(ctx, groups, nil) {
		errs[i] = out.Err
	}
	return errs
}

// changed tells whether err says that the database was no longer what an operation
// on one of these tables counted on.
func changed(err error, tables ...string) bool {
	var refused *ovsdb.TransactError
	return errors.As(err, &refused) && refused.Op.Op == "wait" && slices.Contains(tables, refused.Op.Table)
}

// remote says where the northbound database is.
func (f *Fabric) remote() (ovsdb.Remote, error) {
	c, err := f.Chassis()
	if err != nil {
		return ovsdb.Remote{}, err
	}
	endpoints, err := f.endpoints(c)
	if err != nil {
		return ovsdb.Remote{}, err
	}
	r := ovsdb.Remote{Endpoints: endpoints}
	if slices.ContainsFunc(endpoints, usesTLS) {
		if r.TLS, err = f.tlsConfig(c); err != nil {
			return r, err
		}
	}
	return r, nil
}

// synced has everything looked at anew, leftovers too: the database may be an old
// copy of itself.
func (f *Fabric) synced() {
	f.settled.Clear()
	f.dirty()
	f.dirty("")
}

// rowChanged turns changes of rows into repairs.
func (f *Fabric) rowChanged(old, row ovsdb.Row) {
	switch o := old.(type) {
	case *logicalPort:
		n, _ := row.(*logicalPort)
		if o.ExternalIDs[network.KeyHostID] != f.cfg.HostID {
			if n == nil {
				f.synced() // a part of a switch
			}
			return
		}
		f.settled.Touch(network.EndpointID(o.ExternalIDs[network.KeyEndpointID]))
		f.dirty(network.ID(o.ExternalIDs[network.KeyNetworkID]))
	case *logicalSwitch:
		n, _ := row.(*logicalSwitch)
		if n == nil || !holds(n.ExternalIDs, o.claimsOf(f.cfg.HostID)) || n.Name != o.Name {
			f.synced()
		}
	case *dhcpOptions:
		if row == nil {
			f.synced()
		}
	case *mirror:
		f.dirty(network.ID(o.ExternalIDs[network.KeyNetworkID]))
	}
}

// claimsOf are the claims of one host.
func (s *logicalSwitch) claimsOf(hostID string) map[string]string {
	mine := s.claims()
	for k := range mine {
		if !ofHost(k, hostID) {
			delete(mine, k)
		}
	}
	return mine
}

var _ network.Fabric = (*Fabric)(nil)

// errAmbiguous is of a switch whose name several have.
func errAmbiguous(name string, n int) error {
	return fmt.Errorf("%d logical switches are named %s: rename all but one (ovn-nbctl ls-list; ovn-nbctl set Logical_Switch UUID name=…)", n, name)
}

func (f *Fabric) tlsConfig(c ovs.Chassis) (*tls.Config, error) {
	files := f.cfg.TLS
	if files == (TLS{}) && c.SSL != nil {
		files = TLS(*c.SSL)
	}
	return loadTLS(files)
}
