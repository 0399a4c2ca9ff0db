package network

// Claims counts the addresses and MACs that endpoints occupy.
func (m *Manager) Claims() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, claimed := range m.segments {
		n += len(claimed)
	}
	return n
}
