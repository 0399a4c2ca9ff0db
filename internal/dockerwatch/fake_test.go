package dockerwatch

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// fakeEngine answers like dockerd where this package can tell the difference:
// it refuses API versions it does not speak, filters events, replays those
// since a given time, shows an endpoint as "ep-" while it joins, and does not
// answer while it boots.
type fakeEngine struct {
	t      *testing.T
	oldest string // API versions spoken
	newest string

	mu      sync.Mutex
	booted  chan struct{} // closed: the API works
	ids     int
	nets    map[network.ID]*fakeNet
	past    []fakeEvent
	streams map[chan fakeEvent]bool
	asked   map[string]int                                // requests answered, by kind
	spoil   func(w http.ResponseWriter, kind string) bool // answers in place of the engine
}

type fakeNet struct {
	name string
	away bool // listed, but inspected on another host only
	eps  map[string]*fakeEndpoint
}

type fakeEndpoint struct {
	container, name string
	joined          bool
}

type fakeEvent struct {
	Type, Action string
	Actor        struct {
		ID         string
		Attributes map[string]string
	}
	TimeNano int64 `json:"timeNano"`
}

func newFakeEngine(t *testing.T) *fakeEngine {
	f := &fakeEngine{t: t, oldest: "1.40", newest: "1.51", booted: make(chan struct{}), streams: map[chan fakeEvent]bool{}, asked: map[string]int{}}
	f.nets = map[network.ID]*fakeNet{}
	for _, name := range []string{"bridge", "host", "none"} {
		f.nets[network.ID(f.newID())] = &fakeNet{name: name}
	}
	close(f.booted)
	return f
}

// serve answers on l until the returned function is called.
func (f *fakeEngine) serve(l net.Listener) (stop func()) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /_ping", f.handle("ping", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", f.newest)
		fmt.Fprint(w, "OK")
	}))
	mux.HandleFunc("GET /{version}/events", f.handle("events", f.events))
	mux.HandleFunc("GET /{version}/networks", f.handle("list", f.list))
	mux.HandleFunc("GET /{version}/info", f.handle("info", func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte(`{"ID":"fake","DockerRootDir":"/var/lib/docker"}`))
	}))
	mux.HandleFunc("GET /{version}/containers/json", f.handle("containers", func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte("[]"))
	}))
	mux.HandleFunc("GET /{version}/networks/{id}", f.handle("inspect", f.inspect))
	s := &http.Server{Handler: mux}
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }()
	return func() { s.Close(); f.breakStreams(); <-done }
}

func (f *fakeEngine) handle(kind string, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		booted := f.booted
		f.mu.Unlock()
		select {
		case <-booted:
		case <-r.Context().Done():
			return
		}
		f.mu.Lock()
		f.asked[kind]++
		spoil := f.spoil
		f.mu.Unlock()
		if v := r.PathValue("version"); v != "" && (older(v[1:], f.oldest) || older(f.newest, v[1:])) {
			refuse(w, http.StatusBadRequest, "client version "+v+" is not supported")
			return
		}
		if spoil == nil || !spoil(w, kind) {
			h(w, r)
		}
	}
}

func older(a, b string) bool {
	minor := func(v string) int { n, _ := strconv.Atoi(strings.TrimPrefix(v, "1.")); return n }
	return minor(a) < minor(b)
}

func refuse(w http.ResponseWriter, status int, msg string) {
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]string{"message": msg})
}

func (f *fakeEngine) events(w http.ResponseWriter, r *http.Request) {
	var filter map[string][]string
	if err := json.Unmarshal([]byte(r.FormValue("filters")), &filter); err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	sec, nano, _ := strings.Cut(r.FormValue("since"), ".")
	s, _ := strconv.ParseInt(sec, 10, 64)
	n, _ := strconv.ParseInt(nano, 10, 64)
	since := time.Unix(s, n)

	w.WriteHeader(http.StatusOK)
	w.(http.Flusher).Flush() // before it subscribes, as dockerd does
	ch := make(chan fakeEvent, 1024)
	f.mu.Lock()
	f.streams[ch] = true
	for _, e := range f.past {
		if e.TimeNano >= since.UnixNano() {
			ch <- e
		}
	}
	f.mu.Unlock()
	defer func() { f.mu.Lock(); delete(f.streams, ch); f.mu.Unlock() }()
	for {
		select {
		case <-r.Context().Done():
			return
		case e, ok := <-ch:
			if !ok {
				return
			}
			if slices.Contains(filter["type"], e.Type) && slices.Contains(filter["event"], e.Action) {
				json.NewEncoder(w).Encode(e)
				w.(http.Flusher).Flush()
			}
		}
	}
}

func (f *fakeEngine) list(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	type item struct{ Name, Id, Driver string }
	all := []item{}
	for id, n := range f.nets {
		all = append(all, item{n.name, string(id), "ovs"})
	}
	json.NewEncoder(w).Encode(all)
}

func (f *fakeEngine) inspect(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.nets[network.ID(r.PathValue("id"))]
	if n == nil || n.away {
		refuse(w, http.StatusNotFound, "network not found")
		return
	}
	cs := map[string]any{}
	for id, ep := range n.eps {
		key := "ep-" + id
		if ep.joined {
			key = ep.container
		}
		cs[key] = map[string]string{"Name": ep.name, "EndpointID": id, "IPv4Address": "10.0.0.2/24"}
	}
	json.NewEncoder(w).Encode(map[string]any{"Name": n.name, "Id": r.PathValue("id"), "Containers": cs})
}

// newID makes ids like Docker's.
func (f *fakeEngine) newID() string {
	f.ids++
	return fmt.Sprintf("%064x", f.ids)
}

func (f *fakeEngine) emitLocked(typ, action, id string, attrs map[string]string) {
	e := fakeEvent{Type: typ, Action: action, TimeNano: time.Now().UnixNano()}
	e.Actor.ID, e.Actor.Attributes = id, attrs
	f.past = append(f.past, e)
	for ch := range f.streams {
		ch <- e
	}
}

// breakStreams ends all event streams.
func (f *fakeEngine) breakStreams() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for ch := range f.streams {
		close(ch)
	}
	clear(f.streams)
}

// requests returns how many of a kind were answered since the last call.
func (f *fakeEngine) requests(kind string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.asked[kind]
	f.asked[kind] = 0
	return n
}

func (f *fakeEngine) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}
