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

// appctl has ovs-vswitchd run a command.
func (f *Fabric) appctl(ctx context.Context, command string, args ...string) (string, error) {
	db, local := strings.CutPrefix(f.db.Endpoint(), "unix:")
	if !local {
		return "", errNoAppctl
	}
	return Appctl(ctx, filepath.Dir(db), "ovs-vswitchd", command, args...)
}

// Appctl has a daemon whose run directory is dir run a command: JSON-RPC 1.0 over a
// unix socket that is named after its process (ovs-appctl(8)).
func Appctl(ctx context.Context, dir, program, command string, args ...string) (string, error) {
	pidFile := filepath.Join(dir, program+".pid")
	pid, err := os.ReadFile(pidFile)
	if err != nil {
		return "", fmt.Errorf("%s is not running: %w", program, err)
	}
	ctx, cancel := context.WithTimeout(ctx, appctlTimeout)
	defer cancel()
	var d net.Dialer
	socket := filepath.Join(dir, program+"."+strings.TrimSpace(string(pid))+".ctl")
	conn, err := d.DialContext(ctx, "unix", socket)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("%s is not running: process %s of %s is gone", program, strings.TrimSpace(string(pid)), pidFile)
	case err != nil:
		return "", fmt.Errorf("cannot ask %s: %w", program, err)
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline) //nolint:errcheck // the next call fails then
	}
	if args == nil {
		args = []string{}
	}
	if err := json.NewEncoder(conn).Encode(map[string]any{"id": 0, "method": command, "params": args}); err != nil {
		return "", fmt.Errorf("cannot ask %s: %w", program, err)
	}
	var answer struct {
		Result string
		Error  any
	}
	if err := json.NewDecoder(conn).Decode(&answer); err != nil {
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return "", fmt.Errorf("%s hangs: process %s takes connections and does not answer", program, strings.TrimSpace(string(pid)))
		}
		return "", fmt.Errorf("%s is not running: it ended when it was asked (%w)", program, err)
	}
	if answer.Error != nil {
		return "", fmt.Errorf("%s refused %s: %v", program, command, answer.Error)
	}
	return answer.Result, nil
}

// Forwards asks ovs-vswitchd what it would do with a broadcast that a container
// sends through one of our ports, with a tag unless that is 0. It returns the end of
// the trace when that is nothing, and an error when it cannot be asked.
func (f *Fabric) Forwards(ctx context.Context, bridge string, ofport int, mac string, tag uint16) (dropped string, err error) {
	lines, err := f.trace(ctx, bridge, ofport, mac, tag)
	if err != nil {
		return "", err
	}
	last := lines[len(lines)-1]
	if actions, ok := strings.CutPrefix(last, "Datapath actions: "); !ok || strings.TrimSpace(actions) != "drop" {
		return "", nil
	}
	return strings.Join(lines[max(0, len(lines)-8):], " | "), nil
}

// Receives is Forwards for the port of a logical switch, which may well drop a
// broadcast: nobody else may be there, and nothing but true ARP is let through. It
// asks only whether any flow takes what comes in.
func (f *Fabric) Receives(ctx context.Context, bridge string, ofport int, mac string, _ uint16) (dropped string, err error) {
	lines, err := f.trace(ctx, bridge, ofport, mac, 0)
	if err != nil {
		return "", err
	}
	for i, line := range lines {
		if rule, first := strings.CutPrefix(strings.TrimSpace(line), "0. "); first {
			if strings.HasPrefix(rule, "No match") {
				return strings.Join(lines[max(0, i-2):], " | "), nil
			}
			return "", nil
		}
	}
	return "", nil
}

func (f *Fabric) trace(ctx context.Context, bridge string, ofport int, mac string, tag uint16) (lines []string, err error) {
	flow := fmt.Sprintf("in_port=%d,dl_src=%s,dl_dst=ff:ff:ff:ff:ff:ff,dl_type=0x0806", ofport, mac)
	if tag != 0 {
		flow += fmt.Sprintf(",dl_vlan=%d", tag)
	}
	trace, err := f.appctl(ctx, "ofproto/trace", bridge, flow)
	return strings.Split(strings.TrimSpace(trace), "\n"), err
}
