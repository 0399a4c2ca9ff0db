package dockerwatch

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// ListEvery is how often everything is listed again while the stream is alive.
// It finds what an event failed to tell, and a stream that died in silence.
const ListEvery = 5 * time.Minute

// listSoon is how soon everything is listed again when the sink asks for it.
const listSoon = 20 * time.Second

const (
	absentEvery = 5 * time.Second  // how often an absent socket is looked for
	minBackoff  = time.Second      // pause after the first failure
	maxBackoff  = 30 * time.Second // longest pause
)

// Sink receives what was learned. All calls come from one goroutine, which
// waits for them.
type Sink interface {
	// Annotate tells the name of a network and the containers of its endpoints.
	// It is called again with values told before. Endpoints that are not in eps
	// are not gone, nothing is known of them.
	Annotate(id network.ID, name string, eps map[network.EndpointID]network.Container) error

	// Known tells all networks that Docker knows, of any driver. It is called
	// after a complete listing only, at each (re)connect and then every
	// ListEvery, or soon if it asks for that by returning true. engine names the
	// engine and its data directory.
	//
	// An id that is missing is no proof yet. Docker lists a network only after
	// its driver has created it, and a swarm manager that cannot reach its
	// cluster leaves out swarm networks without a word.
	Known(ctx context.Context, engine string, ids map[network.ID]bool) (again bool)

	// Waiting tells all containers on networks of ours that do not run, and so
	// may start next, as Docker answered when asked at that time. It is called
	// when that may have changed, and with nil when Docker is no longer followed:
	// then nothing is known. more tells that it will be called again soon. It
	// returns those that are on no network that publishes ports.
	Waiting(asked time.Time, containers []network.Waiting, more bool) (suspects []string)
}

// Config says whom to follow and whom to tell.
type Config struct {
	Host string                // unix:///run/docker.sock or tcp://127.0.0.1:2375; TLS is not supported
	Sink Sink                  // required
	Ours func(network.ID) bool // required: only these networks are inspected; called from the same goroutine as Sink
	Log  *slog.Logger          // nil: no log
	// Quiet tells whether there is a network of ours that publishes no ports: only
	// then containers that do not run yet are looked at. nil: there is none.
	Quiet func() bool
}

// Run follows the engine until ctx ends and returns nil then. An error means
// that Host cannot be understood; whatever Docker does is waited out.
func Run(ctx context.Context, c Config) error {
	e, err := newEngine(c.Host)
	if err != nil {
		return err
	}
	newWatcher(c, e).run(ctx)
	return nil
}

// watcher is owned by the goroutine that called Run.
type watcher struct {
	Config
	engine *engine
	told   string // the state last logged

	name   string // of the engine
	relist *time.Timer
	ports  map[string]bool     // containers that publish ports, or do not
	nets   map[network.ID]bool // ours as Docker knows them: whom a renamed container may concern
	census census
	due    map[network.ID]visit // networks to inspect
	pace   time.Duration        // pause from an event to the visit
}

func newWatcher(c Config, e *engine) *watcher {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &watcher{Config: c, engine: e, ports: make(map[string]bool)}
}

// run is session after session, with pauses.
func (w *watcher) run(ctx context.Context) {
	defer w.engine.close()
	backoff := minBackoff
	for ctx.Err() == nil {
		if err := w.engine.absent(); err != nil {
			w.tell("absent", "Docker's socket is absent, container names stay unknown until it appears", "err", err)
			sleep(ctx, absentEvery)
			continue
		}
		err := w.session(ctx)
		if ctx.Err() != nil {
			return
		}
		followed := w.told == "connected"
		if followed {
			w.tell("lost", "lost Docker's event stream, will connect again", "err", err)
		}
		// An engine that boots accepts connections and says nothing. Asking has
		// been a pause then, and the next one who asks is answered the moment the
		// engine is up.
		if followed || timedOut(err) {
			backoff = minBackoff
		}
		w.Log.Debug("Docker cannot be followed yet", "err", err, "retry", backoff)
		sleep(ctx, backoff)
		backoff = min(2*backoff, maxBackoff)
	}
}

// session follows one event stream until it breaks. It never returns nil.
func (w *watcher) session(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer w.engine.close() // an idle connection to an engine that went is of no use

	version, err := w.engine.ping(ctx)
	if err != nil {
		return err
	}
	if w.name, err = w.engine.name(ctx); err != nil {
		return err
	}
	stream, err := w.engine.events(ctx)
	if err != nil {
		return err
	}
	defer stream.Close()

	in := newInbox()
	g, following := errgroup.WithContext(ctx)
	g.Go(func() error { return readEvents(stream, in) })
	err = w.follow(following, in, func() {
		w.tell("connected", "following Docker's events", "api", version)
	})
	cancel() // ends the reader
	w.Sink.Waiting(time.Time{}, nil, false)
	// Whichever of the two ended first knows the reason.
	if broken := g.Wait(); errors.Is(err, context.Canceled) {
		return broken
	}
	return err
}

// tell logs a state once, not at each retry.
func (w *watcher) tell(state, msg string, args ...any) {
	if w.told != state {
		w.told = state
		w.Log.Info(msg, args...)
	}
}

// sleep returns early when ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
