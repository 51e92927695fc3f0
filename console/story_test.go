package console

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with testdata/name.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("%s differs; go test -update writes it anew. Got:\n%s", path, got)
	}
}

// lives are messages in every state that there is, as facts in no order.
func lives() map[string]struct {
	events []mail.Event
	live   Live
} {
	type life = struct {
		events []mail.Event
		live   Live
	}
	m := invite(1)
	pin := invite(2)
	pin.Kind, pin.Template, pin.ExpiresAt = "pin", "pin", monday.Add(15*time.Minute)
	queued, delayed, accepted := three(greylistedThenHandedOver(m))
	at := func(m *mail.Message, s mail.State, attempt int, after time.Duration) mail.Event {
		return mail.NewEvent(m, s, attempt, m.QueuedAt.Add(after))
	}
	refused := at(m, mail.StateRefused, 1, 3*time.Second)
	refused.Cause, refused.Suppress = mail.CauseBadMailbox, true
	refused.Evidence = microsoft(monday, time.Second, mail.StageRcpt,
		mail.Reply{Code: 550, Enhanced: mail.EnhancedCode{5, 1, 10}, Text: "RESOLVER.ADR.RecipientNotFound; not found"})

	unsure := at(pin, mail.StateRefused, 1, 3*time.Second)
	unsure.Cause, unsure.PossibleDuplicate = mail.CauseNetwork, true
	unsure.Evidence = &mail.Evidence{StartedAt: monday, Took: time.Second, Host: "mx.nordlys.example", Stage: mail.StageDot, Error: "connection reset by peer"}

	noRoute := at(m, mail.StateDelayed, 1, 30*time.Second)
	noRoute.Cause = mail.CauseNetwork
	noRoute.Evidence = &mail.Evidence{StartedAt: monday, Took: 30 * time.Second, Host: "mx.nordlys.example", IP: "192.0.2.7", Stage: mail.StageConnect, Error: "connection timed out"}
	noRoute.NextAttempt = monday.Add(90 * time.Second)
	expired := at(m, mail.StateExpired, 4, 7*24*time.Hour)
	expired.Cause = mail.CauseExpired

	superseded := at(pin, mail.StateSuperseded, 0, time.Minute)
	superseded.Cause, superseded.Other = mail.CauseSuperseded, testID(3)
	cancelled := at(m, mail.StateCancelled, 1, 5*time.Minute)
	cancelled.Cause, cancelled.By, cancelled.Reason = mail.CauseCancelled, "anna", "invited the wrong person"
	suppressed := at(m, mail.StateSuppressed, 0, time.Second)
	suppressed.Cause = mail.CauseSuppressed
	returned := at(m, mail.StateReturned, 2, 5*time.Minute)
	returned.Cause = mail.CauseMailboxFull
	returned.Evidence = &mail.Evidence{Reply: &mail.Reply{Code: 552, Enhanced: mail.EnhancedCode{5, 2, 2}, Text: "Mailbox full"}, Host: "exchange.nordlys.example"}
	delayedThere := at(m, mail.StateDelayed, 0, 5*time.Minute)
	delayedThere.Cause, delayedThere.By = mail.CauseNetwork, "dsn"
	delayedThere.Evidence = &mail.Evidence{Reply: &mail.Reply{Code: 451, Enhanced: mail.EnhancedCode{4, 4, 1}, Text: "Connection timed out"}, Host: "exchange.nordlys.example"}
	resent := at(m, mail.EventResent, 2, 6*time.Minute)
	resent.By, resent.Reason, resent.Other = "anna", "customer called", testID(4)
	lifted := at(m, mail.EventLifted, 1, 6*time.Minute)
	lifted.By, lifted.Reason = "anna", "mailbox was made"
	maybeTwice := delayed
	maybeTwice.PossibleDuplicate = true
	late := monday.Add(9*time.Minute + 30*time.Second)

	return map[string]life{
		"queued":      {[]mail.Event{queued}, Live{NextAttempt: clock().Add(time.Second), Schedule: []time.Time{clock().Add(time.Second)}}},
		"sending":     {[]mail.Event{delayed, queued}, Live{Sending: true, Attempt: 2}},
		"delayed":     {[]mail.Event{delayed, queued}, Live{NextAttempt: late.Add(time.Minute), Schedule: []time.Time{late.Add(time.Minute), late.Add(5 * time.Minute), late.Add(time.Hour)}}},
		"held":        {[]mail.Event{queued}, Live{Held: "domain:nordlys.example"}},
		"at_risk":     {[]mail.Event{at(m, mail.EventAtRisk, 1, 4*time.Minute), maybeTwice, queued}, Live{}},
		"accepted":    {[]mail.Event{accepted, queued, delayed}, Live{}},
		"waits_there": {[]mail.Event{delayedThere, accepted, queued}, Live{}},
		"used":        {[]mail.Event{at(m, mail.EventUsed, 0, 8*time.Minute), accepted, queued, delayed}, Live{}},
		"lapsed":      {[]mail.Event{at(m, mail.EventExpiredUnused, 0, 8*time.Minute), at(m, mail.EventWrongPerson, 0, 7*time.Minute), accepted}, Live{}},
		"refused":     {[]mail.Event{lifted, refused, queued}, Live{}},
		"unsure":      {[]mail.Event{unsure, mail.NewEvent(pin, mail.StateQueued, 0, monday)}, Live{}},
		"expired":     {[]mail.Event{noRoute, expired, queued}, Live{}},
		"lapsed_now":  {[]mail.Event{expired}, Live{}},
		"superseded":  {[]mail.Event{superseded, mail.NewEvent(pin, mail.StateQueued, 0, monday)}, Live{}},
		"cancelled":   {[]mail.Event{queued, delayed, cancelled}, Live{}},
		"suppressed":  {[]mail.Event{suppressed, queued}, Live{}},
		"returned":    {[]mail.Event{returned, resent, accepted, delayed, queued}, Live{}},
		"complained":  {[]mail.Event{at(m, mail.StateComplained, 2, 9*time.Minute), accepted}, Live{}},
		"strange":     {[]mail.Event{at(m, "of_next_year", 0, 0)}, Live{}},
	}
}

