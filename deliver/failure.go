package deliver

import (
	"errors"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/deliverd/deliverd/deliver/tlspolicy"
	"github.com/deliverd/deliverd/mail"
)

// failure is how one try at one address ended without an accept. It is what
// happened; what that means is verdict.go's to say.
type failure struct {
	target target
	stage  mail.Stage
	reply  *mail.Reply // the reply that ended it, nil if none did
	err    error       // what ended it where no reply did
	// ambiguous: the final dot was handed over and its reply was not read in full
	// (RFC 1047).
	ambiguous bool
	// clearNext: a TLS handshake failed, and the connection with it.
	clearNext bool
	// twin is how the host's other address failed, where both were dialled at once.
	twin *failure

	tls       *mail.TLS
	said      []mail.Exchange
	offers    []string
	reused    bool
	pipelined bool
	carried   int // messages that the connection had carried before
	took      time.Duration
}

// errStopped says that we stopped, for one of mail's reasons.
type errStopped struct{ reason error }

func (e *errStopped) Error() string { return e.reason.Error() }
func (e *errStopped) Unwrap() error { return e.reason }

// errOurs is a fault on our own side: it says nothing about the message or its
// recipient.
type errOurs struct{ detail string }

func (e *errOurs) Error() string { return e.detail }

// errLoop says that the server is ourselves.
var errLoop = errors.New("the mail server of this domain is deliverd itself: the mail would go round in a loop")

func (f *failure) timedOut() bool { return errors.Is(f.err, errTimeout) }

// stale reports whether a reused connection turned out to be at its end, without a
// word about the message: a fresh one is tried, and no attempt counted (FAULTS A45,
// A46).
func (f *failure) stale() bool {
	if !f.reused || f.ambiguous {
		return false
	}
	if _, stopped := errors.AsType[*errStopped](f.err); stopped {
		return false
	}
	if f.reply == nil {
		return !errors.Is(f.err, errTooLarge)
	}
	if f.stage == mail.StageDot {
		return false // it looked at the message: FAULTS A40
	}
	// 503 is about what was said before, which was another message's: a server that does
	// not forget a transaction that it refused (RFC 5321 4.1.4).
	return f.reply.Code == 421 || f.reply.Code == 503 && f.stage == mail.StageMail
}

// try is f as evidence.
func (f *failure) try() mail.Try {
	t := mail.Try{Host: f.target.host, Stage: f.stage, Reply: f.reply, Took: f.took}
	if f.target.addr.IsValid() {
		t.IP = f.target.addr.Addr().String()
	}
	if f.reply == nil {
		t.Error = plain(f.err)
	}
	return t
}

// plain says in words what an error of the network is, without the addresses that
// the evidence has beside it.
func plain(err error) string {
	if err == nil {
		return ""
	}
	if problem, ok := errors.AsType[*tlspolicy.Problem](err); ok {
		return cleanText(problem.Error())
	}
	if handshake, ok := errors.AsType[*errHandshake](err); ok {
		return handshake.Error()
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return errTimeout.Error()
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno.Error()
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe) {
		return "the connection was closed"
	}
	return cleanText(err.Error())
}

// ourFault reports whether an error of the network means that this machine has no
// means left, rather than that the other one did not answer.
func ourFault(err error) bool {
	errno, ok := errors.AsType[syscall.Errno](err)
	if !ok {
		return false
	}
	switch errno {
	case syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL:
		return true
	}
	return false
}
