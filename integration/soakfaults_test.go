//go:build linux && soak

package integration

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// fault is something that breaks and is mended by the test unless the driver is
// to do that.
type fault struct {
	name     string
	does     func()
	docker   bool // dockerd starts anew, and starts what it is to start always
	restarts bool // all containers end
}

// drawFault chooses what breaks during ops.
func (s *soak) drawFault(ops []*op) *fault {
	choices := []struct {
		weight int
		fault
	}{
		{22, fault{name: "driver KILL", does: s.driverKilled}},
		{6, fault{name: "driver KILL, again and again", does: s.driverFlaps}},
		{9, fault{name: "driver TERM", does: s.driverStopped}},
		{6, fault{name: "vswitchd SEGV", does: s.vswitchdCrashes}},
		{6, fault{name: "vswitchd KILL", does: s.vswitchdKilled}},
		{6, fault{name: "vswitchd hangs", does: s.vswitchdHangs}},
		{7, fault{name: "ovsdb-server KILL", does: s.ovsdbKilled}},
		{4, fault{name: "ovsdb-server hangs", does: s.ovsdbHangs}},
		{3, fault{name: "Open vSwitch restarted", does: s.ovsRestarted}},
		{5, fault{name: "database wiped", does: s.wiped}},
		{5, fault{name: "bridge deleted", does: s.bridgeDeleted}},
		{7, fault{name: "port deleted", does: s.portDeleted}},
		{6, fault{name: "link down", does: s.linkDown}},
		{4, fault{name: "state directory full", does: s.stateFull}},
		{7, fault{name: "dockerd TERM", does: s.dockerdStopped, docker: true, restarts: !s.liveDocker}},
		{7, fault{name: "dockerd KILL", does: s.dockerdKilled, docker: true, restarts: !s.liveDocker}},
		{3, fault{name: "dockerd restarted with other live-restore", does: s.dockerdChanged, docker: true, restarts: true}},
		{2, fault{name: "power cut", does: s.powerFails, docker: true, restarts: true}},
	}
	total := 0
	for _, c := range choices {
		total += c.weight
	}
	r := s.rng.IntN(total + 5)
	for _, c := range choices {
		if r -= c.weight; r < 0 {
			return s.possible(c.fault)
		}
	}
	return s.linkDeleted(ops)
}

// possible replaces a fault that would prove nothing here.
func (s *soak) possible(f fault) *fault {
	foreign := false
	for _, n := range s.nets {
		foreign = foreign || n.bridge == foreignBridge
	}
	// A bridge of others that is lost is made again, and stays reported. An engine
	// does not start a plugin again that dies while it is being started.
	if foreign && f.name == "database wiped" || s.form == plugin && (f.name == "state directory full" || f.name == "driver KILL, again and again") {
		return &fault{name: "driver KILL", does: s.driverKilled}
	}
	return &f
}

// pause is how long something stays broken.
func (s *soak) pause() { s.after(time.Duration(s.rng.IntN(4000))*time.Millisecond, nil) }

func (s *soak) driverKilled() {
	s.killDriver()
	s.pause()
	s.driverBack()
}

func (s *soak) driverFlaps() {
	for range 2 + s.rng.IntN(4) {
		s.killDriver()
		s.after(time.Duration(s.rng.IntN(500))*time.Millisecond, nil)
		s.driverBack()
		s.after(time.Duration(s.rng.IntN(1500))*time.Millisecond, nil)
	}
}

func (s *soak) driverStopped() {
	if s.form == plugin {
		s.sh("kill -TERM " + s.driverPID())
	} else {
		s.stopDriver()
	}
	s.pause()
	s.driverBack()
}

// driverBack has the driver run again. An engine does that by itself, but gives up
// a plugin that dies within half a second of its start.
func (s *soak) driverBack() {
	if s.form == plugin {
		s.driverAnswers()
		s.after(2*time.Second, nil)
		return
	}
	s.startDriver()
}

const vswitchdPIDFile = "/run/openvswitch/ovs-vswitchd.pid"

// startVswitchd starts ovs-vswitchd with the monitor that a distribution gives
// it.
func (s *soak) startVswitchd() {
	s.sh("ovs-vswitchd --monitor --pidfile --detach --log-file -vconsole:off -vsyslog:off")
}

func (s *soak) vswitchdCrashes() {
	old, err := os.ReadFile(s.Path(vswitchdPIDFile))
	s.must(err)
	s.must(s.KillVswitchd(s.ctx(), syscall.SIGSEGV))
	s.within(time.Minute, "its monitor starts ovs-vswitchd", func() error {
		pid, err := os.ReadFile(s.Path(vswitchdPIDFile))
		if err == nil && string(pid) == string(old) {
			err = fmt.Errorf("its pid is %s still", pid)
		}
		return err
	})
}

func (s *soak) vswitchdKilled() {
	s.must(s.KillVswitchd(s.ctx(), syscall.SIGKILL))
	s.pause()
	s.startVswitchd()
}

func (s *soak) vswitchdHangs() {
	s.must(s.KillVswitchd(s.ctx(), syscall.SIGSTOP))
	s.pause()
	s.pause()
	s.must(s.KillVswitchd(s.ctx(), syscall.SIGCONT))
}

