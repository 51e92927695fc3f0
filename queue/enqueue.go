package queue

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/deliverd/deliverd/mail"
)

const (
	// afterlife is how long past a message's expiry the store keeps its record, and
	// with it the sealed secret, if no deliverd runs to end it.
	afterlife = 72 * time.Hour
	// latestAfter is how long past expiry a supersede key is remembered: the clocks of
	// nodes may differ.
	latestAfter = time.Hour
	// unsaidMost stops intake while the event log takes nothing.
	unsaidMost = 100_000
	// unsaidMany slows intake down to the event log's pace, so that a crash leaves
	// little to be said again.
	unsaidMany = 4_000
)

// keyEntry is what DELIVERD_KEYS holds of an idempotency key.
type keyEntry struct {
	ID   mail.ID `json:"id"`
	Hash string  `json:"hash"` // of the request
}

// latestEntry is what DELIVERD_LATEST holds of a supersede key.
type latestEntry struct {
	ID    mail.ID   `json:"id"`
	At    time.Time `json:"at"` // its QueuedAt: ids of one millisecond are in no order
	Shard int       `json:"shard"`
	Until time.Time `json:"until"` // when no older message can be alive any more
}

// newerThan orders messages with one supersede key.
func (l *latestEntry) newerThan(m *mail.Message) bool {
	if c := l.At.Compare(m.QueuedAt); c != 0 {
		return c > 0
	}
	return l.ID > m.ID
}

// Enqueue takes a message. Nil means that it is safe (law 1): its record is durable,
// and so are the idempotency key that names it and the supersede key that points to
// it. An error is a *mail.Problem: ProblemConflict for a known idempotency key with
// another request hash, ProblemUnavailable when the store can't take it now. After
// ProblemUnavailable the message may yet be sent; a retry with the same idempotency
// key is answered with that one.
//
// The order is what makes a crash harmless. The record comes first: without it
// nothing may point to the message. Then the idempotency key and the supersede key,
// side by side. A shard's owner that finds a record whose keys are missing adds them
// itself (enter), so a crash leaves nothing, or one whole message.
func (q *Queue) Enqueue(ctx context.Context, m *mail.Message, requestHash [32]byte) (mail.Receipt, error) {
	if p := q.closedDoor(); p != nil {
		return mail.Receipt{}, p
	}
	for tries := 0; q.unsaid.count() > unsaidMany && tries < 100 && ctx.Err() == nil; tries++ {
		q.sleep(ctx, 5*time.Millisecond)
	}
	if m.IdempotencyKey != "" {
		unlock, err := q.keyLocks.lock(ctx, keyOf(m))
		if err != nil {
			return mail.Receipt{}, unavailable("the request was abandoned")
		}
		defer unlock()
		known, err := q.known(ctx, m)
		if known != nil || err != nil {
			return q.replay(ctx, m, known, requestHash, err)
		}
	}
	r := &record{Message: *m, State: mail.StateQueued, Due: m.QueuedAt}
	if m.IdempotencyKey != "" {
		r.Hash = hex.EncodeToString(requestHash[:])
	}
	if err := r.sealData(q.o.Seal, m.ExpiresAt.Add(afterlife)); err != nil {
		q.o.Log.Error("a message could not be sealed", "message", m.ID, "err", err)
		return mail.Receipt{}, unavailable("the message could not be sealed; the log of deliverd says why")
	}
	unlock, err := q.lockKey(ctx, m)
	if err != nil {
		return mail.Receipt{}, unavailable("the request was abandoned")
	}
	defer unlock()
	if newer, ok := q.newest.above(m); ok {
		r.SupersededBy = newer // late by the blink of an eye
	}
	sh := q.shardOf(m)
	q.enters.begin(m.ID)
	rev, err := q.create(sh, r)
	if err != nil {
		q.orphan(sh, m.ID)
		return mail.Receipt{}, q.storeProblem(err)
	}
	won, err := q.enter(ctx, r, sh.n)
	switch {
	case err != nil:
		q.orphan(sh, m.ID)
		return mail.Receipt{}, q.storeProblem(err)
	case won != nil: // another process was first with this idempotency key
		q.enters.forget(m.ID)
		q.discard(sh, r, rev)
		return q.replay(ctx, m, won, requestHash, nil)
	}
	q.entered(sh, r, rev)
	return mail.Receipt{ID: m.ID, Ref: m.Ref, State: mail.StateQueued}, nil
}

