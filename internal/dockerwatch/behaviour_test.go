package dockerwatch

import (
	"context"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// docker is an engine that a behaviour can be shown with: the fake, or a real
// one, which keeps the fake honest.
type docker interface {
	Networks() map[network.ID]bool
	CreateNetwork(name string)
	RemoveNetwork(name string)
	Run(name, net string)
	Connect(name, net string)
	Rename(from, to string)
	Remove(name string)
}

// behaviours are what has to be learned, whatever engine it is.
var behaviours = []struct {
	name   string
	before func(docker) // the watcher starts
	after  func(docker) // the watcher is connected
	want   string       // lines "network: containers"
	clean  func(docker)
}{
	{
		name:   "what was there already",
		before: func(d docker) { d.CreateNetwork("blue"); d.Run("web", "blue"); d.Run("db", "blue") },
		want:   "blue: db web",
		clean:  func(d docker) { d.Remove("web"); d.Remove("db"); d.RemoveNetwork("blue") },
	},
	{
		name:  "a new network",
		after: func(d docker) { d.CreateNetwork("blue") },
		want:  "blue:",
		clean: func(d docker) { d.RemoveNetwork("blue") },
	},
	{
		name:   "containers that start",
		before: func(d docker) { d.CreateNetwork("blue") },
		after:  func(d docker) { d.Run("web", "blue"); d.Run("db", "blue") },
		want:   "blue: db web",
		clean:  func(d docker) { d.Remove("web"); d.Remove("db"); d.RemoveNetwork("blue") },
	},
	{
		name:   "a second network of a running container",
		before: func(d docker) { d.CreateNetwork("blue"); d.CreateNetwork("red"); d.Run("web", "blue") },
		after:  func(d docker) { d.Connect("web", "red") },
		want:   "blue: web\nred: web",
		clean:  func(d docker) { d.Remove("web"); d.RemoveNetwork("blue"); d.RemoveNetwork("red") },
	},
	{
		name:   "a new name",
		before: func(d docker) { d.CreateNetwork("blue"); d.Run("web", "blue") },
		after:  func(d docker) { d.Rename("web", "www") },
		want:   "blue: www",
		clean:  func(d docker) { d.Remove("www"); d.RemoveNetwork("blue") },
	},
	{
		name:   "removed and made again",
		before: func(d docker) { d.CreateNetwork("blue"); d.RemoveNetwork("blue") },
		after:  func(d docker) { d.CreateNetwork("blue"); d.Run("web", "blue") },
		want:   "blue: web",
		clean:  func(d docker) { d.Remove("web"); d.RemoveNetwork("blue") },
	},
}

func TestBehaviours(t *testing.T) {
	for _, b := range behaviours {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			f := newFakeEngine(t)
			socket := filepath.Join(t.TempDir(), "docker.sock")
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(f.serve(l))
			show(t, f, "unix://"+socket, b.before, b.after, b.want)
		})
	}
}

// show runs a watcher against d and waits until it has learned want.
func show(t *testing.T, d docker, host string, before, after func(docker), want string) {
	t.Helper()
	s := newRecorder(d.Networks())
	if before != nil {
		before(d)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- Run(ctx, Config{Host: host, Sink: s, Ours: s.ours}) }()
	eventually(t, func() string {
		if s.listings() == 0 {
			return "no listing"
		}
		return ""
	})
	if after != nil {
		after(d)
	}
	eventually(t, func() string {
		if got := s.String(); got != want {
			return fmt.Sprintf("learned:\n%s\nwant:\n%s", got, want)
		}
		return ""
	})
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run returns %v", err)
	}
}

// eventually waits until problem has none.
func eventually(t *testing.T, problem func() string) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(20 * time.Second)
	for {
		p := problem()
		if p == "" {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal(p)
		}
	}
}

// recorder is a sink that remembers like a manager does. Networks that were
// there before it are not ours.
type recorder struct {
	old map[network.ID]bool

	mu    sync.Mutex
	names map[network.ID]string
	eps   map[network.ID]map[network.EndpointID]network.Container
	lists []map[network.ID]bool
	err   error // what Annotate returns
}

func newRecorder(old map[network.ID]bool) *recorder {
	return &recorder{old: old, names: map[network.ID]string{}, eps: map[network.ID]map[network.EndpointID]network.Container{}}
}

func (s *recorder) ours(id network.ID) bool { return !s.old[id] }

func (s *recorder) Annotate(id network.ID, name string, eps map[network.EndpointID]network.Container) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names[id] = name
	if s.eps[id] == nil {
		s.eps[id] = map[network.EndpointID]network.Container{}
	}
	maps.Copy(s.eps[id], eps)
	return s.err
}

func (s *recorder) Waiting(time.Time, []network.Waiting, bool) []string { return nil }

func (s *recorder) Known(_ context.Context, _ string, ids map[network.ID]bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lists = append(s.lists, ids)
	return false
}

func (s *recorder) listings() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.lists)
}

// String is what was learned, one network a line.
func (s *recorder) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lines []string
	for id, name := range s.names {
		line := name + ":"
		for _, c := range slices.SortedFunc(maps.Values(s.eps[id]), func(a, b network.Container) int { return strings.Compare(a.Name, b.Name) }) {
			line += " " + c.Name
			if len(c.ID) != 64 {
				line += " with id " + c.ID
			}
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
