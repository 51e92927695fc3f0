package daemon

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestTheHeapHasRoomInBytes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		live    uint64
		percent int
	}{
		{0, 400},
		{10 << 20, 400}, // else an idle daemon would keep 128 MB of garbage
		{40 << 20, 320},
		{128 << 20, 100},
		{256 << 20, 50},
		{600 << 20, 20},
	} {
		if got := gcPercent(c.live); got != c.percent {
			t.Errorf("%d MB live: %d %%, want %d", c.live>>20, got, c.percent)
		}
	}
}

func TestWhatCanWaitLeavesTheMachineToTheScan(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		scan, stop time.Duration // after the start
		took       time.Duration
		goes       bool
	}{
		"nothing waits":          {scan: 0, stop: time.Hour, took: 0, goes: true},
		"a million wait":         {scan: 9990 * time.Millisecond, stop: time.Hour, took: 10 * time.Second, goes: true},
		"a node without a shard": {scan: time.Hour, stop: time.Hour, took: scanPatience, goes: true},
		"stopped meanwhile":      {scan: time.Hour, stop: time.Second, took: time.Second, goes: false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), c.stop)
				defer cancel()
				start := time.Now()
				goes := awaitScan(ctx, func() bool { return time.Since(start) >= c.scan }, scanPatience)
				if took := time.Since(start); took != c.took || goes != c.goes {
					t.Errorf("%v after %v, want %v after %v", goes, took, c.goes, c.took)
				}
			})
		})
	}
}
