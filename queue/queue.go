package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

	"github.com/deliverd/deliverd/mail"
)

// ErrNotFound: no message waits under this ID. It may have ended: the event log knows.
var ErrNotFound = errors.New("no such message is waiting")

// Options say how a queue behaves. The zero value of a field means its default.
type Options struct {
	Kinds    map[string]mail.Kind // by name; required
	Seal     *KeyRing             // required
	Shards   int                  // 8; fixed once the store is made
	Replicas int                  // of every stream; 1
	// Node names this process among others on the same NATS servers; random by default.
	Node string
	// Alone says that no other deliverd uses the NATS server: it is embedded here. A
	// lease found is then a dead process's and is taken at once, and what this process
	// knows of a message needs no second look into the store.
	Alone bool
	// Lease is how long a shard stays a dead node's; 5 s, at least 1 s.
	Lease time.Duration

	Concurrency    int // attempts under way at once; 200
	Reserved       int // of these for lane 1 only; a tenth, at least 1
	PerDestination int // attempts under way to one destination at once, at most; 20
	// Destination says where a domain's mail goes as long as no attempt has
	// (mail.Attempt.Enter); where it says "", the domain is a destination of its own. It
	// must not block.
	Destination func(domain string) string
	// Limits bound a destination's window where more is known of it than
	// PerDestination; zero fields mean their defaults. It must not block.
	Limits func(destination string) Limits
	// Provider says which provider serves a domain, "" if not known, for the
	// selector "provider:". It must not block.
	Provider func(domain string) string

	// Observe is called once for every event that this node publishes. It must not
	// block.
	Observe func(mail.Event)
	Log     *slog.Logger // discarded by default

	KeyLife   time.Duration // how long an idempotency key is remembered; 7 days
	EventLife time.Duration // how long the event log goes back; 90 days
	ChainLife time.Duration // how long the chain of records goes back; 400 days
	// Journal is a file for the attempts under way; it goes with Alone. With it, only what
	// a killed process was sending counts as a possible duplicate afterwards, and not all
	// that was due. "" keeps none.
	Journal string
	// Grace is how long after its expiry a message may still be open before Audit
	// raises the alarm; 5 min.
	Grace time.Duration

	// fault is a test's: nil, errStore for a call of the store that does not happen, or
	// errUnsure for a write that happens and whose answer is lost.
	fault func(call string) error
}

// Queue keeps messages in JetStream. Its methods are safe for concurrent use.
type Queue struct {
	o       Options
	store   *store
	session string // marks what this Open wrote
	clock   *clock
	start   time.Time // of the monotonic clock of the leases
	sched   *sched
	shards  []*shard
	unsaid  unsaidFacts
	enters  entering
	hot     hotRecords
	troubles
	suppressions suppressionIndex
	held         atomic.Pointer[[]selector] // see Hold
	keyLocks     keyLocks                   // of idempotency keys
	newest       newest
	newestLocks  keyLocks // of supersede keys
	journal      *journal // nil without one
	keeps        bool     // what was learned of destinations is in the store; tend's, then Close's

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // everything that Open started
	audit  auditor
}

// Open makes what is missing in the store, learns the pauses and suppressions, and
// begins to compete for shards. It does not wait for the waiting messages to be
// scanned.
func Open(ctx context.Context, nc *nats.Conn, o Options) (*Queue, error) {
	if len(o.Kinds) == 0 || o.Seal == nil {
		return nil, errors.New("queue: Options.Kinds and Options.Seal are required")
	}
	o.setDefaults()
	if o.Journal != "" && !o.Alone {
		return nil, errors.New("queue: a journal knows nothing of other nodes: it goes with Alone")
	}
	if o.Shards > maxShards || o.Lease < time.Second {
		return nil, fmt.Errorf("queue: at most %d shards, and a lease of at least 1 s", maxShards)
	}
	st, err := openStore(ctx, nc, &o)
	if err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	q := &Queue{o: o, store: st, session: nuid.Next(), clock: newClock(), start: time.Now()}
	q.unsaid.byID = map[mail.ID][]mail.Event{}
	q.enters.byID = map[mail.ID]*enterState{}
	q.hot.byID = map[mail.ID]hotRecord{}
	q.panics = map[mail.ID]int{}
	q.locals = map[mail.ID]int{}
	q.keyLocks.held = map[string]chan struct{}{}
	q.newest.byKey = map[keySum]rank{}
	q.newestLocks.held = map[string]chan struct{}{}
	if o.Journal != "" {
		if q.journal, err = openJournal(o.Journal, time.Now()); err != nil {
			st.acks.close()
			return nil, fmt.Errorf("queue: %w", err)
		}
	}
	q.sched = newSched(&q.o)
	q.clock.jumped = q.clockJumped
	q.ctx, q.cancel = context.WithCancel(context.Background())
	for i := range o.Shards + 1 {
		q.shards = append(q.shards, &shard{n: i, bucket: bucketQueue(i), key: "shard." + strconv.Itoa(i)})
	}
	if err := q.follow(ctx); err != nil {
		q.cancel()
		q.wg.Wait()
		st.acks.close()
		return nil, errors.Join(fmt.Errorf("queue: %w", err), q.journal.close())
	}
	if err := q.recallLearned(ctx); err != nil {
		q.o.Log.Warn("what was learned of destinations could not be read", "err", err)
	}
	if !o.Alone {
		if err := q.listen(); err != nil {
			q.cancel()
			q.wg.Wait()
			st.acks.close()
			return nil, errors.Join(err, q.journal.close())
		}
	}
	q.wg.Go(q.keepLeases)
	q.wg.Go(q.tend)
	return q, nil
}

