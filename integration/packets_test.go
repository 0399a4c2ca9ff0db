//go:build linux

package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// place is a network namespace where frames are sent and seen: a container's,
// or one that was attached to a bridge by hand.
type place struct {
	h     *host
	name  string
	netns string // path in the host
}

// framesBinary is the program of ./frames as seen in a host.
const framesBinary = buildDir + "/frames"

// buildFrames compiles ./frames into what every host sees, once.
var buildFrames = sync.OnceValue(func() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(build, "frames"), "./frames")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build frames: %w\n%s", err, out)
	}
	return nil
})

// oldAndNew runs f on two hosts, one of each form and of each system: enough
// where the one does not depend on the other.
func oldAndNew(t *testing.T, f func(t *testing.T, h *host)) {
	t.Parallel()
	for _, k := range kinds {
		if (k.form == plugin) != (k.on == newer) {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, k.form, k.on)
			f(t, h)
		})
	}
}

// in is the place where a running container is.
func (h *host) in(container string) place {
	h.t.Helper()
	return place{h, container, h.docker("inspect", "-f", "{{.NetworkSettings.SandboxKey}}", container)}
}

// byHand attaches a namespace to a bridge as a script does that knows nothing of
// this driver: a veth pair, of which eth0 is inside. The port's columns (tag=7)
// come last.
func (h *host) byHand(name, bridge, addr string, columns ...string) place {
	h.t.Helper()
	h.plug(name, addr)
	h.ovs(append([]string{"add-port", bridge, "v-" + name}, columns...)...)
	return place{h, name, "/run/netns/" + name}
}

// plug makes a namespace with one interface, eth0, whose other end stays in the
// host as v-NAME.
func (h *host) plug(name, addr string) place {
	h.t.Helper()
	h.sh(fmt.Sprintf(`
ip netns add %[1]s
ip link add v-%[1]s type veth peer name eth0 netns %[1]s
ip link set v-%[1]s up
ip -n %[1]s link set lo up
ip -n %[1]s link set eth0 up
# The userspace datapath cannot finish a checksum that the kernel left open.
ip netns exec %[1]s ethtool -K eth0 tx off >/dev/null`, name))
	p := place{h, name, "/run/netns/" + name}
	if addr != "" {
		p.run("ip", "addr", "add", addr, "dev", "eth0")
	}
	return p
}

func (p place) command(args ...string) []string {
	return append([]string{"nsenter", "--net=" + p.netns}, args...)
}

// run runs a command of the host in the place.
func (p place) run(args ...string) string {
	p.h.t.Helper()
	return p.h.run(p.command(args...)...)
}

// can checks that a command succeeds in the place, soon.
func (p place) can(args ...string) {
	p.h.t.Helper()
	p.h.eventually(fmt.Sprintf("in %s succeeds: %s", p.name, strings.Join(args, " ")), func() error {
		_, err := p.h.Run(p.h.ctx(), p.command(args...)...)
		return err
	})
}

// frameKinds are the kinds of frames that `frames` sends.
var frameKinds = []string{"arp", "broadcast", "multicast", "mdns", "unknown", "nonsense"}

// send sends a frame of every kind with a text to find it by, and tags.
func (p place) send(text string, tags ...string) {
	p.h.t.Helper()
	p.h.must(buildFrames())
	p.run(append([]string{framesBinary, "eth0", text}, tags...)...)
}

// capture is what arrives at and leaves a place from now on.
type capture struct {
	place
	file string
}

// capture starts to record the frames of the place's eth0 and returns when it
// does.
func (p place) capture() *capture { return p.captureOn("eth0") }

func (p place) captureOn(device string) *capture {
	p.h.t.Helper()
	c := &capture{p, "/tmp/capture-" + p.name + "-" + device}
	// -e shows the VLAN tag, -A the text.
	p.h.sh(fmt.Sprintf("setsid nsenter --net=%s tcpdump --immediate-mode -Z root -l -n -e -A -i %s </dev/null >%s 2>%s.err &",
		p.netns, device, c.file, c.file))
	p.h.eventually("tcpdump listens in "+p.name, func() error {
		b, err := os.ReadFile(p.h.Path(c.file + ".err"))
		if err == nil && !strings.Contains(string(b), "listening on") {
			err = fmt.Errorf("it says %q", b)
		}
		return err
	})
	return c
}

