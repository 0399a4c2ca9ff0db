package dockerapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// Keys of libnetwork's options (moby daemon/libnetwork/netlabel).
const (
	keyGeneric  = "com.docker.network.generic"
	keyInternal = "com.docker.network.internal"
	keyPortMap  = "com.docker.network.portmap"
)

// connected is the RouteType of hosts on the link.
const connected = 1

// The wire types of moby daemon/libnetwork/drivers/remote/api.
type (
	createNetworkRequest struct {
		NetworkID string
		Options   map[string]json.RawMessage
		IPv4Data  []ipamData
		IPv6Data  []ipamData
	}
	ipamData struct {
		AddressSpace string
		Pool         string
		Gateway      string
		AuxAddresses map[string]string
	}
	networkRequest struct {
		NetworkID string
	}
	endpointRequest struct {
		NetworkID  string
		EndpointID string
	}
	createEndpointRequest struct {
		NetworkID  string
		EndpointID string
		Interface  *endpointInterface
		Options    map[string]json.RawMessage
	}
	endpointInterface struct {
		Address     string `json:",omitempty"`
		AddressIPv6 string `json:",omitempty"`
		MacAddress  string `json:",omitempty"`
	}
	createEndpointResponse struct {
		Interface endpointInterface
	}
	joinRequest struct {
		NetworkID  string
		EndpointID string
		SandboxKey string
		Options    map[string]json.RawMessage
	}
	joinResponse struct {
		InterfaceName         *interfaceName `json:",omitempty"`
		Gateway               string         `json:",omitempty"`
		GatewayIPv6           string         `json:",omitempty"`
		StaticRoutes          []staticRoute  `json:",omitempty"`
		DisableGatewayService bool
	}
	staticRoute struct {
		Destination string
		RouteType   int    // 0: by NextHop
		NextHop     string `json:",omitempty"`
	}
	interfaceName struct {
		SrcName   string
		DstPrefix string
	}
)

func (s *Server) networkDriver(mux *http.ServeMux) {
	handle(s, mux, "NetworkDriver.GetCapabilities", func(context.Context, empty) (any, error) {
		return map[string]string{"Scope": "local", "ConnectivityScope": "local"}, nil
	})
	handle(s, mux, "NetworkDriver.CreateNetwork", s.createNetwork)
	handle(s, mux, "NetworkDriver.DeleteNetwork", func(ctx context.Context, r networkRequest) (empty, error) {
		if err := checkID("network", r.NetworkID); err != nil {
			return empty{}, err
		}
		return empty{}, s.Networks.DeleteNetwork(ctx, network.ID(r.NetworkID))
	})
	handle(s, mux, "NetworkDriver.CreateEndpoint", s.createEndpoint)
	ends := &spacing[network.ID]{gap: endGap}
	handle(s, mux, "NetworkDriver.DeleteEndpoint", forEndpoint(func(ctx context.Context, id network.ID, eid network.EndpointID) error {
		err := s.Networks.DeleteEndpoint(ctx, id, eid)
		defer network.Outside(ctx)()
		ends.wait(ctx, id)
		return err
	}))
	handle(s, mux, "NetworkDriver.Join", s.join)
	handle(s, mux, "NetworkDriver.Leave", forEndpoint(s.Networks.Leave))
	handle(s, mux, "NetworkDriver.EndpointOperInfo", func(context.Context, endpointRequest) (any, error) {
		return map[string]any{"Value": map[string]any{}}, nil
	})
	// Ports are published by Docker's gateway service, discovery is not for a
	// driver of local scope, swarm managers ask only drivers of global scope.
	for _, call := range []string{
		"ProgramExternalConnectivity", "RevokeExternalConnectivity",
		"DiscoverNew", "DiscoverDelete", "AllocateNetwork", "FreeNetwork",
	} {
		handle(s, mux, "NetworkDriver."+call, func(context.Context, empty) (empty, error) { return empty{}, nil })
	}
}

// forEndpoint makes a call of one that only names an endpoint.
func forEndpoint(do func(context.Context, network.ID, network.EndpointID) error) func(context.Context, endpointRequest) (empty, error) {
	return func(ctx context.Context, r endpointRequest) (empty, error) {
		if err := checkEndpoint(r.NetworkID, r.EndpointID); err != nil {
			return empty{}, err
		}
		return empty{}, do(ctx, network.ID(r.NetworkID), network.EndpointID(r.EndpointID))
	}
}

func checkEndpoint(nid, eid string) error {
	if err := checkID("network", nid); err != nil {
		return err
	}
	return checkID("endpoint", eid)
}

func (s *Server) createNetwork(ctx context.Context, r createNetworkRequest) (empty, error) {
	if err := checkID("network", r.NetworkID); err != nil {
		return empty{}, err
	}
	req := network.CreateRequest{ID: network.ID(r.NetworkID)}
	var err error
	if req.Options, err = driverOptions(r.Options[keyGeneric]); err != nil {
		return empty{}, err
	}
	if raw := r.Options[keyInternal]; raw != nil {
		if err := json.Unmarshal(raw, &req.Internal); err != nil {
			return empty{}, fmt.Errorf("%s: %w", keyInternal, err)
		}
	}
	for _, d := range append(r.IPv4Data, r.IPv6Data...) {
		sub, err := subnet(d)
		if err != nil {
			return empty{}, err
		}
		if sub.Prefix.IsValid() {
			req.Subnets = append(req.Subnets, sub)
		}
	}
	return empty{}, s.Networks.CreateNetwork(ctx, req)
}

