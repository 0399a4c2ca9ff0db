//go:build linux

// Command throughput measures how much passes between two containers of a host:
// over Docker's own bridge, over this driver, over veths that were attached to
// Open vSwitch by hand, and over the faster ways that the userspace datapath of
// Open vSwitch offers. It says what docs/performance.md says, on this machine.
//
// Each way has its pair of namespaces on a host of test/lab, all are there at
// once, and each round measures every way, in random order: so the ratios mean
// something on a noisy machine. It needs root and iperf3.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

func main() {
	lab.Main()
	rounds := flag.Int("rounds", 9, "runs of each measurement")
	length := flag.Duration("time", 3*time.Second, "length of one run, whole seconds")
	only := flag.String("only", "", "regular expression of the ways to measure")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	if err := run(ctx, *rounds, *length, *only); err != nil {
		fmt.Fprintln(os.Stderr, "throughput:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, rounds int, length time.Duration, only string) error {
	wanted, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "ocn-throughput-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, "ovs-container-network"), "./cmd/ovs-container-network")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, text)
	}
	image, err := lab.Image(ctx, dir)
	if err != nil {
		return err
	}
	l, err := lab.New("")
	if err != nil {
		return err
	}
	defer l.Close()
	ways, err := setUp(ctx, l, dir, image)
	if err != nil {
		return err
	}
	ways = slices.DeleteFunc(ways, func(w *way) bool { return !wanted.MatchString(w.name) })
	t := table{"tcp": {}, "udp": {}}
	// The first round warms up and is not counted.
	for round := range rounds + 1 {
		fmt.Fprintf(os.Stderr, "throughput: round %d of %d\n", round, rounds)
		for _, i := range rand.Perm(len(ways)) {
			w := ways[i]
			for _, protocol := range w.protocols {
				rate, err := w.measure(ctx, protocol, length)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", w.name, protocol, err)
				}
				if round > 0 {
					t[protocol][w.name] = append(t[protocol][w.name], rate)
				}
			}
		}
	}
	t.print(os.Stdout, ways)
	fmt.Printf("\n%d rounds of %s in random order; medians, and of ratios the median of the rounds'\n", rounds, length)
	return nil
}
