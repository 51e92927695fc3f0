package mail

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"strings"
	"time"
)

// ID names a message: "msg_" and a UUIDv7 in its 36-character form, so that ids
// sort by the time they were made.
type ID string

// Ref is the reference that a person reads on the phone: 8 Crockford base32
// characters with a hyphen in the middle, e.g. "7K3Q-9DXP". It is a function of
// the ID ([ID.Ref]); 40 of its random bits, so two messages in a million may share
// one and a search by Ref can find several.
type Ref string

// Address is an addr-spec in its canonical form: a dot-atom local part as it was
// written, "@", and the domain in lower-case A-labels. Only [ParseAddress] and
// [CleanAddress] make one from foreign text.
type Address string

// Local returns the part before the "@".
func (a Address) Local() string {
	if i := strings.LastIndexByte(string(a), '@'); i >= 0 {
		return string(a[:i])
	}
	return string(a)
}

// Domain returns the part after the "@", in lower-case A-labels.
func (a Address) Domain() string {
	return string(a[strings.LastIndexByte(string(a), '@')+1:])
}

// Key returns the form under which an address is compared: all lower case. Local
// parts are case-sensitive by RFC 5321 2.4, but no mailbox that people have is.
func (a Address) Key() string { return strings.ToLower(string(a)) }

// Message is one mail to one person (law 9). Everything but Data may be stored in
// clear, shown and logged; Data may hold secrets and is sealed by the queue. JSON
// leaves Data out for that reason; see [Message.PublicData].
type Message struct {
	ID             ID                `json:"id"`
	Ref            Ref               `json:"ref"`
	Kind           string            `json:"kind"`
	Tenant         string            `json:"tenant,omitempty"`
	TenantName     string            `json:"tenant_name,omitempty"`
	To             Address           `json:"to"`
	ToName         string            `json:"to_name,omitempty"`
	PersonID       string            `json:"person_id,omitempty"`
	Locale         string            `json:"locale"`
	Template       string            `json:"template"`
	Data           map[string]any    `json:"-"`
	Secrets        []string          `json:"secrets,omitempty"` // names in Data, sorted, with the ones that always are
	From           string            `json:"from"`              // "Acme <no-reply@example.com>", checked
	ReplyTo        string            `json:"reply_to,omitempty"`
	Tags           []string          `json:"tags,omitempty"`
	Metadata       map[string]string `json:"metadata,omitempty"`
	QueuedAt       time.Time         `json:"queued_at"`
	ExpiresAt      time.Time         `json:"expires_at"`
	SupersedeKey   string            `json:"supersede_key,omitempty"` // "" where the kind has none
	IdempotencyKey string            `json:"idempotency_key,omitempty"`
	ResendOf       ID                `json:"resend_of,omitempty"`
	Source         string            `json:"source,omitempty"` // who handed it over: a token's or a NATS subject's name
}

// NewID makes an ID for a message accepted at now.
func NewID(now time.Time) ID {
	var b [16]byte
	rand.Read(b[6:]) // never fails since Go 1.24
	ms := uint64(now.UnixMilli())
	binary.BigEndian.PutUint16(b[0:], uint16(ms>>32))
	binary.BigEndian.PutUint32(b[2:], uint32(ms))
	b[6] = b[6]&0x0f | 0x70 // version 7, RFC 9562 5.7
	b[8] = b[8]&0x3f | 0x80 // variant
	return idFromBytes(b)
}

const hexDigits = "0123456789abcdef"

func idFromBytes(b [16]byte) ID {
	out := make([]byte, 0, len("msg_")+36)
	out = append(out, "msg_"...)
	for i, c := range b {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			out = append(out, '-')
		}
		out = append(out, hexDigits[c>>4], hexDigits[c&15])
	}
	return ID(out)
}

// IDFromBytes is the inverse of [ID.Bytes].
func IDFromBytes(b [16]byte) ID { return idFromBytes(b) }

var errNotAnID = errors.New("not a message id: want msg_ and a UUID, e.g. msg_0195…")

// Bytes returns the 16 bytes of the UUID, and an error for anything that is not an
// ID in its exact canonical form.
func (id ID) Bytes() (b [16]byte, err error) {
	s, ok := strings.CutPrefix(string(id), "msg_")
	if !ok || len(s) != 36 {
		return b, errNotAnID
	}
	n := 0
	for i := 0; i < 36; {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if s[i] != '-' {
				return b, errNotAnID
			}
			i++
			continue
		}
		hi, lo := strings.IndexByte(hexDigits, s[i]), strings.IndexByte(hexDigits, s[i+1])
		if hi < 0 || lo < 0 {
			return b, errNotAnID
		}
		b[n] = byte(hi<<4 | lo)
		n++
		i += 2
	}
	return b, nil
}

// crockford is Crockford's base32 alphabet: no I, L, O or U, which are misread or
// misheard on the phone.
const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// Ref returns the reference of the message with this ID, "" for an invalid ID.
func (id ID) Ref() Ref {
	b, err := id.Bytes()
	if err != nil {
		return ""
	}
	// The last 5 bytes are random in a UUIDv7.
	v := uint64(b[11])<<32 | uint64(b[12])<<24 | uint64(b[13])<<16 | uint64(b[14])<<8 | uint64(b[15])
	var out [9]byte
	for i := 8; i >= 0; i-- {
		if i == 4 {
			out[i] = '-'
			continue
		}
		out[i] = crockford[v&31]
		v >>= 5
	}
	return Ref(out[:])
}

// ParseRef reads a reference as people write it: any case, with or without the
// hyphen, with spaces, and with I, L, O for 1, 1, 0.
func ParseRef(s string) (Ref, bool) {
	var out []byte
	for _, c := range strings.ToUpper(strings.TrimSpace(s)) {
		switch c {
		case '-', ' ', '‐', '‑', '–':
			continue
		case 'I', 'L':
			c = '1'
		case 'O':
			c = '0'
		}
		if c > 127 || strings.IndexByte(crockford, byte(c)) < 0 || len(out) == 9 {
			return "", false
		}
		if len(out) == 4 {
			out = append(out, '-')
		}
		out = append(out, byte(c))
	}
	if len(out) != 9 {
		return "", false
	}
	return Ref(out), true
}
