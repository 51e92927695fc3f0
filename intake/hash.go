package intake

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// meaning is what a request says, written in one way only: two requests with equal
// meanings ask for the same mail. The order of names, the spelling of times, an
// address with or without blanks around it, and null or an absent field make no
// difference; everything that the recipient could see does. A field is never taken
// out of it or renamed, or keys that are being kept would conflict: add one with
// omitempty.
type meaning struct {
	Kind         string            `json:"kind"`
	To           mail.Address      `json:"to"` // as prepared
	ToName       string            `json:"to_name,omitempty"`
	Tenant       string            `json:"tenant,omitempty"` // as filled in from the caller
	TenantName   string            `json:"tenant_name,omitempty"`
	PersonID     string            `json:"person_id,omitempty"`
	Locale       string            `json:"locale,omitempty"`
	Template     string            `json:"template,omitempty"`
	Data         map[string]any    `json:"data,omitempty"`
	Secrets      []string          `json:"secrets,omitempty"` // a set
	From         string            `json:"from,omitempty"`
	ReplyTo      string            `json:"reply_to,omitempty"`
	ExpiresAt    string            `json:"expires_at,omitempty"` // in UTC
	SupersedeKey string            `json:"supersede_key,omitempty"`
	Tags         []string          `json:"tags,omitempty"` // a set
	Metadata     map[string]string `json:"metadata,omitempty"`
	ResendOf     mail.ID           `json:"resend_of,omitempty"`
}

// requestHash is a keyed hash of what a request means. It is keyed because it is
// stored in clear: a bare hash of a request that differs from a known one in six
// digits only would tell the digits.
func requestHash(key []byte, r *mail.Request, to mail.Address) ([32]byte, error) {
	m := meaning{
		Kind: r.Kind, To: to, ToName: r.ToName, Tenant: r.Tenant, TenantName: r.TenantName,
		PersonID: r.PersonID, Locale: r.Locale, Template: r.Template, Data: r.Data,
		Secrets: set(r.Secrets), From: r.From, ReplyTo: r.ReplyTo, SupersedeKey: r.SupersedeKey,
		Tags: set(r.Tags), Metadata: r.Metadata, ResendOf: r.ResendOf,
	}
	if !r.ExpiresAt.IsZero() {
		m.ExpiresAt = r.ExpiresAt.UTC().Format(time.RFC3339Nano)
	}
	text, err := json.Marshal(m) // names of maps come out sorted
	if err != nil {              // a Go caller's data; what is decoded can be encoded
		return [32]byte{}, invalid("data", "There is a value in data that JSON can't say.")
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("deliverd request 1\x00"))
	mac.Write(text)
	return [32]byte(mac.Sum(nil)), nil
}

func set(s []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(s)))
}

// maxKey bounds an idempotency key: a UUID has 36 characters, a URL-like one fits.
const maxKey = 255

func checkKey(key string) error {
	if len(key) > maxKey {
		return invalid("idempotency_key", "An idempotency key has at most 255 characters.")
	}
	if strings.ContainsFunc(key, func(c rune) bool { return c < ' ' || c > '~' }) {
		return invalid("idempotency_key", "An idempotency key has printable ASCII characters only.")
	}
	return nil
}