// frameStart is how tcpdump begins the lines about a frame.
var frameStart = regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d\.\d+ `)

// frames returns what tcpdump says of each recorded frame that contains part.
func (c *capture) frames(part string) []string {
	c.h.t.Helper()
	b, err := os.ReadFile(c.h.Path(c.file))
	c.h.must(err)
	var found []string
	starts := frameStart.FindAllIndex(b, -1)
	for i, s := range starts {
		end := len(b)
		if i+1 < len(starts) {
			end = starts[i+1][0]
		}
		if f := string(b[s[0]:end]); strings.Contains(f, part) {
			found = append(found, f)
		}
	}
	return found
}

// mark is how a text and a kind stand in a frame.
func mark(text, kind string) string { return "<" + text + "> " + kind }

// sees waits until a frame of every kind with each text was recorded.
func (c *capture) sees(texts ...string) {
	c.h.t.Helper()
	for _, text := range texts {
		c.h.eventually(fmt.Sprintf("%s sees the frames %q", c.name, text), func() error {
			for _, kind := range frameKinds {
				if len(c.frames(mark(text, kind))) == 0 {
					return fmt.Errorf("it has not seen %q", kind)
				}
			}
			return nil
		})
	}
}

// sawNone fails if a frame with one of the texts was recorded. It proves
// something only after another frame, sent later, was seen.
func (c *capture) sawNone(texts ...string) {
	c.h.t.Helper()
	for _, text := range texts {
		if got := c.frames(mark(text, "")); len(got) > 0 {
			c.h.t.Errorf("%s sees %d frames %q, the first: %s", c.name, len(got), text, got[0])
		}
	}
}

var vlanTag = regexp.MustCompile(`vlan (\d+)`)

// tags returns the VLAN tags with which a text was seen, outermost first,
// empty for none.
func (c *capture) tags(text string) (tags [][]string) {
	for _, f := range c.frames(mark(text, "")) {
		var of []string
		for _, m := range vlanTag.FindAllStringSubmatch(f, -1) {
			of = append(of, m[1])
		}
		tags = append(tags, of)
	}
	return tags
}

var sourceMAC = regexp.MustCompile(`^\S+ ([0-9a-f:]{17}) > `)

// sources returns the MAC addresses that sent the recorded frames.
func (c *capture) sources() map[string]bool {
	c.h.t.Helper()
	macs := map[string]bool{}
	for _, f := range c.frames("") {
		if m := sourceMAC.FindStringSubmatch(f); m != nil {
			macs[m[1]] = true
		}
	}
	return macs
}

// link is a network device as `ip` tells of it.
type link struct {
	Index    int    `json:"ifindex"`
	Name     string `json:"ifname"`
	Other    int    `json:"link_index"` // the other end of a veth pair, in its own namespace
	MAC      string `json:"address"`
	MTU      int    `json:"mtu"`
	Operates string `json:"operstate"`
}

// links are the devices of the place.
func (p place) links() (links []link) {
	p.h.t.Helper()
	p.h.must(json.Unmarshal([]byte(p.run("ip", "-j", "link")), &links))
	return links
}

// outside is the host's own network namespace.
func (h *host) outside() place { return place{h, "the host", "/proc/1/ns/net"} }

// link is a device of the place.
func (p place) link(name string) link {
	p.h.t.Helper()
	links := p.links()
	i := slices.IndexFunc(links, func(l link) bool { return l.Name == name })
	if i < 0 {
		p.h.t.Fatalf("%s has no %s, but %+v", p.name, name, links)
	}
	return links[i]
}

// hostEnd is the end in the host of a device of the place.
func (p place) hostEnd(name string) link {
	p.h.t.Helper()
	other := p.link(name).Other
	links := p.h.outside().links()
	i := slices.IndexFunc(links, func(l link) bool { return l.Index == other })
	if i < 0 {
		p.h.t.Fatalf("the host has no device number %d", other)
	}
	return links[i]
}
