package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"github.com/deliverd/deliverd/mail"
)

const (
	// panicsMost is how many attempts of one message may panic before it is refused.
	panicsMost = 3
	// localCap is the longest wait after a failure of our own.
	localCap = time.Minute
	// doubtWait is when a message is looked at again that the clock may or may not have
	// expired.
	doubtWait = 5 * time.Second
)

// Work takes what is due, most urgent first, and hands each message to attempt. When
// taking ends it takes no more and returns as soon as the attempts under way have
// ended and their outcomes are safe. working is the attempts' context: its end tells
// them to hurry, and an attempt that it interrupts does not count. An attempt that
// panics is caught.
func (q *Queue) Work(taking, working context.Context, attempt func(context.Context, *mail.Attempt) mail.Outcome) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	idle := time.NewTimer(0)
	defer idle.Stop()
	for taking.Err() == nil {
		if q.ctx.Err() != nil {
			return errors.New("queue: closed while working")
		}
		var wait time.Duration
		if q.closedDoor() != nil {
			// An outcome could not be recorded: what is not begun can't be sent twice.
			wait = time.Second
		} else {
			now, _ := q.clock.now()
			t, w, ok := q.sched.take(now)
			if ok {
				wg.Go(func() { (&hand{q: q, t: t, sh: q.shards[t.shard], attempt: attempt}).run(working) })
				continue
			}
			wait = w
		}
		idle.Reset(min(wait, time.Minute)) // the clock may be corrected meanwhile
		select {
		case <-q.sched.wakeup:
		case <-idle.C:
		case <-taking.Done():
		case <-q.ctx.Done():
		}
	}
	return nil
}

// hand is one message in a worker's hands.
type hand struct {
	q       *Queue
	t       taken
	sh      *shard
	attempt func(context.Context, *mail.Attempt) mail.Outcome
	r       *record
	rev     uint64
	// turnedBack: its destination turned out to have no room.
	turnedBack bool
}

// run does one thing with the message: ends it, or tries it once.
func (h *hand) run(ctx context.Context) {
	if !h.sh.owned(h.q.mono()) || h.sh.leaving.Load() {
		h.again(time.Second) // until it is ours again, or dropped
		return
	}
	if !h.read(ctx) {
		return
	}
	state, other, err := h.verdict(ctx)
	switch {
	case err != nil:
		h.postpone(ctx, err)
	case state != "":
		h.finish(h.decided(state, other))
	case h.t.ending: // the wish was taken back
		h.q.sched.unmark(h.t)
		h.again(0)
	default:
		h.try(ctx)
	}
}

// read loads the record; without one there is nothing to do.
func (h *hand) read(ctx context.Context) bool {
	id := mail.IDFromBytes(h.t.id)
	if h.r = h.q.hot.take(id, h.t.rev); h.r != nil {
		h.rev = h.t.rev
		return true
	}
	var err error
	h.r, h.rev, err = h.q.load(h.q.ctx, h.sh, id)
	switch {
	case errors.Is(err, ErrNotFound), errors.Is(err, errRecord):
		h.q.o.Log.Error("a waiting message's record is missing or damaged", "message", id, "err", err)
		h.gone(id)
		return false
	case err != nil:
		h.postpone(ctx, err)
		return false
	case h.r.State.Terminal():
		h.gone(id) // ended by another owner, which says so
		return false
	}
	return true
}

// gone lets go of a message that does not wait here any more.
func (h *hand) gone(id mail.ID) {
	h.q.forget(id)
	h.q.sched.done(h.t)
}

// again gives the message back as it was, to be due after a while.
func (h *hand) again(after time.Duration) {
	now, _ := h.q.clock.now()
	h.returned(h.q.sched.again(h.t, now.Add(after)))
}

// returned takes the message in afresh that the scheduler did not keep: its shard was
// lost while it was in hand, and may be ours once more. That ownership's feed has left
// it to us.
func (h *hand) returned(kept bool) {
	if kept {
		return
	}
	h.q.forget(mail.IDFromBytes(h.t.id))
	if h.sh.ours() {
		h.q.adopt(h.sh, mail.IDFromBytes(h.t.id), 0)
	}
}

// postpone gives the message back after a fault of the store's.
func (h *hand) postpone(ctx context.Context, err error) {
	h.q.o.Log.Warn("a message has to wait for the store", "message", mail.IDFromBytes(h.t.id), "err", err)
	h.q.sleep(ctx, time.Second) // with the slot: nobody else would fare better
	h.again(time.Second)
}

