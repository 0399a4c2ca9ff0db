package dockerapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// calls are all calls that take an argument, with one that is good.
var calls = map[string]string{
	"NetworkDriver.CreateNetwork":    `{"NetworkID":"NID","Options":{},"IPv4Data":[],"IPv6Data":[]}`,
	"NetworkDriver.DeleteNetwork":    `{"NetworkID":"NID"}`,
	"NetworkDriver.CreateEndpoint":   `{"NetworkID":"NID","EndpointID":"EID","Interface":{},"Options":{}}`,
	"NetworkDriver.DeleteEndpoint":   `{"NetworkID":"NID","EndpointID":"EID"}`,
	"NetworkDriver.Join":             `{"NetworkID":"NID","EndpointID":"EID","SandboxKey":"/x","Options":{}}`,
	"NetworkDriver.Leave":            `{"NetworkID":"NID","EndpointID":"EID"}`,
	"NetworkDriver.EndpointOperInfo": `{"NetworkID":"NID","EndpointID":"EID"}`,
	"IpamDriver.RequestPool":         `{"AddressSpace":"x","Pool":"10.0.0.0/24"}`,
	"IpamDriver.ReleasePool":         `{"PoolID":"1/10.0.0.0/24"}`,
	"IpamDriver.RequestAddress":      `{"PoolID":"1/10.0.0.0/24"}`,
	"IpamDriver.ReleaseAddress":      `{"PoolID":"1/10.0.0.0/24","Address":"10.0.0.2"}`,
}

func request(text, nid, eid string) string {
	return strings.NewReplacer("NID", nid, "EID", eid).Replace(text)
}

// fault returns the error of an answer that must be one.
func fault(t *testing.T, rec *httptest.ResponseRecorder) string {
	t.Helper()
	var answer struct{ Err string }
	if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil || rec.Code != http.StatusInternalServerError || answer.Err == "" {
		t.Errorf("no error: %d %s", rec.Code, rec.Body)
	}
	return answer.Err
}

// An empty body is what an engine sends when it tries again. It is an error and
// never a request about everything. So is whatever else is no request.
func TestBadBodies(t *testing.T) {
	for call, good := range calls {
		for what, c := range map[string]struct{ body, want string }{
			"empty":          {"", "the driver ended or took too long in the middle of this call: run the command again (dockerd has repeated the call, with an empty request)"},
			"no JSON":        {"hello", "cannot understand the request"},
			"cut off":        {good[:len(good)-1], "cannot understand the request"},
			"a list":         {"[" + good + "]", "cannot understand the request"},
			"two":            {good + good, "cannot understand the request"},
			"a number":       {"7", "cannot understand the request"},
			"number as id":   {`{"NetworkID":7,"PoolID":7,"Pool":7}`, "cannot understand the request"},
			"too deep":       {strings.Repeat("[", 100_000), "cannot understand the request"},
			"zero bytes":     {"\x00\x00", "cannot understand the request"},
			"rubbish behind": {good + "\xff", "cannot understand the request"},
		} {
			a := newAPI()
			got := fault(t, a.post(call, c.body))
			if !strings.HasPrefix(got, c.want) || !anyRequest.MatchString(got) {
				t.Errorf("%s, %s: %s", call, what, got)
			}
			if asked := a.core.take(); len(asked) > 0 {
				t.Errorf("%s, %s: the core was asked %v", call, what, asked)
			}
		}
	}
}

