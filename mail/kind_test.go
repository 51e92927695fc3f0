package mail

import (
	"fmt"
	"testing"
	"time"
)

// The table of DESIGN.md section 4, as an operator reads it.
func TestDefaultKinds(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"pin":    "lane 1, 15m0s, [10s 30s 1m0s 2m0s 3m0s 5m0s], supersede true, same again false",
		"reset":  "lane 2, 2h0m0s, [30s 1m0s 3m0s 6m0s 11m0s 16m0s 30m0s], supersede true, same again false",
		"invite": "lane 3, 168h0m0s, [1m0s 3m0s 6m0s 11m0s 16m0s 30m0s 1h0m0s 2h0m0s 4h0m0s 6h0m0s], supersede true, same again true",
	}
	kinds := DefaultKinds()
	if len(kinds) != len(want) {
		t.Errorf("%d kinds, want %d", len(kinds), len(want))
	}
	for name, k := range kinds {
		got := fmt.Sprintf("lane %d, %v, %v, supersede %v, same again %v", k.Lane, k.ValidFor, k.Retries, k.Supersede, k.ResendSame)
		if got != want[name] || k.Name != name || k.AtMostOnce {
			t.Errorf("%s: %s\nwant %s", name, got, want[name])
		}
	}
	kinds["pin"].Retries[0] = time.Hour
	delete(kinds, "reset")
	if again := DefaultKinds(); len(again) != 3 || again["pin"].Retries[0] != 10*time.Second {
		t.Error("changing the map changes the defaults")
	}
}
