package deliver

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// The pieces of which most transcripts consist.
const (
	hi = `
		S: 220 mx.dest.example ESMTP
		C: EHLO out.acme.example
		S: 250-mx.dest.example greets out.acme.example
		S: 250 PIPELINING
	`
	// hiPlain is a server that takes one command at a time.
	hiPlain = `
		S: 220 mx.dest.example ESMTP
		C: EHLO out.acme.example
		S: 250 mx.dest.example
	`
	envelopeOK = `
		C: MAIL FROM:<bounce@acme.example>
		C: RCPT TO:<kari@dest.example>
		C: DATA
		S: 250 2.1.0 ok
		S: 250 2.1.5 ok
		S: 354 go on
		C.
	`
	queued = `
		S: 250 2.0.0 Ok: queued as 4VNkGp2Zwz9s
	`
	bye = `
		C: QUIT
		S: 221 bye
	`
	accepting = hi + envelopeOK + queued + bye
)

const (
	mx1 = "192.0.2.1:25"
	mx2 = "192.0.2.2:25"
)

// twoHosts plans mx1 and, where it has scripts, mx2 as a backup.
func twoHosts(scripts map[string][]string) Plan {
	p := Plan{Hosts: []Host{{Name: "mx1.dest.example", Pref: 10, Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}}}
	if _, ok := scripts[mx2]; ok {
		p.Hosts = append(p.Hosts, Host{Name: "mx2.dest.example", Pref: 20, Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.2")}})
	}
	return p
}

// testMessage is an invite that lives a week from now.
func testMessage() mail.Message {
	now := time.Now()
	id := mail.NewID(now)
	return mail.Message{
		ID: id, Ref: id.Ref(), Kind: "invite", To: "kari@dest.example", Locale: "en", From: "Acme <no-reply@acme.example>",
		QueuedAt: now, ExpiresAt: now.Add(7 * 24 * time.Hour),
	}
}

func renderTest(m *mail.Message) ([]byte, error) {
	return []byte("From: " + m.From + "\r\nTo: <" + string(m.To) + ">\r\nSubject: Your invite\r\nMessage-ID: <" + string(m.ID) +
		"@acme.example>\r\nDate: " + m.QueuedAt.UTC().Format(time.RFC1123Z) + "\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n" +
		"Hello,\r\n.a line that begins with a dot\r\n\r\nGoodbye\r\n"), nil
}

// options are what every test's Deliverer has; dial and plan are the test's.
func testOptions(t testing.TB, network *smtptest.Network, plan Plan) Options {
	t.Helper()
	return Options{
		Hello: "out.acme.example", Render: renderTest,
		ReturnPath: func(mail.ID) string { return "bounce@acme.example" },
		Plan:       func(context.Context, string) (Plan, error) { return plan, nil },
		Dial:       network.Dial,
		Log:        slog.New(slog.NewTextHandler(testLog{t}, nil)),
	}
}

// testLog checks what FAULTS asks of every log line, and hands it to the test's log.
type testLog struct{ t testing.TB }

func (l testLog) Write(b []byte) (int, error) {
	line := strings.TrimSuffix(string(b), "\n")
	for _, c := range line {
		if c < ' ' || c == 0x7f || c == 0xfffd {
			l.t.Errorf("the log line has control bytes: %q", line)
		}
	}
	if strings.Contains(line, "tok3n") {
		l.t.Errorf("the log line has the secret: %q", line)
	}
	if strings.Contains(line, "begins with a dot") {
		l.t.Errorf("the log line has the body: %q", line)
	}
	l.t.Log(line)
	return len(b), nil
}

func newDeliverer(t testing.TB, o Options) *Deliverer {
	t.Helper()
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// fault is one row of the fault suite: scripts, and what the attempt comes to.
type fault struct {
	name    string
	scripts map[string][]string
	number  int // of the attempt; 0: 1
	change  func(*Options, *Plan, *mail.Attempt)
	// unsigned: it ends before there is anything to sign.
	unsigned bool
	cut      bool // scripts may end in errors, as the client hangs up on them

	state    mail.State
	cause    mail.Cause
	ambig    bool
	suppress bool
	stage    mail.Stage
	host     string
	text     string        // part of the reply or the error that decided
	within   time.Duration // 0: a minute
	check    func(*testing.T, *smtptest.Network, mail.Outcome)
}

func (f *fault) run(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cert, err := smtptest.SelfSigned(time.Now().Add(time.Hour), "mx1.dest.example")
		if err != nil {
			t.Fatal(err)
		}
		network := smtptest.NewNetwork(&cert, f.scripts)
		plan := twoHosts(f.scripts)
		a := &mail.Attempt{Message: testMessage(), Number: max(1, f.number)}
		o := testOptions(t, network, plan)
		if f.change != nil {
			f.change(&o, &plan, a)
			o.Plan = func(context.Context, string) (Plan, error) { return plan, nil }
		}
		d := newDeliverer(t, o)
		began := time.Now()
		got := d.Attempt(t.Context(), a)
		took := time.Since(began)
		d.Close()
		network.Close()
		if err := network.Wait(); err != nil && !f.cut {
			t.Errorf("the other side: %v", err)
		}
		f.judge(t, got, took)
		if f.check != nil {
			f.check(t, network, got)
		}
	})
}

func (f *fault) judge(t *testing.T, got mail.Outcome, took time.Duration) {
	t.Helper()
	if got.State != f.state || got.Cause != f.cause && f.cause != "*" {
		t.Errorf("got %q because of %q (%+v), want %q because of %q", got.State, got.Cause, got.Evidence, f.state, f.cause)
	}
	if got.PossibleDuplicate != f.ambig {
		t.Errorf("possible duplicate: %v, want %v", got.PossibleDuplicate, f.ambig)
	}
	if got.Suppress != f.suppress {
		t.Errorf("suppress: %v, want %v", got.Suppress, f.suppress)
	}
	if f.stage != "" && got.Evidence.Stage != f.stage {
		t.Errorf("stage %q, want %q", got.Evidence.Stage, f.stage)
	}
	if f.host != "" && got.Evidence.Host != f.host {
		t.Errorf("host %q, want %q", got.Evidence.Host, f.host)
	}
	said := got.Evidence.Error
	if got.Evidence.Reply != nil {
		said = got.Evidence.Reply.String()
	}
	if !strings.Contains(said, f.text) {
		t.Errorf("decided by %q, want %q in it", said, f.text)
	}
	limit := f.within
	if limit == 0 {
		limit = time.Minute
	}
	if took > limit+time.Second {
		t.Errorf("took %v, want at most %v", took, limit)
	}
	if len(got.Signed) == 0 && !f.unsigned {
		t.Error("the bytes were not kept for the next attempt")
	}
}

// only is the scripts of a destination with one host.
func only(scripts ...string) map[string][]string { return map[string][]string{mx1: scripts} }

// then is the scripts of a destination whose backup accepts.
func then(first string) map[string][]string {
	return map[string][]string{mx1: {first}, mx2: {accepting}}
}

var testPort = netip.MustParseAddrPort("127.0.0.1:2525")