// closedDoor refuses at once what the store would only let time out.
func (q *Queue) closedDoor() *mail.Problem {
	if q.ctx.Err() != nil {
		return unavailable("the queue is closing")
	}
	if stream, _ := q.store.failing(); stream != "" {
		return unavailable("the store takes no writes")
	}
	if q.unsaid.count() > unsaidMost {
		return unavailable("the event log takes no writes")
	}
	return nil
}

func unavailable(detail string) *mail.Problem {
	return &mail.Problem{Type: mail.ProblemUnavailable, Title: "The message can't be taken now",
		Status: http.StatusServiceUnavailable, Detail: detail + "; try again with the same idempotency key", RetryAfter: 5}
}

func (q *Queue) storeProblem(err error) *mail.Problem {
	q.o.Log.Error("the store did not take a message", "err", err)
	return unavailable("the store did not confirm it")
}

// shardOf says where a message waits: by its domain, and the urgent ones by
// themselves in a stream after the others, where their writes meet no backlog's.
func (q *Queue) shardOf(m *mail.Message) *shard {
	last := len(q.shards) - 1
	if q.urgent(m) {
		return q.shards[last]
	}
	return q.shards[shardOf(m.To.Domain(), last)]
}

// keyOf is where an idempotency key is kept. A tenant's keys are its own: another's
// same key must neither conflict with it nor tell of it.
func keyOf(m *mail.Message) string { return hashKey(m.Tenant, m.Source, m.IdempotencyKey) }

// known looks an idempotency key up.
func (q *Queue) known(ctx context.Context, m *mail.Message) (*keyEntry, error) {
	e, err := q.store.get(ctx, bucketKeys, keyOf(m))
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	k := &keyEntry{}
	if err := json.Unmarshal(e.data, k); err != nil {
		return nil, errRecord
	}
	return k, nil
}

// replay answers a request whose idempotency key is known. The message that the key
// names has a record, or had one; its supersede key may still be missing if whoever
// wrote the two is not through with it, or died, and is seen to before the answer.
func (q *Queue) replay(ctx context.Context, m *mail.Message, k *keyEntry, hash [32]byte, err error) (mail.Receipt, error) {
	if err != nil {
		return mail.Receipt{}, q.storeProblem(err)
	}
	if k.Hash != hex.EncodeToString(hash[:]) {
		return mail.Receipt{}, &mail.Problem{Type: mail.ProblemConflict, Title: "The idempotency key was used for another request",
			Status: http.StatusConflict, Detail: "use a new key for a new request", Message: k.ID}
	}
	receipt := mail.Receipt{ID: k.ID, Ref: k.ID.Ref(), State: mail.StateQueued, Replayed: true}
	sh := q.shardOf(m) // the same request has the same recipient
	r, _, err := q.load(ctx, sh, k.ID)
	if errors.Is(err, ErrNotFound) {
		return receipt, nil
	}
	if err == nil {
		receipt.State = r.State
		if r.State == mail.StateQueued {
			_, err = q.enterAgain(ctx, r, sh.n)
		}
	}
	if err != nil {
		return mail.Receipt{}, q.storeProblem(err)
	}
	return receipt, nil
}

// create writes the first revision of a record.
func (q *Queue) create(sh *shard, r *record) (uint64, error) {
	w, err := q.recordWrite(sh, r, casCreate)
	if err != nil {
		return 0, err
	}
	w.urgent = q.urgent(&r.Message)
	return q.store.await(sh.bucket, w)
}

// urgent says whether a message's writes go before others'.
func (q *Queue) urgent(m *mail.Message) bool { return q.o.kind(m.Kind).Lane <= 1 }

