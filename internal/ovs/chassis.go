package ovs

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// Await implements network.Fabric. A port on a plain bridge that Apply has proved
// carries traffic; one of a logical switch does once ovn-controller has installed
// its flows and says so (ovn-controller(8), external_ids:ovn-installed).
func (f *Fabric) Await(ctx context.Context, n network.Network, id network.EndpointID) error {
	if n.Config.OVN == nil {
		return nil
	}
	ep, _ := n.Endpoint(id)
	host, _ := id.Links()
	var mirror string
	err := f.db.Wait(ctx, func(v ovsdb.View) (bool, error) {
		i := findIface(v, host)
		if i == nil {
			return false, errors.New("its port vanished from the database")
		}
		if !ep.Observer && !installed(i) {
			return false, nil
		}
		mirror = uncopied(v, n, ep)
		return mirror == "", nil
	})
	if err != nil && mirror != "" {
		return &UncopiedError{mirror, err}
	}
	return err
}

// UncopiedError is of a port that works, and that a mirror of OVN does not copy or does
// not copy to.
type UncopiedError struct {
	Mirror string
	Err    error
}

func (e *UncopiedError) Error() string { return "mirror " + e.Mirror + ": " + e.Err.Error() }
func (e *UncopiedError) Unwrap() error { return e.Err }

// Routes implements network.Fabric: a bridge has no router.
func (f *Fabric) Routes(network.Network) []netip.Prefix { return nil }

// Choose implements network.Fabric: a bridge has no addresses to give.
func (f *Fabric) Choose(context.Context, network.Network, network.Endpoint) ([]netip.Prefix, error) {
	return nil, errors.New("a bridge has no addresses to give")
}

// keysInstalled are ovn-controller's own on an Interface.
var keysInstalled = []string{"ovn-installed", "ovn-installed-ts"}

func installed(i *iface) bool { return i != nil && i.ExternalIDs["ovn-installed"] == "true" }

// sameIDs compares external_ids of an Interface but for what ovn-controller notes
// in them.
func sameIDs(a, b map[string]string) bool {
	a, b = maps.Clone(a), maps.Clone(b)
	for _, k := range keysInstalled {
		delete(a, k)
		delete(b, k)
	}
	return maps.Equal(a, b)
}

// Chassis is what Open vSwitch's database tells OVN of this host
// (ovn-controller(8)).
type Chassis struct {
	Settings map[string]string // external_ids of Open_vSwitch
	Bridge   string            // OVN's, whether it is there or not
	There    bool              // it is there and works
	Plain    bool              // it is there and has ports, but OVN has not taken it
	SSL      *SSL              // nil: not set up

	uuid string
}

// SSL is where ovn-controller finds its key and certificates.
type SSL struct{ Key, Certificate, CA string }

// Name is the chassis' name, empty if it has none.
func (c Chassis) Name() string { return c.Settings["system-id"] }

// Chassis returns what is set up now.
func (f *Fabric) Chassis() (Chassis, error) {
	v, err := f.db.View()
	if err != nil {
		return Chassis{}, err
	}
	r := root(v)
	if r == nil {
		return Chassis{}, errors.New("database Open_vSwitch is empty")
	}
	c := Chassis{Settings: maps.Clone(r.ExternalIDs), Bridge: defaultBridge, uuid: r.UUID}
	if name := r.ExternalIDs["ovn-bridge"]; name != "" {
		c.Bridge = name
	}
	b := findBridge(v, c.Bridge)
	c.There = b != nil && deref(b.DatapathID) != ""
	c.Plain = b != nil && !ovnHas(v, b) && len(portsOf(v, b)) > 0
	for _, s := range ovsdb.All[*ssl](v) {
		c.SSL = &SSL{Key: s.PrivateKey, Certificate: s.Certificate, CA: s.CACert}
	}
	return c, nil
}

// Complete fills in settings of the chassis that are missing. Those that are set
// stay, also if they were set in this moment.
func (f *Fabric) Complete(ctx context.Context, c Chassis, settings map[string]string) error {
	// Inserting into a map does not replace a key (RFC 7047, section 5.1).
	_, err := f.write(ctx, []ovsdb.Operation{{Op: "mutate", Table: "Open_vSwitch", Where: ovsdb.ByUUID(c.uuid), Mutations: []ovsdb.Mutation{
		{Column: "external_ids", Mutator: "insert", Value: ovsdb.StringMap(settings)},
	}}}, nil)
	return err
}

// AwaitChassis waits until cond is true of the chassis.
func (f *Fabric) AwaitChassis(ctx context.Context, limit time.Duration, cond func(Chassis) bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return f.db.Wait(ctx, func(ovsdb.View) (bool, error) {
		c, err := f.Chassis()
		return err == nil && cond(c), nil
	})
}

// Datapath is the type of bridges made on this host: system, the kernel's, where
// that works, else netdev.
func (f *Fabric) Datapath() (string, error) {
	v, err := f.db.View()
	if err != nil {
		return "", err
	}
	r := root(v)
	if r == nil {
		return "", errors.New("database Open_vSwitch is empty")
	}
	return f.datapath(r), nil
}
