package mail

import (
	"testing"
	"time"
)

// Messages that supersede each other are ordered by QueuedAt (law 4), and ids of one
// millisecond are in no order: two requests that came one after the other must differ.
func TestMessagesOfOneMillisecondAreInOrder(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 12, 0, 0, 400_000, time.UTC)
	p := newPreparer(t)
	p.Now = func() time.Time { now = now.Add(20 * time.Microsecond); return now }
	r := Request{Kind: "pin", To: "kari@nordlys.fi", Tenant: "4711", Data: map[string]any{"code": "482913"}}
	older, _, err := p.Prepare(r)
	if err != nil {
		t.Fatal(err)
	}
	newer, _, err := p.Prepare(r)
	if err != nil {
		t.Fatal(err)
	}
	if !newer.QueuedAt.After(older.QueuedAt) {
		t.Errorf("queued at %v and then at %v", older.QueuedAt, newer.QueuedAt)
	}
}

// The zones that are remembered are as many as there are, however their names are
// spelled.
func TestZonesHaveOneSpelling(t *testing.T) {
	t.Parallel()
	templates, err := LoadTemplates("")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := templates.zone(map[string]any{zoneVariable: "Europe/Helsinki"}); err != nil {
		t.Errorf("a zone is refused: %v", err)
	}
	for _, name := range []string{"./Europe/Helsinki", "Europe//Helsinki", "Europe/./Helsinki", "Europe/Helsinki/"} {
		if _, err := templates.zone(map[string]any{zoneVariable: name}); err == nil {
			t.Errorf("%q is taken for a name", name)
		}
	}
}
