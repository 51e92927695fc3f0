package intake

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// Options are what an Intake works with. Prepare, Suppressed, Enqueue and Key are
// required. Functions are called concurrently.
type Options struct {
	// Prepare makes a message of a request, or says why not with a *mail.Problem.
	Prepare func(mail.Request) (mail.Message, []mail.Warning, error)
	// Suppressed returns the suppression of an address, nil if there is none.
	Suppressed func(ctx context.Context, tenant string, to mail.Address) (*mail.Suppression, error)
	// Enqueue makes a message safe. The hash is equal for requests that mean the
	// same; a known idempotency key with another hash is a conflict.
	Enqueue func(ctx context.Context, m *mail.Message, requestHash [32]byte) (mail.Receipt, error)

	// Find returns the messages with an id or, if id is "", with a reference; none is
	// no error. A message must be found as soon as it was accepted. Without Find,
	// cancelling, outcomes and resend_of answer that the message is not found.
	Find func(ctx context.Context, id mail.ID, ref mail.Ref) ([]mail.Message, error)
	// Cancel ends an open message. A message that ended before is a *mail.Problem.
	Cancel func(ctx context.Context, id mail.ID, by, reason string) error
	// Record keeps a fact in the event log. Recording one twice changes nothing.
	Record func(ctx context.Context, e mail.Event) error

	// Wait blocks until a message has a terminal state or ctx ends, and returns the
	// state then. It serves "Prefer: wait=N"; nil: the preference is not applied.
	Wait func(ctx context.Context, id mail.ID) mail.State
	// TakesNoMail reports whether a domain is known to take no mail. It should answer
	// from what is cached, and is given 20 ms; nil: no such warning.
	TakesNoMail func(ctx context.Context, domain string) bool
	// Delayed returns a sentence about mail to a domain being late at the moment, ""
	// if it is not. It reads memory only; nil: no such warning.
	Delayed func(domain string) string
	// Why returns a sentence about a cause, for the answer to a suppressed
	// recipient; nil: the cause's name has to do.
	Why func(mail.Cause) string

	// Caller tells who makes an HTTP request, false if nobody known; nil: nobody is.
	Caller func(*http.Request) (Caller, bool)
	// Source tells what a NATS source may do, false if it is not known. Nil: NATS's
	// own permissions decide who may publish as which source, and each may speak for
	// every tenant.
	Source func(name string) (Caller, bool)

	// Key keys the request hash, so that a stored hash is no oracle by which a
	// six-digit code could be found. At least 16 bytes; it has to stay the same for
	// as long as idempotency keys are kept.
	Key    []byte
	Limits Limits
	Now    func() time.Time // nil: time.Now
	Log    *slog.Logger     // nil: no log
}

// Intake takes mail in. Make one with [New]; its methods may be called
// concurrently.
type Intake struct {
	opts   Options
	limits Limits
	rates  *rates
	now    func() time.Time
	log    *slog.Logger
}

// minKey is the least number of bytes of Options.Key: 128 bits, beyond any search.
const minKey = 16

// New makes an Intake, and an error if a required option is missing.
func New(opts Options) (*Intake, error) {
	switch {
	case opts.Prepare == nil, opts.Suppressed == nil, opts.Enqueue == nil:
		return nil, errors.New("intake: Prepare, Suppressed and Enqueue are required")
	case len(opts.Key) < minKey:
		return nil, errors.New("intake: Key needs at least 16 bytes")
	}
	in := &Intake{
		opts:   opts,
		limits: opts.Limits.withDefaults(),
		now:    opts.Now,
		log:    cmp.Or(opts.Log, slog.New(slog.DiscardHandler)),
	}
	if in.now == nil {
		in.now = time.Now
	}
	in.opts.Key = slices.Clone(opts.Key)
	in.rates = newRates(in.now())
	return in, nil
}

// Validation is the answer to a request that would be taken: what deliverd makes
// of it.
type Validation struct {
	Kind      string         `json:"kind"`
	To        mail.Address   `json:"to"`
	Locale    string         `json:"locale"`
	Template  string         `json:"template"`
	ExpiresAt time.Time      `json:"expires_at"`
	Warnings  []mail.Warning `json:"warnings"`
}

// Submit takes a message in. A nil error means that it is safe; an error is always
// a *mail.Problem.
func (in *Intake) Submit(ctx context.Context, c Caller, r mail.Request) (mail.Receipt, error) {
	m, warnings, hash, err := in.check(ctx, c, &r, true)
	if err != nil {
		return mail.Receipt{}, err
	}
	receipt, err := in.opts.Enqueue(ctx, &m, hash)
	if err != nil {
		return mail.Receipt{}, in.problem(ctx, "enqueue", err)
	}
	receipt.Warnings = warnings
	return receipt, nil
}

