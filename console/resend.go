package console

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// ResendMode is what sending again means.
type ResendMode string

// The modes. Without one the same message goes while that is possible, and a new one
// is asked for otherwise.
const (
	ResendSame ResendMode = "same" // the same link or code once more
	ResendNew  ResendMode = "new"  // the auth service makes a new one
)

// ResendRequest is the body of POST /v1/messages/{id|ref}/resend.
type ResendRequest struct {
	Reason string     `json:"reason"`
	Mode   ResendMode `json:"mode,omitempty"`
}

// Resent is its answer: the receipt of the message that goes.
type Resent struct {
	ID       mail.ID        `json:"id"`
	Ref      mail.Ref       `json:"ref"`
	State    mail.State     `json:"state"`
	Warnings []mail.Warning `json:"warnings"`
	ResendOf mail.ID        `json:"resend_of"`
	Mode     ResendMode     `json:"mode"`
}

// Resender is what sending again takes. Its errors are *mail.Problem where the caller
// can do something about them.
type Resender interface {
	// Kept reports whether the content of a message is there to be sent as it is, and
	// whether messages of its kind may be.
	Kept(ctx context.Context, id mail.ID, kind string) (kept, allowed bool, err error)
	// Again takes the same content in as a new message; key makes a repeated call the
	// same one.
	Again(ctx context.Context, id mail.ID, key string) (mail.Receipt, error)
	// Renew asks the auth service that the message came from for a new one, and takes
	// that in.
	Renew(ctx context.Context, r Renewal) (mail.Receipt, error)
	// Record adds a fact to the event log.
	Record(ctx context.Context, e mail.Event) error
}

// Renewal is what an auth service is asked on deliverd.v1.renew.<source>. It answers
// with the body of a send: a new link or code for the same person at the same address,
// or with {"problem": {"title", "detail"}}.
type Renewal struct {
	Message    mail.ID      `json:"message"`
	Ref        mail.Ref     `json:"ref"`
	Kind       string       `json:"kind"`
	To         mail.Address `json:"to"`
	ToName     string       `json:"to_name,omitempty"`
	Tenant     string       `json:"tenant,omitempty"`
	TenantName string       `json:"tenant_name,omitempty"`
	PersonID   string       `json:"person_id,omitempty"`
	Locale     string       `json:"locale,omitempty"`
	Template   string       `json:"template,omitempty"`
	ExpiresAt  time.Time    `json:"expires_at,omitzero"` // the old one's
	By         string       `json:"by"`
	Reason     string       `json:"reason"`
	Source     string       `json:"-"` // whom to ask
	Key        string       `json:"-"` // the idempotency key of what comes
}

const (
	// resendMost bounds how often one person is sent something again within
	// resendWithin: somebody who did not see the third will not see the sixth.
	resendMost   = 5
	resendWithin = time.Hour
	// resendHeed is for how long after a hand-over it is said that the mail has only
	// just left: servers take about as long to put it into the mailbox.
	resendHeed = 2 * time.Minute
)

// WarnJustHandedOver is the code of the warning that the message left a moment ago.
const WarnJustHandedOver = "just_handed_over"

// ResendChoice is what may be done about a message, in words for people.
type ResendChoice struct {
	Same    bool   // the same one may go
	WhyNot  string // why not, if not
	New     bool   // a new one may be asked for
	NoNew   string // why not, if not
	Heed    string // what to think of first; "" for nothing
	Limited bool   // neither, as the person has been sent enough
}

// choose says what may be done about a message. others are the person's messages, the
// newest first.
func (c resendCase) choose(now time.Time) ResendChoice {
	s := c.message
	choice := ResendChoice{New: s.Source != ""}
	if !choice.New {
		choice.NoNew = "Nobody knows which service asked for it, so there is nobody to ask for a new one."
	}
	again := 0
	newer := false
	for _, o := range c.others {
		if o.ResendOf != "" && now.Sub(o.QueuedAt) < resendWithin {
			again++
		}
		newer = newer || o.Kind == s.Kind && o.ID > s.ID
	}
	if again >= resendMost {
		why := "This person has been sent mail again 5 times within the hour. Talk to them before the next: the address may be wrong, or the mail is put away at their end."
		return ResendChoice{Limited: true, WhyNot: why, NoNew: why}
	}
	switch {
	case !c.allowed:
		choice.WhyNot = "This kind of mail is not sent twice: its code or link is good for one try of one person. Ask for a new one."
	case s.State.Open():
		choice.WhyNot = "It is still on its way, and is tried again by itself."
	case c.used:
		choice.WhyNot = "Its link has been used."
	case !s.ExpiresAt.IsZero() && !now.Before(s.ExpiresAt):
		choice.WhyNot = "It is not valid any more. Ask for a new one."
	case newer:
		choice.WhyNot = "A newer one was sent: only the newest is good."
	case s.State == mail.StateSuperseded || s.State == mail.StateCancelled:
		choice.WhyNot = "It was taken back before it left. Ask for a new one."
	case !c.kept:
		choice.WhyNot = "Its content is not kept any more. Ask for a new one."
	default:
		choice.Same = true
	}
	if s.State == mail.StateAccepted && now.Sub(s.ChangedAt) < resendHeed {
		choice.Heed = "It was handed over less than two minutes ago. Let them look again, in the junk folder too, before it goes twice."
	}
	return choice
}

