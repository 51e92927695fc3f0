package main

import (
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/smtp"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deliverd/deliverd/bounces"
	"github.com/deliverd/deliverd/client"
	"github.com/deliverd/deliverd/console"
	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// TestReturns lets mail come back to a running daemon, over SMTP and over the API, and
// looks at what becomes of the message and of its address.
func TestReturns(t *testing.T) {
	t.Parallel()
	w := newWorld(t, smtptest.SinkOptions{Ledger: true, Rules: smtptest.Newcomers()}, "[bounces]\npostmaster = \"it@acme.example\"\n[kinds.invite]\nretries = [\"1h\"]\n")
	w.start(t)
	c := w.client(t)
	for name, test := range map[string]func(*testing.T, *world, *client.Client){
		"E04 no such address":       returnedHard,
		"E08 policy":                returnedPolicy,
		"E07 late delay notice":     returnedDelay,
		"E14 complaint":             returnedComplaint,
		"E05 same report again":     returnedAgain,
		"E03 never handed over":     returnedUnsent,
		"E01 E02 forged":            returnedForged,
		"E11 postmaster":            returnedToPostmaster,
		"by the API":                returnedByAPI,
		"E17 of no message we know": returnedUnknown,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, w, c)
		})
	}
}

func invite(tenant, to string) client.Message {
	return client.Message{Kind: "invite", To: to, Tenant: tenant, Data: map[string]any{"link": "https://login.acme.example/i/abc", "inviter": "Lars"}}
}

// handOver sends a message and returns it with its return path, as the server had it.
func (w *world) handOver(t *testing.T, c *client.Client, m client.Message) (id mail.ID, returnPath string) {
	t.Helper()
	r, err := c.SendAndWait(t.Context(), m, client.MaxWait)
	if err != nil || r.State != mail.StateAccepted {
		t.Fatalf("to %s: %s, %v", m.To, r.State, err)
	}
	for m := range w.sink.Mails() {
		if strings.Contains(m.MessageID, string(r.ID)) {
			return r.ID, m.From
		}
	}
	t.Fatalf("%s is said to be handed over, and the server never had it", r.ID)
	return "", ""
}

// comeBack speaks SMTP to the bounce listener.
func (w *world) comeBack(t *testing.T, from, to, raw string) error {
	t.Helper()
	s, err := smtp.Dial(w.bounces)
	for e, ok := errors.AsType[*textproto.Error](err); ok && e.Code == 421; e, ok = errors.AsType[*textproto.Error](err) {
		s, err = smtp.Dial(w.bounces) // all tests together are more than one address may be
	}
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := errors.Join(s.Hello("mx.nordlys.example"), s.Mail(from)); err != nil {
		t.Fatal(err)
	}
	if err := s.Rcpt(to); err != nil {
		return err
	}
	body, err := s.Data()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(body, strings.ReplaceAll(raw, "\n", "\r\n")); err != nil {
		t.Fatal(err)
	}
	return body.Close()
}

// report is a delivery status notification (RFC 3464).
func report(action, status, reply string) string {
	return fmt.Sprintf(`From: Mail Delivery System <MAILER-DAEMON@mx.nordlys.example>
Subject: Undelivered Mail Returned to Sender
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary=b1

--b1
Content-Type: text/plain

It came to nothing.

--b1
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.nordlys.example

Final-Recipient: rfc822; somebody.else@nordlys.example
Action: %s
Status: %s
Diagnostic-Code: smtp; %s

--b1--
`, action, status, reply)
}

const noSuchUser = "550 5.1.1 Recipient address rejected: User unknown"

func states(events []mail.Event) (all []mail.State) {
	for _, e := range events {
		all = append(all, e.State)
	}
	return all
}

