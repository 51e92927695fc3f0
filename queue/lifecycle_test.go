package queue

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; got:\n%s", path, got)
	}
}

// shippedKinds are the waits of DESIGN section 4.
func shippedKinds() []mail.Kind {
	m := time.Minute
	return []mail.Kind{
		{Name: "pin", ValidFor: 15 * m, Retries: []time.Duration{10 * time.Second, 30 * time.Second, m, 2 * m, 3 * m, 5 * m}},
		{Name: "reset", ValidFor: 2 * time.Hour, Retries: []time.Duration{30 * time.Second, m, 3 * m, 6 * m, 11 * m, 16 * m, 30 * m}},
		{Name: "invite", ValidFor: 7 * 24 * time.Hour, Retries: []time.Duration{m, 3 * m, 6 * m, 11 * m, 16 * m, 30 * m, 60 * m, 120 * m, 240 * m, 360 * m}},
	}
}

// TestSchedule prints every attempt of a message whose attempts take no time and all
// end in a delay.
func TestSchedule(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for _, hint := range []time.Duration{0, 5 * time.Minute} {
		for _, k := range shippedKinds() {
			fmt.Fprintf(&b, "%s, valid %v, hint %v:\n", k.Name, k.ValidFor, hint)
			at := time.Duration(0)
			for n := 1; ; n++ {
				r := retryAfter(k, n, k.ValidFor-at, hint)
				at += r.wait
				risk := ""
				if r.atRisk {
					risk = ", at risk"
				}
				if !r.attempt {
					fmt.Fprintf(&b, "  expires after attempt %d at %v%s\n", n, at, risk)
					break
				}
				if n <= 12 || r.atRisk || k.ValidFor-at < time.Hour {
					fmt.Fprintf(&b, "  attempt %d at %v%s\n", n+1, at, risk)
				}
			}
		}
	}
	golden(t, "schedule.txt", b.String())
}

func TestRetryAfterKeepsItsBounds(t *testing.T) {
	t.Parallel()
	for _, k := range append(shippedKinds(), testKinds()["pin"], mail.Kind{}) {
		for _, left := range []time.Duration{-time.Hour, 0, 1, time.Millisecond, time.Second, 29 * time.Second, time.Minute, time.Hour, 1000 * time.Hour} {
			for _, hint := range []time.Duration{-1, 0, 1, time.Second, 10 * time.Minute, 1000 * time.Hour} {
				for attempt := range 20 {
					r := retryAfter(k, attempt, left, hint)
					for _, chance := range []float64{0, 0.5, 0.999} {
						w := jittered(r, left, chance)
						if w < 0 || w > max(left, 0) {
							t.Fatalf("%s: wait %v of %v left", k.Name, w, left)
						}
						if r.attempt && w >= left {
							t.Fatalf("%s: an attempt after %v of %v left", k.Name, w, left)
						}
						if w < r.wait || w > r.wait+r.wait/jitterPart {
							t.Fatalf("%s: jitter made %v of %v", k.Name, w, r.wait)
						}
					}
					if !r.attempt && !r.atRisk {
						t.Fatalf("%s: no attempt follows and nobody is told", k.Name)
					}
				}
			}
		}
	}
}

func TestAServersWishIsFollowedWithinBounds(t *testing.T) {
	t.Parallel()
	k := shippedKinds()[1] // 30 s … 30 m
	for _, tt := range []struct{ hint, want time.Duration }{
		{0, 3 * time.Minute},
		{5 * time.Minute, 5 * time.Minute},
		{time.Minute, time.Minute},
		{time.Second, 30 * time.Second},
		{48 * time.Hour, time.Hour},
	} {
		if r := retryAfter(k, 3, 100*time.Hour, tt.hint); r.wait != tt.want {
			t.Errorf("hint %v: wait %v, want %v", tt.hint, r.wait, tt.want)
		}
	}
}

