package queue

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/deliverd/deliverd/mail"
)

// Audit is the result of comparing what was accepted with what ended (law 2). It looks
// only at the event log, and so it notices what the queue itself can't: a record that
// a damaged disk hides.
type Audit struct {
	At      time.Time `json:"at"`
	Through uint64    `json:"through"` // the place in the event log up to which it looked
	Open    int64     `json:"open"`    // accepted and not ended
	// Overdue are open past expiry and grace, with a record that waits; at most 1000.
	Overdue []mail.ID `json:"overdue,omitempty"`
	// Lost are open past expiry and grace without a record; at most 1000.
	Lost []mail.ID `json:"lost,omitempty"`
	// LogHoles is how many places in the middle of the log hold no event: the log
	// itself was damaged.
	LogHoles uint64 `json:"log_holes,omitempty"`
}

// OK reports whether law 2 holds.
func (a Audit) OK() bool { return len(a.Overdue) == 0 && len(a.Lost) == 0 && a.LogHoles == 0 }

const (
	auditKey   = "queue.audit"
	auditMost  = 1000
	auditWidth = 10 * time.Minute
	// auditSave is how often the state is saved at most; it may have some hundred KiB.
	auditSave = time.Minute
)

// auditor compares in bounded memory: per interval of expiry times the number of
// messages accepted less those ended, and the sum of their ids' hashes likewise. An
// interval that is over and where either is not zero is then counted exactly, by a
// second walk over the log. Events that stand in the log twice make an interval
// suspicious; the exact count clears it.
type auditor struct {
	mu     sync.Mutex // one Audit at a time; guards all
	loaded bool
	saved  time.Time
	width  time.Duration
	state  auditState
	exact  map[int64]exactCount
}

type auditState struct {
	Through uint64                `json:"through"`
	Holes   uint64                `json:"holes,omitempty"`
	Buckets map[int64]auditBucket `json:"buckets"` // by expiry, in widths
	Lost    []mail.ID             `json:"lost,omitempty"`
}

type auditBucket struct {
	N   int64  `json:"n"`
	Sum uint64 `json:"s"`
}

// exactCount is what a second walk found, valid while the bucket is the same.
type exactCount struct {
	bucket auditBucket
	open   []mail.ID
}

func idHash(id mail.ID) uint64 {
	h := fnv.New64a()
	h.Write([]byte(id))
	return h.Sum64()
}

func (s *auditState) count(bucket int64, id mail.ID, n int64) {
	b := s.Buckets[bucket]
	b.N += n
	b.Sum += uint64(n) * idHash(id)
	if b == (auditBucket{}) {
		delete(s.Buckets, bucket)
	} else {
		s.Buckets[bucket] = b
	}
}

// accounted is what one event of the log means for the audit: +1, -1 or 0 messages.
func accounted(m jetstream.Msg) (id mail.ID, expires time.Time, n int64) {
	state := mail.State(m.Subject()[strings.LastIndexByte(m.Subject(), '.')+1:])
	switch {
	case state == mail.StateQueued:
		n = 1
	case state.Terminal():
		n = -1
	default:
		return "", time.Time{}, 0
	}
	h := m.Headers()
	expires, err := time.Parse(time.RFC3339, h.Get(headerEventExpires))
	if err != nil {
		return "", time.Time{}, 0
	}
	return mail.ID(h.Get(headerEventID)), expires, n
}

// Audit reads what came to the event log since it was last called, and says which
// accepted messages should have ended and did not. It raises the alarm in the log as
// well. Call it every minute or so.
func (q *Queue) Audit(ctx context.Context) (Audit, error) {
	a := &q.audit
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := q.loadAudit(ctx); err != nil {
		return Audit{}, err
	}
	if err := q.auditNew(ctx); err != nil {
		return Audit{}, err
	}
	now, _ := q.clock.now()
	res := Audit{At: now.UTC(), Through: a.state.Through, LogHoles: a.state.Holes}
	over := now.Add(-q.o.Grace).UnixNano()/int64(a.width) - 1 // the newest interval that is over
	if err := q.auditExactly(ctx, over); err != nil {
		return Audit{}, err
	}
	for _, i := range slices.Sorted(maps.Keys(a.exact)) {
		if err := q.auditBucket(ctx, i, &res); err != nil {
			return Audit{}, err
		}
	}
	for _, b := range a.state.Buckets {
		res.Open += b.N
	}
	res.Lost = slices.Clone(a.state.Lost)
	if !res.OK() {
		q.o.Log.Error("accepted messages did not end in time", "lost", res.Lost, "overdue", res.Overdue, "log_holes", res.LogHoles)
	}
	return res, q.saveAudit(ctx)
}