// driverOptions decodes what the user gave with --opt. Docker sends strings; a
// Compose file can hold other scalars, which are taken as they are written.
func driverOptions(raw json.RawMessage) (map[string]string, error) {
	var given map[string]json.RawMessage
	if raw != nil {
		if err := json.Unmarshal(raw, &given); err != nil {
			return nil, fmt.Errorf("cannot understand the network's options: %w", err)
		}
	}
	opts := make(map[string]string, len(given))
	for k, v := range given {
		text, ok := scalar(v)
		if !ok {
			return nil, fmt.Errorf("option %s: its value is no text", k)
		}
		opts[k] = text
	}
	return opts, nil
}

// scalar returns the text of a string, or a number or truth value as written.
func scalar(raw json.RawMessage) (text string, ok bool) {
	switch raw[0] {
	case '"':
		return text, json.Unmarshal(raw, &text) == nil
	case '{', '[', 'n': // null
		return "", false
	}
	return string(raw), true
}

// subnet decodes one pool. The null IPAM driver's (0.0.0.0/0, ::/0) is none.
func subnet(d ipamData) (network.Subnet, error) {
	s := network.Subnet{Space: d.AddressSpace}
	p, err := netip.ParsePrefix(d.Pool)
	if err != nil {
		return s, fmt.Errorf("cannot understand the subnet %q: %w", d.Pool, err)
	}
	if p.Bits() == 0 {
		return network.Subnet{}, nil
	}
	s.Prefix = p.Masked()
	if d.Gateway != "" {
		gw, err := parseAddr(d.Gateway)
		if err != nil {
			return s, fmt.Errorf("cannot understand the gateway %q: %w", d.Gateway, err)
		}
		s.Gateway = gw.Addr()
	}
	return s, nil
}

// parseAddr takes an address with or without its prefix length.
func parseAddr(text string) (netip.Prefix, error) {
	if strings.Contains(text, "/") {
		return netip.ParsePrefix(text)
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

func (s *Server) createEndpoint(ctx context.Context, r createEndpointRequest) (createEndpointResponse, error) {
	var resp createEndpointResponse
	if err := checkEndpoint(r.NetworkID, r.EndpointID); err != nil {
		return resp, err
	}
	req := network.EndpointRequest{Network: network.ID(r.NetworkID), ID: network.EndpointID(r.EndpointID)}
	if r.Interface != nil {
		req.MAC = r.Interface.MacAddress
		for _, text := range []string{r.Interface.Address, r.Interface.AddressIPv6} {
			if text == "" {
				continue
			}
			a, err := parseAddr(text)
			if err != nil {
				return resp, fmt.Errorf("cannot understand the address %q: %w", text, err)
			}
			req.Addrs = append(req.Addrs, a)
		}
	}
	req.Options = make(map[string]string)
	for k, raw := range r.Options {
		text, ok := scalar(raw)
		switch {
		case ok:
			req.Options[k] = text
		case !strings.HasPrefix(k, "com.docker."): // Docker's own are lists, too
			return resp, fmt.Errorf("option %s: its value is no text", k)
		}
	}
	var err error
	if req.Published, err = published(r.Options); err != nil {
		return resp, err
	}
	ep, err := s.Networks.CreateEndpoint(ctx, req)
	if err != nil {
		return resp, err
	}
	if req.MAC == "" {
		// Only what was not given may be returned: libnetwork refuses even an
		// equal value.
		resp.Interface.MacAddress = ep.MAC
	}
	if len(req.Addrs) == 0 {
		for _, a := range ep.Addrs { // chosen by the driver
			if a.Addr().Is4() {
				resp.Interface.Address = a.String()
			} else if resp.Interface.AddressIPv6 == "" {
				resp.Interface.AddressIPv6 = a.String()
			}
		}
	}
	return resp, nil
}

// published counts the ports that -p asks for.
func published(opts map[string]json.RawMessage) (int, error) {
	var ports []json.RawMessage
	if raw := opts[keyPortMap]; raw != nil {
		if err := json.Unmarshal(raw, &ports); err != nil {
			return 0, fmt.Errorf("%s: %w", keyPortMap, err)
		}
	}
	return len(ports), nil
}

func (s *Server) join(ctx context.Context, r joinRequest) (joinResponse, error) {
	var resp joinResponse
	if err := checkEndpoint(r.NetworkID, r.EndpointID); err != nil {
		return resp, err
	}
	ports, err := published(r.Options)
	if err != nil {
		return resp, err
	}
	req := network.JoinRequest{
		Network: network.ID(r.NetworkID), ID: network.EndpointID(r.EndpointID),
		Sandbox: r.SandboxKey, Published: ports,
	}
	if ports > 0 {
		// Engines up to 27 make the sandbox of a starting container later.
		others, err := s.OtherLinks(r.SandboxKey)
		req.Alone = err != nil || !others
	}
	j, err := s.Networks.Join(ctx, req)
	if err != nil {
		return resp, err
	}
	if j.Link != "" {
		resp.InterfaceName = &interfaceName{SrcName: j.Link, DstPrefix: "eth"}
	}
	if j.Gateway.IsValid() {
		resp.Gateway = j.Gateway.String()
	}
	if j.Gateway6.IsValid() {
		resp.GatewayIPv6 = j.Gateway6.String()
	}
	for _, r := range j.Routes {
		route := staticRoute{Destination: r.To.String(), RouteType: connected}
		if r.Via.IsValid() {
			route = staticRoute{Destination: r.To.String(), NextHop: r.Via.String()}
		}
		resp.StaticRoutes = append(resp.StaticRoutes, route)
	}
	resp.DisableGatewayService = j.DisableGateway
	return resp, nil
}
