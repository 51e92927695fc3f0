package intake

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/deliverd/deliverd/mail"
)

type natsAnswer struct {
	mail.Receipt
	Problem *mail.Problem `json:"problem"`
}

// none are the headers of a message without any.
func none(string) string { return "" }

func TestHandleSend(t *testing.T) {
	t.Parallel()
	in, s := build(t)
	key := func(name string) string {
		if name == "Nats-Msg-Id" {
			return "k1"
		}
		return ""
	}
	first := decodeAs[natsAnswer](t, in.HandleSend(t.Context(), "login", key, []byte(good)))
	again := decodeAs[natsAnswer](t, in.HandleSend(t.Context(), "login", key, []byte(good)))
	if first.Problem != nil || first.ID == "" || first.Ref != first.ID.Ref() || first.State != mail.StateQueued || again.ID != first.ID || !again.Replayed {
		t.Fatalf("%+v, then %+v", first, again)
	}
	if s.count() != 1 || s.messages[0].Source != "login" || s.messages[0].IdempotencyKey != "k1" {
		t.Errorf("kept %+v", s.messages)
	}
	// D21: the same id with other content.
	other := decodeAs[natsAnswer](t, in.HandleSend(t.Context(), "login", key, []byte(strings.Replace(good, "/i/1", "/i/2", 1))))
	if other.Problem == nil || other.Problem.Type != mail.ProblemConflict {
		t.Errorf("reuse of Nats-Msg-Id: %+v", other)
	}
}

func TestHandleSendWaits(t *testing.T) {
	t.Parallel()
	in, _ := build(t, func(o *Options) {
		o.Wait = func(ctx context.Context, _ mail.ID) mail.State {
			if _, bounded := ctx.Deadline(); !bounded {
				return "unbounded"
			}
			return mail.StateAccepted
		}
	})
	prefer := func(name string) string { return map[string]string{"Prefer": "wait=2"}[name] }
	if a := decodeAs[natsAnswer](t, in.HandleSend(t.Context(), "login", prefer, []byte(good))); a.State != mail.StateAccepted {
		t.Errorf("%+v", a)
	}
}

// D20, D21: what comes over NATS and is no request is answered with a problem, kept
// nowhere, and repeated by nobody.
func TestD21HandleRefuses(t *testing.T) {
	t.Parallel()
	const canary = "s3cr3t-900913"
	var log bytes.Buffer
	in, s := build(t, func(o *Options) {
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
		o.Source = func(name string) (Caller, bool) {
			return Caller{Source: name, Tenants: []string{"4711"}}, name == "login"
		}
		o.Prepare = func(r mail.Request) (mail.Message, []mail.Warning, error) {
			if r.Kind == "panic" {
				panic(errors.New(canary))
			}
			return prepare(r)
		}
	})
	key := func(name string) string { return map[string]string{"Nats-Msg-Id": "a\r\nX: " + canary}[name] }
	for _, c := range []struct {
		name, source string
		header       func(string) string
		payload      string
		status       int
	}{
		{"not JSON", "login", none, canary, 400},
		{"nothing", "login", none, "", 400},
		{"64 MiB", "login", none, strings.Repeat(" ", 64<<20), 413},
		{"header with CRLF", "login", key, good, 400},
		{"unknown source", canary, none, good, 403},
		{"another's tenant", "login", none, strings.Replace(good, "4711", canary, 1), 404},
		{"panic", "login", none, strings.Replace(good, "invite", "panic", 1), 500},
	} {
		for door, answer := range map[string][]byte{
			"send":    in.HandleSend(t.Context(), c.source, c.header, []byte(c.payload)),
			"cancel":  in.HandleCancel(t.Context(), c.source, []byte(c.payload)),
			"outcome": in.HandleOutcome(t.Context(), c.source, []byte(c.payload)),
		} {
			a := decodeAs[natsAnswer](t, answer)
			if a.Problem == nil || door == "send" && a.Problem.Status != c.status {
				t.Errorf("%s at %s: %s, want %d", c.name, door, answer, c.status)
			}
			if bytes.Contains(answer, []byte(canary)) {
				t.Errorf("%s at %s: repeated: %s", c.name, door, answer)
			}
		}
	}
	if s.count() != 0 {
		t.Errorf("kept %+v", s.messages)
	}
	if text := log.String(); strings.Contains(text, canary) || !strings.Contains(text, "intake panicked") || !strings.Contains(text, "nats_test.go") {
		t.Errorf("log:\n%s", text)
	}
}

