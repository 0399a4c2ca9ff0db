package ovs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/link"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// change is one Apply under way.
type change struct {
	net    network.Network
	view   ovsdb.View
	root   *openVSwitch
	errs   map[network.EndpointID]error
	bridge *bridge
	member map[string]bool // ports of the bridge by UUID; see has
	shield bool            // the bridge is of the userspace datapath

	offload func() link.Offload // of new links

	attach []network.Endpoint // ports to add
	links  []network.Endpoint // links to make or mend
	detach []network.Endpoint // ports to take away, links too when deleting
	again  []network.Endpoint // ports that are broken: take away, then add
	edits  []ovsdb.Operation  // of rows that differ
	minor  []ovsdb.Operation  // of external_ids, which ovs-vswitchd need not see
	check  []network.Endpoint // to be proved after the change
	tended []network.Endpoint // looked at, not settled before
	events uint64             // number of events when it began
}

// Apply implements network.Fabric.
func (f *Fabric) Apply(ctx context.Context, n network.Network) error {
	c, err := f.begin(ctx, n)
	if err != nil {
		return err
	}
	for _, ep := range f.settled.Unsettled(n) {
		f.plan(c, ep)
	}
	if len(c.again) > 0 {
		if err := f.takeOff(ctx, c, c.again); err != nil {
			return err
		}
		c.attach = append(c.attach, c.again...)
	}
	f.makeLinks(c)
	f.step("links made", len(c.links))
	if err := f.commit(ctx, c); err != nil {
		return err
	}
	f.step("ports proved", len(c.check))
	f.removeLinks(c)
	f.step("links given up", len(c.detach))
	f.settled.Settle(n, c.tended, func(id network.EndpointID) bool { return c.errs[id] == nil }, c.events)
	if len(c.errs) > 0 {
		return &network.ApplyError{Endpoints: c.errs}
	}
	return nil
}

// errNotListed ends every look before the first listing of links: what is not
// known yet must not be taken for absent.
var errNotListed = errors.New("the links of this host are not known yet")

// begin looks at the bridge and makes it if it is missing.
func (f *Fabric) begin(ctx context.Context, n network.Network) (*change, error) {
	if !f.allKnown() {
		return nil, errNotListed
	}
	events := f.settled.Mark()
	b, v, err := f.ensureBridge(ctx, n)
	if err != nil {
		return nil, err
	}
	c := &change{net: n, view: v, root: root(v), errs: make(map[network.EndpointID]error), events: events}
	c.offload = sync.OnceValue(func() link.Offload { return offloadOn(v, b) })
	if c.root == nil {
		return nil, fmt.Errorf("database Open_vSwitch is empty")
	}
	if b != nil {
		c.bridge, c.shield = b, b.userspace()
	}
	return c, nil
}

// plan decides what one endpoint needs.
func (f *Fabric) plan(c *change, ep network.Endpoint) {
	c.tended = append(c.tended, ep)
	host, _ := ep.ID.Links()
	p := findPort(c.view, host)
	if p != nil && !(ours(p.ExternalIDs) && p.ExternalIDs[network.KeyEndpointID] == string(ep.ID)) {
		if ep.Phase != network.PhaseJoining && ep.Phase != network.PhaseJoined {
			p = nil // not ours to remove
		} else {
			c.errs[ep.ID] = fmt.Errorf("the port name %s is taken by a port that this driver did not make: remove that port (ovs-vsctl del-port %s)", host, host)
			return
		}
	}
	dev, linked := f.deviceOf(host)
	switch ep.Phase {
	case network.PhaseJoining, network.PhaseJoined:
	case network.PhaseDeleting, network.PhaseParting:
		c.detach = append(c.detach, ep)
		return
	default: // no port wanted; its link goes when it is deleted
		if p != nil {
			c.detach = append(c.detach, ep)
		}
		return
	}

	if !linked && ep.Phase == network.PhaseJoined {
		// Not made anew: the other end was in the container and went with it.
		c.errs[ep.ID] = fmt.Errorf("the link %s of %s is gone: restart the container", host, ep.Title())
		return
	}
	if !linked || !dev.up || ep.Phase == network.PhaseJoining {
		c.links = append(c.links, ep)
	}
	switch {
	case p == nil:
		c.attach = append(c.attach, ep)
	case !c.has(p) || f.broken(c.view, host):
		c.again = append(c.again, ep)
	default:
		c.mend(ep, p, f.port(c, ep))
		if ep.Phase == network.PhaseJoining {
			c.check = append(c.check, ep)
		}
	}
}

// has tells whether a port is on the bridge.
func (c *change) has(p *port) bool {
	if c.member == nil {
		c.member = make(map[string]bool)
		if c.bridge != nil {
			for _, uuid := range c.bridge.Ports {
				c.member[uuid] = true
			}
		}
	}
	return c.member[p.UUID]
}

