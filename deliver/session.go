package deliver

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// Timeouts are the waits of a conversation. Each is for a whole reply, or for a
// block of data to be taken, not for a byte of it: a server that sends one byte
// every few seconds gains nothing. A zero field means the value that is named.
type Timeouts struct {
	Connect  time.Duration // 30 s, as Postfix: RFC 5321 names none
	Greeting time.Duration // 5 min, RFC 5321 4.5.3.2.1
	TLS      time.Duration // 30 s for the handshake
	Command  time.Duration // 5 min for EHLO, STARTTLS, AUTH, MAIL, RCPT: 4.5.3.2.2, .3
	Data     time.Duration // 2 min for DATA's 354: 4.5.3.2.4
	Write    time.Duration // 3 min for a block of 64 KiB to be taken: 4.5.3.2.5
	Dot      time.Duration // 10 min for the reply to the final dot: 4.5.3.2.6
	Quit     time.Duration // 5 s: the message is long safe, and nobody waits
}

func (t Timeouts) withDefaults() Timeouts {
	for _, f := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&t.Connect, 30 * time.Second}, {&t.Greeting, 5 * time.Minute}, {&t.TLS, 30 * time.Second},
		{&t.Command, 5 * time.Minute}, {&t.Data, 2 * time.Minute}, {&t.Write, 3 * time.Minute},
		{&t.Dot, 10 * time.Minute}, {&t.Quit, 5 * time.Second},
	} {
		if *f.field <= 0 {
			*f.field = f.value
		}
	}
	return t
}

// within shortens the waits before the final dot for a message that has little time
// left: a PIN of 15 minutes that waits 5 for the greeting of a first host never
// reaches the second. A tenth of what is left, but at least 30 s. The wait after
// the dot stays: to cut it short would make a duplicate.
func (t Timeouts) within(left time.Duration) Timeouts {
	patience := max(left/10, 30*time.Second)
	for _, f := range []*time.Duration{&t.Connect, &t.Greeting, &t.TLS, &t.Command, &t.Data, &t.Write} {
		*f = min(*f, patience)
	}
	return t
}

// conn is one SMTP connection and what was learned on it. One goroutine at a time
// uses it: the attempt that took it.
//
//	dial ─▶ greeting ─▶ EHLO ─▶ STARTTLS ─▶ EHLO ─▶ [AUTH] ─▶ ready
//	ready ─▶ MAIL RCPT DATA ─▶ body ─▶ dot ─▶ ready | closed
//	ready ─▶ QUIT
//
// Every arrow is a method that either arrives or returns a *failure, after which
// the connection is closed unless it says that it is in sync.
type conn struct {
	raw      net.Conn // what was dialled; closing it ends every wait
	net.Conn          // raw, or TLS over it: where bytes are read and written
	replies  *replyReader
	wait     Timeouts // of the attempt that uses it
	target   target
	hello    string
	caps     capabilities
	tls      *mail.TLS

	born     time.Time
	messages int  // the most that it may carry, by its plan; 0: no limit is known
	carried  int  // messages whose transaction ended on it in sync
	dirty    bool // a transaction was begun and not ended: RSET before the next
	broken   bool // out of sync, or the server is closing: never to be reused
	seat     bool // it was offered to the next message (ride.go)
	boarded  bool // the envelope of who owns it now is sent already
	// next is whose envelope went out behind the dot, until it is given the connection.
	next *ride
	// How long the server took for the last envelope that went out alone, and for the
	// last dot.
	envelopeTook, dotTook time.Duration
	out                   []byte // scratch: what is written at once
	said                  transcript
	boardedAt             time.Time // when the envelope went out, if it is boarded
	provider              string    // as its words give away, see providerBy
	// pipelined says that commands of one transaction went out together, for the
	// memory of servers that can't take it.
	pipelined bool
}

// capabilities is what a server's EHLO reply offers (RFC 5321 4.1.1.1).
type capabilities struct {
	startTLS   bool
	requireTLS bool // RFC 8689
	pipelining bool
	size       int64 // the largest message it takes; 0 or less: no limit is known
	auth       []string
	lines      []string // for the evidence
}

