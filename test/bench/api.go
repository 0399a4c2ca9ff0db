//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

// api asks the host's engine without the docker command between.
type api struct{ http http.Client }

func newAPI(h *lab.Host) *api {
	return &api{http.Client{Transport: unixTransport(h, "/run/docker.sock")}}
}

// unixTransport dials a socket of the host. Connections are kept, so that they
// are not part of what is measured.
func unixTransport(h *lab.Host, socket string) *http.Transport {
	return &http.Transport{
		MaxIdleConnsPerHost: 100,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", h.Path(socket))
		},
	}
}

type object = map[string]any

func (a *api) connect(ctx context.Context, network, container string) error {
	return a.call(ctx, http.MethodPost, "/networks/"+network+"/connect", object{"Container": container})
}

func (a *api) disconnect(ctx context.Context, network, container string) error {
	return a.call(ctx, http.MethodPost, "/networks/"+network+"/disconnect", object{"Container": container})
}

// start is `docker run -d` without the command.
func (a *api) start(ctx context.Context, name, network string) error {
	body := object{"Image": "lab", "HostConfig": object{"NetworkMode": network}}
	if err := a.call(ctx, http.MethodPost, "/containers/create?name="+name, body); err != nil {
		return err
	}
	return a.call(ctx, http.MethodPost, "/containers/"+name+"/start", nil)
}

// remove is `docker rm -f`.
func (a *api) remove(ctx context.Context, name string) error {
	return a.call(ctx, http.MethodDelete, "/containers/"+name+"?force=1", nil)
}

func (a *api) createNetwork(ctx context.Context, name string, k kind, number, bits int) error {
	opts := object{}
	for _, o := range k.opts {
		key, value, _ := strings.Cut(o, "=")
		opts[key] = value
	}
	return a.call(ctx, http.MethodPost, "/networks/create", object{
		"Name": name, "Driver": k.driver, "CheckDuplicate": true, "Options": opts,
		"IPAM": object{"Config": []object{{"Subnet": subnet(number, bits)}}},
	})
}

func (a *api) removeNetwork(ctx context.Context, name string) error {
	return a.call(ctx, http.MethodDelete, "/networks/"+name, nil)
}

func (a *api) call(ctx context.Context, method, path string, body any) error {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://docker"+path, content)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := a.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, bytes.TrimSpace(answer))
	}
	return nil
}
