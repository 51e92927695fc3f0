package bounces

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/deliverd/deliverd/mail"
)

// ReceiverOptions configure a Receiver. ReturnPath, Hello and Record are needed; the
// zero value of everything else is a sensible default.
type ReceiverOptions struct {
	Hello      string      // our name in the greeting
	ReturnPath *ReturnPath // whose addresses are taken

	// Record makes an event durable: nil means that it is, and only then is the mail
	// accepted. The event names the message, nothing else of it.
	Record func(context.Context, mail.Event) error
	// Known reports whether a message is still known. Mail for one that is not is taken
	// and dropped: its sender did nothing wrong. Nil: all are.
	Known func(context.Context, mail.ID) (bool, error)
	// Forward passes on mail to postmaster and abuse (RFC 5321 4.5.1, RFC 2142), and is
	// durable when it returns nil; one that it can't take ever is [ErrTooLarge]. Nil:
	// there is nobody to read it, and it is refused.
	Forward func(ctx context.Context, from, to string, raw []byte) error
	// Seen is told what became of each mail, for counting: a Kind, "unknown", "forwarded",
	// "too-large", "too-often" or "failed". Nil: nobody is.
	Seen func(what string)

	TLS *tls.Config // nil: no STARTTLS
	Log *slog.Logger
	Now func() time.Time

	MaxConns     int           // in all, 100 if 0
	MaxPerIP     int           // per IPv4 address or IPv6 /64, 10 if 0
	SessionLimit time.Duration // 10 minutes if 0
	IdleLimit    time.Duration // 60 seconds if 0
	// TokenLife is how old a message may be for its return path to be taken, 60 days if
	// 0: mail systems give up after days, people's vacations end after weeks.
	TokenLife time.Duration
}

// Receiver is the SMTP listener for mail that comes back. It takes mail for the return
// paths of our own messages, and for postmaster and abuse; it refuses everything else
// and sends nothing to anybody, so that it can be neither a relay nor a source of
// backscatter.
type Receiver struct {
	opt   ReceiverOptions
	often often
}

// maxReceived is the largest mail taken. Reports are a few KiB, and a whole original
// message of ours with them.
const maxReceived = maxMail

// NewReceiver returns a Receiver that is not listening yet.
func NewReceiver(opt ReceiverOptions) (*Receiver, error) {
	if opt.ReturnPath == nil || opt.Record == nil || opt.Hello == "" {
		return nil, errors.New("receiver: ReturnPath, Record and Hello are needed")
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Seen == nil {
		opt.Seen = func(string) {}
	}
	if opt.TLS != nil {
		opt.TLS = opt.TLS.Clone()
		opt.TLS.SessionTicketsDisabled = true // golang/go#70232: Microsoft's servers stumble over them
		opt.TLS.MinVersion = max(opt.TLS.MinVersion, tls.VersionTLS12)
	}
	opt.MaxConns = cmp.Or(opt.MaxConns, 100)
	opt.MaxPerIP = cmp.Or(opt.MaxPerIP, 10)
	opt.SessionLimit = cmp.Or(opt.SessionLimit, 10*time.Minute)
	opt.IdleLimit = cmp.Or(opt.IdleLimit, time.Minute)
	opt.TokenLife = cmp.Or(opt.TokenLife, 60*24*time.Hour)
	return &Receiver{opt: opt}, nil
}

// Serve takes mail from l until ctx ends; then it closes l, lets the sessions under
// way go on for at most 10 seconds and returns nil. It returns an error if l fails.
func (r *Receiver) Serve(ctx context.Context, l net.Listener) error {
	server := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		return &session{receiver: r, ctx: context.WithoutCancel(ctx), remote: c.Conn().RemoteAddr().String()}, nil
	}))
	server.Domain = r.opt.Hello
	server.MaxMessageBytes = maxReceived
	server.MaxLineLength = 0 // the guard bounds commands, maxReceived everything else
	server.MaxRecipients = 1 // a report is about one message; RFC 5321 4.5.3.1.8's 100 are for relays
	server.ErrorLog = serverLog{r.opt.Log}
	limits := guardLimits{
		session: r.opt.SessionLimit, idle: r.opt.IdleLimit,
		commands: 100, errors: 20, slow: 10, delay: time.Second,
	}
	guarded := &guardListener{
		Listener: l, total: r.opt.MaxConns, perAddress: r.opt.MaxPerIP,
		count: map[string]int{}, open: map[net.Conn]struct{}{},
		guard: func(c net.Conn, left func()) net.Conn { return newGuardConn(c, limits, r.opt, left) },
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(guarded) }()
	select {
	case err := <-failed:
		_ = server.Close()
		guarded.closeAll()
		return fmt.Errorf("bounce listener: %w", err)
	case <-ctx.Done():
	}
	// The loop that accepts ends first: go-smtp counts sessions in it, and Shutdown waits
	// for that count, which must not grow from nothing meanwhile.
	_ = guarded.Close()
	<-failed
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		guarded.closeAll()
	}
	return nil
}

// serverLog passes go-smtp's complaints on: a panic, a connection that broke.
type serverLog struct{ log *slog.Logger }

