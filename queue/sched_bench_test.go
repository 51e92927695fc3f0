package queue

import (
	"fmt"
	"runtime"
	"testing"
	"time"
)

// BenchmarkTake measures what the scheduler does for one message, from its becoming due
// to its end, while a million others are due as well: over ten thousand destinations,
// and over one.
//
//	go test ./queue -run - -bench Take -benchtime 200000x
func BenchmarkTake(b *testing.B) {
	const waiting = 1_000_000
	for _, bm := range []struct {
		name                  string
		destinations, tenants int
	}{
		{"destinations=10000/tenants=1", 10_000, 1},
		{"destinations=10000/tenants=500", 10_000, 500},
		{"destinations=1/tenants=500", 1, 500},
	} {
		b.Run(bm.name, func(b *testing.B) {
			s := testSched(Options{Concurrency: 200, PerDestination: 200})
			for n := range uint64(waiting) {
				s.addFor(fmt.Sprint(n%uint64(bm.tenants)), n, "3", fmt.Sprintf("d%d.example", n%uint64(bm.destinations)), 0, time.Hour+time.Duration(n)*time.Millisecond)
			}
			for len(s.timers.list) > 0 && s.items.at(s.timers.list[0]).place == placeWaiting {
				s.advance(epoch.UnixMilli()) // 2,000 of what is due
			}
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			b.ReportAllocs()
			n := uint64(waiting)
			for b.Loop() {
				t, _, ok := s.take(epoch)
				if !ok {
					b.Fatal("nothing to take")
				}
				s.done(t)
				s.addFor(fmt.Sprint(n%uint64(bm.tenants)), n, "3", fmt.Sprintf("d%d.example", n%uint64(bm.destinations)), 0, time.Hour+time.Duration(n)*time.Millisecond)
				n++
			}
			b.ReportMetric(float64(m.HeapAlloc)/1e6, "heap-MB")
		})
	}
}