// resendCase is what is known about a message that somebody wants sent again.
type resendCase struct {
	message Summary
	others  []Summary
	kept    bool
	allowed bool
	used    bool
}

// ResendChoice says what may be done about a message.
func (a *API) ResendChoice(ctx context.Context, s Summary) (ResendChoice, error) {
	c := resendCase{message: s}
	var err error
	if c.kept, c.allowed, err = a.Resender.Kept(ctx, s.ID, s.Kind); err != nil {
		return ResendChoice{}, err
	}
	if c.others, err = a.View.List(ctx, Filter{Tenants: []string{s.Tenant}, Person: s.Person, Limit: MaxLimit}); err != nil {
		return ResendChoice{}, err
	}
	facts, err := a.View.Facts(ctx, s.ID)
	if err != nil {
		return ResendChoice{}, err
	}
	for _, e := range facts.Events {
		c.used = c.used || e.State == mail.EventUsed
	}
	return c.choose(a.now()), nil
}

func (a *API) resend(w http.ResponseWriter, r *http.Request, by *Principal) error {
	var body ResendRequest
	if err := decode(w, r, &body); err != nil {
		return err
	}
	s, _, err := a.find(r, by)
	if err != nil {
		return err
	}
	sent, err := a.Resend(r, by, s, body)
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/v1/messages/"+string(sent.ID))
	writeJSON(w, http.StatusAccepted, sent)
	return nil
}

// Resend sends a message again, as a page or a request asks for it.
func (a *API) Resend(r *http.Request, by *Principal, s Summary, body ResendRequest) (Resent, error) {
	reason, err := checkReason(body.Reason)
	if err != nil {
		return Resent{}, err
	}
	choice, err := a.ResendChoice(r.Context(), s)
	if err != nil {
		return Resent{}, err
	}
	mode, err := choice.mode(body.Mode, s.State.Open())
	if err != nil {
		return Resent{}, err
	}
	key := r.Header.Get("Idempotency-Key")
	if key != "" {
		key = "resend " + string(s.ID) + " " + key
	}
	var receipt mail.Receipt
	if mode == ResendSame {
		receipt, err = a.Resender.Again(r.Context(), s.ID, key)
	} else {
		receipt, err = a.Resender.Renew(r.Context(), renewal(s, by, reason, key))
		if p, ok := errors.AsType[*mail.Problem](err); ok && p.Type == mail.ProblemNotResendable && body.Mode == "" {
			why := *p
			why.Detail = choice.WhyNot + " " + p.Detail // both ways are barred
			err = &why
		}
	}
	if err != nil {
		return Resent{}, err
	}
	sent := Resent{ID: receipt.ID, Ref: receipt.Ref, State: receipt.State, ResendOf: s.ID, Mode: mode,
		Warnings: append([]mail.Warning{}, receipt.Warnings...)}
	if choice.Heed != "" {
		sent.Warnings = append(sent.Warnings, mail.Warning{Code: WarnJustHandedOver, Detail: choice.Heed})
	}
	a.actedFor(r, by, "resend", string(s.ID), s.Tenant, reason)
	e := mail.Event{
		ID: mail.EventID(sent.ID, mail.EventResent, 0), Message: s.ID, Ref: s.Ref, Kind: s.Kind, Tenant: s.Tenant,
		TenantName: s.TenantName, PersonID: s.PersonID, To: s.To, ToName: s.ToName, Locale: s.Locale, Source: s.Source,
		QueuedAt: s.QueuedAt, ExpiresAt: s.ExpiresAt,
		State: mail.EventResent, At: a.now().UTC(), Attempt: s.Attempts, Other: sent.ID, By: by.Name, Reason: reason,
	}
	if err := a.Resender.Record(r.Context(), e); err != nil {
		// It has gone out again: that its story does not say so is the lesser evil.
		a.logger().ErrorContext(r.Context(), "a resend could not be recorded", "message", s.ID, "error", err)
	}
	a.fresh(r.Context())
	return sent, nil
}

// mode decides what is done, or says why nothing can be. What waits is not replaced by
// a new one unless that is what was asked for.
func (c ResendChoice) mode(asked ResendMode, waits bool) (ResendMode, error) {
	switch {
	case c.Limited:
		return "", &mail.Problem{Type: mail.ProblemRateLimited, Title: "Sent again too often", Status: http.StatusTooManyRequests,
			Detail: c.WhyNot, RetryAfter: int(resendWithin / time.Second)}
	case asked != "" && asked != ResendSame && asked != ResendNew:
		return "", invalid("mode", "“same” or “new”, or nothing.")
	case c.Same && asked != ResendNew:
		return ResendSame, nil
	case asked == ResendSame, asked == "" && waits:
		return "", notResendable(c.WhyNot)
	case c.New:
		return ResendNew, nil
	}
	return "", notResendable(c.NoNew)
}

func notResendable(detail string) *mail.Problem {
	return &mail.Problem{Type: mail.ProblemNotResendable, Title: "It can't be sent again", Status: http.StatusConflict, Detail: detail}
}

func renewal(s Summary, by *Principal, reason, key string) Renewal {
	return Renewal{
		Message: s.ID, Ref: s.Ref, Kind: s.Kind, To: s.To, ToName: s.ToName, Tenant: s.Tenant, TenantName: s.TenantName,
		PersonID: s.PersonID, Locale: s.Locale, Template: s.Template, ExpiresAt: s.ExpiresAt,
		By: by.Name, Reason: reason, Source: s.Source, Key: key,
	}
}