var errTimeout = errors.New("no answer in time")

// await reads the reply to a command. The deadline is for the reply as a whole.
func (c *conn) await(stage mail.Stage, timeout time.Duration) (reply, *failure) {
	// It fails only on a connection that is closed, where reading fails as well, after
	// what was said before.
	c.SetReadDeadline(time.Now().Add(timeout))
	r, err := c.replies.read()
	if err != nil {
		return reply{}, c.fail(stage, err)
	}
	if r.code == 421 {
		c.broken = true // the server closes the channel, whatever was asked: RFC 5321 4.2.3
	}
	return r, nil
}

// fail makes the failure that err is, and gives the connection up.
func (c *conn) fail(stage mail.Stage, err error) *failure {
	c.broken = true
	if _, handshake := err.(*errHandshake); !handshake && errors.Is(err, os.ErrDeadlineExceeded) {
		err = errTimeout
	}
	return &failure{target: c.target, stage: stage, err: err}
}

// refuse makes the failure that a reply is.
func (c *conn) refuse(stage mail.Stage, r reply) *failure {
	said := r.said()
	return &failure{target: c.target, stage: stage, reply: &said}
}

// unexpected makes the failure of a reply that no server may give at this stage.
func (c *conn) unexpected(stage mail.Stage, r reply) *failure {
	return c.fail(stage, &errProtocol{fmt.Sprintf("%d is no answer here", r.code)})
}

func (c *conn) write(timeout time.Duration, b []byte) error {
	_, err := c.writeSome(timeout, b)
	return err
}

// writeSome also tells how much was handed to the system.
func (c *conn) writeSome(timeout time.Duration, b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return 0, err
	}
	return c.Write(b)
}

// command sends one line and reads its reply.
func (c *conn) command(stage mail.Stage, timeout time.Duration, line string) (reply, *failure) {
	began := time.Now()
	werr := c.write(timeout, []byte(line+"\r\n"))
	r, f := c.await(stage, timeout)
	if f != nil && werr != nil {
		// What the server said before it closed is worth more than our broken pipe; where
		// it said nothing, the first error is the cause.
		f = c.fail(stage, werr)
	}
	shown := r
	switch stage {
	case mail.StageAuth:
		// Servers are known to echo what they were told.
		line, shown.lines = hidden(line), ""
	case mail.StageHello:
		shown.lines, _, _ = strings.Cut(r.lines, "\n") // the others are the capabilities
	}
	c.said.note(line, shown, f, began)
	return r, f
}

// insync reports whether the server has said nothing that wasn't asked for. What
// it says too much now would be taken for the answer to a later command (FAULTS
// A09, A30): one such byte and nothing it says can be believed.
func (c *conn) insync() bool {
	if c.replies.buffered() {
		return false
	}
	silent := quiet(c.raw)
	if c.Conn == c.raw {
		return silent
	}
	// TLS may hold a record that it read together with the last one: a deadline in the
	// past gets at that, and reads nothing more. What has arrived since may be TLS's own
	// (a ticket, a new key), so a moment is spent to see whether it is said to us.
	deadline := time.Unix(1, 0)
	if !silent {
		deadline = time.Now().Add(10 * time.Millisecond)
	}
	if c.SetReadDeadline(deadline) != nil {
		return false
	}
	_, err := c.replies.br.Peek(1)
	return errors.Is(err, os.ErrDeadlineExceeded)
}

