package queue

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"time"

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
	byKey map[keySum]rank // guarded by mu
	// unknown: a record was scanned that does not tell its key.
	unknown atomic.Bool
}

// keySum is a supersede key's place in the map. Tenants choose their keys' text: a
// short sum could be made to meet another's.
type keySum [16]byte

func supersedeSum(m *mail.Message) keySum { return sumOf(m.SupersedeKey) }

// rank is a message's place among those with its key: by QueuedAt, then by id, as
// latestEntry orders them. An order by who came first would be another one whenever a
// record is met again, by a scan or an idempotent retry: of two within a millisecond
// each then ended for the other.
type rank struct {
	at int64 // QueuedAt in Unix nanoseconds
	id [16]byte
}

func rankOf(m *mail.Message) (rank, error) {
	id, err := m.ID.Bytes()
	return rank{m.QueuedAt.UnixNano(), id}, err
}

func (r rank) after(other rank) bool {
	return cmp.Or(cmp.Compare(r.at, other.at), bytes.Compare(r.id[:], other.id[:])) > 0
}

func (r rank) message() mail.ID { return mail.IDFromBytes(r.id) }

// above returns the message that is newer than m, if one waits.
func (n *newest) above(m *mail.Message) (mail.ID, bool) {
	have, ok := n.of(supersedeSum(m))
	mine, err := rankOf(m)
	if !ok || err != nil || !have.after(mine) {
		return "", false
	}
	return have.message(), true
}

func (n *newest) of(sum keySum) (r rank, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	r, ok = n.byKey[sum]
	return r, ok
}

// offer makes a waiting message the newest of its key unless a newer one is. It returns
// another message that was there.
func (n *newest) offer(sum keySum, r rank) (other rank, clash bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	have, ok := n.byKey[sum]
	if !ok || r.after(have) {
		n.byKey[sum] = r
	}
	return have, ok && have.id != r.id
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
	if sum := supersedeSum(m); n.byKey[sum].id == id {
		delete(n.byKey, sum)
	}
}

const (
	// headerKey carries the sum of a record's supersede key and the time of its rank.
	headerKey = "D-Key"
	noKey     = "-"
)

func (r *record) keyHeader() string {
	if r.Message.SupersedeKey == "" {
		return noKey
	}
	sum := supersedeSum(&r.Message)
	return base64.RawStdEncoding.EncodeToString(binary.BigEndian.AppendUint64(sum[:], uint64(r.Message.QueuedAt.UnixNano())))
}

// parseKeyHeader reads what keyHeader wrote. Earlier versions wrote the sum alone; the
// id tells the millisecond.
func parseKeyHeader(header string, id [16]byte) (sum keySum, r rank, ok bool) {
	b, err := base64.RawStdEncoding.DecodeString(header)
	r = rank{madeAt(id) * int64(time.Millisecond), id}
	switch {
	case err == nil && len(b) == len(sum)+8:
		r.at = int64(binary.BigEndian.Uint64(b[len(sum):]))
	case err != nil || len(b) != len(sum):
		return sum, r, false
	}
	return keySum(b[:len(sum)]), r, true
}

// scannedKey takes in the key of a record that an earlier process wrote. Two waiting with
// one key are what a crash left between the newer one's record and the older one's
// wish.
func (q *Queue) scannedKey(ctx context.Context, id [16]byte, header string) {
	if !q.o.Alone || header == noKey {
		return
	}
	sum, mine, ok := parseKeyHeader(header, id)
	if !ok {
		q.newest.unknown.Store(true)
		return
	}
	other, clash := q.newest.offer(sum, mine)
	if !clash {
		return
	}
	older, newer := other, mine
	if other.after(mine) {
		older, newer = mine, other
	}
	for tries := 0; ctx.Err() == nil; tries++ {
		err := q.outdate(ctx, older.message(), newer.message())
		if err == nil {
			return
		}
		q.o.Log.Warn("an older message could not be marked superseded; trying again", "message", older.message(), "err", err)
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
	mine, err := rankOf(m)
	if err != nil {
		return err
	}
	sum := supersedeSum(m)
	if older, ok := q.newest.of(sum); ok && older.id != mine.id {
		if older.after(mine) {
			return nil // and m knows it
		}
		if err := q.outdate(ctx, older.message(), m.ID); err != nil {
			return err
		}
	}
	q.newest.offer(sum, mine)
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