// broken tells whether ovs-vswitchd has given up on a device that is there, or
// was told to use another one.
func (f *Fabric) broken(v ovsdb.View, host string) bool {
	i := findIface(v, host)
	return i == nil || i.Type != "" || i.OFPort != nil && *i.OFPort < 0 || deref(i.Error) != ""
}

// mend notes what differs between an existing port and what it should be.
func (c *change) mend(ep network.Endpoint, p *port, want network.Port) {
	if want.Logical == "" && !sameVLANs(p, want) {
		c.edits = append(c.edits, setVLANs(p.UUID, want))
	}
	if !contains(p.ExternalIDs, want.ExternalIDs) {
		c.minor = append(c.minor, ovsdb.SetIDs("Port", p.UUID, want.ExternalIDs))
	}
	ids := ifaceIDs(want, ep)
	if i := findIface(c.view, p.Name); i != nil && !contains(i.ExternalIDs, ids) {
		c.minor = append(c.minor, ovsdb.SetIDs("Interface", i.UUID, ids))
	}
}

// makeLinks makes and mends veth pairs. An endpoint whose link fails is left
// out of what follows.
func (f *Fabric) makeLinks(c *change) {
	veths := make([]link.Veth, 0, len(c.links))
	c.links = slices.DeleteFunc(c.links, func(ep network.Endpoint) bool {
		err := checkMTU("driver-opt", c.net.Port(ep).MTU, c.shield)
		if err != nil {
			c.errs[ep.ID] = err
		}
		return err != nil
	})
	for _, ep := range c.links {
		host, peer := ep.ID.Links()
		mac, _ := net.ParseMAC(ep.MAC)
		veths = append(veths, link.Veth{
			Host: host, Peer: peer, PeerMAC: mac, MTU: c.net.Port(ep).MTU, Alias: alias(ep), Shield: c.shield, Offload: c.offload(),
		})
	}
	if len(veths) == 0 {
		return
	}
	failed := f.links.EnsureAll(veths)
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, ep := range c.links {
		if err := failed[veths[i].Host]; err != nil {
			c.errs[ep.ID] = err
			continue
		}
		d := f.devices[veths[i].Host]
		d.up = true
		if ep.Phase == network.PhaseJoining { // else the offloads of its other end are out of reach
			d.offloaded = c.offload() == link.OffloadTCP
		}
		f.devices[veths[i].Host] = d
	}
}

// alias marks a host end as ours and says whose it is.
func alias(ep network.Endpoint) string { return network.Owner + " " + string(ep.ID) }

// commit writes everything in one go, each endpoint a group of its own, and
// waits until ovs-vswitchd has acted on it.
func (f *Fabric) commit(ctx context.Context, c *change) error {
	if len(c.minor) > 0 {
		if _, err := f.write(ctx, c.minor, nil); err != nil {
			return err
		}
	}
	var groups [][]ovsdb.Operation
	var owners []network.Endpoint
	for _, ep := range c.attach {
		if c.errs[ep.ID] == nil {
			host, _ := ep.ID.Links()
			groups = append(groups, addPort(c.net.Config.Bridge, host, f.port(c, ep), ep))
			owners = append(owners, ep)
		}
	}
	for _, ep := range c.detach {
		if ops := removal(c.view, ep); ops != nil {
			groups = append(groups, ops)
			owners = append(owners, ep)
		}
	}
	if len(c.edits) > 0 {
		groups = append(groups, c.edits)
		owners = append(owners, network.Endpoint{})
	}
	var target int
	if len(groups) > 0 {
		end := f.Outside(ctx, network.ForOVSDB)
		outcomes := f.db.CommitEach(ctx, groups, reconfigure(c.root))
		end()
		for i, out := range outcomes {
			switch {
			case out.Err == nil:
				target = max(target, nextCfg(out.Sealed))
			case owners[i].ID == "":
				return out.Err
			default:
				c.errs[owners[i].ID] = out.Err
			}
		}
	}
	f.step("ports added", len(c.attach))
	f.step("ports removed", len(c.detach))
	for _, ep := range c.attach {
		if c.errs[ep.ID] == nil {
			c.check = append(c.check, ep)
		}
	}
	mirrored, err := f.copyPackets(ctx, c)
	if err != nil {
		return err
	}
	target = max(target, mirrored)
	return f.prove(ctx, c, target)
}

// removal takes the endpoint's port away, nil if there is none of ours.
func removal(v ovsdb.View, ep network.Endpoint) []ovsdb.Operation {
	host, _ := ep.ID.Links()
	p := findPort(v, host)
	if p == nil || !ours(p.ExternalIDs) || p.ExternalIDs[network.KeyEndpointID] != string(ep.ID) {
		return nil
	}
	b := bridgeOf(v, p.UUID)
	if b == nil {
		return nil
	}
	return append(mirrorsInto(v, p.UUID), delPort(b, p.UUID))
}

