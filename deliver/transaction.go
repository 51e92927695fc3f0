package deliver

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// envelope is what one transaction hands over.
type envelope struct {
	from, to mail.Address
	// wire is the message as DATA wants it: dots doubled, the final dot included.
	wire []byte
	// proceed is mail.Attempt.Proceed, never nil.
	proceed func() error
	expires time.Time // zero: never
}

// checkPath is the second wall around an envelope: nothing that could end a command or
// its argument gets into one, whatever the first wall let through (FAULTS D02). We
// don't speak SMTPUTF8 (A49).
func checkPath(a mail.Address) error {
	for _, c := range []byte(a) {
		switch {
		case c >= 0x80:
			return errors.New("5.6.7 the address needs SMTPUTF8, which deliverd does not send")
		case c <= ' ' || c == '<' || c == '>' || c == 0x7f:
			return errors.New("5.1.3 the address has characters that no envelope may have")
		}
	}
	return nil
}

const (
	// block is what the Write timeout is for, and what is sent between two looks at
	// what the server may have said meanwhile.
	block = 64 << 10
	// tail is the most that goes out together with the final dot: what a socket's buffer
	// takes at once, so that nearly no time lies between the last look at the clock and
	// the dot, and one TLS record, so that a write that fails has not sent the dot. Most
	// of our mails fit in one.
	tail = 16 << 10
)

// wireForm doubles the dots that begin a line (RFC 5321 4.5.2) and appends the final
// one. message consists of lines ended by CRLF, and is not changed.
func wireForm(message []byte) []byte {
	if !bytes.HasPrefix(message, []byte(".")) && !bytes.Contains(message, []byte("\n.")) {
		return slices.Concat(message, []byte(".\r\n"))
	}
	out := make([]byte, 0, len(message)+len(message)/64+len(".\r\n"))
	for line := range bytes.Lines(message) {
		if line[0] == '.' {
			out = append(out, '.')
		}
		out = append(out, line...)
	}
	return append(out, ".\r\n"...)
}

// send is one transaction: it returns the reply to the final dot if that is a 2xx,
// else the failure. Only a 2xx that was read in full is an accept.
func (c *conn) send(e *envelope) (mail.Reply, *failure) {
	if c.caps.size > 0 && int64(len(e.wire)) > c.caps.size {
		return mail.Reply{}, &failure{target: c.target, stage: mail.StageMail, err: errTooLarge}
	}
	if err := e.proceed(); err != nil {
		return mail.Reply{}, &failure{target: c.target, stage: mail.StageMail, err: &errStopped{err}}
	}
	if f := c.begin(e); f != nil {
		return mail.Reply{}, f
	}
	if f := c.body(e); f != nil {
		return mail.Reply{}, f
	}
	r, f := c.await(mail.StageDot, c.wait.Dot)
	switch {
	case f != nil:
		// RFC 1047: the server may have the message, or not. Nobody can know.
		f.ambiguous = true
		return mail.Reply{}, f
	case r.negative():
		c.dirty = false
		return mail.Reply{}, c.refuse(mail.StageDot, r)
	case !r.positive():
		f := c.unexpected(mail.StageDot, r)
		f.ambiguous = true
		return mail.Reply{}, f
	}
	c.dirty = false
	return r.said(), nil
}

// errTooLarge says that the message is over the SIZE that the server declared.
var errTooLarge = errors.New("the message is larger than the server takes")

// begin says MAIL, RCPT and DATA, in one write where the server pipelines (RFC
// 2920), and returns nil when the server waits for the message.
func (c *conn) begin(e *envelope) *failure {
	from := "MAIL FROM:<" + string(e.from) + ">"
	if c.caps.size > 0 {
		from += " SIZE=" + strconv.Itoa(len(e.wire)) // RFC 1870 6
	}
	rcpt := "RCPT TO:<" + string(e.to) + ">"
	if c.pipelined = c.caps.pipelining; c.pipelined {
		return c.beginPipelined(from + "\r\n" + rcpt + "\r\nDATA\r\n")
	}
	for _, step := range []struct {
		stage mail.Stage
		line  string
		wait  time.Duration
	}{
		{mail.StageMail, from, c.wait.Command}, {mail.StageRcpt, rcpt, c.wait.Command}, {mail.StageData, "DATA", c.wait.Data},
	} {
		r, f := c.command(step.stage, step.wait, step.line)
		if f == nil {
			f = c.judge(step.stage, r)
		}
		if f != nil {
			return f
		}
		c.dirty = true
	}
	return nil
}

