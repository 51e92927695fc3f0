package sample

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// What is told of the past leaves nothing open: the queue knows nothing of it, and a
// message that neither waits nor ended is an alarm (law 2).
func TestPastHasEnded(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 26, 9, 14, 0, 0, time.UTC)
	ended, states := map[mail.ID]int{}, map[mail.State]int{}
	seen := map[string]bool{}
	var last time.Time
	for _, e := range Past(now) {
		if e.At.After(now) || e.At.Before(last) {
			t.Errorf("%s %s at %s: after now, or out of order", e.Message, e.State, e.At)
		}
		if seen[e.ID] {
			t.Errorf("%s is there twice", e.ID)
		}
		seen[e.ID], last = true, e.At
		ended[e.Message] += 0
		if e.State.Terminal() {
			ended[e.Message]++
		}
		states[e.State]++
		checkMadeUp(t, string(e.To), e.Tags)
		if e.Evidence != nil && (e.Evidence.Host == "" || !strings.HasSuffix(e.Evidence.Host, ".example")) {
			t.Errorf("%s: host %q", e.To, e.Evidence.Host)
		}
		if v := e.Evidence; v != nil && v.Reply != nil && v.Stage != "" {
			if said := v.Conversation; len(said) == 0 || said[len(said)-1].Reply != v.Reply.String() {
				t.Errorf("%s %s at %s: the conversation %v does not end with %s", e.To, e.State, v.Stage, said, v.Reply)
			}
		}
	}
	for id, n := range ended {
		if n != 1 {
			t.Errorf("%s ended %d times", id, n)
		}
	}
	for _, s := range []mail.State{mail.StateDelayed, mail.StateAccepted, mail.StateRefused, mail.StateExpired, mail.StateSuperseded,
		mail.StateReturned, mail.EventUsed, mail.EventExpiredUnused, mail.EventWrongPerson} {
		if states[s] == 0 {
			t.Errorf("nothing shows %q", s)
		}
	}
}

func TestPresentIsMadeUp(t *testing.T) {
	t.Parallel()
	for _, a := range Present() {
		switch {
		case a.Send != nil:
			checkMadeUp(t, a.Send.To, a.Send.Tags)
		case a.Suppress != nil && a.Suppress.Reason == "", a.Pause != "" && a.Reason == "":
			t.Errorf("%+v: no reason", a)
		}
	}
	if rules, err := Servers(); err != nil || len(rules) == 0 {
		t.Errorf("%d servers, %v", len(rules), err)
	}
}

func checkMadeUp(t *testing.T, address string, tags []string) {
	t.Helper()
	if a, err := mail.ParseAddress(address); err != nil || !strings.HasSuffix(a.Domain(), ".example") || !slices.Contains(tags, Tag) {
		t.Errorf("%q with tags %v: %v", address, tags, err)
	}
}
