//go:build linux && soak

package integration

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// model is what must be true.
type model struct {
	nets  map[string]*soakNet
	boxes map[string]*soakBox
	made  int // networks and containers, for names and addresses
}

// soakNet is a network.
type soakNet struct {
	name, bridge string
	alone        bool // has a VLAN of its own
	gateway      bool // gives its containers a way out
	v6, ours     bool
	subnet       string // first two bytes and the third: 10.101.7; empty if an IPAM driver chose it
	reserved     bool   // its upper half is for fixed addresses
}

// soakBox is a container.
type soakBox struct {
	name    string
	always  bool // Docker starts it again
	running bool
	stale   bool              // see [model.stale]
	nets    map[string]string // by network, the fixed address or empty
}

func newModel() model {
	return model{nets: map[string]*soakNet{}, boxes: map[string]*soakBox{}}
}

func (m *model) runningBoxes() (n int) {
	for _, b := range m.boxes {
		if b.running {
			n++
		}
	}
	return n
}

// members are the running containers on a network.
func (m *model) members(network string) (names []string) {
	for _, name := range slices.Sorted(maps.Keys(m.boxes)) {
		b := m.boxes[name]
		if _, on := b.nets[network]; on && b.running {
			names = append(names, name)
		}
	}
	return names
}

// inUse tells whether any container, even a stopped one, is on a network.
func (m *model) inUse(network string) bool {
	for _, b := range m.boxes {
		if _, on := b.nets[network]; on {
			return true
		}
	}
	return false
}

// stale notes the containers whose interfaces dockerd has forgotten: one that is
// started anew beside running containers (live-restore) does not read those of a
// sandbox that has no gateway, as Docker 20.10 goes, and fails to connect it to
// another network until the container is restarted.
func (m *model) stale() {
	for _, b := range m.boxes {
		b.stale = b.running
		for net := range b.nets {
			b.stale = b.stale && !m.nets[net].gateway
		}
	}
}

// op is something a user does.
type op struct {
	kind  string
	cmds  [][]string // one after the other
	box   string     // that it is about, if any
	net   string
	plan  *soakNet // to be made
	done  func()   // makes the model what is true when all commands succeeded
	joins []string // networks that it needs
	delay time.Duration
}

func (o *op) String() string {
	var cmds []string
	for _, c := range o.cmds {
		cmds = append(cmds, strings.Join(c, " "))
	}
	return strings.Join(cmds, "; ")
}

// draft is a set of operations that may go on at once: no two are about the same
// container, and nobody removes a network that another needs.
type draft struct {
	*soak
	busy map[string]bool // containers, networks and addresses
	used map[string]bool // networks that must stay
}

// drawOps chooses n operations, fewer if too little is there to do them on.
func (s *soak) drawOps(n int) (ops []*op) {
	d := &draft{s, map[string]bool{}, map[string]bool{}}
	for tries := 0; len(ops) < n && tries < 40; tries++ {
		if o := d.draw(); o != nil {
			ops = append(ops, o)
			d.busy[o.box], d.busy[o.net] = true, true
			for _, net := range o.joins {
				d.used[net] = true
			}
		}
	}
	return ops
}

// Most that there may be at a time.
const (
	maxNets  = 8
	maxBoxes = 16
)

func (d *draft) draw() *op {
	choices := []struct {
		weight int
		draw   func() *op
	}{
		{12, d.createNet},
		{8, d.removeNet},
		{26, d.runBox},
		{12, d.connect},
		{10, d.disconnect},
		{7, func() *op { return d.onRunning("restart", "docker", "restart", "-t", "3") }},
		{6, func() *op { return d.onRunning("stop", "docker", "stop", "-t", "3") }},
		{4, func() *op { return d.onRunning("kill", "docker", "kill") }},
		{5, d.killInit},
		{9, d.startBox},
		{18, d.removeBox},
		{4, d.shortLife},
	}
	total := 0
	for _, c := range choices {
		total += c.weight
	}
	r := d.rng.IntN(total)
	for _, c := range choices {
		if r -= c.weight; r < 0 {
			return c.draw()
		}
	}
	return nil
}

// one chooses of names, empty if there is none.
func (s *soak) one(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return names[s.rng.IntN(len(names))]
}

func (s *soak) maybe(percent int) bool { return s.rng.IntN(100) < percent }

// box chooses a container that nobody else uses.
func (d *draft) box(fits func(*soakBox) bool) *soakBox {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(d.boxes)) {
		if b := d.boxes[name]; !d.busy[name] && !settled(name) && fits(b) {
			names = append(names, name)
		}
	}
	return d.boxes[d.one(names)]
}

