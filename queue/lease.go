package queue

import (
	"context"
	"errors"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/deliverd/deliverd/mail"
)

// shard is one part of the waiting messages. One node at a time owns it, by a lease:
// a key with a time to live in DELIVERD_LEASES that the owner renews by
// compare-and-set.
type shard struct {
	n      int
	bucket string
	key    string // of its lease

	// deadline is until when it is ours, on the monotonic clock of Queue.mono; 0 if it
	// is not. It is counted from before the lease was written, so that it passes before
	// the lease can be another's.
	deadline atomic.Int64
	// doubt is when the shard was taken from a node that did not give it up in order, in
	// Unix milliseconds; 0 if it did. See Queue.doubtful.
	doubt atomic.Int64
	// base is the last revision before this ownership: what came later no earlier owner
	// can have tried. The largest until it is known.
	base atomic.Uint64
	// leaving: it goes to another node as soon as no attempt is under way, and none
	// begins.
	leaving atomic.Bool

	mu    sync.Mutex
	box   *outbox // guarded by mu: of the present ownership, nil if it is not ours
	saved uint64  // guarded by mu: the mark in the store

	// The fields below belong to keepLeases.
	rev     uint64 // of the lease
	stop    context.CancelFunc
	feed    sync.WaitGroup
	scanned atomic.Bool
}

// owned says whether the lease surely is ours at this time: what an attempt asks.
func (sh *shard) owned(mono time.Duration) bool { return int64(mono) < sh.deadline.Load() }

// ours says whether this node follows the shard. A lease that lapsed for a moment, on
// a machine that is too busy to renew it in time, and was renewed before another node
// took it, changes nothing.
func (sh *shard) ours() bool { return sh.outbox() != nil }

func (sh *shard) outbox() *outbox {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.box
}

// said notes that the facts of one revision are in the event log.
func (sh *shard) said(rev uint64) {
	if box := sh.outbox(); box != nil {
		box.said(rev)
	}
}

// mono is the time since the queue was opened, by the monotonic clock.
func (q *Queue) mono() time.Duration { return time.Since(q.start) }

// keepLeases takes, renews and loses leases until the queue closes.
func (q *Queue) keepLeases() {
	for {
		fair := len(q.shards)
		if !q.o.Alone {
			fair = q.fairShare()
		}
		owned := 0
		for _, sh := range q.shards {
			if sh.stop != nil && !sh.leaving.Load() {
				owned++
			}
		}
		for _, sh := range q.shards {
			switch {
			case sh.stop != nil:
				if !sh.leaving.Load() && owned > fair {
					owned--
					q.leave(sh)
				}
				q.renew(sh)
			case owned < fair:
				if q.acquire(sh) {
					owned++
				}
			}
		}
		wait := q.o.Lease / 3
		if owned < fair {
			wait = min(wait, time.Second)
		}
		if !q.sleep(q.ctx, wait) {
			break
		}
	}
	for _, sh := range q.shards {
		if sh.stop != nil {
			sh.stop()
			sh.feed.Wait()
		}
	}
}

// fairShare says that this node is alive and returns how many shards are its part.
func (q *Queue) fairShare() int {
	h := nats.Header{headerTTL: {ttl(q.o.Lease)}}
	if _, err := q.store.putWith(q.ctx, bucketLeases, "node."+nodeToken(q.o.Node), nil, casNone, h); err != nil {
		return len(q.shards)
	}
	st, err := q.store.js.Stream(q.ctx, kvStream(bucketLeases))
	if err != nil {
		return len(q.shards)
	}
	info, err := st.Info(q.ctx, jetstream.WithSubjectFilter(kvSubject(bucketLeases, "node.*")))
	if err != nil {
		return len(q.shards)
	}
	nodes := max(len(info.State.Subjects), 1)
	return (len(q.shards) + nodes - 1) / nodes
}

// nodeToken is a node's name as a part of a key.
func nodeToken(node string) string { return mail.SubjectToken(node) }

func (q *Queue) leaseWrite(sh *shard, rev uint64) (uint64, time.Duration, error) {
	from := q.mono()
	h := nats.Header{headerTTL: {ttl(q.o.Lease)}}
	seq, err := q.store.putWith(q.ctx, bucketLeases, sh.key, []byte(q.o.Node), rev, h)
	// A fifth is left for an attempt to notice between two looks at the clock.
	return seq, from + q.o.Lease*4/5, err
}

