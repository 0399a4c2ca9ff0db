package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ovs-container-network/ovs-container-network/internal/diag"
	"github.com/ovs-container-network/ovs-container-network/internal/dockerwatch"
	"github.com/ovs-container-network/ovs-container-network/internal/ipam"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovn"
	"github.com/ovs-container-network/ovs-container-network/internal/state"
)

// Commands that mend; the names of the units are those of Debian.
const (
	restartOVS    = "systemctl restart openvswitch-switch"
	restartDocker = "systemctl restart docker"
)

// doctor is what the checks look at.
type doctor struct {
	sockets    []string // for Docker
	dir        *state.Dir
	damaged    func() []string
	fabric     *ovn.Fabric
	manager    *network.Manager
	registry   *ipam.Registry
	shared     *ovn.Pools
	dockerHost string // none: not to be looked at
}

// examine runs all checks. The daemon itself answers, so that it runs is known.
func (d *doctor) examine(ctx context.Context) diag.Report {
	reports := d.manager.Reports()
	checks := d.checks(reports)
	if !slices.ContainsFunc(reports, func(n network.Report) bool { return n.Switch != "" }) {
		checks = slices.DeleteFunc(checks, func(c diag.Check) bool { return slices.Contains(checksOfOVN, c.Name) })
	}
	return diag.Run(ctx, checks)
}

func (d *doctor) checks(reports []network.Report) []diag.Check {
	return []diag.Check{
		{Name: daemonCheck, Asks: daemonAsks, Run: func(context.Context) []diag.Finding { return nil }},
		{Name: "sockets", Asks: "does Docker reach the driver?", Run: d.checkSockets},
		{Name: "files", Asks: "are there file descriptors left?", Run: checkFiles},
		{Name: "state", Asks: "can the state directory be written?", Run: d.checkState},
		{Name: "records", Asks: "can all records be read?", Run: d.checkRecords},
		{Name: "ovsdb", Asks: "does Open vSwitch's database answer?", Run: d.checkOVSDB},
		{Name: "vswitchd", Asks: "does ovs-vswitchd act on changes?", Needs: []string{"ovsdb"}, Run: d.checkVswitchd},
		{Name: "northbound", Asks: "does OVN's northbound database answer?", Needs: []string{"ovsdb"}, Run: d.checkNorthbound},
		{Name: "controller", Asks: "does ovn-controller work?", Needs: []string{"ovsdb"}, Run: d.checkController},
		{Name: "northd", Asks: "does ovn-northd act on changes?", Needs: []string{"northbound"}, Run: d.checkNorthd},
		{Name: "chassis", Asks: "are this chassis and the others in order?", Needs: []string{"controller", "northd"}, Run: d.checkChassis},
		{Name: "docker", Asks: dockerAsks, Run: d.checkDocker},
		{Name: "known", Asks: "do Docker and the driver know the same?", Needs: []string{"docker"}, Run: d.checkKnown},
		{Name: "networks", Asks: "are the bridges as they should be?", Needs: []string{"vswitchd"}, Run: func(context.Context) []diag.Finding { return checkNetworks(reports) }},
		{Name: "switches", Asks: "are the logical switches as they should be?", Needs: []string{"northbound"}, Run: func(ctx context.Context) []diag.Finding { return d.checkSwitches(ctx, reports) }},
		{Name: "ports", Asks: "does each container have its port?", Needs: []string{"vswitchd"}, Run: func(context.Context) []diag.Finding { return checkPorts(reports) }},
		{Name: "forwarding", Asks: "does each port forward?", Needs: []string{"vswitchd"}, Run: func(ctx context.Context) []diag.Finding { return d.checkForwarding(ctx, reports) }},
		{Name: "mirrors", Asks: "does each mirror copy something?", Needs: []string{"vswitchd"}, Run: func(context.Context) []diag.Finding { return checkMirrors(reports) }},
		{Name: "shields", Asks: "does the host's stack keep off the ports?", Needs: []string{"ovsdb"}, Run: d.checkShields},
		{Name: "addresses", Asks: "are there addresses left?", Run: func(context.Context) []diag.Finding { return d.checkAddresses(reports) }},
		{Name: "vlans", Asks: "are there VLANs left?", Needs: []string{"ovsdb"}, Run: d.checkVLANs},
		{Name: "leftovers", Asks: "does everything have an owner?", Needs: []string{"ovsdb"}, Run: d.checkLeftovers},
		{Name: "datapath", Asks: "is this as fast as it can be?", Needs: []string{"ovsdb"}, Run: d.checkDatapath},
	}
}

