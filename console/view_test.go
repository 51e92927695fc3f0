package console

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

func TestFollowRemembersItsPlace(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "dir with ?#% in it", "view.db")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	log := &testLog{}
	life := greylistedThenHandedOver(invite(1))
	log.add(life[:2]...)

	v := openView(t, path)
	stop := follow(t, v, log)
	if err := v.CatchUp(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	stop()
	v.Close()

	log.add(life[2])
	v = openView(t, path)
	if v.Place() != 2 {
		t.Fatalf("reopened at place %d, want 2", v.Place())
	}
	if s, err := v.Summary(t.Context(), invite(1).ID); err != nil || s.State != mail.StateDelayed {
		t.Fatalf("after reopening: %v %v, want delayed", s.State, err)
	}
	follow(t, v, log)
	if err := v.CatchUp(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	if s, err := v.Summary(t.Context(), invite(1).ID); err != nil || s.State != mail.StateAccepted {
		t.Fatalf("after following on: %v %v, want accepted", s.State, err)
	}
}

func TestCatchUpEndsWithItsContext(t *testing.T) {
	t.Parallel()
	v := openView(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := v.CatchUp(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("CatchUp: %v, want context.Canceled", err)
	}
}

func TestWait(t *testing.T) {
	t.Parallel()
	log := &testLog{}
	v := openView(t, "")
	follow(t, v, log)
	m := invite(1)
	life := greylistedThenHandedOver(m)

	got := make(chan mail.State)
	go func() {
		s, err := v.Wait(t.Context(), m.ID, mail.State.Terminal)
		if err != nil {
			t.Error(err)
		}
		got <- s
	}()
	for _, e := range life {
		log.add(e)
	}
	if s := <-got; s != mail.StateAccepted {
		t.Errorf("waited for the end and got %q", s)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if s, err := v.Wait(ctx, testID(99), mail.State.Terminal); s != "" || !errors.Is(err, context.Canceled) {
		t.Errorf("waiting for an unknown message: %q, %v", s, err)
	}
	if len(v.hub.watchers) != 0 {
		t.Errorf("%d watchers left behind", len(v.hub.watchers))
	}
}

// A view is thrown away and built anew whenever it can't be trusted.
func TestViewIsRebuilt(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(t *testing.T, path string, log *testLog){
		"missing": func(t *testing.T, path string, _ *testLog) {
			if err := removeStore(path); err != nil {
				t.Fatal(err)
			}
		},
		"not a database": func(t *testing.T, path string, _ *testLog) {
			write(t, path, []byte("this was never a database, and it is longer than its header of 100 bytes would have to be, I promise"))
		},
		"cut short": func(t *testing.T, path string, _ *testLog) {
			if err := os.Truncate(path, 3000); err != nil {
				t.Fatal(err)
			}
		},
		"another schema": func(t *testing.T, path string, _ *testLog) {
			exec(t, path, "PRAGMA user_version = 99")
		},
		"another program's": func(t *testing.T, path string, _ *testLog) {
			if err := removeStore(path); err != nil {
				t.Fatal(err)
			}
			exec(t, path, "CREATE TABLE shopping (item TEXT)")
		},
		"no place": func(t *testing.T, path string, _ *testLog) {
			exec(t, path, "DELETE FROM place")
		},
		"ahead of the log": func(t *testing.T, path string, _ *testLog) {
			exec(t, path, "UPDATE place SET seq = 1000")
		},
		"behind the log's retention": func(t *testing.T, path string, log *testLog) {
			for i := range log.events {
				log.events[i].Seq += 100
			}
		},
		"a log begun anew": func(t *testing.T, _ string, log *testLog) {
			log.events = nil
			for n := range 60 {
				m := invite(1000 + n)
				log.add(greylistedThenHandedOver(m)...)
			}
		},
		"spoiled pages": func(t *testing.T, path string, _ *testLog) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for i := 4096; i < len(b); i++ {
				b[i] = 0xff
			}
			write(t, path, b)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "view.db")
			log := &testLog{}
			for n := range 40 {
				log.add(greylistedThenHandedOver(invite(n))...)
			}
			v := openView(t, path)
			stop := follow(t, v, log)
			if _, err := v.Wait(t.Context(), testID(39), mail.State.Terminal); err != nil {
				t.Fatal(err)
			}
			stop()
			v.Close()

			spoil(t, path, log)
			log.add(greylistedThenHandedOver(invite(40))...)
			v = openView(t, path)
			follow(t, v, log)
			if _, err := v.Wait(t.Context(), testID(40), mail.State.Terminal); err != nil {
				t.Fatal(err)
			}
			straight := openView(t, "")
			apply(t, straight, log.events, 1000)
			if got, want := dump(t, v), dump(t, straight); got != want {
				t.Errorf("rebuilt view differs:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func TestFollowGoesOnAfterTheLogFailed(t *testing.T) {
	t.Parallel()
	log := &testLog{fail: errors.New("no route to NATS")}
	log.add(greylistedThenHandedOver(invite(1))...)
	v := openView(t, "")
	follow(t, v, log)
	if err := v.CatchUp(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
}

// The order of events and their number doesn't matter: STYLE.md trap 8.
func FuzzFoldIgnoresOrder(f *testing.F) {
	f.Add(uint64(1), uint8(3))
	f.Add(uint64(42), uint8(1))
	f.Add(uint64(7), uint8(200))
	f.Fuzz(func(t *testing.T, seed uint64, batch uint8) {
		r := rand.New(rand.NewPCG(seed, 0))
		events := randomLives(r)
		straight, shuffled := openView(t, ""), openView(t, "")
		apply(t, straight, events, len(events))

		again := append(append([]mail.LoggedEvent{}, events...), events[:r.IntN(len(events))]...)
		r.Shuffle(len(again), func(i, j int) { again[i], again[j] = again[j], again[i] })
		apply(t, shuffled, again, int(batch)+1)

		if a, b := dump(t, straight), dump(t, shuffled); a != b {
			t.Errorf("in order:\n%s\nshuffled:\n%s", a, b)
		}
	})
}

// The same without the database, for many more orders.
func FuzzFold(f *testing.F) {
	for seed := range uint64(100) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		events := randomLives(r)
		straight := foldAll(events)
		again := append(append([]mail.LoggedEvent{}, events...), events[:r.IntN(len(events))]...)
		r.Shuffle(len(again), func(i, j int) { again[i], again[j] = again[j], again[i] })
		for id, s := range foldAll(again) {
			if *s != *straight[id] {
				t.Errorf("in order: %+v\nshuffled: %+v", *straight[id], *s)
			}
		}
	})
}

func foldAll(events []mail.LoggedEvent) map[mail.ID]*standing {
	all := map[mail.ID]*standing{}
	for _, e := range events {
		if all[e.Message] == nil {
			all[e.Message] = &standing{}
		}
		all[e.Message].fold(e)
	}
	return all
}

func apply(t *testing.T, v *View, events []mail.LoggedEvent, size int) {
	t.Helper()
	for len(events) > 0 {
		n := min(size, len(events))
		if err := v.apply(t.Context(), events[:n]); err != nil {
			t.Fatal(err)
		}
		events = events[n:]
	}
}

// randomLives makes a log of a few messages with every sort of fact, some of them
// recorded twice, at two places and with a difference.
func randomLives(r *rand.Rand) []mail.LoggedEvent {
	states := []mail.State{
		mail.StateQueued, mail.StateDelayed, mail.StateAccepted, mail.StateRefused, mail.StateExpired,
		mail.StateSuperseded, mail.StateCancelled, mail.StateSuppressed, mail.StateReturned, mail.StateComplained,
		mail.EventAtRisk, mail.EventResent, mail.EventUsed, mail.EventExpiredUnused, mail.EventWrongPerson, "of_next_year",
	}
	causes := []mail.Cause{"", mail.CauseGreylisted, mail.CauseNetwork}
	var log []mail.LoggedEvent
	for range 2 + r.IntN(40) {
		m := invite(r.IntN(4))
		if r.IntN(5) == 0 {
			m.TenantName, m.PersonID = "", ""
		}
		e := mail.NewEvent(m, states[r.IntN(len(states))], r.IntN(4), monday.Add(time.Duration(r.IntN(1000))*time.Second))
		e.Cause = causes[r.IntN(len(causes))]
		e.PossibleDuplicate = r.IntN(8) == 0
		if r.IntN(2) == 0 {
			e.NextAttempt = e.At.Add(time.Duration(r.IntN(100)) * time.Second)
			e.Evidence = &mail.Evidence{Provider: []string{"google", "microsoft365"}[r.IntN(2)]}
		}
		log = append(log, mail.LoggedEvent{Seq: uint64(len(log) + 1), Event: e})
	}
	return log
}

func TestFoldStates(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		states []mail.State // in attempts 0, 1, 2 …
		want   mail.State
	}{
		{"accepted recorded before queued", []mail.State{mail.StateAccepted, mail.StateQueued}, mail.StateAccepted},
		{"delayed", []mail.State{mail.StateQueued, mail.StateDelayed}, mail.StateDelayed},
		{"expired after delays", []mail.State{mail.StateDelayed, mail.StateDelayed, mail.StateExpired}, mail.StateExpired},
		{"bounced a day later", []mail.State{mail.StateReturned, mail.StateAccepted}, mail.StateReturned},
		{"used says nothing of the mail", []mail.State{mail.StateDelayed, mail.EventUsed}, mail.StateDelayed},
		{"only at risk is known", []mail.State{mail.EventAtRisk}, mail.StateQueued},
		{"only used is known", []mail.State{mail.EventUsed}, mail.StateAccepted},
		{"only resent is known", []mail.State{mail.EventResent}, StateUnknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var s standing
			for i, state := range c.states {
				s.fold(mail.LoggedEvent{Seq: uint64(i + 1), Event: mail.NewEvent(invite(1), state, i, monday)})
			}
			if s.State != c.want {
				t.Errorf("state %q, want %q", s.State, c.want)
			}
		})
	}
}

func TestPrune(t *testing.T) {
	t.Parallel()
	now := monday
	v, err := OpenView(t.Context(), ViewOptions{Keep: 24 * time.Hour, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	old, young := invite(0), invite(1)
	fill(t, v, greylistedThenHandedOver(old)...)
	fill(t, v, greylistedThenHandedOver(young)...)
	// young's bounce comes 20 hours later, and keeps the message for a day from then.
	fill(t, v, mail.NewEvent(young, mail.StateReturned, 2, monday.Add(20*time.Hour)))

	now = monday.Add(24*time.Hour + 10*time.Minute)
	if err := v.prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Facts(t.Context(), old.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("the old message: %v, want ErrNotFound", err)
	}
	f, err := v.Facts(t.Context(), young.ID)
	if err != nil || f.State != mail.StateReturned || len(f.Events) != 1 {
		t.Errorf("the young message: %v with %d events, %v; want returned with its bounce alone", f.State, len(f.Events), err)
	}
}

func TestEventsAfter(t *testing.T) {
	t.Parallel()
	v := openView(t, "")
	other := invite(2)
	other.Tenant = "other"
	fill(t, v, greylistedThenHandedOver(invite(1))...)
	fill(t, v, greylistedThenHandedOver(other)...)

	got, next, err := v.EventsAfter(t.Context(), 0, EventFilter{Tenants: []string{"other"}}, 4)
	if err != nil || len(got) != 1 || got[0].Seq != 4 || next != 4 {
		t.Errorf("first piece: %d events, next %d, %v; want the event at 4", len(got), next, err)
	}
	got, next, err = v.EventsAfter(t.Context(), next, EventFilter{State: mail.StateAccepted}, 4)
	if err != nil || len(got) != 1 || got[0].Seq != 6 || next != 6 {
		t.Errorf("second piece: %d events, next %d, %v; want the event at 6", len(got), next, err)
	}
	got, next, err = v.EventsAfter(t.Context(), next, EventFilter{}, 4)
	if err != nil || len(got) != 0 || next != 6 {
		t.Errorf("at the end: %d events, next %d, %v", len(got), next, err)
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	v := openView(t, "")
	for n := range 5 {
		m := invite(n)
		if n%2 == 1 {
			m.Tenant, m.To, m.PersonID = "other", "Someone@Else.example", ""
		}
		life := greylistedThenHandedOver(m)
		fill(t, v, life[:1+n%3]...)
	}
	for _, c := range []struct {
		name string
		f    Filter
		want []int
	}{
		{"all", Filter{}, []int{4, 3, 2, 1, 0}},
		{"first page", Filter{Limit: 2}, []int{4, 3}},
		{"second page", Filter{Limit: 2, Before: testID(3)}, []int{2, 1}},
		{"tenant", Filter{Tenants: []string{"other"}}, []int{3, 1}},
		{"two tenants", Filter{Tenants: []string{"other", "04711"}}, []int{4, 3, 2, 1, 0}},
		{"no tenant at all", Filter{Tenants: []string{}}, nil},
		{"state", Filter{State: mail.StateQueued}, []int{3, 0}},
		{"address in any case", Filter{To: "someone@ELSE.example"}, []int{3, 1}},
		{"tenant and state", Filter{Tenants: []string{"other"}, State: mail.StateDelayed}, []int{1}},
		{"person", Filter{Person: PersonKey("04711", "usr_123", "")}, []int{4, 2, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			sums, err := v.List(t.Context(), c.f)
			if err != nil {
				t.Fatal(err)
			}
			var got []mail.ID
			for _, s := range sums {
				got = append(got, s.ID)
			}
			var want []mail.ID
			for _, n := range c.want {
				want = append(want, testID(n))
			}
			if len(got) != len(want) {
				t.Fatalf("got %v, want %v", got, want)
			}
			for i := range got {
				if got[i] != want[i] {
					t.Fatalf("got %v, want %v", got, want)
				}
			}
		})
	}
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func exec(t *testing.T, path, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite", dsn(path, "immediate"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(statement); err != nil {
		t.Fatal(err)
	}
}

// Reported as events a second: a node that starts without a view reads the whole log.
func BenchmarkApply(b *testing.B) {
	v, err := OpenView(b.Context(), ViewOptions{Path: filepath.Join(b.TempDir(), "view.db")})
	if err != nil {
		b.Fatal(err)
	}
	defer v.Close()
	n := 0
	var seq uint64
	for b.Loop() {
		var batch []mail.LoggedEvent
		for len(batch) < batchSize {
			m := invite(n)
			n++
			for _, e := range greylistedThenHandedOver(m) {
				seq++
				batch = append(batch, mail.LoggedEvent{Seq: seq, Event: e})
			}
		}
		if err := v.apply(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(seq)/b.Elapsed().Seconds(), "events/s")
}