// open dials a target and brings the connection to where MAIL can be said.
func (d *Deliverer) open(ctx context.Context, p *Plan, t target, wait Timeouts) (*conn, *failure) {
	policy := t.demand().Level
	c, f := d.connect(ctx, p, t, wait, policy)
	if f != nil && f.clearNext && policy == TLSOpportunistic && ctx.Err() == nil {
		// The handshake failed and whatever follows on that connection is lost. Mail in
		// clear to a server with a broken TLS is what there would have been without
		// STARTTLS: once more, without it (RFC 7435 4).
		t = f.target // whichever of the host's addresses it was
		t.other = netip.AddrPort{}
		d.memory.brokenTLS(t.addr.Addr())
		clear, f2 := d.connect(ctx, p, t, wait, TLSNone)
		if f2 != nil {
			return nil, f2
		}
		clear.tls = &mail.TLS{Policy: f.tls.Policy, Source: f.tls.Source, Problem: "not used: " + plain(f.err)}
		if t.demand().Testing {
			clear.tls.Failure = f.tls.Failure
		}
		return clear, nil
	}
	return c, f
}

func (d *Deliverer) connect(ctx context.Context, p *Plan, t target, wait Timeouts, policy TLSPolicy) (*conn, *failure) {
	won, also := d.dialHost(ctx, p.from, t, wait.Connect)
	if won.err != nil {
		return nil, unconnected(won, also)
	}
	raw := won.conn
	c := &conn{raw: raw, Conn: raw, replies: newReplyReader(raw), wait: wait, target: won.to, hello: p.from.hello, born: time.Now()}
	release := c.bind(ctx)
	f := c.start(ctx, d, p, policy)
	release() // where that comes too late, the next write finds the connection closed
	if f == nil {
		return c, nil
	}
	f.tls, f.said, f.offers = c.tls, c.said.exchanges, c.caps.lines
	if c.broken {
		raw.Close()
	} else {
		d.pool.end(c)
	}
	return nil, f
}

// bind closes the connection when ctx ends. The function it returns undoes that,
// and reports whether it was in time.
func (c *conn) bind(ctx context.Context) (release func() bool) {
	return context.AfterFunc(ctx, func() { c.raw.Close() })
}

// start goes from the greeting to where MAIL can be said.
func (c *conn) start(ctx context.Context, d *Deliverer, p *Plan, policy TLSPolicy) *failure {
	if policy == TLSImplicit {
		if f := c.handshake(ctx, d, policy); f != nil {
			return f
		}
	}
	if f := c.greeting(p); f != nil {
		return f
	}
	if f := c.sayHello(p); f != nil {
		return f
	}
	if policy != TLSNone && policy != TLSImplicit {
		if f := c.secure(ctx, d, p, policy); f != nil {
			return f
		}
	}
	if p.Login != nil {
		return c.login(*p.Login)
	}
	return nil
}

func (c *conn) greeting(p *Plan) *failure {
	began := time.Now()
	r, f := c.await(mail.StageGreeting, c.wait.Greeting)
	c.said.note("", r, f, began)
	switch {
	case f != nil:
		return f
	case r.negative():
		return c.refuse(mail.StageGreeting, r)
	case !r.positive():
		return c.unexpected(mail.StageGreeting, r)
	case !c.insync():
		return c.fail(mail.StageGreeting, &errProtocol{"it talks before its turn"})
	case !p.Relay && c.isMe(r):
		return &failure{target: c.target, stage: mail.StageGreeting, err: errLoop}
	}
	return nil
}

// isMe reports whether a greeting names us: the domain after the code is the
// server's own (RFC 5321 4.2, 4.1.1.1), so that mail sent there would come back.
func (c *conn) isMe(r reply) bool {
	name, _, _ := strings.Cut(r.lines, "\n")
	name, _, _ = strings.Cut(name, " ")
	return strings.EqualFold(strings.TrimSuffix(name, "."), c.hello)
}

// sayHello introduces us and learns what the server offers. HELO only for a server
// that does not know EHLO (RFC 5321 3.2): a 501, 550 or 554 is about us.
func (c *conn) sayHello(p *Plan) *failure {
	c.caps = capabilities{}
	r, f := c.command(mail.StageHello, c.wait.Command, "EHLO "+c.hello)
	if f == nil && (r.code == 500 || r.code == 502) {
		r, f = c.command(mail.StageHello, c.wait.Command, "HELO "+c.hello)
	} else if f == nil && r.positive() {
		c.caps = parseCapabilities(r)
	}
	switch {
	case f != nil:
		return f
	case r.negative():
		return c.refuse(mail.StageHello, r)
	case !r.positive():
		return c.unexpected(mail.StageHello, r)
	case !c.insync():
		return c.fail(mail.StageHello, &errProtocol{"more replies than commands"})
	case !p.Relay && c.isMe(r):
		return &failure{target: c.target, stage: mail.StageHello, err: errLoop}
	}
	return nil
}