// takeOff removes ports and waits: on the userspace datapath a port that is
// removed and added in one step stays dead.
func (f *Fabric) takeOff(ctx context.Context, c *change, eps []network.Endpoint) error {
	var ops []ovsdb.Operation
	for _, ep := range eps {
		ops = append(ops, removal(c.view, ep)...)
	}
	if len(ops) == 0 {
		return nil
	}
	sealed, err := f.write(ctx, ops, reconfigure(c.root))
	if err != nil {
		return err
	}
	return f.taken(ctx, nextCfg(sealed), nil)
}

func nextCfg(sealed []ovsdb.Result) int {
	if len(sealed) < 2 || len(sealed[1].Rows) == 0 {
		return 0
	}
	switch n := sealed[1].Rows[0]["next_cfg"].(type) {
	case int:
		return n
	case float64:
		return int(n)
	}
	return 0
}

// prove waits until ovs-vswitchd has taken configuration number target, and
// checks the ports in c.check. Ports that were only removed need no proof: they
// are gone from the database, and ovs-vswitchd follows in its own time.
func (f *Fabric) prove(ctx context.Context, c *change, target int) error {
	if len(c.check) == 0 {
		if len(c.edits) == 0 {
			return nil
		}
		return f.taken(ctx, target, nil)
	}
	verdicts := make(map[network.EndpointID]error, len(c.check))
	err := f.taken(ctx, target, func(v ovsdb.View) bool {
		clear(verdicts)
		settled := true
		for _, ep := range c.check {
			host, _ := ep.ID.Links()
			err, final := judge(findIface(v, host))
			verdicts[ep.ID] = err
			settled = settled && final
		}
		return settled
	})
	for _, ep := range c.check {
		if err != nil && verdicts[ep.ID] == nil {
			verdicts[ep.ID] = err
		}
		if verdicts[ep.ID] == nil {
			verdicts[ep.ID] = f.deviceThere(ep)
		}
		if verdicts[ep.ID] != nil {
			c.errs[ep.ID] = verdicts[ep.ID]
		}
	}
	return nil
}

func (f *Fabric) deviceThere(ep network.Endpoint) error {
	host, _ := ep.ID.Links()
	info, ok, err := f.links.Get(host)
	switch {
	case err != nil:
		return err
	case !ok || !info.Up:
		return fmt.Errorf("the device %s is not there or not up", host)
	}
	return nil
}

// judge reads what ovs-vswitchd made of an interface. Not final means that it
// has not said anything yet, or may still change its mind.
func judge(i *iface) (err error, final bool) {
	switch {
	case i == nil:
		return errors.New("its port vanished from the database"), false
	case deref(i.Error) != "":
		return fmt.Errorf("ovs-vswitchd refused the port: %s", *i.Error), true
	case i.OFPort == nil:
		return errors.New("ovs-vswitchd has not made the port: see whether the bridge works (ovs-vsctl show, ovs-vswitchd.log)"), false
	case *i.OFPort < 0:
		return errors.New("ovs-vswitchd could not open the device"), true
	}
	return nil, true
}

// lingerFor is how long verdicts may be missing after cur_cfg was reached: both
// come in one update, but the cache takes its tables one by one.
const lingerFor = time.Second

// taken waits until ovs-vswitchd has taken configuration number target and then
// for until, if given, a little longer.
func (f *Fabric) taken(ctx context.Context, target int, until func(ovsdb.View) bool) error {
	defer f.Outside(ctx, network.ForVswitchd)()
	budget, cancel := context.WithTimeout(ctx, f.db.Budget(f.served.Load()))
	defer cancel()
	err := f.db.Wait(budget, func(v ovsdb.View) (bool, error) {
		r := root(v)
		return r != nil && r.CurCfg >= target, nil
	})
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		f.silent.Store(true)
		return errors.New("ovs-vswitchd has not acted on the change: is it running? (systemctl status openvswitch-switch)")
	}
	if err != nil || until == nil {
		return err
	}
	f.served.Store(true)
	linger, cancel := context.WithTimeout(ctx, lingerFor)
	defer cancel()
	err = f.db.Wait(linger, func(v ovsdb.View) (bool, error) { return until(v), nil })
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil // until has left its verdict
	}
	return err
}

// removeLinks hands the links of deleted endpoints whose port is gone to the
// reaper. Ports are not waited for: names of links are never used again, so the
// userspace datapath cannot take a new link for the old one.
func (f *Fabric) removeLinks(c *change) {
	for _, ep := range c.detach {
		if ep.Phase != network.PhaseDeleting && ep.Phase != network.PhaseParting || c.errs[ep.ID] != nil {
			continue
		}
		host, _ := ep.ID.Links()
		if _, linked := f.deviceOf(host); linked {
			f.reap(doomed{host: host, alias: alias(ep), network: c.net.ID})
			c.errs[ep.ID] = network.ErrLingering
		}
	}
}
