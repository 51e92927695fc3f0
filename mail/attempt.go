package mail

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// Attempt is what the queue hands to a worker: one message, opened, to be tried
// once.
type Attempt struct {
	Message Message // with Data
	Number  int     // 1 for the first
	Lane    int     // the kind's: 1 is the most urgent
	// Signed is the message as it was rendered and signed for an earlier attempt,
	// nil if none was. Every attempt sends the same bytes.
	Signed []byte
	// Proceed is asked before dialling and again before the final dot: nil, or why
	// the attempt must stop: ErrExpired, ErrSuperseded (before DATA only, law 4),
	// ErrCancelled, ErrInterrupted (the lease on the message may be another's).
	// It reads memory only. Nil means always.
	Proceed func() error
	// Enter is told where the mail goes once the way is known, and before anything is
	// dialled: the name that mail of several domains has in common (see deliver's
	// Plan.Destination). ErrNoRoom: that destination takes no more just now, and the
	// attempt ends without counting. It reads memory only. Nil means always.
	Enter func(destination string) error
}

// Why an attempt stops although nobody refused it.
var (
	ErrExpired     = errors.New("the message expired")
	ErrSuperseded  = errors.New("a newer message takes this one's place")
	ErrCancelled   = errors.New("the message was cancelled")
	ErrInterrupted = errors.New("the attempt was interrupted")
	ErrNoRoom      = errors.New("the destination takes no more for the moment")
)

// Contact is how the servers of a destination fared in an attempt, whatever became of
// the message: what a limit of attempts at once can learn from. A recipient's or a
// message's refusal is a contact in order.
type Contact string

// The contacts; "" says nothing about the destination.
const (
	ContactOK   Contact = "ok"   // a server took part in the conversation to its end
	ContactBusy Contact = "busy" // a server asked for less: 421, or no service before MAIL
	ContactDown Contact = "down" // no server was reached, or the connection was lost
)

// Outcome is how an attempt ended. There is always one (law 7).
type Outcome struct {
	// State is StateAccepted, StateDelayed or StateRefused; StateExpired,
	// StateSuperseded or StateCancelled where Attempt.Proceed said so; and "" where
	// the attempt was interrupted or failed for a reason of our own (a resolver that
	// is down, a key that can't be read): it does not count, Local says why.
	State State
	Local string

	Cause Cause // "" when accepted
	// Suppress says that the cause is a final one about the address itself.
	Suppress bool
	// RetryAfter is the wait that the server's text asked for; 0 if it did not.
	RetryAfter time.Duration
	// PossibleDuplicate: the final dot was or may have been sent and no complete
	// reply was read (RFC 1047).
	PossibleDuplicate bool
	Contact           Contact

	Evidence Evidence
	// Signed is the bytes that were sent or would have been, to be kept for the next
	// attempt; nil if rendering failed.
	Signed []byte
}

// Evidence is what an attempt saw, bounded, without the mail's body and without its
// secrets.
type Evidence struct {
	StartedAt time.Time     `json:"started_at,omitzero"`
	Took      time.Duration `json:"took_ns,omitempty"`
	Provider  string        `json:"provider,omitempty"` // id, e.g. "microsoft365"; "" if not known
	Host      string        `json:"host,omitempty"`     // the MX host that had the last word
	IP        string        `json:"ip,omitempty"`
	Stage     Stage         `json:"stage,omitempty"` // where the conversation was
	Reply     *Reply        `json:"reply,omitempty"` // the reply that decided
	Error     string        `json:"error,omitempty"` // where no reply decided: "connection refused", …
	QueueID   string        `json:"queue_id,omitempty"`
	TLS       *TLS          `json:"tls,omitempty"`
	Reused    bool          `json:"reused,omitempty"` // on a connection that carried another message before
	Bytes     int           `json:"bytes,omitempty"`
	// Tries are the hosts and addresses tried before the last, at most 10.
	Tries []Try `json:"tries,omitempty"`
	// Capabilities are what the server's last EHLO reply offered, at most 1 KiB.
	Capabilities []string `json:"capabilities,omitempty"`
	// Conversation is what was said with the server that had the last word, in order: on
	// a connection that was Reused, about this message. At most 4 KiB; usually half a
	// one, as an attempt that succeeds on a new connection has ten exchanges.
	Conversation []Exchange `json:"conversation,omitempty"`
}

