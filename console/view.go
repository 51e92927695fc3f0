package console

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// View is the read model: the event log folded into SQLite. Its methods are safe for
// concurrent use. [View.Follow] fills it; everything else reads.
type View struct {
	path string
	keep time.Duration
	now  func() time.Time
	log  *slog.Logger

	mu    sync.RWMutex // held for reading while store is in use, for writing to replace it
	store *store

	hub    hub
	rarity rarity
	// damage wakes Follow when a reader met a damaged file.
	damage chan struct{}
}

// ViewOptions are the options of [OpenView].
type ViewOptions struct {
	// Path is the database's file; "" keeps it in memory.
	Path string
	// Keep is how long events are kept, and messages after their last event. 0 means
	// 90 days, which is also the event log's own retention.
	Keep time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Log is told of rebuilding and of trouble with the log; nil means silence.
	Log *slog.Logger
}

// Log is the event log, as a View follows it.
type Log struct {
	// Events yields the events after a place in their order and then waits for new
	// ones until ctx ends. An error with a place says that the event there can't be
	// read; one without ends it, and the View asks again.
	Events func(ctx context.Context, after uint64) iter.Seq2[mail.LoggedEvent, error]
	// Bounds returns the places of the oldest and the newest event that the log holds,
	// 0 and 0 when it is empty. It tells the View whether it still fits the log. Nil
	// where that can't be known.
	Bounds func(ctx context.Context) (first, last uint64, err error)
}

const (
	defaultKeep = 90 * 24 * time.Hour
	// batchSize events share one transaction when many are waiting.
	batchSize = 1000
	// leisure is how long events are gathered for one transaction while nobody waits for
	// them: a transaction costs as much as ten events. Whoever begins to wait ends it.
	leisure = 100 * time.Millisecond
	// pruneEvery: retention is counted in days, so an hour late is nothing.
	pruneEvery = time.Hour
	// retryFirst and retryMost bound the wait before a log that failed is asked again.
	retryFirst = 100 * time.Millisecond
	retryMost  = 10 * time.Second
)

// errDamaged ends following so that the view is rebuilt.
var errDamaged = errors.New("the view is damaged")

// OpenView opens the view, and makes an empty one where there is none, where the
// file is damaged or where it has another schema. Close it after Follow has
// returned.
func OpenView(ctx context.Context, o ViewOptions) (*View, error) {
	if o.Keep <= 0 {
		o.Keep = defaultKeep
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s, err := openStore(ctx, o.Path)
	if err != nil {
		return nil, err
	}
	v := &View{path: o.Path, keep: o.Keep, now: o.Now, log: o.Log, store: s, hub: newHub(), damage: make(chan struct{}, 1)}
	place, err := s.place(ctx)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	v.hub.moveTo(place)
	return v, nil
}

// Close closes the view. Nothing may use it afterwards.
func (v *View) Close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.store.Close()
}

// Follow reads the log from where the view stands and then as it grows, until ctx
// ends; then it returns nil. Trouble is logged and tried again. One call at a time.
func (v *View) Follow(ctx context.Context, log Log) error {
	wait := retryFirst
	for ctx.Err() == nil {
		began := v.hub.place()
		err := v.follow(ctx, log)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errDamaged) || damaged(err) {
			v.log.Warn("the view is damaged and is rebuilt from the event log", "error", err)
			if err := v.rebuild(ctx); err != nil {
				return err
			}
			continue
		}
		if v.hub.place() != began {
			wait = retryFirst
		}
		v.log.Warn("following the event log was interrupted", "error", err, "again_in", wait)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, retryMost)
	}
	return nil
}

