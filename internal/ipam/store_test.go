package ipam

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
)

// memStore keeps pools as the JSON a real store would write. It fails on
// demand, and refuses to be called twice at once for one pool.
type memStore struct {
	mu     sync.Mutex // guards the following
	files  map[PoolID][]byte
	busy   map[PoolID]bool
	writes int
	fail   error
	gates  map[string]gate // by network: PutPool waits there
}

// gate holds one write up: reached is closed when it has come, open lets it pass.
type gate struct{ reached, open chan struct{} }

func newStore() *memStore {
	return &memStore{files: map[PoolID][]byte{}, busy: map[PoolID]bool{}, gates: map[string]gate{}}
}

func (s *memStore) PutPool(p Pool) error {
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return s.write(p.ID, p.Network, func() { s.files[p.ID] = data })
}

func (s *memStore) DeletePool(id PoolID) error {
	return s.write(id, "", func() { delete(s.files, id) })
}

func (s *memStore) write(id PoolID, network string, f func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[id] {
		return fmt.Errorf("two writes of %s at once", id)
	}
	s.busy[id] = true
	defer delete(s.busy, id)
	if g, ok := s.gates[network]; ok {
		s.mu.Unlock()
		close(g.reached)
		<-g.open
		s.mu.Lock()
	}
	if s.fail != nil {
		return s.fail
	}
	s.writes++
	f()
	return nil
}

func (s *memStore) load(t testing.TB) []Pool {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var pools []Pool
	for _, data := range s.files {
		var p Pool
		if err := json.Unmarshal(data, &p); err != nil {
			t.Fatal(err)
		}
		pools = append(pools, p)
	}
	return pools
}

func (s *memStore) setFail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

func mustPool(t testing.TB, r *Registry, pool, subPool string) Pool {
	t.Helper()
	p, err := r.RequestPool(pool, subPool, nil, strings.Contains(pool, ":"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func mustAddr(t testing.TB, r *Registry, id PoolID, req Request) string {
	t.Helper()
	a, err := r.RequestAddress(id, req)
	if err != nil {
		t.Fatal(err)
	}
	return a.String()
}

func wantError(t testing.TB, err error, want string) {
	t.Helper()
	if err == nil || err.Error() != want {
		t.Errorf("got error  %v\nwant error %s", err, want)
	}
}
