package console

import (
	"time"

	"github.com/deliverd/deliverd/mail"
)

// Message is the answer to GET /v1/messages/{id|ref}: one message told. [Tell] makes
// it, and the pages and the command line show it.
type Message struct {
	Summary
	Tags     []string          `json:"tags,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
	Lang     string            `json:"lang"` // of the sentences: "en" or "fi"
	TimeZone string            `json:"time_zone"`

	// Verdict is one sentence: where the message stands.
	Verdict string     `json:"verdict"`
	WhoActs mail.Actor `json:"who_acts"`
	// WhoActsText is WhoActs in words: "their IT".
	WhoActsText string `json:"who_acts_text"`
	NextStep    string `json:"next_step,omitempty"` // what that one should do
	// Reply is a text to paste to the customer, where the catalogue of causes has one.
	Reply string `json:"reply,omitempty"`
	// Incident is what its trouble is part of, where it is not alone.
	Incident *Wider `json:"incident,omitempty"`
	// Ahead is what happens next by itself, a sentence; "" when nothing will.
	Ahead string `json:"ahead,omitempty"`
	// Schedule is when the attempts that are ahead begin if all of them fail; empty
	// when none will or none is known.
	Schedule []time.Time `json:"schedule,omitempty"`

	// Story is the timeline, the oldest line first.
	Story []Line `json:"story"`
	// Attempts are those that ended, the first one first.
	Attempts []Attempt `json:"attempts"`
	// SameRef are the ids of other messages with the same reference.
	SameRef []mail.ID `json:"same_ref,omitempty"`
}

// Line is one line of a story.
type Line struct {
	At    time.Time  `json:"at"`
	State mail.State `json:"state"` // the event's verb, e.g. "delayed" or "at_risk"
	Text  string     `json:"text"`  // plain sentences, without At
	Ago   string     `json:"ago"`   // At as seen from now: "12 minutes ago"
}

// Attempt is one attempt that ended.
type Attempt struct {
	Number int        `json:"number"`
	State  mail.State `json:"state"` // accepted, delayed, refused …
	At     time.Time  `json:"at"`    // when it ended
	Cause  mail.Cause `json:"cause,omitempty"`
	Plain  string     `json:"plain,omitempty"` // the cause, a sentence
	// NextAttempt is when the next one was to begin, seen from this one.
	NextAttempt       time.Time      `json:"next_attempt,omitzero"`
	PossibleDuplicate bool           `json:"possible_duplicate,omitempty"`
	Evidence          *mail.Evidence `json:"evidence,omitempty"`
}

// Live is what the queue knows of a message that still waits, beyond the facts that
// it has told: a Backend gives it.
type Live struct {
	// Sending: attempt number Attempt is under way.
	Sending bool
	Attempt int
	// NextAttempt is when the next one begins; zero while Sending or when held.
	NextAttempt time.Time
	// Schedule is when all attempts ahead begin if each fails at once.
	Schedule []time.Time
	// Held is why nothing happens for now: the selector of a pause, e.g.
	// "domain:nordlys.fi"; "" when not held.
	Held string
	// HeldUntil is when that ends, where a maintenance window is the reason.
	HeldUntil time.Time
}