// Exchange is a command and what was answered.
type Exchange struct {
	// Command as it was sent, "" for the greeting, "." for the message. What proves who
	// we are, or whose bounce one is, is left out.
	Command string `json:"command,omitempty"`
	Reply   string `json:"reply,omitempty"` // on one line; "" where none came
	Error   string `json:"error,omitempty"` // why none came
	// Took is from the command to its whole reply. Commands that went out together have
	// the same beginning.
	Took time.Duration `json:"took_ns"`
}

// Try is one address of one host that did not have the last word.
type Try struct {
	Host  string        `json:"host"`
	IP    string        `json:"ip,omitempty"`
	Stage Stage         `json:"stage"`
	Reply *Reply        `json:"reply,omitempty"`
	Error string        `json:"error,omitempty"`
	Took  time.Duration `json:"took_ns,omitempty"`
}

// TLS says how a connection was protected, and who wanted it how. A connection in
// clear has no Version, and its Problem says why.
type TLS struct {
	Version  string    `json:"version"` // "TLS 1.3"
	Cipher   string    `json:"cipher"`
	Verified bool      `json:"verified"`          // the certificate is the host's, by the system's roots
	Problem  string    `json:"problem,omitempty"` // why it is not: "expired on 2026-02-01"
	Names    []string  `json:"names,omitempty"`   // at most 5
	Issuer   string    `json:"issuer,omitempty"`
	Expires  time.Time `json:"expires,omitzero"`

	Policy TLSPolicy `json:"policy,omitempty"`
	// Source is where the policy was found: a policy's id, a TLSA record, a line of our
	// configuration.
	Source string `json:"policy_source,omitempty"`
	// Failure is how the policy was not met, "" where it was. Under TLSTesting the
	// message was sent all the same.
	Failure TLSFailure `json:"failure,omitempty"`
	// Downgrade is when this host last took a TLS connection from us, set where it did
	// not this time.
	Downgrade time.Time `json:"tls_downgrade,omitzero"`
}

// TLSPolicy is who decided how a connection had to be protected.
type TLSPolicy string

// The policies, in the order of precedence where several speak (RFC 8461 2).
const (
	TLSByDANE        TLSPolicy = "dane"            // certificate associations in signed DNS (RFC 7672)
	TLSBySTS         TLSPolicy = "mta-sts"         // the domain's policy, mode enforce (RFC 8461)
	TLSByUnusable    TLSPolicy = "dane-unusable"   // associations that nobody can use: encrypted, not authenticated
	TLSByRequire     TLSPolicy = "requiretls"      // the kind asks for REQUIRETLS (RFC 8689)
	TLSByKind        TLSPolicy = "kind"            // the kind's own floor
	TLSByRelay       TLSPolicy = "relay"           // our own relay, as it is configured
	TLSTesting       TLSPolicy = "mta-sts-testing" // the domain's policy, mode testing: nothing fails by it
	TLSOpportunistic TLSPolicy = "opportunistic"   // nobody asks for anything
)

// TLSFailure is how a connection did not meet its policy: the result types of RFC
// 8460 4.3, and ours for what that has no word for.
type TLSFailure string

// The failures.
const (
	TLSNotOffered       TLSFailure = "starttls-not-supported"
	TLSNameMismatch     TLSFailure = "certificate-host-mismatch"
	TLSExpired          TLSFailure = "certificate-expired"
	TLSNotTrusted       TLSFailure = "certificate-not-trusted"
	TLSInvalid          TLSFailure = "validation-failure"
	TLSHandshake        TLSFailure = "handshake-failed"
	TLSAMismatch        TLSFailure = "tlsa-mismatch"
	TLSALookup          TLSFailure = "dnssec-invalid"
	TLSMXMismatch       TLSFailure = "sts-policy-mx-mismatch"
	TLSNoRequire        TLSFailure = "requiretls-not-supported"
	TLSUnprovenExchange TLSFailure = "requiretls-mx-not-secure"
)

