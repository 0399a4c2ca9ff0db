package dockerapi

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// A container with published ports is alone if nothing that can be seen says
// otherwise.
func TestAlone(t *testing.T) {
	const one = `[{"Proto":6,"Port":80,"HostPort":8000}]`
	for name, c := range map[string]struct {
		ports  string
		others bool
		err    error
		want   string
	}{
		"no ports":        {`[]`, false, nil, "Published:0 Alone:false"},
		"nothing else":    {one, false, nil, "Published:1 Alone:true"},
		"other interface": {one, true, nil, "Published:1 Alone:false"},
		"sandbox unseen":  {one, false, errors.New("no such file"), "Published:1 Alone:true"},
	} {
		a := newAPI()
		a.OtherLinks = func(sandbox string) (bool, error) {
			if sandbox != "/run/docker/netns/x" {
				t.Errorf("asked for %q", sandbox)
			}
			return c.others, c.err
		}
		rec := a.post("NetworkDriver.Join", fmt.Sprintf(
			`{"NetworkID":%q,"EndpointID":%q,"SandboxKey":"/run/docker/netns/x","Options":{"com.docker.network.portmap":%s}}`, nid, eid, c.ports))
		asked := strings.Join(a.core.take(), "")
		if rec.Code != http.StatusOK || !strings.HasSuffix(asked, c.want+"}") {
			t.Errorf("%s: %d %s: %s", name, rec.Code, rec.Body, asked)
		}
	}
}

// Routes lead to a gateway or to the link. A link that the driver brings in by itself
// has no name for Docker, not even an empty one.
func TestJoinReplies(t *testing.T) {
	via := netip.MustParseAddr("10.0.0.9")
	for want, j := range map[string]network.Joined{
		`{"DisableGatewayService":true}`: {DisableGateway: true},
		`{"InterfaceName":{"SrcName":"oc-1","DstPrefix":"eth"},"Gateway":"10.0.0.1",` +
			`"StaticRoutes":[{"Destination":"10.8.0.0/16","RouteType":0,"NextHop":"10.0.0.9"},{"Destination":"192.0.2.1/32","RouteType":1}],"DisableGatewayService":false}`: {
			Link: "oc-1", Gateway: netip.MustParseAddr("10.0.0.1"),
			Routes: []network.Route{{To: netip.MustParsePrefix("10.8.0.0/16"), Via: via}, {To: netip.MustParsePrefix("192.0.2.1/32")}},
		},
	} {
		a := newAPI()
		a.core.joined = &j
		rec := a.post("NetworkDriver.Join", fmt.Sprintf(`{"NetworkID":%q,"EndpointID":%q,"SandboxKey":"/run/docker/netns/x"}`, nid, eid))
		if got := strings.TrimSpace(rec.Body.String()); rec.Code != http.StatusOK || got != want {
			t.Errorf("got %d %s\nwant %s", rec.Code, got, want)
		}
	}
}
