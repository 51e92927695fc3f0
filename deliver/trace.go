package deliver

import (
	"context"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// Trace is what a recipient's servers say to us today, up to RCPT.
type Trace struct {
	To mail.Address `json:"to"`
	// State is StateAccepted where a server would take mail to the address now, else
	// what would become of a first attempt; Cause and Error say why.
	State mail.State `json:"state"`
	Cause mail.Cause `json:"cause,omitempty"`
	Error string     `json:"error,omitempty"`
	// Destination and Provider are the plan's.
	Destination string      `json:"destination,omitempty"`
	Provider    string      `json:"provider,omitempty"`
	Calls       []TraceCall `json:"calls,omitempty"`
}

// TraceCall is the conversation with one address, bounded as an attempt's evidence is.
type TraceCall struct {
	Host         string          `json:"host"`
	IP           string          `json:"ip"`
	Stage        mail.Stage      `json:"stage"` // how far it got
	Error        string          `json:"error,omitempty"`
	TLS          *mail.TLS       `json:"tls,omitempty"`
	Capabilities []string        `json:"capabilities,omitempty"`
	Conversation []mail.Exchange `json:"conversation,omitempty"`
	Took         time.Duration   `json:"took_ns"`
}

// The waits of a trace: somebody looks on.
const (
	traceConnect = 10 * time.Second
	traceReply   = 30 * time.Second
)

// Trace makes the conversation of a first attempt to an address, over the same hosts,
// under the same policy and from the same place, up to RCPT: no DATA is said, no
// message is sent, nothing is queued or counted. It must not be at the disposal of
// whoever can name an address: it connects to where that domain's owner points.
func (d *Deliverer) Trace(ctx context.Context, to mail.Address, kind string) Trace {
	quiet := *d
	quiet.options.Sessions = nil // domains are told of deliveries
	d = &quiet
	now := time.Now()
	a := &mail.Attempt{Number: 1, Proceed: func() error { return nil }, Message: mail.Message{
		ID: mail.NewID(now), To: to, Kind: kind, QueuedAt: now, ExpiresAt: now.Add(time.Minute),
	}}
	traced := Trace{To: to}
	from := mail.Address(d.options.ReturnPath(a.Message.ID))
	t, targets, err := d.way(ctx, a, from, nil)
	traced.Destination, traced.Provider = t.plan.Destination, t.plan.Provider
	if err != nil {
		return traced.ended(byPlan(ctx, a, err))
	}
	t.wait.Connect = min(t.wait.Connect, traceConnect)
	for _, wait := range []*time.Duration{&t.wait.Greeting, &t.wait.TLS, &t.wait.Command} {
		*wait = min(*wait, traceReply)
	}
	for _, target := range targets {
		call, f := d.call(ctx, t, target)
		traced.Calls = append(traced.Calls, call)
		if f == nil {
			return traced.ended(mail.Outcome{State: mail.StateAccepted})
		}
		if o, done := t.after(f); done {
			return traced.ended(o)
		}
	}
	return traced.ended(t.verdict())
}

func (traced Trace) ended(o mail.Outcome) Trace {
	traced.State, traced.Cause, traced.Error = o.State, o.Cause, o.Evidence.Error
	if o.State == "" {
		traced.State, traced.Error = mail.StateDelayed, o.Local
	}
	if o.Evidence.Reply != nil {
		traced.Error = o.Evidence.Reply.String()
	}
	return traced
}

// call talks to one address.
func (d *Deliverer) call(ctx context.Context, t *tries, to target) (TraceCall, *failure) {
	began := time.Now()
	call := TraceCall{Host: to.host, IP: to.addr.Addr().String(), Stage: mail.StageRcpt}
	if to.barred != nil {
		f := d.barred(t, to)
		call.Stage, call.Error, call.TLS = f.stage, plain(f.err), f.tls
		return call, f
	}
	c, f := d.open(ctx, &t.plan, to, t.wait)
	if c != nil {
		release := c.bind(ctx)
		f = c.ask(&t.env)
		call.TLS, call.Capabilities, call.Conversation = c.tls, c.caps.lines, c.said.exchanges
		release()
		c.quit()
	} else {
		call.TLS, call.Capabilities, call.Conversation = f.tls, f.offers, f.said
	}
	if f != nil {
		call.Stage = f.stage
		if f.reply == nil {
			call.Error = plain(f.err)
		}
	}
	call.Took = time.Since(began)
	return call, f
}

// ask says MAIL and RCPT, one after the other.
func (c *conn) ask(e *envelope) *failure {
	r, f := c.command(mail.StageMail, c.wait.Command, c.mailFrom(e))
	if f == nil {
		f = c.judge(mail.StageMail, r)
	}
	if f != nil {
		return f
	}
	r, f = c.command(mail.StageRcpt, c.wait.Command, rcptTo(e))
	if f == nil {
		f = c.judge(mail.StageRcpt, r)
	}
	return f
}