// someNets chooses up to n networks that stay and that fit.
func (d *draft) someNets(n int, fits func(*soakNet) bool) (names []string) {
	for _, name := range slices.Sorted(maps.Keys(d.nets)) {
		if !d.busy[name] && fits(d.nets[name]) {
			names = append(names, name)
		}
	}
	d.rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	return names[:min(n, len(names))]
}

func (d *draft) createNet() *op {
	if len(d.nets) >= maxNets {
		return nil
	}
	d.made++
	n := &soakNet{name: fmt.Sprintf("n%d", d.made), alone: true, bridge: "br-int"}
	args := []string{"docker", "network", "create", "-d", "ovs-container-network"}
	opt := func(o string) { args = append(args, "-o", o) }
	if n.ours = d.maybe(60); n.ours {
		args = append(args, "--ipam-driver", "ovs-container-network")
	}
	if !n.ours || d.maybe(85) {
		n.subnet = fmt.Sprintf("10.%d.%d", 100+d.made/250, d.made%250)
		args = append(args, "--subnet", n.subnet+".0/24")
		if n.reserved = d.maybe(60); n.reserved {
			args = append(args, "--ip-range", n.subnet+".0/25")
		}
		if d.maybe(10) {
			args = append(args, "--aux-address", "router="+n.subnet+".9")
		}
	}
	if n.v6 = d.maybe(15); n.v6 {
		args = append(args, "--ipv6", "--subnet", fmt.Sprintf("fd00:%x::/64", d.made))
	}
	if n.bridge = d.one([]string{"br-int", "br-int", "br-a", "br-b", "br-c", foreignBridge}); n.bridge != "br-int" {
		opt("bridge=" + n.bridge)
	}
	switch d.rng.IntN(6) {
	case 0:
		opt("vlan=none")
		n.alone = false
	case 1:
		opt(fmt.Sprintf("vlan=%d", 1000+d.made%2000))
		if d.maybe(40) {
			opt("trunk=3001,3010-3012") // beside a native VLAN, where containers are as on other networks
		}
	case 2:
		opt("vlan=auto")
	}
	n.gateway = true
	if mode := d.one([]string{"", "docker", "none", "external"}); mode != "" && !(mode == "external" && n.subnet == "") {
		opt("gateway_mode=" + mode)
		n.gateway = mode != "none"
	}
	if d.maybe(10) && !slices.Contains(args, "gateway_mode=external") {
		args = append(args, "--internal")
		n.gateway = false
	}
	if d.maybe(15) {
		opt("mtu=1400")
	}
	if d.maybe(20) {
		opt("tenant_id=acme")
		opt("external_ids=env=soak,run=" + n.name)
	}
	return &op{
		kind: "network create", cmds: [][]string{append(args, n.name)}, net: n.name, plan: n,
		done: func() { d.nets[n.name] = n },
	}
}

func (d *draft) removeNet() *op {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(d.nets)) {
		if !d.busy[name] && !d.used[name] && !settled(name) && !d.inUse(name) {
			names = append(names, name)
		}
	}
	name := d.one(names)
	if name == "" {
		return nil
	}
	return &op{
		kind: "network rm", cmds: [][]string{{"docker", "network", "rm", name}}, net: name,
		done: func() { delete(d.nets, name) },
	}
}

// fixed chooses an address for a container on a network, sometimes: where the
// IPAM driver gives none of those to others.
func (d *draft) fixed(n *soakNet, percent int) string {
	addr := fmt.Sprintf("%s.%d", n.subnet, 130+d.made%120)
	if !n.reserved || !d.maybe(percent) {
		return ""
	}
	for _, b := range d.boxes {
		if b.nets[n.name] == addr {
			return ""
		}
	}
	if d.busy[addr] { // by another operation of the same step
		return ""
	}
	d.busy[addr] = true
	return addr
}

func (d *draft) runBox() *op {
	count := 1
	if d.maybe(30) {
		count = 2 + d.rng.IntN(2)
	}
	nets := d.someNets(count, func(*soakNet) bool { return true })
	if len(nets) == 0 || len(d.boxes) >= maxBoxes {
		return nil
	}
	d.made++
	b := &soakBox{name: fmt.Sprintf("x%d", d.made), running: true, nets: map[string]string{}}
	args := []string{"--name", b.name, "--network", nets[0]}
	if b.always = d.maybe(40); b.always {
		args = append(args, "--restart", "always")
	}
	if d.maybe(20) {
		args = append(args, "--mac-address", fmt.Sprintf("02:00:00:01:%02x:%02x", d.made/256%256, d.made%256))
	}
	if b.nets[nets[0]] = d.fixed(d.nets[nets[0]], 40); b.nets[nets[0]] != "" {
		args = append(args, "--ip", b.nets[nets[0]])
	}
	args = append(args, "lab")
	o := &op{kind: "run", box: b.name, joins: nets, done: func() { d.boxes[b.name] = b }}
	if len(nets) == 1 {
		o.cmds = [][]string{append([]string{"docker", "run", "-d"}, args...)}
		return o
	}
	o.cmds = append(o.cmds, append([]string{"docker", "create"}, args...))
	for _, net := range nets[1:] {
		o.cmds = append(o.cmds, d.connectCmd(b, net))
	}
	o.cmds = append(o.cmds, []string{"docker", "start", b.name})
	return o
}

