package console

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// LoginLinks makes links that sign somebody in once, for the day when the sign-in
// system itself is down. A link holds 160 random bits, of which the SHA-256 is kept.
type LoginLinks struct {
	store LapsingStore
	now   func() time.Time
}

// loginLinkLife is how long a login link works: long enough to send it to a colleague
// who waits for it.
const loginLinkLife = 10 * time.Minute

// loginLink is what is kept of a link.
type loginLink struct {
	Name      string    `json:"name"`
	Role      Role      `json:"role"`
	By        string    `json:"by"` // who made it
	Reason    string    `json:"reason"`
	ExpiresAt time.Time `json:"expires_at"`
}

// NewLoginLinks returns the links kept in store. now is the clock, nil for time.Now.
func NewLoginLinks(store LapsingStore, now func() time.Time) *LoginLinks {
	if now == nil {
		now = time.Now
	}
	return &LoginLinks{store: store, now: now}
}

const (
	linkRandom = 20
	linkUsed   = "used."
)

var linkEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// linkKey is the key under which a link is kept; "" for what can be none.
func linkKey(code string) string {
	b, err := linkEncoding.DecodeString(code)
	if err != nil || len(b) != linkRandom {
		return ""
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// New makes a link and returns its code, which is not kept.
func (l *LoginLinks) New(ctx context.Context, spec loginLink) (code string, made loginLink, err error) {
	if p := spec.check(); p != nil {
		return "", loginLink{}, p
	}
	b := make([]byte, linkRandom)
	rand.Read(b)
	code = linkEncoding.EncodeToString(b)
	spec.ExpiresAt = l.now().Add(loginLinkLife).UTC().Truncate(time.Second)
	value, err := json.Marshal(spec)
	if err != nil {
		return "", loginLink{}, err
	}
	if _, err := l.store.Create(ctx, linkKey(code), value, loginLinkLife); err != nil {
		return "", loginLink{}, fmt.Errorf("keep the login link: %w", err)
	}
	return code, spec, nil
}

func (l *loginLink) check() *mail.Problem {
	switch {
	case strings.TrimSpace(l.Name) == "" || len(l.Name) > 100 || strings.ContainsFunc(l.Name, isControl):
		return invalid("name", "Say who will use the link, in at most 100 characters: the log names them so.")
	case l.Role.Scopes() == nil:
		return invalid("role", "The roles are support, operator and admin.")
	}
	return nil
}

// Look returns what a link is for without using it up; false for one that doesn't
// work.
func (l *LoginLinks) Look(ctx context.Context, code string) (link loginLink, ok bool, err error) {
	key := linkKey(code)
	if key == "" {
		return loginLink{}, false, nil
	}
	value, found, err := l.store.Get(ctx, key)
	if err != nil || !found {
		return loginLink{}, false, err
	}
	if err := json.Unmarshal(value, &link); err != nil {
		return loginLink{}, false, fmt.Errorf("a kept login link can't be read: %w", err)
	}
	if !l.now().Before(link.ExpiresAt) {
		return loginLink{}, false, nil
	}
	_, used, err := l.store.Get(ctx, linkUsed+key)
	return link, !used, err
}

// Use returns what a link is for and uses it up: of all callers on all nodes, one has
// ok. The mark of its use outlives the link, so that there is no moment without both.
func (l *LoginLinks) Use(ctx context.Context, code string) (link loginLink, ok bool, err error) {
	link, ok, err = l.Look(ctx, code)
	if err != nil || !ok {
		return loginLink{}, false, err
	}
	ok, err = l.store.Create(ctx, linkUsed+linkKey(code), []byte("1"), 2*loginLinkLife)
	if err != nil || !ok {
		return loginLink{}, false, err
	}
	return link, true, nil
}
