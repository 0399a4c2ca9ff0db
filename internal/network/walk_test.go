package network_test

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	. "github.com/ovs-container-network/ovs-container-network/internal/network"
)

var walkSeed = flag.Uint64("walk-seed", 0, "repeat the walk that printed this seed")

// walk is a random life of a host. It knows what Docker knows.
type walk struct {
	*rig
	rand *rand.Rand
	nets map[string]CreateRequest
	eps  map[string]*walkEndpoint
	made int      // networks and endpoints so far: Docker uses no id twice
	log  []string // what was done

	outage, trouble bool
}

type walkEndpoint struct {
	network, addr string
	joined, dead  bool // may be gone any time unless it is joined and not dead
}

// Whatever Docker does and whatever breaks, once all works again what Docker was
// told to be there is there and nothing else: in the manager, in the store and in
// the switch alike.
func TestRandomWalk(t *testing.T) {
	seed := *walkSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	for i := range uint64(10) {
		if *walkSeed != 0 && i > 0 {
			break
		}
		inBubble(t, func(t *testing.T, r *rig) {
			w := &walk{rig: r, rand: rand.New(rand.NewPCG(seed+i, 0)), nets: map[string]CreateRequest{}, eps: map[string]*walkEndpoint{}}
			for range 100 {
				w.step()
				if t.Failed() {
					break
				}
			}
			w.tearDown()
			if t.Failed() {
				t.Fatalf("seed %d, which did:\n%s", seed+i, w.log)
			}
		})
	}
}

func (w *walk) note(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf(format, args...)+"\n")
}

func (w *walk) step() {
	steps := []func(){
		w.createNetwork, w.createNetwork, w.createEndpoint, w.createEndpoint, w.createEndpoint, w.createEndpoint, w.join, w.join, w.join, w.join,
		w.leaveOne, w.deleteOne, w.deleteOne, w.deleteOneNetwork, w.die, w.die, w.restartDaemon, w.breakSwitch, w.breakStore, w.wipe, w.rename, w.pause,
	}
	steps[w.rand.IntN(len(steps))]()
	// Trouble does not last.
	if w.rand.IntN(4) == 0 {
		w.heal()
	}
	if !w.outage && !w.trouble {
		w.calm()
		w.check()
		w.compare()
	}
}

// calm waits until nothing is being removed: a sweep may just have begun.
func (w *walk) calm() {
	w.settle()
	for range 10 {
		busy := false
		for _, n := range w.Networks() {
			busy = busy || n.Phase == PhaseDeleting
			for _, ep := range n.Endpoints {
				busy = busy || ep.Phase == PhaseDeleting
			}
		}
		if !busy {
			return
		}
		w.settle()
	}
}

func (w *walk) heal() {
	if w.outage || w.trouble {
		w.note("heal")
	}
	w.outage, w.trouble = false, false
	w.store.mend()
	w.up()
	// Later than any pause after a failure: the store does not tell.
	time.Sleep(time.Minute)
}

// compare fails if what is there is not what Docker knows.
func (w *walk) compare() {
	have := map[ID]bool{}
	for _, n := range w.Networks() {
		have[n.ID] = true
	}
	for name := range w.nets {
		if !have[nid(name)] {
			w.t.Errorf("network %s is lost", name)
		}
		delete(have, nid(name))
	}
	if len(have) > 0 {
		w.t.Errorf("%d networks are there that Docker does not know", len(have))
	}
	known := map[EndpointID]bool{}
	for name, e := range w.eps {
		known[eid(name)] = true
		ep, ok := w.findEndpoint(name)
		if e.joined && !e.dead && (!ok || ep.Phase != PhaseJoined) {
			w.t.Errorf("endpoint %s is lost: %q", name, ep.Phase)
		}
		if !ok {
			delete(w.eps, name) // swept, and Docker does not care
		}
	}
	for _, n := range w.Networks() {
		for id := range n.Endpoints {
			if !known[id] {
				w.t.Errorf("endpoint %s is there and Docker does not know it", id.Short())
			}
		}
	}
}

func (w *walk) healthy() bool { return !w.outage && !w.trouble }

// result fails if a call that had to succeed failed.
func (w *walk) result(err error, must bool, format string, args ...any) bool {
	w.note(format+": %v", append(args, err)...)
	if err != nil && must {
		w.t.Errorf(format+": %v", append(args, err)...)
	}
	return err == nil
}

func pick[V any](w *walk, m map[string]V) (name string, ok bool) {
	keys := slices.Sorted(maps.Keys(m))
	if len(keys) == 0 {
		return "", false
	}
	return keys[w.rand.IntN(len(keys))], true
}

func (w *walk) createNetwork() {
	options := []string{"bridge=br" + fmt.Sprint(w.rand.IntN(2)), "vlan=" + []string{"auto", "auto", "none", "7"}[w.rand.IntN(4)]}
	if len(w.nets) > 5 {
		name, _ := pick(w, w.nets)
		w.result(w.CreateNetwork(w.t.Context(), w.nets[name]), true, "create network %s again", name)
		return
	}
	w.made++
	name := fmt.Sprintf("n%d", w.made)
	req := CreateRequest{ID: nid(name), Options: opts(options...), Subnets: subnets([]string{"10.0.0.0/24", "10.0.0.0/16", "10.1.0.0/24"}[w.rand.IntN(3)])}
	free := w.healthy() && req.Options["vlan"] == "auto"
	if w.result(w.CreateNetwork(w.t.Context(), req), free, "create network %s %s %v", name, options, req.Subnets[0].Prefix) {
		w.nets[name] = req
	}
}

