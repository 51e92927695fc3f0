package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/deliverd/deliverd/client"
	"github.com/deliverd/deliverd/console"
	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// TestKillNine kills the real process at random moments under load, and starts it
// again. Nothing that was accepted is lost (law 1), every message has exactly one
// end (law 2), a duplicate comes only from an attempt that was under way at a kill,
// has the same bytes, and is said to be possible (law 6).
func TestKillNine(t *testing.T) {
	t.Parallel()
	const (
		kills       = 6
		senders     = 8
		concurrency = 200 // send.concurrency as it is by default
	)
	w := newWorld(t, smtptest.SinkOptions{Keep: 1 << 20, KeepBytes: 1 << 30, Ledger: true, Rules: smtptest.Newcomers()}, `
[log]
level = "warn"
[kinds.pin]
retries = ["1s"]
valid_for = "10m"
[kinds.invite]
retries = ["1s"]
`)
	p := w.start(t)
	c := w.client(t)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	accepted := make([][]mail.ID, senders)
	var sent atomic.Int64
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				m := testMessage(s, i)
				// The key makes it one message, however often the kills make us ask.
				for ctx.Err() == nil {
					r, err := c.Send(ctx, m)
					if err == nil {
						accepted[s] = append(accepted[s], r.ID)
						sent.Add(1)
						break
					}
					time.Sleep(20 * time.Millisecond)
				}
			}
		})
	}
	for range kills {
		time.Sleep(time.Duration(300+rand.IntN(900)) * time.Millisecond)
		p.kill()
		p = w.start(t)
	}
	stop()
	wg.Wait()
	t.Logf("%d messages accepted over %d kills", sent.Load(), kills)

	var ids []mail.ID
	for _, of := range accepted {
		ids = append(ids, of...)
	}
	if len(ids) < 100 {
		t.Fatalf("only %d messages were accepted: that proves nothing", len(ids))
	}
	bodies := map[mail.ID][][]byte{}
	for m := range waitSettled(t, c, w.sink, ids) {
		id, _, _ := strings.Cut(strings.Trim(m.MessageID, "<>"), "@")
		bodies[mail.ID(id)] = append(bodies[mail.ID(id)], m.Raw)
	}
	duplicates, doubts := 0, 0
	for _, id := range ids {
		m, events := storyOf(t, c, id)
		terminal := 0
		flagged := false
		for _, e := range events {
			if e.State.Terminal() {
				terminal++
			}
			flagged = flagged || e.PossibleDuplicate
		}
		if terminal != 1 {
			t.Errorf("%s has %d terminal events", id, terminal)
		}
		if flagged {
			doubts++
		}
		copies := bodies[id]
		if m.State == mail.StateAccepted && len(copies) == 0 {
			t.Errorf("%s is said to be handed over, and the server never had it", id)
		}
		if m.State != mail.StateAccepted {
			t.Errorf("%s ended as %s", id, m.State)
		}
		for _, again := range copies[min(len(copies), 1):] {
			duplicates++
			if !bytes.Equal(copies[0], again) {
				t.Errorf("%s was sent twice with different bytes", id)
			}
			if !flagged {
				t.Errorf("%s was sent twice and its story does not say that it may have been", id)
			}
		}
	}
	if most := kills * concurrency; duplicates > most || doubts > most {
		t.Errorf("%d duplicates, %d doubts: more than can have been under way at %d kills", duplicates, doubts, kills)
	}
	t.Logf("%d accepted, %d sent twice, %d may have been", len(ids), duplicates, doubts)
}

// testMessage is the i-th message of a sender: all kinds, and some that are
// greylisted first.
func testMessage(s, i int) client.Message {
	m := client.Message{
		Kind: "invite", To: fmt.Sprintf("kari.%d.%d@company%d.example", s, i, i%20), Tenant: "4711",
		PersonID:       fmt.Sprintf("usr_%d_%d", s, i),
		Data:           map[string]any{"link": "https://login.acme.example/i/abc", "inviter": "Lars"},
		IdempotencyKey: fmt.Sprintf("kill-%d-%d", s, i),
	}
	switch i % 10 {
	case 0:
		m.Kind, m.Data = "pin", map[string]any{"code": "482913"}
	case 1:
		m.Kind, m.Data = "reset", map[string]any{"link": "https://login.acme.example/r/abc"}
	case 2:
		m.To = fmt.Sprintf("greylist.%d.%d@company%d.example", s, i, i%20)
	case 3:
		m.Tenant = "" // an auth service of one company has none
	}
	return m
}

// waitSettled waits until every message has ended, and returns what the sink has.
func waitSettled(t *testing.T, c *client.Client, sink *smtptest.Sink, ids []mail.ID) func(func(smtptest.Mail) bool) {
	t.Helper()
	for _, id := range ids {
		for {
			var m console.Message
			err := c.Do(t.Context(), http.MethodGet, "/v1/messages/"+string(id), nil, nil, &m)
			if err == nil && !m.State.Open() {
				break
			}
			if client.IsNotFound(err) {
				t.Fatalf("%s was accepted and nobody knows it", id)
			}
			if t.Context().Err() != nil {
				t.Fatal("the test ended first")
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return sink.Mails()
}

func storyOf(t *testing.T, c *client.Client, id mail.ID) (m console.Message, events []mail.Event) {
	t.Helper()
	if err := c.Do(t.Context(), http.MethodGet, "/v1/messages/"+string(id), nil, nil, &m); err != nil {
		t.Fatalf("%s: %v", id, err)
	}
	var list struct {
		Events []mail.Event `json:"events"`
	}
	if err := c.Do(t.Context(), http.MethodGet, "/v1/messages/"+string(id)+"/events", nil, nil, &list); err != nil {
		t.Fatalf("%s: %v", id, err)
	}
	return m, list.Events
}
