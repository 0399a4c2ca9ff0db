package network

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// ID names a network: 64 hex digits from a local Docker, 25 base-36 digits
// from a swarm.
type ID string

// EndpointID names one attachment of a container to a network. Docker makes a
// new one at every start of a container, so names derived from it are never
// reused.
type EndpointID string

// Short is the form for messages.
func (id ID) Short() string { return short(string(id)) }

// Short is the form for messages.
func (id EndpointID) Short() string { return short(string(id)) }

func short(s string) string {
	if len(s) > 12 {
		return s[:12]
	}
	return s
}

// Phase says how far a network or an endpoint is in its life.
type Phase string

// A network is creating until Docker is about to be told that it exists, then
// active. An endpoint is created, joining while its port is being made, joined
// once it was proved to work, and left when its container goes. Both end as
// deleting: a tombstone that lives until nothing of it is left.
//
// Creating and joining found at start mean that the call died with its process.
// Docker asks again for half a minute. A network is undone, and made anew if it
// is asked for; an endpoint is created again, waits for its Join, and is undone
// if that does not come. One that has left is deleted: Docker does so at once, and
// not again if the process that it asked died.
const (
	PhaseCreating Phase = "creating"
	PhaseActive   Phase = "active"
	PhaseCreated  Phase = "created"
	PhaseJoining  Phase = "joining"
	PhaseJoined   Phase = "joined"
	PhaseLeft     Phase = "left"
	PhaseDeleting Phase = "deleting"

	// PhaseParting is an endpoint that Docker has deleted, of which nothing is left but
	// a lease that is kept for a while (dhcp.release).
	PhaseParting Phase = "parting"
)

// Subnet is one address pool of a network as Docker gave it.
type Subnet struct {
	Prefix  netip.Prefix `json:"prefix"`
	Gateway netip.Addr   `json:"gateway,omitzero"`
	Space   string       `json:"space,omitempty"` // address space of the IPAM driver
}

// Network is the desired state of one network with all its endpoints. It is a
// value: a change makes a new one (With…, Without…), so a reader may keep what
// it was given.
type Network struct {
	ID         ID        `json:"id"`
	Name       string    `json:"name,omitempty"` // known only from Docker's events
	Config     Config    `json:"config"`
	Subnets    []Subnet  `json:"subnets,omitempty"`
	Booked     []Subnet  `json:"booked,omitempty"` // what Docker books addresses from that no container gets (ipam=external)
	Phase      Phase     `json:"phase"`
	OwnsBridge bool      `json:"owns_bridge"`        // the bridge is ours to remove with its last network
	Engine     string    `json:"engine,omitempty"`   // the Docker engine that was seen to have it
	Enforced   bool      `json:"enforced,omitempty"` // our IPAM driver refuses containers without an address (ipam=static)
	Created    time.Time `json:"created"`

	Endpoints map[EndpointID]*Endpoint `json:"-"` // stored one by one; neither the map nor an endpoint ever changes
	Rev       uint64                   `json:"-"` // differs whenever anything but Endpoints does

	// CopiedByOVN says that the observers on this host get their copies from mirrors of
	// OVN. No desire: the fabric of logical switches tells it to the one of bridges.
	CopiedByOVN bool `json:"-"`
}

