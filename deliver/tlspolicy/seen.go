package tlspolicy

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"time"
)

// Store keeps small values by name, durably and for all nodes. Get's error is any
// for which nothing is known; Delete of what is not there is no error.
type Store interface {
	Get(ctx context.Context, key string) ([]byte, error)
	Put(ctx context.Context, key string, value []byte) error
	Delete(ctx context.Context, key string) error
	All(ctx context.Context) (map[string][]byte, error)
}

const (
	// seenFor is how long a host's TLS is remembered. Who has offered none for a month
	// has been asked for nothing else.
	seenFor = 30 * 24 * time.Hour
	// seenAgain is how old a mark may grow before it is written anew: one small write a
	// host and week.
	seenAgain = 7 * 24 * time.Hour
	// seenMost bounds the hosts that are remembered here; the store has the others.
	seenMost = 20_000
	// seenEvery is how often new marks are written.
	seenEvery = 10 * time.Second
)

// Seen remembers which hosts took a TLS connection from us, so that it is noticed
// when one no longer does: its administrator made a mistake, or somebody on the way
// takes STARTTLS out of what it says (RFC 7435 7). It decides nothing.
type Seen struct {
	store Store
	log   *slog.Logger

	mu      sync.Mutex
	last    map[string]time.Time // by host; zero: the store has no mark
	unsaved map[string]time.Time
}

// NewSeen keeps its marks in a store; nil: in memory alone.
func NewSeen(store Store, log *slog.Logger) *Seen {
	return &Seen{store: store, log: log, last: map[string]time.Time{}, unsaved: map[string]time.Time{}}
}

// Encrypted notes that a host took a TLS connection. It reads memory only.
func (s *Seen) Encrypted(host string) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if last, known := s.last[host]; known && now.Sub(last) < seenAgain {
		return
	}
	s.remember(host, now)
	if s.store != nil && len(s.unsaved) < seenMost {
		s.unsaved[host] = now
	}
}

// Last returns when a host took a TLS connection, to a week; zero if it did not within
// a month, as far as is known.
func (s *Seen) Last(ctx context.Context, host string) time.Time {
	s.mu.Lock()
	last, known := s.last[host]
	s.mu.Unlock()
	if !known && s.store != nil {
		last = s.stored(ctx, host)
		s.mu.Lock()
		s.remember(host, last)
		s.mu.Unlock()
	}
	if time.Since(last) > seenFor {
		return time.Time{}
	}
	return last
}

// remember takes a mark into memory, and makes room a quarter at a time. The mutex is
// held.
func (s *Seen) remember(host string, at time.Time) {
	if _, known := s.last[host]; !known && len(s.last) >= seenMost {
		for h := range s.last {
			if delete(s.last, h); len(s.last) < seenMost*3/4 {
				break
			}
		}
	}
	s.last[host] = at
}

func (s *Seen) stored(ctx context.Context, host string) (at time.Time) {
	if text, err := s.store.Get(ctx, host); err == nil {
		_ = json.Unmarshal(text, &at) // a mark that can't be read is none
	}
	return at
}

// Keep writes new marks until ctx ends, and once more then.
func (s *Seen) Keep(ctx context.Context) {
	tick := time.NewTicker(seenEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
		s.Save(context.WithoutCancel(ctx))
	}
}

// Save writes the new marks now. One that the store has already, from another node or
// before a restart, is not written again.
func (s *Seen) Save(ctx context.Context) {
	s.mu.Lock()
	unsaved := s.unsaved
	s.unsaved = map[string]time.Time{}
	s.mu.Unlock()
	for host, at := range unsaved {
		if at.Sub(s.stored(ctx, host)) < seenAgain {
			continue
		}
		text, err := json.Marshal(at.UTC().Truncate(time.Second))
		if err == nil {
			err = s.store.Put(ctx, host, text)
		}
		if err != nil {
			s.log.Warn("who offers TLS could not be noted; a downgrade may go unnoticed", "host", host, "error", err)
			return
		}
	}
}

// Forget drops the marks that are too old to matter from the store.
func (s *Seen) Forget(ctx context.Context) error {
	if s.store == nil {
		return nil
	}
	all, err := s.store.All(ctx)
	if err != nil {
		return err
	}
	for host, text := range all {
		var at time.Time
		if json.Unmarshal(text, &at) == nil && time.Since(at) < seenFor {
			continue
		}
		if err := s.store.Delete(ctx, host); err != nil {
			return err
		}
	}
	return nil
}