func (s *soak) ovsdbKilled() {
	s.must(s.KillOVSDB(s.ctx()))
	s.pause()
	s.must(s.StartOVSDB(s.ctx()))
}

func (s *soak) ovsdbHangs() {
	s.sh("kill -STOP $(cat /run/openvswitch/ovsdb-server.pid)")
	s.pause()
	s.sh("kill -CONT $(cat /run/openvswitch/ovsdb-server.pid)")
}

func (s *soak) ovsRestarted() {
	s.must(s.StopOVS(s.ctx()))
	s.pause()
	s.must(s.StartOVSDB(s.ctx()))
	s.startVswitchd()
}

func (s *soak) wiped() {
	s.must(s.WipeOVSDB(s.ctx()))
	s.makeBystanders()
}

// bridgeDeleted removes a bridge that the driver made.
func (s *soak) bridgeDeleted() {
	bridges := map[string]bool{"br-int": true}
	for _, n := range s.nets {
		bridges[n.bridge] = true
	}
	delete(bridges, foreignBridge)
	s.ovs("--if-exists", "del-br", s.one(slices.Sorted(maps.Keys(bridges))))
	s.makeBystanders()
}

// somePort is the port of a container, empty if there is none.
func (s *soak) somePort() string {
	st, err := s.askStatus()
	s.must(err)
	var ports []string
	for _, n := range st.Networks {
		for _, e := range n.Ends {
			ports = append(ports, e.Port)
		}
	}
	slices.Sort(ports)
	return s.one(ports)
}

func (s *soak) portDeleted() {
	if port := s.somePort(); port != "" {
		s.ovs("--if-exists", "del-port", port)
	}
}

func (s *soak) linkDown() {
	if port := s.somePort(); port != "" {
		s.sh("ip link set " + port + " down || true") // it may just go
	}
}

// linkDeleted removes the link of a container that nobody else touches. Only
// its restart mends that.
func (s *soak) linkDeleted(ops []*op) *fault {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(s.boxes)) {
		touched := slices.ContainsFunc(ops, func(o *op) bool { return o.box == name })
		if b := s.boxes[name]; b.running && len(b.nets) > 0 && !touched {
			names = append(names, name)
		}
	}
	name := s.one(names)
	if name == "" {
		return &fault{name: "driver KILL", does: s.driverKilled}
	}
	return &fault{name: "link deleted", does: func() {
		net := s.one(slices.Sorted(maps.Keys(s.boxes[name].nets)))
		s.run("ip", "link", "del", s.portOf(name, net))
		s.pause()
		s.docker("restart", "-t", "3", name)
	}}
}

// stateFull fills the file system of the state directory.
func (s *soak) stateFull() {
	s.sh("dd if=/dev/zero of=" + stateDir + "/filler bs=4k 2>/dev/null || true")
	s.pause()
	s.sh("rm " + stateDir + "/filler")
}

func (s *soak) dockerdStopped() {
	s.must(s.StopDocker(s.ctx()))
	s.pause()
	s.startDocker()
	s.driverAnswers()
}

func (s *soak) dockerdKilled() {
	s.must(s.KillDocker(s.ctx()))
	s.pause()
	s.startDocker()
	s.driverAnswers()
}

func (s *soak) dockerdChanged() {
	s.must(s.StopDocker(s.ctx()))
	s.liveDocker = !s.liveDocker
	s.dockerArgs = []string{fmt.Sprintf("--live-restore=%t", s.liveDocker)}
	s.startDocker()
	s.driverAnswers()
}

// powerFails reboots the host, and starts everything in some order.
func (s *soak) powerFails() {
	if s.form == service {
		// The state directory is a disk in memory: it has to survive as a disk does.
		s.sh("kill -STOP " + s.driverPID() + "; rm -rf /var/lib/saved; cp -a " + stateDir + " /var/lib/saved")
	}
	s.must(s.Kill())
	s.must(s.Boot(s.ctx()))
	if s.form == service {
		s.stateDisk("/var/lib/saved")
	}
	begin := []func(){
		func() { s.must(s.StartOVSDB(s.ctx())); s.startVswitchd() },
		func() {
			if s.form == service {
				s.startDriver()
			}
		},
	}
	s.rng.Shuffle(len(begin), func(i, j int) { begin[i], begin[j] = begin[j], begin[i] })
	first := s.maybe(50)
	if !first {
		begin[0]()
	}
	docker := background(func() error { return s.StartDocker(s.ctx(), s.dockerArgs...) })
	if first {
		s.after(time.Duration(s.rng.IntN(2000))*time.Millisecond, nil)
		begin[0]()
	}
	begin[1]()
	s.must(<-docker)
	s.driverAnswers()
	s.makeBystanders()
}

// stateDisk gives the driver a small file system for its state, with the files
// of a directory.
func (s *soak) stateDisk(from string) {
	s.sh(strings.NewReplacer("DIR", stateDir, "FROM", from).Replace(`
mkdir -p DIR
mount -t tmpfs -o size=2m,mode=700 state DIR
cp -a FROM/. DIR`))
}