// Endpoint is the desired state of one attachment.
type Endpoint struct {
	ID          EndpointID        `json:"id"`
	Network     ID                `json:"network"`
	MAC         string            `json:"mac"`
	Addrs       []netip.Prefix    `json:"addrs,omitempty"`
	Booked      []netip.Addr      `json:"booked,omitempty"`        // for it, where Addrs come from outside
	VLAN        *uint16           `json:"vlan,omitempty"`          // of this attachment only; 0 is untagged
	Trunk       *VLANs            `json:"trunk,omitempty"`         // of this attachment only; empty is none
	MTU         int               `json:"mtu,omitempty"`           // of this attachment only
	Secure      *bool             `json:"port_security,omitempty"` // of this attachment only
	Observer    bool              `json:"observer,omitempty"`      // it gets copies (mirror.dest=self), and sends nothing
	ExternalIDs map[string]string `json:"external_ids,omitempty"`
	ClientID    string            `json:"client_id,omitempty"` // towards a DHCP server: given, or the container's name
	OwnMAC      bool              `json:"own_mac,omitempty"`   // MAC was given
	Lease       *Lease            `json:"lease,omitempty"`     // the last one; it holds while Addrs has its address
	Lease6      *Lease6           `json:"lease6,omitempty"`    // the same for IPv6
	Release     time.Time         `json:"release,omitzero"`    // when the lease of a parting one is given back
	Sandbox     string            `json:"sandbox,omitempty"`   // path of the container's network namespace
	Phase       Phase             `json:"phase"`
	Changed     time.Time         `json:"changed"` // when Phase was entered

	ContainerID   string `json:"container_id,omitempty"` // from Docker's events, may stay empty
	ContainerName string `json:"container_name,omitempty"`

	Rev uint64 `json:"-"` // differs whenever anything else does

	// Unsure: an earlier process made it, and may not have told Docker so.
	Unsure bool `json:"-"`
}

// Title names the endpoint for a person: by its container where that is known.
func (e Endpoint) Title() string {
	if e.ContainerName != "" {
		return "container " + e.ContainerName
	}
	return "endpoint " + e.ID.Short()
}

// WithEndpoint returns a copy of n in which e replaces or joins the endpoints.
func (n Network) WithEndpoint(e Endpoint) Network {
	eps := maps.Clone(n.Endpoints) // of pointers: it costs microseconds for a thousand
	if eps == nil {
		eps = make(map[EndpointID]*Endpoint, 1)
	}
	eps[e.ID] = &e
	n.Endpoints = eps
	return n
}

// Endpoint returns an endpoint, and whether there is such.
func (n Network) Endpoint(id EndpointID) (Endpoint, bool) {
	if e := n.Endpoints[id]; e != nil {
		return *e, true
	}
	return Endpoint{}, false
}

// WithoutEndpoint returns a copy of n that lacks id.
func (n Network) WithoutEndpoint(id EndpointID) Network {
	n.Endpoints = maps.Clone(n.Endpoints)
	delete(n.Endpoints, id)
	return n
}

// Port is what the fabric has to make of an endpoint, the network's options
// and the attachment's own merged.
type Port struct {
	VLAN        uint16 // 0 is untagged, or with Trunk none
	Trunk       VLANs  // tagged, beside VLAN as the native one
	MTU         int
	ExternalIDs map[string]string

	// Logical is the logical switch port that it is, empty on a plain bridge. On
	// OVN's bridge flows say what reaches a port, not its VLAN.
	Logical string
	Sink    string // what OVN calls it as the sink of a mirror: an observer's, which is none
	Secure  bool   // it may send only with its own addresses
}

// External_ids keys that the driver writes itself. A user may not give them.
const (
	KeyOwner         = "owner"
	KeyNetworkID     = "network_id"
	KeyNetworkName   = "network_name"
	KeyEndpointID    = "endpoint_id"
	KeyTenantID      = "tenant_id"
	KeyContainerID   = "container_id"
	KeyContainerName = "container_name"
	KeyAttachedMAC   = "attached-mac" // Open vSwitch's own name for it
	KeyOffload       = "offload"      // "on": the container leaves checksums to the switch
	KeyHostID        = "host_id"      // which driver made a row of a database that hosts share
	KeyHost          = "host"         // the same for a person: the name of its chassis

	// Owner is the value of KeyOwner on every row this driver made.
	Owner = "ovs-container-network"
)

