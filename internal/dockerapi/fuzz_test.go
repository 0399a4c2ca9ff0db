package dockerapi

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// strictCore checks that what passes the surface is what the core may rely on.
type strictCore struct {
	fakeCore
	t *testing.T
}

var idPattern = regexp.MustCompile(`^[0-9a-zA-Z_-]{1,128}$`)

func (c *strictCore) id(ids ...string) {
	for _, id := range ids {
		if !idPattern.MatchString(id) {
			c.t.Errorf("id %q reached the core", id)
		}
	}
}

func (c *strictCore) CreateNetwork(_ context.Context, req network.CreateRequest) error {
	c.id(string(req.ID))
	for _, s := range req.Subnets {
		if !s.Prefix.IsValid() || s.Prefix != s.Prefix.Masked() || s.Prefix.Bits() == 0 {
			c.t.Errorf("subnet %+v", s)
		}
	}
	return nil
}

func (c *strictCore) CreateEndpoint(_ context.Context, req network.EndpointRequest) (network.Endpoint, error) {
	c.id(string(req.Network), string(req.ID))
	for _, a := range req.Addrs {
		if !a.IsValid() {
			c.t.Errorf("address %v", a)
		}
	}
	if req.Published < 0 || req.Options == nil {
		c.t.Errorf("request %+v", req)
	}
	mac := req.MAC
	if mac == "" {
		mac = "02:00:00:00:00:01"
	}
	return network.Endpoint{MAC: mac}, nil
}

func (c *strictCore) Join(_ context.Context, req network.JoinRequest) (network.Joined, error) {
	c.id(string(req.Network), string(req.ID))
	if req.Published < 0 || req.Alone && req.Published == 0 {
		c.t.Errorf("request %+v", req)
	}
	return network.Joined{Link: "oc-1"}, nil
}

// fuzzCall sends any body to one call: the answer is always one of JSON, and a
// panic is none.
func fuzzCall(f *testing.F, call string) {
	files, err := filepath.Glob("testdata/*.txt")
	check(f, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		check(f, err)
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "{") {
				f.Add(expand(line))
			}
		}
	}
	for _, body := range []string{
		"", "null", "{}", "[]", `{"NetworkID":"a","EndpointID":"b"}`,
		`{"NetworkID":"a","IPv4Data":[{"Pool":"::ffff:1.2.3.4/120","Gateway":"::ffff:1.2.3.4%eth0"}]}`,
		`{"NetworkID":"a","EndpointID":"b","Interface":{"Address":"1.2.3.4/24","AddressIPv6":"fe80::1%x/64","MacAddress":"x"}}`,
		`{"NetworkID":"a","EndpointID":"b","Options":{"com.docker.network.portmap":[null,{},{"Proto":-1}]}}`,
	} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		a := newAPI()
		a.Networks = &strictCore{t: t}
		a.handler = a.Handler()
		rec := a.post(call, body)
		var answer struct {
			Err       string
			Interface *struct{ MacAddress, Address string }
		}
		if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil {
			t.Fatalf("%v: %s", err, rec.Body)
		}
		if ok := rec.Code == http.StatusOK; rec.Code != http.StatusOK && rec.Code != http.StatusInternalServerError || ok != (answer.Err == "") {
			t.Errorf("%d %s", rec.Code, rec.Body)
		}
		if strings.Contains(answer.Err, "internal error") {
			t.Error(a.log)
		}
		if i := answer.Interface; i != nil {
			var asked struct{ Interface *struct{ MacAddress string } }
			json.Unmarshal([]byte(body), &asked)
			if given := asked.Interface != nil && asked.Interface.MacAddress != ""; given == (i.MacAddress != "") || i.Address != "" {
				t.Errorf("answered %s to %s", rec.Body, body)
			}
		}
	})
}

func FuzzCreateNetwork(f *testing.F)  { fuzzCall(f, "NetworkDriver.CreateNetwork") }
func FuzzCreateEndpoint(f *testing.F) { fuzzCall(f, "NetworkDriver.CreateEndpoint") }
func FuzzJoin(f *testing.F)           { fuzzCall(f, "NetworkDriver.Join") }
