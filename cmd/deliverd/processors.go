package main

import (
	"os"
	"runtime"
)

// blockedMost is how many goroutines more than there are cores may be in the Go
// runtime's hands at once.
//
// One that waits in an fsync, or whose thread the kernel has put aside for another
// process, keeps its place among the GOMAXPROCS until the runtime notices, which takes
// up to 10 ms. The embedded NATS server has a stream in fsync for each of its shards
// while mail flows, and with two places for two cores both were taken: nine of ten
// goroutines that became ready waited less than 1 to 2 ms with six more, 10 to 30 ms
// without, and each of a PIN's dozen steps is one. Behind invites that are being
// delivered (2 cores at a load of 5 to 35 from other programs), a PIN took
//
//	GOMAXPROCS   p50           p90            p99
//	2            17 to 63 ms   66 to 293 ms   222 to 636 ms
//	4            15 to 39 ms   36 to 327 ms   91 to 689 ms
//	8            4 to 24 ms    7 to 73 ms     18 to 390 ms
//	16           15 to 17 ms   36 to 55 ms    139 to 147 ms
//
// Runs side by side took the same processor time for each message within the noise (3.0
// to 4.1 ms with 2 and 2.5 to 3.7 with 8 on the busiest machine, 2.4 to 2.6 and 2.5 to
// 2.6 otherwise). Without fsync the wait was gone with 2 as well. How many sign at once
// stays a matter of cores ([signers]).
const blockedMost = 6

// processors is GOMAXPROCS for so many cores.
func processors(cores int) int { return cores + blockedMost }

// signers is how many messages that are not urgent are rendered and signed at once:
// the rest of the machine is for what waits for an answer.
func signers(cores int) int { return max(1, cores/2) }

// widen sets GOMAXPROCS for a daemon, unless the operator did, and returns the cores
// that it may use. The runtime's own number, which knows a container's limit, is not
// followed after that.
func widen() (cores int) {
	cores = runtime.GOMAXPROCS(0)
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(processors(cores))
	}
	return cores
}
