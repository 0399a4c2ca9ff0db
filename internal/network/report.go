package network

import (
	"errors"
	"slices"
	"strings"
	"time"
)

// Report is a network for a person: what is wanted and what is there.
type Report struct {
	ID       ID               `json:"id"`
	Name     string           `json:"name,omitempty"`
	Bridge   string           `json:"bridge"`
	VLAN     string           `json:"vlan"` // a number or none; of a trunk the native one
	Trunk    string           `json:"trunk,omitempty"`
	VLANMode VLANMode         `json:"vlan_mode"`
	MTU      int              `json:"mtu"`
	Gateway  GatewayMode      `json:"gateway_mode"`
	IPAM     IPAMMode         `json:"ipam"`
	Tenant   string           `json:"tenant_id,omitempty"`
	Internal bool             `json:"internal,omitempty"`
	Switch   string           `json:"switch,omitempty"`   // logical switch
	Router   string           `json:"router,omitempty"`   // logical router
	Localnet string           `json:"localnet,omitempty"` // physical network
	Secure   bool             `json:"port_security,omitempty"`
	DHCP     bool             `json:"dhcp,omitempty"`
	Subnets  []Subnet         `json:"subnets,omitempty"`
	Phase    Phase            `json:"phase"`
	Owned    bool             `json:"owns_bridge"`
	Created  time.Time        `json:"created"`
	Datapath string           `json:"datapath,omitempty"`
	Health   string           `json:"health"`
	Problems []Problem        `json:"problems,omitempty"`
	Notes    []string         `json:"notes,omitempty"`
	Mirrors  []MirrorStatus   `json:"mirrors,omitempty"`
	Ends     []EndpointReport `json:"endpoints"`
}

// EndpointReport is an endpoint for a person.
type EndpointReport struct {
	ID          EndpointID        `json:"id"`
	Container   string            `json:"container,omitempty"`
	ContainerID string            `json:"container_id,omitempty"`
	MAC         string            `json:"mac"`
	Addrs       []string          `json:"addresses,omitempty"`
	VLAN        string            `json:"vlan"` // a number or none; empty: in no VLAN
	Trunk       string            `json:"trunk,omitempty"`
	MTU         int               `json:"mtu"`
	Secure      bool              `json:"port_security,omitempty"`
	Observer    bool              `json:"observer,omitempty"` // it gets copies, and is in no VLAN
	ExternalIDs map[string]string `json:"external_ids,omitempty"`
	Phase       Phase             `json:"phase"`
	ClientID    string            `json:"client_id,omitempty"` // by which a DHCP server knows it
	Lease       *Lease            `json:"lease,omitempty"`
	Lease6      *Lease6           `json:"lease6,omitempty"`
	EndpointStatus
}

// Tag is the one that a frame of the container needs to get onto the bridge, 0 if it
// needs none: that of a trunk without a native VLAN.
func (e EndpointReport) Tag() uint16 {
	var trunk VLANs
	if e.VLAN != vlanText(0) || trunk.UnmarshalText([]byte(e.Trunk)) != nil || len(trunk) == 0 {
		return 0
	}
	return trunk[0]
}

// Reports returns all networks as they are wanted and observed now.
func (m *Manager) Reports() []Report {
	reports := []Report{}
	for _, n := range m.Networks() {
		reports = append(reports, m.report(n))
	}
	return reports
}

