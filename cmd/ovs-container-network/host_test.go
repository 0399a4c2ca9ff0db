package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
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
		}))
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

// A port is served where a TCP socket listens on it or a UDP socket waits on it,
// for IPv4 or IPv6; connections to others are not that.
func TestPortServed(t *testing.T) {
	for _, c := range []struct {
		network string
		proto   uint8
	}{{"tcp4", 6}, {"tcp6", 6}, {"udp4", 17}, {"udp6", 17}} {
		var addr string
		var closer io.Closer
		if strings.HasPrefix(c.network, "tcp") {
			l, err := net.Listen(c.network, "localhost:0")
			if err != nil {
				t.Logf("%s: %v", c.network, err)
				continue
			}
			addr, closer = l.Addr().String(), l
		} else {
			l, err := net.ListenPacket(c.network, "localhost:0")
			if err != nil {
				t.Logf("%s: %v", c.network, err)
				continue
			}
			addr, closer = l.LocalAddr().String(), l
		}
		_, text, err := net.SplitHostPort(addr)
		if err != nil {
			t.Fatal(err)
		}
		var port uint16
		if _, err := fmt.Sscan(text, &port); err != nil {
			t.Fatal(err)
		}
		if !portServed(c.proto, port) {
			t.Errorf("%s port %d does not count as served", c.network, port)
		}
		if portServed(132, port) {
			t.Error("a protocol that cannot be looked up counts as served")
		}
		closer.Close()
		if portServed(c.proto, port) {
			t.Errorf("%s port %d counts as served after it was closed", c.network, port)
		}
	}
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: 0100007F:1F91 0200007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 2 1
   2: 0100007F:C350 0200007F:1F92 01 00000000:00000000 00:00000000 00000000     0        0 3 1
   3: 00000000:0050 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4 1
   4: 00000000:0051
`
	for port, want := range map[uint16]bool{8080: true, 8081: false, 8082: false, 50000: false, 80: true, 81: false, 0x1f9: false} {
		if got := bound(bufio.NewScanner(strings.NewReader(table)), port); got != want {
			t.Errorf("port %d: %v", port, got)
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
