package console

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// LapsingStore is a Store whose values may lapse by themselves.
type LapsingStore interface {
	Store
	// PutFor sets a value that lapses after life, which is rounded up to whole seconds.
	PutFor(ctx context.Context, key string, value []byte, life time.Duration) error
	// Create is PutFor for a key that must have no value: false if it has one. Of all
	// callers on all nodes, one creates.
	Create(ctx context.Context, key string, value []byte, life time.Duration) (created bool, err error)
}

// Session is what is kept of a sign-in: everything but what the browser sends.
type Session struct {
	ID        string    `json:"id"`                // "ses_" and 16 hexadecimal digits
	Name      string    `json:"name"`              // for the log: an e-mail address, mostly
	Subject   string    `json:"subject,omitempty"` // who that is at the sign-in system, which names may change for
	How       string    `json:"how"`               // "oidc" or "link"
	Groups    []string  `json:"groups,omitempty"`  // of the sign-in system: they give the role, by the configuration of the moment
	Role      Role      `json:"role,omitempty"`    // of a login link, for every tenant
	From      string    `json:"from,omitempty"`    // the address of whoever signed in
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at"`
	SeenAt    time.Time `json:"seen_at"` // to a minute
}

// The ways of signing in that leave a session.
const (
	byOIDC = "oidc"
	byLink = "link"
)

// Sessions keeps who is signed in, for all nodes and over restarts. What the browser
// holds is 256 random bits, of which the SHA-256 is kept. A session's own record is
// written once and only ever deleted, so that nothing brings back one that was ended;
// when it was last used is kept beside it, in a value that lapses.
type Sessions struct {
	store  LapsingStore
	limits SessionLimits
	now    func() time.Time

	mu    sync.Mutex
	known map[string]knownSession // by hash; bounded
}

// SessionLimits bounds how long somebody stays signed in.
type SessionLimits struct {
	Idle time.Duration // without a request
	Life time.Duration // whatever happens
}

type knownSession struct {
	session Session
	until   time.Time
}

// seenEvery is how often it is written down that a session is used.
const seenEvery = time.Minute

// NewSessions returns the sessions kept in store. now is the clock, nil for time.Now.
func NewSessions(store LapsingStore, limits SessionLimits, now func() time.Time) *Sessions {
	if now == nil {
		now = time.Now
	}
	return &Sessions{store: store, limits: limits, now: now, known: map[string]knownSession{}}
}

const (
	sessionPrefix = "ses_"
	seenKey       = "seen."
	sessionRandom = 32
)

