package daemon

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/deliverd/deliverd/console"
)

const (
	// maintenanceLook is how often the clock is held against the windows, and
	// maintenanceRead how often they are read: another node may have changed them.
	maintenanceLook = time.Second
	maintenanceRead = 10 * time.Second
)

// openMaintenance holds back what maintenance windows say, from before the first
// attempt on. Each node does so by itself, from what all of them read.
func (d *Daemon) openMaintenance(ctx context.Context) error {
	shared, err := d.queue.Shared(ctx, "maintenance")
	if err != nil {
		return err
	}
	kinds := slices.Sorted(maps.Keys(d.config.kinds()))
	changed := make(chan struct{}, 1)
	d.calendar = console.NewCalendar(changingStore{tokenStore{shared}, changed}, func() []string { return kinds }, nil)
	windows, err := d.calendar.List(ctx)
	if err != nil {
		return err
	}
	if err := d.hold(ctx, windows); err != nil {
		return err
	}
	d.start("maintenance windows", func(ctx context.Context) { d.keepWindows(ctx, windows, changed) })
	return nil
}

// keepWindows begins and ends windows at their times.
func (d *Daemon) keepWindows(ctx context.Context, windows []console.Window, changed <-chan struct{}) {
	tick := time.NewTicker(maintenanceLook)
	defer tick.Stop()
	for read := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			read = time.Time{}
		case <-tick.C:
		}
		if time.Since(read) >= maintenanceRead {
			now, err := d.calendar.List(ctx)
			if err == nil {
				windows = now
			} else if ctx.Err() == nil {
				d.log.Warn("the maintenance windows can't be read; those that were known stay", "error", err)
			}
			read = time.Now()
		}
		if err := d.hold(ctx, windows); err != nil && ctx.Err() == nil {
			d.log.Error("a maintenance window could not be begun or ended; trying again", "error", err)
		}
	}
}

// hold brings the queue to what the windows say, and notes what changes by it.
func (d *Daemon) hold(ctx context.Context, windows []console.Window) error {
	now := d.calendar.Holds(windows, time.Now())
	var before map[string]console.Occurrence
	if held := d.held.Load(); held != nil {
		before = *held
	}
	if maps.EqualFunc(now, before, func(a, b console.Occurrence) bool { return a.From.Equal(b.From) && a.Until.Equal(b.Until) }) {
		return nil
	}
	var selectors []string
	for _, kind := range slices.Sorted(maps.Keys(now)) {
		selectors = append(selectors, "kind:"+kind)
	}
	if err := d.queue.Hold(ctx, selectors); err != nil {
		return err
	}
	d.held.Store(&now)
	for kind, o := range now {
		if _, was := before[kind]; !was {
			d.notice("maintenance.begin", "kind:"+kind, "held back until "+o.Until.UTC().Format(time.RFC3339))
		}
	}
	for kind := range before {
		if _, is := now[kind]; !is {
			d.notice("maintenance.end", "kind:"+kind, "what was held back is sent")
		}
	}
	return nil
}

// heldUntil says until when maintenance holds a kind back, zero if it does not.
func (d *Daemon) heldUntil(kind string) time.Time {
	if held := d.held.Load(); held != nil {
		return (*held)[kind].Until
	}
	return time.Time{}
}

// changingStore tells of changes.
type changingStore struct {
	tokenStore
	changed chan<- struct{}
}

func (s changingStore) Put(ctx context.Context, key string, value []byte) error {
	defer s.tell()
	return s.tokenStore.Put(ctx, key, value)
}

func (s changingStore) Delete(ctx context.Context, key string) error {
	defer s.tell()
	return s.tokenStore.Delete(ctx, key)
}

func (s changingStore) tell() {
	select {
	case s.changed <- struct{}{}:
	default: // it is being told already
	}
}
