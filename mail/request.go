package mail

import (
	"encoding/json"
	"time"
)

// Request is what an auth service sends: the body of POST /v1/messages and of
// deliverd.v1.send. [Preparer.Prepare] makes a Message of it.
type Request struct {
	Kind         string            `json:"kind"`
	To           string            `json:"to"`
	ToName       string            `json:"to_name,omitempty"`
	Tenant       string            `json:"tenant,omitempty"`
	TenantName   string            `json:"tenant_name,omitempty"`
	PersonID     string            `json:"person_id,omitempty"`
	Locale       string            `json:"locale,omitempty"`
	Template     string            `json:"template,omitempty"` // the kind's name, if empty
	Data         map[string]any    `json:"data,omitempty"`
	Secrets      []string          `json:"secrets,omitempty"`
	From         string            `json:"from,omitempty"`
	ReplyTo      string            `json:"reply_to,omitempty"`
	ExpiresAt    time.Time         `json:"expires_at,omitzero"`
	SupersedeKey string            `json:"supersede_key,omitempty"`
	Tags         []string          `json:"tags,omitempty"`
	Metadata     map[string]string `json:"metadata,omitempty"`
	ResendOf     ID                `json:"resend_of,omitempty"`
	// IdempotencyKey also comes as the header Idempotency-Key or Nats-Msg-Id, which
	// win over the field.
	IdempotencyKey string `json:"idempotency_key,omitempty"`
	// Attached is a whole mail with CRLF line ends that goes along, of at most
	// [MaxAttached] bytes; nil: none does. It comes from deliverd itself only.
	Attached []byte `json:"-"`
}

// Kind is a sort of mail and its rules; configuration makes it. See [DefaultKinds].
type Kind struct {
	Name string
	// Lane orders kinds: 1 is the most urgent and has capacity of its own.
	Lane int
	// ValidFor is how long a message lives whose request has no expires_at.
	ValidFor time.Duration
	// Retries are the waits after attempt 1, 2, 3 …; the last one repeats until
	// expiry.
	Retries []time.Duration
	// Supersede: a newer message to the same person takes an older one's place.
	Supersede bool
	// ResendSame: support may send the same message again while it is valid; without
	// it, only a new one can be asked for.
	ResendSame bool
	// AtMostOnce: an attempt that may have succeeded (RFC 1047) is not repeated. The
	// message is then refused with PossibleDuplicate set, as nobody knows.
	AtMostOnce bool
	// TLS is the least that its connections must be.
	TLS TLSFloor
}

// Receipt is the answer to a request that was taken: the message is safe (law 1).
type Receipt struct {
	ID       ID        `json:"id"`
	Ref      Ref       `json:"ref"`
	State    State     `json:"state"`
	Warnings []Warning `json:"warnings,omitempty"`
	// Replayed: the idempotency key was known, and this is the first request's
	// message.
	Replayed bool `json:"replayed,omitempty"`
}

// MarshalJSON writes warnings as an array even when there are none: scripts read
// .warnings[].
func (r Receipt) MarshalJSON() ([]byte, error) {
	type plain Receipt
	p := struct {
		plain
		Warnings []Warning `json:"warnings"`
	}{plain(r), r.Warnings}
	if p.Warnings == nil {
		p.Warnings = []Warning{}
	}
	return json.Marshal(p)
}
