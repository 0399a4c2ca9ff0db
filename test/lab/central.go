//go:build linux

package lab

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	northdPID = "/run/ovn/ovn-northd.pid"
	northdLog = "/var/log/ovn/ovn-northd.log"
)

// StartCentral starts both database servers and ovn-northd, those of them that
// do not run. A first start makes the databases, or joins the cluster and waits
// until it belongs to it; a later one, after a kill or a boot, goes on with what
// is on the disk and does not wait for a majority, which may only be started
// next. What runs is left as it is, even if c has changed, and so is a daemon
// that hangs by SIGSTOP.
func (h *Host) StartCentral(ctx context.Context, c Central) error {
	if err := h.StartNB(ctx, c); err != nil {
		return err
	}
	if err := h.StartSB(ctx, c); err != nil {
		return err
	}
	return h.StartNorthd(ctx, c)
}

// StartNB starts the server of the northbound database. If it runs already,
// nothing changes.
func (h *Host) StartNB(ctx context.Context, c Central) error { return h.startDB(ctx, c, northbound) }

// StartSB starts the server of the southbound database. If it runs already,
// nothing changes.
func (h *Host) StartSB(ctx context.Context, c Central) error { return h.startDB(ctx, c, southbound) }

// StartNorthd starts ovn-northd, on the unix sockets of the host or, in a
// cluster, on all its members. If it runs already, nothing changes. One that
// crashes is started again, as a package's service does; one that is killed stays
// dead.
func (h *Host) StartNorthd(ctx context.Context, c Central) error {
	if h.pidIn(northdPID) != 0 {
		return nil
	}
	if err := c.check(); err != nil {
		return fmt.Errorf("host %s: %w", h.name, err)
	}
	if err := h.prepareCentral(ctx, c); err != nil {
		return err
	}
	nb, sb := c.NB(), c.SB()
	if len(c.Members) == 0 {
		nb, sb = "unix:"+northbound.socket(), "unix:"+southbound.socket()
	}
	args := append([]string{"ovn-northd", "--monitor", "--ovnnb-db=" + nb, "--ovnsb-db=" + sb}, daemonFlags(northdPID, northdLog)...)
	_, err := h.Run(ctx, append(args, c.PKI.Flags()...)...)
	return err
}

// KillNB sends the server of the northbound database a signal: SIGKILL and
// SIGTERM end it, SIGSTOP makes it hang and SIGCONT go on.
func (h *Host) KillNB(ctx context.Context, sig syscall.Signal) error {
	return h.killOVN(ctx, northbound.pid(), sig)
}

// KillSB is KillNB for the southbound database.
func (h *Host) KillSB(ctx context.Context, sig syscall.Signal) error {
	return h.killOVN(ctx, southbound.pid(), sig)
}

// KillNorthd sends ovn-northd a signal, as KillNB does.
func (h *Host) KillNorthd(ctx context.Context, sig syscall.Signal) error {
	return h.killOVN(ctx, northdPID, sig)
}

// StopCentral asks ovn-northd and then the database servers to end, as a
// shutdown does. A member gives up the lead and stays a member.
func (h *Host) StopCentral(ctx context.Context) error {
	if err := h.exit(ctx, northdPID, "/run/ovn/ovn-northd."+fmt.Sprint(h.pidIn(northdPID))+".ctl"); err != nil {
		return err
	}
	for _, d := range []ovnDB{northbound, southbound} {
		if err := h.exit(ctx, d.pid(), d.control()); err != nil {
			return err
		}
	}
	return nil
}

// Leads says whether the host's server is the leader of that database, NB or SB.
// One that does not answer is not.
func (h *Host) Leads(ctx context.Context, db string) bool {
	for _, d := range []ovnDB{northbound, southbound} {
		if d.schema == db {
			out, err := h.Run(ctx, "ovs-appctl", "--timeout=5", "-t", d.control(), "cluster/status", d.schema)
			return err == nil && strings.Contains(out, "Role: leader")
		}
	}
	return false
}

// BackupNB writes what the northbound database holds to a file on the host's
// disk, and returns its name.
func (h *Host) BackupNB(ctx context.Context) (file string, err error) {
	out, err := h.script(ctx, `
file=$(mktemp /var/lib/ovn/nb-backup-XXXXXX)
ovsdb-client --timeout=20 backup "$1" "$2" >$file
echo $file`, "unix:"+northbound.socket(), NB)
	return strings.TrimSpace(out), err
}