// aloneLease is the lease of a node that has the store to itself: a busy machine must
// not lose a shard to nobody.
const aloneLease = 10 * time.Minute

func (o *Options) setDefaults() {
	o.Shards = cmp.Or(o.Shards, 8)
	o.Replicas = cmp.Or(o.Replicas, 1)
	o.Node = cmp.Or(o.Node, nuid.Next())
	o.Lease = cmp.Or(o.Lease, 5*time.Second)
	if o.Alone {
		o.Lease = aloneLease // nobody waits for it to lapse
	}
	o.Concurrency = cmp.Or(o.Concurrency, 200)
	if o.Reserved == 0 && o.Concurrency > 1 {
		o.Reserved = max(o.Concurrency/10, 1)
	}
	o.PerDestination = cmp.Or(o.PerDestination, 20)
	o.KeyLife = cmp.Or(o.KeyLife, 7*24*time.Hour)
	o.EventLife = cmp.Or(o.EventLife, 90*24*time.Hour)
	o.ChainLife = cmp.Or(o.ChainLife, 400*24*time.Hour)
	o.Grace = cmp.Or(o.Grace, 5*time.Minute)
	if o.Destination == nil {
		o.Destination = func(string) string { return "" }
	}
	if o.Limits == nil {
		o.Limits = func(string) Limits { return Limits{} }
	}
	if o.Provider == nil {
		o.Provider = func(string) string { return "" }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// kind returns the rules of a kind; a message may outlive its kind's configuration.
func (o *Options) kind(name string) mail.Kind {
	if k, ok := o.Kinds[name]; ok {
		return k
	}
	return mail.Kind{Name: name, Lane: 3, ValidFor: 24 * time.Hour,
		Retries: []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour}}
}

// Close gives up the leases and stops everything that Open started. Work must have
// returned. The connection stays open, and must have been until now. Closing twice does
// nothing.
func (q *Queue) Close() error {
	if q.ctx.Err() != nil {
		return nil
	}
	q.cancel()
	q.wg.Wait()
	err := q.giveUp()
	q.store.acks.close()
	return errors.Join(err, q.journal.close())
}

// later runs f after a while, unless the queue is closed before.
func (q *Queue) later(d time.Duration, f func()) {
	time.AfterFunc(d, func() {
		if q.ctx.Err() == nil {
			f()
		}
	})
}

// sleep waits, and reports false when ctx or the queue ended first.
func (q *Queue) sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-q.ctx.Done():
	}
	return false
}

// tend looks after the store's health, the marks of what the event log has, and what is
// learned of destinations.
func (q *Queue) tend() {
	kept := time.Now()
	for q.sleep(q.ctx, time.Second) {
		if !q.o.Alone {
			q.tell()
		}
		if time.Since(kept) >= keepEvery {
			q.keepLearned(q.ctx)
			kept = time.Now()
		}
		q.store.probe(q.ctx)
		q.clock.now() // notices a jump while nothing else asks
		for _, sh := range q.shards {
			q.saveMark(q.ctx, sh)
		}
	}
}

func (q *Queue) clockJumped(by time.Duration, believed bool) {
	if !believed {
		q.o.Log.Warn("the clock jumped; nothing expires by it until it has stayed so", "by", by, "for", clockHold)
		return
	}
	q.o.Log.Warn("the clock jumped and stayed there; following it", "by", by)
	if by < 0 {
		q.sched.shift(by) // else what is due in a minute would wait for the hour to come again
	}
}

// Healthy says whether the store takes writes: nil, or what does not answer and since
// when.
func (q *Queue) Healthy(ctx context.Context) error {
	if !q.store.nc.IsConnected() {
		return errors.New("not connected to the NATS server")
	}
	if stream, since := q.store.failing(); stream != "" {
		return fmt.Errorf("stream %s has not acknowledged a write since %s: its disk may be full", stream, since.UTC().Format(time.RFC3339))
	}
	return ctx.Err()
}
