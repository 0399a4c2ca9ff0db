package state_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/ipam"
	. "github.com/ovs-container-network/ovs-container-network/internal/state"
)

// Only one process has the directory; another waits for it as long as it is told
// and then says why it gives up.
func TestLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := t.TempDir()
		first := open(t, path)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		_, err := Open(ctx, path)
		if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), path) || time.Since(start) != time.Minute {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		second := make(chan error, 1)
		go func() {
			d, err := Open(t.Context(), path)
			if err == nil {
				defer d.Close()
				err = d.PutPool(aPool())
			}
			second <- err
		}()
		time.Sleep(time.Second)
		select {
		case err := <-second:
			t.Errorf("two have the directory, %v", err)
		default:
		}
		first.Close()
		if err := <-second; err != nil {
			t.Error(err)
		}
	})
}

// The name of the host is made once and stays; one that was cut off is made anew.
func TestHostID(t *testing.T) {
	path := t.TempDir()
	d := open(t, path)
	id, err := d.HostID()
	if err != nil || len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" {
		t.Fatalf("got %q, %v", id, err)
	}
	if again, err := d.HostID(); again != id || err != nil {
		t.Errorf("got %q, %v", again, err)
	}
	d.Close()
	d = open(t, path)
	if again, err := d.HostID(); again != id || err != nil {
		t.Errorf("after a restart: %q, %v", again, err)
	}
	write(t, filepath.Join(path, "host-id.new"), "")
	write(t, filepath.Join(path, "host-id"), "")
	anew, err := d.HostID()
	if err != nil || len(anew) != 32 || anew == id {
		t.Errorf("made anew: %q, %v", anew, err)
	}
	if again, err := d.HostID(); again != anew || err != nil {
		t.Errorf("got %q, %v", again, err)
	}
	if other, _ := open(t, t.TempDir()).HostID(); other == id {
		t.Error("two hosts have the same id")
	}
}

// Nobody but the owner reads or lists the state.
func TestModes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	d := open(t, path)
	put(t, d, aNetwork(), false)
	if _, err := d.HostID(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.PutEndpoint(anEndpoint(eid), true), d.PutPool(aPool())); err != nil {
		t.Fatal(err)
	}
	all := tree(t, path)
	for _, file := range append(all, "") {
		info, err := os.Stat(filepath.Join(path, file))
		if err != nil {
			t.Fatal(err)
		}
		want := os.FileMode(0o600)
		if info.IsDir() {
			want = 0o700
		}
		if info.Mode().Perm() != want {
			t.Errorf("%q has mode %v, want %v", file, info.Mode(), want)
		}
	}
	if len(all) != 9 {
		t.Errorf("got %v", all)
	}
}

// Ids of pools hold what file names cannot; no two of them share a file.
func TestPoolFiles(t *testing.T) {
	ids := []ipam.PoolID{
		"local/0123456789abcdef/10.0.0.0/24", "local/0123456789abcdee/10.0.0.0/24", "local/0123456789abcdef/10.0.0.0/2", "local/0123456789abcdef/1.0.0.0/24",
		"local/0123456789abcdef/fd00::/64", "local/0123456789abcdef/fd00::/6", "local/0123456789abcdef/fd::/64", "local/0123456789abcdef/fd:0:0:1::/64",
		"local/0123456789abcdef/fd:0:1::/64", "local/0123456789abcdef/fd00:0:1::/64", "local/0123456789abcdef/::/1",
		"local/0123456789abcdef/fd:1::/64", "local/0123456789abcdef/fd1::/64",
	}
	for i := range 50 {
		ids = append(ids, ipam.PoolID(fmt.Sprintf("local/%016x/fd00:%x::/64", i*7919, i)))
	}
	path := t.TempDir()
	d := open(t, path)
	for i, id := range ids {
		p := aPool()
		p.ID, p.Seq = id, uint64(i)
		if err := d.PutPool(p); err != nil {
			t.Fatal(err)
		}
	}
	c := load(t, d)
	got := map[ipam.PoolID]uint64{}
	for _, p := range c.Pools {
		got[p.ID] = p.Seq
	}
	for i, id := range ids {
		if got[id] != uint64(i) {
			t.Errorf("pool %s was overwritten", id)
		}
		if err := d.DeletePool(id); err != nil {
			t.Error(err)
		}
	}
	if c := load(t, d); len(c.Pools)+len(c.BadPools) != 0 {
		t.Errorf("left: %+v", c)
	}
	if slices.ContainsFunc(tree(t, path), func(f string) bool { return strings.HasPrefix(f, "pools/") }) {
		t.Errorf("left: %v", tree(t, path))
	}
}
