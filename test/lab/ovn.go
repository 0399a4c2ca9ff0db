//go:build linux

package lab

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The databases of OVN, by the name of their schema.
const (
	NB = "OVN_Northbound"
	SB = "OVN_Southbound"
)

// ovnTimeout bounds the wait for a daemon of OVN. A member of a cluster may have
// to wait for an election or two.
const ovnTimeout = 30 * time.Second

// ovnDB is one of the databases with what belongs to it where Debian has it.
type ovnDB struct {
	schema string // and name of the database
	short  string // nb or sb
	global string // the table that lists further remotes
	port   int    // for clients
	raft   int    // for the other members of a cluster
}

var (
	northbound = ovnDB{NB, "nb", "NB_Global", 6641, 6643}
	southbound = ovnDB{SB, "sb", "SB_Global", 6642, 6644}
)

func (d ovnDB) socket() string  { return "/run/ovn/ovn" + d.short + "_db.sock" }
func (d ovnDB) control() string { return "/run/ovn/ovn" + d.short + "_db.ctl" }
func (d ovnDB) pid() string     { return "/run/ovn/ovn" + d.short + "_db.pid" }
func (d ovnDB) file() string    { return "/var/lib/ovn/ovn" + d.short + "_db.db" }
func (d ovnDB) log() string     { return "/var/log/ovn/ovsdb-server-" + d.short + ".log" }
func (d ovnDB) model() string   { return "/usr/share/ovn/ovn-" + d.short + ".ovsschema" }
func (d ovnDB) init() []string  { return []string{"ovn-" + d.short + "ctl", "--timeout=20", "init"} }

// Central is the place of OVN's databases and of ovn-northd: one host, or the
// members of a RAFT cluster.
type Central struct {
	// Addr is the host's own address to listen on. Without one there are only
	// the unix sockets, as on a single host.
	Addr string
	// Members are the addresses of all members of the cluster, on each the same.
	// The first makes the cluster and has to be started before the others join.
	// No members: a database that stands alone.
	Members []string
	// PKI makes every connection but those to the unix sockets one of TLS.
	PKI *PKI
	// ElectionTimer is how long a follower misses the leader before it stands for
	// election, one second by default. Only the first start of the first member
	// looks at it.
	ElectionTimer time.Duration
}

// NB is how a client connects to the northbound database: all members, or the
// unix socket if there is no address.
func (c Central) NB() string { return c.clients(northbound) }

// SB is NB for the southbound database.
func (c Central) SB() string { return c.clients(southbound) }

func (c Central) clients(d ovnDB) string {
	members := c.Members
	if len(members) == 0 {
		if c.Addr == "" {
			return "unix:" + d.socket()
		}
		members = []string{c.Addr}
	}
	remotes := make([]string, len(members))
	for i, m := range members {
		remotes[i] = c.remote(m, d.port)
	}
	return strings.Join(remotes, ",")
}

func (c Central) protocol() string {
	if c.PKI != nil {
		return "ssl"
	}
	return "tcp"
}

func (c Central) remote(addr string, port int) string {
	return c.protocol() + ":" + net.JoinHostPort(addr, strconv.Itoa(port))
}

// listen is what the server of d is to listen on besides its unix socket.
func (c Central) listen(d ovnDB) string {
	addr := c.Addr
	if strings.Contains(addr, ":") {
		addr = "[" + addr + "]"
	}
	return fmt.Sprintf("p%s:%d:%s", c.protocol(), d.port, addr)
}

// check tells a member that is none.
func (c Central) check() error {
	if len(c.Members) > 0 && !slices.Contains(c.Members, c.Addr) {
		return fmt.Errorf("central: the address %q is not among the members %v", c.Addr, c.Members)
	}
	return nil
}

// daemonFlags is how all daemons of OVN are started.
func daemonFlags(pid, log string) []string {
	return []string{"--pidfile=" + pid, "--detach", "--log-file=" + log, "-vconsole:off", "-vsyslog:off"}
}

// makeOVNDirs makes what a package of OVN has made at the boot of a real host.
func (h *Host) makeOVNDirs(ctx context.Context) error {
	_, err := h.Run(ctx, "mkdir", "-p", "/run/ovn", "/var/lib/ovn", "/var/log/ovn")
	return err
}

// exit asks a daemon of OVN to end in its orderly way, and waits until it has.
// One that does not run is fine.
func (h *Host) exit(ctx context.Context, pidFile, target string, args ...string) error {
	pid := h.pidIn(pidFile)
	if pid == 0 {
		return nil
	}
	if _, err := h.Run(ctx, append([]string{"ovs-appctl", "--timeout=10", "-t", target, "exit"}, args...)...); err != nil {
		return err
	}
	return poll(ctx, ovnTimeout, fmt.Sprintf("host %s: end of process %d of %s", h.name, pid, pidFile), func() (bool, error) {
		return !h.running(pid), nil
	})
}

// killOVN sends a daemon of OVN a signal and waits if it is one to end it.
func (h *Host) killOVN(ctx context.Context, pidFile string, sig syscall.Signal) error {
	return h.signal(ctx, pidFile, sig, ovnTimeout)
}
