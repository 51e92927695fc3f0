package daemon

import "testing"

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
		{600 << 20, 30},
	} {
		if got := gcPercent(c.live); got != c.percent {
			t.Errorf("%d MB live: %d %%, want %d", c.live>>20, got, c.percent)
		}
	}
}