// auditNew counts the events that came since.
func (q *Queue) auditNew(ctx context.Context) error {
	a := &q.audit
	return q.walkLog(ctx, a.state.Through, func(m jetstream.Msg, at, hole uint64) {
		a.state.Holes += hole
		a.state.Through = at
		if id, exp, n := accounted(m); n != 0 {
			a.state.count(exp.UnixNano()/int64(a.width), id, n)
		}
	})
}

// walkLog visits every event, headers only, from after a place to the end of the log.
// hole is how many places are empty before it.
func (q *Queue) walkLog(ctx context.Context, after uint64, f func(m jetstream.Msg, at, hole uint64)) error {
	st, err := q.store.js.Stream(ctx, eventStream)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	state := st.CachedInfo().State
	if state.FirstSeq > 0 {
		after = max(after, state.FirstSeq-1) // what is older than the log's life
	}
	if state.Msgs == 0 || after >= state.LastSeq {
		return nil
	}
	c := jetstream.OrderedConsumerConfig{FilterSubjects: []string{eventSubjects}, HeadersOnly: true}
	return q.read(ctx, c, after, func(m jetstream.Msg, meta *jetstream.MsgMetadata) bool {
		at := meta.Sequence.Stream
		f(m, at, at-after-1)
		after = at
		return meta.NumPending > 0 && at < state.LastSeq
	})
}

// auditExactly counts the suspicious intervals message by message.
func (q *Queue) auditExactly(ctx context.Context, over int64) error {
	a := &q.audit
	suspicious := map[int64]map[mail.ID]int64{}
	for i, b := range a.state.Buckets {
		if e, known := a.exact[i]; i <= over && !(known && e.bucket == b) {
			suspicious[i] = map[mail.ID]int64{}
		}
	}
	for i := range a.exact {
		if _, still := a.state.Buckets[i]; !still {
			delete(a.exact, i)
		}
	}
	if len(suspicious) == 0 {
		return nil
	}
	ended := map[mail.ID]bool{}
	err := q.walkLog(ctx, 0, func(m jetstream.Msg, at, _ uint64) {
		id, exp, n := accounted(m)
		open := suspicious[exp.UnixNano()/int64(a.width)]
		if n == 0 || open == nil || at > a.state.Through {
			return
		}
		if n < 0 {
			ended[id] = true
			delete(open, id)
		} else if !ended[id] {
			open[id] = 1
		}
	})
	if err != nil {
		return err
	}
	for i, open := range suspicious {
		for _, id := range a.state.Lost {
			delete(open, id) // known, and taken out of the sums
		}
		if len(open) == 0 {
			delete(a.state.Buckets, i)
			delete(a.exact, i)
			continue
		}
		// What the interval's sums are without the events that stand twice.
		var b auditBucket
		for id := range open {
			b.N++
			b.Sum += idHash(id)
		}
		a.state.Buckets[i] = b
		a.exact[i] = exactCount{b, slices.Sorted(maps.Keys(open))}
	}
	return nil
}

// auditBucket tells the overdue from the lost.
func (q *Queue) auditBucket(ctx context.Context, i int64, res *Audit) error {
	a := &q.audit
	var still []mail.ID
	for _, id := range a.exact[i].open {
		_, r, _, err := q.find(ctx, id)
		switch {
		case errors.Is(err, ErrNotFound):
			if len(a.state.Lost) < auditMost {
				a.state.Lost = append(a.state.Lost, id)
			}
			a.state.count(i, id, -1)
		case err != nil && !errors.Is(err, errRecord):
			return fmt.Errorf("audit: %w", err)
		case err == nil && r.State.Terminal():
			still = append(still, id) // it has ended, and says so in a moment
		default:
			still = append(still, id)
			if len(res.Overdue) < auditMost {
				res.Overdue = append(res.Overdue, id)
			}
		}
	}
	if len(still) == 0 {
		delete(a.exact, i)
	} else {
		a.exact[i] = exactCount{a.state.Buckets[i], still}
	}
	return nil
}

func (q *Queue) loadAudit(ctx context.Context) error {
	a := &q.audit
	if a.loaded {
		return nil
	}
	a.width = cmp.Or(a.width, auditWidth)
	a.exact = map[int64]exactCount{}
	a.state = auditState{Buckets: map[int64]auditBucket{}}
	e, err := q.store.get(ctx, bucketShared, auditKey)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("audit: %w", err)
	}
	if err == nil && (json.Unmarshal(e.data, &a.state) != nil || a.state.Buckets == nil) {
		a.state = auditState{Buckets: map[int64]auditBucket{}} // count from the beginning
	}
	a.loaded = true
	return nil
}

func (q *Queue) saveAudit(ctx context.Context) error {
	a := &q.audit
	if time.Since(a.saved) < auditSave {
		return nil
	}
	b, err := json.Marshal(a.state)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	if _, err := q.store.put(ctx, bucketShared, auditKey, b, casNone); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	a.saved = time.Now()
	return nil
}