// TLSFloor is the least that a kind asks of every connection, whatever the
// recipient's domain asks for.
type TLSFloor string

// The floors.
const (
	TLSFloorNone     TLSFloor = ""           // what the domain asks for
	TLSFloorRequired TLSFloor = "required"   // never in clear, any certificate
	TLSFloorVerified TLSFloor = "verified"   // a certificate for the host from a trusted root, or by DANE
	TLSFloorRequire  TLSFloor = "requiretls" // verified, and every server on the way promises the same (RFC 8689)
	// TLSFloorIgnored is for reports about TLS, which must arrive despite its failures
	// (RFC 8460 3).
	TLSFloorIgnored TLSFloor = "ignored"
)

// Stage is a step of an attempt.
type Stage string

// The stages in their order.
const (
	StageRender   Stage = "render"
	StageSign     Stage = "sign"
	StageDNS      Stage = "dns"
	StageConnect  Stage = "connect"
	StageGreeting Stage = "greeting"
	StageHello    Stage = "ehlo"
	StageTLS      Stage = "starttls"
	StageAuth     Stage = "auth"
	StageMail     Stage = "mail"
	StageRcpt     Stage = "rcpt"
	StageData     Stage = "data"
	StageBody     Stage = "body"
	StageDot      Stage = "dot"
)

// Reply is an SMTP reply (RFC 5321 4.2): a code from 200 to 599, the enhanced code
// if there was a valid one of the same class, and the text: valid UTF-8 on one line
// without control characters, at most 1 KiB.
type Reply struct {
	Code     int          `json:"code"`
	Enhanced EnhancedCode `json:"enhanced,omitzero"`
	Text     string       `json:"text,omitempty"`
}

// String returns the reply as support would read it out: "550 5.1.1 No such user".
func (r Reply) String() string {
	var b strings.Builder
	b.WriteString(strconv.Itoa(r.Code))
	if r.Enhanced != (EnhancedCode{}) {
		b.WriteByte(' ')
		b.WriteString(r.Enhanced.String())
	}
	if r.Text != "" {
		b.WriteByte(' ')
		b.WriteString(r.Text)
	}
	return b.String()
}

// EnhancedCode is an enhanced status code (RFC 3463): class 2, 4 or 5, subject and
// detail from 0 to 999. The zero value means that there was none.
type EnhancedCode [3]int

// String returns "5.1.1", and "" for the zero value.
func (e EnhancedCode) String() string {
	if e == (EnhancedCode{}) {
		return ""
	}
	return strconv.Itoa(e[0]) + "." + strconv.Itoa(e[1]) + "." + strconv.Itoa(e[2])
}

// ParseEnhancedCode reads "5.1.1" and nothing else.
func ParseEnhancedCode(s string) (EnhancedCode, bool) {
	parts := strings.Split(s, ".")
	if len(parts) != 3 || len(parts[0]) != 1 || strings.IndexByte("245", s[0]) < 0 {
		return EnhancedCode{}, false
	}
	var e EnhancedCode
	for i, p := range parts {
		if len(p) < 1 || len(p) > 3 {
			return EnhancedCode{}, false
		}
		for _, c := range []byte(p) {
			if c < '0' || c > '9' {
				return EnhancedCode{}, false
			}
			e[i] = e[i]*10 + int(c-'0')
		}
	}
	return e, true
}

// MarshalText implements encoding.TextMarshaler.
func (e EnhancedCode) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (e *EnhancedCode) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*e = EnhancedCode{}
		return nil
	}
	v, ok := ParseEnhancedCode(string(b))
	if !ok {
		return errors.New("not an enhanced status code: want class.subject.detail, e.g. 5.1.1")
	}
	*e = v
	return nil
}
