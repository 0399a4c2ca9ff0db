package network

// Claims counts the addresses and MACs that endpoints occupy. It is negative if
// a segment is kept in which there is nobody.
func (m *Manager) Claims() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, claimed := range m.segments {
		if len(claimed) == 0 {
			return -1
		}
		n += len(claimed)
	}
	return n
}

// MACFor is the MAC that an endpoint gets of itself.
func MACFor(n Network, ep Endpoint) string { return macFor(n, ep).String() }
