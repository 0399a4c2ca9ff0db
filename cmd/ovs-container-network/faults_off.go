//go:build !faults

package main

import (
	"net/http"

	"github.com/ovs-container-network/ovs-container-network/internal/ipam"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovn"
)

// What the tests put between the parts of the daemon, to end it at a step of a
// call (faults.go), is not there.

func faultyStore(s network.Store) network.Store { return s }

func faultyFabric(f *ovn.Fabric) network.Fabric { return f }

func faultyClaims(p network.Pools) network.Pools { return p }

func faultyPools(s ipam.Store, _ []ipam.Pool) ipam.Store { return s }

func faultyHandler(h http.Handler) http.Handler { return h }
