package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/deliverd/deliverd/console"
	"github.com/deliverd/deliverd/intake"
	"github.com/deliverd/deliverd/mail"
	"github.com/deliverd/deliverd/queue"
)

// resender sends messages again: the same from the queue, a new one from the auth
// service.
type resender struct{ d *Daemon }

// Kept reports whether a message's content is there, and whether its kind may be sent
// twice.
func (r resender) Kept(ctx context.Context, id mail.ID, kind string) (kept, allowed bool, err error) {
	if !r.d.config.kinds()[kind].ResendSame {
		return false, false, nil
	}
	m, err := r.d.queue.Message(ctx, id)
	clear(m.Data)
	if errors.Is(err, queue.ErrNotFound) {
		return false, true, nil
	}
	return err == nil, true, err
}

// Again takes the same content in as a new message. It is valid for as long as the
// first one was, and not a minute longer.
func (r resender) Again(ctx context.Context, id mail.ID, key string) (mail.Receipt, error) {
	m, err := r.d.queue.Message(ctx, id)
	if errors.Is(err, queue.ErrNotFound) {
		return mail.Receipt{}, notResendable("Its content is not kept any more. Ask for a new one.")
	}
	if err != nil {
		return mail.Receipt{}, err
	}
	now := time.Now().UTC()
	m.ID = mail.NewID(now)
	m.Ref, m.QueuedAt, m.ResendOf, m.IdempotencyKey = m.ID.Ref(), now, id, key
	return r.d.intake.Again(ctx, m)
}

// Record adds a fact to the event log.
func (r resender) Record(ctx context.Context, e mail.Event) error { return r.d.queue.Record(ctx, e) }

const (
	// renewTime is how long the auth service has for a new link: a person waits.
	renewTime = 10 * time.Second
	// renewMost bounds what it may say instead of one.
	renewMost = 500
)

// Renew asks the auth service on deliverd.v1.renew.<source>.
func (r resender) Renew(ctx context.Context, ask console.Renewal) (mail.Receipt, error) {
	body, err := json.Marshal(ask)
	if err != nil {
		return mail.Receipt{}, err
	}
	subject := "deliverd.v1.renew." + mail.SubjectToken(ask.Source)
	ctx, cancel := context.WithTimeout(ctx, renewTime)
	defer cancel()
	answer, err := r.d.nc.RequestWithContext(ctx, subject, body)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return mail.Receipt{}, notResendable(fmt.Sprintf(
			"No service makes new ones on request: nothing answers on %s. Ask those who run “%s” to send this person a new one.", subject, ask.Source))
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		return mail.Receipt{}, unavailable(fmt.Sprintf("“%s” did not answer within %s. It may send a new one yet; look here again before you ask once more.", ask.Source, renewTime))
	case err != nil:
		return mail.Receipt{}, fmt.Errorf("asking on %s: %w", subject, err)
	}
	if detail, refused := renewRefused(answer.Data); refused {
		return mail.Receipt{}, notResendable("“" + ask.Source + "” says: " + detail)
	}
	request, err := intake.Decode(answer.Data)
	if err == nil {
		err = fitsRenewal(&request, ask)
	}
	if p, ok := errors.AsType[*mail.Problem](err); ok {
		r.d.log.Error("an auth service's answer to a renewal can't be used", "source", ask.Source, "message", ask.Message, "problem", p.Type, "field", p.Field, "detail", p.Detail)
		return mail.Receipt{}, notResendable("What “" + ask.Source + "” answered can't be used; the log of deliverd says why. Ask those who run it.")
	}
	return r.d.intake.Submit(ctx, intake.Caller{Source: ask.Source, Tenants: []string{intake.AllTenants}}, request)
}

// renewRefused reads {"problem": {"title", "detail"}}.
func renewRefused(answer []byte) (detail string, refused bool) {
	var a struct {
		Problem *struct {
			Title  string `json:"title"`
			Detail string `json:"detail"`
		} `json:"problem"`
	}
	if json.Unmarshal(answer, &a) != nil || a.Problem == nil {
		return "", false
	}
	said := strings.Join(strings.Fields(a.Problem.Title+". "+a.Problem.Detail), " ")
	if len(said) > renewMost {
		said = strings.ToValidUTF8(said[:renewMost], "") + "…"
	}
	return said, true
}

// fitsRenewal completes a new message with what it has to share with the old one, and
// refuses another's: the recipient of a resend can't be changed.
func fitsRenewal(r *mail.Request, ask console.Renewal) error {
	to, _, err := mail.CleanAddress(r.To)
	if r.To == "" {
		to, err = ask.To, nil
		r.To = string(ask.To)
	}
	if err != nil || to.Key() != ask.To.Key() {
		return notFitting("to", "it is for another address")
	}
	for _, f := range []struct {
		name string
		is   *string
		want string
	}{{"kind", &r.Kind, ask.Kind}, {"tenant", &r.Tenant, ask.Tenant}, {"person_id", &r.PersonID, ask.PersonID}} {
		if *f.is == "" {
			*f.is = f.want
		}
		if *f.is != f.want {
			return notFitting(f.name, "it is not that of the message that is sent again")
		}
	}
	for _, f := range []struct {
		is   *string
		want string
	}{{&r.ToName, ask.ToName}, {&r.TenantName, ask.TenantName}, {&r.Locale, ask.Locale}, {&r.Template, ask.Template}, {&r.IdempotencyKey, ask.Key}} {
		if *f.is == "" {
			*f.is = f.want
		}
	}
	r.ResendOf = ask.Message
	return nil
}

func notFitting(field, detail string) *mail.Problem {
	return &mail.Problem{Type: mail.ProblemInvalid, Title: "The answer does not fit the question", Status: http.StatusConflict, Field: field, Detail: detail}
}

func notResendable(detail string) *mail.Problem {
	return &mail.Problem{Type: mail.ProblemNotResendable, Title: "It can't be sent again", Status: http.StatusConflict, Detail: detail}
}

func unavailable(detail string) *mail.Problem {
	return &mail.Problem{Type: mail.ProblemUnavailable, Title: "Not available now", Status: http.StatusServiceUnavailable, Detail: detail, RetryAfter: 5}
}

// record adds a fact that the auth service reports to the log. Once a link has been
// used, there is nothing to send again.
func (d *Daemon) record(ctx context.Context, e mail.Event) error {
	if err := d.queue.Record(ctx, e); err != nil {
		return err
	}
	if e.State == mail.EventUsed {
		if err := d.queue.Forget(ctx, e.Message); err != nil {
			d.log.Warn("the content of a used message stays until it expires", "message", e.Message, "error", err)
		}
	}
	return nil
}