// RestoreNB makes the northbound database what it was at the time of the backup.
// A server that stands alone is stopped, given the file, and started again. A
// cluster takes it as one transaction of its leader, which the host has to be, and
// the rows get new UUIDs.
func (h *Host) RestoreNB(ctx context.Context, c Central, file string) error {
	if len(c.Members) > 0 {
		_, err := h.script(ctx, `ovsdb-client --timeout=20 restore "$1" "$2" <"$3"`, "unix:"+northbound.socket(), NB, file)
		return err
	}
	if err := h.KillNB(ctx, syscall.SIGTERM); err != nil {
		return err
	}
	if _, err := h.Run(ctx, "cp", file, northbound.file()); err != nil {
		return err
	}
	return h.StartNB(ctx, c)
}

// prepareCentral makes what the daemons of a central need.
func (h *Host) prepareCentral(ctx context.Context, c Central) error {
	if err := needTools(h.Path, "ovsdb-server", "ovsdb-tool", "ovsdb-client", "ovs-appctl", "ovn-nbctl", "ovn-sbctl", "ovn-northd"); err != nil {
		return fmt.Errorf("host %s: %w", h.name, err)
	}
	if err := h.makeOVNDirs(ctx); err != nil {
		return err
	}
	if c.PKI == nil {
		return nil
	}
	return h.InstallPKI(c.PKI, c.Addr)
}

func (h *Host) startDB(ctx context.Context, c Central, d ovnDB) error {
	if h.pidIn(d.pid()) != 0 {
		return nil
	}
	if err := c.check(); err != nil {
		return fmt.Errorf("host %s: %w", h.name, err)
	}
	if err := h.prepareCentral(ctx, c); err != nil {
		return err
	}
	_, err := os.Stat(h.Path(d.file()))
	fresh := err != nil
	if fresh {
		if _, err := h.Run(ctx, c.create(d)...); err != nil {
			return err
		}
	}
	if _, err := h.Run(ctx, c.serve(d)...); err != nil {
		return fmt.Errorf("%w\n%s", err, h.tail(d.log()))
	}
	if !fresh {
		return nil
	}
	wait := []string{"ovsdb-client", fmt.Sprintf("--timeout=%.0f", ovnTimeout.Seconds()), "wait", "unix:" + d.socket(), d.schema, "connected"}
	if _, err := h.Run(ctx, wait...); err != nil {
		return fmt.Errorf("%w\n%s", err, h.tail(d.log()))
	}
	if c.joins() {
		return nil
	}
	_, err = h.Run(ctx, d.init()...)
	return err
}

// joins says whether this member joins the cluster that another one makes.
func (c Central) joins() bool { return len(c.Members) > 0 && c.Addr != c.Members[0] }

// create is the command that makes the file of a database.
func (c Central) create(d ovnDB) []string {
	switch {
	case len(c.Members) == 0:
		return []string{"ovsdb-tool", "create", d.file(), d.model()}
	case !c.joins():
		timer := cmp.Or(c.ElectionTimer, time.Second).Milliseconds()
		return []string{"ovsdb-tool", fmt.Sprintf("--election-timer=%d", timer),
			"create-cluster", d.file(), d.model(), c.remote(c.Addr, d.raft)}
	}
	cmd := []string{"ovsdb-tool", "join-cluster", d.file(), d.schema, c.remote(c.Addr, d.raft)}
	for _, m := range c.Members {
		if m != c.Addr {
			cmd = append(cmd, c.remote(m, d.raft))
		}
	}
	return cmd
}

// serve is the command that starts the server of a database. Like Debian's, it
// also listens where the database itself says, so that `ovn-nbctl
// set-connection` works.
func (c Central) serve(d ovnDB) []string {
	cmd := []string{"ovsdb-server", d.file(), "--remote=punix:" + d.socket(),
		"--remote=db:" + d.schema + "," + d.global + ",connections", "--unixctl=" + d.control()}
	if c.Addr != "" {
		cmd = append(cmd, "--remote="+c.listen(d))
	}
	tls := c.PKI.Flags()
	if tls == nil {
		column := "db:" + d.schema + ",SSL,"
		tls = []string{"--private-key=" + column + "private_key", "--certificate=" + column + "certificate", "--ca-cert=" + column + "ca_cert"}
	}
	return slices.Concat(cmd, tls, daemonFlags(d.pid(), d.log()))
}