// verdict says whether the message ends without another attempt, and by which other
// message.
func (h *hand) verdict(ctx context.Context) (state mail.State, other mail.ID, err error) {
	m := &h.r.Message
	if h.r.Cancel != nil {
		return mail.StateCancelled, "", nil
	}
	if h.r.SupersededBy != "" {
		return mail.StateSuperseded, h.r.SupersededBy, nil
	}
	if other, err = h.newer(h.q.ctx); err != nil || other != "" {
		return mail.StateSuperseded, other, err
	}
	if now, _ := h.q.clock.now(); !now.Before(m.ExpiresAt) {
		return mail.StateExpired, "", nil
	}
	if h.q.suppressions.has(m.Tenant, m.To) {
		return mail.StateSuppressed, "", nil
	}
	return "", "", nil
}

// newer returns the accepted message that takes this one's place, "" if none does. A
// message that this process took in is told by Enqueue itself when no other process
// can enqueue; any other looks into the store before every attempt (law 4).
func (h *hand) newer(ctx context.Context) (mail.ID, error) {
	m := &h.r.Message
	if m.SupersedeKey == "" {
		return "", nil
	}
	told := h.q.sched.flagsOf(h.t.id)&flagSuperseded != 0
	if h.q.o.Alone && h.r.writer == "" && !told {
		return "", nil
	}
	l, rev, err := h.q.latest(ctx, m.SupersedeKey)
	if err != nil || l == nil || !l.newerThan(m) {
		return "", err
	}
	real, err := h.q.accepted(ctx, *l)
	if err != nil {
		return "", err
	}
	if !real {
		h.q.lower(ctx, m, rev, &latestEntry{ID: m.ID, At: m.QueuedAt, Shard: h.sh.n, Until: l.Until})
		return "", nil
	}
	return l.ID, nil
}

// accepted says whether the message that a supersede key names was accepted. The
// loser of a race for an idempotency key, in a process that died before it could take
// the supersede key back, was not.
func (q *Queue) accepted(ctx context.Context, l latestEntry) (bool, error) {
	r, _, err := q.load(ctx, q.shards[l.Shard], l.ID)
	if errors.Is(err, ErrNotFound) {
		return true, nil // it has ended
	}
	if err != nil {
		return false, err
	}
	if r.Message.IdempotencyKey == "" || r.State != mail.StateQueued {
		return true, nil
	}
	k, err := q.known(ctx, &r.Message)
	if err != nil {
		return false, err
	}
	return k == nil || k.ID == l.ID, nil
}

// decided is the event of a message that ends without another attempt.
func (h *hand) decided(state mail.State, other mail.ID) mail.Event {
	now, _ := h.q.clock.now()
	e := mail.NewEvent(&h.r.Message, state, h.r.Attempts, now)
	e.Cause, e.Other = causeOf(state), other
	e.PossibleDuplicate = h.q.doubtful(h) // it may have been handed over as well
	if state == mail.StateCancelled && h.r.Cancel != nil {
		e.By, e.Reason = h.r.Cancel.By, h.r.Cancel.Reason
	}
	return e
}

// try makes one attempt.
func (h *hand) try(ctx context.Context) {
	_, latest := h.q.clock.now()
	if !latest.Before(h.r.Message.ExpiresAt) {
		h.again(doubtWait)
		return
	}
	a, err := h.open()
	if err != nil {
		h.local(ctx, "the message can't be opened: "+err.Error())
		return
	}
	doubt := h.q.doubtful(h)
	if doubt && h.q.o.kind(h.r.Message.Kind).AtMostOnce {
		h.outcome(mail.Outcome{State: mail.StateDelayed, Cause: mail.CauseUnknown, PossibleDuplicate: true,
			Evidence: mail.Evidence{Error: "deliverd was stopped during an attempt, whose end nobody knows"}})
		return
	}
	end := h.q.journal.begin(h.r.Message.ID)
	defer end()
	a.Enter = h.enter
	o := h.call(ctx, a)
	now, _ := h.q.clock.now()
	h.q.sched.feedback(h.t, &o, now)
	o.PossibleDuplicate = o.PossibleDuplicate || doubt
	switch o.State {
	case "":
		if h.turnedBack {
			h.again(0) // to wait where it belongs
			return
		}
		h.local(ctx, o.Local)
	case mail.StateExpired, mail.StateSuperseded, mail.StateCancelled:
		h.stopped(ctx, o.State)
	default:
		h.outcome(o)
	}
}