// A request may be as large as one with thousands of ports, not larger.
func TestLargeBody(t *testing.T) {
	const call = "NetworkDriver.Leave"
	good := request(calls[call], nid, eid)
	a := newAPI()
	if rec := a.post(call, strings.Repeat(" ", maxBody-len(good))+good); rec.Code != http.StatusOK {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	a.core.take()
	got := fault(t, a.post(call, strings.Repeat(" ", maxBody-len(good)+1)+good))
	if !strings.HasPrefix(got, fmt.Sprintf("the request has more than %d bytes", maxBody)) || len(a.core.take()) > 0 {
		t.Errorf("got %s", got)
	}
	ports := strings.Repeat(`{"Proto":6,"IP":"","Port":80,"HostIP":"","HostPort":8000,"HostPortEnd":8000},`, 10_000)
	body := fmt.Sprintf(`{"NetworkID":%q,"EndpointID":%q,"Options":{"com.docker.network.portmap":[%s]}}`, nid, eid, strings.TrimSuffix(ports, ","))
	if rec := a.post("NetworkDriver.Join", body); rec.Code != http.StatusOK || !strings.Contains(strings.Join(a.core.take(), ""), "Published:10000") {
		t.Errorf("10,000 ports: %d %s", rec.Code, rec.Body)
	}
}

// Ids become names of files: what Docker would not send is refused and never
// reaches the core.
func TestBadIDs(t *testing.T) {
	bad := []string{"", ".", "..", "../x", "../../etc/passwd", "a/b", `a\\b`, "a b", "a\\u0000b", "ä", "a.json", "~", "*", strings.Repeat("a", 129)}
	for call, text := range calls {
		if !strings.Contains(text, "NID") || strings.HasSuffix(call, "OperInfo") {
			continue
		}
		for _, id := range bad {
			ids := [][2]string{{id, eid}}
			if strings.Contains(text, "EID") {
				ids = append(ids, [2]string{nid, id})
			}
			for _, pair := range ids {
				a := newAPI()
				got := fault(t, a.post(call, request(text, pair[0], pair[1])))
				if !strings.Contains(got, "network") && !strings.Contains(got, "endpoint") {
					t.Errorf("%s %q: %s", call, pair, got)
				}
				if asked := a.core.take(); len(asked) > 0 {
					t.Errorf("%s %q: the core was asked %v", call, pair, asked)
				}
			}
		}
		for _, id := range []string{nid, swarmID, "a", strings.Repeat("a", 128), "A-Z_09"} {
			if rec := newAPI().post(call, request(text, id, id)); rec.Code != http.StatusOK {
				t.Errorf("%s %q: %d %s", call, id, rec.Code, rec.Body)
			}
		}
	}
}

// A panic is an error for its caller alone, with the id under which the log has
// the stack.
func TestPanic(t *testing.T) {
	for call, text := range calls {
		if !strings.Contains(text, "NID") || strings.HasSuffix(call, "OperInfo") {
			continue
		}
		a := newAPI()
		got := fault(t, a.post(call, request(text, panicID, eid)))
		id := regexp.MustCompile(`^internal error \(request ([0-9a-f]{8})\)$`).FindStringSubmatch(got)
		if id == nil {
			t.Fatalf("%s: %s", call, got)
		}
		for _, want := range []string{"of the core", "req=" + id[1], "core_test.go", "call=" + call} {
			if !strings.Contains(a.log.String(), want) {
				t.Errorf("%s: the log lacks %q: %s", call, want, a.log)
			}
		}
		if rec := a.post(call, request(text, nid, eid)); rec.Code != http.StatusOK {
			t.Errorf("%s, the next call: %d %s", call, rec.Code, rec.Body)
		}
	}
}

// Every error can be found in the log by the id that the user sees.
func TestErrorIsLogged(t *testing.T) {
	a := newAPI()
	seen := map[string]bool{}
	for range 20 {
		got := fault(t, a.post("NetworkDriver.DeleteNetwork", `{"NetworkID":"`+badID+`"}`))
		id := anyRequest.FindString(got)
		if seen[id] {
			t.Errorf("%s twice", id)
		}
		seen[id] = true
		if !strings.Contains(a.log.String(), "req="+strings.TrimSuffix(strings.TrimPrefix(id, "(request "), ")")) {
			t.Errorf("%s is not in the log", got)
		}
	}
}

// The core is given a context that ends before dockerd gives up, and with the
// caller.
func TestContext(t *testing.T) {
	a := newAPI()
	var left time.Duration
	a.core.ctx = func(ctx context.Context) {
		deadline, ok := ctx.Deadline()
		if !ok {
			t.Error("no deadline")
		}
		left = time.Until(deadline)
	}
	a.post("NetworkDriver.DeleteNetwork", request(calls["NetworkDriver.DeleteNetwork"], nid, eid))
	if left <= 24*time.Second || left >= 30*time.Second {
		t.Errorf("%v until the deadline", left)
	}

	started, ended := make(chan struct{}), make(chan error, 1)
	a.core.ctx = func(ctx context.Context) {
		close(started)
		select {
		case <-ctx.Done():
			ended <- ctx.Err()
		case <-time.After(10 * time.Second):
			ended <- errors.New("the call goes on")
		}
	}
	srv := httptest.NewServer(a.handler)
	defer srv.Close()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "POST", srv.URL+"/NetworkDriver.Leave",
		strings.NewReader(request(calls["NetworkDriver.Leave"], nid, eid)))
	check(t, err)
	go func() {
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
		}
	}()
	<-started
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("after the caller hung up: %v", err)
	}
}

