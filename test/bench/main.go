//go:build linux

// Command bench measures what the driver costs against Docker's own bridge
// driver, on a host of test/lab: paired runs in random order in one session, so
// that the ratios mean something on a noisy machine. It prints a table and, with
// -json FILE, everything it measured.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

func main() {
	lab.Main()
	rounds := flag.Int("rounds", 25, "paired runs of each measurement")
	out := flag.String("json", "", "file to write all samples to")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute)
	defer cancel()
	if err := run(ctx, *rounds, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, rounds int, out string) error {
	dir, err := os.MkdirTemp("", "ocn-bench-")
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
	h, err := l.Host(ctx, "bench", lab.WithBind(dir, "/opt/ocn"))
	if err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{
		h.StartOVS,
		func(ctx context.Context) error { return h.StartDocker(ctx) },
		func(ctx context.Context) error { return h.ImportImage(ctx, image, "lab") },
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if _, err := h.Shell(ctx, "setsid /opt/ocn/ovs-container-network serve </dev/null >/var/log/ocn.log 2>&1 &"); err != nil {
		return err
	}
	b := &bench{h: h, api: newAPI(h), rounds: rounds, samples: map[string]map[string][]float64{}}
	if err := b.measure(ctx); err != nil {
		return err
	}
	b.print(os.Stdout)
	if out == "" {
		return nil
	}
	text, err := json.MarshalIndent(map[string]any{"samples_ms": b.samples, "memory_kib": b.memory, "cpu_percent": b.cpu}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(out, append(text, '\n'), 0o644)
}

type bench struct {
	h       *lab.Host
	api     *api
	rounds  int
	samples map[string]map[string][]float64 // measurement, driver, milliseconds
	memory  map[string]int
	cpu     float64
}

// The networks compared, by the column they stand in.
var drivers = []struct {
	name string
	args []string
}{
	{"bridge", []string{"--driver", "bridge"}},
	{"none", []string{"--driver", "ovs-container-network", "--opt", "gateway_mode=none"}},
	{"external", []string{"--driver", "ovs-container-network", "--opt", "gateway_mode=external"}},
	{"docker", []string{"--driver", "ovs-container-network"}},
}

// time runs f and notes how long it took.
func (b *bench) time(what, driver string, f func() error) error {
	start := time.Now()
	if err := f(); err != nil {
		return fmt.Errorf("%s, %s: %w", what, driver, err)
	}
	took := float64(time.Since(start).Microseconds()) / 1000
	if b.samples[what] == nil {
		b.samples[what] = map[string][]float64{}
	}
	b.samples[what][driver] = append(b.samples[what][driver], took)
	return nil
}

func (b *bench) measure(ctx context.Context) error {
	b.memory = map[string]int{}
	if err := b.settle(ctx); err != nil {
		return err
	}
	b.memory["idle"] = b.rss(ctx)
	for _, part := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"network create and rm", b.networks},
		{"connect and disconnect", b.connects},
		{"docker run", b.runs},
		{"100 endpoints", b.hundred},
	} {
		fmt.Fprintf(os.Stderr, "bench: %s\n", part.name)
		if err := part.do(ctx); err != nil {
			return err
		}
	}
	return nil
}

// settle waits until the driver answers and has had a moment to calm down.
func (b *bench) settle(ctx context.Context) error {
	limit, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		if _, err := b.h.Run(limit, "/opt/ocn/ovs-container-network", "status"); err == nil {
			break
		} else if limit.Err() != nil {
			return err
		}
	}
	select {
	case <-time.After(2 * time.Second):
	case <-ctx.Done():
	}
	return nil
}

func (b *bench) docker(ctx context.Context, args ...string) error {
	_, err := b.h.Run(ctx, append([]string{"docker"}, args...)...)
	return err
}

// shuffled calls f for each driver, in another order each time.
func shuffled(f func(i int) error) error {
	for _, i := range rand.Perm(len(drivers)) {
		if err := f(i); err != nil {
			return err
		}
	}
	return nil
}

