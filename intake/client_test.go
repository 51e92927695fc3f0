package intake_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/deliverd/deliverd/client"
	"github.com/deliverd/deliverd/intake"
	"github.com/deliverd/deliverd/mail"
)

// queue keeps the one message of these tests.
type queue struct {
	mu    sync.Mutex
	kept  map[string]mail.Message // by idempotency key
	facts []mail.Event
	ended []mail.ID
}

func (q *queue) enqueue(_ context.Context, m *mail.Message, _ [32]byte) (mail.Receipt, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	was, known := q.kept[m.IdempotencyKey]
	if !known {
		was = *m
		q.kept[m.IdempotencyKey] = was
	}
	return mail.Receipt{ID: was.ID, Ref: was.Ref, State: mail.StateQueued, Replayed: known}, nil
}

func (q *queue) find(_ context.Context, id mail.ID, ref mail.Ref) (found []mail.Message, err error) {
	for _, m := range q.kept {
		if m.ID == id || m.Ref == ref {
			found = append(found, m)
		}
	}
	return found, nil
}

// The client and the doors are two ends of one contract: what one says over HTTP and
// over NATS, the other understands.
func TestClientAtBothDoors(t *testing.T) {
	t.Parallel()
	templates, err := mail.LoadTemplates("")
	if err != nil {
		t.Fatal(err)
	}
	p := &mail.Preparer{Kinds: mail.DefaultKinds(), Templates: templates, From: "Acme <no-reply@acme.example>"}
	q := &queue{kept: map[string]mail.Message{}}
	in, err := intake.New(intake.Options{
		Prepare: p.Prepare,
		Suppressed: func(_ context.Context, _ string, to mail.Address) (*mail.Suppression, error) {
			if to == "gone@nordlys.example" {
				return &mail.Suppression{Cause: mail.CauseBadMailbox, Since: time.Now()}, nil
			}
			return nil, nil
		},
		Enqueue: q.enqueue,
		Find:    q.find,
		Cancel: func(_ context.Context, id mail.ID, _, _ string) error {
			q.ended = append(q.ended, id)
			return nil
		},
		Record: func(_ context.Context, e mail.Event) error {
			q.facts = append(q.facts, e)
			return nil
		},
		Wait: func(context.Context, mail.ID) mail.State { return mail.StateAccepted },
		Caller: func(r *http.Request) (intake.Caller, bool) {
			return intake.Caller{Source: "login", Tenants: []string{"4711"}}, r.Header.Get("Authorization") == "Bearer dlv_x"
		},
		Source: func(name string) (intake.Caller, bool) {
			return intake.Caller{Source: name, Tenants: []string{"4711"}}, true
		},
		Key: make([]byte, 32),
	})
	if err != nil {
		t.Fatal(err)
	}
	doors := http.NewServeMux()
	for _, r := range in.Routes() {
		doors.Handle(r.Method+" "+r.Pattern, r.Handler)
	}
	// Cancelling over HTTP is the console's; it comes to the same function.
	doors.HandleFunc("POST /v1/messages/{name}/cancel", func(w http.ResponseWriter, r *http.Request) {
		id := mail.ID(r.PathValue("name"))
		if _, err := in.Cancel(r.Context(), intake.Caller{Tenants: []string{"4711"}}, intake.Name{ID: id}, "left"); err != nil {
			t.Error(err)
		}
		fmt.Fprint(w, "{}")
	})
	server := httptest.NewServer(doors)
	t.Cleanup(server.Close)

	overHTTP, err := client.New(server.URL, client.Token("dlv_x"))
	if err != nil {
		t.Fatal(err)
	}
	overNATS, err := client.OverNATS(func(ctx context.Context, subject string, header map[string][]string, body []byte) ([]byte, error) {
		token := strings.Split(subject, ".")
		get := func(name string) string { return strings.Join(header[name], "") }
		switch token[2] {
		case "send":
			return in.HandleSend(ctx, token[3], get, body), nil
		case "cancel":
			return in.HandleCancel(ctx, token[3], body), nil
		default:
			return in.HandleOutcome(ctx, token[3], body), nil
		}
	}, "login")
	if err != nil {
		t.Fatal(err)
	}

	for name, c := range map[string]*client.Client{"HTTP": overHTTP, "NATS": overNATS} {
		m := client.Message{
			Kind: "pin", To: " kari@nordlys.example", Data: map[string]any{"code": 493021}, IdempotencyKey: name,
			ExpiresAt: time.Now().Add(10 * time.Minute), Tags: []string{"a"}, Metadata: map[string]string{"k": "v"},
		}
		first, err := c.Send(t.Context(), m)
		if err != nil || first.Replayed || len(first.Warnings) != 1 || first.Warnings[0].Code != mail.WarnAddressTrimmed {
			t.Fatalf("%s: %+v, %v", name, first, err)
		}
		again, err := c.SendAndWait(t.Context(), m, time.Second)
		if err != nil || again.ID != first.ID || !again.Replayed || again.State != mail.StateAccepted {
			t.Errorf("%s: again: %+v, %v", name, again, err)
		}
		if got := q.kept[name]; got.Data["code"] != "493021" || got.Tenant != "4711" || got.Source != "login" {
			t.Errorf("%s: kept %+v", name, got)
		}
		q.facts, q.ended = nil, nil
		if err := c.Outcome(t.Context(), string(first.Ref), client.Used, time.Time{}); err != nil || len(q.facts) != 1 {
			t.Errorf("%s: outcome: %v, %+v", name, err, q.facts)
		}
		if err := c.Cancel(t.Context(), string(first.ID), "left"); err != nil || len(q.ended) != 1 {
			t.Errorf("%s: cancel: %v, %v", name, err, q.ended)
		}
		m.To, m.IdempotencyKey = "gone@nordlys.example", ""
		if _, err := c.Send(t.Context(), m); !client.IsSuppressed(err) {
			t.Errorf("%s: suppressed: %v", name, err)
		}
		m.Tenant = "4712"
		if _, err := c.Send(t.Context(), m); !client.IsNotFound(err) {
			t.Errorf("%s: another's tenant: %v", name, err)
		}
		m.To = "gone"
		m.Tenant = ""
		if _, err := c.Send(t.Context(), m); !client.IsAddressInvalid(err) {
			t.Errorf("%s: no address: %v", name, err)
		}
	}
	v, err := overHTTP.Validate(t.Context(), client.Message{Kind: "pin", To: "kari@NORDLYS.example", Data: map[string]any{"code": "493021"}})
	if err != nil || v.To != "kari@nordlys.example" || v.Template != "pin" || v.ExpiresAt.IsZero() {
		t.Errorf("validate: %+v, %v", v, err)
	}
}