// recordWrite makes the write of a record's next revision.
func (q *Queue) recordWrite(sh *shard, r *record, rev uint64) (*write, error) {
	b, err := r.encode()
	if err != nil {
		return nil, err
	}
	life := time.Until(r.Message.ExpiresAt) + afterlife
	if r.Kept {
		life -= afterlife
	}
	h := nats.Header{
		indexHeader: {r.index(q.session).encode()},
		headerKey:   {r.keyHeader()},
		headerTTL:   {ttl(life)},
	}
	return newWrite(sh.bucket, idKey(r.Message.ID), b, rev, h, nil), nil
}

// enter makes the idempotency key and the supersede key of a durable record point to
// it. It may be repeated, by any node. It returns the key's owner if that is another
// message: then this one was never accepted.
func (q *Queue) enter(ctx context.Context, r *record, shard int) (won *keyEntry, err error) {
	m := &r.Message
	if q.knowsAll() {
		if won, err = q.claim(ctx, m, r.Hash); won == nil && err == nil && m.SupersedeKey != "" {
			err = q.enterNewest(ctx, m)
		}
		return won, err
	}
	var older *latestEntry
	var rev uint64
	var raiseErr error
	raised := make(chan struct{})
	raise := func() {
		defer close(raised)
		older, rev, raiseErr = q.raise(ctx, m, shard)
	}
	switch {
	case m.SupersedeKey == "":
		close(raised)
	case m.IdempotencyKey == "":
		raise()
	default:
		go raise()
	}
	won, err = q.claim(ctx, m, r.Hash)
	<-raised
	if won != nil && rev != 0 {
		// Not accepted, so nothing may be superseded by it.
		q.lower(ctx, m, rev, older)
	}
	if err = errors.Join(err, raiseErr); err != nil || won != nil {
		return won, err
	}
	if q.o.Alone && m.SupersedeKey != "" {
		if err := q.enterNewest(ctx, m); err != nil {
			return nil, err
		}
	}
	switch {
	case older == nil:
	case older.newerThan(m):
		q.enters.supersede(m.ID) // late by the blink of an eye
	default:
		q.supersede(*older, m.ID)
	}
	return nil, nil
}

// claim makes the idempotency key this message's, and returns its owner if it is
// another's.
func (q *Queue) claim(ctx context.Context, m *mail.Message, hash string) (*keyEntry, error) {
	if m.IdempotencyKey == "" {
		return nil, nil
	}
	b, err := json.Marshal(keyEntry{ID: m.ID, Hash: hash})
	if err != nil {
		return nil, err
	}
	_, err = q.store.putAs(ctx, q.urgent(m), bucketKeys, keyOf(m), b, casCreate, nil)
	if !errors.Is(err, errConflict) {
		return nil, err
	}
	k, err := q.known(ctx, m)
	if err != nil {
		return nil, err
	}
	if k == nil {
		return nil, errConflict // it lapsed this very moment
	}
	if k.ID == m.ID {
		return nil, nil // our own write, found again after a crash
	}
	return k, nil
}

// raise makes m the newest of its supersede key unless a newer one is there. It
// returns the message that was there, unless it is m, and, if it wrote, the revision.
func (q *Queue) raise(ctx context.Context, m *mail.Message, shard int) (other *latestEntry, rev uint64, err error) {
	key := hashKey(m.SupersedeKey)
	for {
		have, at, err := q.latest(ctx, m.SupersedeKey)
		if err != nil {
			return nil, 0, err
		}
		mine := latestEntry{ID: m.ID, At: m.QueuedAt, Shard: shard, Until: m.ExpiresAt.Add(latestAfter)}
		switch {
		case have == nil:
		case have.ID == m.ID:
			return nil, 0, nil
		case have.newerThan(m):
			return have, 0, nil
		case have.Until.After(mine.Until):
			mine.Until = have.Until
		}
		b, err := json.Marshal(mine)
		if err != nil {
			return nil, 0, err
		}
		h := nats.Header{headerTTL: {ttl(time.Until(mine.Until))}}
		rev, err := q.store.putAs(ctx, q.urgent(m), bucketLatest, key, b, at, h)
		if !errors.Is(err, errConflict) {
			return have, rev, err
		}
	}
}

