package network_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	. "github.com/ovs-container-network/ovs-container-network/internal/network"
)

// fakeStore keeps records as the JSON that a real store would write. It fails on
// demand, refuses to be called twice at once for one record, and remembers
// which records would survive a power cut.
type fakeStore struct {
	t *testing.T

	mu      sync.Mutex // guards the following
	files   map[string][]byte
	synced  map[string]bool           // the last write of a record asked for a sync
	durable map[string][]byte         // what a power cut leaves
	fail    func(op, id string) error // asked before each call, nil: never
	busy    map[string]bool
	writes  int
}

var errDisk = errors.New("no space left on device")

func newStore(t *testing.T) *fakeStore {
	return &fakeStore{t: t, files: map[string][]byte{}, synced: map[string]bool{}, durable: map[string][]byte{}, busy: map[string]bool{}}
}

// failOn makes the given calls fail, all of them if none is given.
func (s *fakeStore) failOn(ops ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = func(op, _ string) error {
		if len(ops) == 0 || slices.Contains(ops, op) {
			return errDisk
		}
		return nil
	}
}

// failOnce makes the nth call of op from now on fail.
func (s *fakeStore) failOnce(op string, nth int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var count atomic.Int64
	s.fail = func(o, _ string) error {
		if o == op && count.Add(1) == int64(nth) {
			return errDisk
		}
		return nil
	}
}

// hook has f asked before each call.
func (s *fakeStore) hook(f func(op, id string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = f
}

func (s *fakeStore) mend() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = nil
}

func (s *fakeStore) PutNetwork(n Network, sync bool) error {
	return s.change("PutNetwork", string(n.ID), func() error {
		return s.put(networkFile(n.ID), n, sync)
	})
}

func (s *fakeStore) PutEndpoint(e Endpoint, sync bool) error {
	return s.change("PutEndpoint", string(e.ID), func() error {
		if s.files[networkFile(e.Network)] == nil {
			return fmt.Errorf("no directory for network %s", e.Network)
		}
		return s.put(endpointFile(e), e, sync)
	})
}

func (s *fakeStore) DeleteNetwork(id ID) error {
	return s.change("DeleteNetwork", string(id), func() error {
		for _, files := range []map[string][]byte{s.files, s.durable} {
			maps.DeleteFunc(files, func(name string, _ []byte) bool { return strings.HasPrefix(name, string(id)+"/") })
		}
		return nil
	})
}

func (s *fakeStore) DeleteEndpoint(e Endpoint) error {
	return s.change("DeleteEndpoint", string(e.ID), func() error {
		delete(s.files, endpointFile(e))
		delete(s.durable, endpointFile(e))
		return nil
	})
}

func (s *fakeStore) change(op, id string, do func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[id] {
		s.t.Errorf("two writes of record %s at once, one of them %s", id, op)
	}
	s.busy[id] = true
	defer func() { s.busy[id] = false }()
	fail := s.fail
	s.mu.Unlock()
	runtime.Gosched() // lets a second writer come in the way
	var err error
	if fail != nil {
		err = fail(op, id)
	}
	s.mu.Lock()
	if err != nil {
		return err
	}
	s.writes++
	return do()
}

func (s *fakeStore) put(name string, v any, sync bool) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	s.files[name], s.synced[name] = text, sync
	if sync {
		s.durable[name] = text
	}
	return nil
}

func networkFile(id ID) string       { return string(id) + "/network" }
func endpointFile(e Endpoint) string { return string(e.Network) + "/endpoints/" + string(e.ID) }

// unreadable makes a record one that load does not return.
func (s *fakeStore) unreadable(d Damage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := networkFile(d.Network)
	if d.Endpoint != "" {
		name = endpointFile(Endpoint{Network: d.Network, ID: d.Endpoint})
	}
	s.files[name] = garbage
}

// garbage is the text of records that cannot be read.
var garbage = []byte("{")

func (s *fakeStore) hasUnreadable() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(slices.Collect(maps.Values(s.files)), isGarbage)
}

func isGarbage(text []byte) bool { return bytes.Equal(text, garbage) }

// load is what a daemon that starts now would find.
func (s *fakeStore) load() []Network {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Network
	for _, name := range slices.Sorted(maps.Keys(s.files)) {
		id, ok := strings.CutSuffix(name, "/network")
		if !ok || isGarbage(s.files[name]) {
			continue
		}
		var n Network
		mustUnmarshal(s.files[name], &n)
		n.Endpoints = map[EndpointID]*Endpoint{}
		for file, text := range s.files {
			if strings.HasPrefix(file, id+"/endpoints/") && !isGarbage(text) {
				var ep Endpoint
				mustUnmarshal(text, &ep)
				n.Endpoints[ep.ID] = &ep
			}
		}
		all = append(all, n)
	}
	return all
}

func mustUnmarshal(text []byte, into any) {
	if err := json.Unmarshal(text, into); err != nil {
		panic(err)
	}
}

// String is every record as text.
func (s *fakeStore) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(s.files)) {
		fmt.Fprintf(&b, "%s %s\n", name, s.files[name])
	}
	return b.String()
}

// isSynced tells whether the last write of a record asked for a sync.
func (s *fakeStore) isSynced(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.files[name] != nil && s.synced[name]
}

// powerCut takes back every write that no sync followed. An older version of
// the record that was synced comes back.
func (s *fakeStore) powerCut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files = maps.Clone(s.durable)
}
