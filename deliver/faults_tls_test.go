package deliver

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

const (
	offers   = "S: 220 mx\nC: EHLO out.acme.example\nS: 250-mx\nS: 250-STARTTLS\nS: 250 PIPELINING\n"
	tlsHello = "C: STARTTLS\nS: 220 go\ntls\nC: EHLO out.acme.example\nS: 250-mx\nS: 250 PIPELINING\n"
	overTLS  = offers + tlsHello + envelopeOK + queued + bye
)

func want(policy TLSPolicy) func(*Options, *Plan, *mail.Attempt) {
	return func(_ *Options, p *Plan, _ *mail.Attempt) { p.TLS = policy }
}

func inClear(t *testing.T, o mail.Outcome) {
	t.Helper()
	if o.Evidence.TLS == nil || o.Evidence.TLS.Version != "" || o.Evidence.TLS.Problem == "" {
		t.Errorf("TLS is %+v, want none, and why", o.Evidence.TLS)
	}
}

// Part B of the fault suite, as far as policies are opportunistic or given.
func TestFaultsOfTLS(t *testing.T) {
	t.Parallel()
	clear := func(t *testing.T, _ *smtptest.Network, o mail.Outcome) { inClear(t, o) }
	for _, f := range []fault{
		{name: "B01 220, then on in clear: once more in clear", cut: true,
			scripts: only(offers+"C: STARTTLS\nS: 220 go\nread 10\nS: 250 what do you mean\nhang", offers+envelopeOK+queued+bye),
			state:   mail.StateAccepted, check: clear, within: time.Second},
		{name: "B01 with TLS wanted: later", cut: true, change: want(TLSEncrypted),
			scripts: only(offers + "C: STARTTLS\nS: 220 go\nread 10\nS: 250 what do you mean\nhang"),
			state:   mail.StateDelayed, cause: mail.CauseTLSRequired, stage: mail.StageTLS, text: "handshake", within: time.Second},
		{name: "B01 closed in the handshake: once more in clear", cut: true,
			scripts: only(offers+"C: STARTTLS\nS: 220 go\nread 10\nclose", offers+envelopeOK+queued+bye),
			state:   mail.StateAccepted, check: clear, within: time.Second},
		{name: "B02 bytes between 220 and the handshake", scripts: then(offers + "C: STARTTLS\nS: 220 go\nS: 250 injected\nhang"),
			state: mail.StateAccepted, host: "mx2.dest.example",
			check: func(t *testing.T, _ *smtptest.Network, o mail.Outcome) {
				if !strings.Contains(o.Evidence.Tries[0].Error, "starttls-injection") {
					t.Errorf("tries: %+v", o.Evidence.Tries)
				}
			}},
		{name: "B02 everywhere", scripts: only(offers + "C: STARTTLS\nS: 220 go\nS: 250 injected\nhang"),
			state: mail.StateDelayed, cause: mail.CauseProtocol, stage: mail.StageTLS, text: "starttls-injection"},
		{name: "B03 454: on in clear", scripts: only(offers + "C: STARTTLS\nS: 454 4.7.0 TLS not available\n" + envelopeOK + queued + bye),
			state: mail.StateAccepted, check: clear},
		{name: "B03 500: on in clear", scripts: only(offers + "C: STARTTLS\nS: 500 what\n" + envelopeOK + queued + bye),
			state: mail.StateAccepted, check: clear},
		{name: "B03 454 with TLS wanted: the next host", change: want(TLSEncrypted),
			scripts: map[string][]string{mx1: {offers + "C: STARTTLS\nS: 454 4.7.0 TLS not available\n" + bye}, mx2: {overTLS}},
			state:   mail.StateAccepted, host: "mx2.dest.example"},
		{name: "B03 not offered, with TLS wanted", change: want(TLSEncrypted), scripts: only(hi + bye),
			state: mail.StateDelayed, cause: mail.CauseTLSRequired, stage: mail.StageTLS},
		{name: "B04 the handshake stalls: 30 s, then in clear",
			scripts: only(offers+"C: STARTTLS\nS: 220 go\nhang", offers+envelopeOK+queued+bye),
			state:   mail.StateAccepted, within: 30 * time.Second,
			check: func(t *testing.T, _ *smtptest.Network, o mail.Outcome) {
				if inClear(t, o); o.Evidence.TLS.Problem != "not used: TLS handshake: no answer in time" {
					t.Errorf("the problem is %q", o.Evidence.TLS.Problem)
				}
			}},
		{name: "B06 TLS 1.1 at most: once more in clear", cut: true,
			scripts: only(offers+"C: STARTTLS\nS: 220 go\ntls1.1\nhang", offers+envelopeOK+queued+bye),
			state:   mail.StateAccepted, check: clear},
		{name: "B06 TLS 1.1 at most, with TLS wanted", cut: true, change: want(TLSEncrypted),
			scripts: only(offers + "C: STARTTLS\nS: 220 go\ntls1.1\nhang"),
			state:   mail.StateDelayed, cause: mail.CauseTLSRequired, stage: mail.StageTLS, text: "handshake"},
		{name: "B05 self-signed: delivered, and noted", scripts: only(overTLS), state: mail.StateAccepted,
			check: func(t *testing.T, _ *smtptest.Network, o mail.Outcome) {
				if v := o.Evidence.TLS; v == nil || v.Verified || v.Problem != "self-signed" || v.Version != "TLS 1.3" || v.Cipher == "" || len(v.Names) != 1 || v.Expires.IsZero() {
					t.Errorf("TLS: %+v", v)
				}
			}},
		{name: "B05 self-signed, with a certificate wanted", cut: true, change: want(TLSVerified),
			scripts: only(offers + "C: STARTTLS\nS: 220 go\ntls\nhang"),
			state:   mail.StateDelayed, cause: mail.CauseTLSRequired, stage: mail.StageTLS, text: "self-signed (certificate-not-trusted",
			within: 30 * time.Second}, // over a pipe the server may still be writing when the client's alert comes
	} {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			f.run(t)
		})
	}
}

