package console

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// Scope is something that a token allows.
type Scope string

// The scopes. None includes another, but for ScopeAdmin, which includes all.
const (
	ScopeSend    Scope = "send"    // hand mail over, report outcomes
	ScopeRead    Scope = "read"    // see messages, people, events, what waits
	ScopeAct     Scope = "act"     // cancel, resend, pause, suppress, lift
	ScopeDomains Scope = "domains" // check domains
	ScopeAdmin   Scope = "admin"   // everything, and tokens
)

// Scopes lists every scope once.
var Scopes = [...]Scope{ScopeSend, ScopeRead, ScopeAct, ScopeDomains, ScopeAdmin}

// AllTenants in a token's Tenants stands for every tenant.
const AllTenants = "*"

// Store keeps small values under keys, durably and for all nodes. Its methods are
// safe for concurrent use.
type Store interface {
	Get(ctx context.Context, key string) (value []byte, found bool, err error)
	Put(ctx context.Context, key string, value []byte) error
	Delete(ctx context.Context, key string) error // deleting what isn't there is no error
	All(ctx context.Context) (map[string][]byte, error)
}

// Token is what is kept of an API token: everything but the token itself.
type Token struct {
	ID        string    `json:"id"` // "tok_" and 16 hexadecimal digits
	Name      string    `json:"name"`
	Scopes    []Scope   `json:"scopes"`
	Tenants   []string  `json:"tenants"`           // or [AllTenants]
	Sources   []string  `json:"sources,omitempty"` // the names under which it may hand mail over; the first is the default
	CreatedAt time.Time `json:"created_at"`
	CreatedBy string    `json:"created_by"`
	ExpiresAt time.Time `json:"expires_at,omitzero"` // zero: never
}

// Tokens issues and checks API tokens. A token is "dlv_" and 40 letters and digits:
// 168 random bits and a checksum, so that a mistyped or invented one is refused
// without asking the store. Only its SHA-256 is kept, which is enough for a random
// value that long.
type Tokens struct {
	store Store
	now   func() time.Time

	mu    sync.Mutex
	known map[string]knownToken // by hash; bounded
}

type knownToken struct {
	token Token
	until time.Time
}

const (
	// knownFor is how long a token is believed without asking the store again: a
	// token revoked on another node works that much longer.
	knownFor = 2 * time.Second
	knownMax = 4096
)

// NewTokens returns the tokens kept in store. now is the clock, nil for time.Now.
func NewTokens(store Store, now func() time.Time) *Tokens {
	if now == nil {
		now = time.Now
	}
	return &Tokens{store: store, now: now, known: map[string]knownToken{}}
}

const (
	tokenPrefix = "dlv_"
	tokenRandom = 21
	tokenLength = len(tokenPrefix) + 40
)

var tokenEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// New issues a token like spec, whose ID and CreatedAt are set here, and returns it
// with what its owner sends: shown once and not kept. Errors are *mail.Problem, or
// the store's.
func (t *Tokens) New(ctx context.Context, spec Token) (secret string, made Token, err error) {
	if p := spec.check(t.now()); p != nil {
		return "", Token{}, p
	}
	b := make([]byte, tokenRandom, tokenRandom+4)
	rand.Read(b)
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	secret = tokenPrefix + tokenEncoding.EncodeToString(b)
	key := tokenKey(secret)
	spec.ID = "tok_" + key[:16]
	spec.CreatedAt = t.now().UTC().Truncate(time.Second)
	value, err := json.Marshal(spec)
	if err != nil {
		return "", Token{}, err
	}
	if err := t.store.Put(ctx, key, value); err != nil {
		return "", Token{}, fmt.Errorf("keep the token: %w", err)
	}
	return secret, spec, nil
}

