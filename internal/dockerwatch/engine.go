package dockerwatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

const (
	// deadline of every request, and of the stream's until its header is there.
	deadline = 10 * time.Second
	// maxBody bounds an answer: a network of fifty thousand containers is 15 MB.
	maxBody = 64 << 20
	// minAPI is the oldest version of the API that this package was tried with,
	// and what an engine is taken for that does not name its own.
	minAPI = "1.24"
)

// errNotFound is the answer for a network that Docker does not have, or not on
// this host.
var errNotFound = errors.New("not known to Docker")

var apiVersion = regexp.MustCompile(`^[0-9]{1,2}\.[0-9]{1,3}$`)

// engine makes the requests.
type engine struct {
	socket    string // path; empty for TCP
	base      string // http://host
	version   string // as of the last ping
	maxBody   int64
	transport *http.Transport
	client    http.Client
}

func newEngine(host string) (*engine, error) {
	scheme, addr, _ := strings.Cut(host, "://")
	e := &engine{version: minAPI, maxBody: maxBody}
	switch {
	case addr == "":
		return nil, fmt.Errorf("host %q of Docker: want unix:///path/docker.sock or tcp://address:port", host)
	case scheme == "unix":
		e.socket, e.base = addr, "http://localhost"
	case scheme == "tcp":
		addr = strings.TrimSuffix(addr, "/")
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return nil, fmt.Errorf("host %q of Docker: %w", host, err)
		}
		e.base = "http://" + addr
	default:
		return nil, fmt.Errorf("host %q of Docker: %s is not supported, want unix or tcp", host, scheme)
	}
	dialer := net.Dialer{Timeout: deadline}
	e.transport = &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if e.socket != "" {
				network, addr = "unix", e.socket
			}
			return dialer.DialContext(ctx, network, addr)
		},
		ResponseHeaderTimeout: deadline, // the stream has no other deadline: its silence is normal
		DisableCompression:    true,
		MaxIdleConns:          1,
		IdleConnTimeout:       5 * time.Second,
	}
	e.client = http.Client{
		Transport:     e.transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return e, nil
}

// absent returns an error when there is no socket to connect to.
func (e *engine) absent() error {
	if e.socket == "" {
		return nil
	}
	if _, err := os.Stat(e.socket); errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (e *engine) close() { e.transport.CloseIdleConnections() }

// ping returns once the API works, and learns its version. The engine's own
// version is used and no fixed one: engines drop old versions over the years,
// while the few fields that are read here never changed.
func (e *engine) ping(ctx context.Context) (version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	resp, err := e.get(ctx, e.base+"/_ping")
	if err != nil {
		return "", err
	}
	defer finish(resp.Body)
	e.version = minAPI
	if v := resp.Header.Get("Api-Version"); apiVersion.MatchString(v) {
		e.version = v
	}
	return e.version, nil
}

// name returns what tells this engine, with its data directory, from others.
func (e *engine) name(ctx context.Context) (string, error) {
	var info struct{ ID, DockerRootDir string }
	if err := e.read(ctx, "/info", func(d *json.Decoder) error { return d.Decode(&info) }); err != nil {
		return "", fmt.Errorf("ask Docker who it is: %w", err)
	}
	return info.ID + " " + info.DockerRootDir, nil
}

// events opens the stream. The engine answers a moment before it listens to
// its own events; asking for those since now closes that gap.
func (e *engine) events(ctx context.Context) (io.ReadCloser, error) {
	now := time.Now()
	q := url.Values{
		"filters": {eventFilter},
		"since":   {fmt.Sprintf("%d.%09d", now.Unix(), now.Nanosecond())},
	}
	resp, err := e.get(ctx, e.url("/events")+"?"+q.Encode())
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// listed is what the listing says of a network.
type listed struct {
	ID, Name, Driver string
	Internal         bool
	IPAM             struct {
		Driver string
		Config []struct{ Subnet string }
	}
}

// publishes tells whether the network of another driver may publish ports.
func (l listed) publishes() bool { return !l.Internal && l.Driver != "null" && l.Driver != "host" }

// networks returns all networks by id. It is complete or an error:
// what ends early, or has no network at all, is not believed, as every engine
// has its "host" and "none".
func (e *engine) networks(ctx context.Context) (map[network.ID]listed, error) {
	all := map[network.ID]listed{}
	err := e.read(ctx, "/networks", func(d *json.Decoder) error {
		// One by one: an old engine lists all containers of each network here.
		if t, err := d.Token(); err != nil {
			return err
		} else if t != json.Delim('[') {
			return fmt.Errorf("a list of networks begins with %v", t)
		}
		for d.More() {
			var n listed
			if err := d.Decode(&n); err != nil {
				return err
			}
			if n.ID == "" {
				return errors.New("a network has no id")
			}
			all[network.ID(n.ID)] = n
		}
		_, err := d.Token()
		return err
	})
	if err == nil && len(all) == 0 {
		err = errors.New("not one in the answer")
	}
	if err != nil {
		return nil, fmt.Errorf("list networks: %w", err)
	}
	return all, nil
}

// inspected is a network with those who use it.
type inspected struct {
	Name       string
	Containers map[string]struct{ Name, EndpointID string } // by container id
}

// endpoints returns whose endpoint is whose. While an endpoint joins, its key
// is "ep-" and the endpoint's id in place of the container's: such a one is
// left out and reported as joining. "lb-" keys are load balancers of swarm.
func (n inspected) endpoints() (eps map[network.EndpointID]network.Container, joining bool) {
	eps = make(map[network.EndpointID]network.Container, len(n.Containers))
	for id, c := range n.Containers {
		switch {
		case strings.HasPrefix(id, "ep-"):
			joining = true
		case id == "" || c.EndpointID == "" || strings.HasPrefix(id, "lb-"):
		default:
			eps[network.EndpointID(c.EndpointID)] = network.Container{ID: id, Name: c.Name}
		}
	}
	return eps, joining
}

// inspect returns errNotFound for a network that is not on this host.
func (e *engine) inspect(ctx context.Context, id network.ID) (inspected, error) {
	var n inspected
	err := e.read(ctx, "/networks/"+url.PathEscape(string(id)), func(d *json.Decoder) error { return d.Decode(&n) })
	if err != nil {
		return inspected{}, fmt.Errorf("inspect network: %w", err)
	}
	return n, nil
}

func (e *engine) url(path string) string { return e.base + "/v" + e.version + path }

// read makes one request with its deadline and has its answer decoded.
func (e *engine) read(ctx context.Context, path string, decode func(*json.Decoder) error) error {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	resp, err := e.get(ctx, e.url(path))
	if err != nil {
		return err
	}
	defer finish(resp.Body)
	return decode(json.NewDecoder(http.MaxBytesReader(nil, resp.Body, e.maxBody)))
}

// get returns an answer that says 200.
func (e *engine) get(ctx context.Context, url string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := e.client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer finish(resp.Body)
	if resp.StatusCode == http.StatusNotFound {
		return nil, errNotFound
	}
	var said struct{ Message string }
	// Without a message the status alone has to do.
	_ = json.NewDecoder(io.LimitReader(resp.Body, 4096)).Decode(&said)
	return nil, fmt.Errorf("answer of Docker: %s: %s", resp.Status, said.Message)
}

func timedOut(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// finish reads the rest of a short answer, so that its connection can be used
// again, and closes it.
func finish(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, 4096)
	body.Close()
}
