package dockerapi

import (
	"context"
	"net/http"
	"net/netip"

	"github.com/ovs-container-network/ovs-container-network/internal/ipam"
)

// Addresses is what the IPAM driver asks of the core.
type Addresses interface {
	RequestPool(ctx context.Context, pool, subPool string, opts map[string]string, v6 bool) (ipam.Pool, error)
	ReleasePool(ctx context.Context, id ipam.PoolID) error
	RequestAddress(ctx context.Context, id ipam.PoolID, req ipam.Request) (netip.Prefix, error)
	ReleaseAddress(ctx context.Context, id ipam.PoolID, addr string) error
}

// Options of RequestAddress (moby daemon/libnetwork/ipamapi and netlabel).
const (
	keyAddressType  = "RequestAddressType"
	typeGateway     = "com.docker.network.gateway"
	keyEndpointName = "com.docker.network.endpoint.name" // engines from 29 on
)

// The wire types of moby daemon/libnetwork/ipams/remote/api.
type (
	requestPoolRequest struct {
		AddressSpace string
		Pool         string
		SubPool      string
		Options      map[string]string
		V6           bool
	}
	requestPoolResponse struct {
		PoolID string
		Pool   string
		Data   map[string]string
	}
	releasePoolRequest struct {
		PoolID string
	}
	requestAddressRequest struct {
		PoolID  string
		Address string
		Options map[string]string
	}
	requestAddressResponse struct {
		Address string
		Data    map[string]string
	}
	releaseAddressRequest struct {
		PoolID  string
		Address string
	}
)

func (s *Server) ipamDriver(mux *http.ServeMux) {
	handle(s, mux, "IpamDriver.GetCapabilities", func(context.Context, empty) (any, error) {
		// Pools and addresses are durable here, so dockerd need not replay them.
		return map[string]bool{"RequiresMACAddress": false, "RequiresRequestReplay": false}, nil
	})
	handle(s, mux, "IpamDriver.GetDefaultAddressSpaces", func(context.Context, empty) (any, error) {
		return map[string]string{
			"LocalDefaultAddressSpace":  ipam.AddressSpace,
			"GlobalDefaultAddressSpace": ipam.GlobalAddressSpace,
		}, nil
	})
	handle(s, mux, "IpamDriver.RequestPool", func(ctx context.Context, r requestPoolRequest) (requestPoolResponse, error) {
		p, err := s.IPAM.RequestPool(ctx, r.Pool, r.SubPool, r.Options, r.V6)
		if err != nil {
			return requestPoolResponse{}, err
		}
		return requestPoolResponse{PoolID: string(p.ID), Pool: p.Prefix.String(), Data: map[string]string{}}, nil
	})
	handle(s, mux, "IpamDriver.ReleasePool", func(ctx context.Context, r releasePoolRequest) (empty, error) {
		return empty{}, s.IPAM.ReleasePool(ctx, ipam.PoolID(r.PoolID))
	})
	handle(s, mux, "IpamDriver.RequestAddress", func(ctx context.Context, r requestAddressRequest) (requestAddressResponse, error) {
		a, err := s.IPAM.RequestAddress(ctx, ipam.PoolID(r.PoolID), ipam.Request{
			Addr:    r.Address,
			Gateway: r.Options[keyAddressType] == typeGateway,
			Name:    r.Options[keyEndpointName],
		})
		if err != nil {
			return requestAddressResponse{}, err
		}
		return requestAddressResponse{Address: a.String(), Data: map[string]string{}}, nil
	})
	handle(s, mux, "IpamDriver.ReleaseAddress", func(ctx context.Context, r releaseAddressRequest) (empty, error) {
		return empty{}, s.IPAM.ReleaseAddress(ctx, ipam.PoolID(r.PoolID), r.Address)
	})
}
