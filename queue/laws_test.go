package queue

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

func count(states []mail.State, s mail.State) (n int) {
	for _, x := range states {
		if x == s {
			n++
		}
	}
	return n
}

func problemType(err error) string {
	if p, ok := errors.AsType[*mail.Problem](err); ok {
		return p.Type
	}
	return ""
}

func TestARestartFindsWhatWaits(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	const n = 50
	for i := range n {
		m := b.message("invite", fmt.Sprintf("p%d@d%d.example", i, i%7), fmt.Sprint(i))
		if i%2 == 0 {
			m.Tenant = "" // an auth service of one company has none
		}
		b.enqueue(m)
	}
	if err := b.q.Close(); err != nil {
		t.Fatal(err)
	}
	b.open()
	var tried atomic.Int32
	b.work(func(_ context.Context, a *mail.Attempt) mail.Outcome {
		tried.Add(1)
		return accept(t.Context(), a)
	})
	for id, states := range b.until(n) {
		if !equalStates(states, mail.StateQueued, mail.StateAccepted) {
			t.Errorf("%s: %v", id, states)
		}
	}
	if tried.Load() != n {
		t.Errorf("%d attempts for %d messages", tried.Load(), n)
	}
}

func TestAnIdempotencyKeyNamesOneMessage(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	hash := sha256.Sum256([]byte("request"))
	var wg sync.WaitGroup
	ids := make([]mail.ID, 100)
	for i := range ids {
		wg.Go(func() {
			m := b.message("invite", "kari@nordlys.example", "kari")
			m.IdempotencyKey = "k1"
			r, err := b.q.Enqueue(t.Context(), m, hash)
			if err != nil {
				t.Error(err)
			}
			ids[i] = r.ID
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("one key named %s and %s", ids[0], id)
		}
	}
	// The same over a restart, and a conflict for other content.
	b.q.Close()
	b.open()
	m := b.message("invite", "kari@nordlys.example", "kari")
	m.IdempotencyKey = "k1"
	r, err := b.q.Enqueue(t.Context(), m, hash)
	if err != nil || r.ID != ids[0] || !r.Replayed {
		t.Errorf("after a restart: %+v, %v", r, err)
	}
	m = b.message("invite", "kari@nordlys.example", "kari")
	m.IdempotencyKey = "k1"
	if _, err = b.q.Enqueue(t.Context(), m, sha256.Sum256([]byte("other"))); problemType(err) != mail.ProblemConflict {
		t.Errorf("another request under the same key: %v", err)
	}
	b.work(accept)
	story := b.until(1)
	if len(story) != 1 {
		t.Errorf("events of %d messages, want 1", len(story))
	}
}

func TestTheNewestWins(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	// The addresses' domains are on different shards.
	old := b.message("reset", "kari@nordlys.example", "kari")
	b.enqueue(old)
	young := b.message("reset", "kari@sydlys.example", "kari")
	if shardOf("nordlys.example", 2) == shardOf("sydlys.example", 2) {
		t.Fatal("the domains have to be on different shards")
	}
	b.enqueue(young)
	var tried sync.Map
	b.work(func(_ context.Context, a *mail.Attempt) mail.Outcome {
		tried.Store(a.Message.ID, true)
		return accept(t.Context(), a)
	})
	story := b.until(2)
	if !equalStates(story[old.ID], mail.StateQueued, mail.StateSuperseded) || !equalStates(story[young.ID], mail.StateQueued, mail.StateAccepted) {
		t.Errorf("old %v, young %v", story[old.ID], story[young.ID])
	}
	if _, ok := tried.Load(old.ID); ok {
		t.Error("the older message was tried")
	}
}

func TestTheNewestWinsOverARestart(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	old := b.message("reset", "kari@nordlys.example", "kari")
	b.enqueue(old)
	// The process dies right after the newer one's keys are written.
	young := b.message("reset", "kari@sydlys.example", "kari")
	r := &record{Message: *young, State: mail.StateQueued, Due: young.QueuedAt}
	if err := r.sealData(b.ring, young.ExpiresAt); err != nil {
		t.Fatal(err)
	}
	if _, err := b.q.create(b.q.shardOf(young), r); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.q.raise(t.Context(), young, 1); err != nil {
		t.Fatal(err)
	}
	b.q.Close()
	b.open()
	b.work(accept)
	story := b.until(2)
	if !equalStates(story[old.ID], mail.StateQueued, mail.StateSuperseded) || !equalStates(story[young.ID], mail.StateQueued, mail.StateAccepted) {
		t.Errorf("old %v, young %v", story[old.ID], story[young.ID])
	}
}

func TestASupersedeDuringAnAttemptStopsItBeforeDialling(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	old := b.message("reset", "kari@nordlys.example", "kari")
	b.enqueue(old)
	begun, goOn := make(chan struct{}), make(chan struct{})
	b.work(func(_ context.Context, a *mail.Attempt) mail.Outcome {
		if a.Message.ID != old.ID {
			return accept(t.Context(), a)
		}
		if err := a.Proceed(); err != nil {
			t.Errorf("before the newer came: %v", err)
		}
		close(begun)
		<-goOn
		if err := a.Proceed(); !errors.Is(err, mail.ErrSuperseded) {
			t.Errorf("after the newer came: %v", err)
		}
		return mail.Outcome{State: mail.StateSuperseded}
	})
	<-begun
	young := b.message("reset", "kari@nordlys.example", "kari")
	b.enqueue(young)
	close(goOn)
	story := b.until(2)
	if !equalStates(story[old.ID], mail.StateQueued, mail.StateSuperseded) || !equalStates(story[young.ID], mail.StateQueued, mail.StateAccepted) {
		t.Errorf("old %v, young %v", story[old.ID], story[young.ID])
	}
}

func TestNothingIsTriedAfterItsExpiry(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	m := b.message("invite", "kari@nordlys.example", "kari")
	m.ExpiresAt = m.QueuedAt.Add(400 * time.Millisecond)
	b.enqueue(m)
	var late atomic.Bool
	b.work(func(_ context.Context, a *mail.Attempt) mail.Outcome {
		if time.Now().After(m.ExpiresAt) {
			late.Store(true)
		}
		return mail.Outcome{State: mail.StateDelayed, Cause: mail.CauseGreylisted}
	})
	states := b.until(1)[m.ID]
	if states[len(states)-1] != mail.StateExpired || count(states, mail.EventAtRisk) != 1 || late.Load() {
		t.Errorf("told %v, tried late: %v", states, late.Load())
	}
}

func TestACancelledMessageEndsOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	m := b.message("invite", "kari@nordlys.example", "kari")
	b.enqueue(m)
	if err := b.q.Cancel(t.Context(), m.ID, "lars", "wrong address"); err != nil {
		t.Fatal(err)
	}
	b.work(func(context.Context, *mail.Attempt) mail.Outcome {
		t.Error("a cancelled message was tried")
		return mail.Outcome{}
	})
	events := b.follow(func(e mail.Event) bool { return e.State.Terminal() })
	last := events[len(events)-1]
	if last.State != mail.StateCancelled || last.By != "lars" || last.Reason != "wrong address" {
		t.Errorf("ended as %+v", last)
	}
	if err := b.q.Cancel(t.Context(), mail.NewID(time.Now()), "lars", ""); !errors.Is(err, ErrNotFound) {
		t.Errorf("cancelling nothing: %v", err)
	}
}

