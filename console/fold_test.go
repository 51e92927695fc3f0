package console

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

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
		if r.IntN(5) == 0 {
			m.To, m.ToName = "kari.new@nordlys.example", []string{"Kari Ny", ""}[r.IntN(2)]
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