func returnedHard(t *testing.T, w *world, c *client.Client) {
	const to = "gone@nordlys.example"
	id, path := w.handOver(t, c, invite("4711", to))
	if err := w.comeBack(t, "", path, report("failed", "5.1.1", noSuchUser)); err != nil {
		t.Fatal(err)
	}
	m, events := storyOf(t, c, id)
	if m.State != mail.StateReturned || m.Cause != mail.CauseBadMailbox {
		t.Errorf("%s, %s: %s", m.State, m.Cause, m.Verdict)
	}
	if out, _, status := w.deliverd(t, "show", string(id)); status != 0 || !strings.Contains(out, "5.1.1") || !strings.Contains(strings.ToLower(out), "came back") {
		t.Errorf("show: %d\n%s", status, out)
	}
	// Whom it is about is said by the return path, never by the report (E04).
	last := events[len(events)-1]
	if last.State != mail.StateReturned || last.To != to || last.Tenant != "4711" || last.By != "dsn" || !last.Suppress {
		t.Errorf("the log has %+v", last)
	}
	eventually(t, "the address was suppressed", func() bool { return suppressionOf(t, c, "4711", to) != nil })
	s := suppressionOf(t, c, "4711", to)
	if s.Message != id || s.Cause != m.Cause || s.Until.Sub(s.Since) != 24*time.Hour {
		t.Errorf("suppressed %+v", s)
	}

	_, err := c.Send(t.Context(), invite("4711", strings.ToUpper(to[:1])+to[1:]))
	p, ok := errors.AsType[*client.Problem](err)
	if !ok || p.Type != mail.ProblemSuppressed || p.Status != http.StatusUnprocessableEntity || p.Suppression == nil ||
		!p.Suppression.Since.Equal(s.Since) || p.Suppression.Cause != m.Cause || p.Suppression.Lift == "" || strings.ContainsAny(p.Detail, "{[") ||
		!strings.Contains(p.Detail, s.Since.UTC().Format("2006-01-02 15:04 UTC")) {
		t.Errorf("the next one: %#v", err)
	}
	_, stderr, status := w.deliverd(t, "send", "invite", "--to", to, "--tenant", "4711", "--data", "link=https://login.acme.example/i/1", "--data", "inviter=Lars")
	if status != exitNotDelivered || !strings.Contains(stderr, s.Since.UTC().Format("2006-01-02 15:04 UTC")) || !strings.Contains(stderr, "suppress rm") {
		t.Errorf("send: %d\n%s", status, stderr)
	}
	if _, err := c.Send(t.Context(), invite("4712", to)); err != nil {
		t.Errorf("another tenant's: %v", err)
	}

	if out, _, _ := w.deliverd(t, "suppress", "ls", "--tenant", "4711"); !strings.Contains(out, to) {
		t.Errorf("suppress ls: %s", out)
	}
	if _, _, status := w.deliverd(t, "suppress", "rm", to, "--tenant", "4711"); status == 0 {
		t.Error("lifted without a reason")
	}
	if _, stderr, status := w.deliverd(t, "suppress", "rm", to, "--tenant", "4711", "--reason", "they have made the mailbox"); status != 0 {
		t.Fatalf("suppress rm: %d\n%s", status, stderr)
	}
	if out, _, _ := w.deliverd(t, "suppress", "ls", "--tenant", "4711"); strings.Contains(out, to) {
		t.Errorf("suppress ls after rm: %s", out)
	}
	if _, err := c.SendAndWait(t.Context(), invite("4711", to), client.MaxWait); err != nil {
		t.Errorf("after it was lifted: %v", err)
	}
	w.followed(t, c)
	if s := suppressionOf(t, c, "4711", to); s != nil {
		t.Errorf("suppressed again: %+v", s)
	}
}

func returnedPolicy(t *testing.T, w *world, c *client.Client) {
	const to = "policy@nordlys.example"
	id, path := w.handOver(t, c, invite("4711", to))
	if err := w.comeBack(t, "", path, report("failed", "5.7.1", "550 5.7.1 Message rejected due to content restrictions")); err != nil {
		t.Fatal(err)
	}
	if m, _ := storyOf(t, c, id); m.State != mail.StateReturned {
		t.Errorf("%s", m.State)
	}
	w.followed(t, c)
	if s := suppressionOf(t, c, "4711", to); s != nil {
		t.Errorf("suppressed for a policy: %+v", s)
	}
}