func (l serverLog) Printf(format string, v ...any) {
	l.log.Debug("bounce listener", "problem", fmt.Sprintf(format, v...))
}

func (l serverLog) Println(v ...any) { l.log.Debug("bounce listener", "problem", fmt.Sprint(v...)) }

// session is one SMTP session, its transaction in from and to.
type session struct {
	receiver *Receiver
	ctx      context.Context
	remote   string

	open bool // MAIL was taken
	from string
	id   mail.ID // the message that the recipient names, or
	desk string  // postmaster or abuse
}

// ErrTooLarge is Forward's answer to a mail that is larger than can be passed on.
var ErrTooLarge = errors.New("the mail is too large to be passed on")

var (
	errLarge      = &smtp.SMTPError{Code: 552, EnhancedCode: smtp.EnhancedCode{5, 3, 4}, Message: "Too large to be passed on, send less"}
	errSequence   = &smtp.SMTPError{Code: 503, EnhancedCode: smtp.EnhancedCode{5, 5, 1}, Message: "MAIL was said already"}
	errNoSuch     = &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "No such address here"}
	errNoRelay    = &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 7, 1}, Message: "No relaying"}
	errOften      = &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 7, 1}, Message: "Too many mails about this message, come back later"}
	errTryLater   = &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "Cannot take it now, come back later"}
	errIncomplete = &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 4, 2}, Message: "The message broke off"}
)

// Mail begins a transaction. A second MAIL without RSET is refused (RFC 5321 4.1.4).
func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	if s.open {
		return errSequence
	}
	s.open, s.from = true, from
	return nil
}

// Rcpt takes the return path of a message of ours, postmaster and abuse. A forged, a
// foreign and an expired token get the same answer.
func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	local, domain, _ := strings.Cut(strings.ToLower(to), "@")
	ours := domain == s.receiver.opt.ReturnPath.Domain()
	if ours && (local == "postmaster" || local == "abuse") {
		if s.receiver.opt.Forward == nil {
			return errNoSuch
		}
		s.desk = local
		return nil
	}
	if !ours {
		return errNoRelay
	}
	id, ok := s.receiver.opt.ReturnPath.Parse(local)
	if !ok || s.receiver.expired(id) {
		return errNoSuch
	}
	if s.receiver.often.tooOften(id, s.receiver.opt.Now()) {
		s.receiver.opt.Seen("too-often")
		return errOften
	}
	s.id = id
	return nil
}

// expired reports whether a message is too old for mail about it, by the time in its
// id.
func (r *Receiver) expired(id mail.ID) bool {
	b, err := id.Bytes()
	if err != nil {
		return true
	}
	ms := int64(b[0])<<40 | int64(b[1])<<32 | int64(b[2])<<24 | int64(b[3])<<16 | int64(b[4])<<8 | int64(b[5])
	return r.opt.Now().Sub(time.UnixMilli(ms)) > r.opt.TokenLife
}

// Data reads the mail and accepts it when what it says is durable.
func (s *session) Data(body io.Reader) error {
	raw, err := io.ReadAll(body)
	if err != nil {
		if tooLarge, ok := errors.AsType[*smtp.SMTPError](err); ok {
			return tooLarge
		}
		return errIncomplete
	}
	if s.desk != "" {
		return s.forward(raw)
	}
	return s.returned(raw)
}

func (s *session) forward(raw []byte) error {
	r := s.receiver
	err := r.opt.Forward(s.ctx, s.from, s.desk, raw)
	if errors.Is(err, ErrTooLarge) {
		r.opt.Seen("too-large")
		return errLarge
	}
	if err != nil {
		r.opt.Seen("failed")
		r.opt.Log.Warn("mail for us could not be forwarded", "to", s.desk, "peer", s.remote, "error", err)
		return errTryLater
	}
	r.opt.Seen("forwarded")
	return nil
}

// returned takes a mail for a message's return path.
func (s *session) returned(raw []byte) error {
	r := s.receiver
	log := r.opt.Log.With("message", string(s.id), "peer", s.remote)
	if r.opt.Known != nil {
		known, err := r.opt.Known(s.ctx, s.id)
		if err != nil {
			r.opt.Seen("failed")
			log.Warn("a mail that came back could not be taken", "error", err)
			return errTryLater
		}
		if !known {
			r.opt.Seen("unknown")
			return nil
		}
	}
	returned := Parse(raw)
	if s.from != "" {
		// Reports come from <> (RFC 5321 4.5.5). What does not is an answer at best,
		// whatever it says, and has no effect.
		returned = Returned{Kind: KindAutoReply}
	}
	if e, ok := returned.Event(s.id, r.opt.Now().UTC()); ok {
		if err := r.opt.Record(s.ctx, e); err != nil {
			r.opt.Seen("failed")
			log.Warn("a mail that came back could not be recorded", "error", err)
			return errTryLater
		}
		log.Info("a message came back", "state", string(e.State), "cause", string(e.Cause), "suppress", e.Suppress)
	}
	r.opt.Seen(string(returned.Kind))
	return nil
}

// Reset ends a transaction.
func (s *session) Reset() { s.open, s.from, s.id, s.desk = false, "", "", "" }

// Logout ends the session.
func (s *session) Logout() error { return nil }
