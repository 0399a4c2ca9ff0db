//go:build linux && soak

package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// foreignBridge belongs to somebody else, who lets networks use it.
const foreignBridge = "br-theirs"

// settled tells of what is there from beginning to end.
func settled(name string) bool { return name == "home" || name == "p1" || name == "p2" }

// prepare makes what is there all the time: a network with two containers, and
// what belongs to others.
func (s *soak) prepare() {
	s.must(s.StopOVS(s.ctx()))
	s.must(s.StartOVSDB(s.ctx()))
	s.startVswitchd()
	s.must(s.StopDocker(s.ctx()))
	s.liveDocker = true
	s.startDocker("--live-restore=true")
	s.driverAnswers()
	if s.form == service {
		s.stopDriver()
		s.sh("rm -rf /var/lib/saved; cp -a " + stateDir + " /var/lib/saved")
		s.stateDisk("/var/lib/saved")
		s.startDriver()
	}
	s.network("home", "--subnet", "10.99.0.0/24", "--ip-range", "10.99.0.0/25", "--ipam-driver", "ovs-container-network")
	s.nets["home"] = &soakNet{name: "home", bridge: "br-int", alone: true, gateway: true, ours: true, subnet: "10.99.0", reserved: true}
	for _, name := range []string{"p1", "p2"} {
		addr := "10.99.0.20" + name[1:]
		s.container(name, "home", "--restart", "always", "--ip", addr)
		s.boxes[name] = &soakBox{name: name, always: true, running: true, nets: map[string]string{"home": addr}}
	}
	s.makeBystanders()
	s.bystanders = s.lookAtBystanders()
	v := s.view()
	if !s.heard(v["p1"], "home", v["p2"].NetworkSettings.Networks["home"].IPAddress) {
		s.t.Fatal("p1 does not hear p2: the check that strangers do not hear each other would prove nothing")
	}
	s.check()
}

// makeBystanders makes what belongs to others, as far as it is not there.
func (s *soak) makeBystanders() {
	s.within(time.Minute, "br-int is there", func() error {
		_, err := s.Run(s.ctx(), "ovs-vsctl", "--timeout=10", "br-exists", "br-int")
		return err
	})
	s.sh(strings.ReplaceAll(`
ovs-vsctl --timeout=20 --may-exist add-br BR -- set Bridge BR datapath_type=netdev external_ids:team=net fail_mode=standalone
ovs-vsctl --timeout=20 --may-exist add-port BR theirs1 tag=7 -- set Interface theirs1 type=internal external_ids:vm=one
ovs-vsctl --timeout=20 --may-exist add-port BR theirs2 -- set Interface theirs2 type=internal
ovs-vsctl --timeout=20 --may-exist add-port br-int theirs3 tag=77 -- set Interface theirs3 type=internal external_ids:vm=three
ip link show theirs0 >/dev/null 2>&1 || ip link add theirs0 address 02:00:00:00:00:77 type veth peer name theirs9
ip link set theirs0 mtu 1234 up alias somebody
ip addr replace 192.0.2.77/24 dev theirs0
nft list table inet theirs >/dev/null 2>&1 || nft add table inet theirs '{ chain c { ip saddr 192.0.2.1 counter drop; }; }'
nft list table netdev theirs >/dev/null 2>&1 || nft add table netdev theirs
`, "BR", foreignBridge))
}

func (s *soak) lookAtBystanders() string {
	return s.sh(strings.ReplaceAll(`
ovs-vsctl --timeout=20 --columns=name,datapath_type,fail_mode,external_ids,other_config,mirrors list Bridge BR
for p in theirs1 theirs2 theirs3; do
	ovs-vsctl --timeout=20 port-to-br $p
	ovs-vsctl --timeout=20 --columns=name,tag,trunks,vlan_mode,external_ids,qos list Port $p
	ovs-vsctl --timeout=20 --columns=name,type,external_ids,error list Interface $p
done
ip -o link show theirs0 | sed 's/^[0-9]*: //'
ip -o -4 addr show theirs0 | sed 's/^[0-9]*: //'
nft list table inet theirs
nft list table netdev theirs`, "BR", foreignBridge))
}

