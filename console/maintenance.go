package console

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// Window is a maintenance window: while it is on, mail of its kinds is held back, so
// that nobody gets a link to what is down. What is held waits, and expires when its
// time is over as ever.
type Window struct {
	ID    string   `json:"id"`              // "mnt_" and 16 hexadecimal digits
	Kinds []string `json:"kinds,omitempty"` // those that are held; none: all
	// A window is once, from From until Until, or comes again as Repeat says:
	// "weekdays 13:00–13:30 Europe/Helsinki".
	From      time.Time `json:"from,omitzero"`
	Until     time.Time `json:"until,omitzero"`
	Repeat    string    `json:"repeat,omitempty"`
	Title     string    `json:"title,omitempty"` // what the public status says
	Reason    string    `json:"reason"`
	By        string    `json:"by"`
	CreatedAt time.Time `json:"created_at"`
}

// Occurrence is one time that a window is on.
type Occurrence struct {
	From  time.Time `json:"from"`
	Until time.Time `json:"until"`
	On    bool      `json:"on"`
}

const (
	windowsMost  = 100
	windowLong   = 7 * 24 * time.Hour // of one that is once
	windowTitle  = 120                // bytes
	windowKinds  = 20
	windowAhead  = 366 * 24 * time.Hour
	windowMemory = 7 * 24 * time.Hour // how long one that is over is still listed
)

// Next returns the window's occurrence that is now, or the next one; none where it is
// over.
func (w *Window) Next(now time.Time) (o Occurrence, ok bool) {
	if w.Repeat == "" {
		o = Occurrence{From: w.From, Until: w.Until, On: !now.Before(w.From)}
		return o, now.Before(w.Until)
	}
	r, err := parseRepeat(w.Repeat)
	if err != nil {
		return o, false // it was parsed when it was made; a zone may be gone since
	}
	return r.next(now)
}

// repeat is the parsed form of Window.Repeat.
type repeat struct {
	days     [7]bool // by time.Weekday
	from, to int     // minutes of the day; to is the next day's if not after from
	zone     *time.Location
}

var weekdayNames = map[string]time.Weekday{
	"sun": time.Sunday, "mon": time.Monday, "tue": time.Tuesday, "wed": time.Wednesday, "thu": time.Thursday, "fri": time.Friday, "sat": time.Saturday,
}

// parseRepeat reads days, a span of the clock and a time zone: "daily", "weekdays",
// "weekends", "mon,wed" or "mon-fri"; "13:00–13:30", with a dash or a hyphen, over
// midnight if it ends no later than it begins; "Europe/Helsinki" or "UTC".
func parseRepeat(s string) (r repeat, err error) {
	f := strings.Fields(s)
	if len(f) != 3 {
		return r, fmt.Errorf("want days, times and a time zone, as in “weekdays 13:00–13:30 Europe/Helsinki”")
	}
	if r.days, err = parseDays(strings.ToLower(f[0])); err != nil {
		return r, err
	}
	from, to, ok := strings.Cut(strings.ReplaceAll(f[1], "–", "-"), "-")
	if r.from, err = parseMinute(from); err != nil {
		return r, err
	}
	if r.to, err = parseMinute(to); !ok || err != nil {
		return r, fmt.Errorf("%q has no end, as in 13:00–13:30", from)
	}
	if strings.EqualFold(f[2], "local") {
		return r, fmt.Errorf("name the time zone, as in Europe/Helsinki: nodes may be in several")
	}
	if r.zone, err = time.LoadLocation(f[2]); err != nil {
		return r, fmt.Errorf("there is no time zone of that name; want one like Europe/Helsinki")
	}
	return r, nil
}

func parseDays(s string) (days [7]bool, err error) {
	switch s {
	case "daily":
		s = "sun-sat"
	case "weekdays":
		s = "mon-fri"
	case "weekends":
		s = "sat-sun"
	}
	for part := range strings.SplitSeq(s, ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		first, ok1 := weekdayNames[from]
		last, ok2 := weekdayNames[to]
		if !ok1 || !ok2 {
			return days, fmt.Errorf("want daily, weekdays, weekends, or days such as mon,wed or mon-fri")
		}
		for d := first; ; d = (d + 1) % 7 {
			days[d] = true
			if d == last {
				break
			}
		}
	}
	return days, nil
}

// parseMinute reads "13:05" into minutes.
func parseMinute(s string) (int, error) {
	h, m, ok := strings.Cut(s, ":")
	hour, err1 := strconv.ParseUint(h, 10, 8)
	minute, err2 := strconv.ParseUint(m, 10, 8)
	if !ok || err1 != nil || err2 != nil || hour > 23 || minute > 59 || len(m) != 2 {
		return 0, fmt.Errorf("want times of the day as in 13:00–13:30")
	}
	return int(hour)*60 + int(minute), nil
}

