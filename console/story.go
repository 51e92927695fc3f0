package console

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/deliverd/deliverd/bounces"
	"github.com/deliverd/deliverd/mail"
)

// Telling is how a story is told.
type Telling struct {
	Lang string         // "fi", "fi-FI"; English for what isn't known
	Zone *time.Location // of the times in sentences; nil means UTC
	Now  time.Time
	// Live is what the queue knows of the message beyond its facts; the zero value
	// where it has ended or the queue isn't asked.
	Live Live
	// Incidents are those that the message's trouble may be part of, as [View.Incidents]
	// has them.
	Incidents []Incident
}

// Tell tells one message's facts in plain sentences. It never says "delivered": a
// server took the mail, or the person used it, and nobody knows more (law 8).
func Tell(f Facts, t Telling) Message {
	n := &narrator{words: newWords(t.Lang, t.Now, t.Zone), facts: &f, live: t.Live}
	m := Message{Summary: f.Summary, Lang: n.lang, TimeZone: n.zone.String(), Story: []Line{}, Attempts: []Attempt{}}
	if m.State.Open() && n.live.Sending {
		m.State = mail.StateSending
	}
	if m.State.Open() && !n.live.NextAttempt.IsZero() {
		m.NextAttempt = n.live.NextAttempt
	}
	for _, e := range inOrder(f.Events) {
		m.Story = append(m.Story, Line{At: e.At, State: e.State, Text: n.line(e), Ago: n.ago(e.At)})
		if a, ok := n.attempt(e); ok {
			m.Attempts = append(m.Attempts, a)
		}
		if m.Tags == nil {
			m.Tags = e.Tags
		}
		if m.Metadata == nil {
			m.Metadata = e.Metadata
		}
	}
	m.Verdict = n.verdict(m.State)
	n.advise(&m)
	n.tellWider(&m, t)
	if m.State.Open() {
		m.Ahead = n.ahead(m.State, m.NextAttempt)
		m.Schedule = n.live.Schedule
	}
	return m
}

// inOrder sorts facts as they happened. Where two have the same time, as the end of
// an attempt and what it makes of the message do, the one that settles less comes
// first.
func inOrder(events []mail.Event) []mail.Event {
	events = slices.Clone(events)
	slices.SortStableFunc(events, func(a, b mail.Event) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Attempt, b.Attempt), cmp.Compare(rank(a.State), rank(b.State)))
	})
	return events
}

// narrator tells one message.
type narrator struct {
	words
	facts *Facts
	live  Live
}

// sentences joins those that there are.
func sentences(all ...string) string {
	return strings.Join(slices.DeleteFunc(all, func(s string) bool { return s == "" }), " ")
}

// line tells one fact, with the words of servers.
func (n *narrator) line(e mail.Event) string {
	switch e.State {
	case mail.StateDelayed:
		if delayedThere(e) {
			return sentences(n.fill("line.delayed_there", e), n.said(e))
		}
		return sentences(n.fill("line.delayed", e), n.said(e), n.duplicate(e), n.next(e))
	case mail.StateRefused, mail.StateReturned, mail.StateExpired:
		return sentences(n.plainLine(e), n.said(e))
	}
	return n.plainLine(e)
}

// plainLine tells one fact without the words of servers.
func (n *narrator) plainLine(e mail.Event) string {
	switch e.State {
	case mail.StateQueued:
		name := "line.queued"
		if e.Source != "" {
			name = "line.queued.source"
		}
		return n.fill(name, e)
	case mail.StateDelayed:
		return sentences(n.fill("line.delayed", e), n.duplicate(e), n.next(e))
	case mail.StateAccepted:
		known := ""
		if e.Evidence != nil && e.Evidence.QueueID != "" {
			known = n.say("line.queue_id", "queue_id", e.Evidence.QueueID)
		}
		return sentences(n.fill("line.accepted", e), known, n.downgrade(e.Evidence))
	case mail.StateRefused:
		if e.PossibleDuplicate {
			return n.fill("line.refused.unknown_end", e)
		}
	case mail.StateSuperseded:
		if e.Other == "" {
			return n.fill("line.superseded.unknown", e)
		}
	}
	name := "line." + string(e.State)
	if !n.has(name) {
		name = "line.other"
	}
	return sentences(n.fill(name, e), n.reason(e))
}

