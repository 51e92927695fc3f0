package console

import (
	"database/sql"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

func TestEventsAfter(t *testing.T) {
	t.Parallel()
	v := openView(t, "")
	other := invite(2)
	other.Tenant = "other"
	fill(t, v, greylistedThenHandedOver(invite(1))...)
	fill(t, v, greylistedThenHandedOver(other)...)

	got, next, err := v.EventsAfter(t.Context(), 0, EventFilter{Tenants: []string{"other"}}, 4)
	if err != nil || len(got) != 3 || got[0].Seq != 4 || next != 6 {
		t.Errorf("first piece: %d events, next %d, %v; want the events at 4 to 6", len(got), next, err)
	}
	got, next, err = v.EventsAfter(t.Context(), 0, EventFilter{}, 4)
	if err != nil || len(got) != 4 || next != 4 {
		t.Errorf("a full piece: %d events, next %d, %v; want the events at 1 to 4", len(got), next, err)
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

func TestAtRiskEnds(t *testing.T) {
	t.Parallel()
	v := openView(t, "")
	m := invite(1)
	life := greylistedThenHandedOver(m)
	for _, step := range []struct {
		fact mail.Event
		want bool
	}{{life[0], false}, {mail.NewEvent(m, mail.EventAtRisk, 1, monday.Add(time.Second)), true}, {life[1], true}, {life[2], false}} {
		fill(t, v, step.fact)
		if s, err := v.Summary(t.Context(), m.ID); err != nil || s.AtRisk != step.want {
			t.Errorf("after %s: at risk %v, %v; want %v", step.fact.State, s.AtRisk, err, step.want)
		}
	}
}

func TestEventsAfterInWindows(t *testing.T) {
	t.Parallel()
	v := openView(t, "")
	apply(t, v, []mail.LoggedEvent{
		{Seq: 1, Event: mail.NewEvent(invite(1), mail.StateQueued, 0, monday)},
		{Seq: 25_000, Event: mail.NewEvent(invite(1), mail.StateAccepted, 1, monday)},
	}, 2)
	var ends []uint64
	for after := uint64(0); len(ends) < 4; {
		_, next, err := v.EventsAfter(t.Context(), after, EventFilter{State: mail.StateRefused}, 4)
		if err != nil {
			t.Fatal(err)
		}
		ends, after = append(ends, next), next
	}
	if want := []uint64{10_000, 20_000, 25_000, 25_000}; !slices.Equal(ends, want) {
		t.Errorf("windows end at %v, want %v", ends, want)
	}
}

func TestReadingsUseAnIndex(t *testing.T) {
	t.Parallel()
	v := openView(t, "")
	plan := func(query string, args ...any) (steps string) {
		t.Helper()
		err := v.query(t.Context(), func(rows *sql.Rows) error {
			var id, parent, unused int
			var detail string
			err := rows.Scan(&id, &parent, &unused, &detail)
			steps += detail + "; "
			return err
		}, "EXPLAIN QUERY PLAN "+query, args...)
		if err != nil {
			t.Fatal(err)
		}
		return steps
	}
	for _, where := range []string{
		"id = 'a'", "ref = 'a'", "tenant IN ('a')", "tenant IN ('a') AND state = 'b'", "state = 'b'", "address = 'a'", "person = 'a'",
		"tenant IN ('a') AND id < 'x'",
	} {
		steps := plan("SELECT " + summaryColumns + " FROM messages WHERE " + where + " ORDER BY id DESC LIMIT 9")
		prefix := strings.Contains(where, ">=") || strings.HasPrefix(where, "id =")
		if strings.Contains(steps, "SCAN") || !prefix && strings.Contains(steps, "TEMP B-TREE") {
			t.Errorf("%s: %s", where, steps)
		}
	}
	for _, query := range []string{
		"SELECT seq, fact FROM events WHERE message = 'a' ORDER BY at, seq",
		"SELECT seq, fact FROM events WHERE seq > 1 AND seq <= 9 AND tenant IN ('a') AND state = 'b' ORDER BY seq LIMIT 9",
		"SELECT seq, fact FROM events WHERE seq = (SELECT max(seq) FROM events)",
		"SELECT id FROM messages WHERE id < 'x' AND last_at < 9 ORDER BY id LIMIT 9",
		"SELECT * FROM people p WHERE p.address >= 'a' AND p.address < 'b' LIMIT 9",
		"SELECT * FROM people p WHERE p.folded >= 'a' AND p.folded < 'b' LIMIT 9",
		"SELECT * FROM people p WHERE p.person_id >= 'a' AND p.person_id < 'b' AND p.person_id <> '' LIMIT 9",
		"SELECT * FROM people p WHERE p.address = 'a' AND p.tenant = 'b' LIMIT 9",
	} {
		if steps := plan(query); strings.Contains(steps, "SCAN") {
			t.Errorf("%s: %s", query, steps)
		}
	}
}