func subnet(i, round int) string { return fmt.Sprintf("10.%d.%d.0/24", 50+i, round%250) }

// networks times docker network create and rm: on a bridge that other networks
// keep, and of the first and last network of a bridge, which make and remove it.
func (b *bench) networks(ctx context.Context) error {
	keep := []string{"network", "create", "--driver", "ovs-container-network", "--opt", "bridge=br-kept", "keep"}
	if err := b.docker(ctx, keep...); err != nil {
		return err
	}
	kinds := []struct {
		name string
		args []string
	}{
		{"bridge", []string{"--driver", "bridge"}},
		{"kept", []string{"--driver", "ovs-container-network", "--opt", "bridge=br-kept"}},
		{"first", []string{"--driver", "ovs-container-network", "--opt", "bridge=br-first"}},
	}
	for round := range b.rounds {
		for _, i := range rand.Perm(len(kinds)) {
			k := kinds[i]
			create := append([]string{"network", "create", "--subnet", subnet(i, round)}, k.args...)
			if err := b.time("network create", k.name, func() error { return b.docker(ctx, append(create, "n")...) }); err != nil {
				return err
			}
			if err := b.time("network rm", k.name, func() error { return b.docker(ctx, "network", "rm", "n") }); err != nil {
				return err
			}
		}
	}
	return b.docker(ctx, "network", "rm", "keep")
}

// withNetworks makes a network of each driver for as long as f runs.
func (b *bench) withNetworks(ctx context.Context, f func() error) error {
	for i, d := range drivers {
		args := append([]string{"network", "create", "--subnet", subnet(i, 0)}, d.args...)
		if err := b.docker(ctx, append(args, d.name+"-net")...); err != nil {
			return err
		}
	}
	err := f()
	for _, d := range drivers {
		if rm := b.docker(ctx, "network", "rm", d.name+"-net"); err == nil {
			err = rm
		}
	}
	return err
}