// checkSockets asks each socket what Docker asks first.
func (d *doctor) checkSockets(ctx context.Context) (found []diag.Finding) {
	for _, path := range d.sockets {
		if err := activate(ctx, path); err != nil {
			found = append(found, diag.Finding{
				Subject: path, Cause: "Docker cannot reach the driver over its socket", Evidence: []string{err.Error()},
				Mend: restartDaemon,
			})
		}
	}
	return found
}

func activate(ctx context.Context, path string) error {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var dial net.Dialer
			return dial.DialContext(ctx, "unix", path)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://driver/Plugin.Activate", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		return err
	}
	if !bytes.Contains(text, []byte("NetworkDriver")) {
		return fmt.Errorf("another program answers there: %.100q", text)
	}
	return nil
}

// checkFiles looks whether the process is near its limit of descriptors.
func checkFiles(context.Context) []diag.Finding {
	open, limit, err := descriptors("self")
	if err != nil || open*10 < limit*9 {
		return nil
	}
	return []diag.Finding{outOfFiles(open, limit)}
}

func outOfFiles(open, limit int) diag.Finding {
	return diag.Finding{
		Cause: "the daemon has no file descriptors left", Evidence: []string{fmt.Sprintf("%d of %d file descriptors are open", open, limit)},
		Mend: append([]string{"raise LimitNOFILE= of the unit (systemctl edit ovs-container-network)"}, restartDaemon...),
	}
}

// descriptors counts those that a process has open and may have.
func descriptors(pid string) (open, limit int, err error) {
	fds, err := os.ReadDir("/proc/" + pid + "/fd")
	if err != nil {
		return 0, 0, err
	}
	limits, err := os.ReadFile("/proc/" + pid + "/limits")
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(limits)) {
		if rest, ok := strings.CutPrefix(line, "Max open files"); ok {
			if _, err := fmt.Sscan(rest, &limit); err != nil {
				return 0, 0, err
			}
		}
	}
	return len(fds), limit, nil
}

func (d *doctor) checkState(context.Context) []diag.Finding {
	err := d.dir.Probe()
	if err == nil {
		return nil
	}
	f := diag.Finding{
		Subject: d.dir.Path(), Cause: fmt.Sprintf("the state directory cannot be written: %v", err), Evidence: []string{err.Error()},
		Mend: []string{"findmnt -T " + d.dir.Path(), "df -h " + d.dir.Path(), "df -i " + d.dir.Path()},
	}
	var s unix.Statfs_t
	if unix.Statfs(d.dir.Path(), &s) == nil {
		f.Evidence = append(f.Evidence, fmt.Sprintf("%d MB and %d files are free, read-only: %v",
			int64(s.Bavail)*s.Bsize>>20, s.Ffree, s.Flags&unix.ST_RDONLY != 0))
	}
	return []diag.Finding{f}
}

func (d *doctor) checkRecords(context.Context) (found []diag.Finding) {
	for _, what := range d.damaged() {
		path, why, _ := strings.Cut(what, ": ")
		mend := []string{"put the file back from a backup and restart the daemon", "or remove the network (docker network rm) and create it again"}
		if strings.Contains(why, "newer") {
			mend = []string{"run the newer build again", "or remove the network (docker network rm) and create it again"}
		}
		found = append(found, diag.Finding{
			Subject: path, Cause: "the record cannot be read, and what it describes is left alone: " + why, Mend: mend,
		})
	}
	return found
}

func (d *doctor) checkOVSDB(context.Context) []diag.Finding {
	connected, _, err := d.fabric.State()
	if connected {
		return nil
	}
	return []diag.Finding{{
		Subject: d.fabric.Endpoint(), Cause: fmt.Sprintf("ovsdb-server is not reached: %v", err),
		Evidence: []string{"on the userspace datapath containers may stop talking until it is back"},
		Mend:     []string{restartOVS},
	}}
}

// backlogTime is how long ovs-vswitchd may take for a change.
const backlogTime = 2 * time.Second