func (t *Token) check(now time.Time) *mail.Problem {
	switch {
	case strings.TrimSpace(t.Name) == "" || len(t.Name) > 100 || strings.ContainsFunc(t.Name, isControl):
		return invalid("name", "Give the token a name of at most 100 characters that tells who uses it.")
	case len(t.Scopes) == 0:
		return invalid("scopes", "Name at least one scope: send, read, act, domains or admin.")
	case slices.ContainsFunc(t.Scopes, func(s Scope) bool { return !slices.Contains(Scopes[:], s) }):
		return invalid("scopes", "The scopes are send, read, act, domains and admin.")
	case len(t.Tenants) == 0:
		return invalid("tenants", `Name the tenants that the token is for, or "*" for all.`)
	case slices.Contains(t.Tenants, "") || len(t.Tenants) > 100 || len(t.Sources) > 100:
		return invalid("tenants", "At most 100 tenants and 100 sources, none of them empty.")
	case !t.ExpiresAt.IsZero() && !t.ExpiresAt.After(now):
		return invalid("expires_at", "The token would have expired already.")
	}
	return nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 }

// tokenKey is the key under which a token is kept: the SHA-256 of it.
func tokenKey(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// wellFormed reports whether New may have made secret.
func wellFormed(secret string) bool {
	if len(secret) != tokenLength || secret[:len(tokenPrefix)] != tokenPrefix {
		return false
	}
	b, err := tokenEncoding.DecodeString(secret[len(tokenPrefix):])
	if err != nil {
		return false
	}
	sum := binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(b[:tokenRandom]))
	return subtle.ConstantTimeCompare(sum, b[tokenRandom:]) == 1
}

// Check returns the token for what its owner sent. ok is false for one that is
// malformed, unknown, revoked or expired: which of them is not said. The lookup is
// by hash, so its time tells nothing of any token's value.
func (t *Tokens) Check(ctx context.Context, secret string) (token Token, ok bool, err error) {
	if !wellFormed(secret) {
		return Token{}, false, nil
	}
	key := tokenKey(secret)
	token, ok = t.recall(key)
	if !ok {
		value, found, err := t.store.Get(ctx, key)
		if err != nil || !found {
			return Token{}, false, err
		}
		// Into a token of its own: the slices of the one that was remembered are in the
		// hands of requests under way.
		token = Token{}
		if err := json.Unmarshal(value, &token); err != nil {
			return Token{}, false, fmt.Errorf("a kept token can't be read: %w", err)
		}
		t.remember(key, token)
	}
	if !token.ExpiresAt.IsZero() && !t.now().Before(token.ExpiresAt) {
		return Token{}, false, nil
	}
	return token, true, nil
}

func (t *Tokens) recall(key string) (Token, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k, ok := t.known[key]
	return k.token, ok && t.now().Before(k.until)
}

func (t *Tokens) remember(key string, token Token) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.known) >= knownMax {
		clear(t.known)
	}
	t.known[key] = knownToken{token, t.now().Add(knownFor)}
}

// List returns all tokens, the newest first.
func (t *Tokens) List(ctx context.Context) ([]Token, error) {
	kept, err := t.store.All(ctx)
	if err != nil {
		return nil, err
	}
	tokens := make([]Token, 0, len(kept))
	for _, value := range kept {
		var token Token
		if err := json.Unmarshal(value, &token); err != nil {
			return nil, fmt.Errorf("a kept token can't be read: %w", err)
		}
		tokens = append(tokens, token)
	}
	slices.SortFunc(tokens, func(a, b Token) int {
		if c := b.CreatedAt.Compare(a.CreatedAt); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return tokens, nil
}

// Revoke deletes the token with this ID, or returns ErrNotFound. Here it stops
// working at once, on other nodes within 2 seconds.
func (t *Tokens) Revoke(ctx context.Context, id string) error {
	digits, ok := strings.CutPrefix(id, "tok_")
	if !ok || len(digits) != 16 {
		return ErrNotFound
	}
	kept, err := t.store.All(ctx)
	if err != nil {
		return err
	}
	for key := range kept {
		if strings.HasPrefix(key, digits) {
			if err := t.store.Delete(ctx, key); err != nil {
				return err
			}
			t.mu.Lock()
			delete(t.known, key)
			t.mu.Unlock()
			return nil
		}
	}
	return ErrNotFound
}
