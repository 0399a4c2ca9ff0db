package ovsdb

import (
	"encoding/json"
	"io"
	"net"
	"path/filepath"
	"sync"
)

// wire stands between a DB and the server. It counts transactions and can hold
// them back.
type wire struct {
	s *server
	l net.Listener

	mu   sync.Mutex
	ops  []int         // operations of each transaction so far
	gate chan struct{} // closed: transactions pass
}

func (s *server) wire() *wire {
	s.t.Helper()
	l, err := net.Listen("unix", filepath.Join(s.dir, "wire.sock"))
	check(s.t, err)
	w := &wire{s: s, l: l, gate: make(chan struct{})}
	close(w.gate)
	s.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go w.carry(c)
		}
	}()
	return w
}

func (w *wire) endpoint() string { return "unix:" + w.l.Addr().String() }

func (w *wire) carry(client net.Conn) {
	defer client.Close()
	srv, err := net.Dial("unix", w.s.sock)
	if err != nil {
		return
	}
	defer srv.Close()
	go func() {
		io.Copy(client, srv)
		client.Close()
	}()
	for d := json.NewDecoder(client); ; {
		var raw json.RawMessage
		if d.Decode(&raw) != nil {
			return
		}
		var msg struct {
			Method string
			Params []json.RawMessage
		}
		if json.Unmarshal(raw, &msg) == nil && msg.Method == "transact" {
			w.mu.Lock()
			w.ops = append(w.ops, len(msg.Params)-1)
			gate := w.gate
			w.mu.Unlock()
			<-gate
		}
		if _, err := srv.Write(raw); err != nil {
			return
		}
	}
}

// hold keeps transactions back until release is called.
func (w *wire) hold() (release func()) {
	gate := make(chan struct{})
	w.mu.Lock()
	w.gate = gate
	w.mu.Unlock()
	release = sync.OnceFunc(func() { close(gate) })
	w.s.t.Cleanup(release)
	return release
}

// sent returns the number of operations of each transaction so far.
func (w *wire) sent() []int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]int(nil), w.ops...)
}