func TestASuppressionMadeAfterTheAcceptEndsTheMessage(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	m := b.message("invite", "Kari@nordlys.example", "kari")
	b.enqueue(m)
	s := mail.Suppression{Tenant: m.Tenant, Address: "kari@nordlys.example", Cause: mail.CauseBadMailbox, Since: time.Now().UTC(), By: "deliverd"}
	if err := b.q.Suppress(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	stop := b.work(accept)
	if story := b.until(1); !equalStates(story[m.ID], mail.StateQueued, mail.StateSuppressed) {
		t.Errorf("told %v", story[m.ID])
	}
	stop()
	b.q.Close()
	b.open()
	got, err := b.q.Suppressed(t.Context(), m.Tenant, m.To)
	if err != nil || got == nil || got.Cause != s.Cause {
		t.Fatalf("after a restart: %+v, %v", got, err)
	}
	if got, _ := b.q.Suppressed(t.Context(), "other", m.To); got != nil {
		t.Error("another tenant is suppressed")
	}
	if err := b.q.Lift(t.Context(), m.Tenant, m.To, "lars", "was a typo"); err != nil {
		t.Fatal(err)
	}
	if got, _ := b.q.Suppressed(t.Context(), m.Tenant, m.To); got != nil {
		t.Error("still suppressed after the lift")
	}
	if list, err := b.q.Suppressions(t.Context(), "*"); err != nil || len(list) != 0 {
		t.Errorf("still listed: %v, %v", list, err)
	}
	b.follow(func(e mail.Event) bool { return e.State == mail.EventLifted && e.By == "lars" })
}

func TestAPauseHoldsBackAndLastsOverARestart(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(o *Options) {
		o.Provider = func(domain string) string {
			if domain == "nordlys.example" {
				return "microsoft365"
			}
			return ""
		}
	})
	for _, sel := range []string{"kind:reset", "domain:Sydlys.example", "provider:microsoft365", "tenant:12"} {
		if err := b.q.Pause(t.Context(), sel, "lars", "maintenance"); err != nil {
			t.Fatal(err)
		}
	}
	b.q.Close()
	b.open()
	var held []*mail.Message
	for i, to := range []string{"a@nordlys.example", "b@sydlys.example", "c@reset.example", "d@tenant.example", "e@free.example"} {
		m := b.message("invite", to, fmt.Sprint(i))
		switch i {
		case 2:
			m.Kind = "reset"
		case 3:
			m.Tenant = "12"
		}
		b.enqueue(m)
		held = append(held, m)
	}
	b.work(accept)
	story := b.until(1)
	if !equalStates(story[held[4].ID], mail.StateQueued, mail.StateAccepted) {
		t.Errorf("what is not paused: %v", story[held[4].ID])
	}
	list, err := b.q.Pauses(t.Context())
	if err != nil || len(list) != 4 || list[0].By != "lars" {
		t.Errorf("paused: %+v, %v", list, err)
	}
	st, err := b.q.Status(t.Context(), held[0].ID)
	if err != nil || st.Paused != "provider:microsoft365" || st.State != mail.StateQueued {
		t.Errorf("status %+v, %v", st, err)
	}
	for _, p := range list {
		if err := b.q.Resume(t.Context(), p.Selector); err != nil {
			t.Fatal(err)
		}
	}
	b.until(5)
	if err := b.q.Pause(t.Context(), "colour:red", "lars", ""); problemType(err) != mail.ProblemInvalid {
		t.Errorf("a selector that is none: %v", err)
	}
}

