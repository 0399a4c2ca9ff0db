package ovs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// appctlTimeout bounds one question to ovs-vswitchd, which answers in its main
// loop: in milliseconds, unless it hangs.
const appctlTimeout = 3 * time.Second

// Vswitchd tells whether ovs-vswitchd runs and answers: nil if it does, else
// what is wrong. It asks over the control socket (ovs-appctl(8)), which lies
// beside the database's; where the database is reached by TCP, it is nil.
func (f *Fabric) Vswitchd(ctx context.Context) error {
	_, err := f.appctl(ctx, "version")
	if errors.Is(err, errNoAppctl) {
		return nil
	}
	return err
}

// errNoAppctl tells that there is no control socket to ask.
var errNoAppctl = errors.New("the database is not on this host")

// appctl has ovs-vswitchd run a command: JSON-RPC 1.0 over a unix socket that is
// named after its process (ovs-vswitchd(8)).
func (f *Fabric) appctl(ctx context.Context, command string, args ...string) (string, error) {
	db, local := strings.CutPrefix(f.db.Endpoint(), "unix:")
	if !local {
		return "", errNoAppctl
	}
	pidFile := filepath.Join(filepath.Dir(db), "ovs-vswitchd.pid")
	pid, err := os.ReadFile(pidFile)
	if err != nil {
		return "", fmt.Errorf("ovs-vswitchd is not running: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, appctlTimeout)
	defer cancel()
	var d net.Dialer
	socket := filepath.Join(filepath.Dir(db), "ovs-vswitchd."+strings.TrimSpace(string(pid))+".ctl")
	conn, err := d.DialContext(ctx, "unix", socket)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("ovs-vswitchd is not running: process %s of %s is gone", strings.TrimSpace(string(pid)), pidFile)
	case err != nil:
		return "", fmt.Errorf("cannot ask ovs-vswitchd: %w", err)
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline) //nolint:errcheck // the next call fails then
	}
	if args == nil {
		args = []string{}
	}
	if err := json.NewEncoder(conn).Encode(map[string]any{"id": 0, "method": command, "params": args}); err != nil {
		return "", fmt.Errorf("cannot ask ovs-vswitchd: %w", err)
	}
	var answer struct {
		Result string
		Error  any
	}
	if err := json.NewDecoder(conn).Decode(&answer); err != nil {
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return "", fmt.Errorf("ovs-vswitchd hangs: process %s takes connections and does not answer", strings.TrimSpace(string(pid)))
		}
		return "", fmt.Errorf("ovs-vswitchd is not running: it ended when it was asked (%w)", err)
	}
	if answer.Error != nil {
		return "", fmt.Errorf("ovs-vswitchd refused %s: %v", command, answer.Error)
	}
	return answer.Result, nil
}

// Forwards asks ovs-vswitchd what it would do with a broadcast that a container
// sends through one of our ports. It returns the end of the trace when that is
// nothing, and an error when it cannot be asked.
func (f *Fabric) Forwards(ctx context.Context, bridge string, ofport int, mac string) (dropped string, err error) {
	flow := fmt.Sprintf("in_port=%d,dl_src=%s,dl_dst=ff:ff:ff:ff:ff:ff,dl_type=0x0806", ofport, mac)
	trace, err := f.appctl(ctx, "ofproto/trace", bridge, flow)
	if err != nil {
		return "", err
	}
	lines := strings.Split(strings.TrimSpace(trace), "\n")
	last := lines[len(lines)-1]
	if actions, ok := strings.CutPrefix(last, "Datapath actions: "); !ok || strings.TrimSpace(actions) != "drop" {
		return "", nil
	}
	return strings.Join(lines[max(0, len(lines)-8):], " | "), nil
}
