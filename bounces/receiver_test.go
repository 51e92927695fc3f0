package bounces

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// desk is a Receiver's surroundings in a test.
type desk struct {
	mu        sync.Mutex
	events    []mail.Event
	seen      []string
	forwarded []string
	recordErr error
}

func (d *desk) options(t testing.TB) ReceiverOptions {
	return ReceiverOptions{
		Hello: "bounce.example.com", ReturnPath: newReturnPath(t, 1),
		Record: func(_ context.Context, e mail.Event) error {
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.recordErr != nil {
				return d.recordErr
			}
			d.events = append(d.events, e)
			return nil
		},
		Forward: func(_ context.Context, from, to string, raw []byte) error {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.forwarded = append(d.forwarded, from+" "+to+" "+string(raw))
			return nil
		},
		Seen: func(what string) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.seen = append(d.seen, what)
		},
		Now: func() time.Time { return testNow },
	}
}

var testNow = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// testID is a message of an hour ago.
func testID() mail.ID { return mail.NewID(testNow.Add(-time.Hour)) }

// serve runs a Receiver on a loopback port until the test ends.
func serve(t *testing.T, opt ReceiverOptions) string {
	t.Helper()
	r, err := NewReceiver(opt)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return l.Addr().String()
}

// peer is the other side of a session.
type peer struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

func dial(t *testing.T, addr string) *peer {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return newPeer(t, c)
}

func newPeer(t testing.TB, c net.Conn) *peer { return &peer{t, c, bufio.NewReader(c)} }

// reply reads a whole reply and returns its lines.
func (p *peer) reply() string {
	p.t.Helper()
	var all strings.Builder
	for {
		line, err := p.r.ReadString('\n')
		all.WriteString(line)
		if err != nil {
			p.t.Fatalf("reading a reply: %v after %q", err, all.String())
		}
		if len(line) > 3 && line[3] == ' ' {
			return all.String()
		}
	}
}

// talk sends what begins with "C: " and checks replies against what begins with "S: ";
// "closed" wants the end of the session.
func (p *peer) talk(script ...string) {
	p.t.Helper()
	for _, step := range script {
		switch {
		case strings.HasPrefix(step, "C: "):
			if _, err := io.WriteString(p.conn, step[3:]+"\r\n"); err != nil {
				p.t.Fatalf("%s: %v", step, err)
			}
		case strings.HasPrefix(step, "S: "):
			if got := p.reply(); !strings.HasPrefix(got, step[3:]) {
				p.t.Fatalf("got %q, want %q", got, step[3:])
			}
		case step == "closed":
			if rest, err := io.ReadAll(p.r); len(rest) > 0 {
				p.t.Fatalf("the session went on: %q, %v", rest, err)
			}
		default:
			p.t.Fatalf("unknown step %q", step)
		}
	}
}

const dsnText = "From: MAILER-DAEMON@mx.example.net\r\nTo: x\r\nSubject: Undelivered Mail Returned to Sender\r\n" +
	"Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n" +
	"--b\r\nContent-Type: text/plain\r\n\r\nSorry.\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n" +
	"Reporting-MTA: dns; mx.example.net\r\n\r\nFinal-Recipient: rfc822; someone.else@example.net\r\nAction: failed\r\n" +
	"Status: 5.1.1\r\nDiagnostic-Code: smtp; 550 5.1.1 No such user\r\n\r\n--b--\r\n"

// A report for a message's return path becomes its event, about the message that the
// token names, whatever address the report has (E04); once for all its repetitions
// (E05).
func TestE04E05ReceiverTakesReport(t *testing.T) {
	t.Parallel()
	var d desk
	opt := d.options(t)
	id := testID()
	p := dial(t, serve(t, opt))
	p.talk("S: 220 bounce.example.com", "C: EHLO mx.example.net", "S: 250-")
	for range 2 {
		p.talk("C: MAIL FROM:<>", "S: 250", "C: RCPT TO:<"+strings.ToUpper(opt.ReturnPath.Address(id))+">", "S: 250",
			"C: DATA", "S: 354", "C: "+dsnText+".", "S: 250")
	}
	p.talk("C: QUIT", "S: 221", "closed")
	if len(d.events) != 2 || d.events[0].ID != d.events[1].ID {
		t.Fatalf("events %+v", d.events)
	}
	e := d.events[0]
	if e.Message != id || e.State != mail.StateReturned || e.Cause != mail.CauseBadMailbox || !e.Suppress || e.To != "" || e.By != "dsn" {
		t.Errorf("event %+v", e)
	}
	if e.Evidence.Reply == nil || e.Evidence.Reply.String() != "550 5.1.1 No such user" {
		t.Errorf("evidence %+v", e.Evidence)
	}
	if !slices.Equal(d.seen, []string{"bounce", "bounce"}) {
		t.Errorf("seen %v", d.seen)
	}
}