// B05: what is wrong with a certificate is said in words.
func TestFaultB05Certificates(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		expires time.Duration
		host    string
		trusted bool
		want    string // "": verified
	}{
		{"good", time.Hour, "mx1.dest.example", true, ""},
		{"expired", -48 * time.Hour, "mx1.dest.example", true, "expired on 1999-12-30"},
		{"not yet valid", 500 * 24 * time.Hour, "mx1.dest.example", true, "not valid before "},
		{"another name", time.Hour, "www.dest.example", true, "made for another name: www.dest.example"},
		{"self-signed", time.Hour, "mx1.dest.example", false, "self-signed"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				cert, err := smtptest.SelfSigned(time.Now().Add(row.expires), row.host)
				if err != nil {
					t.Fatal(err)
				}
				network := smtptest.NewNetwork(&cert, only(overTLS))
				o := testOptions(t, network, twoHosts(nil))
				if row.trusted {
					o.RootCAs = smtptest.Roots(cert)
				}
				d := newDeliverer(t, o)
				got := d.Attempt(t.Context(), &mail.Attempt{Message: testMessage(), Number: 1})
				d.Close()
				if err := network.Wait(); err != nil {
					t.Error(err)
				}
				v := got.Evidence.TLS
				if got.State != mail.StateAccepted || v == nil {
					t.Fatalf("got %+v", got)
				}
				if v.Verified != (row.want == "") || !strings.HasPrefix(v.Problem, row.want) {
					t.Errorf("verified %v, problem %q, want %q", v.Verified, v.Problem, row.want)
				}
			})
		})
	}
}