// next looks from yesterday, whose occurrence may go over midnight, to a week ahead.
func (r repeat) next(now time.Time) (Occurrence, bool) {
	y, m, d := now.In(r.zone).Date()
	for day := -1; day <= 8; day++ {
		// time.Date carries days over months, and minutes that a change of the clock
		// skips over to ones that exist.
		date := time.Date(y, m, d+day, 12, 0, 0, 0, r.zone)
		if !r.days[date.Weekday()] {
			continue
		}
		from := time.Date(y, m, d+day, 0, r.from, 0, 0, r.zone)
		end := day
		if r.to <= r.from {
			end++
		}
		until := time.Date(y, m, d+end, 0, r.to, 0, 0, r.zone)
		if until.After(from) && until.After(now) {
			return Occurrence{From: from, Until: until, On: !now.Before(from)}, true
		}
	}
	return Occurrence{}, false
}

// Calendar keeps the maintenance windows, where every node sees them.
type Calendar struct {
	store Store
	kinds func() []string
	now   func() time.Time
}

// NewCalendar returns the windows of store; kinds lists the kinds of mail that there
// are, now is the clock, nil for time.Now.
func NewCalendar(store Store, kinds func() []string, now func() time.Time) *Calendar {
	if now == nil {
		now = time.Now
	}
	return &Calendar{store: store, kinds: kinds, now: now}
}

// List returns the windows that are on or come, and those that were over lately, the
// next one first.
func (c *Calendar) List(ctx context.Context) ([]Window, error) {
	all, err := c.store.All(ctx)
	if err != nil {
		return nil, err
	}
	now := c.now()
	windows := make([]Window, 0, len(all))
	for key, value := range all {
		var w Window
		if err := json.Unmarshal(value, &w); err != nil {
			return nil, fmt.Errorf("maintenance window %s: %w", key, err)
		}
		if w.Repeat == "" && now.Sub(w.Until) > windowMemory {
			if err := c.store.Delete(ctx, key); err != nil {
				return nil, err
			}
			continue
		}
		windows = append(windows, w)
	}
	begins := func(w *Window) time.Time {
		if o, ok := w.Next(now); ok {
			return o.From
		}
		return w.Until.Add(windowAhead) // over: last
	}
	slices.SortFunc(windows, func(a, b Window) int {
		return cmp.Or(begins(&a).Compare(begins(&b)), cmp.Compare(a.ID, b.ID))
	})
	return windows, nil
}

// Add takes a window in. The error is a *mail.Problem where the window is not one.
func (c *Calendar) Add(ctx context.Context, w Window) (Window, error) {
	if p := c.check(&w); p != nil {
		return Window{}, p
	}
	windows, err := c.List(ctx)
	if err != nil {
		return Window{}, err
	}
	if len(windows) >= windowsMost {
		return Window{}, invalid("", "There are as many windows as there may be: "+strconv.Itoa(windowsMost)+". Remove some.")
	}
	var b [8]byte
	rand.Read(b[:])
	w.ID, w.CreatedAt = "mnt_"+hex.EncodeToString(b[:]), c.now().UTC().Truncate(time.Second)
	value, err := json.Marshal(w)
	if err != nil {
		return Window{}, err
	}
	return w, c.store.Put(ctx, w.ID, value)
}

func (c *Calendar) check(w *Window) *mail.Problem {
	if len(w.Kinds) > windowKinds {
		return invalid("kinds", "Too many kinds.")
	}
	for _, k := range w.Kinds {
		if !slices.Contains(c.kinds(), k) {
			return invalid("kinds", "There is no such kind. There are: "+strings.Join(c.kinds(), ", ")+".")
		}
	}
	if len(w.Title) > windowTitle || strings.ContainsFunc(w.Title, isControl) {
		return invalid("title", "At most "+strconv.Itoa(windowTitle)+" bytes on one line.")
	}
	if w.Repeat != "" {
		if !w.From.IsZero() || !w.Until.IsZero() {
			return invalid("repeat", "A window is once, with from and until, or comes again: not both.")
		}
		if _, err := parseRepeat(w.Repeat); err != nil {
			return invalid("repeat", "It can't be read: "+err.Error()+".")
		}
		return nil
	}
	switch now := c.now(); {
	case w.From.IsZero() || w.Until.IsZero():
		return invalid("from", "Give from and until, or repeat.")
	case !w.Until.After(w.From):
		return invalid("until", "It ends before it begins.")
	case w.Until.Sub(w.From) > windowLong:
		return invalid("until", "A window lasts 7 days at most. For longer, pause the kind.")
	case !w.Until.After(now):
		return invalid("until", "This time has passed.")
	case w.From.Sub(now) > windowAhead:
		return invalid("from", "That is more than a year ahead.")
	}
	return nil
}

// Remove removes a window. One that is on ends with it.
func (c *Calendar) Remove(ctx context.Context, id string) error {
	if _, ok, err := c.store.Get(ctx, id); err != nil || !ok {
		return cmp.Or(err, ErrNotFound)
	}
	return c.store.Delete(ctx, id)
}

// Holds returns the kinds that windows hold back at a time, each with the window that
// holds it the longest.
func (c *Calendar) Holds(windows []Window, now time.Time) map[string]Occurrence {
	held := make(map[string]Occurrence)
	for i := range windows {
		o, ok := windows[i].Next(now)
		if !ok || !o.On {
			continue
		}
		kinds := windows[i].Kinds
		if len(kinds) == 0 {
			kinds = c.kinds()
		}
		for _, k := range kinds {
			if o.Until.After(held[k].Until) {
				held[k] = o
			}
		}
	}
	return held
}