// Who may write to what (E01, E11, E12), each in a session of its own.
func TestE01E11E12ReceiverRecipients(t *testing.T) {
	t.Parallel()
	var d desk
	opt := d.options(t)
	addr := serve(t, opt)
	mine := opt.ReturnPath.Address(testID())
	other, err := NewReturnPath([]byte("another key, sixteen bytes or more"), opt.ReturnPath.Domain())
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, rcpt, want string }{
		{"a message's return path", mine, "250"},
		{"postmaster", "postmaster@bounce.example.com", "250"},
		{"Postmaster without a domain", "Postmaster", "250"},
		{"abuse", "Abuse@Bounce.Example.Com", "250"},
		{"a token of another key", other.Address(testID()), "550 5.1.1"},
		{"a token of long ago", opt.ReturnPath.Address(mail.NewID(testNow.Add(-61 * 24 * time.Hour))), "550 5.1.1"},
		{"no token", "bounce+@bounce.example.com", "550 5.1.1"},
		{"anybody", "info@bounce.example.com", "550 5.1.1"},
		{"abuse without a domain", "abuse", "501"},
		{"somebody elsewhere", "x@other.example", "550 5.7.1"},
		{"our token elsewhere", strings.Replace(mine, "bounce.example.com", "other.example", 1), "550 5.7.1"},
		{"percent hack", "x%other.example@bounce.example.com", "550 5.1.1"},
		{"bang path", "other.example!x@bounce.example.com", "550 5.1.1"},
		{"quoted address elsewhere", `"x@other.example"@bounce.example.com`, "550 5.7.1"},
		{"sub-domain", "postmaster@x.bounce.example.com", "550 5.7.1"},
		{"source route", "@bounce.example.com:x@other.example", "550 5.7.1"},
		{"source route to us", "@other.example:x@bounce.example.com", "550 5.1.1"},
		{"an address's literal", "postmaster@[127.0.0.1]", "550 5.7.1"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dial(t, addr).talk("S: 220", "C: EHLO mx.example.net", "S: 250-", "C: MAIL FROM:<>", "S: 250",
				"C: RCPT TO:<"+test.rcpt+">", "S: "+test.want)
		})
	}
}

// Nobody learns from the answer whether a token was forged, is another's, or is of a
// message that is too old.
func TestE01NoOracle(t *testing.T) {
	t.Parallel()
	var d desk
	opt := d.options(t)
	addr := serve(t, opt)
	mine := opt.ReturnPath.Address(testID())
	at := strings.IndexByte(mine, '@')
	answers := map[string]string{}
	for name, rcpt := range map[string]string{
		"expired":   opt.ReturnPath.Address(mail.NewID(testNow.Add(-61 * 24 * time.Hour))),
		"forged":    mine[:at-1] + map[bool]string{true: "a", false: "b"}[mine[at-1] != 'a'] + mine[at:],
		"truncated": mine[:at-4] + mine[at:],
		"unknown":   "bounce+aaaaaaaa@bounce.example.com",
	} {
		p := dial(t, addr)
		p.talk("S: 220", "C: EHLO mx.example.net", "S: 250-", "C: MAIL FROM:<>", "S: 250", "C: RCPT TO:<"+rcpt+">")
		answers[p.reply()] = name
	}
	if len(answers) != 1 {
		t.Errorf("they are told apart: %v", answers)
	}
}

