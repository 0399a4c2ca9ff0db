package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ovs-container-network/ovs-container-network/internal/control"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares text with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got), renew it with -update:\n%s", path, diff)
	}
}

// run is the command line.
func run(t *testing.T, args ...string) (out string, err error) {
	t.Helper()
	root := newRoot()
	var b bytes.Buffer
	root.SetArgs(append([]string{}, args...)) // nil would be those of the test
	root.SetOut(&b)
	root.SetErr(&b)
	err = root.ExecuteContext(t.Context())
	return b.String(), err
}

// commands calls f for every command.
func commands(c *cobra.Command, f func(*cobra.Command)) {
	f(c)
	for _, sub := range c.Commands() {
		commands(sub, f)
	}
}

// The help of each command names each of its flags with the variable that can be
// used instead, its default, and an example or what the command does.
func TestHelp(t *testing.T) {
	var names []string
	commands(newRoot(), func(c *cobra.Command) {
		args := append(strings.Fields(c.CommandPath())[1:], "--help")
		out, err := run(t, args...)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, c.Name())
		if c.Short == "" || !strings.Contains(out, "Usage:") {
			t.Errorf("%s: the help is poor:\n%s", args, out)
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if slices.Contains([]string{"help", "output", "dry-run", "chassis", "force"}, f.Name) {
				return
			}
			variable := "OCN_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
			if !strings.Contains(f.Usage, "("+variable+")") || !strings.Contains(out, "--"+f.Name) || !strings.Contains(out, variable) {
				t.Errorf("%s does not tell of --%s and %s:\n%s", args, f.Name, variable, out)
			}
		})
	})
	for _, want := range []string{"serve", "status", "doctor", "gc", "version"} {
		if out, _ := run(t); !strings.Contains(out, want) || !strings.Contains(strings.Join(names, " "), want) {
			t.Errorf("there is no command %s:\n%s", want, out)
		}
	}
}

// Each flag of the daemon can be given as a variable; an empty one counts as
// unset, and the flag wins.
func TestVariables(t *testing.T) {
	serve := func(args ...string) map[string]string {
		c, values := newServe(), map[string]string{}
		if err := c.ParseFlags(args); err != nil {
			t.Fatal(err)
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) { values[f.Name] = f.Value.String() })
		return values
	}
	plain := serve()
	if plain["state-dir"] != "/var/lib/ovs-container-network" || plain["ovsdb"] != "unix:/run/openvswitch/db.sock" || plain["log-level"] != "info" {
		t.Errorf("defaults: %v", plain)
	}
	for name := range plain {
		if name == "help" {
			continue
		}
		variable := "OCN_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		t.Setenv(variable, "")
		if got := serve()[name]; got != plain[name] {
			t.Errorf("with an empty %s, --%s is %q, want %q", variable, name, got, plain[name])
		}
		t.Setenv(variable, "from-variable")
		if got := serve()[name]; got != "from-variable" {
			t.Errorf("with %s, --%s is %q", variable, name, got)
		}
		if got := serve("--" + name + "=from-flag")[name]; got != "from-flag" {
			t.Errorf("--%s is %q", name, got)
		}
	}
	if got := env("OCN_CONTROL_SOCKET", "other"); got != "from-variable" {
		t.Errorf("got %q", got)
	}
	if c := newStatus(); c.Flag("control-socket").DefValue != "from-variable" {
		t.Errorf("status would ask at %s", c.Flag("control-socket").DefValue)
	}
}

// What is typed wrong is refused with the reason, and nothing is printed.
func TestBadCommandLines(t *testing.T) {
	for line, want := range map[string]string{
		"frobnicate":              `unknown command "frobnicate"`,
		"statsu":                  `unknown command "statsu"`,
		"status --frobnicate":     "unknown flag: --frobnicate",
		"serve -x":                "unknown shorthand flag",
		"status extra":            "extra",
		"serve extra":             "extra",
		"version extra":           "extra",
		"status -o xml":           `-o "xml": allowed are table, json`,
		"status -o":               "needs an argument",
		"serve --log-level loud":  `--log-level "loud": allowed are debug, info, warn, error`,
		"serve --log-format xml":  `--log-format "xml": allowed are text, json`,
		"serve --state-dir":       "needs an argument",
		"status --control-socket": "needs an argument",
		"gc --chassis":            "needs an argument",
		"gc --force":              "--force is for --chassis only",
	} {
		out, err := run(t, strings.Fields(line)...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", line, err, want)
		}
		if out != "" {
			t.Errorf("%s printed %q", line, out)
		}
	}
}

