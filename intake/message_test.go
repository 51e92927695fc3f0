package intake

import (
	"strings"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

func TestOutcomes(t *testing.T) {
	t.Parallel()
	in, s := build(t)
	h := mux(in)
	r := decodeAs[mail.Receipt](t, post(h, "/v1/messages", good).Body.Bytes())
	later := noon.Add(time.Minute)
	for _, c := range []struct {
		name, body string
		status     int
		at         time.Time
	}{
		{"by id", `{"message":"` + string(r.ID) + `","outcome":"used"}`, 200, noon},
		{"by ref, as people write it", `{"ref":"` + strings.ToLower(strings.Replace(string(r.Ref), "-", " ", 1)) + `","outcome":"wrong_person"}`, 200, noon},
		{"a ref as message", `{"message":"` + string(r.Ref) + `","outcome":"expired_unused","at":"` + later.Format(time.RFC3339) + `"}`, 200, later},
		{"no message", `{"outcome":"used"}`, 400, noon},
		{"two names", `{"message":"` + string(r.ID) + `","ref":"` + string(r.Ref) + `","outcome":"used"}`, 400, noon},
		{"neither id nor ref", `{"message":"U","outcome":"used"}`, 400, noon},
		{"a state of ours", `{"message":"` + string(r.ID) + `","outcome":"accepted"}`, 400, noon},
		{"no outcome", `{"message":"` + string(r.ID) + `"}`, 400, noon},
		{"before the message", `{"message":"` + string(r.ID) + `","outcome":"used","at":"1970-01-01T00:00:00Z"}`, 400, noon},
		{"D17 in 9999", `{"message":"` + string(r.ID) + `","outcome":"used","at":"9999-12-31T00:00:00Z"}`, 400, noon},
		{"unknown message", `{"ref":"0000-0000","outcome":"used"}`, 404, noon},
		{"unknown field", `{"message":"` + string(r.ID) + `","outcome":"used","comment":""}`, 400, noon},
	} {
		s.events = nil
		w := post(h, "/v1/outcomes", c.body)
		if w.Code != c.status {
			t.Errorf("%s: %d %s", c.name, w.Code, w.Body)
			continue
		}
		if c.status != 200 {
			if len(s.events) != 0 {
				t.Errorf("%s: recorded %+v", c.name, s.events)
			}
			continue
		}
		n := decodeAs[Noted](t, w.Body.Bytes())
		if len(s.events) != 1 {
			t.Fatalf("%s: recorded %+v", c.name, s.events)
		}
		e := s.events[0]
		if e.ID != mail.EventID(r.ID, n.Outcome, 0) || e.State != n.Outcome || e.By != "login" || e.Tenant != "4711" ||
			!e.At.Equal(c.at) || !n.At.Equal(c.at) || n.ID != r.ID {
			t.Errorf("%s: recorded %+v, answered %+v", c.name, e, n)
		}
	}
}

// A reference that two messages share is only ambiguous among those that the caller
// may see.
func TestSharedReference(t *testing.T) {
	t.Parallel()
	in, s := build(t)
	s.messages = []mail.Message{
		{ID: "msg_0195b1a0-0000-7000-8000-000000000001", Ref: "AAAA-AAAA", Tenant: "a", QueuedAt: noon},
		{ID: "msg_0195b1a0-0000-7000-8000-000000000002", Ref: "AAAA-AAAA", Tenant: "b", QueuedAt: noon},
	}
	report := Report{Name: Name{Ref: "AAAA-AAAA"}, Outcome: mail.EventUsed}
	if n, err := in.Outcome(t.Context(), Caller{Tenants: []string{"b"}}, report); err != nil || n.ID != s.messages[1].ID {
		t.Errorf("caller of one: %+v, %v", n, err)
	}
	if _, err := in.Outcome(t.Context(), everyone, report); err == nil || !strings.Contains(err.Error(), "by its id") {
		t.Errorf("caller of both: %v", err)
	}
}
