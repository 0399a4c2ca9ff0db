package link

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

func benchPairs(b *testing.B, shield bool, f func(k *Kernel, v Veth, timed func(func()))) {
	inNS(b, func() {
		k := open(b)
		b.StopTimer()
		b.ResetTimer()
		for i := range b.N {
			v := pair(i)
			v.Shield = shield
			f(k, v, func(g func()) { b.StartTimer(); g(); b.StopTimer() })
		}
	})
}

func BenchmarkEnsure(b *testing.B) {
	for _, shield := range []bool{false, true} {
		b.Run(fmt.Sprintf("shield=%v", shield), func(b *testing.B) {
			var times samples
			benchPairs(b, shield, func(k *Kernel, v Veth, timed func(func())) {
				timed(func() { times.time(func() { _, err := k.Ensure(v); check(b, err) }) })
				check(b, k.Delete(v.Host, v.Alias))
			})
			times.report(b)
		})
		b.Run(fmt.Sprintf("again/shield=%v", shield), func(b *testing.B) {
			var times samples
			inNS(b, func() {
				k := open(b)
				v := pair(1)
				v.Shield = shield
				_, err := k.Ensure(v)
				check(b, err)
				for b.Loop() {
					times.time(func() { _, err := k.Ensure(v); check(b, err) })
				}
			})
			times.report(b)
		})
	}
}

func BenchmarkDelete(b *testing.B) {
	for _, shield := range []bool{false, true} {
		b.Run(fmt.Sprintf("shield=%v", shield), func(b *testing.B) {
			var times samples
			benchPairs(b, shield, func(k *Kernel, v Veth, timed func(func())) {
				_, err := k.Ensure(v)
				check(b, err)
				timed(func() { times.time(func() { check(b, k.Delete(v.Host, v.Alias)) }) })
			})
			times.report(b)
		})
	}
}

// samples collects times, for what the mean does not show.
type samples []time.Duration

func (s *samples) time(f func()) {
	start := time.Now()
	f()
	*s = append(*s, time.Since(start))
}

func (s *samples) report(b *testing.B) {
	if len(*s) == 0 {
		return
	}
	slices.Sort(*s)
	b.ReportMetric(float64((*s)[len(*s)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64((*s)[len(*s)*99/100].Microseconds()), "p99-µs")
}
