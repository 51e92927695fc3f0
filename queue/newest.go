package queue

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/deliverd/deliverd/mail"
)

// newest knows the newest waiting message of each supersede key, where one process has
// the store to itself (Options.Alone). Nearly every message is the first of its key and
// needs nothing written then; with other processes about, each pays a lookup and a
// durable write in DELIVERD_LATEST (raise), which was a quarter of what a waiting
// message cost in memory.
//
// A record carries its key's sum in a header, so that the scan after a start fills the
// map again. Until the scan is through, and as long as records wait that an older
// version wrote without that header, the map does not know everything: DELIVERD_LATEST
// is written as well, and every message of an earlier process looks there before each
// attempt.
type newest struct {
	mu    sync.Mutex
	byKey map[keySum][16]byte // guarded by mu
	// unknown: a record was scanned that does not tell its key.
	unknown atomic.Bool
}

// keySum is a supersede key's place in the map. Tenants choose their keys' text: a
// short sum could be made to meet another's.
type keySum [16]byte

func supersedeSum(m *mail.Message) keySum { return sumOf(m.SupersedeKey) }

// later orders messages with one key by the millisecond of their ids, which is that of
// QueuedAt; within one, by who came first to Enqueue.
func later(a, b [16]byte) bool { return bytes.Compare(a[:6], b[:6]) > 0 }

// above returns the message that is newer than m, if one waits.
func (n *newest) above(m *mail.Message) (mail.ID, bool) {
	have, ok := n.of(supersedeSum(m))
	mine, err := m.ID.Bytes()
	if !ok || err != nil || !later(have, mine) {
		return "", false
	}
	return mail.IDFromBytes(have), true
}

func (n *newest) of(sum keySum) (id [16]byte, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	id, ok = n.byKey[sum]
	return id, ok
}

// offer makes a waiting message the newest of its key unless a newer one is. It returns
// another message that was there.
func (n *newest) offer(sum keySum, id [16]byte) (other [16]byte, clash bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	have, ok := n.byKey[sum]
	if !ok || !later(have, id) {
		n.byKey[sum] = id
	}
	return have, ok && have != id
}

// leave forgets a message that has ended.
func (n *newest) leave(m *mail.Message) {
	if m.SupersedeKey == "" {
		return
	}
	id, err := m.ID.Bytes()
	if err != nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if sum := supersedeSum(m); n.byKey[sum] == id {
		delete(n.byKey, sum)
	}
}

const (
	// headerKey carries the sum of a record's supersede key.
	headerKey = "D-Key"
	noKey     = "-"
)

func (r *record) keyHeader() string {
	if r.Message.SupersedeKey == "" {
		return noKey
	}
	sum := supersedeSum(&r.Message)
	return base64.RawStdEncoding.EncodeToString(sum[:])
}

// scannedKey takes in the key of a record that an earlier process wrote. Two waiting with
// one key are what a crash left between the newer one's record and the older one's
// wish.
func (q *Queue) scannedKey(ctx context.Context, id [16]byte, header string) {
	if !q.o.Alone || header == noKey {
		return
	}
	sum, err := base64.RawStdEncoding.DecodeString(header)
	if err != nil || len(sum) != len(keySum{}) {
		q.newest.unknown.Store(true)
		return
	}
	other, clash := q.newest.offer(keySum(sum), id)
	if !clash {
		return
	}
	older, newer := other, id
	if later(other, id) {
		older, newer = id, other
	}
	for tries := 0; ctx.Err() == nil; tries++ {
		err := q.outdate(ctx, mail.IDFromBytes(older), mail.IDFromBytes(newer))
		if err == nil {
			return
		}
		q.o.Log.Warn("an older message could not be marked superseded; trying again", "message", mail.IDFromBytes(older), "err", err)
		q.sleep(ctx, backoff(tries))
	}
}

// knowsAll says whether the map holds the newest waiting message of every key.
func (q *Queue) knowsAll() bool {
	if !q.o.Alone || q.newest.unknown.Load() {
		return false
	}
	for _, sh := range q.shards {
		if !sh.ours() || !sh.scanned.Load() {
			return false
		}
	}
	return true
}

// lockKey lets one message of a supersede key at a time enter.
func (q *Queue) lockKey(ctx context.Context, m *mail.Message) (unlock func(), err error) {
	if !q.o.Alone || m.SupersedeKey == "" {
		return func() {}, nil
	}
	sum := supersedeSum(m)
	return q.newestLocks.lock(ctx, string(sum[:]))
}

// enterAgain is enter for a record that was found in the store.
func (q *Queue) enterAgain(ctx context.Context, r *record, shard int) (won *keyEntry, err error) {
	unlock, err := q.lockKey(ctx, &r.Message)
	if err != nil {
		return nil, err
	}
	defer unlock()
	return q.enter(ctx, r, shard)
}

// enterNewest makes m the newest of its key, after the one that was has durably got the
// wish to end. Its lock must be held.
func (q *Queue) enterNewest(ctx context.Context, m *mail.Message) error {
	id, err := m.ID.Bytes()
	if err != nil {
		return err
	}
	sum := supersedeSum(m)
	if older, ok := q.newest.of(sum); ok && older != id {
		if later(older, id) {
			return nil // and m knows it
		}
		if err := q.outdate(ctx, mail.IDFromBytes(older), m.ID); err != nil {
			return err
		}
	}
	q.newest.offer(sum, id)
	return nil
}

// outdate writes into a waiting message's record that another has taken its place. One
// that has ended needs no wish.
func (q *Queue) outdate(ctx context.Context, id, by mail.ID) error {
	sh, _, _, err := q.find(ctx, id)
	if err == nil {
		err = q.wish(ctx, sh, id, func(r *record) { r.SupersededBy = by })
	}
	if p, ok := errors.AsType[*mail.Problem](err); ok && p.Type == mail.ProblemAlreadyEnded || errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}
