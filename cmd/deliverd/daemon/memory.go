package daemon

import (
	"context"
	"os"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"time"
)

const (
	memoryEvery = time.Second
	// heapRoom is what the heap may grow by between two collections while little waits:
	// with Go's own 100 % of some 40 MB, collecting was a tenth of a message's CPU.
	heapRoom = 128 << 20
	// heapTight is the least percentage of the live heap that it may grow by: Go's 100
	// would double what a million waiting messages take, some 600 MB.
	heapTight = 30
)

// tendMemory gives the garbage collector room in bytes, not in proportion: at ease
// while little is waiting, thrifty while much is. An operator's GOGC or GOMEMLIMIT has
// the last word.
func tendMemory(ctx context.Context) {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	live := []runtimemetrics.Sample{{Name: "/gc/heap/live:bytes"}}
	for percent := 0; ; {
		runtimemetrics.Read(live)
		if live[0].Value.Kind() != runtimemetrics.KindUint64 {
			return
		}
		if p := gcPercent(live[0].Value.Uint64()); p != percent {
			debug.SetGCPercent(p)
			percent = p
		}
		if !sleep(ctx, memoryEvery) {
			return
		}
	}
}

// gcPercent says by how much of itself a live heap may grow: in steps, as each change
// stops the world.
func gcPercent(live uint64) int {
	const step = 10
	p := heapRoom * 100 / max(live, heapRoom/4) / step * step
	return max(int(p), heapTight)
}

// afterScan gives back what the scan of the waiting messages leaves: garbage that
// nothing will need again.
func (d *Daemon) afterScan(ctx context.Context) {
	for sleep(ctx, memoryEvery) {
		if d.queue.WaitingHere().Scanned {
			debug.FreeOSMemory()
			return
		}
	}
}
