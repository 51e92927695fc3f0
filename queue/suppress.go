package queue

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/deliverd/deliverd/mail"
)

// suppressionIndex says of every address whether its suppression is worth reading. It
// follows the bucket.
type suppressionIndex struct {
	mu    sync.RWMutex
	until map[string]time.Time // guarded by mu: by key; zero: until lifted
	sweep int                  // guarded by mu: how many make it worth to look for lapsed ones
}

// sweepLeast is the fewest entries that are looked through for lapsed ones.
const sweepLeast = 1024

func suppressionKey(tenant string, a mail.Address) string {
	return mail.SubjectToken(tenant) + "." + hashKey(a.Key())
}

func (x *suppressionIndex) has(tenant string, a mail.Address) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	until, ok := x.until[suppressionKey(tenant, a)]
	return ok && (until.IsZero() || time.Now().Before(until))
}

func (x *suppressionIndex) set(key string, until time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.until == nil {
		x.until = map[string]time.Time{}
	}
	x.until[key] = until
	if len(x.until) < max(x.sweep, sweepLeast) {
		return
	}
	// The store removes a lapsed suppression without a word.
	now := time.Now()
	maps.DeleteFunc(x.until, func(_ string, until time.Time) bool { return !until.IsZero() && now.After(until) })
	x.sweep = 2 * len(x.until)
}

func (x *suppressionIndex) drop(key string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.until, key)
}

// Suppress stops mail of one tenant to one address; nil means that it is safe and in
// force here, and in a moment on every node. A message that waits for the address ends
// as suppressed when it is due.
func (q *Queue) Suppress(ctx context.Context, s mail.Suppression) error {
	key := suppressionKey(s.Tenant, s.Address)
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("suppress: %w", err)
	}
	var h nats.Header
	if !s.Until.IsZero() {
		h = nats.Header{headerTTL: {ttl(time.Until(s.Until) + time.Hour)}}
	}
	if _, err := q.store.putWith(ctx, bucketSuppressed, key, b, casNone, h); err != nil {
		return fmt.Errorf("suppress: %w", err)
	}
	q.suppressions.set(key, s.Until)
	return nil
}

// Lift ends a suppression and records in the event log who lifted it and why.
// ErrNotFound: there is none.
func (q *Queue) Lift(ctx context.Context, tenant string, a mail.Address, by, reason string) error {
	key := suppressionKey(tenant, a)
	have, err := q.readSuppression(ctx, key)
	if err != nil {
		return err
	}
	// The fact first: a lift that nobody is named for must not happen (law 10).
	e := mail.Event{
		ID: "lifted." + hashKey(tenant, a.Key(), have.Since.UTC().Format(time.RFC3339Nano)),
		At: time.Now().UTC(), State: mail.EventLifted, Tenant: tenant, To: a,
		By: by, Reason: reason, Other: have.Message, Cause: have.Cause,
	}
	if err := q.Record(ctx, e); err != nil {
		return err
	}
	if err := q.store.remove(ctx, bucketSuppressed, key, casNone); err != nil {
		return fmt.Errorf("lift: %w", err)
	}
	q.suppressions.drop(key)
	return nil
}

// Unsuppress ends a suppression without a fact of its own: whoever follows the event
// log carries out a lift that it tells of. Ending none is no error.
func (q *Queue) Unsuppress(ctx context.Context, tenant string, a mail.Address) error {
	key := suppressionKey(tenant, a)
	if err := q.store.remove(ctx, bucketSuppressed, key, casNone); err != nil {
		return fmt.Errorf("unsuppress: %w", err)
	}
	q.suppressions.drop(key)
	return nil
}

func (q *Queue) readSuppression(ctx context.Context, key string) (*mail.Suppression, error) {
	e, err := q.store.get(ctx, bucketSuppressed, key)
	if err != nil {
		return nil, err
	}
	s := &mail.Suppression{}
	if err := json.Unmarshal(e.data, s); err != nil {
		return nil, errRecord
	}
	return s, nil
}

// Suppressed returns the suppression in force for an address, nil if there is none.
func (q *Queue) Suppressed(ctx context.Context, tenant string, a mail.Address) (*mail.Suppression, error) {
	if !q.suppressions.has(tenant, a) {
		return nil, nil
	}
	s, err := q.readSuppression(ctx, suppressionKey(tenant, a))
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return s, err
}

// Suppressions lists those in force of one tenant, or of all for "*", by address.
func (q *Queue) Suppressions(ctx context.Context, tenant string) ([]mail.Suppression, error) {
	filter := ">"
	if tenant != "*" {
		filter = mail.SubjectToken(tenant) + ".*"
	}
	now := time.Now()
	var list []mail.Suppression
	var bad error
	err := q.store.walk(ctx, bucketSuppressed, filter, func(_ string, b []byte) {
		var s mail.Suppression
		if json.Unmarshal(b, &s) != nil {
			bad = errRecord
		} else if s.Until.IsZero() || now.Before(s.Until) {
			list = append(list, s)
		}
	})
	slices.SortFunc(list, func(a, b mail.Suppression) int {
		return cmp.Or(cmp.Compare(a.Address, b.Address), cmp.Compare(a.Tenant, b.Tenant))
	})
	return list, errors.Join(err, bad)
}

// follow learns the suppressions and pauses, and begins to follow their changes.
func (q *Queue) follow(ctx context.Context) error {
	if err := q.loadPauses(ctx); err != nil {
		return err
	}
	if err := q.watchKeys(ctx, bucketShared, pauseMap+".>", func(e jetstream.KeyValueEntry) {
		if e == nil {
			return
		}
		if err := q.loadPauses(q.ctx); err != nil && q.ctx.Err() == nil {
			q.o.Log.Warn("the pauses could not be read", "err", err)
		}
	}); err != nil {
		return err
	}
	return q.watchKeys(ctx, bucketSuppressed, ">", func(e jetstream.KeyValueEntry) {
		if e == nil {
			return
		}
		var s mail.Suppression
		if e.Operation() != jetstream.KeyValuePut || json.Unmarshal(e.Value(), &s) != nil {
			q.suppressions.drop(e.Key())
			return
		}
		q.suppressions.set(e.Key(), s.Until)
	})
}

// watchKeys calls f for what is there, before it returns, and then, from a goroutine
// of its own, for every change.
func (q *Queue) watchKeys(ctx context.Context, bucket, filter string, f func(jetstream.KeyValueEntry)) error {
	kv, err := q.store.js.KeyValue(ctx, bucket)
	if err != nil {
		return fmt.Errorf("follow %s: %w", bucket, err)
	}
	w, err := kv.Watch(q.ctx, filter)
	if err != nil {
		return fmt.Errorf("follow %s: %w", bucket, err)
	}
	for {
		select {
		case e, ok := <-w.Updates():
			if !ok {
				return fmt.Errorf("follow %s: broke off", bucket)
			}
			if e == nil {
				q.wg.Go(func() {
					defer w.Stop()
					for {
						select {
						case e, ok := <-w.Updates():
							if !ok {
								return
							}
							f(e)
						case <-q.ctx.Done():
							return
						}
					}
				})
				return nil
			}
			f(e)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
