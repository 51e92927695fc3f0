// Package deliver makes one attempt to hand one message to the next mail server,
// and says how that ended. Whatever happens, an attempt ends in an outcome with
// evidence (law 7); the queue decides when there is another.
//
// The order of the steps, each in the file that it is named for:
//
//	proceed    expired, superseded, cancelled since it was queued? then no step more
//	render     the message as RFC 5322 bytes                         (a func, package mail's)
//	sign       DKIM, once a message: a retry sends the same bytes    dkim.go, key.go
//	plan       hosts, addresses, TLS policy; before any dialling     plan.go
//	enter      where that leads, and whether there is room           destination.go
//	reuse      a connection that carried another message, or is      pool.go, ride.go
//	           about to: the envelope rides behind the other's dot
//	dial       a host's two families side by side, from the kind's   happy.go, origin.go
//	           own address
//	introduce  greeting, EHLO, STARTTLS, EHLO, AUTH                  session.go, starttls.go
//	note       how TLS went, for reports, and for a downgrade        tlsnote.go
//	transact   MAIL, RCPT, DATA, body, and, asked again, the dot     transaction.go, reply.go
//	verdict    what a failure means: other host, later, never        verdict.go
//	contact    how the destination fared, for its window             contact.go
//	evidence   who said what where, without secrets                  evidence.go, transcript.go
//
// A Caller (converse.go) has the same conversation up to RCPT and stops there: it is
// the firewall test of a domain check.
//
// Trace (trace.go) has an attempt's very conversation up to RCPT, for whoever wants to
// see it.
//
// What a message of 8 KiB costs, as BenchmarkConnections measures it with the server
// in a process of its own: on a new connection 5 round trips in clear and 8 with TLS;
// on one that is reused 2; behind another's dot 1. The evidence of an accept is 0.9 KB
// of JSON on a reused connection, 0.45 of it the conversation, and at most 6 KB more
// than without one, whatever a server says.
//
// What may be assumed of it: no final dot is sent once Attempt.Proceed has said that
// the message expired or that its lease is lost; an accept is never claimed without
// a complete 2xx line to the final dot; a possible duplicate is always said to be
// one; nothing that a server sends costs more than 64 KiB of memory or more than the
// timeout of the stage; and when the context ends, the connection is closed at once.
package deliver

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"time"

	"github.com/deliverd/deliverd/deliver/tlspolicy"
	"github.com/deliverd/deliverd/mail"
)

// Options says who we are and where mail goes. Hello, Render, ReturnPath and Plan are
// needed.
type Options struct {
	// Hello is our name in EHLO, the same before and after TLS: the FQDN that our
	// addresses' PTR records name.
	Hello string
	// Render makes the message's bytes: mail's Templates.Render. The same message must
	// always give the same bytes.
	Render func(*mail.Message) ([]byte, error)
	// ReturnPath makes the envelope sender, "" for the null one: bounces' ReturnPath.Address.
	ReturnPath func(mail.ID) string
	// Sign is nil where there are no keys at all.
	Sign *Signer
	// RequireDKIM holds a message back whose From domain has no key, as a fault of our
	// own, rather than send it unsigned.
	RequireDKIM bool
	// Signers bounds how many messages of lane 2 and later are rendered and signed at
	// once; 0: half of the processors, at least 1. A signature is a millisecond that
	// nothing interrupts: without a bound, a PIN behind a backlog waits for hundreds.
	Signers int
	Plan    Planner

	// Floor is the least that connections for a kind's messages must be; nil: nothing.
	Floor func(kind string) mail.TLSFloor
	// Seen remembers who took TLS, to notice a downgrade; nil: nobody does.
	Seen *tlspolicy.Seen
	// Sessions is told how each connection did under the policy of its domain, for the
	// reports of RFC 8460. It must not block. Nil: nobody is.
	Sessions func(tlspolicy.Session)

	// Dial opens connections; network is "tcp4" or "tcp6". Nil: a net.Dialer bound to
	// Sources.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Sources are the addresses to send from, the first of a family for that family.
	// Empty: the system's choice. Dial makes them moot.
	Sources []netip.Addr
	// Origins send the mail of a kind from elsewhere or under another name.
	Origins map[string]*Origin
	// RootCAs judge certificates. Nil: the system's.
	RootCAs  *x509.CertPool
	Timeouts Timeouts
	Pool     PoolLimits
	// Log gets one line an attempt. Nil: none.
	Log *slog.Logger
}

func (o *Options) floor(kind string) mail.TLSFloor {
	if o.Floor == nil {
		return mail.TLSFloorNone
	}
	return o.Floor(kind)
}

