// Package queue keeps messages until they are settled and remembers what happened.
package queue

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"

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
	// Alone says that no other process can reach the NATS server: it is embedded
	// here and does not listen for other nodes. A lease found is then a dead one's.
	Alone bool
	// Lease is how long a shard stays a dead node's; 5 s, at least 1 s.
	Lease time.Duration

	Concurrency    int // attempts under way at once; 200
	Reserved       int // of these for lane 1 only; a tenth, at least 1
	PerDestination int // attempts under way to one destination at once; 20
	// Destination says which destination a domain's mail goes to, so that domains
	// with the same servers share one limit; by default the domain itself. It must
	// not block.
	Destination func(domain string) string
	// Provider says which provider serves a domain, "" if not known, for the
	// selector "provider:". It must not block.
	Provider func(domain string) string

	// Observe is called once for every event that this node publishes. It must not
	// block.
	Observe func(mail.Event)
	Log     *slog.Logger // discarded by default

	KeyLife   time.Duration // how long an idempotency key is remembered; 7 days
	EventLife time.Duration // how long the event log goes back; 90 days
	// Grace is how long after its expiry a message may still be open before Audit
	// raises the alarm; 5 min.
	Grace time.Duration
}

// Queue keeps messages in JetStream. Its methods are safe for concurrent use.
type Queue struct{}

// Open prepares the store and starts to follow it.
func Open(ctx context.Context, nc *nats.Conn, o Options) (*Queue, error) { panic("not yet") }

// Close stops everything that Open started and gives up the leases. Work must have
// returned. The connection stays open.
func (q *Queue) Close() error { panic("not yet") }

// Enqueue takes a message. Nil means that it is safe (law 1). An error is a
// *mail.Problem: ProblemConflict or ProblemUnavailable. requestHash identifies the
// request's content for the idempotency key.
func (q *Queue) Enqueue(ctx context.Context, m *mail.Message, requestHash [32]byte) (mail.Receipt, error) {
	panic("not yet")
}

// Work takes what is due and hands it to attempt, until taking ends; it returns when
// all attempts have ended, which the end of working hurries: an attempt's context is
// working's.
func (q *Queue) Work(taking, working context.Context, attempt func(context.Context, *mail.Attempt) mail.Outcome) error {
	panic("not yet")
}

// Cancel asks that no further attempt of a message begins. ErrNotFound: it is not
// waiting.
func (q *Queue) Cancel(ctx context.Context, id mail.ID, by, reason string) error { panic("not yet") }

// Status is where a waiting message stands.
type Status struct {
	Message  mail.Message // without Data
	State    mail.State
	Attempts int       // that ended and counted
	Next     time.Time // when it is due
	Last     mail.Event
	Paused   string // the selector that holds it back, "" if none
}

// Status says where a message stands. ErrNotFound: it is not waiting.
func (q *Queue) Status(ctx context.Context, id mail.ID) (Status, error) { panic("not yet") }

// Message returns a waiting message with its Data opened, for sending it again.
// Only code that renders may call it.
func (q *Queue) Message(ctx context.Context, id mail.ID) (mail.Message, error) { panic("not yet") }

// Pause says that nothing which the selector matches is tried.
type Pause struct {
	Selector string    `json:"selector"` // "kind:invite", "domain:nordlys.fi", "provider:microsoft365", "tenant:4711"
	By       string    `json:"by"`
	Reason   string    `json:"reason,omitempty"`
	Since    time.Time `json:"since"`
}

// Pause holds back what selector matches, on every node and over restarts, until
// Resume.
func (q *Queue) Pause(ctx context.Context, selector, by, reason string) error { panic("not yet") }

// Resume ends a Pause.
func (q *Queue) Resume(ctx context.Context, selector, by, reason string) error { panic("not yet") }

// RetryNow makes due what the selector matches and returns how many of this node's.
func (q *Queue) RetryNow(ctx context.Context, selector, by, reason string) (int, error) {
	panic("not yet")
}

// Pauses lists what is paused, by selector.
func (q *Queue) Pauses(ctx context.Context) ([]Pause, error) { panic("not yet") }

