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

	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

// api asks the host's engine without the docker command between.
type api struct{ http http.Client }

func newAPI(h *lab.Host) *api {
	return &api{http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", h.Path("/run/docker.sock"))
	}}}}
}

func (a *api) connect(ctx context.Context, network, container string) error {
	return a.post(ctx, "/networks/"+network+"/connect", map[string]any{"Container": container})
}

func (a *api) disconnect(ctx context.Context, network, container string) error {
	return a.post(ctx, "/networks/"+network+"/disconnect", map[string]any{"Container": container})
}

func (a *api) post(ctx context.Context, path string, body any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://docker"+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := a.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(resp.Body)
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("POST %s: %s: %s", path, resp.Status, answer)
	}
	return nil
}
