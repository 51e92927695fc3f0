package daemon

import (
	"context"
	"os"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"time"
)

const (
	memoryEvery = 2 * time.Second
	// manyLive is the live heap from which memory is worth more than the collector's
	// work: some 400,000 waiting messages.
	manyLive = 256 << 20
	// tightPercent lets the heap grow by as much of its live part before it is collected;
	// Go's own 100 would double a million waiting messages' 600 MB.
	tightPercent = 40
)

// tendMemory makes the garbage collector thrifty while much is waiting, and leaves it
// at ease otherwise. An operator's GOGC or GOMEMLIMIT has the last word.
func (d *Daemon) tendMemory(ctx context.Context) {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	live := []runtimemetrics.Sample{{Name: "/gc/heap/live:bytes"}}
	tight, scanned := false, false
	for sleep(ctx, memoryEvery) {
		if !scanned && d.queue.Waiting().Scanned {
			// The scan of what waits leaves garbage that nothing will need again.
			debug.FreeOSMemory()
			scanned = true
		}
		runtimemetrics.Read(live)
		many := live[0].Value.Kind() == runtimemetrics.KindUint64 && live[0].Value.Uint64() > manyLive
		switch {
		case many && !tight:
			debug.SetGCPercent(tightPercent)
		case !many && tight:
			debug.SetGCPercent(100)
		}
		tight = many
	}
}
