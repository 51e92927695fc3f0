package queue

import (
	"testing"
	"time"
)

// Few lazy writes go soon, as singles; enough for a batch wait on for a full one.
func TestLazyWritesWaitForAFullBatch(t *testing.T) {
	t.Parallel()
	const linger = time.Hour
	for _, c := range []struct {
		writes int
		waited time.Duration
		due    bool
	}{
		{0, 2 * linger, true},
		{1, 0, false},
		{batchLeast - 1, linger, true},
		{batchLeast, linger, false},
		{batchLeast, lazyPatience * linger, true},
		{groupMost - 1, linger, false},
		{groupMost, 0, true},
	} {
		a := &appender{since: time.Now().Add(-c.waited)}
		for range c.writes {
			a.lazy = append(a.lazy, &write{lazy: linger})
		}
		if due := a.lazyDue() <= 0; due != c.due {
			t.Errorf("%d writes after %v: due %v", c.writes, c.waited, due)
		}
	}
}