func (m *Manager) report(n Network) Report {
	seen := m.fabric.Observe(n)
	r := Report{
		ID: n.ID, Name: n.Name, Bridge: n.Config.Bridge, VLAN: n.Config.VLANText(), VLANMode: n.Config.VLANMode, Trunk: n.Config.Trunk.String(),
		MTU: n.Config.MTU, Gateway: n.Config.Gateway, IPAM: n.Config.IPAM, Tenant: n.Config.TenantID,
		DHCP: n.Config.DHCP, Internal: n.Config.Internal, Subnets: n.Subnets, Phase: n.Phase, Owned: n.OwnsBridge, Created: n.Created,
		Datapath: seen.Datapath, Health: seen.Health, Problems: seen.Problems, Notes: seen.Notes, Mirrors: seen.Mirrors, Ends: []EndpointReport{},
	}
	if o := n.Config.OVN; o != nil {
		r.Switch, r.Router, r.Localnet, r.Secure = o.Switch, o.Router, o.Localnet, n.Config.PortSecurity
	}
	if n.Config.IPAM == IPAMStatic && !n.Enforced {
		r.Notes = append(r.Notes, "ipam=static is not enforced: Docker's own IPAM does not tell whether an address was asked for; use --ipam-driver "+Owner)
	}
	switch {
	case !n.SelfWired():
	case n.Config.DHCP:
		r.Notes = append(r.Notes, "Docker shows the addresses that are booked and asked for; those that the DHCP server gave are shown here (ipam=external)")
	default:
		r.Notes = append(r.Notes, "the addresses that Docker shows are booked and not used (ipam=external): --ipam-driver null has none")
	}
	failed := m.failedOf(&r)
	for _, ep := range n.SortedEndpoints() {
		p := n.Port(ep)
		e := EndpointReport{
			ID: ep.ID, Container: ep.ContainerName, ContainerID: ep.ContainerID, MAC: ep.MAC,
			VLAN: vlanText(p.VLAN), Trunk: p.Trunk.String(), MTU: p.MTU, Secure: p.Secure, ExternalIDs: p.ExternalIDs, Phase: ep.Phase,
			ClientID: ep.ClientID, Lease: ep.Lease, Lease6: ep.Lease6, EndpointStatus: seen.Endpoints[ep.ID],
			Observer: ep.Observer,
		}
		if ep.Observer {
			e.VLAN, e.Trunk = "", ""
		}
		if m.deadReason(n, ep) != "" && m.now().Sub(ep.Changed) > startGrace {
			e.Health, e.Reason, e.Mend = "degraded", m.deadReason(n, ep)+": it will be removed", nil
		} else if ep.Phase == PhaseJoined && n.SelfWired() && e.Home && m.now().Sub(ep.Changed) > wireWait {
			e.Health, e.Reason, e.Mend = "degraded", "its link could not be brought into the container", []string{"restart the container"}
		} else if ep.Phase == PhaseJoined && ep.Lease != nil && !ep.Has4() {
			e.Health, e.Reason = "degraded", "its lease of "+ep.Lease.Addr.Addr().String()+" is over and no DHCP server gives another one"
			e.Mend = []string{"see whether the DHCP server " + ep.Lease.Server.String() + " runs"}
		} else if ep.Phase == PhaseJoined && ep.Lease6 != nil && !ep.Has6() {
			e.Health, e.Reason = "degraded", "its IPv6 address "+ep.Lease6.Addrs[0].Addr().String()+" is over and nobody gives another one"
			e.Mend = []string{"see whether the router or the DHCPv6 server runs"}
		} else if err := failed[ep.ID]; err != nil && (ep.Phase == PhaseJoined || ep.Phase == PhaseDeleting) {
			e.Health, e.Reason = "degraded", err.Error()
		}
		if e.Health == "degraded" {
			r.Health = "degraded"
		}
		for _, a := range ep.Addrs {
			e.Addrs = append(e.Addrs, a.String())
		}
		r.Ends = append(r.Ends, e)
	}
	return r
}

// failedOf adds to a report what the last repair could not put right of the
// network, and returns what it could not of endpoints.
func (m *Manager) failedOf(r *Report) map[EndpointID]error {
	err := m.failures.of(r.ID)
	var partial *ApplyError
	switch {
	case errors.As(err, &partial):
		return partial.Endpoints
	case err == nil, slices.ContainsFunc(r.Problems, func(p Problem) bool { return strings.Contains(err.Error(), p.Cause) }):
		return nil
	}
	r.Health = "degraded"
	r.Problems = append(r.Problems, Problem{Cause: err.Error()})
	return nil
}
