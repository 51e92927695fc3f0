package queue

import (
	"sync"
	"time"
)

const (
	// clockSlack is how far the wall clock may drift between two looks before it
	// counts as a jump; NTP slews far slower.
	clockSlack = 2 * time.Second
	// clockHold is how long a jump must last before it is believed. Until then
	// nothing expires by it, and nothing is tried that would have expired by it.
	clockHold = 2 * time.Minute
)

// clock is the wall clock, distrusted. It runs on the monotonic clock and follows the
// wall clock's slow corrections; a jump is believed only when it lasts. So a clock
// that is set to next week and back expires nothing (FAULTS F19), while a machine
// that slept, whose jump is true, sends nothing late meanwhile (law 3).
type clock struct {
	read   func() (wall time.Time, mono time.Duration)
	jumped func(by time.Duration, believed bool) // may be nil

	mu     sync.Mutex
	wall   time.Time     // guarded by mu: what we believe …
	mono   time.Duration // … at this monotonic time
	jumpAt time.Duration // guarded by mu: since when the wall clock disagrees, valid if doubt
	doubt  bool
}

func newClock() *clock {
	start := time.Now()
	c := &clock{read: func() (time.Time, time.Duration) {
		t := time.Now()
		return t.Round(0), t.Sub(start)
	}}
	c.wall, c.mono = c.read()
	return c
}

// now returns the believed time, and the later one of it and the wall clock: what has
// not expired by the latter has surely not.
func (c *clock) now() (believed, latest time.Time) {
	c.mu.Lock()
	wall, mono := c.read()
	c.wall, c.mono = c.wall.Add(mono-c.mono), mono
	by := wall.Sub(c.wall)
	var tell func(time.Duration, bool)
	var believedJump bool
	switch {
	case by.Abs() < clockSlack:
		c.wall, c.doubt = wall, false
	case !c.doubt:
		c.doubt, c.jumpAt, tell = true, mono, c.jumped
	case mono-c.jumpAt >= clockHold:
		c.wall, c.doubt, tell, believedJump = wall, false, c.jumped, true
	}
	believed = c.wall
	c.mu.Unlock()
	if tell != nil {
		tell(by, believedJump)
	}
	if wall.After(believed) {
		return believed, wall
	}
	return believed, believed
}