// seenBox is a container as Docker shows it.
type seenBox struct {
	ID, Name string
	State    struct {
		Status  string
		Running bool
		Pid     int
	}
	NetworkSettings struct {
		Networks map[string]struct{ EndpointID, IPAddress, GlobalIPv6Address, MacAddress string }
	}
}

// on are the networks where a container is.
func (b seenBox) on() []string { return slices.Sorted(maps.Keys(b.NetworkSettings.Networks)) }

// view is what Docker says of all containers, by name.
func (s *soak) view() map[string]seenBox {
	s.t.Helper()
	var all []seenBox
	s.within(time.Minute, "Docker tells about its containers", func() error {
		out, err := s.Shell(s.ctx(), "ids=$(docker ps -aq --no-trunc); [ -z \"$ids\" ] && echo '[]' || docker inspect $ids")
		if err != nil {
			return err
		}
		return json.Unmarshal([]byte(out), &all)
	})
	view := map[string]seenBox{}
	for _, b := range all {
		view[strings.TrimPrefix(b.Name, "/")] = b
	}
	return view
}

// adopt makes the model what Docker says of everything that ops, which a fault
// has hit, were about.
func (s *soak) adopt(ops []*op, f *fault) {
	s.t.Helper()
	s.quiet()
	known := strings.Fields(s.docker("network", "ls", "--format", "{{.Name}}"))
	for _, o := range ops {
		switch there := slices.Contains(known, o.net); {
		case o.net == "":
		case there && o.plan != nil:
			s.nets[o.net] = o.plan
		case !there:
			delete(s.nets, o.net)
		}
	}
	if f.restarts {
		s.comeBack(ops)
	}
	v := s.view()
	ends := s.ends()
	for _, o := range ops {
		if o.box != "" {
			s.adoptBox(o.box, v, ends)
		}
	}
	s.startedAgain(f, v)
}

// startedAgain takes over which containers a new dockerd has started: those that
// are to be started always, even if a user has stopped them. The others have
// ended if their host or their dockerd has.
func (s *soak) startedAgain(f *fault, v map[string]seenBox) {
	for name, b := range s.boxes {
		if running := v[name].State.Running; f.restarts || f.docker && b.always && running {
			b.running = running
		}
	}
	for _, b := range s.boxes {
		b.stale = b.stale && !f.restarts
	}
	if f.docker && !f.restarts {
		s.stale()
	}
}

func touches(ops []*op, box string) bool {
	return slices.ContainsFunc(ops, func(o *op) bool { return o.box == box })
}

// quiet waits until Docker is done with what it began, and has it finish what it
// gave up half-way.
func (s *soak) quiet() {
	s.t.Helper()
	s.within(2*time.Minute, "no container is on its way", func() error {
		for name, b := range s.view() {
			switch status := b.State.Status; status {
			case "removing", "dead":
				if out, err := s.Run(s.ctx(), "docker", "rm", "-f", name); err != nil {
					return fmt.Errorf("%w: %s", err, out)
				}
				fallthrough
			case "restarting":
				return fmt.Errorf("%s is %s", name, status)
			}
		}
		return nil
	})
}

// comeBack waits for the containers that Docker must start again.
func (s *soak) comeBack(ops []*op) {
	s.t.Helper()
	s.within(time.Minute, "the containers with --restart always run again", func() error {
		v := s.view()
		for _, name := range slices.Sorted(maps.Keys(s.boxes)) {
			if b := s.boxes[name]; b.always && b.running && !touches(ops, name) && !v[name].State.Running {
				return fmt.Errorf("%s is %s", name, v[name].State.Status)
			}
		}
		return nil
	})
}

