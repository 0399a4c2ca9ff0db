package network

import (
	"context"
	"regexp"
)

// containerName is what Docker allows as one.
var containerName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// maxName is how long a name may be to fit into option 61, after the type and with
// the host.
const maxName = 254 - len("@01234567")

// identify has DHCP servers know a container by its name, if nothing else tells them
// who it is. A name that is no name of a container is not used, nor one by which a
// server knows another container of the segment at this moment, as it may after a
// rename: nobody has asked for this identity, so no start fails for it. The host is
// part of it, since another host of the segment may have a container of that name.
func (m *Manager) identify(ctx context.Context, n Network, ep *Endpoint, name string) {
	if name == "" || !n.leases(*ep) || ep.stable() {
		return
	}
	if len(name) > maxName || !containerName.MatchString(name) {
		m.log.InfoContext(ctx, "a DHCP server does not know this container by its name: it is too long or odd", "nid", n.ID, "eid", ep.ID, "container", name)
		return
	}
	id := name + "@" + m.hostID[:min(8, len(m.hostID))]
	if other, taken := m.knownAs(segmentOf(n, *ep), id); taken {
		m.log.InfoContext(ctx, "a DHCP server does not know this container by its name: another one is known by it", "nid", n.ID, "eid", ep.ID, "container", name, "other", other.Title())
		return
	}
	ep.ClientID = id
	ep.MAC = macFor(n, *ep).String()
}

// knownAs is the container that DHCP servers of a segment know by a client id.
func (m *Manager) knownAs(in segment, id string) (Endpoint, bool) {
	for _, n := range m.Networks() {
		for _, ep := range n.Endpoints {
			if ep.ClientID == id && ep.Phase != PhaseParting && segmentOf(n, *ep) == in && !m.abandoned(n, *ep, true) {
				return *ep, true
			}
		}
	}
	return Endpoint{}, false
}