// open makes the attempt.
func (h *hand) open() (*mail.Attempt, error) {
	m, err := h.r.openData(h.q.o.Seal)
	if err != nil {
		return nil, err
	}
	a := &mail.Attempt{Message: m, Number: h.r.Attempts + 1, Lane: h.q.o.kind(m.Kind).Lane, Proceed: h.proceed}
	if !h.r.Signed {
		return a, nil
	}
	e, err := h.q.store.get(h.q.ctx, h.sh.bucket, signedKey(m.ID))
	if errors.Is(err, ErrNotFound) {
		return a, nil // a crash came before it was written: signed afresh
	}
	if err != nil {
		return nil, err
	}
	a.Signed, err = h.q.o.Seal.Open(m.ID, fieldSigned, e.data)
	return a, err
}

// proceed is Attempt.Proceed.
func (h *hand) proceed() error {
	now, latest := h.q.clock.now()
	f := h.q.sched.flagsOf(h.t.id)
	switch exp := h.r.Message.ExpiresAt; {
	case !now.Before(exp):
		return mail.ErrExpired
	case !latest.Before(exp), !h.sh.owned(h.q.mono()):
		return mail.ErrInterrupted
	case f&flagCancelled != 0:
		return mail.ErrCancelled
	case f&flagSuperseded != 0:
		return mail.ErrSuperseded
	}
	return nil
}

// enter is Attempt.Enter.
func (h *hand) enter(destination string) error {
	now, _ := h.q.clock.now()
	h.turnedBack = destination != "" && !h.q.sched.enter(h.t, destination, now)
	if h.turnedBack {
		return mail.ErrNoRoom
	}
	return nil
}

// call runs the attempt; a panic is an outcome of our own.
func (h *hand) call(ctx context.Context, a *mail.Attempt) (o mail.Outcome) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		// The panic's value may hold what the message holds; its type and the stack do not.
		h.q.o.Log.Error("an attempt panicked", "message", a.Message.ID, "type", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
		o = mail.Outcome{Local: "the attempt failed by a fault in deliverd"}
		if h.q.count(h.q.panics, a.Message.ID) >= panicsMost {
			o = mail.Outcome{State: mail.StateRefused, Cause: mail.CauseUnknown,
				Evidence: mail.Evidence{Error: fmt.Sprintf("deliverd failed %d times on this message", panicsMost)}}
		}
	}()
	return h.attempt(ctx, a)
}

// local gives the message back after an attempt that does not count.
func (h *hand) local(ctx context.Context, why string) {
	if ctx.Err() != nil {
		h.again(0)
		return
	}
	n := h.q.count(h.q.locals, h.r.Message.ID)
	wait := min(time.Second<<min(n-1, 10), localCap)
	wait += rand.N(wait / jitterPart)
	h.q.o.Log.Warn("an attempt did not count", "message", h.r.Message.ID, "why", why, "again_in", wait)
	h.again(wait)
}

// stopped ends a message whose attempt was stopped by Proceed. What it said then is
// looked at again: the store may say otherwise now.
func (h *hand) stopped(ctx context.Context, said mail.State) {
	if said == mail.StateExpired {
		if now, _ := h.q.clock.now(); now.Before(h.r.Message.ExpiresAt) {
			h.again(doubtWait)
			return
		}
		h.finish(h.decided(said, ""))
		return
	}
	// A wish: it is in the record, or the newer message in the supersede key.
	h.again(0)
}

// outcome records what an attempt that counts came to.
func (h *hand) outcome(o mail.Outcome) {
	m := &h.r.Message
	now, _ := h.q.clock.now()
	st := next(m, h.q.o.kind(m.Kind), h.r.Attempts+1, o, now, rand.Float64())
	if st.event.State.Terminal() {
		h.finish(st.event)
		return
	}
	h.delay(st, o.Signed)
}

// finish writes the terminal event into the record, whose secret is dropped with it
// unless the same message may be sent again.
func (h *hand) finish(e mail.Event) {
	keep := h.q.keepsData(&h.r.Message, e.State)
	ok := h.save(func(r *record) {
		r.State, r.Attempts, r.Kept = e.State, e.Attempt, keep
		if !keep {
			r.sealed = nil
		}
		r.Says = append(h.q.unsaid.of(r.Message.ID), e)
	})
	h.q.newest.leave(&h.r.Message)
	h.q.forget(h.r.Message.ID)
	h.q.journal.settled(h.r.Message.ID)
	h.q.sched.done(h.t)
	if !ok {
		h.returned(false)
		return
	}
	h.q.sayNew(h.sh, h.r, h.rev, []mail.Event{e})
}

