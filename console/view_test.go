package console

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
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
		"an older schema": func(t *testing.T, path string, _ *testLog) {
			exec(t, path, "DROP TABLE people; PRAGMA user_version = 2")
		},
		"a spoiled index of names": func(t *testing.T, path string, _ *testLog) {
			exec(t, path, "DELETE FROM people_text_data; PRAGMA user_version = 0")
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

// The same without the database, for many more orders.

// randomLives makes a log of a few messages with every sort of fact, some of them

// recorded twice, at two places and with a difference.

func TestPrune(t *testing.T) {
	t.Parallel()
	now := monday
	v, err := OpenView(t.Context(), ViewOptions{Keep: 24 * time.Hour, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	old, young := invite(0), invite(1)
	gone := invite(0) // of somebody else, in a tenant of their own
	gone.ID, gone.Tenant, gone.TenantName, gone.To, gone.ToName, gone.PersonID = testID(2), "gone", "Gone Oy", "gone@gone.example", "Gone", ""
	fill(t, v, greylistedThenHandedOver(gone)...)
	fill(t, v, greylistedThenHandedOver(old)...)
	fill(t, v, greylistedThenHandedOver(young)...)
	// young's bounce comes 20 hours later, and keeps the message for a day from then.
	fill(t, v, mail.NewEvent(young, mail.StateReturned, 2, monday.Add(20*time.Hour)))

	now = monday.Add(24*time.Hour + 10*time.Minute)
	if err := v.prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	for q, want := range map[string]int{"gone": 0, "Gone Oy": 0, "kari": 1, "nordlys": 1} {
		if found, err := v.FindPeople(t.Context(), PeopleQuery{Q: q}); err != nil || len(found.People) != want {
			t.Errorf("who is %q: %v, %v; want %d people", q, found.People, err, want)
		}
	}
	if names := dumpNames(t, v); strings.Contains(names, "gone") || !strings.Contains(names, "1 rows of people") {
		t.Errorf("people after pruning:\n%s", names)
	}
	fill(t, v, mail.NewEvent(gone, mail.StateComplained, 2, now)) // they come back
	if found, err := v.FindPeople(t.Context(), PeopleQuery{Q: "gone"}); err != nil || len(found.People) != 1 {
		t.Errorf("somebody who came back: %v, %v", found.People, err)
	}
	if _, err := v.Facts(t.Context(), old.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("the old message: %v, want ErrNotFound", err)
	}
	f, err := v.Facts(t.Context(), young.ID)
	if err != nil || f.State != mail.StateReturned || len(f.Events) != 1 {
		t.Errorf("the young message: %v with %d events, %v; want returned with its bounce alone", f.State, len(f.Events), err)
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

// At risk is said of a message only while something can still be done.

// A filter that matches nothing is searched for a window of places at a time.

// No reading looks at every row, and lists come out of an index in their order.
