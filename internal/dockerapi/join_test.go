package dockerapi

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
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
