package ovs

import (
	"encoding/json"
	"io"
	"net"
	"path/filepath"
	"sync"
)

// wire stands between the fabric and ovsdb-server and counts transactions.
type wire struct {
	r *rig
	l net.Listener

	mu     sync.Mutex
	writes []string // each transaction so far that writes
}

func newWire(r *rig) *wire {
	r.t.Helper()
	l, err := net.Listen("unix", filepath.Join(r.dir, "wire.sock"))
	check(r.t, err)
	w := &wire{r: r, l: l}
	r.t.Cleanup(func() { l.Close() })
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
	srv, err := net.Dial("unix", w.r.sock)
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
		var msg struct{ Method string }
		if json.Unmarshal(raw, &msg) == nil && msg.Method == "transact" {
			w.mu.Lock()
			w.writes = append(w.writes, string(raw))
			w.mu.Unlock()
		}
		if _, err := srv.Write(raw); err != nil {
			return
		}
	}
}

// take returns the transactions since the last time.
func (w *wire) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	writes := w.writes
	w.writes = nil
	return writes
}

func dialable(sock string) bool {
	c, err := net.Dial("unix", sock)
	if err == nil {
		c.Close()
	}
	return err == nil
}
