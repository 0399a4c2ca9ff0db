//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// FleetOptions says what a fleet is made of. The zero value: a central of one
// host without TLS, and hosts without docker.
type FleetOptions struct {
	RAFT          bool // three central hosts
	TLS           bool
	ElectionTimer time.Duration // see [Central]

	Encap      string // see [Chassis]
	MonitorAll bool

	Docker     bool
	DockerArgs []string
	Image      string // a tar file, imported as "lab"

	Root        string   // suite of the hosts, as [Suite] finds it; empty: the machine's own system
	CentralRoot string   // the same for the central
	Host        []Option // more for each host, but not for the central
}

// Fleet is a central and the chassis that belong to it.
type Fleet struct {
	Central []*Host // hc, or r1 to r3
	Hosts   []*Host // h1 and so on
	NB, SB  string  // how to connect to the databases
	PKI     *PKI    // nil without TLS

	opts    FleetOptions
	members []string
}

const maxFleet = 99

// underlayIP is the address of host number i, counted from 0: h1 is 10.99.0.1.
func underlayIP(i int) string { return fmt.Sprintf("10.99.0.%d", i+1) }

// Fleet starts n hosts and a central, with everything that runs on them, in
// parallel. The hosts have the addresses 10.99.0.1 and so on, the central
// 10.99.0.100, or its members 10.99.0.101 to 103. On each host
// external_ids:ovn-nb of Open_vSwitch is where the northbound database is, and with
// TLS Open vSwitch has the host's key. It returns when all chassis are registered. Hosts that are there already keep
// what they have, and only what does not run is started.
func (l *Lab) Fleet(ctx context.Context, n int, o FleetOptions) (*Fleet, error) {
	if n < 0 || n > maxFleet {
		return nil, fmt.Errorf("a fleet of %d: want at most %d hosts", n, maxFleet)
	}
	f := &Fleet{Hosts: make([]*Host, n), opts: o}
	if o.TLS {
		pki, err := NewPKI(filepath.Join(l.dir, "pki"))
		if err != nil {
			return nil, err
		}
		f.PKI = pki
	}
	names := []string{"hc"}
	if o.RAFT {
		names = []string{"r1", "r2", "r3"}
		f.members = []string{"10.99.0.101", "10.99.0.102", "10.99.0.103"}
	}
	f.Central = make([]*Host, len(names))
	f.NB, f.SB = f.central(0).NB(), f.central(0).SB()

	// The switch first: it would be booted by one of many at the same time.
	if _, err := l.theSwitch(ctx); err != nil {
		return nil, err
	}
	g, ctx2 := errgroup.WithContext(ctx)
	central := make(chan struct{}) // closed when it is there
	g.Go(func() error {
		if err := f.startCentral(ctx2, l, names); err != nil {
			return err
		}
		close(central)
		return nil
	})
	for i := range n {
		g.Go(func() (err error) {
			if f.Hosts[i], err = f.boot(ctx2, l, fmt.Sprintf("h%d", i+1), o.Root, o.Host); err != nil {
				return err
			}
			return f.startHost(ctx2, i, central)
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return f, f.registered(ctx)
}

// Start boots a host of the fleet that is off, and starts on it what does not
// run: after a power cut, or when something was killed.
func (f *Fleet) Start(ctx context.Context, h *Host) error {
	if h.NSPID() == 0 {
		if err := h.Boot(ctx); err != nil {
			return err
		}
	}
	if i := slices.Index(f.Central, h); i >= 0 {
		return f.startMember(ctx, i)
	}
	i := slices.Index(f.Hosts, h)
	if i < 0 {
		return fmt.Errorf("host %s does not belong to the fleet", h.name)
	}
	there := make(chan struct{})
	close(there)
	return f.startHost(ctx, i, there)
}

// Leader is the member of the central that leads a database, NB or SB, or nil
// when there is none just now. A central of one host leads always.
func (f *Fleet) Leader(ctx context.Context, db string) *Host {
	if f.members == nil {
		return f.Central[0]
	}
	for _, h := range f.Central {
		if h.NSPID() != 0 && h.Leads(ctx, db) {
			return h
		}
	}
	return nil
}

// CentralOf is what [Host.StartNB] and its like are to be called with for a
// member of the central.
func (f *Fleet) CentralOf(h *Host) Central { return f.central(slices.Index(f.Central, h)) }

func (f *Fleet) central(i int) Central {
	c := Central{Addr: "10.99.0.100", Members: f.members, PKI: f.PKI, ElectionTimer: f.opts.ElectionTimer}
	if f.members != nil {
		c.Addr = f.members[i]
	}
	return c
}

// boot returns the host of that name, running.
func (f *Fleet) boot(ctx context.Context, l *Lab, name, suite string, opts []Option) (*Host, error) {
	opts = slices.Clone(opts)
	if suite != "" {
		root, err := Suite(suite)
		if err != nil {
			return nil, err
		}
		opts = append(opts, WithRoot(root))
	}
	return l.running(ctx, name, opts...)
}

func (f *Fleet) startCentral(ctx context.Context, l *Lab, names []string) error {
	g, ctx2 := errgroup.WithContext(ctx)
	for i, name := range names {
		g.Go(func() (err error) {
			f.Central[i], err = f.boot(ctx2, l, name, f.opts.CentralRoot, nil)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i := range names { // one after the other: they join a cluster one at a time
		if err := f.startMember(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

func (f *Fleet) startMember(ctx context.Context, i int) error {
	h, c := f.Central[i], f.central(i)
	if err := h.Address(ctx, "eth0", c.Addr+"/24"); err != nil {
		return err
	}
	return h.StartCentral(ctx, c)
}

func (f *Fleet) startHost(ctx context.Context, i int, central <-chan struct{}) error {
	h := f.Hosts[i]
	g, ctx2 := errgroup.WithContext(ctx)
	if f.opts.Docker {
		g.Go(func() error { return f.startDocker(ctx2, h) })
	}
	g.Go(func() error { return f.startChassis(ctx2, i, central) })
	return g.Wait()
}

func (f *Fleet) startChassis(ctx context.Context, i int, central <-chan struct{}) error {
	h := f.Hosts[i]
	if err := h.StartOVS(ctx); err != nil {
		return err
	}
	if err := h.Underlay(ctx, underlayIP(i)+"/24"); err != nil {
		return err
	}
	// Not before the central is there: ovn-controller would wait longer and
	// longer between its attempts.
	select {
	case <-central:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	set := []string{"ovs-vsctl", "--timeout=10", "set", "Open_vSwitch", ".", "external_ids:ovn-nb=" + f.NB}
	if f.PKI != nil {
		set = append(set, "--", "set-ssl", KeyFile, CertFile, CAFile)
	}
	if _, err := h.Run(ctx, set...); err != nil {
		return err
	}
	return h.StartController(ctx, f.chassis(i))
}

// ChassisOf is what [Host.StartController] is to be called with for a host.
func (f *Fleet) ChassisOf(h *Host) Chassis { return f.chassis(slices.Index(f.Hosts, h)) }

func (f *Fleet) chassis(i int) Chassis {
	return Chassis{SB: f.SB, EncapIP: underlayIP(i), EncapType: f.opts.Encap, PKI: f.PKI, MonitorAll: f.opts.MonitorAll}
}

func (f *Fleet) startDocker(ctx context.Context, h *Host) error {
	if err := h.StartDocker(ctx, f.opts.DockerArgs...); err != nil {
		return err
	}
	if f.opts.Image == "" {
		return nil
	}
	if _, err := h.Run(ctx, "docker", "image", "inspect", "lab"); err == nil {
		return nil
	}
	return h.ImportImage(ctx, f.opts.Image, "lab")
}

// registered waits until the southbound database knows all hosts.
func (f *Fleet) registered(ctx context.Context) error {
	var missing []string
	err := poll(ctx, ovnTimeout, "all chassis are registered", func() (bool, error) {
		out, err := f.Central[0].Run(ctx, "ovn-sbctl", "--timeout=5", "--no-leader-only", "--bare", "--columns=name", "list", "Chassis")
		if err != nil {
			return false, nil // not yet
		}
		known := strings.Fields(out)
		missing = missing[:0]
		for _, h := range f.Hosts {
			if !slices.Contains(known, h.name) {
				missing = append(missing, h.name)
			}
		}
		return len(missing) == 0, nil
	})
	if err != nil {
		return errors.Join(err, fmt.Errorf("missing: %s", strings.Join(missing, ", ")))
	}
	return nil
}

// running returns the host of that name, and makes or boots it if need be.
func (l *Lab) running(ctx context.Context, name string, opts ...Option) (*Host, error) {
	if h := l.Hosts()[name]; h != nil && h.NSPID() != 0 {
		return h, nil
	}
	return l.Host(ctx, name, opts...)
}