// Port returns the port that e needs on n. External_ids whose value is not
// known (yet) are left out, never written empty.
func (n Network) Port(e Endpoint) Port {
	p := Port{MTU: n.Config.MTU, ExternalIDs: n.RowIDs(), Secure: n.Config.PortSecurity}
	p.VLAN, p.Trunk = n.vlans(e)
	if n.Config.OVN != nil {
		p.Logical, _ = e.ID.Links()
	}
	if e.Secure != nil {
		p.Secure = *e.Secure
	}
	if e.Observer {
		p = p.sink()
	}
	if l := e.Lease; l != nil && l.MTU >= MinMTU {
		p.MTU = min(p.MTU, l.MTU)
	}
	if e.MTU != 0 {
		p.MTU = e.MTU
	}
	maps.Copy(p.ExternalIDs, e.ExternalIDs)
	p.ExternalIDs[KeyEndpointID] = string(e.ID)
	for k, v := range map[string]string{KeyContainerID: e.ContainerID, KeyContainerName: e.ContainerName} {
		if v != "" {
			p.ExternalIDs[k] = v
		}
	}
	return p
}

// vlans are the VLAN of e on n without a tag, and those with one.
func (n Network) vlans(e Endpoint) (vlan uint16, trunk VLANs) {
	vlan, trunk = n.Config.VLAN, n.Config.Trunk
	if e.VLAN != nil {
		vlan = *e.VLAN
	}
	if e.Trunk != nil {
		trunk = *e.Trunk
	}
	return vlan, trunk
}

// RowIDs are the external_ids of every row made for n: the owner, the network,
// the tenant and the user's own.
func (n Network) RowIDs() map[string]string {
	ids := map[string]string{}
	maps.Copy(ids, n.Config.ExternalIDs)
	ids[KeyOwner] = Owner
	ids[KeyNetworkID] = string(n.ID)
	if n.Name != "" {
		ids[KeyNetworkName] = n.Name
	}
	if n.Config.TenantID != "" {
		ids[KeyTenantID] = n.Config.TenantID
	}
	return ids
}

// Title names the network for a person.
func (n Network) Title() string {
	if n.Name != "" {
		return "network " + n.Name
	}
	return "network " + n.ID.Short()
}

// Logical are the subnets of the logical switch: those that Docker gave, else those
// that the switch has itself.
func (n Network) Logical() []Subnet {
	if len(n.Subnets) == 0 && n.Config.OVN != nil {
		return n.Config.OVN.Subnets
	}
	return n.Subnets
}

// SortedEndpoints returns the endpoints ordered by id.
func (n Network) SortedEndpoints() []Endpoint {
	list := make([]Endpoint, 0, len(n.Endpoints))
	for _, ep := range n.Endpoints {
		list = append(list, *ep)
	}
	slices.SortFunc(list, func(a, b Endpoint) int { return compare(a.ID, b.ID) })
	return list
}

