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

	"github.com/ovs-container-network/ovs-container-network/internal/ipam"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// Status is all that the daemon knows about itself and its networks.
type Status struct {
	Version  string           `json:"version"`
	Form     string           `json:"form"` // managed plugin, host service
	Started  time.Time        `json:"started"`
	HostID   string           `json:"host_id"`
	OVS      Database         `json:"ovs"`
	Networks []network.Report `json:"networks"`
	Pools    []ipam.Summary   `json:"pools"`
	Damaged  []string         `json:"damaged,omitempty"` // records that could not be read
}

// Database is the state of one database connection.
type Database struct {
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since"`
	Error     string    `json:"error,omitempty"`
	Version   string    `json:"version,omitempty"` // of the software behind it
}

// Handler serves the socket. status is called for each request.
func Handler(status func() Status) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(status()) //nolint:errcheck // the caller is gone
	})
	return mux
}

// Client asks the daemon behind a socket.
type Client struct {
	socket string
	http   http.Client
}

// callTimeout bounds a command's question.
const callTimeout = 10 * time.Second

// NewClient makes a Client. It connects at the first call.
func NewClient(socket string) *Client {
	c := &Client{socket: socket}
	c.http.Timeout = callTimeout
	c.http.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}
	return c
}

// Status asks for the status.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	return s, c.get(ctx, "/v1/status", &s)
}

func (c *Client) get(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://daemon"+path, nil)
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
