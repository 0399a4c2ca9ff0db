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
// order, and tells the driver of one only. What the others are is known only
// from package dockerwatch, which looks at what does not run yet: several times
// after a container with published ports was created, and once a second while
// there is one that would be refused. A refusal needs such a look that is younger
// than the call: an older one may have missed a network. Where none is to come, as
// at boot or without Docker's socket, the container may start; a refusal that
// strikes by chance would be worse than none.

// publishes tells whether ports can be published through n.
func (n Network) publishes() bool {
	return !n.Config.Internal && (n.Config.Gateway == GatewayDocker || n.routed())
}

// routed tells whether the default route leads to a router of the fabric. A
// container that publishes ports has Docker's gateway instead, and routes to what
// the router reaches.
func (n Network) routed() bool {
	return n.Config.Gateway == GatewayExternal && n.Config.OVN != nil && n.Config.OVN.Router != ""
}

// Quiet tells whether there is a network that publishes no ports.
func (m *Manager) Quiet() bool {
	return slices.ContainsFunc(m.Networks(), func(n Network) bool {
		return n.Phase != PhaseDeleting && !n.publishes()
	})
}

// watched is what is known of the containers that may start next.
type watched struct {
	mu      sync.Mutex // guards the following
	known   bool
	asked   time.Time // when Docker was asked for list
	more    bool      // another look is to come
	list    []Waiting
	changed chan struct{} // closed and replaced with list
}

func (w *watched) init() { w.changed = make(chan struct{}) }

// Waiting replaces what is known of containers that do not run, as Docker said
// when it was asked at that time, and tells whether another look is to come; nil
// means that nothing is known any more. It returns those of which no network
// publishes ports.
func (m *Manager) Waiting(asked time.Time, containers []Waiting, more bool) (suspects []string) {
	w := &m.waiting
	w.mu.Lock()
	w.known, w.asked, w.list, w.more = containers != nil, asked, containers, more
	close(w.changed)
	w.changed = make(chan struct{})
	w.mu.Unlock()
	for _, c := range containers {
		if len(c.Networks) > 0 && !m.served(c) {
			suspects = append(suspects, c.Container)
		}
	}
	return suspects
}

// served tells whether published ports of a container can work.
func (m *Manager) served(c Waiting) bool {
	return c.Elsewhere || slices.ContainsFunc(c.Networks, m.publishing)
}

// How long a call waits for a look: a moment for the first after a container was
// created, of which Docker's event may be on its way, and longer for one that is
// known to come.
const (
	hearsay  = 150 * time.Millisecond
	patience = 2 * time.Second
)

// refusePublish returns an error if a container that starts on n and publishes
// ports has no network that can, for certain: none of the containers that may be
// the one has.
func (m *Manager) refusePublish(ctx context.Context, n Network) error {
	if n.publishes() {
		return nil
	}
	called := m.now()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	moment := newAlarm(hearsay)
	defer moment.stop()
	for over := false; ; {
		m.waiting.mu.Lock()
		w := watched{known: m.waiting.known, asked: m.waiting.asked, more: m.waiting.more, list: m.waiting.list, changed: m.waiting.changed}
		m.waiting.mu.Unlock()
		switch {
		case !w.known:
			return nil
		case w.asked.After(called):
			return m.verdict(n, w.list)
		case over && !w.more:
			return nil
		}
		select {
		case <-w.changed:
		case <-moment.rung:
			over = true
		case <-ctx.Done():
			return nil
		}
	}
}

func (m *Manager) verdict(n Network, list []Waiting) error {
	candidates := 0
	for _, c := range list {
		if !slices.Contains(c.Networks, n.ID) {
			continue
		}
		candidates++
		if m.served(c) {
			return nil
		}
	}
	if candidates == 0 {
		return nil
	}
	return ignoredPorts(n)
}

func (m *Manager) publishing(id ID) bool {
	e := m.entry(id)
	return e != nil && e.value().publishes()
}

func ignoredPorts(n Network) error {
	why := fmt.Sprintf("the network has gateway_mode=%s", n.Config.Gateway)
	if n.Config.Internal {
		why = "the network is --internal"
	}
	return fmt.Errorf("published ports (-p) would be ignored: %s, and the container is on no network that publishes; leave out -p, or put it on a network with gateway_mode=docker too", why)
}