func (w *walk) createEndpoint() {
	network, ok := pick(w, w.nets)
	if !ok {
		return
	}
	addr := fmt.Sprintf("%s.%d/24", map[bool]string{true: "10.0.0", false: "10.1.0"}[w.rand.IntN(2) == 0], 2+w.rand.IntN(6))
	segment := func(network string) [2]string {
		n, _ := w.find(network)
		return [2]string{n.Config.Bridge, n.Config.VLANText()}
	}
	var holders []string
	certain := false // one of them cannot give way
	for name, e := range w.eps {
		if e.addr == addr && segment(e.network) == segment(network) {
			holders = append(holders, name)
			certain = certain || e.joined && !e.dead
		}
	}
	w.made++
	name := fmt.Sprintf("e%d", w.made)
	ok = w.result(w.tryEndpoint(network, name, addr), w.healthy() && len(holders) == 0, "create endpoint %s %s %s", network, name, addr)
	if !ok {
		return
	}
	if certain {
		w.t.Errorf("%s got the address %s, which a running container has", name, addr)
	}
	for _, old := range holders {
		delete(w.eps, old)
	}
	w.eps[name] = &walkEndpoint{network: network, addr: addr}
}

func (w *walk) join() {
	name, ok := pick(w, w.eps)
	if !ok || w.eps[name].joined {
		return
	}
	e := w.eps[name]
	_, there := w.findEndpoint(name)
	if w.result(w.tryJoin(e.network, name), w.healthy() && there, "join %s", name) {
		e.joined, e.dead = true, false
		w.revive(sandbox(name))
		return
	}
	if w.rand.IntN(2) == 0 { // old engines send no Leave, dead ones nothing at all
		w.Leave(w.t.Context(), nid(e.network), eid(name))
		w.DeleteEndpoint(w.t.Context(), nid(e.network), eid(name))
	}
	delete(w.eps, name)
}

func (w *walk) leaveOne() {
	if name, ok := pick(w, w.eps); ok {
		e := w.eps[name]
		if w.result(w.Leave(w.t.Context(), nid(e.network), eid(name)), w.healthy(), "leave %s", name) {
			e.joined = false
		} else {
			e.dead = true // Docker takes it off all the same
			w.kill(sandbox(name))
		}
	}
}

func (w *walk) deleteOne() {
	if name, ok := pick(w, w.eps); ok {
		network := w.eps[name].network
		delete(w.eps, name)
		w.kill(sandbox(name))
		w.result(w.DeleteEndpoint(w.t.Context(), nid(network), eid(name)), true, "delete endpoint %s", name)
	}
}

func (w *walk) deleteOneNetwork() {
	network, ok := pick(w, w.nets)
	if !ok {
		return
	}
	for name, e := range w.eps {
		if e.network == network {
			delete(w.eps, name)
			w.kill(sandbox(name))
		}
	}
	delete(w.nets, network)
	w.result(w.DeleteNetwork(w.t.Context(), nid(network)), true, "delete network %s", network)
}

// die ends a container without a word.
func (w *walk) die() {
	if name, ok := pick(w, w.eps); ok {
		w.note("die %s", name)
		w.eps[name].dead = true
		w.kill(sandbox(name))
		w.loseLink(name)
	}
}

// restartDaemon kills the daemon. What it could not write is lost with it, so
// it is not done while the disk is bad.
func (w *walk) restartDaemon() {
	if !w.trouble {
		w.note("restart")
		w.restart()
	}
}

func (w *walk) breakSwitch() {
	w.note("outage")
	w.outage = true
	w.downFabric()
}

func (w *walk) breakStore() {
	ops := [][]string{nil, {"PutEndpoint"}, {"PutNetwork"}, {"DeleteEndpoint"}, {"DeleteNetwork"}}[w.rand.IntN(5)]
	w.note("store fails on %v", ops)
	w.trouble = true
	w.store.failOn(ops...)
}

// wipe loses the switch's database.
func (w *walk) wipe() {
	w.note("wipe")
	w.fabric.with(func(f *fakeFabric) { clear(f.ports); clear(f.bridges) })
	w.Dirty()
}

func (w *walk) rename() {
	if name, ok := pick(w, w.eps); ok {
		w.note("annotate %s", name)
		w.Annotate(nid(w.eps[name].network), w.eps[name].network, map[EndpointID]Container{eid(name): {ID: "c-" + name, Name: name}})
	}
}

func (w *walk) pause() { w.note("pause"); time.Sleep(time.Duration(w.rand.IntN(200)) * time.Second) }

func (w *walk) tearDown() {
	for len(w.nets) > 0 {
		w.deleteOneNetwork()
	}
	w.heal()
	w.calm()
	w.empty()
}
