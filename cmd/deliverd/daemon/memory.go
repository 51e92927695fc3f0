package daemon

import (
	"context"
	"errors"
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
	// would double what a million waiting messages take, some 600 MB, and 30 took it over
	// a gigabyte. With so many, collecting costs a fifth of a core at 400 messages a second.
	heapTight = 20
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

const (
	// scanEvery is how often the end of the scan is looked for.
	scanEvery = 20 * time.Millisecond
	// scanPatience is how long what can wait leaves the machine to the scan: one of a
	// million messages takes 10 to 20 s of processor time.
	scanPatience = 30 * time.Second
)

// awaitScan waits for the scan of the waiting messages after a start, but not for ever:
// a node may have no shards. It returns false when ctx ended.
func awaitScan(ctx context.Context, scanned func() bool, patience time.Duration) bool {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errPatience)
	defer cancel()
	for !scanned() {
		if !sleep(ctx, scanEvery) {
			return errors.Is(context.Cause(ctx), errPatience)
		}
	}
	return true
}

var errPatience = errors.New("waited long enough")

// afterScan gives back what the scan of the waiting messages leaves: garbage that
// nothing will need again.
func (d *Daemon) afterScan(ctx context.Context) {
	if awaitScan(ctx, d.queue.Scanned, time.Hour) {
		debug.FreeOSMemory()
	}
}