// parseCapabilities reads the lines after the first. Keywords are case-insensitive
// (RFC 5321 2.4): a lower-case "starttls" that is not seen is mail in clear.
func parseCapabilities(r reply) capabilities {
	var c capabilities
	first := true
	for line := range strings.SplitSeq(r.lines, "\n") {
		if first {
			first = false
			continue
		}
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		c.lines = append(c.lines, line)
		keyword := strings.ToUpper(words[0])
		if mechanism, ok := strings.CutPrefix(keyword, "AUTH="); ok {
			// As it was before RFC 2554, and as some relays still say it.
			c.auth = append(append(c.auth, mechanism), words[1:]...)
		}
		switch keyword {
		case "STARTTLS":
			c.startTLS = true
		case "REQUIRETLS":
			c.requireTLS = true
		case "PIPELINING":
			c.pipelining = true
		case "SIZE":
			// RFC 1870 3: no argument, or 0, is no fixed limit; what is no number, a negative
			// one, or one beyond 63 bits, tells nothing.
			if len(words) > 1 {
				if n, err := strconv.ParseInt(words[1], 10, 64); err == nil {
					c.size = n
				}
			}
		case "AUTH":
			c.auth = append(c.auth, words[1:]...)
		}
	}
	c.lines = offered(c.lines)
	return c
}

// offers reports whether a SASL mechanism is among those offered.
func (c capabilities) offers(mechanism string) bool {
	for _, m := range c.auth {
		if strings.EqualFold(m, mechanism) {
			return true
		}
	}
	return false
}

// login proves who we are to a relay (RFC 4954): PLAIN in one go, or LOGIN, which
// some relays have alone. A no is about our configuration, not about the message.
func (c *conn) login(l Login) *failure {
	if c.tls == nil || c.tls.Version == "" {
		return &failure{target: c.target, stage: mail.StageAuth, err: &errOurs{"the relay offers no TLS, and a password is not sent in clear"}}
	}
	b64 := base64.StdEncoding.EncodeToString
	var lines []string
	switch {
	case c.caps.offers("PLAIN"):
		lines = []string{"AUTH PLAIN " + b64([]byte("\x00"+l.User+"\x00"+l.Password))}
	case c.caps.offers("LOGIN"):
		lines = []string{"AUTH LOGIN", b64([]byte(l.User)), b64([]byte(l.Password))}
	default:
		return &failure{target: c.target, stage: mail.StageAuth, err: &errOurs{"the relay offers neither AUTH PLAIN nor AUTH LOGIN"}}
	}
	for i, line := range lines {
		r, f := c.command(mail.StageAuth, c.wait.Command, line)
		last := i == len(lines)-1
		switch {
		case f != nil:
			return f
		case last && r.positive(), !last && r.code == 334:
			continue
		case r.code/100 == 5:
			// The reply's text is left out: servers are known to echo what they were told.
			return &failure{target: c.target, stage: mail.StageAuth, err: &errOurs{
				"the relay refused our user name and password with " + strconv.Itoa(r.code)}}
		case r.code/100 == 4:
			return &failure{target: c.target, stage: mail.StageAuth, reply: &mail.Reply{Code: r.code}}
		default:
			return c.unexpected(mail.StageAuth, r)
		}
	}
	return nil
}

// quit says QUIT and waits a little for the answer, so that the server sees an
// orderly end. It owns the connection and closes it.
func (c *conn) quit() {
	c.SetDeadline(time.Now().Add(c.wait.Quit))
	if _, err := c.Write([]byte("QUIT\r\n")); err == nil {
		c.replies.read()
	}
	c.raw.Close()
}