func returnedDelay(t *testing.T, w *world, c *client.Client) {
	id, path := w.handOver(t, c, invite("4711", "late@nordlys.example"))
	if err := w.comeBack(t, "", path, report("delayed", "4.4.1", "451 4.7.1 Greylisted, try again in 300 seconds")); err != nil {
		t.Fatal(err)
	}
	m, events := storyOf(t, c, id)
	if m.State != mail.StateAccepted || !m.NextAttempt.IsZero() {
		t.Errorf("%s, next attempt %v", m.State, m.NextAttempt)
	}
	if got := states(events); got[len(got)-1] != mail.StateDelayed {
		t.Errorf("the story has %v", got)
	}
	if w.sink.Ledger()["<"+string(id)+"@acme.example>"] > 1 {
		t.Error("sent again")
	}
}

func returnedComplaint(t *testing.T, w *world, c *client.Client) {
	const to = "unwanted@nordlys.example"
	id, path := w.handOver(t, c, invite("4711", to))
	// A complaint comes to an address of its own, with the message in it.
	arf := fmt.Sprintf(`From: <abusedesk@isp.example>
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report; boundary=f

--f
Content-Type: text/plain

This is an email abuse report.
--f
Content-Type: message/feedback-report

Feedback-Type: abuse
User-Agent: Reporter/1
Version: 1

--f
Content-Type: message/rfc822

Return-Path: <%s>
Subject: You are invited
--f--
`, path)
	// Who can't name the return path can't complain (E14).
	forged := strings.Replace(arf, path[:strings.IndexByte(path, '@')], "bounce+"+strings.Repeat("a", 40), 1)
	if body, status := w.post(t, w.token(t), forged, "message/rfc822"); status != http.StatusOK || !strings.Contains(body, `"recorded":false`) {
		t.Errorf("forged: %d %s", status, body)
	}
	if err := w.comeBack(t, "fbl@isp.example", "abuse@bounce.acme.example", forged); err != nil {
		t.Error(err)
	}
	if m, _ := storyOf(t, c, id); m.State != mail.StateAccepted {
		t.Errorf("a forged one made it %s", m.State)
	}
	// Feedback loops write to abuse, and repeat themselves.
	for range 2 {
		if err := w.comeBack(t, "fbl@isp.example", "abuse@bounce.acme.example", arf); err != nil {
			t.Fatal(err)
		}
	}
	if m, _ := storyOf(t, c, id); m.State != mail.StateComplained {
		t.Errorf("after mail to abuse: %s", m.State)
	}
	if body, status := w.post(t, w.token(t), arf, "message/rfc822"); status != http.StatusOK || !strings.Contains(body, `"recorded":true`) {
		t.Fatalf("%d %s", status, body)
	}
	m, events := storyOf(t, c, id)
	if got := states(events); m.State != mail.StateComplained || slices.Index(got, mail.StateComplained) != len(got)-1 {
		t.Errorf("%s, %v", m.State, got)
	}
	eventually(t, "the address was suppressed", func() bool { return suppressionOf(t, c, "4711", to) != nil })
	if s := suppressionOf(t, c, "4711", to); !s.Until.IsZero() {
		t.Errorf("until %v, want until lifted", s.Until)
	}
}