// connectCmd chooses how to connect b, and notes the address in b.
func (d *draft) connectCmd(b *soakBox, net string) []string {
	cmd := []string{"docker", "network", "connect"}
	if b.nets[net] = d.fixed(d.nets[net], 30); b.nets[net] != "" {
		cmd = append(cmd, "--ip", b.nets[net])
	}
	return append(cmd, net, b.name)
}

func (d *draft) connect() *op {
	b := d.box(func(b *soakBox) bool { return len(b.nets) < 3 && !b.stale })
	if b == nil {
		return nil
	}
	nets := d.someNets(1, func(n *soakNet) bool { _, on := b.nets[n.name]; return !on })
	if len(nets) == 0 {
		return nil
	}
	more := &soakBox{name: b.name, nets: map[string]string{}}
	return &op{
		kind: "connect", cmds: [][]string{d.connectCmd(more, nets[0])}, box: b.name, joins: nets,
		done: func() { b.nets[nets[0]] = more.nets[nets[0]] },
	}
}

func (d *draft) disconnect() *op {
	b := d.box(func(b *soakBox) bool { return len(b.nets) > 0 && !b.stale })
	if b == nil {
		return nil
	}
	net := d.one(slices.Sorted(maps.Keys(b.nets)))
	cmd := []string{"docker", "network", "disconnect"}
	if d.maybe(30) {
		cmd = append(cmd, "-f")
	}
	return &op{
		kind: "disconnect", cmds: [][]string{append(cmd, net, b.name)}, box: b.name, joins: []string{net},
		done: func() { delete(b.nets, net) },
	}
}

// onRunning is a command about a running container, which runs afterwards only
// if it is restarted. Docker does not start again what a user has ended.
func (d *draft) onRunning(kind string, cmd ...string) *op {
	b := d.box(func(b *soakBox) bool { return b.running })
	if b == nil {
		return nil
	}
	return &op{
		kind: kind, cmds: [][]string{append(cmd, b.name)}, box: b.name, joins: slices.Sorted(maps.Keys(b.nets)),
		done: func() { b.running, b.stale = kind == "restart", false },
	}
}

// killInit has a container end by itself.
func (d *draft) killInit() *op {
	b := d.box(func(b *soakBox) bool { return b.running })
	if b == nil {
		return nil
	}
	return &op{
		kind: "init killed", box: b.name, joins: slices.Sorted(maps.Keys(b.nets)),
		cmds: [][]string{{"sh", "-ec", "kill -9 $(docker inspect -f '{{.State.Pid}}' " + b.name + ")"}},
		done: func() { b.running, b.stale = b.always, false },
	}
}

func (d *draft) startBox() *op {
	b := d.box(func(b *soakBox) bool { return !b.running })
	if b == nil {
		return nil
	}
	return &op{
		kind: "start", cmds: [][]string{{"docker", "start", b.name}}, box: b.name, joins: slices.Sorted(maps.Keys(b.nets)),
		done: func() { b.running = true },
	}
}

func (d *draft) removeBox() *op {
	if len(d.boxes) < 10 && d.maybe(80) {
		return nil // lest there is always little
	}
	b := d.box(func(*soakBox) bool { return true })
	if b == nil {
		return nil
	}
	return &op{
		kind: "rm -f", cmds: [][]string{{"docker", "rm", "-f", b.name}}, box: b.name, joins: slices.Sorted(maps.Keys(b.nets)),
		done: func() { delete(d.boxes, b.name) },
	}
}

// shortLife runs a container that ends at once.
func (d *draft) shortLife() *op {
	nets := d.someNets(1, func(*soakNet) bool { return true })
	if len(nets) == 0 {
		return nil
	}
	d.made++
	name := fmt.Sprintf("x%d", d.made)
	return &op{
		kind: "run --rm", cmds: [][]string{{"docker", "run", "--rm", "--name", name, "--network", nets[0], "lab", "true"}},
		box: name, joins: nets, done: func() {},
	}
}