// acquire tries to become a shard's owner.
func (q *Queue) acquire(sh *shard) bool {
	seq, until, err := q.leaseWrite(sh, casCreate)
	if errors.Is(err, errConflict) && q.o.Alone {
		// Nobody else can reach this store: the lease is a dead process's.
		var e *entry
		if e, err = q.store.get(q.ctx, bucketLeases, sh.key); err == nil {
			seq, until, err = q.leaseWrite(sh, e.seq)
		}
	}
	if err != nil {
		if !errors.Is(err, errConflict) && q.ctx.Err() == nil {
			q.o.Log.Warn("a shard's lease could not be taken", "shard", sh.n, "err", err)
		}
		return false
	}
	saved, err := q.loadMark(sh)
	if err == nil {
		err = q.settleDoubt(sh)
	}
	if err != nil {
		if q.ctx.Err() == nil {
			q.o.Log.Warn("a shard's marks could not be read", "shard", sh.n, "err", err)
		}
		return false // the lease lapses, or is taken again
	}
	sh.rev = seq
	sh.leaving.Store(false)
	sh.base.Store(math.MaxUint64)
	sh.mu.Lock()
	sh.box, sh.saved = newOutbox(), saved
	box := sh.box
	sh.mu.Unlock()
	sh.scanned.Store(false)
	sh.deadline.Store(int64(until))
	ctx, stop := context.WithCancel(q.ctx)
	sh.stop = stop
	sh.feed.Go(func() { q.watch(ctx, sh, box, saved) })
	return true
}

// renew keeps a lease, or notices that it is lost.
func (q *Queue) renew(sh *shard) {
	if sh.leaving.Load() && q.sched.taken(sh.n) == 0 {
		q.saveMark(q.ctx, sh)
		q.leaveInOrder(q.ctx, sh)
		q.lose(sh)
		_ = q.store.remove(q.ctx, bucketLeases, sh.key, sh.rev) // else it lapses
		return
	}
	seq, until, err := q.leaseWrite(sh, sh.rev)
	switch {
	case err == nil:
		sh.rev = seq
		sh.deadline.Store(int64(until))
	case errors.Is(err, errConflict):
		// Ours after all, if an earlier renewal arrived whose answer did not.
		e, gerr := q.store.get(q.ctx, bucketLeases, sh.key)
		if gerr == nil && string(e.data) == q.o.Node {
			sh.rev = e.seq
			return
		}
		q.o.Log.Warn("a shard's lease was lost", "shard", sh.n)
		q.lose(sh)
	case !sh.owned(q.mono()):
		q.o.Log.Warn("a shard's lease lapsed", "shard", sh.n, "err", err)
		q.lose(sh)
	}
}

// leave stops taking from a shard that another node shall have.
func (q *Queue) leave(sh *shard) {
	sh.leaving.Store(true)
	sh.stop()
	sh.feed.Wait()
	q.sched.drop(sh.n)
}

// lose forgets a shard.
func (q *Queue) lose(sh *shard) {
	sh.deadline.Store(0)
	sh.stop()
	sh.feed.Wait()
	sh.stop = nil
	sh.leaving.Store(false)
	q.sched.drop(sh.n)
	sh.mu.Lock()
	sh.box = nil
	sh.mu.Unlock()
}

// giveUp lets other nodes have the leases now, and saves the marks.
func (q *Queue) giveUp() error {
	ctx, cancel := context.WithTimeout(context.Background(), ackTimeout)
	defer cancel()
	q.keepLearned(ctx)
	var errs []error
	for _, sh := range q.shards {
		if !sh.owned(q.mono()) {
			continue
		}
		q.saveMark(ctx, sh)
		q.leaveInOrder(ctx, sh)
		sh.deadline.Store(0)
		if err := q.store.remove(ctx, bucketLeases, sh.key, sh.rev); err != nil {
			errs = append(errs, err)
		}
	}
	if !q.o.Alone {
		// A marker counts as a node until it lapses (fairShare): as soon as may be. Without
		// one, the key itself lapses with the lease.
		_, _ = q.store.putWith(ctx, bucketLeases, "node."+nodeToken(q.o.Node), nil, casNone, marker(time.Second))
	}
	return errors.Join(errs...)
}

func markKey(sh *shard) string { return "queue.said." + strconv.Itoa(sh.n) }

// loadMark reads up to which revision the event log has a shard's facts.
func (q *Queue) loadMark(sh *shard) (uint64, error) {
	e, err := q.store.get(q.ctx, bucketShared, markKey(sh))
	if errors.Is(err, ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(string(e.data), 10, 64)
	if err != nil {
		return 0, nil // everything is published again, which changes nothing
	}
	return n, nil
}

// saveMark writes it, once the scan is through.
func (q *Queue) saveMark(ctx context.Context, sh *shard) {
	box := sh.outbox()
	if box == nil || !sh.scanned.Load() || !sh.owned(q.mono()) {
		return
	}
	m := box.mark()
	sh.mu.Lock()
	known := m <= sh.saved
	sh.mu.Unlock()
	if known {
		return
	}
	if _, err := q.store.put(ctx, bucketShared, markKey(sh), strconv.AppendUint(nil, m, 10), casNone); err != nil {
		return // the next second tries again
	}
	sh.mu.Lock()
	sh.saved = max(sh.saved, m)
	sh.mu.Unlock()
}
