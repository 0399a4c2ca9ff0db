//go:build linux

// Command bench measures what the driver costs against Docker's own bridge
// driver, and against a driver that does nothing, on hosts of test/lab: runs in
// random order in one session, so that the ratios mean something on a noisy
// machine. It prints tables and, with -json FILE, writes everything it measured.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

// part is a measurement on a host of its own, so that what one leaves behind
// does not burden the next.
type part struct {
	name string
	long bool // minutes long: only with -full
	do   func(*stage, context.Context) error
}

var parts = []part{
	{"networks", false, (*stage).networks},
	{"connect", false, (*stage).connects},
	{"run", false, (*stage).runs},
	{"storm50", false, storm(50, (*stage).commands)},
	{"storm100", false, storm(100, (*stage).commands)},
	{"endpoints100", false, (*stage).endpoints100},
	{"flow", false, (*stage).flow},
	{"fastflow", true, (*stage).fastFlow},
	{"storm500", true, storm(500, (*stage).calls)},
	{"growth", true, (*stage).growth},
	{"manynetworks-ours", true, manyNetworks(none)},
	{"manynetworks-floor", true, manyNetworks(bare)},
	{"manynetworks-bridge", true, manyNetworks(bridge)},
}

// settings are what the command line says.
type settings struct {
	rounds, storms int
	most           int
	full, ovn      bool
	only           *regexp.Regexp
	binary         string
}

func main() {
	lab.Main()
	var s settings
	flag.IntVar(&s.rounds, "rounds", 25, "paired runs of each short measurement")
	flag.IntVar(&s.storms, "storms", 2, "paired runs of each storm of parallel starts")
	flag.IntVar(&s.most, "most", 1000, "endpoints and networks at the end of growth; a Linux bridge ends at 1,023")
	flag.BoolVar(&s.full, "full", false, "the long parts too: 500 starts, 1,000 endpoints, 1,000 networks")
	flag.BoolVar(&s.ovn, "ovn", false, "the parts of OVN, and no others")
	only := flag.String("only", "", "run only the parts whose name matches this `regexp` (the long ones need -full)")
	flag.StringVar(&s.binary, "binary", "", "`file` of a driver that was built before, in place of this tree's")
	out := flag.String("json", "", "`file` to write all samples to")
	flag.Parse()
	var err error
	if s.only, err = regexp.Compile(*only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	limit := 30 * time.Minute
	if s.full {
		limit = 3 * time.Hour
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, unix.SIGTERM)
	defer stop()
	if err := run(ctx, s, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run runs the parts and prints what was measured, also when a part failed.
func run(ctx context.Context, s settings, out string) error {
	dir, err := os.MkdirTemp("", "ocn-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := build(ctx, dir, s.binary); err != nil {
		return err
	}
	l, err := lab.New("")
	if err != nil {
		return err
	}
	defer l.Close()
	r := newResults(s)
	failed := 0
	if s.ovn {
		if err := ovnParts(ctx, l, dir, r); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			failed++
		}
	}
	for i, p := range parts {
		if ctx.Err() != nil {
			break
		}
		if s.ovn || !s.only.MatchString(p.name) || p.long && !s.full {
			continue
		}
		start := time.Now()
		fmt.Fprintf(os.Stderr, "bench: %s\n", p.name)
		if err := perform(ctx, l, fmt.Sprint("bench", i+1), dir, r, p); err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s: %v\n", p.name, err)
			failed++
		}
		fmt.Fprintf(os.Stderr, "bench: %s took %.0f s\n", p.name, time.Since(start).Seconds())
		if out == "" {
			continue
		}
		if err := r.write(out); err != nil {
			return err
		}
	}
	r.print(os.Stdout)
	fmt.Printf("\nmedians of %d rounds, of %d where many start at once, in random order\n", s.rounds, s.storms)
	if failed > 0 {
		return fmt.Errorf("%d parts failed", failed)
	}
	return context.Cause(ctx)
}

// build puts the driver where every host sees it, in /opt/ocn.
func build(ctx context.Context, dir, binary string) error {
	const name = "ovs-container-network"
	if binary != "" {
		program, err := os.ReadFile(binary)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, name), program, 0o755)
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w",
		"-o", filepath.Join(dir, name), "./cmd/ovs-container-network")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, text)
	}
	return nil
}

// perform runs a part on a new host.
func perform(ctx context.Context, l *lab.Lab, host, dir string, r *results, p part) error {
	st, err := newStage(ctx, l, host, dir, r)
	if err != nil {
		return err
	}
	err = p.do(st, ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, st.logs(ctx))
	}
	st.close()
	return err
}
