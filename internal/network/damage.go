package network

import (
	"slices"
)

// Damaged returns the records that could not be read at start.
func (m *Manager) Damaged() []Damage {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.damaged)
}

// Spares tells whether something with these ids, empty where they are not known,
// may belong to a record that could not be read.
func (m *Manager) Spares(id ID, eid EndpointID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.damaged, func(d Damage) bool {
		if d.Endpoint == "" {
			return id == "" || d.Network == id
		}
		return d.Endpoint == eid
	})
}

// undamage forgets the damaged records of a network that match, because Docker
// has said that what they describe is gone, and returns them.
func (m *Manager) undamage(id ID, match func(Damage) bool) (found []Damage) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.damaged = slices.DeleteFunc(m.damaged, func(d Damage) bool {
		gone := d.Network == id && match(d)
		if gone {
			found = append(found, d)
		}
		return gone
	})
	return found
}

// condemnDamaged makes tombstones of endpoints whose records cannot be read:
// the names of port and link follow from the id alone.
func (m *Manager) condemnDamaged(e *entry, match func(Damage) bool) {
	found := m.undamage(e.value().ID, func(d Damage) bool { return d.Endpoint != "" && match(d) })
	e.mu.Lock()
	defer e.mu.Unlock()
	n := e.value()
	for _, d := range found {
		n = n.WithEndpoint(Endpoint{
			ID: d.Endpoint, Network: n.ID, Phase: PhaseDeleting, Changed: m.now().UTC(), Rev: m.rev.Add(1),
		})
	}
	e.cur.Store(&n)
}