// A report that comes again, even after the suppression was lifted, changes nothing
// (E05).
func returnedAgain(t *testing.T, w *world, c *client.Client) {
	const to = "again@nordlys.example"
	id, path := w.handOver(t, c, invite("4711", to))
	dsn := report("failed", "5.1.1", noSuchUser)
	if err := w.comeBack(t, "", path, dsn); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the address was suppressed", func() bool { return suppressionOf(t, c, "4711", to) != nil })
	if err := c.Do(t.Context(), http.MethodDelete, "/v1/suppressions", nil, console.SuppressionRequest{Tenant: "4711", Address: to, Reason: "mended"}, nil); err != nil {
		t.Fatal(err)
	}
	_, before := storyOf(t, c, id)
	for range 3 {
		if err := w.comeBack(t, "", path, dsn); err != nil {
			t.Fatal(err)
		}
	}
	if _, after := storyOf(t, c, id); len(after) != len(before) {
		t.Errorf("%v became %v", states(before), states(after))
	}
	w.followed(t, c)
	if s := suppressionOf(t, c, "4711", to); s != nil {
		t.Errorf("suppressed again: %+v", s)
	}
}

// A return path that somebody saw or guessed is no use against an address that was
// never sent to: no server can return what it never had (E03).
func returnedUnsent(t *testing.T, w *world, c *client.Client) {
	const to = "full.unsent@nordlys.example"
	r, err := c.Send(t.Context(), invite("4711", to))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "it was tried", func() bool { m, _ := storyOf(t, c, r.ID); return m.State == mail.StateDelayed })
	dsn := report("failed", "5.1.1", noSuchUser)
	// It may be that our own record is late: who says the truth comes again.
	err = w.comeBack(t, "", w.returnPath(t).Address(r.ID), dsn)
	if e, ok := errors.AsType[*textproto.Error](err); !ok || e.Code != 451 {
		t.Errorf("while it waits: %v", err)
	}
	if m, events := storyOf(t, c, r.ID); m.State != mail.StateDelayed {
		t.Errorf("%s; %v", m.State, states(events))
	}
	if err := c.Cancel(t.Context(), string(r.ID), "not needed"); err != nil {
		t.Fatal(err)
	}
	becomes(t, c, r.ID, mail.StateCancelled) // the wish is safe before it is carried out
	if err := w.comeBack(t, "", w.returnPath(t).Address(r.ID), dsn); err != nil {
		t.Error(err)
	}
	if body, status := w.post(t, w.token(t), "To: "+w.returnPath(t).Address(r.ID)+"\n"+dsn, "message/rfc822"); status != http.StatusOK || !strings.Contains(body, `"recorded":false`) {
		t.Errorf("%d %s", status, body)
	}
	if m, events := storyOf(t, c, r.ID); m.State != mail.StateCancelled {
		t.Errorf("%s; %v", m.State, states(events))
	}
	w.followed(t, c)
	if s := suppressionOf(t, c, "4711", to); s != nil {
		t.Errorf("suppressed: %+v", s)
	}
}

