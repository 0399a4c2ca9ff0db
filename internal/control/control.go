// Package control is how the command line asks the daemon: HTTP with JSON over
// a unix socket of mode 0600. The commands can only do what is offered here,
// and never read the daemon's files, so they work the same beside a managed
// plugin and a host service.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/diag"
	"github.com/ovs-container-network/ovs-container-network/internal/ipam"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// Status is all that the daemon knows about itself and its networks.
type Status struct {
	Version string    `json:"version"`
	Form    string    `json:"form"` // managed plugin, host service
	Started time.Time `json:"started"`
	HostID  string    `json:"host_id"`
	OVS     Database  `json:"ovs"`
	// Northbound is OVN's database, nil while no network needs it.
	Northbound *Database `json:"northbound,omitempty"`
	// Fleet are the chassis, nil unless they were asked for.
	Fleet    *Fleet           `json:"fleet,omitempty"`
	Networks []network.Report `json:"networks"`
	Pools    []ipam.Summary   `json:"pools"`
	Damaged  []string         `json:"damaged,omitempty"` // records that could not be read
}

// Database is the state of one database connection.
type Database struct {
	Endpoint  string    `json:"endpoint,omitempty"`
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since"`
	Error     string    `json:"error,omitempty"`
	Version   string    `json:"version,omitempty"` // of the software behind it
}

// Fleet is what OVN's southbound database tells of the hosts that belong to it.
type Fleet struct {
	Chassis []Chassis `json:"chassis"`
	Northd  string    `json:"northd,omitempty"` // version of ovn-northd
	Error   string    `json:"error,omitempty"`  // why it could not be asked
}

// Chassis is one host of OVN.
type Chassis struct {
	Name     string    `json:"name"`
	Hostname string    `json:"hostname,omitempty"`
	Here     bool      `json:"here,omitempty"` // it is this host
	Encaps   []Encap   `json:"encaps,omitempty"`
	OVN      string    `json:"ovn,omitempty"`    // version; with a + at least that
	Seen     time.Time `json:"seen,omitzero"`    // last sign of life
	Behind   int       `json:"behind,omitempty"` // changes that it was asked to follow since
}

// Encap is a way to send to a chassis.
type Encap struct {
	Type string `json:"type"`
	IP   string `json:"ip"`
}

// Garbage is what nobody owned any more.
type Garbage struct {
	Pieces []Piece `json:"pieces"`
	// Unseen says why some kinds could not be looked for, empty if all were.
	Unseen string `json:"unseen,omitempty"`
	// Refused says why nothing was done at all.
	Refused string `json:"refused,omitempty"`
}

// Piece is one thing that nobody owned.
type Piece struct {
	Kind    string `json:"kind"` // port, mirror, link, bridge, chain, logical port, claim, chassis, network, record, pool, address
	Name    string `json:"name"`
	Why     string `json:"why"`
	Removed bool   `json:"removed"`
	Error   string `json:"error,omitempty"` // why it could not be removed
}

// Daemon is what the commands can ask for. Each function is called for each
// request, and ends when its caller is gone.
type Daemon struct {
	Status  func() Status
	Doctor  func(context.Context) diag.Report
	GC      func(ctx context.Context, dryRun bool) Garbage
	Metrics http.Handler // in Prometheus' text format; may be nil

	// Fleet asks OVN for the chassis; may be nil.
	Fleet func(context.Context) Fleet
	// Retire removes what a chassis that is gone has left, or only lists it.
	Retire func(ctx context.Context, chassis string, force, dryRun bool) Garbage
}

// Handler serves the socket.
func (d Daemon) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { answer(w, d.Status()) })
	mux.HandleFunc("POST /v1/doctor", func(w http.ResponseWriter, r *http.Request) { answer(w, d.Doctor(r.Context())) })
	mux.HandleFunc("POST /v1/gc", func(w http.ResponseWriter, r *http.Request) {
		answer(w, d.GC(r.Context(), r.URL.Query().Get("dry-run") == "true"))
	})
	if d.Fleet != nil {
		mux.HandleFunc("GET /v1/fleet", func(w http.ResponseWriter, r *http.Request) { answer(w, d.Fleet(r.Context())) })
	}
	mux.HandleFunc("POST /v1/retire", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		answer(w, d.Retire(r.Context(), q.Get("chassis"), q.Get("force") == "true", q.Get("dry-run") == "true"))
	})
	if d.Metrics != nil {
		mux.Handle("GET /v1/metrics", d.Metrics)
	}
	return mux
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v) //nolint:errcheck // the caller is gone
}

// Client asks the daemon behind a socket.
type Client struct {
	socket string
	http   http.Client
}

// callTimeout bounds a command's question, workTimeout one that needs work,
// pingTimeout one that finds out whether there is an answer at all.
const (
	pingTimeout = 5 * time.Second
	callTimeout = 10 * time.Second
	workTimeout = time.Minute
)

// NewClient makes a Client. It connects at the first call.
func NewClient(socket string) *Client {
	c := &Client{socket: socket}
	c.http.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}
	return c
}

// Status asks for the status.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	return s, c.ask(ctx, callTimeout, http.MethodGet, "/v1/status", &s)
}

// Whole is Status with the chassis, if OVN is used.
func (c *Client) Whole(ctx context.Context) (Status, error) {
	s, err := c.Status(ctx)
	if err != nil || s.Northbound == nil {
		return s, err
	}
	s.Fleet = &Fleet{}
	if err := c.ask(ctx, callTimeout, http.MethodGet, "/v1/fleet", s.Fleet); err != nil {
		s.Fleet.Error = err.Error()
	}
	return s, nil
}

// Doctor has the daemon examine itself and what it works with.
func (c *Client) Doctor(ctx context.Context) (diag.Report, error) {
	var r diag.Report
	// A daemon that hangs is found out before the long wait.
	if err := c.ask(ctx, pingTimeout, http.MethodGet, "/v1/status", new(json.RawMessage)); err != nil {
		return r, err
	}
	return r, c.ask(ctx, workTimeout, http.MethodPost, "/v1/doctor", &r)
}

// GC has the daemon remove what nobody owns, or only list it.
func (c *Client) GC(ctx context.Context, dryRun bool) (Garbage, error) {
	var g Garbage
	return g, c.ask(ctx, workTimeout, http.MethodPost, fmt.Sprintf("/v1/gc?dry-run=%v", dryRun), &g)
}

// Retire has the daemon remove what a chassis that is gone has left, or only list
// it.
func (c *Client) Retire(ctx context.Context, chassis string, force, dryRun bool) (Garbage, error) {
	q := url.Values{"chassis": {chassis}, "force": {fmt.Sprint(force)}, "dry-run": {fmt.Sprint(dryRun)}}
	var g Garbage
	return g, c.ask(ctx, workTimeout, http.MethodPost, "/v1/retire?"+q.Encode(), &g)
}

func (c *Client) ask(ctx context.Context, limit time.Duration, method, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://daemon"+path, nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var op *net.OpError
		var u *url.Error
		switch {
		case errors.As(err, &u) && u.Timeout():
			return fmt.Errorf("the daemon at %s did not answer in time", c.socket)
		case errors.As(err, &op):
			err = op.Err
		case u != nil:
			err = u.Err
		}
		return fmt.Errorf("cannot reach the daemon at %s: %w (is the plugin enabled, or the service running?)", c.socket, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000)) //nolint:errcheck // best effort
		return fmt.Errorf("the daemon answered %s: %s", resp.Status, text)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}
