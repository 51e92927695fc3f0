package queue

import (
	"time"

	"github.com/deliverd/deliverd/mail"
)

// How a destination's window moves. It is the feedback of Postfix's SCHEDULER_README,
// with its numbers where it has some:
//
//	contact  window                                              pseudo-cohort
//	ok       + 1 until the first trouble ever, then + 1/window   none has failed
//	busy     - 1; what is left is not exceeded for ceilingFor    + 1/window
//	down     - 1                                                 + 1/window
//
// A whole pseudo-cohort, as many failures as the window was wide without an ok among
// them, says that the destination is down: only a look at a time goes there, after
// firstLook, then twice as long, up to lastLook. The first ok opens the window at its
// initial size again, whatever it was before and however many wait: they are ramped up
// to. Growth beyond what is in use is not believed, as Postfix does not.
const (
	initialWindow = 5 // initial_destination_concurrency
	cohortLimit   = 1 // default_destination_concurrency_failed_cohort_limit
	// ceilingFor is how long a server that said 421 is believed to take no more than it
	// took then: connection limits are configuration, and each probe costs a message a
	// delay.
	ceilingFor = 10 * time.Minute
	// firstLook and lastLook: a restart takes half a minute, and a message of two hours'
	// use wants several looks within them.
	firstLook = 30 * time.Second
	lastLook  = 5 * time.Minute
	// lookHint is the longest wait that a server's own words may ask for.
	lookHint = time.Hour
	// firstGap and lastGap bound the pace of a destination that says "too much" to one
	// connection at a time: then it counts messages, not connections.
	firstGap = time.Second
	lastGap  = time.Minute
	// doubtful is the part of a pseudo-cohort that must have failed for a destination to
	// be in doubt.
	doubtfulCohort = 0.5
)

// window is what was learned of a destination: how many attempts at once it takes, and
// how fast. The zero value knows nothing. Every change is by feedback, a pure function
// of contact and time.
type window struct {
	Size         int           `json:"size"`
	Success      float64       `json:"success,omitempty"` // towards the next growth
	Cohorts      float64       `json:"cohorts,omitempty"` // pseudo-cohorts that failed in a row
	Proven       bool          `json:"proven,omitempty"`  // there was an ok
	Careful      bool          `json:"careful,omitempty"` // there was trouble: growth is slow
	Ceiling      int           `json:"ceiling,omitempty"`
	CeilingUntil time.Time     `json:"ceiling_until,omitzero"`
	Gap          time.Duration `json:"gap,omitempty"` // between two attempts' beginnings
	Looks        int           `json:"looks,omitempty"`
	Look         time.Time     `json:"look,omitzero"`  // when it is down: the next look
	Since        time.Time     `json:"since,omitzero"` // when the present trouble began
}

// Limits bound a destination's window.
type Limits struct {
	Initial   int // 5
	Most      int // Options.PerDestination
	PerMinute int // messages; 0: as many as it takes
}

func (l Limits) withDefaults(most int) Limits {
	if l.Most <= 0 {
		l.Most = most
	}
	if l.Initial <= 0 {
		l.Initial = initialWindow
	}
	l.Initial = min(l.Initial, l.Most)
	return l
}

// gap is the configured pace.
func (l Limits) gap() time.Duration {
	if l.PerMinute <= 0 {
		return 0
	}
	return time.Minute / time.Duration(l.PerMinute)
}

// opened is a window of which nothing is known.
func opened(l Limits) window { return window{Size: l.Initial} }

// down says whether only looks go to the destination.
func (w *window) down() bool { return w.Looks > 0 }

// doubtful says whether the destination has yet to show that it takes mail.
func (w *window) doubtful() bool { return !w.Proven || w.Cohorts >= doubtfulCohort }

// most is how wide the window may be now.
func (w *window) most(l Limits, now time.Time) int {
	if w.Ceiling > 0 && now.Before(w.CeilingUntil) {
		return min(l.Most, w.Ceiling)
	}
	return l.Most
}

// feedback takes in how one contact went. inflight is how many were under way with it,
// hint the wait that the server's words asked for.
func (w *window) feedback(c mail.Contact, hint time.Duration, inflight int, l Limits, now time.Time) {
	switch c {
	case mail.ContactOK:
		w.grow(inflight, l, now)
	case mail.ContactBusy:
		w.shrink(true, hint, now)
	case mail.ContactDown:
		w.shrink(false, 0, now)
	}
}

func (w *window) grow(inflight int, l Limits, now time.Time) {
	most := w.most(l, now)
	if w.down() {
		w.Size, w.Success, w.Looks, w.Look = min(l.Initial, most), 0, 0, time.Time{}
	}
	w.Proven, w.Cohorts = true, 0
	if w.Gap -= w.Gap / 10; w.Gap < firstGap/10 {
		w.Gap = 0
	}
	if !now.Before(w.CeilingUntil) && w.Gap == 0 {
		w.Since = time.Time{} // the trouble has passed
	}
	if w.Size = min(w.Size, l.Most); w.Size >= most || w.Size > inflight+l.Initial {
		return
	}
	if w.Careful {
		w.Success += 1 / float64(w.Size)
	} else {
		w.Success++
	}
	if w.Success >= 1-1e-9 { // as many quarters as it takes make a whole
		w.Size, w.Success = w.Size+1, 0
	}
}

func (w *window) shrink(busy bool, hint time.Duration, now time.Time) {
	if w.Since.IsZero() {
		w.Since = now
	}
	w.Success, w.Careful = 0, true
	if w.down() {
		if !now.Before(w.Look) { // else it began before, or was a PIN that went all the same
			w.Looks++
			w.Look = now.Add(lookAfter(w.Looks, hint))
		}
		return
	}
	w.Cohorts += 1 / float64(max(w.Size, 1))
	if busy && w.Size <= 1 {
		w.Gap = min(max(2*w.Gap, firstGap), lastGap)
	}
	w.Size = max(w.Size-1, 1)
	believed := ceilingFor
	if w.Cohorts >= cohortLimit {
		w.Looks = 1
		w.Look = now.Add(lookAfter(w.Looks, hint))
		believed = time.Minute // nobody was let in, which tells little of a limit
	}
	if busy {
		w.Ceiling, w.CeilingUntil = w.Size, now.Add(believed)
	}
}

// strain takes in that a server asked for less while another took the message: there is
// less room, and nothing is down.
func (w *window) strain(now time.Time) {
	if w.down() {
		return
	}
	if w.Since.IsZero() {
		w.Since = now
	}
	w.Success, w.Cohorts, w.Careful, w.Proven = 0, 0, true, true
	w.Size = max(w.Size-1, 1)
	w.Ceiling, w.CeilingUntil = w.Size, now.Add(ceilingFor)
}

// lookAfter is how long a destination is left alone after its n-th failed look.
func lookAfter(n int, hint time.Duration) time.Duration {
	wait := min(firstLook<<min(n-1, 8), lastLook)
	return max(wait, min(hint, lookHint))
}