// follow is one go at the log.
func (v *View) follow(ctx context.Context, log Log) error {
	if err := v.fit(ctx, log); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var pump sync.WaitGroup
	defer pump.Wait()
	defer cancel()

	events := make(chan mail.LoggedEvent, batchSize)
	ended := make(chan error, 1)
	after := v.hub.place()
	pump.Go(func() {
		ended <- v.pump(ctx, log.Events(ctx, after), events)
		close(events)
	})

	prune := time.NewTicker(pruneEvery)
	defer prune.Stop()
	if err := v.prune(ctx); err != nil {
		return err
	}
	for {
		select {
		case e, ok := <-events:
			if !ok {
				return <-ended
			}
			if err := v.apply(ctx, v.gather(ctx, events, e)); err != nil {
				return err
			}
		case <-prune.C:
			if err := v.prune(ctx); err != nil {
				return err
			}
		case <-v.damage:
			return errDamaged
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

var errLogEnded = errors.New("the event log ended")

// pump passes events on. One that can't be read is passed on as a place alone, which
// the view moves past.
func (v *View) pump(ctx context.Context, log iter.Seq2[mail.LoggedEvent, error], events chan<- mail.LoggedEvent) error {
	for e, err := range log {
		switch {
		case err != nil && e.Seq == 0:
			return err
		case err != nil:
			v.log.Warn("an event that can't be read is left out of the view", "error", err)
			e.Event = mail.Event{}
		}
		select {
		case events <- e:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return errLogEnded
}

// gather returns first and whatever else comes while nobody waits for it, up to a
// batch.
func (v *View) gather(ctx context.Context, events <-chan mail.LoggedEvent, first mail.LoggedEvent) []mail.LoggedEvent {
	batch := []mail.LoggedEvent{first}
	// What is there already costs no wait.
	for len(batch) < batchSize && len(events) > 0 {
		batch = append(batch, <-events)
	}
	select {
	case <-v.hub.wanted: // from before: somebody who may be gone
	default:
	}
	if !v.hub.idle() {
		return batch
	}
	enough := time.NewTimer(leisure)
	defer enough.Stop()
	for len(batch) < batchSize {
		select {
		case e, ok := <-events:
			if !ok {
				return batch
			}
			batch = append(batch, e)
		case <-v.hub.wanted:
			return batch
		case <-enough.C:
			return batch
		case <-ctx.Done():
			return batch
		}
	}
	return batch
}

// fit rebuilds the view if the log isn't the one that it was made from, or has
// dropped events that we never saw.
func (v *View) fit(ctx context.Context, log Log) error {
	place := v.hub.place()
	if log.Bounds == nil || place == 0 {
		return nil
	}
	first, last, err := log.Bounds(ctx)
	if err != nil {
		return err
	}
	fits := place <= last && place+1 >= first
	if fits {
		if fits, err = v.sameLog(ctx, log); err != nil {
			return err
		}
	}
	if fits {
		return nil
	}
	v.log.Info("the view does not fit the event log and is rebuilt", "place", place, "first", first, "last", last)
	return v.rebuild(ctx)
}

// sameLog compares our newest event with the log's at its place: a log that was
// begun anew, and has grown past our place meanwhile, has another one there.
func (v *View) sameLog(ctx context.Context, log Log) (bool, error) {
	ours, err := v.events(ctx, "seq = (SELECT max(seq) FROM events)")
	if err != nil || len(ours) == 0 {
		return true, err
	}
	for e, err := range log.Events(ctx, ours[0].Seq-1) {
		return err == nil && e.Seq == ours[0].Seq && factID(e) == ours[0].ID, err
	}
	return false, ctx.Err()
}

// rebuild replaces the store by an empty one.
func (v *View) rebuild(ctx context.Context) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.store.Close() // what it says of a damaged file is of no use
	if v.path != "" {
		if err := removeStore(v.path); err != nil {
			return err
		}
	}
	s, err := openStore(ctx, v.path)
	if err != nil {
		return err
	}
	v.store = s
	v.hub.moveTo(0)
	select { // a reader may have met the old file's damage meanwhile
	case <-v.damage:
	default:
	}
	return nil
}

// Place returns the log's place up to which events are in the view.
func (v *View) Place() uint64 { return v.hub.place() }

// CatchUp waits until the event at seq is in the view, so that a caller reads what
// it wrote. It returns ctx's error if that takes too long.
func (v *View) CatchUp(ctx context.Context, seq uint64) error {
	for {
		moved := v.hub.moved()
		if v.hub.place() >= seq {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Wait waits until the message's state satisfies until, and returns it. When ctx
// ends first it returns the state as it is, "" for a message never heard of, and
// ctx's error.
func (v *View) Wait(ctx context.Context, id mail.ID, until func(mail.State) bool) (mail.State, error) {
	touched, done := v.hub.watch(id)
	defer done()
	var state mail.State
	for {
		switch sum, err := v.Summary(ctx, id); {
		case err == nil && until(sum.State):
			return sum.State, nil
		case err == nil:
			state = sum.State
		case ctx.Err() != nil:
			return state, ctx.Err()
		case !errors.Is(err, ErrNotFound) && !damaged(err): // a damaged view is being rebuilt
			return "", err
		}
		select {
		case <-touched:
		case <-ctx.Done():
			return state, ctx.Err()
		}
	}
}
