package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/ovs-container-network/ovs-container-network/internal/control"
	"github.com/ovs-container-network/ovs-container-network/internal/dockerapi"
	"github.com/ovs-container-network/ovs-container-network/internal/dockerwatch"
	"github.com/ovs-container-network/ovs-container-network/internal/ipam"
	"github.com/ovs-container-network/ovs-container-network/internal/link"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovn"
	"github.com/ovs-container-network/ovs-container-network/internal/ovs"
	"github.com/ovs-container-network/ovs-container-network/internal/state"
)

// settings are what serve can be told.
type settings struct {
	socket, control, stateDir, ovsdb, dockerHost, logLevel, logFormat string

	northbound string
	tls        ovn.TLS
}

// lockWait is how long a daemon waits for its predecessor to go.
const lockWait = 5 * time.Second

func newServe() *cobra.Command {
	h := findHost()
	var s settings
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the daemon",
		Long: `Run the daemon that Docker talks to. It needs no flag, starts before or after
Docker and Open vSwitch, and waits for them. Each flag can be given as an
environment variable too, --state-dir as OCN_STATE_DIR and so on.

Sockets handed over by systemd (socket activation) are used instead of --socket.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd.Context(), h, s)
		},
	}
	flags := cmd.Flags()
	text := func(p *string, name, variable, value, usage string) {
		flags.StringVar(p, name, env(variable, value), usage+" ("+variable+")")
	}
	text(&s.socket, "socket", "OCN_SOCKET", "", "socket to listen on for Docker, in place of "+h.sockets()[len(h.sockets())-1])
	text(&s.control, "control-socket", "OCN_CONTROL_SOCKET", h.control(), "socket to listen on for the other commands")
	text(&s.stateDir, "state-dir", "OCN_STATE_DIR", "/var/lib/ovs-container-network", "directory of the durable state")
	text(&s.ovsdb, "ovsdb", "OCN_OVSDB", "unix:"+filepath.Join(h.run, "openvswitch/db.sock"), "Open vSwitch's database")
	text(&s.northbound, "ovn-nb", "OCN_OVN_NB", "", "OVN's northbound database, the members of a cluster with commas between; without it external_ids:ovn-nb of Open vSwitch, else the socket of this host")
	text(&s.tls.Key, "tls-key", "OCN_TLS_KEY", "", "private key for ssl: databases; without it that of Open vSwitch (ovs-vsctl set-ssl)")
	text(&s.tls.Certificate, "tls-cert", "OCN_TLS_CERT", "", "certificate for ssl: databases")
	text(&s.tls.CA, "tls-ca", "OCN_TLS_CA", "", "certificate of the CA for ssl: databases")
	text(&s.dockerHost, "docker-host", "OCN_DOCKER_HOST", "unix://"+filepath.Join(h.run, "docker.sock"), "Docker's API, for names only; may be absent; none turns it off")
	text(&s.logLevel, "log-level", "OCN_LOG_LEVEL", "info", "debug, info, warn or error")
	text(&s.logFormat, "log-format", "OCN_LOG_FORMAT", "text", "text or json")
	complete(cmd, "log-level", "debug", "info", "warn", "error")
	complete(cmd, "log-format", "text", "json")
	return cmd
}

// serve wires the parts together and runs them until ctx ends.
func serve(ctx context.Context, h host, s settings) error {
	log, err := newLogger(s.logLevel, s.logFormat)
	if err != nil {
		return err
	}
	// Little is allocated and little is garbage; memory counts more than the
	// time to collect it.
	debug.SetGCPercent(50)

	lockCtx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	one, err := lockHost(lockCtx, h)
	if err != nil {
		return err
	}
	defer one.Close()
	dir, err := state.Open(lockCtx, s.stateDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	hostID, err := dir.HostID()
	if err != nil {
		return err
	}
	held, err := dir.Load()
	if err != nil {
		return err
	}
	for _, d := range held.Damaged {
		log.Error("a record cannot be read and is left alone", "path", d.Path, "err", d.Err)
	}
	for _, err := range held.BadPools {
		log.Error("a pool cannot be read and is left alone", "err", err)
	}

	links, err := link.Open()
	if err != nil {
		return fmt.Errorf("cannot talk to the kernel: %w", err)
	}
	defer links.Close()

	registry := ipam.New(faultyPools(dir, held.Pools), held.Pools, hostID)
	var manager *network.Manager
	if s.northbound != "" {
		if _, err := ovn.ParseEndpoints(s.northbound); err != nil {
			return fmt.Errorf("--ovn-nb: %w", err)
		}
	}
	dirty := func(ids ...network.ID) { manager.Dirty(ids...) }
	local, err := ovs.New(s.ovsdb, links, log, dirty)
	if err != nil {
		return err
	}
	fabric, err := ovn.New(ovn.Config{
		Local: local, Links: links, HostID: hostID, NB: s.northbound, TLS: s.tls, RunDir: filepath.Join(h.run, "ovn"), Log: log, Dirty: dirty,
	})
	if err != nil {
		return err
	}
	counted, calls := network.NewMetrics(), dockerapi.NewMetrics()
	fabric.Measure(counted)
	networks := func() []network.Network {
		if manager == nil { // it is being made
			return nil
		}
		return manager.Networks()
	}
	shared := ovn.NewPools(fabric, networks, func(id network.ID) bool { return manager.Spares(id, "") })
	manager = network.NewManager(network.Options{
		Fabric: faultyFabric(fabric), Store: faultyStore(dir), Pools: faultyClaims(pools{registry, shared, networks, log}), Log: log,
		SandboxAlive: h.alive, Inside: &ovs.Inside{Links: links, Sandbox: h.sandbox}, Damaged: held.Damaged, Metrics: counted,
		HostID: hostID, Nameless: s.dockerHost == "none",
	}, held.Networks)
	registry.Loosen(usedBy(manager.UsedAddrs))
	api := &dockerapi.Server{
		Networks: manager, IPAM: addresses{registry, shared, manager}, Log: log, Metrics: calls,
		OtherLinks: func(sandbox string) (bool, error) {
			names, err := links.LinksIn(h.sandbox(sandbox))
			return len(names) > 0, err
		},
	}

	forDocker, err := dockerListeners(h, s.socket)
	if err != nil {
		return err
	}
	forCommands, err := listen(s.control)
	if err != nil {
		return err
	}
	started := time.Now()
	damaged := func() (list []string) {
		for _, d := range manager.Damaged() {
			list = append(list, fmt.Sprintf("%s: %v", d.Path, d.Err))
		}
		for _, err := range held.BadPools {
			list = append(list, err.Error())
		}
		return list
	}
	status := func() control.Status {
		c := control.Status{
			Version: version, Form: h.form(), Started: started, HostID: hostID,
			Networks: manager.Reports(), Pools: append(registry.Pools(), shared.Summaries()...), Damaged: damaged(),
		}
		countCopies(c.Networks, fabric.Copied)
		c.OVS.Version = fabric.Version()
		var err error
		if c.OVS.Connected, c.OVS.Since, err = fabric.State(); err != nil {
			c.OVS.Error = err.Error()
		}
		if at, used, connected, since, err := fabric.NB(); used {
			c.Northbound = &control.Database{Endpoint: at, Connected: connected, Since: since}
			if err != nil {
				c.Northbound.Error = err.Error()
			}
		}
		return c
	}

	doc := &doctor{
		dir: dir, damaged: damaged, fabric: fabric, manager: manager, registry: registry, shared: shared, dockerHost: s.dockerHost,
	}
	for _, l := range forDocker {
		doc.sockets = append(doc.sockets, l.Addr().String())
	}
	commands := control.Daemon{
		Status: status, Doctor: doc.examine,
		GC:    func(ctx context.Context, dryRun bool) control.Garbage { return doc.collect(ctx, log, dryRun) },
		Fleet: doc.fleet,
		Retire: func(ctx context.Context, chassis string, force, dryRun bool) control.Garbage {
			return doc.retire(ctx, log, chassis, force, dryRun)
		},
		Metrics: metrics(calls, counted, fabric, manager),
	}

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return fabric.Run(ctx) })
	g.Go(func() error { return manager.Run(ctx) })
	for _, l := range forDocker {
		g.Go(func() error { return serveHTTP(ctx, l, faultyHandler(api.Handler()), log) })
	}
	g.Go(func() error { return serveHTTP(ctx, forCommands, commands.Handler(), log) })
	if s.dockerHost != "none" {
		g.Go(func() error {
			return dockerwatch.Run(ctx, dockerwatch.Config{
				Host: s.dockerHost, Sink: manager, Ours: manager.Has, Quiet: manager.Quiet, Log: log,
			})
		})
	}
	log.Info("serving", "version", version, "form", h.form(), "state", s.stateDir, "ovsdb", s.ovsdb,
		"networks", len(held.Networks), "pools", len(held.Pools))
	daemon.SdNotify(false, daemon.SdNotifyReady) //nolint:errcheck // without systemd there is nobody to tell
	err = g.Wait()
	log.Info("stopped")
	return err
}

// lockHost makes sure that one daemon works on this host, whatever its state
// directory: two would take each other's sockets and ports.
func lockHost(ctx context.Context, h host) (*os.File, error) {
	dir := filepath.Join(h.run, "ovs-container-network")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return state.Lock(ctx, filepath.Join(dir, "lock"))
}

func newLogger(level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("--log-level %q: allowed are debug, info, warn, error", level)
	}
	opts := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, opts)), nil
	}
	return nil, fmt.Errorf("--log-format %q: allowed are text, json", format)
}
