package daemon

import (
	"strconv"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
	"github.com/deliverd/deliverd/queue"
	"github.com/deliverd/deliverd/queue/natstest"
)

// TestSuppressorReadsAgain: the suppressor's place is saved after what it did, so a
// crash between the two makes it read events again. From whatever place it starts, it
// ends in the same list; above all, what a person lifted stays lifted.
func TestSuppressorReadsAgain(t *testing.T) {
	t.Parallel()
	q, err := queue.Open(t.Context(), natstest.Start(t, t.TempDir()).Connect(t), queue.Options{
		Kinds: mail.DefaultKinds(), Seal: queue.NewKeyRing(), Shards: 1, Alone: true, Log: discard,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	s := &suppressor{d: &Daemon{queue: q, log: discard}}

	const tenant = "4711"
	began := time.Now().UTC().Add(-time.Hour).Truncate(time.Millisecond)
	returned := func(to string, after time.Duration) mail.Event {
		return mail.Event{ID: to + after.String(), At: began.Add(after), State: mail.StateReturned, Tenant: tenant, To: mail.Address(to),
			Cause: mail.CauseBadMailbox, Suppress: true}
	}
	complained := func(to string, after time.Duration) mail.Event {
		e := returned(to, after)
		e.State, e.Cause, e.Suppress = mail.StateComplained, mail.CauseComplaint, false
		return e
	}
	lifted := func(to string, after time.Duration) mail.Event {
		e := returned(to, after)
		e.State, e.Suppress = mail.EventLifted, false
		return e
	}
	var log []mail.Event
	want := map[string]*mail.Suppression{} // nil: none
	for i, tt := range []struct {
		events []func(string, time.Duration) mail.Event
		after  time.Duration // when the suppression that holds began; < 0: none does
		lasts  bool          // until it is lifted
	}{
		{[]func(string, time.Duration) mail.Event{returned}, 0, false},
		{[]func(string, time.Duration) mail.Event{returned, lifted}, -1, false},
		{[]func(string, time.Duration) mail.Event{complained, lifted}, -1, false},
		{[]func(string, time.Duration) mail.Event{returned, lifted, returned}, 2, false},
		{[]func(string, time.Duration) mail.Event{returned, lifted, complained, lifted}, -1, false},
		{[]func(string, time.Duration) mail.Event{complained, returned}, 0, true}, // not cut short
		{[]func(string, time.Duration) mail.Event{returned, complained}, 1, true},
	} {
		to := "kari" + strconv.Itoa(i) + "@nordlys.example"
		for n, e := range tt.events {
			log = append(log, e(to, time.Duration(n)))
		}
		want[to] = nil
		if tt.after >= 0 {
			want[to] = &mail.Suppression{Since: began.Add(tt.after)}
			if !tt.lasts {
				want[to].Until = want[to].Since.Add(24 * time.Hour)
			}
		}
	}
	old := returned("old@nordlys.example", -48*time.Hour) // a day of it is over
	log, want[string(old.To)] = append(log, old), nil

	for from := range log {
		for _, e := range append(log[:len(log):len(log)], log[from:]...) {
			if err := s.apply(t.Context(), e); err != nil {
				t.Fatal(err)
			}
		}
		for to, w := range want {
			got, err := q.Suppressed(t.Context(), tenant, mail.Address(to))
			if err != nil {
				t.Fatal(err)
			}
			if (got == nil) != (w == nil) || w != nil && (!got.Since.Equal(w.Since) || !got.Until.Equal(w.Until)) {
				t.Fatalf("read again from %d: %s is suppressed %+v, want %+v", from, to, got, w)
			}
		}
	}

	// What a person added stands, whatever older events say.
	mine := mail.Suppression{Tenant: tenant, Address: "kari1@nordlys.example", Cause: mail.CauseSuppressed, Since: time.Now().UTC(), By: "lars"}
	if err := q.Suppress(t.Context(), mine); err != nil {
		t.Fatal(err)
	}
	for _, e := range log {
		if err := s.apply(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := q.Suppressed(t.Context(), tenant, mine.Address); err != nil || got == nil || got.By != "lars" {
		t.Errorf("added by a person: %+v, %v", got, err)
	}
}

// TestSuppressorFollows: the daemon's own suppressor goes on where it stopped, and
// from the beginning where its place was lost.
func TestSuppressorFollows(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t, t.TempDir())
	ring := queue.NewKeyRing()
	at := time.Now().UTC()
	for life, to := range []mail.Address{"first@nordlys.example", "second@nordlys.example", "third@nordlys.example"} {
		q, err := queue.Open(t.Context(), server.Connect(t), queue.Options{Kinds: mail.DefaultKinds(), Seal: ring, Shards: 1, Alone: true, Log: discard})
		if err != nil {
			t.Fatal(err)
		}
		d := &Daemon{queue: q, log: discard, cleanups: cleanups{log: discard}}
		if life == 2 {
			marks, err := q.Shared(t.Context(), "suppressor")
			if err == nil {
				err = marks.Put(t.Context(), suppressorMark, []byte("0"))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		d.start("suppressions", d.suppressLoop)
		if err := q.Record(t.Context(), mail.Event{ID: string(to), At: at, State: mail.StateReturned, Tenant: "4711", To: to, Cause: mail.CauseBadMailbox, Suppress: true}); err != nil {
			t.Fatal(err)
		}
		waitFor(t, string(to)+" was suppressed", func() bool {
			s, err := q.Suppressed(t.Context(), "4711", to)
			return err == nil && s != nil
		})
		if life == 0 {
			if err := q.Lift(t.Context(), "4711", to, "lars", "it works again"); err != nil {
				t.Fatal(err)
			}
		}
		if s, err := q.Suppressed(t.Context(), "4711", "first@nordlys.example"); s != nil || err != nil {
			t.Errorf("life %d: what was lifted is suppressed: %+v, %v", life, s, err)
		}
		if err := d.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	}
}

// waitFor waits until ok, as long as the test may run.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for !ok() {
		if !sleep(t.Context(), 5*time.Millisecond) {
			t.Fatalf("the test ended before %s", what)
		}
	}
}