// Count describes a group of waiting messages.
type Count struct {
	Queued   int       `json:"queued"`
	Delayed  int       `json:"delayed"`
	Sending  int       `json:"sending"`
	Expiring int       `json:"expiring"` // of these, within the next 5 minutes
	Oldest   time.Time `json:"oldest,omitzero"`
}

// Summary is what waits on this node's shards.
type Summary struct {
	Total   Count            `json:"total"`
	Kinds   map[string]Count `json:"kinds"`
	Domains map[string]Count `json:"domains"`
	Tenants map[string]Count `json:"tenants"`
}

// Waiting describes what waits on the shards of this node.
func (q *Queue) Waiting() Summary { panic("not yet") }

// Record adds a fact from elsewhere to the event log: used, returned, resent …
// Nil means that it is safe.
func (q *Queue) Record(ctx context.Context, e mail.Event) error { panic("not yet") }

// Events replays the log from after a place and then follows it until ctx ends.
func (q *Queue) Events(ctx context.Context, after uint64) iter.Seq2[mail.LoggedEvent, error] {
	panic("not yet")
}

// LastSeq is the place of the newest event, 0 for an empty log.
func (q *Queue) LastSeq(ctx context.Context) (uint64, error) { panic("not yet") }

// Suppress stops mail of one tenant to one address.
func (q *Queue) Suppress(ctx context.Context, s mail.Suppression) error { panic("not yet") }

// Lift ends a suppression and records who lifted it. ErrNotFound: there is none.
func (q *Queue) Lift(ctx context.Context, tenant string, a mail.Address, by, reason string) error {
	panic("not yet")
}

// Suppressed returns the suppression in force, nil if there is none.
func (q *Queue) Suppressed(ctx context.Context, tenant string, a mail.Address) (*mail.Suppression, error) {
	panic("not yet")
}

// Suppressions lists those in force of one tenant, of all for "*".
func (q *Queue) Suppressions(ctx context.Context, tenant string) ([]mail.Suppression, error) {
	panic("not yet")
}

// Healthy says whether the store takes writes, and why not.
func (q *Queue) Healthy(ctx context.Context) error { panic("not yet") }

// Audit is the result of comparing what was accepted with what ended (law 2).
type Audit struct {
	At       time.Time `json:"at"`
	Through  uint64    `json:"through"`   // the place in the event log up to which it looked
	Open     int64     `json:"open"`      // accepted and not ended
	Overdue  []mail.ID `json:"overdue"`   // open past expiry and grace though still in the store; at most 1000
	Lost     []mail.ID `json:"lost"`      // open past expiry and grace and not in the store; at most 1000
	LogHoles uint64    `json:"log_holes"` // events missing from the middle of the log
}

// Audit compares what was accepted with what ended since it was last called.
func (q *Queue) Audit(ctx context.Context) (Audit, error) { panic("not yet") }

// Shared is a small durable map that all nodes share.
type Shared struct{}

// Shared opens the map of a name, making it if need be.
func (q *Queue) Shared(ctx context.Context, name string) (*Shared, error) { panic("not yet") }

// Get returns a value, and ErrNotFound.
func (s *Shared) Get(ctx context.Context, key string) ([]byte, error) { panic("not yet") }

// Put sets a value.
func (s *Shared) Put(ctx context.Context, key string, value []byte) error { panic("not yet") }

// ErrExists is what Create returns for a key that has a value.
var ErrExists = errors.New("the key has a value already")

// Create sets a value that must not be there yet: ErrExists.
func (s *Shared) Create(ctx context.Context, key string, value []byte) error { panic("not yet") }

// Delete removes a value; removing none is no error.
func (s *Shared) Delete(ctx context.Context, key string) error { panic("not yet") }

// All returns the whole map.
func (s *Shared) All(ctx context.Context) (map[string][]byte, error) { panic("not yet") }

// KeyRing holds the keys that wrap messages' keys.
type KeyRing struct{}

// OpenKeyRing reads the ring in a file, which it makes, for its owner only, when it
// is missing.
func OpenKeyRing(path string) (*KeyRing, error) { panic("not yet") }
