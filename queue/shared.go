package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/deliverd/deliverd/mail"
)

// Shared is a small durable map that all nodes share: tokens, pauses, marks. A value
// is at most some hundred KiB.
type Shared struct {
	q      *Queue
	prefix string
}

// ErrExists is what Create returns for a key that has a value.
var ErrExists = errors.New("the key has a value already")

// Shared returns the map of a name: letters, digits, "-", "_" and dots.
func (q *Queue) Shared(ctx context.Context, name string) (*Shared, error) {
	for part := range strings.SplitSeq(name, ".") {
		if part == "" || mail.SubjectToken(part) != part {
			return nil, fmt.Errorf("queue: %q is not a name for a shared map", name)
		}
	}
	return &Shared{q: q, prefix: name + "."}, ctx.Err()
}

// sharedKey keeps the dots of a key, so that it stays readable.
func sharedKey(key string) string {
	parts := strings.Split(key, ".")
	for i, p := range parts {
		parts[i] = mail.SubjectToken(p)
	}
	return strings.Join(parts, ".")
}

// Get returns a value, and ErrNotFound.
func (s *Shared) Get(ctx context.Context, key string) ([]byte, error) {
	e, err := s.q.store.get(ctx, bucketShared, s.prefix+sharedKey(key))
	if err != nil {
		return nil, err
	}
	return e.data, nil
}

// Put sets a value; nil means that it is safe.
func (s *Shared) Put(ctx context.Context, key string, value []byte) error {
	_, err := s.q.store.put(ctx, bucketShared, s.prefix+sharedKey(key), value, casNone)
	return err
}

// Create sets a value that must not be there yet: ErrExists.
func (s *Shared) Create(ctx context.Context, key string, value []byte) error {
	_, err := s.q.store.put(ctx, bucketShared, s.prefix+sharedKey(key), value, casCreate)
	if errors.Is(err, errConflict) {
		return ErrExists
	}
	return err
}

// PutFor sets a value that the store forgets after life, in whole seconds and at least
// one.
func (s *Shared) PutFor(ctx context.Context, key string, value []byte, life time.Duration) error {
	_, err := s.q.store.putWith(ctx, bucketShared, s.prefix+sharedKey(key), value, casNone, nats.Header{headerTTL: {ttl(life)}})
	return err
}

// CreateFor is PutFor for a key that must not have a value: ErrExists.
func (s *Shared) CreateFor(ctx context.Context, key string, value []byte, life time.Duration) error {
	_, err := s.q.store.putWith(ctx, bucketShared, s.prefix+sharedKey(key), value, casCreate, nats.Header{headerTTL: {ttl(life)}})
	if errors.Is(err, errConflict) {
		return ErrExists
	}
	return err
}

// Delete removes a value; removing none is no error.
func (s *Shared) Delete(ctx context.Context, key string) error {
	if _, err := s.Get(ctx, key); errors.Is(err, ErrNotFound) {
		return nil
	}
	return s.q.store.remove(ctx, bucketShared, s.prefix+sharedKey(key), casNone)
}

// All returns the whole map.
func (s *Shared) All(ctx context.Context) (map[string][]byte, error) {
	all := map[string][]byte{}
	err := s.q.store.walk(ctx, bucketShared, s.prefix+">", func(key string, value []byte) {
		all[unescapeKey(strings.TrimPrefix(key, s.prefix))] = value
	})
	return all, err
}

// unescapeKey is the inverse of sharedKey.
func unescapeKey(key string) string {
	parts := strings.Split(key, ".")
	for i, p := range parts {
		parts[i] = mail.FromSubjectToken(p)
	}
	return strings.Join(parts, ".")
}

// walk calls f for every key that a filter matches and that holds a value.
func (s *store) walk(ctx context.Context, bucket, filter string, f func(key string, value []byte)) error {
	kv, err := s.js.KeyValue(ctx, bucket)
	if err != nil {
		return fmt.Errorf("read %s: %w", bucket, err)
	}
	w, err := kv.Watch(ctx, filter, jetstream.IgnoreDeletes())
	if err != nil {
		return fmt.Errorf("read %s: %w", bucket, err)
	}
	defer w.Stop()
	for {
		select {
		case e, ok := <-w.Updates():
			if !ok {
				return fmt.Errorf("read %s: the walk broke off", bucket)
			}
			if e == nil {
				return nil
			}
			f(e.Key(), e.Value())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
