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
// A network with gateway_mode=external ends Docker's gateway service for the
// whole container, and with it what gateway_mode=docker publishes.
//
// dockerd attaches a starting container to its networks one by one, in random
// order, and tells the driver of one only. So what the others are is known from
// Docker's events (package dockerwatch), and where nothing is known, as at boot,
// the container may start.

// publishes tells whether ports can be published through n.
func (n Network) publishes() bool {
	return !n.Config.Internal && n.Config.Gateway == GatewayDocker
}

// routes tells whether n brings a default route of its own.
func (n Network) routes() bool {
	return !n.Config.Internal && n.Config.Gateway == GatewayExternal
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
// ports has no network that can, for certain: none of the containers that may be
// the one has.
func (m *Manager) refusePublish(ctx context.Context, n Network) error {
	limit := time.NewTimer(hearsay)
	defer limit.Stop()
	for {
		m.waiting.mu.Lock()
		known, list, changed := m.waiting.known, m.waiting.list, m.waiting.changed
		m.waiting.mu.Unlock()
		candidates, served := 0, false
		for _, c := range list {
			if slices.Contains(c.Networks, n.ID) {
				candidates++
				served = served || m.served(c)
			}
		}
		switch {
		case !known, served:
			return nil
		case candidates > 0:
			return ignoredPorts(n)
		case n.publishes():
			return nil // nothing speaks against it
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

// served tells whether published ports of a container can work.
func (m *Manager) served(c Waiting) bool {
	publishes := false
	for _, id := range c.Networks {
		if e := m.entry(id); e != nil {
			if e.value().routes() && !c.Elsewhere {
				return false
			}
			publishes = publishes || e.value().publishes()
		}
	}
	return publishes || c.Elsewhere
}

func ignoredPorts(n Network) error {
	why := fmt.Sprintf("the network has gateway_mode=%s", n.Config.Gateway)
	switch {
	case n.Config.Internal:
		why = "the network is --internal"
	case n.publishes():
		return fmt.Errorf("published ports (-p) would be ignored: another network of the container has gateway_mode=external and takes the default route from Docker's gateway service, which publishes; leave out one of them")
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
