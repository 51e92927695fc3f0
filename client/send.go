package client

import (
	"context"
	"crypto/rand"
	"net/http"
	"net/url"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// Send hands a message over. A nil error means that it is safe. See the package's
// introduction for retries and idempotency.
func (c *Client) Send(ctx context.Context, m Message) (Receipt, error) {
	return c.send(ctx, m, 0)
}

// MaxWait is the longest that deliverd holds an answer back.
const MaxWait = time.Minute

// SendAndWait is Send that holds the answer back until the message has ended, at
// most for wait (whole seconds, up to [MaxWait]): Receipt.State then says what has
// become of it. A login page shows "sent" on [mail.StateAccepted] after half a second,
// and otherwise offers another way. The message goes on its way either way.
func (c *Client) SendAndWait(ctx context.Context, m Message, wait time.Duration) (Receipt, error) {
	return c.send(ctx, m, min(max(wait, time.Second), MaxWait).Round(time.Second))
}

func (c *Client) send(ctx context.Context, m Message, wait time.Duration) (Receipt, error) {
	var r Receipt
	key := m.IdempotencyKey
	if key == "" {
		key = "auto-" + rand.Text()
	}
	m.IdempotencyKey = "" // it goes as a header, through both doors
	call := call{verb: "send", method: http.MethodPost, path: "/v1/messages", header: http.Header{}, safe: true}
	call.holdFor(wait)
	if c.request != nil {
		call.header["Nats-Msg-Id"] = []string{key}
	} else {
		call.header.Set("Idempotency-Key", key)
	}
	if err := c.do(ctx, call, m, &r); err != nil {
		return Receipt{}, err
	}
	if r.ID == "" { // nil has to mean that the message is safe
		return Receipt{}, &wayError{call, errNotOurs}
	}
	return r, nil
}

// Validation is what deliverd would make of a message.
type Validation struct {
	Kind      string       `json:"kind"`
	To        mail.Address `json:"to"` // cleaned: without blanks, the domain in lower case
	Locale    string       `json:"locale"`
	Template  string       `json:"template"`
	ExpiresAt time.Time    `json:"expires_at"`
	Warnings  []Warning    `json:"warnings"`
}

// Validate makes all the checks of Send and sends nothing: for a form that wants to
// say "did you mean nordlys.fi?" before it is submitted. HTTP only.
func (c *Client) Validate(ctx context.Context, m Message) (v Validation, err error) {
	err = c.do(ctx, call{method: http.MethodPost, path: "/v1/messages:validate", safe: true}, m, &v)
	return v, err
}

// Cancel ends a message that is not handed over yet, by its id or reference. The reason
// is required: support reads it in the message's story. A message that has ended is a
// Problem: see [IsEnded]. Over HTTP, the token needs the scope "act".
func (c *Client) Cancel(ctx context.Context, idOrRef, reason string) error {
	call := call{
		verb: "cancel", method: http.MethodPost,
		path: "/v1/messages/" + url.PathEscape(idOrRef) + "/cancel", safe: true,
	}
	if c.request != nil {
		return c.do(ctx, call, struct {
			Message string `json:"message"`
			Reason  string `json:"reason"`
		}{idOrRef, reason}, nil)
	}
	return c.do(ctx, call, struct {
		Reason string `json:"reason"`
	}{reason}, nil)
}

// Outcome tells deliverd what became of a message's link or code: [Used],
// [ExpiredUnused] or [WrongPerson], and when (the zero time: now). Support sees it in
// the message's story; reporting the same twice changes nothing.
func (c *Client) Outcome(ctx context.Context, idOrRef string, outcome State, at time.Time) error {
	return c.do(ctx, call{verb: "outcome", method: http.MethodPost, path: "/v1/outcomes", safe: true}, struct {
		Message string    `json:"message"`
		Outcome State     `json:"outcome"`
		At      time.Time `json:"at,omitzero"`
	}{idOrRef, outcome, at}, nil)
}
