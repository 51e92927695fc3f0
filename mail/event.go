package mail

import (
	"strconv"
	"time"
)

// State is where a message stands, or what an event says of it.
//
//	queued ─▶ sending ─▶ accepted            (then perhaps returned, complained)
//	  ▲         │  ├───▶ refused
//	  └ delayed ◀┘  └───▶ expired
//	 queued, delayed ──▶ superseded, cancelled, expired, suppressed
type State string

// The states of a message. The first three are open, the next six terminal: every
// accepted message reaches exactly one of them (law 2). The last two may follow
// StateAccepted.
const (
	StateQueued  State = "queued"  // safe, and waiting for its first attempt
	StateSending State = "sending" // an attempt is under way; never recorded, only shown
	StateDelayed State = "delayed" // an attempt ended without a decision; another follows

	StateAccepted   State = "accepted"   // handed over: the next server said 2xx to the final dot
	StateRefused    State = "refused"    // a final no, or one that we must take for final
	StateExpired    State = "expired"    // expires_at passed first (law 3)
	StateSuperseded State = "superseded" // a newer message with the same supersede key (law 4)
	StateCancelled  State = "cancelled"  // by whoever asked for it
	StateSuppressed State = "suppressed" // the address was suppressed after it was accepted

	StateReturned   State = "returned"   // a bounce came back later
	StateComplained State = "complained" // the recipient's provider reported it as unwanted
)

// What an event can say beside a state.
const (
	EventAtRisk        State = "at_risk"        // the next attempt comes after expires_at, or would
	EventResent        State = "resent"         // support sent it again; Event.Other is the new message
	EventLifted        State = "lifted"         // a suppression was lifted
	EventUsed          State = "used"           // the auth service: the link or code was used
	EventExpiredUnused State = "expired_unused" // the auth service: it lapsed
	EventWrongPerson   State = "wrong_person"   // the auth service: another person tried to use it
)

// Terminal reports whether no attempt can follow.
func (s State) Terminal() bool {
	switch s {
	case StateAccepted, StateRefused, StateExpired, StateSuperseded, StateCancelled, StateSuppressed:
		return true
	}
	return false
}

// Open reports whether an attempt may follow.
func (s State) Open() bool {
	return s == StateQueued || s == StateSending || s == StateDelayed
}

// Event is one fact, complete in itself: whoever reads it needs no other to
// understand it. It holds no secret. Recording one twice changes nothing: the same
// fact has the same ID.
type Event struct {
	ID    string    `json:"id"`
	At    time.Time `json:"at"`
	State State     `json:"state"`

	Message    ID                `json:"message,omitempty"`
	Ref        Ref               `json:"ref,omitempty"`
	Kind       string            `json:"kind,omitempty"`
	Tenant     string            `json:"tenant,omitempty"`
	TenantName string            `json:"tenant_name,omitempty"`
	PersonID   string            `json:"person_id,omitempty"`
	To         Address           `json:"to,omitempty"`
	ToName     string            `json:"to_name,omitempty"`
	Locale     string            `json:"locale,omitempty"`
	Template   string            `json:"template,omitempty"`
	Tags       []string          `json:"tags,omitempty"`
	Metadata   map[string]string `json:"metadata,omitempty"`
	Source     string            `json:"source,omitempty"`
	QueuedAt   time.Time         `json:"queued_at,omitzero"`
	ExpiresAt  time.Time         `json:"expires_at,omitzero"`
	ResendOf   ID                `json:"resend_of,omitempty"`

	Attempt           int       `json:"attempt,omitempty"` // the attempt that this is about; 0 before the first
	Cause             Cause     `json:"cause,omitempty"`
	Suppress          bool      `json:"suppress,omitempty"`
	PossibleDuplicate bool      `json:"possible_duplicate,omitempty"`
	Evidence          *Evidence `json:"evidence,omitempty"`
	NextAttempt       time.Time `json:"next_attempt,omitzero"`

	By     string `json:"by,omitempty"`     // who did it, where a person or a service did
	Reason string `json:"reason,omitempty"` // and why
	Other  ID     `json:"other,omitempty"`  // the message that supersedes this one, or was sent instead
}

// NewEvent makes the event that says state of m at the given time, after attempt
// attempts.
func NewEvent(m *Message, state State, attempt int, at time.Time) Event {
	return Event{
		ID: EventID(m.ID, state, attempt), At: at, State: state,
		Message: m.ID, Ref: m.Ref, Kind: m.Kind, Tenant: m.Tenant, TenantName: m.TenantName,
		PersonID: m.PersonID, To: m.To, ToName: m.ToName, Locale: m.Locale, Template: m.Template,
		Tags: m.Tags, Metadata: m.Metadata, Source: m.Source,
		QueuedAt: m.QueuedAt, ExpiresAt: m.ExpiresAt, ResendOf: m.ResendOf,
		Attempt: attempt,
	}
}

// EventID is the identity of a fact: message, state and attempt.
func EventID(m ID, state State, attempt int) string {
	return string(m) + "." + string(state) + "." + strconv.Itoa(attempt)
}

// LoggedEvent is an event with its place in the event log. Places grow; they have
// gaps.
type LoggedEvent struct {
	Seq uint64
	Event
}

// Suppression stops mail of one tenant to one address.
type Suppression struct {
	Tenant  string    `json:"tenant"`
	Address Address   `json:"address"`
	Cause   Cause     `json:"cause"`
	Since   time.Time `json:"since"`
	Until   time.Time `json:"until,omitzero"` // zero: until lifted
	By      string    `json:"by"`             // "deliverd", or a person
	Reason  string    `json:"reason,omitempty"`
	Message ID        `json:"message,omitempty"` // the message whose refusal caused it
	Reply   string    `json:"reply,omitempty"`
}
