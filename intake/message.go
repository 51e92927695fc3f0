package intake

import (
	"context"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/deliverd/deliverd/mail"
)

// Name says which message is meant: by ID, or by Ref where ID is "".
type Name struct {
	ID  mail.ID
	Ref mail.Ref
}

// Report is what the auth service tells of a message later: the body of POST
// /v1/outcomes and of deliverd.v1.outcome.
type Report struct {
	Name
	// Outcome is mail.EventUsed, EventExpiredUnused or EventWrongPerson.
	Outcome mail.State
	// At is when it happened; the zero time stands for now.
	At time.Time
}

// Noted is the answer to a report that was recorded.
type Noted struct {
	ID      mail.ID    `json:"id"`
	Ref     mail.Ref   `json:"ref"`
	Outcome mail.State `json:"outcome"`
	At      time.Time  `json:"at"`
}

// find returns the one message that is meant. A message of a tenant that the caller
// may not speak for is answered exactly as one that does not exist.
func (in *Intake) find(ctx context.Context, c Caller, n Name, field string) (*mail.Message, error) {
	missing := notFound(field, "There is no such message, or it is older than the log.")
	if in.opts.Find == nil {
		return nil, missing
	}
	found, err := in.opts.Find(ctx, n.ID, n.Ref)
	if err != nil {
		return nil, in.problem(ctx, "find", err)
	}
	var its *mail.Message
	for i := range found {
		if !c.May(found[i].Tenant) {
			continue
		}
		if its != nil {
			return nil, invalid(field, "Two messages have this reference. Name the message by its id.")
		}
		its = &found[i]
	}
	if its == nil {
		return nil, missing
	}
	return its, nil
}

// maxReason bounds a reason in bytes: some sentences.
const maxReason = 500

// Cancel ends an open message of the caller's. The reason is for whoever reads the
// message's story later. An error is always a *mail.Problem.
func (in *Intake) Cancel(ctx context.Context, c Caller, n Name, reason string) (mail.Receipt, error) {
	if len(reason) > maxReason || strings.ContainsFunc(reason, unicode.IsControl) || !utf8.ValidString(reason) {
		return mail.Receipt{}, invalid("reason", "A reason is one line of at most 500 bytes.")
	}
	if strings.TrimSpace(reason) == "" {
		return mail.Receipt{}, invalid("reason", "Say why, in some words: support reads it.")
	}
	m, err := in.find(ctx, c, n, "message")
	if err != nil {
		return mail.Receipt{}, err
	}
	if in.opts.Cancel == nil {
		return mail.Receipt{}, unavailable("Nothing can be cancelled here.")
	}
	if err := in.opts.Cancel(ctx, m.ID, c.Source, reason); err != nil {
		return mail.Receipt{}, in.problem(ctx, "cancel", err)
	}
	return mail.Receipt{ID: m.ID, Ref: m.Ref, State: mail.StateCancelled}, nil
}

// clockSkew is how far the caller's clock may differ from ours.
const clockSkew = 5 * time.Minute

// Outcome records what became of a message's link or code. The same report twice is
// one fact. An error is always a *mail.Problem.
func (in *Intake) Outcome(ctx context.Context, c Caller, r Report) (Noted, error) {
	switch r.Outcome {
	case mail.EventUsed, mail.EventExpiredUnused, mail.EventWrongPerson:
	default:
		return Noted{}, invalid("outcome", "An outcome is used, expired_unused or wrong_person.")
	}
	m, err := in.find(ctx, c, r.Name, "message")
	if err != nil {
		return Noted{}, err
	}
	at := in.now()
	if !r.At.IsZero() {
		if r.At.Before(m.QueuedAt.Add(-clockSkew)) || r.At.After(at.Add(clockSkew)) {
			return Noted{}, invalid("at", "An outcome happens after its message was accepted, and not in the future.")
		}
		at = r.At
	}
	if in.opts.Record == nil {
		return Noted{}, unavailable("No outcomes are recorded here.")
	}
	e := mail.NewEvent(m, r.Outcome, 0, at.UTC())
	e.By = c.Source
	if err := in.opts.Record(ctx, e); err != nil {
		return Noted{}, in.problem(ctx, "record", err)
	}
	return Noted{ID: m.ID, Ref: m.Ref, Outcome: r.Outcome, At: e.At}, nil
}

// named is how a body names a message: {"message": id} or {"ref": ref}, and people
// put either in either.
type named struct{ message, ref string }

func (n *named) fields() []field {
	return []field{{"message", &n.message, aString}, {"ref", &n.ref, aString}}
}

func (n *named) name() (Name, error) {
	if (n.message == "") == (n.ref == "") {
		return Name{}, invalid("message", "Name the message by message (its id) or by ref, one of the two.")
	}
	text := n.message + n.ref
	if id := mail.ID(text); id.Ref() != "" {
		return Name{ID: id}, nil
	}
	if ref, ok := mail.ParseRef(text); ok {
		return Name{Ref: ref}, nil
	}
	return Name{}, invalid("message", "This is neither an id (msg_ and a UUID) nor a reference such as 7K3Q-9DXP.")
}

// decodeReport reads {message|ref, outcome, at}.
func decodeReport(body []byte) (Report, error) {
	var n named
	var r Report
	err := bind(body, append(n.fields(), field{"outcome", &r.Outcome, aString}, field{"at", &r.At, aTime}))
	if err != nil {
		return Report{}, err
	}
	r.Name, err = n.name()
	return r, err
}

// decodeCancel reads {message|ref, reason}.
func decodeCancel(body []byte) (n Name, reason string, err error) {
	var by named
	if err := bind(body, append(by.fields(), field{"reason", &reason, aString})); err != nil {
		return Name{}, "", err
	}
	n, err = by.name()
	return n, reason, err
}
