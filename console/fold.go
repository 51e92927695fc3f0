package console

import (
	"crypto/sha256"
	"encoding/hex"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// Summary is where one message stands: the fold of the facts about it. It is a row
// of a list and the head of a [Message].
type Summary struct {
	ID         mail.ID      `json:"id"`
	Ref        mail.Ref     `json:"ref"`
	State      mail.State   `json:"state"`
	Kind       string       `json:"kind"`
	Tenant     string       `json:"tenant,omitempty"`
	TenantName string       `json:"tenant_name,omitempty"`
	Person     string       `json:"person"`              // the id under /v1/people, see [PersonKey]
	PersonID   string       `json:"person_id,omitempty"` // as the auth service named the person
	To         mail.Address `json:"to"`
	ToName     string       `json:"to_name,omitempty"`
	Locale     string       `json:"locale,omitempty"`
	Template   string       `json:"template,omitempty"`
	Source     string       `json:"source,omitempty"`
	ResendOf   mail.ID      `json:"resend_of,omitempty"`
	QueuedAt   time.Time    `json:"queued_at,omitzero"`
	ExpiresAt  time.Time    `json:"expires_at,omitzero"`
	// ChangedAt is when the message came into State.
	ChangedAt time.Time `json:"changed_at,omitzero"`
	// Attempts is the number of the latest attempt that ended.
	Attempts          int        `json:"attempts_made"`
	Cause             mail.Cause `json:"cause,omitempty"`
	Provider          string     `json:"provider,omitempty"`
	NextAttempt       time.Time  `json:"next_attempt,omitzero"` // only while State is open
	AtRisk            bool       `json:"at_risk,omitempty"`     // only while State is open
	PossibleDuplicate bool       `json:"possible_duplicate,omitempty"`
}

// standing is a Summary while it is being folded.
type standing struct {
	Summary
	// rank, attempt and seq are those of the fact that decided the state.
	rank    int
	attempt int
	seq     uint64
	lastAt  time.Time // the latest fact of any sort
	atRisk  bool      // was at risk at any time
}

// rank orders the facts about a message by how much they settle; it is different
// for every state, so that rank and attempt together name one fact. A fact that is
// not a state has rank 0 and settles nothing.
//
// Handed over beats the other ends: if both are ever recorded, the mail is out.
// Whatever came back later beats handed over, and a complaint proves that the mail
// was seen.
func rank(s mail.State) int {
	switch s {
	case mail.StateQueued:
		return 1
	case mail.StateDelayed:
		return 2
	case mail.StateSuppressed:
		return 3
	case mail.StateExpired:
		return 4
	case mail.StateCancelled:
		return 5
	case mail.StateSuperseded:
		return 6
	case mail.StateRefused:
		return 7
	case mail.StateAccepted:
		return 8
	case mail.StateReturned:
		return 9
	case mail.StateComplained:
		return 10
	}
	return 0
}

// fold adds one fact to a standing. It is idempotent, commutative and associative:
// every field is a maximum over the facts seen, or belongs to the fact that is the
// maximum by (rank, attempt, lowest place in the log).
func (s *standing) fold(e mail.LoggedEvent) {
	s.foldIdentity(&e.Event)
	s.Attempts = max(s.Attempts, e.Attempt)
	s.PossibleDuplicate = s.PossibleDuplicate || e.PossibleDuplicate
	s.atRisk = s.atRisk || e.State == mail.EventAtRisk
	s.lastAt = later(s.lastAt, e.At)

	if r := rank(e.State); s.seq == 0 || r > s.rank ||
		r == s.rank && (e.Attempt > s.attempt || e.Attempt == s.attempt && e.Seq < s.seq) {
		s.decide(e, r)
	}
	s.AtRisk = s.atRisk && s.State.Open()
}

func (s *standing) decide(e mail.LoggedEvent, r int) {
	s.rank, s.attempt, s.seq = r, e.Attempt, e.Seq
	s.State = e.State
	if r == 0 {
		s.State = implied(e.State)
	}
	s.ChangedAt, s.Cause, s.Provider, s.NextAttempt = e.At, e.Cause, "", time.Time{}
	if e.Evidence != nil {
		s.Provider = e.Evidence.Provider
	}
	if s.State.Open() {
		s.NextAttempt = e.NextAttempt
	}
}

// StateUnknown is a message's state when only facts beside its states are known: the
// log's retention has dropped the rest, or it comes later.
const StateUnknown mail.State = "unknown"

// implied is the state that a fact beside the states lets one conclude.
func implied(event mail.State) mail.State {
	switch event {
	case mail.EventAtRisk:
		return mail.StateQueued
	case mail.EventUsed, mail.EventWrongPerson: // so somebody had it
		return mail.StateAccepted
	}
	return StateUnknown
}

// foldIdentity takes over who and what the message is about. Facts agree about
// that, or lack it; should two ever disagree, the greater value wins, as any rule
// will do that ignores their order.
func (s *standing) foldIdentity(e *mail.Event) {
	s.ID = e.Message
	s.Ref = max(s.Ref, e.Ref)
	s.Kind = max(s.Kind, e.Kind)
	s.Tenant = max(s.Tenant, e.Tenant)
	s.TenantName = max(s.TenantName, e.TenantName)
	s.PersonID = max(s.PersonID, e.PersonID)
	s.To = max(s.To, e.To)
	s.ToName = max(s.ToName, e.ToName)
	s.Locale = max(s.Locale, e.Locale)
	s.Template = max(s.Template, e.Template)
	s.Source = max(s.Source, e.Source)
	s.ResendOf = max(s.ResendOf, e.ResendOf)
	s.QueuedAt = later(s.QueuedAt, e.QueuedAt)
	s.ExpiresAt = later(s.ExpiresAt, e.ExpiresAt)
	s.Person = PersonKey(s.Tenant, s.PersonID, s.To)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// PersonKey names a person in URLs: "per_" and 24 hexadecimal digits. A person is a
// tenant's person id where the auth service gave one, else a tenant's address.
func PersonKey(tenant, personID string, to mail.Address) string {
	who := "p\x00" + personID
	if personID == "" {
		who = "a\x00" + to.Key()
	}
	sum := sha256.Sum256([]byte(tenant + "\x00" + who))
	return "per_" + hex.EncodeToString(sum[:12])
}
