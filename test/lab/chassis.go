//go:build linux

package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
)

const (
	controllerPID = "/run/ovn/ovn-controller.pid"
	controllerLog = "/var/log/ovn/ovn-controller.log"
)

// Chassis is what ovn-controller is told about its host.
type Chassis struct {
	SB         string // as [Central.SB] has it; empty: nothing is told at all
	EncapIP    string // that the other chassis send to
	EncapType  string // geneve by default, or vxlan
	PKI        *PKI   // for a southbound database with TLS
	MonitorAll bool   // whether it copies the whole database, not only its own part
}

// StartController makes the host a chassis: it writes c into the database of
// Open vSwitch, which has to run, and starts ovn-controller. It returns when that
// is connected and br-int is there. A controller that runs already stays, and
// follows what changed of c by itself, except that it does not begin to use TLS.
//
// With an empty SB nothing is written: the program runs, has made its bridge when this
// returns, and waits until somebody else configures the host.
func (h *Host) StartController(ctx context.Context, c Chassis) error {
	if err := needTools(h.Path, "ovn-controller", "ovn-appctl", "ovs-vsctl"); err != nil {
		return fmt.Errorf("host %s: %w", h.name, err)
	}
	if c.SB != "" {
		if err := h.configureChassis(ctx, c); err != nil {
			return err
		}
	}
	if h.pidIn(controllerPID) == 0 {
		if err := h.launchController(ctx, c); err != nil {
			return err
		}
	}
	if c.SB == "" { // it takes its bridge all the same
		return poll(ctx, ovnTimeout, "ovn-controller has made its bridge", func() (bool, error) {
			_, err := h.Shell(ctx, `b=$(ovs-vsctl --timeout=5 --if-exists get Open_vSwitch . external_ids:ovn-bridge | tr -d '"')
ovs-vsctl --timeout=5 br-exists "${b:-br-int}"`)
			return err == nil, nil
		})
	}
	err := poll(ctx, ovnTimeout, "ovn-controller is connected and has made br-int", func() (bool, error) {
		if h.pidIn(controllerPID) == 0 {
			return false, errors.New("ovn-controller ended")
		}
		out, err := h.Run(ctx, "ovn-appctl", "--timeout=5", "-t", "ovn-controller", "connection-status")
		if err != nil || strings.TrimSpace(out) != "connected" {
			return false, nil // not yet
		}
		_, err = h.Run(ctx, "ovs-vsctl", "--timeout=5", "br-exists", "br-int")
		return err == nil, nil
	})
	if err != nil {
		return fmt.Errorf("host %s: %w\n%s", h.name, err, h.tail(controllerLog))
	}
	return nil
}

func (h *Host) configureChassis(ctx context.Context, c Chassis) error {
	set := []string{"ovs-vsctl", "--timeout=10", "set", "Open_vSwitch", "."}
	put := func(key, value string) { set = append(set, "external_ids:"+key+"="+value) }
	put("ovn-remote", c.SB)
	put("ovn-encap-ip", c.EncapIP)
	put("ovn-encap-type", cmp.Or(c.EncapType, "geneve"))
	put("ovn-monitor-all", fmt.Sprint(c.MonitorAll))
	if !kernelHasDatapath() {
		put("ovn-bridge-datapath-type", "netdev")
	}
	_, err := h.Run(ctx, set...)
	return err
}

// kernelHasDatapath says whether Open vSwitch's module is in the machine's
// kernel. To ask for it makes the kernel load it.
func kernelHasDatapath() bool {
	_, err := netlink.GenlFamilyGet("ovs_datapath")
	return err == nil
}

func (h *Host) launchController(ctx context.Context, c Chassis) error {
	if err := h.makeOVNDirs(ctx); err != nil {
		return err
	}
	if c.PKI != nil {
		if err := h.InstallPKI(c.PKI, c.EncapIP); err != nil {
			return err
		}
	}
	args := append([]string{"ovn-controller"}, daemonFlags(controllerPID, controllerLog)...)
	_, err := h.Run(ctx, append(args, c.PKI.Flags()...)...)
	return err
}

// KillController sends ovn-controller a signal: SIGKILL and SIGTERM end it,
// SIGSTOP makes it hang and SIGCONT go on. Its chassis stays registered.
func (h *Host) KillController(ctx context.Context, sig syscall.Signal) error {
	return h.killOVN(ctx, controllerPID, sig)
}

// StopController asks ovn-controller to end. With restart it leaves everything
// as it is for its successor, as an upgrade does; otherwise it gives back its
// ports and takes the chassis out of the southbound database.
func (h *Host) StopController(ctx context.Context, restart bool) error {
	target := fmt.Sprintf("/run/ovn/ovn-controller.%d.ctl", h.pidIn(controllerPID))
	if restart {
		return h.exit(ctx, controllerPID, target, "--restart")
	}
	return h.exit(ctx, controllerPID, target)
}