// ends are the endpoints that Docker's networks have. A container that was being
// disconnected when dockerd ended may still believe in one of its own, and Docker in
// one that it has told the driver to take out already.
func (s *soak) ends() map[string]bool {
	s.t.Helper()
	ends := map[string]bool{}
	view, err := s.dockerView()
	if view == nil {
		s.t.Fatal(err)
	}
	for _, n := range view {
		for id := range n.ends {
			ends[id] = true
		}
	}
	status, err := s.askStatus()
	s.must(err)
	for _, n := range status.Networks {
		for _, e := range n.Ends {
			if e.Phase == network.PhaseLeft {
				delete(ends, string(e.ID))
			}
		}
	}
	return ends
}

// adoptBox takes over what Docker says of a container. One that it has left in
// between is removed.
func (s *soak) adoptBox(name string, v map[string]seenBox, ends map[string]bool) {
	s.t.Helper()
	b, there := v[name]
	old := s.boxes[name]
	delete(s.boxes, name)
	if !there {
		return
	}
	whole := true
	now := &soakBox{name: name, always: old != nil && old.always, running: b.State.Running, stale: old != nil && old.stale, nets: map[string]string{}}
	for _, net := range b.on() {
		whole = whole && (!now.running || ends[b.NetworkSettings.Networks[net].EndpointID]) && s.nets[net] != nil
		now.nets[net] = ""
		if old != nil {
			now.nets[net] = old.nets[net]
		}
	}
	if old == nil || !whole || s.maybe(15) {
		s.note("docker rm -f %s, which is %s on %s", name, b.State.Status, b.on())
		s.docker("rm", "-f", name)
		return
	}
	s.boxes[name] = now
}

// Limits of what may be wrong for a while.
const (
	talksSoon   = 30 * time.Second
	talksAgain  = 75 * time.Second // after a fault
	exactSoon   = 30 * time.Second
	faultIsNear = 200 * time.Second
)

// afterFault tells whether a fault was so near that its traces may still be seen.
func (s *soak) afterFault() bool { return time.Since(s.lastFault) < faultIsNear }

func (s *soak) limit(calm, near time.Duration) time.Duration {
	if s.afterFault() {
		return near
	}
	return calm
}

// check compares what is with the model.
func (s *soak) check() {
	s.t.Helper()
	var v map[string]seenBox
	s.within(s.limit(talksSoon, talksAgain), "containers are as they must be", func() error {
		v = s.view()
		return errors.Join(s.agrees(v), s.inside(v))
	})
	s.pings(v)
	s.strangers(v)
	if s.step%2 == 0 || s.afterFault() {
		s.worry()
	}
	if now := s.lookAtBystanders(); now != s.bystanders {
		s.t.Fatalf("step %d: what belongs to others was\n%s\nand is\n%s", s.step, s.bystanders, now)
	}
}

// agrees compares Docker's view with the model: the networks and the state of
// each container, and the addresses that were asked for.
func (s *soak) agrees(v map[string]seenBox) error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, name := range slices.Sorted(maps.Keys(s.boxes)) {
		want, have := s.boxes[name], v[name]
		if have.State.Running != want.running {
			wrong("container %s is %q, want running=%t", name, have.State.Status, want.running)
		}
		if nets := slices.Sorted(maps.Keys(want.nets)); !slices.Equal(have.on(), nets) {
			wrong("container %s is on %s, want %s", name, have.on(), nets)
		}
		for net, addr := range want.nets {
			if at := have.NetworkSettings.Networks[net]; want.running && addr != "" && at.IPAddress != addr {
				wrong("container %s has %s on %s, want %s", name, at.IPAddress, net, addr)
			}
		}
	}
	for name, b := range v {
		if s.boxes[name] == nil {
			wrong("container %s is there and %s, which nobody wants", name, b.State.Status)
		}
	}
	return errors.Join(errs...)
}

