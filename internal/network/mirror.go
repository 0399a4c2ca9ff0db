package network

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Direction says which packets of a container are copied, as the container sees them.
type Direction string

// The values of mirror.direction.
const (
	DirectionBoth Direction = "both"
	DirectionIn   Direction = "in"  // to the container
	DirectionOut  Direction = "out" // from the container
)

// Mirror is what the mirror.* options say: what is copied, and where to beside the
// containers that observe the network (mirror.dest=self).
type Mirror struct {
	Port       string    `json:"port,omitempty"`       // an Open vSwitch port of others
	VLAN       uint16    `json:"vlan,omitempty"`       // 0: into none
	Containers []string  `json:"containers,omitempty"` // by name; none is all
	Direction  Direction `json:"direction"`
}

// Mirroring is what the network copies when there is somebody to copy it for: all
// that passes its containers, where the options say nothing.
func (c Config) Mirroring() Mirror {
	if c.Mirror == nil {
		return Mirror{Direction: DirectionBoth}
	}
	return *c.Mirror
}

// ObserverVLAN is the tag of an observer's port. It is no VLAN (IEEE 802.1Q, 9.6),
// so that no other port is in it: what an observer sends reaches nobody, even
// while its mirror is being made.
const ObserverVLAN = 4095

// sink is the port of an observer in place of one that is in the VLANs of p. Open
// vSwitch takes the VLAN off the copies that leave by an access port, which is what
// the containers of a network without trunks see, and leaves it on by a trunk.
func (p Port) sink() Port {
	tagged := len(p.Trunk) > 0
	p.Sink, p.Logical = p.Logical, ""
	p.VLAN, p.Trunk, p.Secure = ObserverVLAN, nil, false
	if tagged {
		p.VLAN, p.Trunk = 0, VLANs{ObserverVLAN}
	}
	return p
}

// dest is the word for the container itself.
const destSelf = "self"

const (
	allowedDest       = "the name of an Open vSwitch port with 1 to 63 of the characters A-Z a-z 0-9 . _ - + @; for a container give mirror.dest=self to its attachment"
	allowedContainers = "all, or names of containers with commas between"
)

// mirror makes the parser of an option that is a field of Config.Mirror.
func mirror(parse func(m *Mirror, v string) error) func(*Config, string) error {
	return func(c *Config, v string) error {
		if c.Mirror == nil {
			c.Mirror = &Mirror{Direction: DirectionBoth}
		}
		return parse(c.Mirror, v)
	}
}

var mirrorOptions = map[string]option[Config]{
	"mirror.dest": {allowedDest, mirror(func(m *Mirror, v string) error {
		m.Port = v
		switch {
		case strings.EqualFold(v, destSelf):
			return errors.New("a network is no container")
		case isLink(v):
			return errors.New("that is the port of a container, which has another one at its next start")
		case strings.HasPrefix(v, "-") || strings.HasPrefix(v, "."):
			return fmt.Errorf("starts with %q", v[0])
		}
		return checkName(v, "._-+@") // of a bond, a tunnel or a patch port: not all are names of devices
	})},
	"mirror.ports": {allowedContainers, mirror(func(m *Mirror, v string) (err error) {
		m.Containers, err = parseContainers(v)
		return err
	})},
	"mirror.direction": {"both, in, out", mirror(func(m *Mirror, v string) error {
		m.Direction = Direction(strings.ToLower(v))
		return oneOf(m.Direction, DirectionBoth, DirectionIn, DirectionOut)
	})},
	"mirror.vlan": {"1..4094", mirror(func(m *Mirror, v string) (err error) {
		m.VLAN, err = parseVLAN(v)
		return err
	})},
}

var observerOptions = map[string]option[Attachment]{
	"mirror.dest": {destSelf, func(a *Attachment, v string) error {
		a.Observer = true
		return oneOf(strings.ToLower(v), destSelf)
	}},
}

// isLink tells whether a name is that of the host end of a link of ours.
func isLink(name string) bool {
	digits, ok := strings.CutPrefix(name, LinkPrefix)
	return ok && len(digits) == 12 && strings.Trim(digits, "0123456789abcdef") == ""
}

// parseContainers takes names as Docker allows them, sorted. All of them are none.
func parseContainers(v string) ([]string, error) {
	if strings.EqualFold(v, "all") {
		return nil, nil
	}
	names := strings.Split(v, ",")
	for _, name := range names {
		if err := checkContainer(name); err != nil {
			return nil, err
		}
	}
	slices.Sort(names)
	if twice := len(names); len(slices.Compact(slices.Clone(names))) != twice {
		return nil, errors.New("a name is given twice")
	}
	return names, nil
}

func checkContainer(name string) error {
	valid := len(name) > 1 && len(name) <= maxText && strings.IndexByte("_.-", name[0]) < 0
	for _, r := range name {
		letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
		valid = valid && (letter || strings.ContainsRune("_.-", r))
	}
	if !valid {
		return fmt.Errorf("%q is no name of a container", name)
	}
	return nil
}

// checkMirror looks at combinations.
func (c *Config) checkMirror(given map[string]string, faults *OptionsError) {
	if c.Mirror == nil || c.Mirror.VLAN == 0 {
		return
	}
	switch {
	case c.OVN != nil:
		faults.add("option mirror.vlan=%q: on OVN's bridge every container would get the copies; leave it out, and give mirror.dest", given["mirror.vlan"])
	case c.VLANMode == VLANTag && c.VLAN == c.Mirror.VLAN:
		faults.add("option mirror.vlan=%q: that is the VLAN of the network itself; allowed is any other", given["mirror.vlan"])
	case c.Trunk.Has(c.Mirror.VLAN):
		faults.add("option mirror.vlan=%q: that is a VLAN of the network itself (trunk=%s); allowed is any other", given["mirror.vlan"], c.Trunk)
	}
}

// checkNames refuses names of containers where nobody tells them.
func (m *Manager) checkNames(c Config) error {
	if !m.nameless || c.Mirror == nil || len(c.Mirror.Containers) == 0 {
		return nil
	}
	return fmt.Errorf("option mirror.ports=%q: which container is which is known from Docker's API only, and the daemon runs with --docker-host none; allowed there is all",
		strings.Join(c.Mirror.Containers, ","))
}

// MirrorName is the name of the row that copies to a destination: a port of this host,
// or what else the fabric calls it.
func (n Network) MirrorName(dest string) string { return LinkPrefix + "-" + n.ID.Short() + "-" + dest }

// Mirrored tells whether packets of an endpoint are copied. Whose name is not known
// (yet) is not, where names are given.
func (c Config) Mirrored(ep Endpoint) bool {
	if ep.Observer {
		return false
	}
	names := c.Mirroring().Containers
	return len(names) == 0 || ep.ContainerName != "" && slices.Contains(names, ep.ContainerName)
}

// MirrorStatus is what a fabric observes of the copies for one destination.
type MirrorStatus struct {
	Name      string     `json:"name,omitempty"` // of the row; empty: there is no destination
	To        string     `json:"to"`             // a container, port NAME, vlan N
	Endpoint  EndpointID `json:"endpoint,omitempty"`
	Direction Direction  `json:"direction"`
	Ports     int        `json:"ports"` // of containers that are copied

	Counted bool   `json:"counted"` // the following are known
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`

	Missing []string `json:"missing,omitempty"` // containers that are named and not there
	Idle    string   `json:"idle,omitempty"`    // why nothing is copied
	Mend    []string `json:"mend,omitempty"`
}