func TestAPoisonedMessageIsRefusedAndOthersFlow(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	poison := b.message("invite", "poison@nordlys.example", "p")
	b.enqueue(poison)
	other := b.message("invite", "kari@nordlys.example", "kari")
	b.enqueue(other)
	b.work(func(_ context.Context, a *mail.Attempt) mail.Outcome {
		if a.Message.ID == poison.ID {
			panic(a.Message.Data)
		}
		return accept(t.Context(), a)
	})
	story := b.until(2)
	if !equalStates(story[poison.ID], mail.StateQueued, mail.StateRefused) || !equalStates(story[other.ID], mail.StateQueued, mail.StateAccepted) {
		t.Errorf("poison %v, other %v", story[poison.ID], story[other.ID])
	}
}

func TestAnInterruptionCostsNoAttempt(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	m := b.message("invite", "kari@nordlys.example", "kari")
	b.enqueue(m)
	working, interrupt := context.WithCancel(t.Context())
	taking, stopTaking := context.WithCancel(t.Context())
	begun := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		b.q.Work(taking, working, func(ctx context.Context, a *mail.Attempt) mail.Outcome {
			close(begun)
			<-ctx.Done()
			return mail.Outcome{Local: "interrupted"}
		})
	})
	<-begun
	stopTaking()
	interrupt()
	wg.Wait()
	var number int
	b.work(func(_ context.Context, a *mail.Attempt) mail.Outcome {
		number = a.Number
		return accept(t.Context(), a)
	})
	b.until(1)
	if number != 1 {
		t.Errorf("the attempt after the interruption was number %d", number)
	}
}

