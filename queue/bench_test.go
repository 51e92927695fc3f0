package queue

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
	"github.com/deliverd/deliverd/queue/natstest"
)

// cpu is the processor time that this process has used, the embedded server's included.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func benchMessage(b *bench, kind string, i int) *mail.Message {
	m := b.message(kind, fmt.Sprintf("person%d@d%d.example", i, i%500), strconv.Itoa(i))
	m.ExpiresAt = m.QueuedAt.Add(7 * 24 * time.Hour)
	m.Data = map[string]any{"link": "https://login.acme.example/i/3f8a0c44e5b1d9927f6a", "inviter": "Lars Nordmann", "product": "Acme"}
	return m
}

// BenchmarkEnqueue measures the durable accept of an invite with a supersede key.
func BenchmarkEnqueue(b *testing.B) {
	for _, shards := range []int{1, 8} {
		for _, parallel := range []int{1, 64, 256} {
			for _, keyed := range []bool{false, true} {
				b.Run(fmt.Sprintf("shards=%d/callers=%d/keyed=%v", shards, parallel, keyed), func(b *testing.B) {
					q := newBench(b, func(o *Options) { o.Shards = shards })
					lap := cpu()
					b.ResetTimer()
					var next atomic.Int64
					var wg sync.WaitGroup
					for range parallel {
						wg.Go(func() {
							for {
								i := int(next.Add(1))
								if i > b.N {
									return
								}
								m := benchMessage(q, "invite", i)
								if keyed {
									m.IdempotencyKey = string(m.ID)
								}
								if _, err := q.q.Enqueue(b.Context(), m, sha256.Sum256([]byte(m.To))); err != nil {
									b.Error(err)
									return
								}
							}
						})
					}
					wg.Wait()
					b.StopTimer()
					b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
					b.ReportMetric(float64((cpu()-lap).Microseconds())/float64(b.N), "cpu-µs/msg")
				})
			}
		}
	}
}

// BenchmarkWholeLife measures accept, attempt (which does nothing), outcome, events
// and burial.
func BenchmarkWholeLife(b *testing.B) {
	for _, parallel := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("callers=%d", parallel), func(b *testing.B) {
			var ended atomic.Int64
			done := make(chan struct{})
			q := newBench(b, func(o *Options) {
				o.Shards = 8
				o.Observe = func(e mail.Event) {
					if e.State == mail.StateAccepted && ended.Add(1) == int64(b.N) {
						close(done)
					}
				}
			})
			q.work(accept)
			lap := cpu()
			b.ResetTimer()
			var next atomic.Int64
			for range parallel {
				go func() {
					for {
						i := int(next.Add(1))
						if i > b.N {
							return
						}
						m := benchMessage(q, "invite", i)
						if _, err := q.q.Enqueue(b.Context(), m, sha256.Sum256([]byte(m.To))); err != nil {
							b.Error(err)
							return
						}
					}
				}()
			}
			<-done
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
			b.ReportMetric(float64((cpu()-lap).Microseconds())/float64(b.N), "cpu-µs/msg")
		})
	}
}

// BenchmarkPIN measures from the call of Enqueue to the beginning of the attempt of a
// PIN: alone, behind a backlog of invites whose attempts take 300 ms, as a quick SMTP
// conversation does, and behind one whose attempts take 20 ms, so that the store is at
// its limit. QUEUE_BACKLOG sets the backlog's size.
func BenchmarkPIN(b *testing.B) {
	backlog, _ := strconv.Atoi(os.Getenv("QUEUE_BACKLOG"))
	if backlog == 0 {
		backlog = 20_000
	}
	for _, bm := range []struct {
		n    int
		took time.Duration
	}{{0, 0}, {backlog, 300 * time.Millisecond}, {backlog, 20 * time.Millisecond}} {
		n := bm.n
		b.Run(fmt.Sprintf("backlog=%d/attempt=%v", n, bm.took), func(b *testing.B) {
			q := newBench(b, func(o *Options) { o.Shards = 8 })
			fill(q, n)
			begun := make(chan mail.ID, 1)
			q.work(func(ctx context.Context, a *mail.Attempt) mail.Outcome {
				if a.Message.Kind == "pin" {
					begun <- a.Message.ID
				} else {
					time.Sleep(bm.took)
				}
				return accept(ctx, a)
			})
			time.Sleep(300 * time.Millisecond)
			var took []time.Duration
			b.ResetTimer()
			for i := range b.N {
				m := benchMessage(q, "pin", 1_000_000+i)
				m.ExpiresAt = m.QueuedAt.Add(15 * time.Minute)
				from := time.Now()
				q.enqueue(m)
				<-begun
				took = append(took, time.Since(from))
				time.Sleep(5 * time.Millisecond)
			}
			b.StopTimer()
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
			b.ReportMetric(float64(q.q.WaitingHere().All.Total()), "still-waiting")
		})
	}
}

func fill(b *bench, n int) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 1024 { // large batches
		wg.Go(func() {
			for {
				i := int(next.Add(1))
				if i > n {
					return
				}
				b.enqueue(benchMessage(b, "invite", i))
			}
		})
	}
	wg.Wait()
}

// BenchmarkRestart measures the memory of a full queue and the time from the start of
// the server to a complete scan. QUEUE_WAITING sets how full: 1000000 takes some
// minutes and 4 GB of disk.
func BenchmarkRestart(b *testing.B) {
	n, _ := strconv.Atoi(os.Getenv("QUEUE_WAITING"))
	if n == 0 {
		n = 20_000
	}
	q := newBench(b, func(o *Options) { o.Shards, o.Observe = 8, nil })
	from := time.Now()
	fill(q, n)
	filled := time.Since(from)
	for q.q.unsaid.count() > 0 {
		time.Sleep(10 * time.Millisecond)
	}
	q.q.Close()
	q.q, q.opened[0] = nil, nil // not to be counted
	q.server.Stop()
	debug.FreeOSMemory()
	var ready, server time.Duration
	for b.Loop() {
		from := time.Now()
		s, err := natstest.Open(q.server.Dir, nil)
		if err != nil {
			b.Fatal(err)
		}
		server = time.Since(from)
		q.server = s
		q.open()
		for {
			if sum := q.q.WaitingHere(); sum.Scanned && sum.Shards == 9 {
				if sum.All.Total() != n {
					b.Fatalf("%d of %d messages found", sum.All.Total(), n)
				}
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		ready = time.Since(from)
		b.StopTimer()
		resident := rss() // as it is, before a collection
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(m.HeapAlloc)/1e6, "heap-MB")
		b.ReportMetric(resident, "rss-MB")
		q.q.Close()
		q.q = nil
		s.Stop()
		b.StartTimer()
	}
	b.ReportMetric(filled.Seconds(), "fill-s")
	b.ReportMetric(server.Seconds(), "server-s")
	b.ReportMetric(ready.Seconds(), "ready-s")
}

// rss is this process's resident memory in MB.
func rss() float64 {
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var size, resident int
	fmt.Sscan(string(data), &size, &resident)
	return float64(resident*os.Getpagesize()) / 1e6
}
