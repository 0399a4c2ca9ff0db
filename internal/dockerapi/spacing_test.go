package dockerapi

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestSpacing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &spacing[string]{gap: endGap}
		start := time.Now()
		var (
			mu   sync.Mutex
			wg   sync.WaitGroup
			took = make(map[string][]time.Duration)
		)
		answer := func(ctx context.Context, key string) {
			wg.Go(func() {
				s.wait(ctx, key)
				mu.Lock()
				defer mu.Unlock()
				took[key] = append(took[key], time.Since(start))
			})
		}
		for range 3 {
			answer(t.Context(), "a")
		}
		answer(t.Context(), "b")
		wg.Wait()
		if want := []time.Duration{0, endGap, 2 * endGap}; !slices.Equal(took["a"], want) {
			t.Errorf("answers of one network go after %v, want %v", took["a"], want)
		}
		if took["b"][0] != 0 {
			t.Errorf("the only answer of a network goes after %v", took["b"])
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		answer(gone, "a")
		wg.Wait()
		if took["a"][3] != 2*endGap {
			t.Errorf("who is gone waits until %v", took["a"][3])
		}
		time.Sleep(2 * endGap)
		start = time.Now()
		answer(t.Context(), "a")
		wg.Wait()
		if took["a"][4] != 0 || len(s.next) != 1 {
			t.Errorf("after a while an answer goes after %v, and %d networks are known", took["a"][4], len(s.next))
		}

		start = time.Now()
		for range 1000 {
			answer(t.Context(), "crowd")
		}
		wg.Wait()
		if longest := slices.Max(took["crowd"]); longest > longestGap+endGap {
			t.Errorf("of a thousand answers the last goes after %v", longest)
		}
		start = time.Now()
		answer(t.Context(), "crowd")
		wg.Wait()
		if alone := took["crowd"][1000]; alone > endGap {
			t.Errorf("an answer after those goes after %v", alone)
		}
	})
}
