package dockerwatch

import "github.com/ovs-container-network/ovs-container-network/internal/network"

// This file makes the fake engine a docker, see behaviour_test.go.

func (f *fakeEngine) Networks() map[network.ID]bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	ids := map[network.ID]bool{}
	for id := range f.nets {
		ids[id] = true
	}
	return ids
}

func (f *fakeEngine) CreateNetwork(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := network.ID(f.newID())
	f.nets[id] = &fakeNet{name: name, eps: map[string]*fakeEndpoint{}}
	f.emitLocked("network", "create", string(id), map[string]string{"name": name, "type": "ovs"})
}

func (f *fakeEngine) RemoveNetwork(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id, _ := f.findLocked(name)
	delete(f.nets, id)
	f.emitLocked("network", "destroy", string(id), map[string]string{"name": name, "type": "ovs"})
}

func (f *fakeEngine) Run(name, net string) { f.join(f.begin(name, net)) }

// begin starts to join a container to a network, join ends that.
func (f *fakeEngine) begin(name, net string) (eid string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, n := f.findLocked(net)
	cid := f.newID()
	for _, other := range f.nets {
		for _, ep := range other.eps {
			if ep.name == name {
				cid = ep.container
			}
		}
	}
	eid = f.newID()
	n.eps[eid] = &fakeEndpoint{container: cid, name: name}
	return eid
}

func (f *fakeEngine) join(eid string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, n := range f.nets {
		if ep := n.eps[eid]; ep != nil {
			ep.joined = true
			f.emitLocked("network", "connect", string(id), map[string]string{"container": ep.container, "name": n.name, "type": "ovs"})
		}
	}
}

func (f *fakeEngine) Connect(name, net string) { f.Run(name, net) }

func (f *fakeEngine) Rename(from, to string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var cid string
	for _, n := range f.nets {
		for _, ep := range n.eps {
			if ep.name == from {
				ep.name, cid = to, ep.container
			}
		}
	}
	f.emitLocked("container", "rename", cid, map[string]string{"name": to, "oldName": "/" + from})
}

func (f *fakeEngine) Remove(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, n := range f.nets {
		for eid, ep := range n.eps {
			if ep.name == name {
				delete(n.eps, eid)
				f.emitLocked("network", "disconnect", string(id), map[string]string{"container": ep.container})
			}
		}
	}
}

func (f *fakeEngine) findLocked(name string) (network.ID, *fakeNet) {
	for id, n := range f.nets {
		if n.name == name {
			return id, n
		}
	}
	f.t.Fatalf("no network %s", name)
	return "", nil
}