// lower takes a raise back, if nobody raised it further.
func (q *Queue) lower(ctx context.Context, m *mail.Message, rev uint64, to *latestEntry) {
	key := hashKey(m.SupersedeKey)
	if to == nil {
		_ = q.store.remove(ctx, bucketLatest, key, rev) // on failure accepted() sees through it
		return
	}
	if b, err := json.Marshal(to); err == nil {
		_, _ = q.store.putWith(ctx, bucketLatest, key, b, rev, nats.Header{headerTTL: {ttl(time.Until(to.Until))}})
	}
}

// latest reads a supersede key; nil and casCreate when there is none.
func (q *Queue) latest(ctx context.Context, supersedeKey string) (*latestEntry, uint64, error) {
	e, err := q.store.get(ctx, bucketLatest, hashKey(supersedeKey))
	if errors.Is(err, ErrNotFound) {
		return nil, casCreate, nil
	}
	if err != nil {
		return nil, 0, err
	}
	l := &latestEntry{}
	if err := json.Unmarshal(e.data, l); err != nil || l.Shard < 0 || l.Shard >= len(q.shards) {
		return nil, 0, errRecord
	}
	return l, e.seq, nil
}

// supersede sees to it that no attempt of an older message begins from now on. The
// older one's own look at the supersede key would find out as well; this makes it end
// now rather than when it is next due.
func (q *Queue) supersede(older latestEntry, by mail.ID) {
	if q.enters.supersede(older.ID) {
		return
	}
	if b, err := older.ID.Bytes(); err == nil && q.sched.mark(b, flagSuperseded) {
		return
	}
	sh := q.shards[older.Shard]
	if q.o.Alone || sh.ours() {
		return // not here and ours: it has ended
	}
	q.wg.Go(func() {
		err := q.wish(q.ctx, sh, older.ID, func(r *record) { r.SupersededBy = by })
		if err != nil && !errors.Is(err, ErrNotFound) {
			q.o.Log.Warn("an older message could not be marked superseded; its next attempt will see", "message", older.ID, "err", err)
		}
	})
}

// entered hands an accepted record to the owner of its shard, if that is here.
func (q *Queue) entered(sh *shard, r *record, rev uint64) {
	id, err := r.Message.ID.Bytes()
	if err != nil {
		return
	}
	ours := sh.ours()
	if ours {
		q.hot.put(r, rev)
		q.sayRevision(sh, r, rev) // before a worker can add to the story
	}
	q.enters.end(r.Message.ID, func(superseded bool) {
		if !ours {
			return
		}
		x := r.index(q.session)
		if superseded {
			x.wish |= flagSuperseded
		}
		q.sched.put(id, sh.n, rev, x)
	})
	// A shard won meanwhile skipped the record, as it was still entering. It is read
	// back, so that its supersede key is looked up: nobody could mark it till now.
	if !ours && sh.ours() {
		q.adopt(sh, r.Message.ID, 0)
	}
}

// discard removes a record that was not accepted.
func (q *Queue) discard(sh *shard, r *record, rev uint64) {
	w := newWrite(sh.bucket, idKey(r.Message.ID), nil, rev, marker(markerLife), func(uint64, error) {
		sh.said(rev) // if it is still there, whoever adopts it finds its key taken
	})
	q.store.add(sh.bucket, w)
}

// orphan looks after a record of which nobody knows whether it was written. Its
// sender was told that it is not safe; if it is there, it is entered all the same.
func (q *Queue) orphan(sh *shard, id mail.ID) {
	q.later(2*ackTimeout, func() {
		if stream, _ := q.store.failing(); stream != "" {
			q.orphan(sh, id)
			return
		}
		q.enters.forget(id)
		if sh.ours() {
			q.adopt(sh, id, 0)
		}
	})
}