// Again takes in a message that was prepared before, under a new id: [mail.Message]
// with ResendOf. Addresses may have been suppressed since; the person's rate counts.
func (in *Intake) Again(ctx context.Context, m mail.Message) (mail.Receipt, error) {
	if err := in.checkSuppressed(ctx, &m); err != nil {
		return mail.Receipt{}, err
	}
	// What is sent again under one key is the same thing by definition.
	hash := sha256.Sum256([]byte("again " + string(m.ResendOf)))
	if err := in.checkFlood(&m, hash, true); err != nil {
		return mail.Receipt{}, err
	}
	receipt, err := in.opts.Enqueue(ctx, &m, hash)
	if err != nil {
		return mail.Receipt{}, in.problem(ctx, "enqueue", err)
	}
	return receipt, nil
}

// Validate makes the same checks as Submit and sends nothing. It counts towards
// the tenant's rate, as it costs the same work, but not towards the recipient's.
func (in *Intake) Validate(ctx context.Context, c Caller, r mail.Request) (Validation, error) {
	m, warnings, _, err := in.check(ctx, c, &r, false)
	if err != nil {
		return Validation{}, err
	}
	if warnings == nil {
		warnings = []mail.Warning{}
	}
	return Validation{
		Kind: m.Kind, To: m.To, Locale: m.Locale, Template: m.Template,
		ExpiresAt: m.ExpiresAt, Warnings: warnings,
	}, nil
}

// check is everything before the queue. It completes r with what the caller
// implies.
func (in *Intake) check(ctx context.Context, c Caller, r *mail.Request, send bool) (
	m mail.Message, warnings []mail.Warning, hash [32]byte, err error,
) {
	if err := c.fill(r); err != nil {
		return m, nil, hash, err
	}
	if err := checkKey(r.IdempotencyKey); err != nil {
		return m, nil, hash, err
	}
	if wait := in.rates.take(in.now(), in.limits.forTenant(c, r.Tenant)); wait > 0 {
		return m, nil, hash, rateLimited("tenant", "This tenant's mail comes in faster than it may.", wait)
	}
	m, warnings, err = in.opts.Prepare(*r)
	if err != nil {
		return m, nil, hash, in.problem(ctx, "prepare", err)
	}
	m.Source = c.Source
	m.IdempotencyKey = r.IdempotencyKey
	if r.ResendOf != "" {
		if _, err := in.find(ctx, c, Name{ID: r.ResendOf}, "resend_of"); err != nil {
			return m, nil, hash, err
		}
	}
	if err := in.checkSuppressed(ctx, &m); err != nil {
		return m, nil, hash, err
	}
	if hash, err = requestHash(in.opts.Key, r, m.To); err != nil {
		return m, nil, hash, err
	}
	if err := in.checkFlood(&m, hash, send); err != nil {
		return m, nil, hash, err
	}
	return m, append(warnings, in.advice(ctx, m.To.Domain())...), hash, nil
}

// checkSuppressed refuses an address that is known not to take mail. A suppression
// that can't be read refuses as well: sending to an address that bounced hurts
// everyone's mail.
func (in *Intake) checkSuppressed(ctx context.Context, m *mail.Message) error {
	s, err := in.opts.Suppressed(ctx, m.Tenant, m.To)
	if err != nil {
		return in.problem(ctx, "suppressed", err)
	}
	if s == nil || (!s.Until.IsZero() && !in.now().Before(s.Until)) {
		return nil
	}
	why := string(s.Cause)
	if in.opts.Why != nil {
		why = in.opts.Why(s.Cause)
	}
	return suppressed(s, why)
}

// checkFlood holds the request against the recipient's rates. A request that came
// before, with the same key and content, is not counted again: a caller who
// retries must not be refused for it.
func (in *Intake) checkFlood(m *mail.Message, hash [32]byte, send bool) error {
	charges := in.limits.forRecipient(m)
	if !send {
		charges = charges.peeking()
	} else if m.IdempotencyKey != "" {
		charges = charges.once("idempotency key", m.Tenant, m.Source, m.IdempotencyKey, string(hash[:]))
	}
	if wait := in.rates.take(in.now(), charges); wait > 0 {
		return rateLimited("to", "This recipient gets more mail than a person can have asked for.", wait)
	}
	return nil
}

// adviceTime is how long a request may wait for what the network knows: less than
// anybody notices, and enough for a cache.
const adviceTime = 20 * time.Millisecond

func (in *Intake) advice(ctx context.Context, domain string) (warnings []mail.Warning) {
	if in.opts.TakesNoMail != nil {
		ctx, cancel := context.WithTimeout(ctx, adviceTime)
		defer cancel()
		if in.opts.TakesNoMail(ctx, domain) {
			warnings = append(warnings, mail.Warning{
				Code:   mail.WarnDomainNoMail,
				Detail: "The recipient's domain does not take mail, as its DNS says now. Ask the person for another address.",
			})
		}
	}
	if in.opts.Delayed != nil {
		if s := in.opts.Delayed(domain); s != "" {
			warnings = append(warnings, mail.Warning{Code: mail.WarnDestinationDelayed, Detail: s})
		}
	}
	return warnings
}