// fill says a phrase about a fact.
func (n *narrator) fill(name string, e mail.Event) string {
	by := e.By
	if by == "" {
		by = n.say("somebody")
	}
	to := "server"
	if strings.HasSuffix(name, string(mail.StateAccepted)) {
		to = "server.to" // the place of the hand-over, which Finnish inflects
	}
	return n.say(name, "kind", n.kind(e.Kind), "to", string(e.To), "source", e.Source, "by", by,
		"expires", n.clock(e.ExpiresAt), "time", n.clock(e.At), "ago", n.ago(e.At), "n", strconv.Itoa(e.Attempt),
		"plain", n.plain(e), "server", n.server(to, e), "other", string(e.Other.Ref()), "state", string(e.State))
}

func (n *narrator) kind(kind string) string {
	if name := "kind." + kind; kind != "other" && n.has(name) {
		return n.say(name)
	}
	return n.say("kind.other", "name", kind)
}

// server names the recipient's mail server as people know it: by the domain in the
// address, and by its provider. Its host name is in the evidence.
func (n *narrator) server(phrase string, e mail.Event) string {
	provider := n.providerName(e)
	if provider == "" {
		return n.say(phrase, "domain", e.To.Domain())
	}
	return n.say(phrase+".provider", "domain", e.To.Domain(), "provider", provider)
}

func (n *narrator) providerName(e mail.Event) string {
	if e.Evidence == nil || e.Evidence.Provider == "" {
		return ""
	}
	return bounces.ProviderName(e.Evidence.Provider)
}

// explain returns what the catalogue says of the fact's cause.
func (n *narrator) explain(e mail.Event) bounces.Explanation {
	said := ""
	if e.Evidence != nil && e.Evidence.Reply != nil {
		said = e.Evidence.Reply.String()
	}
	return bounces.Explain(e.Cause, n.lang).Fill(bounces.Facts{
		To: string(e.To), Domain: e.To.Domain(), Provider: n.providerName(e), Time: e.At.In(n.zone), Said: said, Ref: string(e.Ref),
	})
}

func (n *narrator) plain(e mail.Event) string {
	if e.Cause == "" {
		return n.say("own_plain")
	}
	return n.explain(e).Plain
}

// said quotes the server, or says what was seen instead of an answer.
func (n *narrator) said(e mail.Event) string {
	switch ev := e.Evidence; {
	case ev == nil:
		return ""
	case ev.Reply != nil:
		host := ev.Host
		if host == "" {
			host = e.To.Domain()
		}
		return n.say("line.said", "host", host, "reply", ev.Reply.String())
	case n.tlsFailed(ev):
		return n.tls(ev)
	case ev.Error != "":
		return n.say("line.error", "error", strings.TrimRight(ev.Error, ".")) // the phrase ends in one
	}
	return ""
}

func (n *narrator) duplicate(e mail.Event) string {
	if !e.PossibleDuplicate {
		return ""
	}
	return n.say("line.duplicate")
}

func (n *narrator) reason(e mail.Event) string {
	if e.Reason == "" {
		return ""
	}
	return n.say("line.reason", "reason", e.Reason)
}

func (n *narrator) next(e mail.Event) string {
	if e.NextAttempt.IsZero() {
		return n.say("line.last")
	}
	return n.say("line.next", "time", n.clock(e.NextAttempt), "span", n.span(e.NextAttempt.Sub(e.At)))
}

// delayedThere reports whether the fact is a delay notice of a server that had taken
// the mail: our own attempts begin at 1.
func delayedThere(e mail.Event) bool { return e.State == mail.StateDelayed && e.Attempt == 0 }

// attempt returns the attempt that the fact ended, if it ended one.
func (n *narrator) attempt(e mail.Event) (Attempt, bool) {
	if delayedThere(e) {
		return Attempt{}, false
	}
	switch e.State {
	case mail.StateDelayed, mail.StateAccepted, mail.StateRefused:
	case mail.StateExpired, mail.StateSuperseded, mail.StateCancelled:
		if e.Evidence == nil || e.Evidence.StartedAt.IsZero() {
			return Attempt{}, false // it ended while waiting
		}
	default:
		return Attempt{}, false
	}
	a := Attempt{
		Number: e.Attempt, State: e.State, At: e.At, Cause: e.Cause, NextAttempt: e.NextAttempt,
		PossibleDuplicate: e.PossibleDuplicate, Evidence: e.Evidence,
	}
	if e.Cause != "" {
		a.Plain = n.explain(e).Plain
	}
	return a, true
}