func compare[T ~string](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Waiting is a container that does not run.
type Waiting struct {
	Container string
	Networks  []ID // of ours
	Elsewhere bool // it is also on a network of another driver that may publish ports
}

// Fabric makes networks real. Every method may be called again with the same
// argument, at any time, and is then harmless.
type Fabric interface {
	// Ready waits until what a network of this kind needs can be reached, within
	// the fabric's own budget: long while it has never been seen since the start,
	// short after.
	Ready(ctx context.Context, cfg Config) error

	// Plan completes the options of n against what is there: default bridge,
	// automatic VLAN, MTU, ownership. It only reads and never waits. others are all
	// networks known, those being created included.
	Plan(n Network, others []Network) (Plan, error)

	// CheckBridge tells what is wrong with the name of a bridge, as Plan would.
	// It only reads and never waits; what cannot be told is no fault.
	CheckBridge(name string) error

	// Apply makes reality equal n with all its endpoints. The error says which
	// endpoints failed if it is an *ApplyError; any other error means all.
	// Apply is called for one network by one caller at a time.
	Apply(ctx context.Context, n Network) error

	// Await waits until the port of an endpoint that Apply made carries traffic. It
	// is called for many at once.
	Await(ctx context.Context, n Network, id EndpointID) error

	// Choose books free addresses of n for an endpoint, one of each family.
	Choose(ctx context.Context, n Network, ep Endpoint) ([]netip.Prefix, error)

	// Routes are what n reaches over a router of the fabric's own. It only reads.
	Routes(n Network) []netip.Prefix

	// Remove takes away what is left of n: its ports and, when keepBridge is
	// false and nobody else has a port on it, the bridge it owns.
	Remove(ctx context.Context, n Network, keepBridge bool) error

	// Prune removes what carries this driver's mark and belongs to nothing in
	// keep, unless a running container still uses it or spare says that it may
	// belong to a record that could not be read. An id that is not known is given
	// to spare as empty. Nothing is removed on the strength of one look: again
	// asks for another one soon.
	Prune(ctx context.Context, keep []Network, spare func(ID, EndpointID) bool) (again bool, err error)

	// Observe reports the state of n as seen now. It only reads.
	Observe(n Network) Status
}

// Plan is what Fabric.Plan found out.
type Plan struct {
	Config     Config
	OwnsBridge bool
}

// ErrLingering is the error of a deleted endpoint in an ApplyError that no longer
// carries traffic, while the rest of it is being removed in the background. The
// fabric calls Dirty when that is done.
var ErrLingering = errors.New("its link is still being removed")

// ApplyError tells which endpoints could not be made real.
type ApplyError struct {
	Endpoints map[EndpointID]error
}

// Unwrap returns the errors of the endpoints, but ErrLingering only if there is
// no other.
func (e *ApplyError) Unwrap() []error {
	var errs []error
	lingers := false
	for _, err := range e.Endpoints {
		if err == ErrLingering {
			lingers = true
		} else {
			errs = append(errs, err)
		}
	}
	if lingers && len(errs) == 0 {
		return []error{ErrLingering}
	}
	return errs
}

func (e *ApplyError) Error() string {
	for id, err := range e.Endpoints {
		if len(e.Endpoints) == 1 {
			return fmt.Sprintf("endpoint %s: %v", id.Short(), err)
		}
		return fmt.Sprintf("%d endpoints failed, one of them %s: %v", len(e.Endpoints), id.Short(), err)
	}
	return "no endpoint failed"
}

// Status is what a fabric observes of one network.
type Status struct {
	Health    string                        `json:"health"` // ok, degraded
	Problems  []Problem                     `json:"problems,omitempty"`
	Notes     []string                      `json:"notes,omitempty"`    // what is in order and surprises
	Datapath  string                        `json:"datapath,omitempty"` // system, netdev
	Mirrors   []MirrorStatus                `json:"mirrors,omitempty"`
	Endpoints map[EndpointID]EndpointStatus `json:"endpoints,omitempty"`
}

// EndpointStatus is what a fabric observes of one endpoint.
type EndpointStatus struct {
	Port   string   `json:"port"`
	OFPort int      `json:"ofport"`
	Linked bool     `json:"linked"` // the host end of its link exists
	Home   bool     `json:"home"`   // the container's end is in the host's namespace
	Health string   `json:"health"` // ok, degraded, detached, removing
	Reason string   `json:"reason,omitempty"`
	Mend   []string `json:"mend,omitempty"`
}

// Problem is something of a network that is not as it should be.
type Problem struct {
	Cause string   `json:"cause"`
	Mend  []string `json:"mend,omitempty"` // commands, or what to do

	Logical bool `json:"-"` // of the logical switch, not of the bridge
}

func (p Problem) String() string { return p.Cause }

// Damage is a record that could not be read. What it describes is reported,
// left alone and never pruned.
type Damage struct {
	Path     string
	Network  ID
	Endpoint EndpointID // empty: the network's own record
	Err      error
}

// Store keeps desired state. Put… returns after the record can no longer be
// lost by a crash of this process; with sync, nor by a power cut. Records that
// could not be read at start are reported by the store itself and never
// overwritten.
type Store interface {
	PutNetwork(n Network, sync bool) error
	PutEndpoint(e Endpoint, sync bool) error
	DeleteNetwork(id ID) error       // absent is success
	DeleteEndpoint(e Endpoint) error // absent is success
}