// returnPath makes the return paths that the daemon makes.
func (w *world) returnPath(t *testing.T) *bounces.ReturnPath {
	t.Helper()
	root, err := os.ReadFile(filepath.Join(w.dir, "data", "keys", "root.key"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := hkdf.Key(sha256.New, root, nil, "deliverd return path", 32)
	if err != nil {
		t.Fatal(err)
	}
	p, err := bounces.NewReturnPath(key, "bounce.acme.example")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func returnedForged(t *testing.T, w *world, c *client.Client) {
	id, path := w.handOver(t, c, invite("4711", "forged@nordlys.example"))
	dsn := report("failed", "5.1.1", noSuchUser)
	at := strings.IndexByte(path, '@')
	last := map[bool]string{true: "a", false: "b"}[path[at-9] != 'a']
	for _, to := range []string{
		path[:at-9] + last + path[at-8:],      // another HMAC
		"bounce+" + string(id) + path[at:],    // the id itself
		"bounce@bounce.acme.example",          // no token
		path[:at] + "@elsewhere.example",      // no domain of ours
		"kari%nordlys.example@" + path[at+1:], // the percent hack
		"kari@nordlys.example",                // a relay
	} {
		err := w.comeBack(t, "", to, dsn)
		if e, ok := errors.AsType[*textproto.Error](err); !ok || e.Code != 550 {
			t.Errorf("%s: %v", to, err)
		}
	}
	// A report does not come from anybody (E02).
	if err := w.comeBack(t, "someone@nordlys.example", path, dsn); err != nil {
		t.Error(err)
	}
	if m, events := storyOf(t, c, id); m.State != mail.StateAccepted {
		t.Errorf("%s; %v", m.State, states(events))
	}
}

func returnedToPostmaster(t *testing.T, w *world, _ *client.Client) {
	const text = "Subject: your mail\n\nWho are you?\n"
	for _, desk := range []string{"Postmaster", "abuse"} {
		if err := w.comeBack(t, "someone@nordlys.example", desk+"@bounce.acme.example", text); err != nil {
			t.Fatal(err)
		}
		eventually(t, "mail to "+desk+" was passed on whole", func() bool {
			for m := range w.sink.Mails() {
				if m.To == "it@acme.example" && strings.Contains(string(m.Raw), "Mail to "+strings.ToLower(desk)+": your mail\r\n") &&
					strings.Contains(string(m.Raw), "\r\n\r\nReturn-Path: <someone@nordlys.example>\r\nSubject: your mail\r\n\r\nWho are you?\r\n") {
					return true
				}
			}
			return false
		})
	}
	large := "Subject: large\n\n" + strings.Repeat(strings.Repeat("x", 99)+"\n", 8000)
	err := w.comeBack(t, "someone@nordlys.example", "abuse@bounce.acme.example", large)
	if e, ok := errors.AsType[*textproto.Error](err); !ok || e.Code != 552 {
		t.Errorf("one that is too large: %v", err)
	}
}

// post hands a mail to POST /v1/bounces.
func (w *world) post(t *testing.T, token, raw, mediaType string) (body string, status int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+w.http+"/v1/bounces", strings.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", mediaType)
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text), resp.StatusCode
}

// newToken makes a token of one tenant.
func (w *world) newToken(t *testing.T, c *client.Client, tenant string, scopes ...console.Scope) string {
	t.Helper()
	var made console.NewToken
	err := c.Do(t.Context(), http.MethodPost, "/v1/tokens", nil, console.TokenRequest{Name: "test", Scopes: scopes, Tenants: []string{tenant}}, &made)
	if err != nil {
		t.Fatal(err)
	}
	return made.Token
}

func returnedByAPI(t *testing.T, w *world, c *client.Client) {
	id, path := w.handOver(t, c, invite("4711", "mailbox@nordlys.example"))
	dsn := "Delivered-To: " + path + "\n" + report("failed", "5.1.1", noSuchUser)
	for _, tt := range []struct {
		name, token, mediaType string
		status                 int
		message                bool
	}{
		{"no token", "dlv_none", "message/rfc822", 401, false},
		{"only reads", w.newToken(t, c, "4711", console.ScopeRead), "message/rfc822", 403, false},
		{"JSON", w.token(t), "application/json", 415, false},
		{"a form", w.token(t), "text/plain", 415, false},
		{"another tenant", w.newToken(t, c, "4712", console.ScopeAct), "message/rfc822", 200, false},
		{"this tenant", w.newToken(t, c, "4711", console.ScopeAct), "message/rfc822", 200, true},
	} {
		body, status := w.post(t, tt.token, dsn, tt.mediaType)
		if status != tt.status || strings.Contains(body, string(id)) != tt.message || strings.Contains(body, `"recorded":true`) != tt.message {
			t.Errorf("%s: %d %s", tt.name, status, body)
		}
		if want := map[bool]mail.State{true: mail.StateReturned, false: mail.StateAccepted}[tt.message]; true {
			if m, _ := storyOf(t, c, id); m.State != want {
				t.Errorf("%s: %s", tt.name, m.State)
			}
		}
	}
}

// The sender of a report about a message that is gone from the log did nothing wrong
// (E17).
func returnedUnknown(t *testing.T, w *world, c *client.Client) {
	id := mail.NewID(time.Now())
	if err := w.comeBack(t, "", w.returnPath(t).Address(id), report("failed", "5.1.1", noSuchUser)); err != nil {
		t.Error(err)
	}
	if err := c.Do(t.Context(), http.MethodGet, "/v1/messages/"+string(id), nil, nil, nil); !client.IsNotFound(err) {
		t.Errorf("the message is known now: %v", err)
	}
}

// TestE13NobodyIsWrittenTo: whatever comes to the listener and whatever fails, the only
// mail that leaves is what somebody handed over and what goes to our own postmaster.
func TestE13NobodyIsWrittenTo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, smtptest.SinkOptions{Rules: smtptest.Newcomers()}, "[bounces]\npostmaster = \"it@acme.example\"\n")
	w.start(t)
	c := w.client(t)
	if r, err := c.SendAndWait(t.Context(), invite("4711", "refuse@nordlys.example"), client.MaxWait); err != nil || r.State != mail.StateRefused {
		t.Fatalf("%s, %v", r.State, err)
	}
	_, path := w.handOver(t, c, invite("4711", "kari@nordlys.example"))
	vacation := "From: kari@nordlys.example\nSubject: Automatic reply: hello\nAuto-Submitted: auto-replied\n\nI am away.\n"
	for _, tt := range []struct{ from, to, raw string }{
		{"", path, report("failed", "5.1.1", noSuchUser)},
		{"kari@nordlys.example", path, vacation},
		{"victim@elsewhere.example", path, "Subject: hello\nDisposition-Notification-To: victim@elsewhere.example\nReturn-Receipt-To: victim@elsewhere.example\n\nhello\n"},
		{"victim@elsewhere.example", "abuse@bounce.acme.example", "Subject: hello\nReply-To: victim@elsewhere.example\n\nhello\n"},
	} {
		if err := w.comeBack(t, tt.from, tt.to, tt.raw); err != nil {
			t.Error(err)
		}
	}
	for _, to := range []string{"victim@elsewhere.example", "nobody@bounce.acme.example"} {
		if err := w.comeBack(t, "victim@elsewhere.example", to, vacation); err == nil {
			t.Errorf("mail to %s was taken", to)
		}
	}
	eventually(t, "mail to abuse was passed on", func() bool {
		return slices.ContainsFunc(slices.Collect(w.sink.Mails()), func(m smtptest.Mail) bool { return m.To == "it@acme.example" })
	})
	// A last message is behind all that could have been sent.
	w.handOver(t, c, invite("4711", "last@nordlys.example"))
	for m := range w.sink.Mails() {
		if !slices.Contains([]string{"kari@nordlys.example", "last@nordlys.example", "it@acme.example"}, m.To) || m.From == "" {
			t.Errorf("a mail from %q to %q left", m.From, m.To)
		}
	}
}

// TestE16ListenerWasDown: mail systems keep a bounce while the listener is away, and it
// counts when it comes late, after a restart.
func TestE16ListenerWasDown(t *testing.T) {
	t.Parallel()
	const to = "gone@nordlys.example"
	w := newWorld(t, smtptest.SinkOptions{}, "")
	p := w.start(t)
	id, path := w.handOver(t, w.client(t), invite("4711", to))
	p.stop()
	if s, err := smtp.Dial(w.bounces); err == nil {
		s.Close()
		t.Fatal("the listener outlived the daemon")
	}
	w.start(t)
	c := w.client(t)
	eventually(t, "the listener was back", func() bool {
		s, err := smtp.Dial(w.bounces)
		if err == nil {
			s.Close()
		}
		return err == nil
	})
	if err := w.comeBack(t, "", path, report("failed", "5.1.1", noSuchUser)); err != nil {
		t.Fatal(err)
	}
	if m, events := storyOf(t, c, id); m.State != mail.StateReturned {
		t.Errorf("%s; %v", m.State, states(events))
	}
	eventually(t, "the address was suppressed", func() bool { return suppressionOf(t, c, "4711", to) != nil })
}