func TestAtMostOnceIsNotRepeated(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	m := b.message("once", "kari@nordlys.example", "")
	b.enqueue(m)
	b.work(func(context.Context, *mail.Attempt) mail.Outcome {
		return mail.Outcome{State: mail.StateDelayed, Cause: mail.CauseNetwork, PossibleDuplicate: true}
	})
	events := b.follow(func(e mail.Event) bool { return e.State.Terminal() })
	if last := events[len(events)-1]; last.State != mail.StateRefused || !last.PossibleDuplicate {
		t.Errorf("ended as %+v", last)
	}
}

func TestRetryNowMakesDue(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(o *Options) {
		k := o.Kinds["invite"]
		k.Retries = []time.Duration{time.Hour}
		k.ValidFor = 24 * time.Hour
		o.Kinds["invite"] = k
	})
	m := b.message("invite", "kari@nordlys.example", "kari")
	m.ExpiresAt = m.QueuedAt.Add(24 * time.Hour)
	b.enqueue(m)
	b.work(func(_ context.Context, a *mail.Attempt) mail.Outcome {
		if a.Number == 1 {
			return mail.Outcome{State: mail.StateDelayed, Cause: mail.CauseGreylisted}
		}
		return accept(t.Context(), a)
	})
	b.follow(func(e mail.Event) bool { return e.State == mail.StateDelayed })
	for {
		n, err := b.q.RetryNow(t.Context(), "domain:nordlys.example")
		if err != nil {
			t.Fatal(err)
		}
		if n == 1 { // the item is back in the heap an instant after its event is out
			break
		}
	}
	b.until(1)
}

func TestStatusAndSummaryWhileWaiting(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	for i := range 3 {
		b.enqueue(b.message("invite", fmt.Sprintf("p%d@nordlys.example", i), fmt.Sprint(i)))
	}
	m := b.message("pin", "kari@sydlys.example", "kari")
	b.enqueue(m)
	for {
		s := b.q.WaitingHere()
		if s.Shards < 2 || s.All.Total() < 4 {
			continue // the leases are being taken
		}
		if s.Kinds["invite"].Queued != 3 || s.Domains["sydlys.example"].Expiring != 1 || s.Tenants["4711"].Total() != 4 || s.All.Oldest.IsZero() {
			t.Errorf("waiting: %+v", s)
		}
		break
	}
	st, err := b.q.Status(t.Context(), m.ID)
	if err != nil || st.State != mail.StateQueued || st.Message.Data != nil || st.Last.State != mail.StateQueued {
		t.Errorf("status %+v, %v", st, err)
	}
	full, err := b.q.Message(t.Context(), m.ID)
	if err != nil || full.Data["code"] != "917 342" {
		t.Errorf("message %v, %v", full.Data, err)
	}
	if _, err := b.q.Status(t.Context(), mail.NewID(time.Now())); !errors.Is(err, ErrNotFound) {
		t.Errorf("status of nothing: %v", err)
	}
}
