//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"syscall"
)

// byHand is the column of two veth pairs that were attached to the driver's
// bridge without it.
const byHand = "by hand"

// path is a way from a client to a server.
type path struct {
	column string
	client []string // what a command there begins with
	server string   // the address
}

// flow measures what passes between two containers of a host, beside two veth
// pairs on the same bridge and Docker's bridge.
func (s *stage) flow(ctx context.Context) error {
	// A veth computes checksums only when told to, and the userspace datapath
	// drops what has none.
	return s.flows(ctx, "", "tx off")
}

// fastFlow does so with the segmentation offload of the userspace datapath.
// ovs-vswitchd must be started anew for it.
func (s *stage) fastFlow(ctx context.Context) error {
	const on = "ovs-vsctl --timeout=10 set Open_vSwitch . other_config:userspace-tso-enable=true"
	if _, err := s.Shell(ctx, on); err != nil {
		return err
	}
	if err := s.KillVswitchd(ctx, syscall.SIGTERM); err != nil {
		return err
	}
	if err := s.StartVswitchd(ctx); err != nil {
		return err
	}
	return s.flows(ctx, ", userspace-tso", "tx on")
}

func (s *stage) flows(ctx context.Context, suffix, offload string) error {
	var paths []path
	for i, k := range []kind{bridge, none} {
		p, err := s.containerPath(ctx, k, i)
		if err != nil {
			return err
		}
		paths = append(paths, p)
	}
	p, err := s.handPath(ctx, offload)
	if err != nil {
		return err
	}
	paths = append(paths, p)
	for range max(1, s.rounds/5) {
		err := shuffled(paths, func(p path) error {
			tcp, err := s.iperf(ctx, p)
			if err != nil {
				return fmt.Errorf("TCP, %s: %w", p.column, err)
			}
			s.value("TCP"+suffix+", Mbit/s", p.column, tcp)
			udp, err := s.iperf(ctx, p, "-u", "-b", "0")
			if err != nil {
				return fmt.Errorf("UDP, %s: %w", p.column, err)
			}
			s.value("UDP"+suffix+", Mbit/s", p.column, udp)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *stage) containerPath(ctx context.Context, k kind, number int) (path, error) {
	if err := s.docker(ctx, k.createArgs(k.net(), number, 24)...); err != nil {
		return path{}, err
	}
	server, client := k.column+"-server", k.column+"-client"
	for _, name := range []string{server, client} {
		if err := s.docker(ctx, "run", "-d", "--name", name, "--network", k.net(), "lab"); err != nil {
			return path{}, err
		}
	}
	err := s.docker(ctx, "exec", "-d", server, "iperf3", "-s")
	return path{k.column, []string{"docker", "exec", client}, server}, err
}

// handPath attaches two namespaces to the bridge of network none, in a VLAN of
// their own.
func (s *stage) handPath(ctx context.Context, offload string) (path, error) {
	for i, name := range []string{"server", "client"} {
		if _, err := s.Shell(ctx, fmt.Sprintf(`
ip netns add %[1]s
ip link add v-%[1]s type veth peer name eth0 netns %[1]s
ip link set v-%[1]s up
ip -n %[1]s link set lo up
ip -n %[1]s link set eth0 up
ip -n %[1]s addr add 192.168.7.%[2]d/24 dev eth0
ip netns exec %[1]s ethtool -K eth0 %[3]s >/dev/null
ovs-vsctl --timeout=10 add-port br-int v-%[1]s tag=7`, name, i+1, offload)); err != nil {
			return path{}, err
		}
	}
	_, err := s.Shell(ctx, "setsid ip netns exec server iperf3 -s </dev/null >/dev/null 2>&1 &")
	return path{byHand, []string{"ip", "netns", "exec", "client"}, "192.168.7.1"}, err
}

// iperf returns the Mbit/s that arrived.
func (s *stage) iperf(ctx context.Context, p path, args ...string) (rate float64, err error) {
	const tries = 5 // the server may need a moment
	args = append(slices.Concat(p.client, []string{"iperf3", "-J", "-t", "2", "--connect-timeout", "3000", "-c", p.server}), args...)
	for range tries {
		if rate, err = s.received(ctx, args); err == nil {
			return rate, nil
		}
		if err := pause(ctx); err != nil {
			return 0, err
		}
	}
	return 0, err
}

// received is what the server got. iperf3 succeeds when it cannot connect, too.
func (s *stage) received(ctx context.Context, command []string) (float64, error) {
	out, err := s.Run(ctx, command...)
	if err != nil {
		return 0, err
	}
	var report struct {
		Error string
		End   struct {
			Received struct {
				Rate float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		return 0, err
	}
	if report.Error != "" {
		return 0, errors.New(report.Error)
	}
	return report.End.Received.Rate / 1e6, nil
}
