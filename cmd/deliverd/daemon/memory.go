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
	// heapRoom is what the heap may grow by between two collections while little waits:
	// with Go's own 100 % of some 40 MB, collecting was a tenth of a message's CPU.
	heapRoom = 128 << 20
	// heapTight is the least percentage of the live heap that it may grow by: the 100 %
	// would double what a million waiting messages take.
	heapTight = 40
)

// tendMemory gives the garbage collector room in bytes, not in proportion: at ease
// while little is waiting, thrifty while much is. An operator's GOGC or GOMEMLIMIT has
// the last word.
func (d *Daemon) tendMemory(ctx context.Context) {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	live := []runtimemetrics.Sample{{Name: "/gc/heap/live:bytes"}}
	percent, scanned := 0, false
	for sleep(ctx, memoryEvery) {
		if !scanned && d.queue.WaitingHere().Scanned {
			// The scan of what waits leaves garbage that nothing will need again.
			debug.FreeOSMemory()
			scanned = true
		}
		runtimemetrics.Read(live)
		if live[0].Value.Kind() != runtimemetrics.KindUint64 {
			return
		}
		if p := gcPercent(live[0].Value.Uint64()); p != percent {
			debug.SetGCPercent(p)
			percent = p
		}
	}
}

// gcPercent says by how much of itself a live heap may grow: in steps, as each change
// stops the world.
func gcPercent(live uint64) int {
	const step = 20
	p := heapRoom * 100 / max(live, heapRoom/4) / step * step
	return max(int(p), heapTight)
}