func TestHandleCancel(t *testing.T) {
	t.Parallel()
	in, s := build(t)
	r, err := in.Submit(t.Context(), everyone, mail.Request{Kind: "invite", To: "a@b.example"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, body string
		status     int // 0: done
	}{
		{"by id", `{"message":"` + string(r.ID) + `","reason":"left the company"}`, 0},
		{"by ref", `{"ref":"` + string(r.Ref) + `","reason":"left"}`, 0},
		{"no reason", `{"ref":"` + string(r.Ref) + `","reason":" "}`, 400},
		{"no message", `{"reason":"x"}`, 400},
		{"unknown", `{"ref":"0000-0000","reason":"x"}`, 404},
		{"two lines", `{"ref":"` + string(r.Ref) + `","reason":"a\nb"}`, 400},
		{"a book", `{"ref":"` + string(r.Ref) + `","reason":"` + strings.Repeat("x", 501) + `"}`, 400},
	} {
		s.cancelled = nil
		a := decodeAs[natsAnswer](t, in.HandleCancel(t.Context(), "login", []byte(c.body)))
		switch {
		case c.status == 0 && (a.Problem != nil || a.State != mail.StateCancelled || a.ID != r.ID || len(s.cancelled) != 1):
			t.Errorf("%s: %+v", c.name, a)
		case c.status != 0 && (a.Problem == nil || a.Problem.Status != c.status || len(s.cancelled) != 0):
			t.Errorf("%s: %+v, cancelled %v", c.name, a, s.cancelled)
		}
	}
	ended := &mail.Problem{Type: mail.ProblemAlreadyEnded, Title: "It has ended", Status: 409}
	in.opts.Cancel = func(context.Context, mail.ID, string, string) error { return ended }
	if a := decodeAs[natsAnswer](t, in.HandleCancel(t.Context(), "login", []byte(`{"ref":"`+string(r.Ref)+`","reason":"x"}`))); a.Problem == nil || a.Problem.Type != ended.Type {
		t.Errorf("ended: %+v", a)
	}
}

func TestHandleOutcome(t *testing.T) {
	t.Parallel()
	in, s := build(t)
	r, err := in.Submit(t.Context(), everyone, mail.Request{Kind: "invite", To: "a@b.example"})
	if err != nil {
		t.Fatal(err)
	}
	answer := in.HandleOutcome(t.Context(), "login", []byte(`{"ref":"`+string(r.Ref)+`","outcome":"used"}`))
	var n Noted
	if err := json.Unmarshal(answer, &n); err != nil || n.ID != r.ID || n.Outcome != mail.EventUsed || len(s.events) != 1 {
		t.Errorf("%s, %v; recorded %+v", answer, err, s.events)
	}
}

// D21: an answer goes to an inbox and nowhere else.
func TestD21MayReply(t *testing.T) {
	t.Parallel()
	for subject, want := range map[string]bool{
		"_INBOX.abc.def": true, "_INBOX_login.x": true,
		"": false, "$JS.API.STREAM.DELETE.DELIVERD_EVENTS": false, "$SYS.REQ.x": false, "$KV.DELIVERD_Q0.x": false,
		"deliverd.v1.send.login": false, "deliverd.v1.event.4711.used": false, "inbox.x": false,
		"_INBOX.*": false, "_INBOX.>": false, "_INBOX.a b": false, "_INBOX.a\r\nPUB x 0": false,
	} {
		if got := MayReply(subject); got != want {
			t.Errorf("%q: %v", subject, got)
		}
	}
}