// answering answers commands with a status.
func answering(t *testing.T, s control.Status) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "sub", "control.sock")
	l, err := listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: control.Daemon{Status: func() control.Status { return s }}.Handler()}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-done })
	return socket
}

// status prints a table or JSON, and says so when there is no daemon.
func TestStatusCommand(t *testing.T) {
	now := time.Now()
	s := aStatus(now)
	socket := answering(t, s)
	out, err := run(t, "status", "--control-socket", socket)
	if err != nil || !strings.Contains(out, "web") || !strings.Contains(out, "NETWORK") {
		t.Errorf("got %v\n%s", err, out)
	}
	t.Setenv("OCN_CONTROL_SOCKET", socket)
	out, err = run(t, "status", "-o", "json")
	var got control.Status
	if err != nil || json.Unmarshal([]byte(out), &got) != nil || len(got.Networks) != len(s.Networks) {
		t.Errorf("got %v\n%s", err, out)
	}
	out, err = run(t, "version")
	for _, want := range []string{"daemon", "1.0.0 (host service)", "Open vSwitch", "3.1.0", "Docker", "kernel"} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("version: %v, want %q in\n%s", err, want, out)
		}
	}
	if strings.Contains(out, "OVN ") {
		t.Errorf("version tells of OVN, which is not used:\n%s", out)
	}
	for fleet, want := range map[*control.Fleet]string{
		{Northd: "23.03.1-20.27.4", Chassis: []control.Chassis{{OVN: "22.09+"}, {OVN: "23.03.1", Here: true}}}: "23.03.1 (ovn-northd 23.03.1-20.27.4)",
		{}: "- (ovn-northd -)", {Error: "cannot reach it"}: "cannot reach it",
	} {
		if got := ovnVersion(*fleet); got != want {
			t.Errorf("OVN is %q, want %q", got, want)
		}
	}
	missing := filepath.Join(t.TempDir(), "missing")
	t.Setenv("OCN_CONTROL_SOCKET", missing)
	if out, err := run(t, "status"); err == nil || !strings.Contains(err.Error(), missing) || out != "" {
		t.Errorf("got %v\n%s", err, out)
	}
	if out, err := run(t, "version"); err != nil || !strings.Contains(out, "cannot reach the daemon at "+missing) {
		t.Errorf("version without a daemon: %v\n%s", err, out)
	}
}

// A socket has mode 0600 from its first moment, its directory is made, and one
// that a dead process left is replaced.
func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b.sock")
	for range 2 {
		l, err := listen(path)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != os.ModeSocket|0o600 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		l.Close()
	}
	full := filepath.Join(t.TempDir(), "full")
	if err := os.MkdirAll(filepath.Join(full, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(full); err == nil || !strings.Contains(err.Error(), full) {
		t.Errorf("got %v", err)
	}
}

// The shell is offered commands, flags and the values of flags.
func TestCompletion(t *testing.T) {
	for line, want := range map[string]string{
		"do": "doctor", "gc --dr": "--dry-run", "doctor -o ": "json", "status --output ": "table",
		"serve --log-level ": "warn", "serve --log-format ": "json",
	} {
		args := append([]string{cobra.ShellCompRequestCmd}, strings.Split(line, " ")...)
		out, err := run(t, args...)
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("%q: %v, want %s in %q", line, err, want, out)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if out, err := run(t, "completion", shell); err != nil || !strings.Contains(out, "ovs-container-network") {
			t.Errorf("%s: %v, %q", shell, err, out)
		}
	}
}