// inside checks that the addresses that Docker shows are on the interfaces of the
// containers, with their MAC addresses.
func (s *soak) inside(v map[string]seenBox) error {
	var script strings.Builder
	script.WriteString("set +e\n")
	for _, name := range slices.Sorted(maps.Keys(s.boxes)) {
		if v[name].State.Running {
			fmt.Fprintf(&script, "echo box %s; nsenter -t %d -n ip -o addr; nsenter -t %d -n ip -o link\n", name, v[name].State.Pid, v[name].State.Pid)
		}
	}
	out, err := s.Shell(s.ctx(), script.String()+"true")
	if err != nil {
		return err
	}
	var errs []error
	for _, part := range strings.Split(out, "box ")[1:] {
		name, text, _ := strings.Cut(part, "\n")
		for net, at := range v[name].NetworkSettings.Networks {
			for _, want := range []string{" " + at.IPAddress + "/", " " + at.GlobalIPv6Address + "/", " " + at.MacAddress + " "} {
				if strings.Trim(want, " /") != "" && !strings.Contains(text, want) {
					errs = append(errs, fmt.Errorf("container %s has no %s of network %s:\n%s", name, want, net, text))
				}
			}
			if at.IPAddress == "" {
				errs = append(errs, fmt.Errorf("container %s has no address on network %s", name, net))
			}
		}
	}
	return errors.Join(errs...)
}

// pings checks that some pairs on one network reach each other; now and then all.
func (s *soak) pings(v map[string]seenBox) {
	s.t.Helper()
	type way struct{ from, to, net string }
	var ways []way
	for _, net := range slices.Sorted(maps.Keys(s.nets)) {
		members := s.members(net)
		for i, from := range members {
			if to := members[(i+1)%len(members)]; to != from {
				ways = append(ways, way{from, to, net})
			}
		}
	}
	s.rng.Shuffle(len(ways), func(i, j int) { ways[i], ways[j] = ways[j], ways[i] })
	if s.step%8 != 0 {
		ways = ways[:min(5, len(ways))]
	}
	for _, w := range ways {
		at := v[w.to].NetworkSettings.Networks[w.net]
		for _, addr := range []string{at.IPAddress, at.GlobalIPv6Address} {
			if addr != "" {
				s.reaches(v[w.from], w.to+" on "+w.net, addr)
			}
		}
	}
}

func (s *soak) reaches(from seenBox, to, addr string) {
	s.t.Helper()
	s.within(s.limit(talksSoon, talksAgain), fmt.Sprintf("in step %d %s reaches %s", s.step, from.Name, to), func() error {
		_, err := s.Run(s.ctx(), "nsenter", "-t", strconv.Itoa(from.State.Pid), "-n", "ping", "-c", "1", "-W", "1", addr)
		return err
	})
	s.count["pings"]++
}

// strangers checks that a container does not hear one on another network that
// has a VLAN of its own.
func (s *soak) strangers(v map[string]seenBox) {
	s.t.Helper()
	var nets []string
	for _, net := range slices.Sorted(maps.Keys(s.nets)) {
		if s.nets[net].alone && len(s.members(net)) > 0 {
			nets = append(nets, net)
		}
	}
	if len(nets) < 2 {
		return
	}
	s.rng.Shuffle(len(nets), func(i, j int) { nets[i], nets[j] = nets[j], nets[i] })
	from, to := s.one(s.members(nets[0])), s.one(s.members(nets[1]))
	if _, both := s.boxes[to].nets[nets[0]]; both || s.boxes[from].nets[nets[1]] != "" {
		return
	}
	if _, both := s.boxes[from].nets[nets[1]]; both {
		return
	}
	if s.heard(v[from], nets[0], v[to].NetworkSettings.Networks[nets[1]].IPAddress) {
		s.t.Fatalf("step %d: %s on %s hears %s on %s", s.step, from, nets[0], to, nets[1])
	}
	s.count["strangers"]++
}