func three(e []mail.Event) (a, b, c mail.Event) { return e[0], e[1], e[2] }

// factsOf folds events as the view does.
func factsOf(events []mail.Event) Facts {
	var s standing
	for i, e := range events {
		s.fold(mail.LoggedEvent{Seq: uint64(i + 1), Event: e})
	}
	return Facts{Summary: s.Summary, Events: events}
}

func TestTell(t *testing.T) {
	t.Parallel()
	for name, life := range lives() {
		for _, lang := range languages {
			t.Run(name+"/"+lang, func(t *testing.T) {
				t.Parallel()
				m := Tell(factsOf(life.events), Telling{Lang: lang, Now: clock(), Live: life.live})
				golden(t, "story/"+name+"."+lang+".txt", []byte(readable(m)))
				checkHonest(t, m)
			})
		}
	}
}

// readable is a story as one would read it out.
func readable(m Message) string {
	var b strings.Builder
	line := func(name, text string) {
		if text != "" {
			b.WriteString(name + ": " + text + "\n")
		}
	}
	line("state", string(m.State))
	line("verdict", m.Verdict)
	line("who acts", m.WhoActsText)
	line("next step", m.NextStep)
	line("ahead", m.Ahead)
	line("reply", m.Reply)
	for _, l := range m.Story {
		b.WriteString("- " + l.At.Format("15:04:05") + " (" + l.Ago + ") " + string(l.State) + ": " + l.Text + "\n")
	}
	for _, a := range m.Attempts {
		b.WriteString("# " + string(a.State) + " " + string(a.Cause) + "\n")
	}
	return b.String()
}

var unfilled = regexp.MustCompile(`[{}\[\]]|%!|  `)