func (d *doctor) checkVswitchd(ctx context.Context) []diag.Finding {
	if err := d.fabric.Vswitchd(ctx); err != nil {
		return []diag.Finding{{
			Cause: err.Error(), Evidence: []string{fmt.Sprintf("%d changes of the database wait for it", d.fabric.Backlog())},
			Mend: []string{restartOVS, "tail /var/log/openvswitch/ovs-vswitchd.log"},
		}}
	}
	limit := time.NewTimer(backlogTime)
	defer limit.Stop()
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for d.fabric.Backlog() > 0 {
		select {
		case <-poll.C:
		case <-ctx.Done():
			return nil
		case <-limit.C:
			return []diag.Finding{{
				Cause:    "ovs-vswitchd answers and does not act on changes of the database",
				Evidence: []string{fmt.Sprintf("%d changes wait since more than %s", d.fabric.Backlog(), backlogTime)},
				Mend:     []string{"tail /var/log/openvswitch/ovs-vswitchd.log", restartOVS},
			}}
		}
	}
	return nil
}

func (d *doctor) look(ctx context.Context) (dockerwatch.Seen, error) {
	return dockerwatch.Look(ctx, d.dockerHost, func(id network.ID, _ dockerwatch.SeenNetwork) bool { return d.manager.Has(id) })
}

func (d *doctor) checkDocker(ctx context.Context) []diag.Finding {
	return checkDocker(ctx, d.dockerHost)
}

func checkDocker(ctx context.Context, host string) []diag.Finding {
	if host == "none" {
		return nil
	}
	if err := dockerwatch.Ping(ctx, host); err != nil {
		return []diag.Finding{{
			Subject: host, Cause: fmt.Sprintf("Docker is not reached: %v", err),
			Mend: []string{restartDocker, "or, if its API is elsewhere, set OCN_DOCKER_HOST"},
		}}
	}
	return nil
}

// knownAgain is the pause before the second of two comparisons.
const knownAgain = time.Second

// checkKnown compares what Docker has with what the driver has. The two are asked
// one after the other, so what differs in passing is not believed: only what
// differs twice.
func (d *doctor) checkKnown(ctx context.Context) []diag.Finding {
	if d.dockerHost == "none" {
		return nil
	}
	first := d.compare(ctx)
	if len(first) == 0 {
		return nil
	}
	pause := time.NewTimer(knownAgain)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done():
		return first
	}
	return slices.DeleteFunc(d.compare(ctx), func(f diag.Finding) bool {
		return !slices.ContainsFunc(first, func(o diag.Finding) bool { return slices.Equal(o.Evidence, f.Evidence) && o.Subject == f.Subject })
	})
}

func (d *doctor) compare(ctx context.Context) (found []diag.Finding) {
	seen, err := d.look(ctx)
	if err != nil {
		return []diag.Finding{{Cause: fmt.Sprintf("Docker does not say what it has: %v", err), Mend: []string{restartDocker}}}
	}
	ours := make(map[network.ID]network.Network)
	for _, n := range d.manager.Networks() {
		ours[n.ID] = n
	}
	for id, s := range seen.Networks {
		n, known := ours[id]
		if name, _, _ := strings.Cut(s.Driver, ":"); !known && name == network.Owner {
			found = append(found, diag.Finding{
				Subject: "network " + s.Name, Cause: "Docker has this network, and the driver has no record of it: its state directory was removed or is another one",
				Evidence: []string{"id " + string(id)},
				Mend:     []string{"put the state directory back from a backup and restart the daemon", "or docker network rm " + s.Name + ", and create it again"},
			})
		}
		for eid, c := range s.Endpoints {
			if ep, ok := n.Endpoints[eid]; !ok || ep.Phase == network.PhaseDeleting {
				found = append(found, diag.Finding{
					Subject: "container " + c.Name + " on network " + s.Name, Cause: "Docker has an endpoint of this container that the driver does not know",
					Evidence: []string{"endpoint " + string(eid)}, Mend: []string{"docker restart " + c.Name},
				})
			}
		}
	}
	slices.SortFunc(found, func(a, b diag.Finding) int { return strings.Compare(a.Subject, b.Subject) })
	return found
}

func checkNetworks(reports []network.Report) (found []diag.Finding) {
	for _, n := range reports {
		for _, p := range n.Problems {
			if p.Logical {
				continue // of the check of switches
			}
			found = append(found, diag.Finding{Subject: "network " + nameOf(n), Cause: p.Cause, Mend: p.Mend})
		}
	}
	return found
}