// connects times the API's connect and disconnect of a running container.
func (b *bench) connects(ctx context.Context) error {
	return b.withNetworks(ctx, func() error {
		for range b.rounds {
			err := shuffled(func(i int) error {
				d := drivers[i].name
				if err := b.docker(ctx, "run", "-d", "--name", "cc", "--network", "none", "lab"); err != nil {
					return err
				}
				// A container of network none cannot join another one.
				if err := b.docker(ctx, "network", "disconnect", "none", "cc"); err != nil {
					return err
				}
				if err := b.time("connect", d, func() error { return b.api.connect(ctx, d+"-net", "cc") }); err != nil {
					return err
				}
				if err := b.time("disconnect", d, func() error { return b.api.disconnect(ctx, d+"-net", "cc") }); err != nil {
					return err
				}
				return b.docker(ctx, "rm", "-f", "cc")
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// runs times docker run and rm -f, with network none as the floor.
func (b *bench) runs(ctx context.Context) error {
	return b.withNetworks(ctx, func() error {
		for range b.rounds {
			order := rand.Perm(len(drivers) + 1)
			for _, i := range order {
				name, net := "no network", "none"
				if i < len(drivers) {
					name, net = drivers[i].name, drivers[i].name+"-net"
				}
				if err := b.time("run", name, func() error {
					return b.docker(ctx, "run", "-d", "--name", "cc", "--network", net, "lab")
				}); err != nil {
					return err
				}
				if err := b.time("rm -f", name, func() error { return b.docker(ctx, "rm", "-f", "cc") }); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// hundred measures memory with 100 endpoints, idle CPU, and starts in parallel.
func (b *bench) hundred(ctx context.Context) error {
	return b.withNetworks(ctx, func() error {
		for _, d := range []string{"bridge", "none"} {
			if err := b.time("50 parallel starts", d, func() error {
				return b.parallel(ctx, 50, "docker run -d --name p$i --network "+d+"-net lab")
			}); err != nil {
				return err
			}
			if err := b.time("50 parallel removals", d, func() error {
				return b.parallel(ctx, 50, "docker rm -f p$i")
			}); err != nil {
				return err
			}
		}
		if err := b.parallel(ctx, 100, "docker run -d --name p$i --network none-net lab"); err != nil {
			return err
		}
		if err := b.settle(ctx); err != nil {
			return err
		}
		b.memory["100 endpoints"] = b.rss(ctx)
		before := b.ticks(ctx)
		select {
		case <-time.After(20 * time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
		b.cpu = float64(b.ticks(ctx)-before) / 100 / 20 * 100
		return b.parallel(ctx, 100, "docker rm -f p$i")
	})
}

func (b *bench) parallel(ctx context.Context, n int, command string) error {
	_, err := b.h.Shell(ctx, fmt.Sprintf("pids=; for i in $(seq %d); do %s >/dev/null & pids=\"$pids $!\"; done; for p in $pids; do wait $p; done", n, command))
	return err
}

// rss is the driver's resident memory in KiB.
func (b *bench) rss(ctx context.Context) int {
	out, _ := b.h.Shell(ctx, "awk '/^VmRSS/ {print $2}' /proc/$(pidof -s ovs-container-network)/status")
	var kib int
	fmt.Sscan(out, &kib)
	return kib
}

// ticks is the driver's CPU time in hundredths of a second.
func (b *bench) ticks(ctx context.Context) int {
	out, _ := b.h.Shell(ctx, "awk '{print $14+$15}' /proc/$(pidof -s ovs-container-network)/stat")
	var n int
	fmt.Sscan(out, &n)
	return n
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Clone(v)
	slices.Sort(v)
	if len(v)%2 == 1 {
		return v[len(v)/2]
	}
	return (v[len(v)/2-1] + v[len(v)/2]) / 2
}

func (b *bench) median(what, driver string) float64 { return median(b.samples[what][driver]) }

// print writes the table. Ratios are of medians.
func (b *bench) print(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(cells ...string) { fmt.Fprintln(t, strings.Join(cells, "\t")+"\t") }
	row("what", "ours ms", "bridge ms", "ratio", "target", "best peer")
	cmp := func(what, ours, label, target, peer string) {
		a, c := b.median(what, ours), b.median(what, "bridge")
		row(label, fmt.Sprintf("%.0f", a), fmt.Sprintf("%.0f", c), fmt.Sprintf("%.2f", a/c), target, peer)
	}
	cmp("network create", "kept", "network create", "0.45", "0.48")
	cmp("network rm", "kept", "network rm", "0.12", "0.10")
	cmp("network create", "first", "network create with its bridge", "0.45", "-")
	cmp("network rm", "first", "network rm with its bridge", "0.12", "-")
	for _, mode := range []string{"none", "external"} {
		cmp("connect", mode, "connect, "+mode, "1.00", "1.11")
		cmp("disconnect", mode, "disconnect, "+mode, "0.45", "0.45")
	}
	floor := b.median("run", "no network")
	base := b.median("run", "bridge") - floor
	for _, mode := range []string{"none", "external", "docker"} {
		added := b.median("run", mode) - floor
		target, peer := "0.90", "0.92"
		if mode == "docker" {
			target, peer = "-", "-"
		}
		row("added to docker run, "+mode, fmt.Sprintf("%.0f", added), fmt.Sprintf("%.0f", base), fmt.Sprintf("%.2f", added/base), target, peer)
	}
	cmp("50 parallel starts", "none", "50 parallel starts", "0.97", "0.97")
	cmp("50 parallel removals", "none", "50 parallel removals", "-", "-")
	t.Flush()
	fmt.Fprintf(w, "\nresident memory: idle %.1f MB (target 20, best peer 15), with 100 endpoints %.1f MB (target 25, best peer 17)\n",
		float64(b.memory["idle"])/1000, float64(b.memory["100 endpoints"])/1000)
	fmt.Fprintf(w, "CPU with 100 endpoints when nothing happens: %.2f %% of a core (target 0.1)\n", b.cpu)
	fmt.Fprintf(w, "%d paired rounds in random order, medians\n", b.rounds)
}
