package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/deliverd/deliverd/client"
	"github.com/deliverd/deliverd/console"
	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// TestResend sends again what may be sent again, over the command line and the API of a
// running daemon, with an auth service that makes new ones, and without.
func TestResend(t *testing.T) {
	t.Parallel()
	w := newWorld(t, smtptest.SinkOptions{Ledger: true}, "")
	p := w.start(t)
	c := w.client(t)
	sent := func(m client.Message) mail.ID {
		t.Helper()
		r, err := c.SendAndWait(t.Context(), m, client.MaxWait)
		if err != nil || r.State != mail.StateAccepted {
			t.Fatalf("%s to %s: %s, %v", m.Kind, m.To, r.State, err)
		}
		return r.ID
	}
	again := func(id mail.ID, args ...string) (console.Resent, string, int) {
		t.Helper()
		out, errs, status := w.deliverd(t, append([]string{"resend", string(id), "--json", "--reason", "put into the bin by mistake"}, args...)...)
		var r console.Resent
		if status == 0 {
			if err := json.Unmarshal([]byte(out), &r); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		}
		return r, errs, status
	}
	letter := func(id mail.ID) string {
		t.Helper()
		for m := range w.sink.Mails() {
			if strings.Contains(m.MessageID, string(id)) {
				return string(m.Raw)
			}
		}
		t.Fatalf("%s never reached the server", id)
		return ""
	}

	m := invite("4711", "kari@nordlys.example")
	m.ExpiresAt = time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	first := sent(m)
	second, errs, status := again(first)
	if status != 0 || second.Mode != console.ResendSame || second.ResendOf != first || !strings.Contains(errs, "less than two minutes ago") {
		t.Fatalf("status %d, %+v, %s", status, second, errs)
	}
	becomes(t, c, second.ID, mail.StateAccepted)
	if raw := letter(second.ID); !strings.Contains(raw, "/i/abc") || !strings.Contains(raw, string(second.Ref)) {
		t.Errorf("the same link and a reference of its own are missing in:\n%s", raw)
	}
	s, err := c.Get(t.Context(), string(second.ID))
	if err != nil || !s.ExpiresAt.Equal(m.ExpiresAt) {
		t.Errorf("sent again, it is valid until %s, and was until %s (%v)", s.ExpiresAt, m.ExpiresAt, err)
	}
	if story, _, _ := w.deliverd(t, "show", string(first)); !strings.Contains(story, "sent again by") || !strings.Contains(story, "put into the bin") {
		t.Errorf("the story of the first does not tell of the second:\n%s", story)
	}
	if _, errs, status := again(first); status != exitConflict || !strings.Contains(errs, "newer one") {
		t.Errorf("an older one was sent again: %d %s", status, errs)
	}
	// A restart forgets nothing.
	p.stop()
	p = w.start(t)
	third, errs, status := again(second.ID)
	if status != 0 {
		t.Fatalf("after a restart: %d %s", status, errs)
	}
	becomes(t, c, third.ID, mail.StateAccepted)

	pin := sent(client.Message{Kind: "pin", To: "kari@nordlys.example", Tenant: "4711", Data: map[string]any{"code": "917342"}})
	if _, errs, status := again(pin); status != exitConflict || !strings.Contains(errs, "deliverd.v1.renew.") {
		t.Errorf("a PIN with nobody to make a new one: %d %s", status, errs)
	}

	nc, err := nats.Connect("nats://" + w.nats)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	answers := map[string]string{
		"pin":   `{"kind":"pin","to":"kari@nordlys.example","tenant":"4711","data":{"code":"221100"}}`,
		"other": `{"kind":"pin","to":"mallory@elsewhere.example","tenant":"4711","data":{"code":"221100"}}`,
		"no":    `{"problem":{"title":"The account is closed","detail":"Talk to sales."}}`,
	}
	var answer atomic.Value // the key of the answer that is given
	answer.Store("pin")
	asked := make(chan console.Renewal, 10)
	_, err = nc.Subscribe("deliverd.v1.renew.*", func(m *nats.Msg) {
		var r console.Renewal
		if err := json.Unmarshal(m.Data, &r); err != nil {
			t.Error(err)
		}
		asked <- r
		if err := m.Respond([]byte(answers[answer.Load().(string)])); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	fresh, errs, status := again(pin)
	if status != 0 || fresh.Mode != console.ResendNew {
		t.Fatalf("%d %s", status, errs)
	}
	if r := <-asked; r.Message != pin || r.To != "kari@nordlys.example" || r.Reason != "put into the bin by mistake" || r.By == "" {
		t.Errorf("the auth service was asked %+v", r)
	}
	becomes(t, c, fresh.ID, mail.StateAccepted)
	if !strings.Contains(letter(fresh.ID), "221100") && !strings.Contains(letter(fresh.ID), "221 100") {
		t.Errorf("the new code is missing in:\n%s", letter(fresh.ID))
	}
	for name, says := range map[string]string{"other": "can't be used", "no": "The account is closed. Talk to sales."} {
		answer.Store(name)
		if _, errs, status := again(fresh.ID, "--new"); status != exitConflict || !strings.Contains(errs, says) {
			t.Errorf("%s: %d %s", name, status, errs)
		}
		<-asked
	}

	// Used: there is nothing to send again.
	if err := c.Outcome(t.Context(), string(third.ID), mail.EventUsed, time.Now()); err != nil {
		t.Fatal(err)
	}
	answer.Store("no")
	var problem mail.Problem
	w.json(t, "POST", "/v1/messages/"+string(third.ID)+"/resend", `{"reason":"asks again","mode":"same"}`, http.StatusConflict, &problem)
	if problem.Type != mail.ProblemNotResendable || !strings.Contains(problem.Detail, "has been used") {
		t.Errorf("used, and: %+v", problem)
	}
}