// Deliverer makes attempts. It is safe for concurrent use; how many run at once is
// up to whoever calls.
type Deliverer struct {
	options Options
	wait    Timeouts
	usual   *origin
	origins map[string]*origin // by kind
	log     *slog.Logger
	memory  *memory
	pool    *pool
	signers chan struct{} // a place for each that renders and signs; lane 1 needs none
}

// New checks the options. It starts nothing; Close ends what attempts left open.
func New(o Options) (*Deliverer, error) {
	switch {
	case !helloOK(o.Hello):
		return nil, errors.New("deliver: the EHLO name must be the full host name that this machine's address resolves to, e.g. mail.example.com")
	case !originsOK(o.Origins):
		return nil, errors.New("deliver: an origin's EHLO name must be the full host name that its address resolves to")
	case o.Render == nil:
		return nil, errors.New("deliver: nothing renders messages")
	case o.ReturnPath == nil:
		return nil, errors.New("deliver: nothing makes return paths")
	case o.Plan == nil:
		return nil, errors.New("deliver: nothing says where mail goes")
	case o.RequireDKIM && o.Sign == nil:
		return nil, errors.New("deliver: DKIM is required, and there is no key; make one with: deliverd dkim new")
	}
	d := &Deliverer{options: o, wait: o.Timeouts.withDefaults(), log: o.Log, memory: &memory{}}
	d.signers = make(chan struct{}, cmp.Or(o.Signers, max(1, runtime.GOMAXPROCS(0)/2)))
	d.usual, d.origins = origins(&o)
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	d.pool = &pool{limits: o.Pool.withDefaults(), memory: d.memory}
	return d, nil
}

// helloOK keeps whatever would change the conversation out of the EHLO line.
func helloOK(name string) bool {
	if name == "" || len(name) > 255 {
		return false
	}
	for _, c := range []byte(name) {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}

func originsOK(origins map[string]*Origin) bool {
	for _, o := range origins {
		if o == nil || o.Hello != "" && !helloOK(o.Hello) {
			return false
		}
	}
	return true
}

// dialFrom binds connections to our addresses, a family at a time.
func dialFrom(sources []netip.Addr) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		// Fallback between families is the ladder's job, and a connection lives too short
		// for keep-alives.
		dialer := net.Dialer{KeepAlive: -1}
		for _, a := range sources {
			if a.Unmap().Is4() == (network == "tcp4") {
				dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(a.Unmap(), 0))
				break
			}
		}
		return dialer.DialContext(ctx, network, addr)
	}
}

// Close ends the connections that wait for another message. Attempts that still run
// end as their contexts do.
func (d *Deliverer) Close() { d.pool.close() }

// Attempt tries once to hand a message over. It blocks until that is decided or ctx
// ends: before the final dot an end of ctx costs no attempt, after it the outcome is
// a possible duplicate.
func (d *Deliverer) Attempt(ctx context.Context, a *mail.Attempt) mail.Outcome {
	started := time.Now()
	o := d.attempt(ctx, a)
	o.Evidence.StartedAt, o.Evidence.Took = started.UTC(), time.Since(started)
	scrub(&o, &a.Message)
	d.logAttempt(ctx, a, &o)
	return o
}

func (d *Deliverer) attempt(ctx context.Context, a *mail.Attempt) mail.Outcome {
	if a.Proceed == nil {
		proceeding := *a
		proceeding.Proceed = func() error { return nil }
		a = &proceeding
	}
	if err := a.Proceed(); err != nil {
		o := mail.Outcome{Signed: a.Signed}
		ours(&o, err)
		return o
	}
	from := mail.Address(d.options.ReturnPath(a.Message.ID))
	if err := checkPath(from); err != nil {
		return mail.Outcome{Local: "return path: " + err.Error(), Signed: a.Signed}
	}
	if err := checkPath(a.Message.To); err != nil {
		return refusedByUs(err)
	}
	signed, stage, err := d.signed(ctx, a)
	if err != nil {
		return mail.Outcome{Local: plain(err), Signed: a.Signed, Evidence: mail.Evidence{Stage: stage, Error: plain(err)}}
	}
	o := d.handOver(ctx, a, from, signed)
	o.Signed = signed
	return o
}

// signed returns the bytes to send: those of an earlier attempt, or new ones.
func (d *Deliverer) signed(ctx context.Context, a *mail.Attempt) ([]byte, mail.Stage, error) {
	if a.Signed != nil {
		signed, err := d.renew(a)
		return signed, mail.StageSign, err
	}
	if a.Lane > 1 {
		select {
		case d.signers <- struct{}{}:
			defer func() { <-d.signers }()
		case <-ctx.Done():
			return nil, mail.StageRender, mail.ErrInterrupted
		}
	}
	raw, err := d.options.Render(&a.Message)
	if err != nil {
		return nil, mail.StageRender, err
	}
	signed, err := d.sign(&a.Message, raw)
	return signed, mail.StageSign, err
}
