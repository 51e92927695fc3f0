package queue

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/deliverd/deliverd/mail"
)

const (
	// feedHeartbeat bounds how long a dead feed goes unnoticed: silence is not
	// emptiness.
	feedHeartbeat = time.Second
	feedExpiry    = 5 * time.Second
	feedAhead     = 4096
	// adoptMost bounds how many records are read at once for facts that a crash, or
	// another node's Enqueue, left unsaid.
	adoptMost = 32
)

// watch follows one shard's records, headers only, until ctx ends: first all that are
// there, then the changes.
func (q *Queue) watch(ctx context.Context, sh *shard, box *outbox, said uint64) {
	f := &feed{q: q, sh: sh, box: box, said: said, adopting: make(chan struct{}, adoptMost)}
	for tries := 0; ctx.Err() == nil; tries++ {
		began := f.next
		err := f.follow(ctx)
		if ctx.Err() != nil {
			break
		}
		if f.next > began { // it worked for a while: this is a new break
			tries = 0
		}
		q.o.Log.Warn("a shard's feed broke; following it again", "shard", sh.n, "err", err)
		q.sleep(ctx, backoff(tries))
	}
	for range adoptMost { // wait for those under way
		f.adopting <- struct{}{}
	}
}

// feed is one ownership's view of a shard.
type feed struct {
	q        *Queue
	sh       *shard
	box      *outbox
	said     uint64 // the mark when the ownership began
	started  bool
	next     uint64 // where to go on after a break
	adopting chan struct{}
}

func (f *feed) follow(ctx context.Context) error {
	st, err := f.q.store.js.Stream(ctx, kvStream(f.sh.bucket))
	if err != nil {
		return err
	}
	if !f.started {
		f.sh.base.Store(st.CachedInfo().State.LastSeq)
		f.started = true
	}
	c := jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{kvSubject(f.sh.bucket, "*")},
		HeadersOnly:    true,
		DeliverPolicy:  jetstream.DeliverAllPolicy,
	}
	if f.next > 0 {
		c.DeliverPolicy, c.OptStartSeq = jetstream.DeliverByStartSequencePolicy, f.next
	}
	cons, err := st.OrderedConsumer(ctx, c)
	if err != nil {
		return err
	}
	if info, err := cons.Info(ctx); err == nil && info.NumPending == 0 && info.Delivered.Consumer == 0 {
		f.caughtUp()
	}
	it, err := cons.Messages(jetstream.PullMaxMessages(feedAhead), jetstream.PullExpiry(feedExpiry), jetstream.PullHeartbeat(feedHeartbeat))
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, it.Stop)()
	defer it.Stop()
	for {
		m, err := it.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		f.seen(ctx, m, meta.Sequence.Stream)
		f.next = meta.Sequence.Stream + 1
		if meta.NumPending == 0 {
			f.caughtUp()
		}
	}
}

func (f *feed) caughtUp() {
	if f.sh.scanned.CompareAndSwap(false, true) {
		f.q.sched.wake()
	}
}

// seen takes in one revision.
func (f *feed) seen(ctx context.Context, m jetstream.Msg, rev uint64) {
	key := mail.ID(strings.TrimPrefix(m.Subject(), kvSubject(f.sh.bucket, "")))
	id, err := key.Bytes()
	if err != nil {
		f.box.saw(rev, false)
		return
	}
	h := m.Headers()
	if h.Get(kvOperation) != "" {
		f.box.saw(rev, false)
		f.q.sched.remove(id, rev)
		f.q.forget(key)
		return
	}
	x, err := decodeIndex(h.Get(indexHeader))
	if err != nil {
		f.box.saw(rev, false)
		f.q.o.Log.Error("a record of another version is left alone", "message", key, "err", err)
		return
	}
	ours := x.writer == f.q.session
	if ours && (rev > f.sh.base.Load() || f.q.enters.has(key)) {
		f.box.saw(rev, true) // whoever wrote it says it
		if _, here := f.q.sched.shardOf(id); !here && !x.state.Terminal() && !f.q.enters.has(key) {
			f.q.lookAgain(f.sh, key, rev)
		}
		return
	}
	if !x.state.Terminal() {
		f.q.scannedKey(ctx, id, h.Get(headerKey))
	}
	if rev <= f.said {
		f.box.saw(rev, false)
		if x.state.Terminal() {
			if x.wish&flagKept == 0 {
				f.q.bury(f.sh, key, rev, true)
			}
		} else {
			f.q.sched.put(id, f.sh.n, rev, x)
		}
		return
	}
	f.box.saw(rev, true)
	select {
	case f.adopting <- struct{}{}:
	case <-ctx.Done():
		return
	}
	f.q.wg.Go(func() {
		f.q.adopt(f.sh, key, rev)
		<-f.adopting
	})
}

