package console

import (
	"slices"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // zones where the system has none

	"github.com/deliverd/deliverd/mail"
)

// TestWindowNext: when a window that comes again is on, over midnight and over the days
// on which the clock changes.
func TestWindowNext(t *testing.T) {
	t.Parallel()
	helsinki, err := time.LoadLocation("Europe/Helsinki")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ repeat, now, from, until string }{
		// A Saturday; the next weekday is Monday.
		{"weekdays 13:00–13:30 Europe/Helsinki", "2026-11-21 12:00", "2026-11-23 13:00", "2026-11-23 13:30"},
		{"weekdays 13:00-13:30 Europe/Helsinki", "2026-11-23 13:00", "on", "2026-11-23 13:30"},
		{"weekdays 13:00-13:30 Europe/Helsinki", "2026-11-23 13:29", "on", "2026-11-23 13:30"},
		{"weekdays 13:00-13:30 Europe/Helsinki", "2026-11-23 13:30", "2026-11-24 13:00", "2026-11-24 13:30"},
		{"WEEKENDS 0:00-23:59 Europe/Helsinki", "2026-11-21 12:00", "on", "2026-11-21 23:59"},
		{"sat 22:00-02:00 Europe/Helsinki", "2026-11-22 01:59", "on", "2026-11-22 02:00"},
		{"sat 22:00-02:00 Europe/Helsinki", "2026-11-22 02:00", "2026-11-28 22:00", "2026-11-29 02:00"},
		{"fri-mon,wed 10:00-11:00 Europe/Helsinki", "2026-11-24 00:00", "2026-11-25 10:00", "2026-11-25 11:00"},
		{"daily 00:00-00:00 Europe/Helsinki", "2026-11-24 10:00", "on", "2026-11-25 00:00"},
		// 03:00 to 04:00 does not exist on the 29th of March, and comes twice on the 25th of
		// October.
		{"sun 02:30-04:30 Europe/Helsinki", "2026-03-29 02:31", "on", "2026-03-29 04:30"},
		{"sun 03:10-03:20 Europe/Helsinki", "2026-03-28 12:00", "2026-03-29 04:10", "2026-03-29 04:20"},
		{"sun 03:10-04:20 Europe/Helsinki", "2026-10-24 12:00", "2026-10-25 03:10", "2026-10-25 04:20"},
	} {
		at := func(s string) time.Time {
			at, err := time.ParseInLocation("2006-01-02 15:04", s, helsinki)
			if err != nil {
				t.Fatal(err)
			}
			return at
		}
		w := Window{Repeat: row.repeat}
		o, ok := w.Next(at(row.now))
		if on := row.from == "on"; !ok || o.On != on || !on && !o.From.Equal(at(row.from)) || !o.Until.Equal(at(row.until)) {
			t.Errorf("%s at %s: from %s until %s, on %v (%v)", row.repeat, row.now, o.From, o.Until, o.On, ok)
		}
	}
	for _, bad := range []string{
		"", "weekdays", "weekdays 13:00 UTC", "weekdays 13:00-14 UTC", "mayday 13:00-14:00 UTC", "daily 24:00-25:00 UTC", "daily 1:0-2:0 UTC",
		"daily 13:00-14:00 Mars/Olympus", "daily 13:00-14:00 Local", "daily 13:00-14:00 UTC now", "mon-xyz 13:00-14:00 UTC", "daily 13:00-14:00 ../../etc/passwd",
	} {
		if r, err := parseRepeat(bad); err == nil {
			t.Errorf("%q is read as %+v", bad, r)
		}
	}
}

// TestCalendar takes windows in, refuses what is none, and forgets what is long over.
func TestCalendar(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	kinds := func() []string { return []string{"invite", "pin", "reset"} }
	c := NewCalendar(newMemoryStore(), kinds, func() time.Time { return now })
	hour := func(n int) time.Time { return now.Add(time.Duration(n) * time.Hour) }
	for _, bad := range []Window{
		{}, {From: now}, {From: hour(2), Until: hour(1)}, {From: hour(-2), Until: hour(-1)}, {From: now, Until: hour(24*7 + 1)},
		{From: hour(24 * 400), Until: hour(24*400 + 1)}, {Repeat: "sometimes"}, {Repeat: "daily 13:00-14:00 UTC", From: now, Until: hour(1)},
		{Repeat: "daily 13:00-14:00 UTC", Kinds: []string{"no-such"}}, {Repeat: "daily 13:00-14:00 UTC", Title: strings.Repeat("x", 121)},
		{Repeat: "daily 13:00-14:00 UTC", Title: "a\nb"},
	} {
		if _, err := c.Add(t.Context(), bad); err == nil || err.(*mail.Problem).Type != mail.ProblemInvalid {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	add := func(w Window) Window {
		t.Helper()
		w, err := c.Add(t.Context(), w)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	later := add(Window{Repeat: "daily 12:00-13:00 UTC", Kinds: []string{"pin"}})
	once := add(Window{From: hour(-1), Until: hour(2), Kinds: []string{"invite", "reset"}})
	add(Window{From: hour(0), Until: hour(1), Kinds: []string{"invite"}})
	windows, err := c.List(t.Context())
	if err != nil || len(windows) != 3 || windows[0].ID != once.ID || windows[2].ID != later.ID {
		t.Fatalf("%v: %+v", err, windows)
	}
	held := c.Holds(windows, now)
	if len(held) != 2 || !held["invite"].Until.Equal(hour(2)) || !held["reset"].Until.Equal(hour(2)) {
		t.Errorf("held: %+v", held)
	}
	if held := c.Holds(windows, hour(3)); len(held) != 1 || !held["pin"].Until.Equal(hour(4)) {
		t.Errorf("at noon: %+v", held)
	}
	if held := c.Holds([]Window{{Repeat: "daily 09:00-09:01 UTC"}}, now); len(held) != 3 {
		t.Errorf("without kinds all are held: %+v", held)
	}
	if err := c.Remove(t.Context(), once.ID); err != nil {
		t.Error(err)
	}
	if err := c.Remove(t.Context(), once.ID); err != ErrNotFound {
		t.Errorf("removed twice: %v", err)
	}
	now = now.Add(windowMemory + 2*time.Hour)
	windows, err = c.List(t.Context())
	if err != nil || !slices.EqualFunc(windows, []Window{later}, func(a, b Window) bool { return a.ID == b.ID }) {
		t.Errorf("a week later: %v, %+v", err, windows)
	}
}