// B06: a server whose TLS fails is served in clear, and for an hour without asking
// again.
func TestFaultB06BrokenTLSIsRemembered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broken := offers + "C: STARTTLS\nS: 220 go\nread 10\nS= \"\\x15\\x03\\x01\\x00\\x02\\x02\\x46\"\nclose"
		clear := offers + envelopeOK + queued + bye
		network := smtptest.NewNetwork(nil, only(broken, clear, clear, broken, clear))
		o := testOptions(t, network, twoHosts(nil))
		o.Pool.Messages = 1
		d := newDeliverer(t, o)
		for _, wait := range []time.Duration{0, 59 * time.Minute, 2 * time.Minute} {
			time.Sleep(wait)
			got := d.Attempt(t.Context(), &mail.Attempt{Message: testMessage(), Number: 1})
			if got.State != mail.StateAccepted {
				t.Fatalf("got %+v", got)
			}
			inClear(t, got)
		}
		d.Close()
		network.Close()
		if n := len(network.Dialled()); n != 5 {
			t.Errorf("%d connections, want 5", n)
		}
	})
}

// A reply too many that TLS holds in a record of its own is seen: two records come in
// one piece, and the first is asked for.
func TestInsyncLooksIntoTLS(t *testing.T) {
	t.Parallel()
	cert, err := smtptest.SelfSigned(time.Now().Add(time.Hour), "mx1.dest.example")
	if err != nil {
		t.Fatal(err)
	}
	for _, extra := range []string{"", "250 2.0.0 Ok: queued as FALSE\r\n"} {
		client, pipe := net.Pipe()
		gather := &gathering{Conn: pipe}
		done := make(chan error, 1)
		go func() {
			tc := tls.Server(gather, &tls.Config{Certificates: []tls.Certificate{cert}, SessionTicketsDisabled: true})
			err := tc.Handshake()
			gather.hold = true
			tc.Write([]byte("354 go on\r\n"))
			if extra != "" {
				tc.Write([]byte(extra))
			}
			_, werr := pipe.Write(gather.held)
			done <- errors.Join(err, werr)
		}()
		d := newDeliverer(t, testOptions(t, smtptest.NewNetwork(nil, nil), Plan{}))
		c := &conn{raw: client, Conn: client, replies: newReplyReader(client), wait: d.wait}
		if f := c.handshake(t.Context(), d, TLSEncrypted); f != nil {
			t.Fatal(f.err)
		}
		if r, f := c.await(mail.StageData, time.Minute); f != nil || r.code != 354 {
			t.Fatalf("got %+v, %+v", r, f)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if c.replies.buffered() {
			t.Fatal("the test shows nothing: both records were read")
		}
		if c.insync() != (extra == "") {
			t.Errorf("with %q after the 354, in sync is %v", extra, c.insync())
		}
		client.Close()
		pipe.Close()
	}
}

// gathering holds back what is written, so that it can go out in one piece.
type gathering struct {
	net.Conn
	hold bool
	held []byte
}

func (g *gathering) Write(b []byte) (int, error) {
	if !g.hold {
		return g.Conn.Write(b)
	}
	g.held = append(g.held, b...)
	return len(b), nil
}

// A relay with a user and a password gets them inside TLS, or not at all.
func TestLogin(t *testing.T) {
	t.Parallel()
	const user, password = "mailer", "correct horse"
	login := func(policy TLSPolicy) func(*Options, *Plan, *mail.Attempt) {
		return func(o *Options, p *Plan, _ *mail.Attempt) {
			p.TLS, p.Relay, p.Login = policy, true, &Login{user, password}
		}
	}
	hello := func(auth string) string {
		return offers + "C: STARTTLS\nS: 220 go\ntls\nC: EHLO\nS: 250-out.acme.example\nS: 250-" + auth + "\nS: 250 PIPELINING\n"
	}
	plainLine := "C: AUTH PLAIN AG1haWxlcgBjb3JyZWN0IGhvcnNl\n"
	noPassword := func(t *testing.T, n *smtptest.Network, o mail.Outcome) {
		kept, err := json.Marshal(o.Evidence)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{password, "AG1haWxlcgBjb3JyZWN0IGhvcnNl", "Y29ycmVjdCBob3JzZQ"} {
			if strings.Contains(o.Local+string(kept), secret) {
				t.Errorf("%q is in %q, %s", secret, o.Local, kept)
			}
		}
	}
	for _, f := range []fault{
		{name: "PLAIN", change: login(TLSEncrypted), scripts: only(hello("AUTH LOGIN PLAIN") + plainLine + "S: 235 ok\n" + envelopeOK + queued + bye), state: mail.StateAccepted},
		{name: "LOGIN", change: login(TLSEncrypted), scripts: only(hello("AUTH login") + "C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: bWFpbGVy\nS: 334 UGFzc3dvcmQ6\nC: Y29ycmVjdCBob3JzZQ==\nS: 235 ok\n" + envelopeOK + queued + bye), state: mail.StateAccepted},
		{name: "the old way to offer", change: login(TLSEncrypted), scripts: only(hello("AUTH=LOGIN PLAIN") + plainLine + "S: 235 ok\n" + envelopeOK + queued + bye), state: mail.StateAccepted},
		{name: "a user that is not asked for", change: login(TLSEncrypted), scripts: only(hello("AUTH LOGIN") + "C: AUTH LOGIN\nS: 535 5.7.8 not you\n" + bye), state: "", stage: mail.StageAuth, text: "535", check: noPassword},
		{name: "closes", change: login(TLSEncrypted), scripts: only(hello("AUTH PLAIN") + plainLine + "close"), state: mail.StateDelayed, cause: "*", stage: mail.StageAuth, check: noPassword},
		{name: "STARTTLS is gone", change: login(TLSEncrypted), scripts: only("S: 220 mx\nC: EHLO\nS: 250-mx\nS: 250 AUTH PLAIN\n" + bye), state: mail.StateDelayed, cause: mail.CauseTLSRequired, check: noPassword},
		{name: "refused: a fault of ours", change: login(TLSEncrypted), scripts: only(hello("AUTH PLAIN") + plainLine + "S: 535 5.7.8 no: mailer/correct horse\n" + bye), state: "", stage: mail.StageAuth, text: "535", check: noPassword},
		{name: "454: later", change: login(TLSEncrypted), scripts: only(hello("AUTH PLAIN") + plainLine + "S: 454 4.7.0 not now\n" + bye), state: mail.StateDelayed, cause: "*", stage: mail.StageAuth, check: noPassword},
		{name: "no mechanism of ours", change: login(TLSEncrypted), scripts: only(hello("AUTH CRAM-MD5") + bye), state: "", stage: mail.StageAuth, text: "neither"},
		{name: "never in clear", change: login(TLSOpportunistic), scripts: only("S: 220 mx\nC: EHLO\nS: 250-mx\nS: 250 AUTH PLAIN\n" + bye), state: "", stage: mail.StageAuth, text: "not sent in clear"},
	} {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			f.run(t)
		})
	}
}

// Implicit TLS begins before the greeting, and wants a certificate.
func TestImplicitTLS(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cert, err := smtptest.SelfSigned(time.Now().Add(time.Hour), "mx1.dest.example")
		if err != nil {
			t.Fatal(err)
		}
		network := smtptest.NewNetwork(&cert, only("tls\n"+accepting))
		plan := twoHosts(nil)
		plan.TLS = TLSImplicit
		o := testOptions(t, network, plan)
		o.RootCAs = smtptest.Roots(cert)
		d := newDeliverer(t, o)
		got := d.Attempt(context.Background(), &mail.Attempt{Message: testMessage(), Number: 1})
		d.Close()
		if err := network.Wait(); err != nil {
			t.Error(err)
		}
		if got.State != mail.StateAccepted || !got.Evidence.TLS.Verified {
			t.Errorf("got %+v", got)
		}
	})
}
