package queue

import (
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

func TestAWindowFollowsItsFeedback(t *testing.T) {
	t.Parallel()
	const ok, busy, down = mail.ContactOK, mail.ContactBusy, mail.ContactDown
	l := Limits{Initial: 5, Most: 20}
	for _, c := range []struct {
		name     string
		contacts []mail.Contact
		inflight int
		size     int
		down     bool
		ceiling  int
	}{
		{"one more with every ok before the first trouble", []mail.Contact{ok, ok, ok}, 20, 8, false, 0},
		{"no growth that is not used", []mail.Contact{ok, ok, ok, ok, ok, ok, ok}, 1, 7, false, 0},
		{"never past the limit", many(ok, 100), 20, 20, false, 0},
		{"one less with every 421, which is the ceiling then", append(many(ok, 15), busy, busy, ok), 20, 18, false, 18},
		{"a lost connection sets no ceiling", append(many(ok, 15), down, ok), 20, 19, false, 0},
		{"after trouble one more a window", append(append(many(ok, 5), down), many(ok, 8)...), 20, 9, false, 0},
		{"a whole pseudo-cohort is down", []mail.Contact{down, down, down, down}, 5, 1, true, 0},
		{"an ok within it is not", []mail.Contact{down, down, down, ok, down}, 5, 1, false, 0},
		{"the first ok opens it at its initial size", append(many(down, 4), ok), 5, 5, false, 0},
		{"or at what it took last", append(many(busy, 4), ok), 5, 1, false, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := opened(l)
			for i, contact := range c.contacts {
				w.feedback(contact, 0, c.inflight, l, epoch.Add(time.Duration(i)*time.Millisecond))
			}
			if w.Size != c.size || w.down() != c.down || w.Ceiling != c.ceiling {
				t.Errorf("window %d, down %v, ceiling %d; want %d, %v, %d", w.Size, w.down(), w.Ceiling, c.size, c.down, c.ceiling)
			}
		})
	}
}

// A backup that takes what a busy server does not is no outage, however often.
func TestStrainIsNoOutage(t *testing.T) {
	t.Parallel()
	tr := &track{limits: Limits{Initial: 5, Most: 20}, window: opened(Limits{Initial: 5})}
	for range 50 {
		tr.learn(&mail.Outcome{State: mail.StateAccepted, Contact: mail.ContactBusy}, 5, epoch)
	}
	if tr.down() || tr.doubtful() || tr.Size != 1 {
		t.Errorf("it came to %+v", tr.window)
	}
}

func many(c mail.Contact, n int) (all []mail.Contact) {
	for range n {
		all = append(all, c)
	}
	return all
}

// TestLooksSchedule prints when a destination that is down is looked at.
func TestLooksSchedule(t *testing.T) {
	t.Parallel()
	l := Limits{Initial: 5, Most: 20}
	w, now := opened(l), epoch
	for range 4 {
		w.feedback(mail.ContactDown, 0, 4, l, now)
	}
	want := []time.Duration{30 * time.Second, 90 * time.Second, 210 * time.Second, 450 * time.Second, 750 * time.Second, 1050 * time.Second}
	for i, at := range want {
		if got := w.Look.Sub(epoch); got != at {
			t.Errorf("look %d after %v, want %v", i+1, got, at)
		}
		t.Logf("look %d after %v", i+1, w.Look.Sub(epoch))
		w.feedback(mail.ContactDown, 0, 1, l, now) // begun before: changes nothing
		now = w.Look
		w.feedback(mail.ContactDown, 0, 1, l, now)
	}
	w.feedback(mail.ContactBusy, 20*time.Minute, 1, l, w.Look)
	if got := w.Look.Sub(now.Add(lastLook)); got != 20*time.Minute {
		t.Errorf("told to come back in 20 minutes, it is looked at after %v", got)
	}
}

// A server that counts messages says 421 to a single connection as well: then the pace
// falls, and comes back.
func TestA46APaceIsLearnedWhereConnectionsAreNotTheLimit(t *testing.T) {
	t.Parallel()
	l := Limits{Initial: 1, Most: 20}
	w, now := opened(l), epoch
	for range 3 {
		w.feedback(mail.ContactBusy, 0, 1, l, now)
		now = w.Look
		w.feedback(mail.ContactOK, 0, 1, l, now)
	}
	if w.Gap < 2*time.Second || w.Gap > 4*time.Second {
		t.Errorf("three times too much: the gap is %v", w.Gap)
	}
	for range 40 {
		w.feedback(mail.ContactOK, 0, 1, l, now)
	}
	if w.Gap != 0 {
		t.Errorf("after 40 in order the gap is still %v", w.Gap)
	}
}
