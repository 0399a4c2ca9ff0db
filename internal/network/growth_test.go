package network_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"

	. "github.com/ovs-container-network/ovs-container-network/internal/network"
)

// BenchmarkLife is one endpoint's life, without the switch and the disk, on a
// network that has so many others.
func BenchmarkLife(b *testing.B) {
	for _, others := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(others), func(b *testing.B) {
			m := NewManager(Options{
				Fabric: still{}, Store: blank{}, Pools: &fakePools{claimed: map[ID]int{}, static: map[ID]bool{}}, Log: slog.New(slog.DiscardHandler),
				SandboxAlive: func(string) (bool, bool) { return true, true },
			}, nil)
			ctx := context.Background()
			if err := m.CreateNetwork(ctx, CreateRequest{ID: nid("n"), Subnets: subnets("10.0.0.0/16")}); err != nil {
				b.Fatal(err)
			}
			live := func(i int, stay bool) {
				name := fmt.Sprint("e", i)
				req := endpointRequest("n", name, fmt.Sprintf("10.0.%d.%d/16", i/250, 2+i%250))
				if _, err := m.CreateEndpoint(ctx, req); err != nil {
					b.Fatal(err)
				}
				if _, err := m.Join(ctx, JoinRequest{Network: nid("n"), ID: req.ID, Sandbox: sandbox(name)}); err != nil {
					b.Fatal(err)
				}
				if stay {
					return
				}
				if err := m.Leave(ctx, nid("n"), req.ID); err != nil {
					b.Fatal(err)
				}
				if err := m.DeleteEndpoint(ctx, nid("n"), req.ID); err != nil {
					b.Fatal(err)
				}
			}
			for i := range others {
				live(i, true)
			}
			b.ReportAllocs()
			for b.Loop() {
				live(others, false)
			}
		})
	}
}

// still is a switch that is always as it should be.
type still struct{}

func (still) Ready(context.Context, Config) error                               { return nil }
func (still) Routes(Network) []netip.Prefix                                     { return nil }
func (still) Choose(context.Context, Network, Endpoint) ([]netip.Prefix, error) { return nil, nil }
func (still) Await(context.Context, Network, EndpointID) error                  { return nil }
func (still) Plan(n Network, _ []Network) (Plan, error) {
	n.Config.Bridge = "br0"
	return Plan{Config: n.Config}, nil
}
func (still) CheckBridge(string) error                    { return nil }
func (still) Apply(context.Context, Network) error        { return nil }
func (still) Remove(context.Context, Network, bool) error { return nil }
func (still) Observe(Network) Status                      { return Status{} }
func (still) Prune(context.Context, []Network, func(ID, EndpointID) bool) (bool, error) {
	return false, nil
}

// blank is a store that remembers nothing.
type blank struct{}

func (blank) PutNetwork(Network, bool) error   { return nil }
func (blank) PutEndpoint(Endpoint, bool) error { return nil }
func (blank) DeleteNetwork(ID) error           { return nil }
func (blank) DeleteEndpoint(Endpoint) error    { return nil }