func TestNext(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 9, 14, 7, 0, time.UTC)
	kind := shippedKinds()[0]
	once := kind
	once.AtMostOnce = true
	for _, tt := range []struct {
		name   string
		kind   mail.Kind
		left   time.Duration
		o      mail.Outcome
		state  mail.State
		cause  mail.Cause
		wait   time.Duration // until due; 0 where the event is terminal
		atRisk bool
	}{
		{"accepted", kind, time.Minute, mail.Outcome{State: mail.StateAccepted}, mail.StateAccepted, "", 0, false},
		{"refused", kind, time.Minute, mail.Outcome{State: mail.StateRefused, Cause: mail.CauseBadMailbox}, mail.StateRefused, mail.CauseBadMailbox, 0, false},
		{"refused without a cause", kind, time.Minute, mail.Outcome{State: mail.StateRefused}, mail.StateRefused, mail.CauseUnknown, 0, false},
		{"delayed", kind, 10 * time.Minute, mail.Outcome{State: mail.StateDelayed, Cause: mail.CauseGreylisted}, mail.StateDelayed, mail.CauseGreylisted, 30 * time.Second, false},
		{"delayed with a hint", kind, 10 * time.Minute, mail.Outcome{State: mail.StateDelayed, RetryAfter: 5 * time.Minute}, mail.StateDelayed, "", 5 * time.Minute, false},
		{"delayed, next attempt too late", kind, 4 * time.Minute, mail.Outcome{State: mail.StateDelayed, RetryAfter: 5 * time.Minute}, mail.StateDelayed, "", 3*time.Minute + 30*time.Second, true},
		{"delayed, no time for another", kind, 20 * time.Second, mail.Outcome{State: mail.StateDelayed}, mail.StateDelayed, "", 20 * time.Second, true},
		{"delayed after expiry", kind, -time.Second, mail.Outcome{State: mail.StateDelayed, Cause: mail.CauseGreylisted}, mail.StateExpired, mail.CauseExpired, 0, false},
		{"accepted after expiry", kind, -time.Second, mail.Outcome{State: mail.StateAccepted}, mail.StateAccepted, "", 0, false},
		{"maybe accepted", kind, 10 * time.Minute, mail.Outcome{State: mail.StateDelayed, PossibleDuplicate: true}, mail.StateDelayed, "", 30 * time.Second, false},
		{"maybe accepted, at most once", once, 10 * time.Minute, mail.Outcome{State: mail.StateDelayed, PossibleDuplicate: true, Cause: mail.CauseNetwork}, mail.StateRefused, mail.CauseNetwork, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := &mail.Message{ID: mail.NewID(now), ExpiresAt: now.Add(tt.left)}
			st := next(m, tt.kind, 2, tt.o, now, 0)
			var due time.Time
			if tt.wait != 0 {
				due = now.Add(tt.wait)
			}
			if st.event.State != tt.state || st.event.Cause != tt.cause || !st.due.Equal(due) || st.atRisk != tt.atRisk {
				t.Errorf("%s %q due in %v at risk %v", st.event.State, st.event.Cause, st.due.Sub(now), st.atRisk)
			}
			if st.event.ID != mail.EventID(m.ID, tt.state, 2) || st.event.Attempt != 2 || st.event.PossibleDuplicate != tt.o.PossibleDuplicate {
				t.Errorf("event %+v", st.event)
			}
			if st.event.State.Terminal() != st.due.IsZero() {
				t.Error("an ended message is due, or an open one is not")
			}
		})
	}
}

func TestClock(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	var wall time.Time
	var mono time.Duration
	type jump struct {
		by       time.Duration
		believed bool
	}
	var jumps []jump
	c := &clock{wall: start, read: func() (time.Time, time.Duration) { return wall, mono },
		jumped: func(by time.Duration, believed bool) { jumps = append(jumps, jump{by, believed}) }}
	for i, tt := range []struct {
		mono, wall, believed, latest time.Duration // since start
	}{
		{time.Second, time.Second, time.Second, time.Second},
		{2 * time.Second, 3 * time.Second, 3 * time.Second, 3 * time.Second}, // a small correction is followed
		{3 * time.Second, 120 * time.Hour, 4 * time.Second, 120 * time.Hour}, // five days on: not believed
		{60 * time.Second, 120*time.Hour + 57*time.Second, 61 * time.Second, 120*time.Hour + 57*time.Second},
		{61 * time.Second, 61 * time.Second, 61 * time.Second, 61 * time.Second}, // and back
		{62 * time.Second, time.Hour, 62 * time.Second, time.Hour},               // a machine that slept
		{182 * time.Second, time.Hour + 2*time.Minute, time.Hour + 2*time.Minute, 3720 * time.Second},
		{183 * time.Second, 2 * time.Minute, 3721 * time.Second, 3721 * time.Second}, // an hour back: time does not
		{303 * time.Second, 4 * time.Minute, 4 * time.Minute, 4 * time.Minute},
	} {
		mono, wall = tt.mono, start.Add(tt.wall)
		believed, latest := c.now()
		if believed.Sub(start) != tt.believed || latest.Sub(start) != tt.latest {
			t.Errorf("step %d: %v and %v, want %v and %v", i, believed.Sub(start), latest.Sub(start), tt.believed, tt.latest)
		}
	}
	want := []jump{{120*time.Hour - 4*time.Second, false}, {time.Hour - 62*time.Second, false}, {time.Hour + 2*time.Minute - 182*time.Second, true},
		{2*time.Minute - 3721*time.Second, false}, {4*time.Minute - 3841*time.Second, true}}
	if fmt.Sprint(jumps) != fmt.Sprint(want) {
		t.Errorf("jumps %v, want %v", jumps, want)
	}
}
