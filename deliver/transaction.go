package deliver

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// envelope is what one transaction hands over.
type envelope struct {
	from, to mail.Address
	message  []byte // lines ended by CRLF
	// proceed is mail.Attempt.Proceed, never nil.
	proceed func() error
	expires time.Time // zero: never
	// requireTLS asks the server to pass the message on as it was protected here (RFC
	// 8689 2).
	requireTLS bool
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
	// maxScratch is how much room a connection keeps for what it writes.
	maxScratch = 32 << 10
)

// appendWire appends a message as DATA wants it: the dots doubled that begin a line
// (RFC 5321 4.5.2), and the final one.
func appendWire(out, message []byte) []byte {
	if !bytes.HasPrefix(message, []byte(".")) && !bytes.Contains(message, []byte("\n.")) {
		out = append(out, message...)
		return append(out, ".\r\n"...)
	}
	for line := range bytes.Lines(message) {
		if line[0] == '.' {
			out = append(out, '.')
		}
		out = append(out, line...)
	}
	return append(out, ".\r\n"...)
}

// send is one transaction: it returns the reply to the final dot if that is a 2xx,
// else the failure. Only a 2xx that was read in full is an accept. board names who
// may ride behind the dot; it is asked at most once, and whom it names is c.next.
func (c *conn) send(e *envelope, board func() *ride) (mail.Reply, *failure) {
	if f := c.begin(e); f != nil {
		return mail.Reply{}, f
	}
	if f := c.body(e, board); f != nil {
		return mail.Reply{}, f
	}
	began := time.Now()
	r, f := c.await(mail.StageDot, c.wait.Dot)
	c.dotTook = time.Since(began)
	c.said.note(".", r, f, began)
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
	if c.boarded {
		return c.beginBoarded(e)
	}
	if c.tooLarge(e) {
		return &failure{target: c.target, stage: mail.StageMail, err: errTooLarge}
	}
	if err := e.proceed(); err != nil {
		return &failure{target: c.target, stage: mail.StageMail, err: &errStopped{err}}
	}
	if c.pipelined = c.caps.pipelining; c.pipelined {
		c.out = c.appendEnvelope(c.out[:0], e)
		began := time.Now()
		f := c.answers(e, began, c.write(c.wait.Command, c.out))
		c.envelopeTook = time.Since(began)
		return f
	}
	for _, step := range []struct {
		stage mail.Stage
		line  string
		wait  time.Duration
	}{
		{mail.StageMail, c.mailFrom(e), c.wait.Command}, {mail.StageRcpt, rcptTo(e), c.wait.Command}, {mail.StageData, "DATA", c.wait.Data},
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

// boardedWait is for the reply to MAIL or RCPT that went out behind a dot. It is
// shorter than the other waits because to give up costs nothing but a connection, and
// a server that lost those commands never answers.
const boardedWait = 30 * time.Second

// beginBoarded reads the replies to an envelope that went out behind another's dot.
// That was a while ago: until the body begins, a newer message still stops this one
// (law 4).
func (c *conn) beginBoarded(e *envelope) *failure {
	c.boarded, c.pipelined = false, true
	patient := c.wait
	c.wait.Command = min(c.wait.Command, boardedWait)
	f := c.answers(e, c.boardedAt, nil)
	c.wait = patient
	if f != nil {
		return f
	}
	if err := e.proceed(); err != nil {
		return c.fail(mail.StageData, &errStopped{err})
	}
	return nil
}

// tooLarge reports whether e is over what the server declared. The size is without
// the dots that are doubled and the final one (RFC 1870 6).
func (c *conn) tooLarge(e *envelope) bool {
	return c.caps.size > 0 && int64(len(e.message)) > c.caps.size
}

func (c *conn) mailFrom(e *envelope) string {
	from := "MAIL FROM:<" + string(e.from) + ">"
	if c.caps.size > 0 && len(e.message) > 0 { // a trace has none
		from += " SIZE=" + strconv.Itoa(len(e.message)) // RFC 1870 6
	}
	if e.requireTLS {
		from += " REQUIRETLS"
	}
	return from
}

func rcptTo(e *envelope) string { return "RCPT TO:<" + string(e.to) + ">" }

// appendEnvelope appends the commands of one transaction.
func (c *conn) appendEnvelope(out []byte, e *envelope) []byte {
	for _, line := range []string{c.mailFrom(e), rcptTo(e), "DATA"} {
		out = append(append(out, line...), "\r\n"...)
	}
	return out
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

// answers reads the three replies to an envelope, whose write began when it says and
// ended with werr. The first refusal is the outcome, whatever becomes of the connection after it (FAULTS
// A28, A29).
func (c *conn) answers(e *envelope, began time.Time, werr error) *failure {
	c.dirty = true
	var refused *failure
	var data reply
	for _, step := range [...]struct {
		stage mail.Stage
		line  string
		wait  time.Duration
	}{
		{mail.StageMail, c.mailFrom(e), c.wait.Command}, {mail.StageRcpt, rcptTo(e), c.wait.Command}, {mail.StageData, "DATA", c.wait.Data},
	} {
		r, f := c.await(step.stage, step.wait)
		if f != nil && werr != nil {
			f = c.fail(step.stage, werr)
		}
		c.said.note(step.line, r, f, began)
		if f == nil {
			f = c.judge(step.stage, r)
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
	began := time.Now()
	r, f := c.await(mail.StageDot, c.wait.Data)
	c.said.note(".", r, f, began)
	if f == nil {
		c.dirty = false
	}
}

// body sends the message and its final dot, and behind that the envelope of who rides
// with it. Where it fails the dot was not handed to the system in full, so the server
// can't have taken the message; once it returns nil nobody knows until the reply is
// read.
func (c *conn) body(e *envelope, board func() *ride) *failure {
	c.out = appendWire(c.out[:0], e.message)
	rest := c.out
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
	dotted := len(rest)
	rest = c.withRider(rest, board)
	n, err := c.writeSome(wait, rest)
	if err != nil && n < dotted {
		return c.cutShort(e, err)
	}
	if err != nil {
		c.broken = true // the dot is on its way, what follows it is not
	}
	if cap(c.out) > maxScratch {
		c.out = nil
	}
	return nil
}

// withRider appends the envelope of who rides behind the dot, if somebody does.
func (c *conn) withRider(rest []byte, board func() *ride) []byte {
	r := board()
	if r == nil {
		return rest
	}
	with := c.appendEnvelope(rest, r.env)
	if len(with) > tail || c.tooLarge(r.env) || r.env.proceed() != nil {
		r.refuse()
		return rest
	}
	c.next, c.boardedAt = r, time.Now()
	return with
}

// midBody stands for the message in a transcript, where it did not come to the dot.
const midBody = "(the message)"

// early takes what the server says while it should listen. A refusal is one (FAULTS
// A34), but anything else would be taken for the reply to the dot.
func (c *conn) early() *failure {
	began := time.Now()
	r, f := c.await(mail.StageBody, c.wait.Quit)
	c.said.note(midBody, r, f, began)
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
	began := time.Now()
	if r, silent := c.await(mail.StageBody, c.wait.Quit); silent == nil && r.negative() {
		c.said.note(midBody, r, nil, began)
		return c.refuse(mail.StageBody, r)
	}
	c.said.note(midBody, reply{}, f, began)
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