// heard tells whether somebody answers to an address on the wire that a
// container has to a network. The question is that of duplicate address
// detection (RFC 5227), which is answered whatever the routes are.
func (s *soak) heard(from seenBox, net, addr string) bool {
	s.t.Helper()
	// With the image's own arping: not every system has one.
	out, err := s.Run(s.ctx(), "nsenter", "-t", strconv.Itoa(from.State.Pid), "-n", "-m", "sh", "-c",
		"dev=$(ip -o -4 addr show to "+from.NetworkSettings.Networks[net].IPAddress+" | awk '{print $2}')\n"+
			"arping -D -q -f -c 2 -w 2 -I \"${dev%@*}\" "+addr+"; echo answer=$?")
	switch {
	case strings.Contains(out, "answer=1"):
		return true
	case strings.Contains(out, "answer=0"):
		return false
	}
	s.note("cannot listen in %s: %v: %s", from.Name, err, out) // it has gone meanwhile
	return false
}

// worry is something that is not as it should be, and since when.
type worry struct {
	since time.Time
	limit time.Duration
}

// worry looks whether everything is exact and doctor is content. What a fault
// has left may take its time, and meanwhile life goes on; but nothing may stay.
func (s *soak) worry() {
	s.t.Helper()
	found := s.wrong()
	for deadline := time.Now().Add(4 * time.Second); len(found) > 0 && time.Now().Before(deadline); found = s.wrong() {
		s.after(200*time.Millisecond, nil)
	}
	for what, w := range s.worries {
		if !slices.Contains(found, what) {
			kind, _, _ := strings.Cut(what, ":")
			s.longest[kind] = max(s.longest[kind], time.Since(w.since))
			s.note("after %.0f s it is over: %s", time.Since(w.since).Seconds(), what)
			delete(s.worries, what)
		}
	}
	for _, what := range found {
		w, known := s.worries[what]
		if !known {
			s.note("worry: %s", what)
			s.worries[what] = worry{time.Now(), s.limit(exactSoon, exactAgain+30*time.Second)}
			continue
		}
		if time.Since(w.since) > w.limit {
			s.t.Fatalf("step %d: for %s it stays so: %s", s.step, time.Since(w.since), what)
		}
	}
}

// wrong is all that is not exact and all that doctor finds.
func (s *soak) wrong() (found []string) {
	if err := s.exact(); err != nil {
		for _, line := range strings.Split(err.Error(), "\n") {
			found = append(found, "exact: "+line)
		}
	}
	report, err := s.doctor()
	if err != nil {
		found = append(found, "doctor: "+err.Error())
	}
	for _, f := range report.Findings {
		if f.Severity == "fault" {
			found = append(found, fmt.Sprintf("doctor: %s of %s: %s", f.Check, f.Subject, f.Cause))
		}
	}
	return found
}

// clear removes everything, and nothing is left but what belongs to others.
func (s *soak) clear() {
	s.t.Helper()
	s.say("removing everything")
	for _, name := range slices.Sorted(maps.Keys(s.boxes)) {
		s.docker("rm", "-f", name)
		delete(s.boxes, name)
	}
	for _, name := range slices.Sorted(maps.Keys(s.nets)) {
		o := &op{kind: "network rm", cmds: [][]string{{"docker", "network", "rm", name}}, done: func() { delete(s.nets, name) }}
		s.ended(<-s.start([]*op{o}), false)
	}
	// A bridge of ours stays as long as somebody else uses it.
	s.settles(exactAgain, "exact: bridge of ours is left over: br-int")
	if now := s.lookAtBystanders(); now != s.bystanders {
		s.t.Fatalf("what belongs to others was\n%s\nand is\n%s", s.bystanders, now)
	}
	s.ovs("del-port", "theirs3")
	s.settles(8 * time.Minute) // no event tells of that: it is seen at the next look at everything
	s.expectClean()
}

// settles waits until nothing is wrong but what is expected.
func (s *soak) settles(limit time.Duration, but ...string) {
	s.t.Helper()
	s.within(limit, "all is exact", func() error {
		if found := s.wrong(); !slices.Equal(found, but) {
			return errors.New(strings.Join(found, "\n"))
		}
		return nil
	})
}
