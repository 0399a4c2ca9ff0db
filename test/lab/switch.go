//go:build linux

package lab

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// switchName is the host that plays the switch between the others. No other
// name of a host has a dash in it.
const switchName = "the-switch"

// cable joins an interface of a host with the switch.
type cable struct {
	Iface string `json:"iface"`
	MTU   int    `json:"mtu"`
	Out   bool   `json:"out,omitempty"` // pulled
}

// port is the name of the switch's end.
func (h *Host) port(iface string) string { return h.name + "-" + iface }

// mac is the address of an interface, the same after every boot as it is with
// a real network card. A new one would be unknown to neighbours for a while.
func (h *Host) mac(iface string) string {
	sum := sha256.Sum256([]byte(h.port(iface)))
	return net.HardwareAddr(append([]byte{2}, sum[:5]...)).String()
}

// Plug gives the host an interface, up and without address, that is joined to
// those of all other hosts by the lab's switch. There is no way out of that
// switch: not to the machine, not to another lab. The cable and the MAC address
// are the same after a reboot. Plugging the same interface twice changes nothing.
func (h *Host) Plug(ctx context.Context, iface string, mtu int) error {
	if p := h.port(iface); len(p) > 15 {
		return fmt.Errorf("interface name %q is too long for host %s: %q has more than 15 characters", iface, h.name, p)
	}
	if h.NSPID() == 0 {
		return fmt.Errorf("plug %s: host %s is off", iface, h.name)
	}
	c := cable{Iface: iface, MTU: mtu}
	if known, err := h.recordCable(c, false); known || err != nil {
		return err
	}
	return h.connect(ctx, c)
}

// Cable pulls the cable of an interface out of the switch, or puts it back. The
// host sees its carrier go and come.
func (h *Host) Cable(ctx context.Context, iface string, in bool) error {
	sw, err := h.lab.theSwitch(ctx)
	if err != nil {
		return err
	}
	state := "down"
	if in {
		state = "up"
	}
	if _, err := sw.Run(ctx, "ip", "link", "set", h.port(iface), state); err != nil {
		return err
	}
	_, err = h.recordCable(cable{Iface: iface, Out: !in}, true)
	return err
}

// recordCable writes down a new cable, or what became of a known one.
func (h *Host) recordCable(c cable, change bool) (known bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.IndexFunc(h.spec.Cables, func(old cable) bool { return old.Iface == c.Iface })
	switch {
	case i < 0:
		h.spec.Cables = append(h.spec.Cables, c)
	case change:
		h.spec.Cables[i].Out = c.Out
	default:
		return true, nil
	}
	return i >= 0, h.saveLocked()
}

func (h *Host) connect(ctx context.Context, c cable) error {
	sw, err := h.lab.theSwitch(ctx)
	if err != nil {
		return err
	}
	state, mtu := "up", strconv.Itoa(c.MTU)
	if c.Out {
		state = "down"
	}
	// From the machine's pid namespace, where the number of the host means
	// something, in the switch's network namespace.
	for _, args := range [][]string{
		{"link", "add", h.port(c.Iface), "mtu", mtu, "type", "veth",
			"peer", "name", c.Iface, "address", h.mac(c.Iface), "mtu", mtu, "netns", strconv.Itoa(h.NSPID())},
		{"link", "set", h.port(c.Iface), "master", "switch", state},
	} {
		if out, err := sw.ip(ctx, args...); err != nil {
			return fmt.Errorf("plug %s of host %s: %w: %s", c.Iface, h.name, err, strings.TrimSpace(out))
		}
	}
	_, err = h.Run(ctx, "ip", "link", "set", c.Iface, "up")
	return err
}

// disconnectLocked removes the switch's ends. The kernel does that itself when
// the other end's namespace goes, but some time later, and until then the name
// is taken.
func (h *Host) disconnectLocked() error {
	h.lab.mu.Lock()
	sw := h.lab.hosts[switchName]
	h.lab.mu.Unlock()
	if sw == nil || sw == h || sw.NSPID() == 0 {
		return nil
	}
	for _, c := range h.spec.Cables {
		if out, err := sw.ip(context.Background(), "link", "del", h.port(c.Iface)); err != nil && !strings.Contains(out, "Cannot find") {
			return fmt.Errorf("unplug %s of host %s: %w: %s", c.Iface, h.name, err, strings.TrimSpace(out))
		}
	}
	return nil
}

func (h *Host) ip(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, runTimeout)
	defer cancel()
	pid := strconv.Itoa(h.NSPID())
	out, err := exec.CommandContext(ctx, "nsenter", append([]string{"--target", pid, "--net", "ip"}, args...)...).CombinedOutput()
	return string(out), err
}

// theSwitch returns the lab's switch and boots it the first time: a host with a
// Linux bridge, which learns addresses and does nothing else.
func (l *Lab) theSwitch(ctx context.Context) (*Host, error) {
	l.switchMu.Lock()
	defer l.switchMu.Unlock()
	l.mu.Lock()
	sw := l.hosts[switchName]
	if sw == nil {
		sw = l.newHost(switchName)
		l.hosts[switchName] = sw
	}
	l.mu.Unlock()
	if sw.NSPID() != 0 {
		return sw, nil
	}
	if err := sw.Boot(ctx); err != nil {
		return nil, err
	}
	// The mtu of the bridge would otherwise follow its smallest port.
	_, err := sw.Run(ctx, "ip", "link", "add", "switch", "mtu", "9216", "up", "type", "bridge")
	return sw, err
}
