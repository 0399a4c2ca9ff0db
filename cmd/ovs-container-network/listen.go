package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// dockerListeners returns the sockets for Docker: those of systemd, if it
// handed some over, else own ones.
func dockerListeners(h host, socket string) ([]net.Listener, error) {
	handed, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("cannot use the sockets of systemd: %w", err)
	}
	if len(handed) > 0 {
		return handed, nil
	}
	paths := h.sockets()
	if socket != "" {
		paths[len(paths)-1] = socket
	}
	var all []net.Listener
	for _, path := range paths {
		l, err := listen(path)
		if err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

// listen makes a unix socket of mode 0600. One left by a process that died is
// replaced: the lock of the state directory says that no other daemon lives.
func listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot replace socket: %w", err)
	}
	old := unix.Umask(0o177)
	l, err := net.Listen("unix", path)
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("cannot listen: %w", err)
	}
	return l, nil
}

// isLent marks the context of a connection that uses the spare descriptor.
type isLent struct{}

// serveHTTP answers on l until ctx ends, and then lets running calls finish.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	srv := &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			_, lent := c.(*lent)
			return context.WithValue(ctx, isLent{}, lent)
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if lent, _ := r.Context().Value(isLent{}).(bool); lent {
				w.Header().Set("Connection", "close")
			}
			h.ServeHTTP(w, r)
		}),
	}
	l = newSpare(l)
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 8*time.Second)
		defer cancel()
		srv.Shutdown(grace) //nolint:errcheck // what does not end in time is cut off by Close
		srv.Close()
	})
	err := srv.Serve(l)
	if !stop() {
		<-done
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