// What is too large is refused, declared or not; what only unfolds to much is read
// within bounds, and has no effect.
func TestE09ReceiverBounds(t *testing.T) {
	t.Parallel()
	var d desk
	opt := d.options(t)
	addr := serve(t, opt)
	to := "C: RCPT TO:<" + opt.ReturnPath.Address(testID()) + ">"
	dial(t, addr).talk("S: 220", "C: EHLO mx.example.net", "S: 250-", "C: MAIL FROM:<> SIZE=52428800", "S: 552")
	line := strings.Repeat("x", 998) + "\r\n"
	large := dsnText + strings.Repeat(line, maxReceived/len(line)+1)
	nested := strings.Repeat("Content-Type: message/rfc822\r\n\r\n", 100) + dsnText
	parts := "Subject: Undelivered Mail\r\nContent-Type: multipart/report; boundary=b\r\n\r\n" + strings.Repeat("--b\r\n\r\nx\r\n", 10_000)
	for _, test := range []struct{ name, text, want string }{
		{"too large", large, "552"}, {"nested", nested, "250"}, {"parts", parts, "250"},
	} {
		dial(t, addr).talk("S: 220", "C: EHLO mx.example.net", "S: 250-", "C: MAIL FROM:<>", "S: 250", to, "S: 250",
			"C: DATA", "S: 354", "C: "+test.text+".", "S: "+test.want)
	}
	for _, e := range d.events {
		if e.Suppress {
			t.Errorf("event %+v", e)
		}
	}
}

// The report's codes decide what it does (E07, E08): only what failed for good and is
// about the address suppresses, whatever text stands beside a 5.7.x.
func TestE07E08ActionsAndCodes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		action, status, reply string
		state                 mail.State // "": no event
		cause                 mail.Cause
		suppress              bool
	}{
		{"failed", "5.1.1", "550 5.1.1 No", mail.StateReturned, mail.CauseBadMailbox, true},
		{"failed", "5.1.10", "550 5.1.10 RESOLVER.ADR.RecipientNotFound; not found", mail.StateReturned, mail.CauseBadMailbox, true},
		{"failed", "5.1.2", "550 5.1.2 Host unknown", mail.StateReturned, mail.CauseBadDomain, true},
		{"failed", "5.7.1", "550 5.7.1 User unknown", mail.StateReturned, mail.CauseBadMailbox, false},
		{"failed", "5.7.1", "550 5.7.1 No", mail.StateReturned, mail.CausePolicy, false},
		{"failed", "5.2.2", "552 5.2.2 No", mail.StateReturned, mail.CauseMailboxFull, false},
		{"failed", "2.0.0", "250 2.0.0 User unknown", mail.StateReturned, mail.CauseBadMailbox, false},
		{"delayed", "4.2.2", "452 4.2.2 No", mail.StateDelayed, mail.CauseMailboxFull, false},
		{"delayed", "5.1.1", "550 5.1.1 User unknown", mail.StateDelayed, mail.CauseBadMailbox, false},
		{"delivered", "2.0.0", "250 2.0.0 Ok", "", "", false},
		{"relayed", "2.0.0", "250 2.0.0 Ok", "", "", false},
		{"expanded", "2.0.0", "250 2.0.0 Ok", "", "", false},
	} {
		text := strings.NewReplacer("Action: failed", "Action: "+test.action, "Status: 5.1.1", "Status: "+test.status,
			"550 5.1.1 No such user", test.reply).Replace(dsnText)
		e, ok := Parse([]byte(text)).Event(testID(), testNow)
		if ok != (test.state != "") || e.State != test.state || e.Cause != test.cause || e.Suppress != test.suppress {
			t.Errorf("%s %s %q: %v, %s, %s, suppress %v", test.action, test.status, test.reply, ok, e.State, e.Cause, e.Suppress)
		}
	}
	none, five := strings.Index(dsnText, "Final-Recipient"), strings.Index(dsnText, "\r\n--b--")
	if e, ok := Parse([]byte(dsnText[:none]+dsnText[five:])).Event(testID(), testNow); ok && e.Suppress {
		t.Errorf("a report of nobody: %+v", e)
	}
	many := dsnText[:five] + strings.Repeat("\r\n"+dsnText[none:five], 4) + dsnText[five:]
	if r := Parse([]byte(many)); len(r.Reports) != 5 {
		t.Errorf("%d reports of 5 recipients", len(r.Reports))
	}
}

// Free text that nothing is known of is a bounce without a cause; it suppresses nobody,
// and its words stay out of the log, since they may quote the message's secret. For the
// same reason the mail itself is not kept, against the row's proposal (law 5).
func TestE06FreeText(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"From: MAILER-DAEMON@mx.example.net\r\nSubject: Undelivered Mail Returned to Sender\r\n\r\nxxx yyy https://login.example/i/secret\r\n",
		"From: postmaster@mx.example.net\r\nSubject: Undeliverable: hi\r\n\r\nLe message n'a pas pu passer.\r\n\r\nkari@example.net\r\n",
	} {
		returned := Parse([]byte(text))
		e, ok := returned.Event(testID(), testNow)
		if returned.Kind != KindBounce || !ok || e.Cause != mail.CauseUnknown || e.Suppress || e.Evidence.Reply != nil {
			t.Errorf("%s: %v %+v, %+v", returned.Kind, ok, e, e.Evidence)
		}
	}
}

