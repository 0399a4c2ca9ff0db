package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ovs-container-network/ovs-container-network/internal/control"
	"github.com/ovs-container-network/ovs-container-network/internal/diag"
)

const (
	daemonCheck = "daemon"
	daemonAsks  = "does the daemon answer?"
	dockerAsks  = "does Docker answer?"
)

// restartDaemon are the commands for its two forms.
var restartDaemon = []string{
	"systemctl restart ovs-container-network (host service)",
	"docker plugin disable -f ovs-container-network:VERSION; docker plugin enable ovs-container-network:VERSION (managed plugin)",
}

// errUnhealthy ends the process with status 1 and without a word: the report has
// said it all.
var errUnhealthy = errors.New("something is wrong")

func newDoctor() *cobra.Command {
	var socket, format string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find out what is wrong, why, and what mends it",
		Long: `Check everything from the daemon's sockets to whether the port of each container
forwards. Each finding tells the cause, what was seen, and the command that mends
it. A check that fails explains those that need it.

When a network is on a logical switch of OVN, the chassis are shown below, as status
shows them.

The exit status is 1 when something is wrong. Advice is not counted as wrong.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "text" && format != "json" {
				return fmt.Errorf("-o %q: allowed are text, json", format)
			}
			daemon := control.NewClient(socket)
			var found examined
			var err error
			if found.Report, err = daemon.Doctor(cmd.Context()); err != nil {
				found.Report = withoutDaemon(cmd.Context(), socket, err)
			} else if s, err := daemon.Whole(cmd.Context()); err == nil {
				found.Fleet = s.Fleet
			}
			if err := printReport(cmd.OutOrStdout(), format, found, time.Now()); err != nil {
				return err
			}
			if !found.Healthy {
				return errUnhealthy
			}
			return nil
		},
	}
	controlFlag(cmd, &socket)
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	complete(cmd, "output", "text", "json")
	return cmd
}

// examined is what was found, with the chassis if OVN is used.
type examined struct {
	diag.Report
	Fleet *control.Fleet `json:"fleet,omitempty"`
}

func printReport(out io.Writer, format string, found examined, now time.Time) error {
	if format == "json" {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(found)
	}
	w := bytes.NewBufferString(found.Text())
	if f := found.Fleet; f != nil && len(f.Chassis) > 0 {
		fmt.Fprintln(w)
		printChassis(w, f.Chassis, now)
	}
	if f := found.Fleet; f != nil && f.Error != "" {
		fmt.Fprintf(w, "\n%s\n", unknownChassis(f))
	}
	_, err := out.Write(w.Bytes())
	return err
}

// withoutDaemon is the report when the daemon does not answer. Only of Docker can
// something be said without it: with the managed plugin that is often the cause.
func withoutDaemon(ctx context.Context, socket string, err error) diag.Report {
	docker := env("OCN_DOCKER_HOST", "unix://"+filepath.Join(findHost().run, "docker.sock"))
	away := false
	return diag.Run(ctx, []diag.Check{
		{Name: "docker", Asks: dockerAsks, Run: func(ctx context.Context) []diag.Finding {
			found := checkDocker(ctx, docker)
			away = len(found) > 0
			return found
		}},
		{Name: daemonCheck, Asks: daemonAsks, Run: func(ctx context.Context) []diag.Finding {
			f := silence(ctx, socket, err)
			if away {
				f.Mend = append([]string{restartDocker + " (it starts the managed plugin)"}, f.Mend...)
			}
			return []diag.Finding{f}
		}},
		{Name: "everything", Asks: "all that only the daemon can tell", Needs: []string{daemonCheck}},
	})
}

// silence explains why the daemon does not answer.
func silence(ctx context.Context, socket string, err error) diag.Finding {
	f := diag.Finding{Subject: socket, Cause: err.Error(), Evidence: []string{err.Error()}, Mend: restartDaemon}
	switch {
	case errors.Is(err, os.ErrPermission):
		f.Cause, f.Mend = "this user may not ask the daemon", []string{"sudo ovs-container-network doctor"}
		return f
	case errors.Is(err, os.ErrNotExist):
		f.Cause = "the daemon is not running: its socket does not exist"
		return f
	case errors.Is(err, syscall.ECONNREFUSED):
		f.Cause = "the daemon is not running: it ended without removing its socket"
		return f
	}
	f.Cause = "the daemon does not answer"
	pid, err := listenerOf(ctx, socket)
	if err != nil {
		return f
	}
	if open, limit, err := descriptors(pid); err == nil && open >= limit {
		out := outOfFiles(open, limit)
		out.Subject, out.Evidence = socket, append(out.Evidence, f.Evidence...)
		return out
	}
	if state := processState(pid); state == "T" || state == "t" {
		f.Cause = "the daemon does not answer: process " + pid + " is stopped"
		f.Mend = append([]string{"kill -CONT " + pid}, restartDaemon...)
	}
	f.Evidence = append(f.Evidence, "process "+pid)
	return f
}

// listenerOf returns the process that listens on a socket (unix(7), SO_PEERCRED).
func listenerOf(ctx context.Context, socket string) (pid string, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return "", err
	}
	defer c.Close()
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return "", err
	}
	var cred *unix.Ucred
	if ctlErr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); ctlErr != nil || err != nil {
		return "", errors.Join(ctlErr, err)
	}
	return strconv.Itoa(int(cred.Pid)), nil
}

// processState is the letter of proc_pid_stat(5).
func processState(pid string) string {
	text, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	state, _, _ := strings.Cut(rest, " ")
	return state
}
