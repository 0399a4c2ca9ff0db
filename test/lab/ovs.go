//go:build linux

package lab

import (
	"context"
	"fmt"
	"syscall"
	"time"
)

const (
	ovsdbPID    = "/run/openvswitch/ovsdb-server.pid"
	vswitchdPID = "/run/openvswitch/ovs-vswitchd.pid"
	ovsTimeout  = 15 * time.Second
)

// ovsdbScript does what Debian's init script does: the database is made when it
// is not there, and says from the start which system it belongs to.
const ovsdbScript = `
schema=/usr/share/openvswitch/vswitch.ovsschema db=/etc/openvswitch/conf.db
mkdir -p /run/openvswitch
test -e $db || ovsdb-tool create $db $schema
ovsdb-server $db --remote=punix:/run/openvswitch/db.sock --pidfile --detach --log-file -vconsole:off -vsyslog:off
ovs-vsctl --timeout=10 --no-wait init -- set Open_vSwitch . \
	external_ids:system-id=$(hostname) external_ids:hostname=$(hostname) \
	db-version=$(ovsdb-tool schema-version $schema) \
	ovs-version=$(ovs-vswitchd -V | sed -n '1s/.* //p')
`

// StartOVS starts ovsdb-server and ovs-vswitchd, those of them that do not run.
func (h *Host) StartOVS(ctx context.Context) error {
	if err := h.StartOVSDB(ctx); err != nil {
		return err
	}
	return h.StartVswitchd(ctx)
}

// StopOVS asks both to exit, ovs-vswitchd first, as `systemctl stop` does.
func (h *Host) StopOVS(ctx context.Context) error {
	if err := h.signal(ctx, vswitchdPID, syscall.SIGTERM, ovsTimeout); err != nil {
		return err
	}
	return h.signal(ctx, ovsdbPID, syscall.SIGTERM, ovsTimeout)
}

// StartOVSDB starts ovsdb-server on the database of the host's disk, or on a new
// one with the hostname as system-id. If it runs already, nothing changes.
func (h *Host) StartOVSDB(ctx context.Context) error {
	if h.pidIn(ovsdbPID) != 0 {
		return nil
	}
	if err := needTools(h.Path, "ovsdb-server", "ovsdb-tool", "ovs-vsctl", "ovs-vswitchd"); err != nil {
		return fmt.Errorf("host %s: %w", h.name, err)
	}
	_, err := h.Shell(ctx, ovsdbScript)
	return err
}

// KillOVSDB kills ovsdb-server alone.
func (h *Host) KillOVSDB(ctx context.Context) error {
	return h.signal(ctx, ovsdbPID, syscall.SIGKILL, ovsTimeout)
}

// WipeOVSDB replaces the database by an empty one, as an administrator does who
// removes conf.db: bridges and ports are gone for good, system-id is the same.
func (h *Host) WipeOVSDB(ctx context.Context) error {
	if err := h.signal(ctx, ovsdbPID, syscall.SIGTERM, ovsTimeout); err != nil {
		return err
	}
	if _, err := h.Run(ctx, "rm", "-f", "/etc/openvswitch/conf.db"); err != nil {
		return err
	}
	return h.StartOVSDB(ctx)
}

// StartVswitchd starts ovs-vswitchd and returns when it has set up what the
// database says. If it runs already, nothing changes.
func (h *Host) StartVswitchd(ctx context.Context) error {
	if h.pidIn(vswitchdPID) != 0 {
		return nil
	}
	_, err := h.Run(ctx, "ovs-vswitchd", "--pidfile", "--detach", "--log-file", "-vconsole:off", "-vsyslog:off")
	return err
}

// KillVswitchd sends ovs-vswitchd a signal: SIGKILL and SIGTERM end it, SIGSTOP
// makes it hang and SIGCONT go on.
func (h *Host) KillVswitchd(ctx context.Context, sig syscall.Signal) error {
	return h.signal(ctx, vswitchdPID, sig, ovsTimeout)
}
