package link

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// watch runs Watch in the namespace of the calling thread.
func watch(t *testing.T, k *Kernel, f func(Event)) (stop func() error) {
	t.Helper()
	here, err := netns.Get()
	check(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // not unlocked: the thread ends
		defer here.Close()
		if err := netns.Set(here); err != nil {
			done <- err
			return
		}
		done <- k.Watch(ctx, f)
	}()
	return func() error {
		cancel()
		return <-done
	}
}

func TestWatch(t *testing.T) {
	inNS(t, func() {
		k := open(t)
		events := make(chan Event, 1000)
		stop := watch(t, k, func(e Event) { events <- e })
		await := func(what string, is func(Event) bool) Event {
			t.Helper()
			timeout := time.After(5 * time.Second)
			for {
				select {
				case e := <-events:
					if is(e) {
						return e
					}
				case <-timeout:
					t.Fatalf("no event: %s", what)
				}
			}
		}
		await("first", func(e Event) bool { return e.Overflow })
		v := pair(1)
		_, err := k.Ensure(v)
		check(t, err)
		up1 := await("up", func(e Event) bool { return e.Name == v.Host && e.Up })
		want := Event{Name: v.Host, Index: get(t, k, v.Host).Index, Up: true, Alias: v.Alias}
		if diff := cmp.Diff(want, up1); diff != "" {
			t.Error(diff)
		}
		check(t, k.change(v.Host, up(false)))
		await("down", func(e Event) bool { return e.Name == v.Host && !e.Up && !e.Gone })

		// A port leaving a bridge is not a link gone.
		check(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br"}}))
		l, err := netlink.LinkByName(v.Host)
		check(t, err)
		br, err := netlink.LinkByName("br")
		check(t, err)
		check(t, netlink.LinkSetMaster(l, br))
		if get(t, k, v.Host).Master != br.Attrs().Index {
			t.Error("bridge not seen as master")
		}
		check(t, netlink.LinkSetNoMaster(l))
		check(t, netlink.LinkDel(br))
		await("bridge gone", func(e Event) bool {
			if e.Gone && e.Name == v.Host {
				t.Errorf("leaving the bridge: %+v", e)
			}
			return e.Gone && e.Name == "br"
		})

		check(t, k.Delete(v.Host, v.Alias))
		gone := await("gone", func(e Event) bool { return e.Gone && e.Name == v.Host })
		if gone.Index != want.Index || gone.Alias != v.Alias || gone.Up {
			t.Errorf("%+v", gone)
		}
		if err := stop(); !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestWatchOverflow(t *testing.T) {
	inNS(t, func() {
		k := open(t)
		v := pair(1)
		_, err := k.Ensure(v)
		check(t, err)
		block, overflow := make(chan struct{}), make(chan struct{}, 1000)
		stop := watch(t, k, func(e Event) {
			if e.Overflow {
				overflow <- struct{}{}
			}
			<-block
		})
		<-overflow
		for i := range 20000 { // more news than the buffer holds
			check(t, k.change(v.Host, up(i%2 == 0)))
		}
		close(block)
		select {
		case <-overflow:
		case <-time.After(10 * time.Second):
			t.Error("overflow is not reported")
		}
		stop()
	})
}

func TestLinksInAbsent(t *testing.T) {
	inNS(t, func() {
		k := open(t)
		file := filepath.Join(t.TempDir(), "file")
		check(t, os.WriteFile(file, nil, 0o644))
		for _, path := range []string{file, file + "-absent"} {
			if _, err := k.LinksIn(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: %v", path, err)
			}
			if IsNetNS(path) {
				t.Errorf("%s is a namespace", path)
			}
		}
		_, path := otherNS(t)
		if !IsNetNS(path) {
			t.Errorf("%s is no namespace", path)
		}
		names, err := k.LinksIn(path)
		check(t, err)
		if len(names) != 0 {
			t.Errorf("links %v", names)
		}
	})
}

func TestNothingLeaks(t *testing.T) {
	inNS(t, func() {
		fds := func() int {
			d, err := os.ReadDir("/proc/self/fd")
			check(t, err)
			return len(d)
		}
		_, path := otherNS(t)
		before := fds()
		for range 5 {
			k, err := Open()
			check(t, err)
			v := pair(1)
			v.Shield = true
			_, err = k.Ensure(v)
			check(t, err)
			_, err = k.LinksIn(path)
			check(t, err)
			k.HasKernelDatapath()
			if err := watch(t, k, func(Event) {})(); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			check(t, k.Delete(v.Host, v.Alias))
			k.Close()
			k.Close()
			if _, _, err := k.Get("lo"); err == nil {
				t.Error("answers after Close")
			}
		}
		if after := fds(); after > before {
			t.Errorf("%d file descriptors became %d", before, after)
		}
	})
}
