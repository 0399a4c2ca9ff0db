//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

// stage is the host of one part, with everything started.
type stage struct {
	*lab.Host
	*results
	api   *api
	floor *floor
}

// newStage boots a host with Open vSwitch, Docker, the driver and the floor.
func newStage(ctx context.Context, l *lab.Lab, name, dir string, r *results) (*stage, error) {
	image, err := lab.Image(ctx, dir)
	if err != nil {
		return nil, err
	}
	h, err := l.Host(ctx, name, lab.WithBind(dir, "/opt/ocn"))
	if err != nil {
		return nil, err
	}
	st := &stage{Host: h, results: r, api: newAPI(h)}
	for _, step := range []func(context.Context) error{
		h.StartOVS,
		func(ctx context.Context) error { return h.StartDocker(ctx) },
		func(ctx context.Context) error { return h.ImportImage(ctx, image, "lab") },
		func(ctx context.Context) error {
			_, err := h.Shell(ctx, "setsid /opt/ocn/ovs-container-network serve </dev/null >/var/log/ocn.log 2>&1 &")
			return err
		},
		func(context.Context) (err error) { st.floor, err = newFloor(h); return err },
		st.answers,
		pause,
	} {
		if err := step(ctx); err != nil {
			st.close()
			return nil, err
		}
	}
	return st, nil
}

func (s *stage) close() {
	s.api.http.CloseIdleConnections()
	if s.floor != nil {
		s.floor.close()
	}
	s.Remove() //nolint:errcheck // the lab removes it at its end
}

// answers waits until the driver does.
func (s *stage) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		_, err := s.Run(ctx, "/opt/ocn/ovs-container-network", "status")
		if err == nil || ctx.Err() != nil {
			return err
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// pause gives the host a moment to calm down.
func pause(ctx context.Context) error { return sleep(ctx, 2*time.Second) }

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// logs are the ends of the logs, for a part that failed.
func (s *stage) logs(ctx context.Context) string {
	out, _ := s.Shell(ctx, "exec 2>&1; tail -n 20 /var/log/ocn.log; grep -vw grpc "+lab.DockerLog+" | tail -n 5")
	return out
}

func (s *stage) docker(ctx context.Context, args ...string) error {
	_, err := s.Run(ctx, append([]string{"docker"}, args...)...)
	return err
}

// timed notes how long f takes.
func (s *stage) timed(what, column string, f func() error) error {
	start := time.Now()
	if err := f(); err != nil {
		return fmt.Errorf("%s, %s: %w", what, column, err)
	}
	s.sample(what, column, time.Since(start))
	return nil
}

// shuffled calls f for each element, in another order each time.
func shuffled[T any](all []T, f func(T) error) error {
	for _, i := range rand.Perm(len(all)) {
		if err := f(all[i]); err != nil {
			return err
		}
	}
	return nil
}

// many calls f for 0..n-1, at most width at a time, and counts the failures.
// The error is the first of them.
func many(n, width int, f func(i int) error) (failed int, err error) {
	errs := make([]error, n)
	var g errgroup.Group
	g.SetLimit(width)
	for i := range n {
		g.Go(func() error {
			errs[i] = f(i)
			return nil
		})
	}
	g.Wait() //nolint:errcheck // the errors are in errs
	for _, e := range errs {
		if e == nil {
			continue
		}
		if failed++; err == nil {
			err = e
		}
	}
	return failed, err
}

// A kind of network is what a column of the tables stands for.
type kind struct {
	column string
	driver string
	opts   []string
}

var (
	bridge      = kind{"bridge", "bridge", nil}
	none        = kind{"none", "ovs-container-network", []string{"gateway_mode=none"}}
	external    = kind{"external", "ovs-container-network", []string{"gateway_mode=external"}}
	gateway     = kind{"docker", "ovs-container-network", nil}
	bare        = kind{"floor", floorDriver, nil}
	bareGateway = kind{"floor-docker", floorDriver, []string{floorGateway}}
)

// net is the name of the network that a part makes of the kind. Docker has a
// bridge and a none of its own.
func (k kind) net() string { return k.column + "-net" }

// title is the column's in the tables.
func (k kind) title() string {
	if k.driver == none.driver {
		return "ours"
	}
	return k.column
}

// createArgs are those of `docker network create`. Networks with different
// numbers have different subnets, of the given length.
func (k kind) createArgs(name string, number, bits int) []string {
	args := []string{"network", "create", "--driver", k.driver, "--subnet", subnet(number, bits)}
	for _, o := range k.opts {
		args = append(args, "--opt", o)
	}
	return append(args, name)
}

// subnet is one of 10.0.0.0/8, each with room for 1,024 addresses.
func subnet(number, bits int) string {
	a := number * 1024
	return fmt.Sprintf("10.%d.%d.0/%d", a>>16, a>>8&0xff, bits)
}

// with makes a network of each kind for as long as f runs.
func (s *stage) with(ctx context.Context, kinds []kind, bits int, f func() error) error {
	for i, k := range kinds {
		if err := s.docker(ctx, k.createArgs(k.net(), i, bits)...); err != nil {
			return err
		}
	}
	err := f()
	for _, k := range kinds {
		if rm := s.docker(ctx, "network", "rm", k.net()); err == nil {
			err = rm
		}
	}
	return err
}
