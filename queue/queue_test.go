package queue

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
	"github.com/deliverd/deliverd/queue/natstest"
)

// testKinds have schedules of milliseconds.
func testKinds() map[string]mail.Kind {
	ms := time.Millisecond
	return map[string]mail.Kind{
		"pin":    {Name: "pin", Lane: 1, ValidFor: 10 * time.Second, Supersede: true, Retries: []time.Duration{20 * ms, 40 * ms}},
		"reset":  {Name: "reset", Lane: 2, ValidFor: 20 * time.Second, Supersede: true, Retries: []time.Duration{20 * ms, 40 * ms}},
		"invite": {Name: "invite", Lane: 3, ValidFor: time.Minute, Supersede: true, ResendSame: true, Retries: []time.Duration{30 * ms, 60 * ms}},
		"once":   {Name: "once", Lane: 3, ValidFor: time.Minute, AtMostOnce: true, Retries: []time.Duration{30 * ms}},
	}
}

// bench is one queue on one server, which can be crashed and opened again.
type bench struct {
	tb     testing.TB
	server *natstest.Server
	ring   *KeyRing
	change func(*Options)
	q      *Queue
	opened []*Queue

	mu     sync.Mutex
	events []mail.Event // as observed
}

func testLog(tb testing.TB) *slog.Logger {
	if os.Getenv("QUEUE_TEST_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return slog.New(slog.DiscardHandler)
}

func newBench(tb testing.TB, change func(*Options)) *bench {
	b := &bench{tb: tb, server: natstest.Start(tb, tb.TempDir()), ring: NewKeyRing(), change: change}
	b.open()
	return b
}

func (b *bench) options() Options {
	o := Options{Kinds: testKinds(), Seal: b.ring, Shards: 2, Alone: true, Lease: time.Second, Log: testLog(b.tb),
		Observe: func(e mail.Event) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.events = append(b.events, e)
		}}
	if b.change != nil {
		b.change(&o)
	}
	return o
}

func (b *bench) open() {
	b.tb.Helper()
	q, err := Open(b.tb.Context(), b.server.Connect(b.tb), b.options())
	if err != nil {
		b.tb.Fatal(err)
	}
	b.q = q
	n := len(b.opened)
	b.opened = append(b.opened, q)
	b.tb.Cleanup(func() { // before the connection's; closing twice is harmless
		if b.opened[n] != nil {
			b.opened[n].Close()
		}
	})
}

func (b *bench) message(kind, to, person string) *mail.Message {
	k := testKinds()[kind]
	now := time.Now().UTC()
	m := &mail.Message{
		ID: mail.NewID(now), Kind: kind, Tenant: "4711", TenantName: "Nordlys Oy", To: mail.Address(to), PersonID: person,
		Locale: "en", Template: kind, Data: map[string]any{"code": "917 342", "n": 5}, Secrets: []string{"code"},
		From: "Acme <no-reply@acme.example>", QueuedAt: now, ExpiresAt: now.Add(k.ValidFor), Source: "auth",
	}
	m.Ref = m.ID.Ref()
	if k.Supersede && person != "" {
		m.SupersedeKey = "4711 " + person + " " + kind
	}
	return m
}

func (b *bench) enqueue(m *mail.Message) mail.Receipt {
	b.tb.Helper()
	r, err := b.q.Enqueue(b.tb.Context(), m, sha256.Sum256([]byte(m.To)))
	if err != nil {
		b.tb.Fatal(err)
	}
	return r
}

// work runs the queue with attempt until the test, or stop, ends it.
func (b *bench) work(attempt func(context.Context, *mail.Attempt) mail.Outcome) (stop func()) {
	ctx, cancel := context.WithCancel(b.tb.Context())
	var wg sync.WaitGroup
	q := b.q
	wg.Go(func() {
		if err := q.Work(ctx, ctx, attempt); err != nil {
			b.tb.Error(err)
		}
	})
	stop = func() { cancel(); wg.Wait() }
	b.tb.Cleanup(stop)
	return stop
}

// follow yields events until want says that it has seen enough.
func (b *bench) follow(want func(mail.Event) bool) []mail.Event {
	b.tb.Helper()
	var got []mail.Event
	for e, err := range b.q.Events(b.tb.Context(), 0) {
		if err != nil {
			b.tb.Fatal(err)
		}
		got = append(got, e.Event)
		if want(e.Event) {
			return got
		}
	}
	b.tb.Fatal("the event log ended")
	return nil
}

// until follows the log until n messages have ended, and returns the states of each in
// order, an event's second coming left out.
func (b *bench) until(n int) map[mail.ID][]mail.State {
	b.tb.Helper()
	story, seen, ended := map[mail.ID][]mail.State{}, map[string]bool{}, 0
	b.follow(func(e mail.Event) bool {
		if seen[e.ID] {
			return false
		}
		seen[e.ID] = true
		story[e.Message] = append(story[e.Message], e.State)
		if e.State.Terminal() {
			ended++
		}
		return ended == n
	})
	return story
}

func accept(context.Context, *mail.Attempt) mail.Outcome {
	return mail.Outcome{State: mail.StateAccepted, Evidence: mail.Evidence{Host: "mx.nordlys.example"}}
}

func equalStates(a []mail.State, b ...mail.State) bool { return fmt.Sprint(a) == fmt.Sprint(b) }

func TestAMessageIsKeptTriedAndTold(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	var got *mail.Attempt
	m := b.message("pin", "kari@nordlys.example", "kari")
	b.enqueue(m)
	b.work(func(_ context.Context, a *mail.Attempt) mail.Outcome {
		got = a
		return accept(t.Context(), a)
	})
	story := b.until(1)
	if !equalStates(story[m.ID], mail.StateQueued, mail.StateAccepted) {
		t.Errorf("told %v", story[m.ID])
	}
	if got.Number != 1 || got.Message.Data["code"] != "917 342" || got.Message.To != m.To {
		t.Errorf("attempt %+v", got)
	}
}

func TestADelayedMessageComesBackWithTheSameBytes(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	var signed []string
	m := b.message("invite", "kari@nordlys.example", "kari")
	b.enqueue(m)
	b.work(func(_ context.Context, a *mail.Attempt) mail.Outcome {
		signed = append(signed, string(a.Signed))
		if a.Number < 3 {
			return mail.Outcome{State: mail.StateDelayed, Cause: mail.CauseGreylisted, Signed: []byte("signed bytes")}
		}
		return accept(t.Context(), a)
	})
	story := b.until(1)
	if !equalStates(story[m.ID], mail.StateQueued, mail.StateDelayed, mail.StateDelayed, mail.StateAccepted) {
		t.Errorf("told %v", story[m.ID])
	}
	if fmt.Sprint(signed) != "[ signed bytes signed bytes]" {
		t.Errorf("attempts had %q", signed)
	}
}