// checkHonest holds a story against law 8, and against phrases left unfilled.
func checkHonest(t *testing.T, m Message) {
	t.Helper()
	texts := []string{m.Verdict, m.NextStep, m.Ahead, m.WhoActsText}
	for _, l := range m.Story {
		texts = append(texts, l.Text)
	}
	for _, text := range texts {
		if strings.Contains(strings.ToLower(text), "delivered") || strings.Contains(strings.ToLower(text), "toimitettu") {
			t.Errorf("dishonest: %q", text)
		}
		if unfilled.MatchString(text) {
			t.Errorf("unfilled: %q", text)
		}
	}
	if m.Verdict == "" || m.WhoActsText == "" || m.NextStep == "" {
		t.Errorf("verdict %q, who acts %q, next step %q: none may be empty", m.Verdict, m.WhoActsText, m.NextStep)
	}
	if m.State.Open() && m.Ahead == "" {
		t.Error("nothing is said of what happens next")
	}
}

func TestMessageJSON(t *testing.T) {
	t.Parallel()
	life := lives()["delayed"]
	m := Tell(factsOf(life.events), Telling{Now: clock(), Live: life.live})
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "message.json", append(b, '\n'))
	var back Message
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	again, _ := json.MarshalIndent(back, "", "  ")
	if string(again) != string(b) {
		t.Errorf("the command line would read:\n%s", again)
	}
}

// Every language has the same phrases with the same placeholders.
func TestLanguagesAreComplete(t *testing.T) {
	t.Parallel()
	placeholder := regexp.MustCompile(`\{[a-z_]+\}`)
	all := loadPhrases()
	for _, lang := range languages[1:] {
		for name, en := range all["en"] {
			other, ok := all[lang][name]
			if !ok {
				t.Errorf("%s lacks %q", lang, name)
				continue
			}
			uses := map[string]bool{}
			for _, p := range placeholder.FindAllString(en, -1) {
				uses[p] = true
			}
			for _, p := range placeholder.FindAllString(other, -1) {
				if !uses[p] {
					t.Errorf("%s: %q uses %s, which English does not", lang, name, p)
				}
				delete(uses, p)
			}
			for p := range uses {
				t.Errorf("%s: %q leaves out %s", lang, name, p)
			}
		}
		if len(all[lang]) != len(all["en"]) {
			t.Errorf("%s has %d phrases, English %d", lang, len(all[lang]), len(all["en"]))
		}
	}
}

func TestTimesInWords(t *testing.T) {
	t.Parallel()
	w := newWords("en", monday, nil)
	for _, c := range []struct {
		after time.Duration
		want  string
	}{
		{0, "just now"},
		{-900 * time.Millisecond, "just now"},
		{-time.Second, "1 second ago"},
		{-90 * time.Second, "90 seconds ago"},
		{-119 * time.Second, "119 seconds ago"},
		{-119600 * time.Millisecond, "2 minutes ago"},
		{11 * time.Minute, "in 11 minutes"},
		{-119 * time.Minute, "119 minutes ago"},
		{-(119*time.Minute + 45*time.Second), "2 hours ago"},
		{47 * time.Hour, "in 47 hours"},
		{48 * time.Hour, "in 2 days"},
		{7 * 24 * time.Hour, "in 7 days"},
	} {
		if got := w.ago(monday.Add(c.after)); got != c.want {
			t.Errorf("%v from now: %q, want %q", c.after, got, c.want)
		}
	}
	if got := newWords("fi-FI", monday, time.FixedZone("EET", 2*3600)).clock(monday); got != "klo 11.14.05" {
		t.Errorf("Finnish clock: %q", got)
	}
	if got := w.clock(monday.AddDate(0, 0, 1)); got != "Tue 3 Mar 09:14" {
		t.Errorf("tomorrow: %q", got)
	}
	if got := w.clock(monday.AddDate(1, 0, 0)); got != "2 Mar 2027 09:14" {
		t.Errorf("next year: %q", got)
	}
}