// Many calls at once over a socket, as an engine makes them: without a content
// type, and on old ones without a host.
func TestParallel(t *testing.T) {
	a := newAPI()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	check(t, err)
	srv := &http.Server{Handler: a.handler}
	defer srv.Close()
	go srv.Serve(l)
	client := &http.Client{Transport: &http.Transport{
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) },
		DisableKeepAlives: true,
	}}
	const many = 200
	results := make(chan error, many)
	for i := range many {
		go func() {
			id := fmt.Sprintf("%064x", i)
			if i%10 == 0 {
				id = panicID
			}
			req, err := http.NewRequest("POST", "http://plugin/NetworkDriver.CreateEndpoint", strings.NewReader(request(calls["NetworkDriver.CreateEndpoint"], id, eid)))
			if err != nil {
				results <- err
				return
			}
			req.Host = ""
			resp, err := client.Do(req)
			if err == nil {
				resp.Body.Close()
				if want := map[bool]int{true: 500, false: 200}[id == panicID]; resp.StatusCode != want {
					err = fmt.Errorf("%s: %s", id, resp.Status)
				}
			}
			results <- err
		}()
	}
	for range many {
		check(t, <-results)
	}
	if got := len(a.core.take()); got != many {
		t.Errorf("%d calls", got)
	}
}

// The answers to calls without an argument do not hang on a body: engines send
// none, null, or something of theirs.
func TestNoArgument(t *testing.T) {
	for _, call := range []string{
		"Plugin.Activate", "NetworkDriver.GetCapabilities", "IpamDriver.GetCapabilities", "IpamDriver.GetDefaultAddressSpaces",
		"NetworkDriver.DiscoverNew", "NetworkDriver.ProgramExternalConnectivity",
	} {
		a := newAPI()
		want := a.post(call, "").Body.String()
		for _, body := range []string{"null", "{}", "hello", strings.Repeat("x", 1<<20)} {
			rec := a.post(call, body)
			if diff := cmp.Diff(want, rec.Body.String()); diff != "" || rec.Code != http.StatusOK {
				t.Errorf("%s: %d %s", call, rec.Code, diff)
			}
		}
	}
}

// Nothing but POST is a call.
func TestMethods(t *testing.T) {
	for call, text := range calls {
		for _, method := range []string{"GET", "PUT", "DELETE", "HEAD", "OPTIONS"} {
			a := newAPI()
			rec := a.ask(method, "/"+call, request(text, nid, eid))
			if rec.Code != http.StatusNotFound || len(a.core.take()) > 0 {
				t.Errorf("%s %s: %d", method, call, rec.Code)
			}
		}
	}
}
