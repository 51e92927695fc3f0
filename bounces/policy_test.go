package bounces

import (
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

func at(hours int) time.Time { return testNow.Add(time.Duration(hours) * time.Hour) }

func TestSuppress(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		event mail.Event
		cause mail.Cause // "" for none
		until time.Time
	}{
		{"a final refusal of the address", mail.Event{State: mail.StateRefused, Cause: mail.CauseBadMailbox, Suppress: true}, mail.CauseBadMailbox, at(24)},
		{"the same, mailed back", mail.Event{State: mail.StateReturned, Cause: mail.CauseInactiveMailbox, Suppress: true}, mail.CauseInactiveMailbox, at(24)},
		{"null MX", mail.Event{State: mail.StateRefused, Cause: mail.CauseNullMX}, mail.CauseNullMX, time.Time{}},
		{"a complaint", mail.Event{State: mail.StateComplained}, mail.CauseComplaint, time.Time{}},
		{"a refusal that says not to", mail.Event{State: mail.StateRefused, Cause: mail.CauseBadMailbox}, "", time.Time{}},
		{"a policy, whatever it says", mail.Event{State: mail.StateRefused, Cause: mail.CausePolicy, Suppress: true}, "", time.Time{}},
		{"spam", mail.Event{State: mail.StateReturned, Cause: mail.CauseSpam, Suppress: true}, "", time.Time{}},
		{"a delay", mail.Event{State: mail.StateDelayed, Cause: mail.CauseBadMailbox, Suppress: true}, "", time.Time{}},
		{"an expiry", mail.Event{State: mail.StateExpired, Cause: mail.CauseBadMailbox, Suppress: true}, "", time.Time{}},
	}
	for _, test := range tests {
		e := test.event
		e.At, e.Tenant, e.To, e.Message = at(0), "4711", "a@b.example", "msg_1"
		e.Evidence = &mail.Evidence{Reply: &mail.Reply{Code: 550, Text: "no"}}
		s, ok := Suppress(e)
		if ok != (test.cause != "") {
			t.Errorf("%s: suppressed %v", test.name, ok)
			continue
		}
		want := mail.Suppression{Tenant: "4711", Address: "a@b.example", Cause: test.cause, Since: at(0), Until: test.until, By: "deliverd", Message: "msg_1", Reply: "550 no"}
		if ok && s != want {
			t.Errorf("%s: %+v, want %+v", test.name, s, want)
		}
	}
	if _, ok := Suppress(mail.Event{State: mail.StateComplained, At: at(0)}); ok {
		t.Error("suppressed nobody's address")
	}
}

// A Standing does not depend on the order in which events come.
func TestStandingOrder(t *testing.T) {
	t.Parallel()
	refused := mail.Event{State: mail.StateRefused, Cause: mail.CauseBadMailbox, Suppress: true, To: "a@b.example", At: at(0)}
	lifted := mail.Event{State: mail.EventLifted, To: "a@b.example", At: at(2), By: "Kari", Reason: "fixed"}
	again := refused
	again.At = at(4)
	complained := mail.Event{State: mail.StateComplained, To: "a@b.example", At: at(5)}
	same := complained
	same.At = again.At
	tests := []struct {
		name   string
		events []mail.Event
		at     []int // hours at which it is suppressed, of 1, 3, 5, 27, 29
	}{
		{"nothing", nil, nil},
		{"refused", []mail.Event{refused}, []int{1, 3, 5}},
		{"refused and lifted", []mail.Event{refused, lifted}, nil},
		{"lifted and refused again", []mail.Event{refused, lifted, again}, []int{5, 27}},
		{"a complaint stays", []mail.Event{refused, lifted, again, complained}, []int{5, 27, 29}},
		{"the longer one of an instant", []mail.Event{again, same}, []int{5, 27, 29}},
	}
	for _, test := range tests {
		for _, order := range permutations(test.events) {
			var s Standing
			for _, e := range order {
				s.Apply(e)
				s.Apply(e) // twice changes nothing
			}
			for _, h := range []int{1, 3, 5, 27, 29} {
				want := false
				for _, w := range test.at {
					want = want || w == h
				}
				if got := s.At(at(h)); (got != nil) != want {
					t.Errorf("%s, at %d h: %+v, want suppressed %v", test.name, h, got, want)
				}
			}
		}
	}
	var s Standing
	s.Apply(refused)
	s.Apply(mail.Event{State: mail.EventLifted, At: refused.At})
	if s.At(at(1)) != nil {
		t.Error("lifted at the instant of the suppression, and still suppressed")
	}
}

func permutations(events []mail.Event) [][]mail.Event {
	if len(events) == 0 {
		return [][]mail.Event{nil}
	}
	var all [][]mail.Event
	for i := range events {
		rest := append(append([]mail.Event(nil), events[:i]...), events[i+1:]...)
		for _, p := range permutations(rest) {
			all = append(all, append([]mail.Event{events[i]}, p...))
		}
	}
	return all
}
