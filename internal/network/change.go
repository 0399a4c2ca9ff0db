package network

import (
	"errors"
	"fmt"
)

// changeNetwork replaces the value of e and its record. On a store error
// nothing has changed.
func (m *Manager) changeNetwork(e *entry, sync bool, change func(*Network)) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.gone {
		return errGone
	}
	n := e.value()
	change(&n)
	n.Rev = m.rev.Add(1)
	if err := m.store.PutNetwork(n, sync); err != nil {
		return fmt.Errorf("cannot store network %s: %w", n.ID.Short(), err)
	}
	e.cur.Store(&n)
	return nil
}

func (e *entry) isGone() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.gone
}

// errGone answers calls that meet the removal of their network.
var errGone = errors.New("the network is being removed")

// forget removes the record of a network of which nothing is left, and then the
// network.
func (m *Manager) forget(e *entry) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	id := e.value().ID
	if err := m.store.DeleteNetwork(id); err != nil {
		return err
	}
	e.gone = true
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.networks, id)
	delete(m.missing, id)
	return nil
}

// condemnNetwork makes the network a tombstone. That does not depend on the
// store: nothing may stay because a disk is full. Without the record, it is
// only not remembered by the next process that the network was to go.
func (m *Manager) condemnNetwork(e *entry) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.gone {
		return
	}
	n := e.value()
	n.Phase, n.Rev = PhaseDeleting, m.rev.Add(1)
	if err := m.store.PutNetwork(n, false); err != nil {
		m.log.Warn("cannot record that a network is being removed", "nid", n.ID, "err", err)
	}
	e.cur.Store(&n)
}

// changeEndpoint replaces one endpoint of e and its record. Absent is success.
// On a store error nothing has changed.
func (m *Manager) changeEndpoint(e *entry, id EndpointID, change func(*Endpoint)) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := e.value()
	ep, ok := n.Endpoint(id)
	if !ok {
		return nil
	}
	before := ep.Phase
	change(&ep)
	if ep.Phase != before {
		ep.Changed = m.now().UTC()
	}
	ep.Rev = m.rev.Add(1)
	// Not synced: a power cut ends the container, and with it all that can
	// change of an endpoint after it was entered.
	if err := m.store.PutEndpoint(ep, false); err != nil {
		return fmt.Errorf("cannot store endpoint %s: %w", id.Short(), err)
	}
	n = n.WithEndpoint(ep)
	e.cur.Store(&n)
	return nil
}

// condemnEndpoint makes the endpoint a tombstone and gives back what it
// occupies, as condemnNetwork does. Absent and twice are harmless.
func (m *Manager) condemnEndpoint(e *entry, ep Endpoint) {
	m.vacate(e.value(), ep)
	e.mu.Lock()
	defer e.mu.Unlock()
	n := e.value()
	ep, ok := n.Endpoint(ep.ID)
	if !ok {
		return
	}
	m.vacate(n, ep) // a lease may have changed its addresses meanwhile
	if ep.Phase == PhaseDeleting {
		return
	}
	ep.Phase, ep.Changed, ep.Rev = PhaseDeleting, m.now().UTC(), m.rev.Add(1)
	if err := m.store.PutEndpoint(ep, false); err != nil {
		m.log.Warn("cannot record that an endpoint is being removed", "nid", n.ID, "eid", ep.ID, "err", err)
	}
	n = n.WithEndpoint(ep)
	e.cur.Store(&n)
}

// dropEndpoint forgets an endpoint of which nothing is left.
func (m *Manager) dropEndpoint(e *entry, ep Endpoint) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := m.store.DeleteEndpoint(ep); err != nil {
		return fmt.Errorf("cannot remove the record of endpoint %s: %w", ep.ID.Short(), err)
	}
	n := e.value().WithoutEndpoint(ep.ID)
	e.cur.Store(&n)
	m.keeper.forget(ep.ID)
	m.keeper6.forget(ep.ID)
	return nil
}
