package network

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Ports that -p asks for are published by Docker itself, through a network that
// can: one with gateway_mode=docker that is not internal, or one of another
// driver. On a container without such a network -p does nothing, and is refused.
//
// dockerd attaches a starting container to its networks one by one, in random
// order, and tells the driver of one only. So what the others are is known from
// Docker's events (package dockerwatch), and where nothing is known, as at boot,
// the container may start.

// publishes tells whether ports can be published through n.
func (n Network) publishes() bool {
	return !n.Config.Internal && n.Config.Gateway == GatewayDocker
}

// watched is what is known of the containers that may start next.
type watched struct {
	mu      sync.Mutex // guards the following
	known   bool
	list    []Waiting
	changed chan struct{} // closed and replaced with list
}

func (w *watched) init() { w.changed = make(chan struct{}) }

// Waiting replaces what is known of containers that do not run; nil means that
// nothing is known any more.
func (m *Manager) Waiting(containers []Waiting) {
	w := &m.waiting
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known, w.list = containers != nil, containers
	close(w.changed)
	w.changed = make(chan struct{})
}

// hearsay is how long news of a container that starts may be behind.
const hearsay = 400 * time.Millisecond

// refusePublish returns an error if a container that starts on n and publishes
// ports has no network that can, for certain: all the containers that may be
// the one have none.
func (m *Manager) refusePublish(ctx context.Context, n Network) error {
	if n.publishes() {
		return nil
	}
	limit := time.NewTimer(hearsay)
	defer limit.Stop()
	for {
		m.waiting.mu.Lock()
		known, list, changed := m.waiting.known, m.waiting.list, m.waiting.changed
		m.waiting.mu.Unlock()
		if !known {
			return nil
		}
		candidates, elsewhere := 0, false
		for _, c := range list {
			if slices.Contains(c.Networks, n.ID) {
				candidates++
				elsewhere = elsewhere || c.Elsewhere || m.anyPublishes(c.Networks)
			}
		}
		switch {
		case elsewhere:
			return nil
		case candidates > 0:
			return ignoredPorts(n)
		}
		select {
		case <-changed:
		case <-limit.C:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

func (m *Manager) anyPublishes(ids []ID) bool {
	return slices.ContainsFunc(ids, func(id ID) bool {
		e := m.entry(id)
		return e != nil && e.value().publishes()
	})
}

func ignoredPorts(n Network) error {
	why := fmt.Sprintf("the network has gateway_mode=%s", n.Config.Gateway)
	if n.Config.Internal {
		why = "the network is --internal"
	}
	return fmt.Errorf("published ports (-p) would be ignored: %s; leave out -p, or put the container on a network with gateway_mode=docker too", why)
}

// publishes tells whether another endpoint of ours in the same sandbox serves
// published ports.
func (m *Manager) publishes(sandbox string, but EndpointID) bool {
	for _, n := range m.Networks() {
		if !n.publishes() {
			continue
		}
		for _, ep := range n.Endpoints {
			if ep.Sandbox == sandbox && ep.ID != but && ep.Phase != PhaseDeleting {
				return true
			}
		}
	}
	return false
}
