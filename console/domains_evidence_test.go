package console

import (
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// mailTo is a message to a domain that ended in a state after a time.
func mailTo(n int, tenant, to string, queued time.Time, state mail.State, after time.Duration) []mail.Event {
	m := invite(n)
	m.Tenant, m.To, m.PersonID, m.QueuedAt = tenant, mail.Address(to), "", queued
	end := mail.NewEvent(m, state, 1, queued.Add(after))
	end.Evidence = microsoft(queued, after, mail.StageRcpt, mail.Reply{Code: 250, Text: "queued as 1"})
	switch state {
	case mail.StateAccepted:
		if n%4 == 0 {
			end.Evidence.TLS = nil
		}
	case mail.StateRefused, mail.StateReturned:
		end.Cause = mail.CausePolicy
		end.Evidence.Reply = &mail.Reply{Code: 550, Enhanced: mail.EnhancedCode{5, 7, 1}, Text: fmt.Sprintf("<%s>: refused by rule %d for boss@corp.example", to, n/2)}
	case mail.StateExpired:
		end.Cause = mail.CauseTimeout
		end.Evidence = nil
	}
	return []mail.Event{mail.NewEvent(m, mail.StateQueued, 0, queued), end}
}

func TestDomainHistory(t *testing.T) {
	t.Parallel()
	now := monday.Add(40 * 24 * time.Hour)
	v, err := OpenView(t.Context(), ViewOptions{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	lately := now.Add(-29 * 24 * time.Hour)
	var events []mail.Event
	add := func(tenant, to string, queued time.Time, state mail.State, after time.Duration) {
		events = append(events, mailTo(len(events)/2, tenant, to, queued, state, after)...)
	}
	for i := range 10 {
		add("one", "Kari@Nordlys.example", lately.Add(time.Duration(i)*time.Hour), mail.StateAccepted, time.Duration(i+1)*time.Second)
	}
	for i := range 8 {
		add("two", "lars@nordlys.example", lately.Add(time.Duration(i)*time.Hour), mail.StateRefused, time.Second)
	}
	add("one", "kari@nordlys.example", lately, mail.StateReturned, time.Hour)
	add("one", "kari@nordlys.example", lately, mail.StateExpired, time.Hour)
	add("one", "kari@nordlys.example", lately, mail.StateCancelled, time.Hour)
	add("one", "kari@nordlys.example", now.Add(-31*24*time.Hour), mail.StateRefused, time.Hour) // too long ago
	add("one", "kari@sub.nordlys.example", lately, mail.StateRefused, time.Hour)                // others'
	add("one", "kari@othernordlys.example", lately, mail.StateRefused, time.Hour)
	fill(t, v, events...)

	h, err := v.DomainHistory(t.Context(), "nordlys.example", nil)
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(h.Since.Equal(lately), h.Accepted, h.Refused, h.Delayed, h.Causes, h.TypicalDelayMS, h.SlowDelayMS, h.TLS)
	if want := "true 10 9 1 map[policy:9 timeout:1] 5000 9000 map[TLS 1.3:7 none:3]"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if len(h.LastReplies) != historyReplies || h.LastReplies[0] != "550 5.7.1 <…@…>: refused by rule 8 for …@…" || strings.Contains(strings.Join(h.LastReplies, ""), "lars") {
		t.Errorf("%q", h.LastReplies)
	}
	for tenants, want := range map[string]string{"one": "10 1", "two": "0 8", "one two": "10 9", "none": "-", "": "-"} {
		h, err := v.DomainHistory(t.Context(), "nordlys.example", strings.Fields(tenants))
		got := "-"
		if h != nil {
			got = fmt.Sprint(h.Accepted, h.Refused)
		}
		if err != nil || got != want {
			t.Errorf("tenants %q: %s %v, want %s", tenants, got, err, want)
		}
	}
}

// A report must not read a whole table: it is asked for while mail is being worked on.
func TestDomainHistoryUsesItsIndex(t *testing.T) {
	t.Parallel()
	v := openView(t, "")
	where, args := v.lately("nordlys.example", []string{"one"}, 1)
	var plan []string
	err := v.query(t.Context(), func(rows *sql.Rows) error {
		var id, parent, unused int
		var step string
		err := rows.Scan(&id, &parent, &unused, &step)
		plan = append(plan, step)
		return err
	}, "EXPLAIN QUERY PLAN SELECT state FROM messages WHERE "+where, args...)
	if err != nil || len(plan) != 1 || !strings.Contains(plan[0], "messages_domain") {
		t.Errorf("%q %v", plan, err)
	}
}
