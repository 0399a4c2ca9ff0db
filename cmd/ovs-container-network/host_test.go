package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A managed plugin sees the host's /run elsewhere than dockerd does; a host
// service sees what dockerd sees.
func TestSandboxPaths(t *testing.T) {
	plugin, service := host{run: hostRun}, host{run: "/run"}
	for path, want := range map[string]string{
		"/run/docker/netns/0123":     "/host/run/docker/netns/0123",
		"/var/run/docker/netns/0123": "/host/run/docker/netns/0123",
		"/tmp/engine/netns/0123":     "",
		"/runner/docker/netns/0123":  "",
		"":                           "",
		"/var/lib/docker/netns/var/run/docker/netns": "",
	} {
		if got := plugin.sandbox(path); got != want {
			t.Errorf("plugin: %s is seen at %q, want %q", path, got, want)
		}
		if got := service.sandbox(path); got != path {
			t.Errorf("service: %s is seen at %q", path, got)
		}
	}
	if !plugin.managed() || service.managed() || plugin.form() == service.form() {
		t.Errorf("forms: %s, %s", plugin.form(), service.form())
	}
	// An engine's path to the socket of a managed plugin has 64 digits more, and
	// a socket's path at most 107 bytes.
	if n := len("/run/docker/plugins/") + 64 + len("/") + len(filepath.Base(managedSocket)); n > 107 {
		t.Errorf("the path of the managed socket has %d bytes", n)
	}
	if s := plugin.sockets(); len(s) != 2 || s[1] != "/host/run/docker/plugins/ovs-container-network.sock" {
		t.Errorf("a plugin listens on %v", s)
	}
	if s := service.sockets(); len(s) != 1 || s[0] != "/run/docker/plugins/ovs-container-network.sock" {
		t.Errorf("a service listens on %v", s)
	}
	if plugin.control() != "/host/run/ovs-container-network/control.sock" || service.control() != "/run/ovs-container-network/control.sock" {
		t.Errorf("commands are answered at %s, %s", plugin.control(), service.control())
	}
}

// A sandbox is alive as long as its namespace is mounted; of one that cannot be
// seen nothing is known.
func TestAlive(t *testing.T) {
	service := host{run: "/run"}
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{"/proc/self/ns/net": true, plain: false, plain + "-missing": false} {
		if alive, known := service.alive(path); alive != want || !known {
			t.Errorf("%s: alive %v, known %v", path, alive, known)
		}
	}
	if alive, known := (host{run: hostRun}).alive("/tmp/engine/netns/0123"); alive || known {
		t.Errorf("not to be seen: alive %v, known %v", alive, known)
	}
}

// Calls that are under way when the daemon is told to stop are answered.
func TestServeFinishesCalls(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s.sock")
	l, err := listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	came, answer := make(chan struct{}), make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- serveHTTP(ctx, l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			close(came)
			<-answer
			io.WriteString(w, "done")
		}), slog.New(slog.DiscardHandler))
	}()
	got := make(chan string, 1)
	go func() {
		client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		}}}
		resp, err := client.Get("http://x/")
		if err != nil {
			got <- err.Error()
			return
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		got <- string(text)
	}()
	<-came
	stop()
	select {
	case err := <-ended:
		t.Errorf("ended before the call: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(answer)
	if text := <-got; text != "done" {
		t.Errorf("the call was answered %q", text)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(socket); err == nil {
		t.Error("the socket is left")
	}
}

// Docker's version is asked for briefly, and what is no engine is told.
func TestDockerVersion(t *testing.T) {
	engine := func(text string) string {
		socket := filepath.Join(t.TempDir(), "docker.sock")
		l, err := listen(socket)
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/version" {
				io.WriteString(w, text)
			}
		})}
		done := make(chan struct{})
		go func() { defer close(done); srv.Serve(l) }()
		t.Cleanup(func() { srv.Close(); <-done })
		return socket
	}
	missing := filepath.Join(t.TempDir(), "missing")
	for socket, want := range map[string]string{
		engine(`{"Version":"20.10.24","Os":"linux"}`): "20.10.24",
		engine(`hello`): "not understood",
		engine(`{}`):    "not understood",
		missing:         "not reached at " + missing,
	} {
		if got := dockerVersion(t.Context(), socket); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// Logs can be text or JSON, at four levels.
func TestLogger(t *testing.T) {
	for _, level := range []string{"debug", "info", "warn", "error", "INFO"} {
		for _, format := range []string{"text", "json"} {
			if log, err := newLogger(level, format); err != nil || log == nil {
				t.Errorf("%s %s: %v", level, format, err)
			}
		}
	}
}
