package network_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/ovs-container-network/ovs-container-network/internal/network"
)

// Many at once, with outages, bad disks and callers who give up: nothing races,
// nothing hangs, and when all was taken away nothing is left.
func TestHammer(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		var workers sync.WaitGroup
		for worker := range 8 {
			workers.Go(func() { r.hammer(rand.New(rand.NewPCG(uint64(worker), 1)), worker) })
		}
		for i := range 20 {
			time.Sleep(time.Second)
			switch i % 4 {
			case 0:
				r.downFabric()
			case 2:
				r.store.failOn()
			default:
				r.store.mend()
				r.up()
			}
			r.Reports()
		}
		workers.Wait()
		for i := range 4 {
			r.delete(fmt.Sprint("n", i))
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		r.empty()
	})
}

func (r *rig) hammer(random *rand.Rand, worker int) {
	giveUp := errors.New("the engine hung up")
	for i := range 60 {
		ctx, cancel := context.WithTimeoutCause(context.Background(), time.Duration(random.IntN(2000))*time.Millisecond, giveUp)
		network := fmt.Sprint("n", random.IntN(4))
		name := fmt.Sprint(worker, "-", i)
		// Errors are welcome: what counts is what is left in the end.
		r.CreateNetwork(ctx, CreateRequest{ID: nid(network), Subnets: subnets("10.0.0.0/16")})
		r.CreateEndpoint(ctx, endpointRequest(network, name, fmt.Sprintf("10.0.%d.%d/16", worker, i+1)))
		r.Join(ctx, JoinRequest{Network: nid(network), ID: eid(name), Sandbox: sandbox(name)})
		time.Sleep(time.Duration(random.IntN(500)) * time.Millisecond)
		r.Annotate(nid(network), network, map[EndpointID]Container{eid(name): {ID: name}})
		r.Leave(ctx, nid(network), eid(name))
		if random.IntN(3) > 0 {
			r.DeleteEndpoint(ctx, nid(network), eid(name))
		}
		if random.IntN(10) == 0 {
			r.DeleteNetwork(ctx, nid(network))
		}
		cancel()
	}
}