// judge takes a reply to MAIL, RCPT or DATA: nil where the conversation goes on.
func (c *conn) judge(stage mail.Stage, r reply) *failure {
	switch {
	case r.negative():
		return c.refuse(stage, r)
	case stage == mail.StageData && r.code == 354, stage != mail.StageData && r.positive():
		return nil
	}
	return c.unexpected(stage, r)
}

// beginPipelined reads three replies to one write. The first refusal is the
// outcome, whatever becomes of the connection after it (FAULTS A28, A29).
func (c *conn) beginPipelined(commands string) *failure {
	c.dirty = true
	werr := c.write(c.wait.Command, []byte(commands))
	var refused *failure
	var data reply
	for _, stage := range []mail.Stage{mail.StageMail, mail.StageRcpt, mail.StageData} {
		wait := c.wait.Command
		if stage == mail.StageData {
			wait = c.wait.Data
		}
		r, f := c.await(stage, wait)
		if f != nil && werr != nil {
			f = c.fail(stage, werr)
		}
		if f == nil {
			f = c.judge(stage, r)
			data = r
		}
		if f == nil {
			continue
		}
		if refused == nil {
			refused = f
		}
		if c.broken {
			return refused
		}
	}
	if refused != nil && data.code == 354 {
		c.takeBack(refused)
	}
	return refused
}

// takeBack ends a DATA that the server answered with 354 although it had refused
// the recipient before: the lone dot (RFC 2920 3.1). Where MAIL was refused and RCPT
// was not, somebody might get the empty message: then the connection ends instead.
func (c *conn) takeBack(refused *failure) {
	if refused.stage != mail.StageRcpt || c.write(c.wait.Write, []byte(".\r\n")) != nil {
		c.broken = true
		return
	}
	if _, f := c.await(mail.StageDot, c.wait.Data); f == nil {
		c.dirty = false
	}
}

// body sends the message and its final dot. Where it fails the dot was not handed
// to the system in full, so the server can't have taken the message; once it
// returns nil nobody knows until the reply is read.
func (c *conn) body(e *envelope) *failure {
	rest := e.wire
	for {
		if !c.insync() {
			return c.early()
		}
		if len(rest) <= tail {
			break
		}
		n := min(block, len(rest)-tail)
		if err := c.write(c.wait.Write, rest[:n]); err != nil {
			return c.cutShort(e, err)
		}
		rest = rest[n:]
	}
	// Laws 3 and 4: after the expiry no final dot is sent; a newer message does not stop
	// one that is in DATA already.
	if err := e.proceed(); err != nil && !errors.Is(err, mail.ErrSuperseded) {
		return c.fail(mail.StageBody, &errStopped{err})
	}
	wait := c.wait.Write
	if !e.expires.IsZero() {
		wait = min(wait, time.Until(e.expires))
	}
	if err := c.write(wait, rest); err != nil {
		return c.cutShort(e, err)
	}
	return nil
}

// early takes what the server says while it should listen. A refusal is one (FAULTS
// A34), but anything else would be taken for the reply to the dot.
func (c *conn) early() *failure {
	r, f := c.await(mail.StageBody, c.wait.Quit)
	c.broken = true
	switch {
	case f != nil:
		return f
	case r.negative():
		return c.refuse(mail.StageBody, r)
	}
	return c.fail(mail.StageBody, &errProtocol{fmt.Sprintf("%d came before the message was sent", r.code)})
}

// cutShort looks for the reason why a write failed: a server that closes often says
// why, and the message may have expired while nothing was taken.
func (c *conn) cutShort(e *envelope, werr error) *failure {
	f := c.fail(mail.StageBody, werr)
	if r, silent := c.await(mail.StageBody, c.wait.Quit); silent == nil && r.negative() {
		return c.refuse(mail.StageBody, r)
	}
	if err := e.proceed(); err != nil && !errors.Is(err, mail.ErrSuperseded) {
		f.err = &errStopped{err}
	}
	return f
}

// reset makes sure that no transaction is open: one that ended in a refusal may be
// (RFC 5321 4.1.1.5).
func (c *conn) reset() bool {
	if !c.dirty {
		return true
	}
	r, f := c.command(mail.StageMail, c.wait.Quit, "RSET")
	c.dirty = false
	return f == nil && r.positive()
}