// delay writes when the message is tried again. The signed bytes are written once,
// before the record that says that they are there.
func (h *hand) delay(st step, signed []byte) {
	facts := []mail.Event{st.event}
	if st.atRisk && !h.r.AtRisk {
		e := mail.NewEvent(&h.r.Message, mail.EventAtRisk, st.event.Attempt, st.event.At)
		e.Cause, e.NextAttempt = st.event.Cause, st.event.NextAttempt
		facts = append(facts, e)
	}
	keep := h.r.Signed || h.keepSigned(signed)
	ok := h.save(func(r *record) {
		r.State, r.Attempts, r.Due, r.Signed = mail.StateDelayed, st.event.Attempt, st.due, keep
		r.AtRisk = r.AtRisk || len(facts) > 1
		r.Says = append(h.q.unsaid.of(r.Message.ID), facts...)
	})
	h.q.forget(h.r.Message.ID)
	h.q.journal.settled(h.r.Message.ID)
	if !ok {
		h.q.sched.done(h.t)
		h.returned(false)
		return
	}
	h.q.sayNew(h.sh, h.r, h.rev, facts)
	h.returned(h.q.sched.back(h.t, h.rev, h.r.index(h.q.session)))
}

// keepSigned queues the write of the signed bytes, ahead of the record's in the same
// stream.
func (h *hand) keepSigned(signed []byte) bool {
	if signed == nil {
		return false
	}
	m := &h.r.Message
	b, err := h.q.o.Seal.Seal(m.ID, fieldSigned, signed, m.ExpiresAt.Add(afterlife))
	if err != nil {
		h.q.o.Log.Error("signed bytes could not be sealed", "message", m.ID, "err", err)
		return false
	}
	header := marker(time.Until(m.ExpiresAt) + afterlife)
	delete(header, kvOperation)
	h.q.store.add(h.sh.bucket, newWrite(h.sh.bucket, signedKey(m.ID), b, casNone, header, func(_ uint64, err error) {
		if err != nil {
			h.q.o.Log.Warn("signed bytes were not kept; the next attempt signs afresh", "message", m.ID, "err", err)
		}
	}))
	return true
}

// save writes the record's next revision, and tries until the store has answered: an
// outcome that is not recorded is repeated. False means that the message is another
// owner's now, or that the queue closed.
func (h *hand) save(change func(*record)) bool {
	id := h.r.Message.ID
	for tries := 0; ; tries++ {
		r := *h.r
		change(&r)
		w, err := h.q.recordWrite(h.sh, &r, h.rev)
		if err != nil {
			h.q.o.Log.Error("a record can't be written", "message", id, "err", err)
			return false
		}
		rev, err := h.q.store.await(h.sh.bucket, w)
		if err == nil {
			h.r, h.rev = &r, rev
			return true
		}
		if !errors.Is(err, errConflict) {
			h.q.o.Log.Warn("an outcome could not be recorded; trying again", "message", id, "err", err)
			if !h.q.sleep(h.q.ctx, backoff(tries)) {
				return false
			}
		}
		// Whoever changed the record: what does it say now?
		now, at, err := h.q.load(h.q.ctx, h.sh, id)
		switch {
		case errors.Is(err, ErrNotFound):
			return false
		case err != nil:
			if !h.q.sleep(h.q.ctx, backoff(tries)) {
				return false
			}
		case at == h.rev: // the write did not happen
		case now.writer == h.q.session && now.State == r.State && now.Attempts == r.Attempts && now.Due.Equal(r.Due):
			h.r, h.rev = &r, at // it did, though the answer was lost
			return true
		case now.State.Terminal() || now.Attempts > h.r.Attempts || !h.sh.owned(h.q.mono()):
			h.q.o.Log.Warn("another node has a message that was tried here", "message", id)
			return false
		default: // a wish was added
			h.r, h.rev = now, at
		}
	}
}

// sayNew publishes the facts that this process has just written into a record. Older
// ones that the record carries along are on their way; a record is buried only when
// they have arrived as well.
func (q *Queue) sayNew(sh *shard, r *record, rev uint64, facts []mail.Event) {
	var said func()
	said = func() {
		if q.unsaid.has(r.Message.ID) {
			q.later(50*time.Millisecond, said)
			return
		}
		sh.said(rev)
		if r.State.Terminal() {
			q.layToRest(sh, r, rev)
		}
	}
	q.say(facts, said)
}