// lookAgain sees after a while to a record that the feed came by and nothing here knows
// of. Mostly it has ended. But the feed may come from a replica that is ahead of the
// leader, which is asked for the record. And of those that this process wrote itself, a write
// that had no answer may happen long after its Enqueue gave up; and a store that has
// just come back may not tell of all that it has when it is asked for its last revision
// (base), so that what an earlier ownership accepted looks like what this one did.
func (q *Queue) lookAgain(sh *shard, id mail.ID, rev uint64) {
	q.later(2*ackTimeout, func() {
		b, err := id.Bytes()
		if _, here := q.sched.shardOf(b); err != nil || here || q.enters.has(id) || !sh.ours() {
			return
		}
		r, _, err := q.load(q.ctx, sh, id)
		if errors.Is(err, ErrNotFound) || err == nil && r.State.Terminal() {
			sh.said(rev) // by whoever ended it
			return
		}
		q.adopt(sh, id, rev)
	})
}

// adopt takes in a record that another process wrote, or this one before a crash: its
// keys are entered and its facts said, if they were not. rev is the revision that the
// feed saw, 0 if none.
func (q *Queue) adopt(sh *shard, id mail.ID, rev uint64) {
	for tries := 0; q.ctx.Err() == nil && sh.ours(); tries++ {
		err := q.tryAdopt(sh, id, rev)
		if err == nil {
			return
		}
		if tries == 3 {
			q.o.Log.Error("a message could not be taken over yet; trying again", "message", id, "err", err)
		}
		q.sleep(q.ctx, backoff(tries))
	}
}

func (q *Queue) tryAdopt(sh *shard, id mail.ID, rev uint64) error {
	r, at, err := q.load(q.ctx, sh, id)
	switch {
	case errors.Is(err, ErrNotFound) && rev > 0 && q.o.Replicas > 1:
		q.lookAgain(sh, id, rev)
		return nil
	case errors.Is(err, ErrNotFound), errors.Is(err, errRecord):
		sh.said(rev)
		if errors.Is(err, errRecord) {
			q.o.Log.Error("a record can't be read and is left alone", "message", id)
		}
		return nil
	case err != nil:
		return err
	}
	if newer, ok := q.newest.above(&r.Message); ok && r.SupersededBy == "" && !r.State.Terminal() {
		if err := q.outdate(q.ctx, id, newer); err != nil {
			return err
		}
		return q.tryAdopt(sh, id, rev) // as it is now
	}
	if r.State == mail.StateQueued {
		won, err := q.enterAgain(q.ctx, r, sh.n)
		if err != nil {
			return err
		}
		if won != nil {
			sh.said(rev)
			q.discard(sh, r, at)
			return nil
		}
	}
	b, err := id.Bytes()
	if err != nil {
		return err
	}
	q.sayRevision(sh, r, at) // before a worker can add to the story
	if rev != at {
		sh.said(rev)
	}
	if !r.State.Terminal() {
		q.sched.put(b, sh.n, at, r.index(q.session))
	}
	return nil
}

// sayRevision publishes what a revision brings, and buries the record after its last
// word.
func (q *Queue) sayRevision(sh *shard, r *record, rev uint64) {
	facts := r.Says
	if r.State == mail.StateQueued && len(facts) == 0 {
		facts = []mail.Event{r.last()}
	}
	q.say(facts, func() {
		sh.said(rev)
		if r.State.Terminal() {
			q.layToRest(sh, r, rev)
		}
	})
}

// burialLinger is how long a burial may wait for company; see appender.
const burialLinger = time.Second

// bury removes what is left of an ended message whose last word is in the log. What a
// crash leaves unburied the next owner's scan finds.
func (q *Queue) bury(sh *shard, id mail.ID, rev uint64, signed bool) {
	if signed {
		q.burySigned(sh, id)
	}
	w := newWrite(sh.bucket, idKey(id), nil, rev, marker(markerLife), func(_ uint64, err error) {
		if err != nil && !errors.Is(err, errConflict) {
			q.later(5*time.Second, func() { q.bury(sh, id, rev, signed) })
		}
	})
	w.lazy = burialLinger
	q.store.add(sh.bucket, w)
}

func (q *Queue) burySigned(sh *shard, id mail.ID) {
	w := newWrite(sh.bucket, signedKey(id), nil, casNone, marker(markerLife), func(uint64, error) {
		// Its own time to live ends it otherwise.
	})
	w.lazy = burialLinger
	q.store.add(sh.bucket, w)
}

// layToRest removes of an ended message what nobody may need any more.
func (q *Queue) layToRest(sh *shard, r *record, rev uint64) {
	switch {
	case !r.Kept:
		q.bury(sh, r.Message.ID, rev, r.Signed)
	case r.Signed:
		q.burySigned(sh, r.Message.ID)
	}
}

// load reads a record and its revision.
func (q *Queue) load(ctx context.Context, sh *shard, id mail.ID) (*record, uint64, error) {
	e, err := q.store.get(ctx, sh.bucket, idKey(id))
	if err != nil {
		return nil, 0, err
	}
	r, err := decodeRecord(e.data)
	if err != nil {
		return nil, 0, err
	}
	if r.Message.ID != id {
		return nil, 0, errRecord
	}
	if x, err := decodeIndex(e.header.Get(indexHeader)); err == nil {
		r.writer = x.writer
	}
	return r, e.seq, nil
}