// What is no report has no effect: other senders (E02), automatic replies (E10),
// successes (E07), ordinary mail; messages that are no longer known (E17).
func TestE02E07E10E17ReceiverIgnores(t *testing.T) {
	t.Parallel()
	delivered := strings.NewReplacer("Action: failed", "Action: delivered", "Status: 5.1.1", "Status: 2.0.0").Replace(dsnText)
	tests := []struct {
		name, from, text, seen string
		known                  bool
	}{
		{"a report from an address", "a@b.example", dsnText, "autoreply", true},
		{"an absence", "", "From: a@b.example\r\nSubject: Automatic reply: Hello\r\nAuto-Submitted: auto-replied\r\n\r\nI am away. 550 5.1.1 user unknown\r\n", "autoreply", true},
		{"a success", "", delivered, "report", true},
		{"ordinary mail", "", "From: a@b.example\r\nSubject: Hello\r\n\r\nHello\r\n", "not-a-bounce", true},
		{"a message that is gone", "", dsnText, "unknown", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var d desk
			opt := d.options(t)
			opt.Known = func(context.Context, mail.ID) (bool, error) { return test.known, nil }
			dial(t, serve(t, opt)).talk("S: 220", "C: EHLO mx.example.net", "S: 250-", "C: MAIL FROM:<"+test.from+">", "S: 250",
				"C: RCPT TO:<"+opt.ReturnPath.Address(testID())+">", "S: 250", "C: DATA", "S: 354", "C: "+test.text+".", "S: 250")
			if len(d.events) != 0 || !slices.Equal(d.seen, []string{test.seen}) {
				t.Errorf("events %+v, seen %v", d.events, d.seen)
			}
		})
	}
}

// 250 only when the event is durable.
func TestE09ReceiverNotDurable(t *testing.T) {
	t.Parallel()
	d := desk{recordErr: errors.New("no store")}
	opt := d.options(t)
	dial(t, serve(t, opt)).talk("S: 220", "C: EHLO mx.example.net", "S: 250-", "C: MAIL FROM:<>", "S: 250",
		"C: RCPT TO:<"+opt.ReturnPath.Address(testID())+">", "S: 250", "C: DATA", "S: 354", "C: "+dsnText+".", "S: 451 4.3.0")
	if !slices.Equal(d.seen, []string{"failed"}) {
		t.Errorf("seen %v", d.seen)
	}
}

func TestE11ReceiverForwards(t *testing.T) {
	t.Parallel()
	var d desk
	dial(t, serve(t, d.options(t))).talk("S: 220", "C: HELO mx.example.net", "S: 250", "C: MAIL FROM:<a@b.example>", "S: 250",
		"C: RCPT TO:<abuse@bounce.example.com>", "S: 250", "C: DATA", "S: 354", "C: Subject: you\r\n\r\n..spam\r\n.", "S: 250")
	if !slices.Equal(d.forwarded, []string{"a@b.example abuse Subject: you\r\n\r\n.spam\r\n"}) {
		t.Errorf("forwarded %q", d.forwarded)
	}
}

// Serve ends with its context, even with a session under way.
func TestReceiverStops(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var d desk
		r, err := NewReceiver(d.options(t))
		if err != nil {
			t.Fatal(err)
		}
		l := pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Serve(ctx, &l) }()
		server, client := net.Pipe()
		l.conns <- server
		p := newPeer(t, client)
		p.talk("S: 220")
		began := time.Now()
		stop()
		if err := <-done; err != nil || time.Since(began) > 10*time.Second {
			t.Errorf("Serve: %v after %v", err, time.Since(began))
		}
		p.talk("closed")
	})
}

func TestNewReceiverRefuses(t *testing.T) {
	t.Parallel()
	var d desk
	for i, change := range []func(*ReceiverOptions){
		func(o *ReceiverOptions) { o.ReturnPath = nil },
		func(o *ReceiverOptions) { o.Record = nil },
		func(o *ReceiverOptions) { o.Hello = "" },
	} {
		opt := d.options(t)
		change(&opt)
		if _, err := NewReceiver(opt); err == nil {
			t.Errorf("options %d were taken", i)
		}
	}
}