// sessionKey is the key under which a session is kept; "" for what can be none.
func sessionKey(secret string) string {
	b, err := base64.RawURLEncoding.Strict().DecodeString(secret)
	if err != nil || len(b) != sessionRandom {
		return ""
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// New begins a session like spec, whose ID and times are set here, and returns what
// the browser is to send.
func (s *Sessions) New(ctx context.Context, spec Session) (secret string, made Session, err error) {
	b := make([]byte, sessionRandom)
	rand.Read(b)
	secret = base64.RawURLEncoding.EncodeToString(b)
	key := sessionKey(secret)
	now := s.now().UTC().Truncate(time.Second)
	spec.ID, spec.CreatedAt, spec.SeenAt, spec.ExpiresAt = sessionPrefix+key[:16], now, now, now.Add(s.limits.Life)
	value, err := json.Marshal(spec)
	if err != nil {
		return "", Session{}, err
	}
	if err := s.see(ctx, key, now); err != nil {
		return "", Session{}, fmt.Errorf("keep the session: %w", err)
	}
	if _, err := s.store.Create(ctx, key, value, s.limits.Life); err != nil {
		return "", Session{}, fmt.Errorf("keep the session: %w", err)
	}
	return secret, spec, nil
}

// see writes down that a session is used.
func (s *Sessions) see(ctx context.Context, key string, now time.Time) error {
	return s.store.PutFor(ctx, seenKey+key, []byte(now.UTC().Format(time.RFC3339)), s.limits.Idle+seenEvery)
}

// Check returns the session of what a browser sent. ok is false for one that is
// malformed, unknown, ended, or too old.
func (s *Sessions) Check(ctx context.Context, secret string) (session Session, ok bool, err error) {
	key := sessionKey(secret)
	if key == "" {
		return Session{}, false, nil
	}
	session, known := s.recall(key)
	if !known {
		if session, ok, err = s.load(ctx, key); err != nil || !ok {
			return Session{}, false, err
		}
	}
	now := s.now()
	if !now.Before(session.ExpiresAt) || now.Sub(session.SeenAt) >= s.limits.Idle {
		return Session{}, false, nil
	}
	if now.Sub(session.SeenAt) >= seenEvery {
		if err := s.see(ctx, key, now); err != nil {
			return Session{}, false, err
		}
		session.SeenAt = now
	}
	if !known {
		s.remember(key, session)
	}
	return session, true, nil
}

func (s *Sessions) load(ctx context.Context, key string) (session Session, found bool, err error) {
	value, found, err := s.store.Get(ctx, key)
	if err != nil || !found {
		return Session{}, false, err
	}
	if err := json.Unmarshal(value, &session); err != nil {
		return Session{}, false, fmt.Errorf("a kept session can't be read: %w", err)
	}
	seen, found, err := s.store.Get(ctx, seenKey+key)
	if err != nil || !found {
		return Session{}, false, err
	}
	session.SeenAt, err = time.Parse(time.RFC3339, string(seen))
	return session, err == nil, err
}

func (s *Sessions) recall(key string) (Session, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, ok := s.known[key]
	return k.session, ok && s.now().Before(k.until)
}

func (s *Sessions) remember(key string, session Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.known) >= knownMax {
		clear(s.known)
	}
	s.known[key] = knownSession{session, s.now().Add(knownFor)}
}

// List returns everybody's sessions that are still good, the newest first.
func (s *Sessions) List(ctx context.Context) ([]Session, error) {
	all, err := s.all(ctx)
	list := make([]Session, 0, len(all))
	for _, session := range all {
		list = append(list, session)
	}
	slices.SortFunc(list, func(a, b Session) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), strings.Compare(a.ID, b.ID))
	})
	return list, err
}

// all returns the sessions that are still good, by key.
func (s *Sessions) all(ctx context.Context) (map[string]Session, error) {
	kept, err := s.store.All(ctx)
	if err != nil {
		return nil, err
	}
	now := s.now()
	all := map[string]Session{}
	for key, value := range kept {
		if strings.HasPrefix(key, seenKey) {
			continue
		}
		var session Session
		if err := json.Unmarshal(value, &session); err != nil {
			return nil, fmt.Errorf("a kept session can't be read: %w", err)
		}
		seen, err := time.Parse(time.RFC3339, string(kept[seenKey+key]))
		if err != nil || !now.Before(session.ExpiresAt) || now.Sub(seen) >= s.limits.Idle {
			continue
		}
		session.SeenAt = seen
		all[key] = session
	}
	return all, nil
}

// End ends the sessions that match, and returns them. Here they stop working at once,
// on other nodes within 2 seconds.
func (s *Sessions) End(ctx context.Context, match func(*Session) bool) ([]Session, error) {
	all, err := s.all(ctx)
	if err != nil {
		return nil, err
	}
	var ended []Session
	for key, session := range all {
		if !match(&session) {
			continue
		}
		if err := s.store.Delete(ctx, key); err != nil {
			return ended, err
		}
		s.mu.Lock()
		delete(s.known, key)
		s.mu.Unlock()
		ended = append(ended, session)
		if err := s.store.Delete(ctx, seenKey+key); err != nil {
			return ended, err
		}
	}
	return ended, nil
}

// same reports whether two sessions are one person's.
func (s *Session) same(other *Session) bool {
	if s.Subject != "" || other.Subject != "" {
		return s.Subject == other.Subject
	}
	return s.Name == other.Name
}
