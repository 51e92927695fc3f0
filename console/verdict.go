package console

import (
	"strconv"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// deciding returns the fact that decided the message's state.
func (n *narrator) deciding() mail.Event { return n.latest(n.facts.State) }

// latest returns the fact of one state with the highest attempt; where there is none
// any more, one made from the summary.
func (n *narrator) latest(state mail.State) mail.Event {
	s := &n.facts.Summary
	found := mail.Event{
		At: s.ChangedAt, State: state, Message: s.ID, Ref: s.Ref, Kind: s.Kind, Tenant: s.Tenant, To: s.To,
		QueuedAt: s.QueuedAt, ExpiresAt: s.ExpiresAt, Attempt: -1, Cause: s.Cause,
	}
	for _, e := range n.facts.Events {
		if e.State == state && e.Attempt > found.Attempt {
			found = e
		}
	}
	found.Attempt = max(found.Attempt, 0)
	return found
}

// happened reports whether there is a fact of this sort.
func (n *narrator) happened(state mail.State) bool {
	for _, e := range n.facts.Events {
		if e.State == state {
			return true
		}
	}
	return false
}

// verdict is where the message stands, in one sentence.
func (n *narrator) verdict(state mail.State) string {
	e := n.deciding()
	switch state {
	case mail.StateQueued:
		return n.say("verdict.queued", "time", n.clock(n.facts.QueuedAt), "ago", n.ago(n.facts.QueuedAt))
	case mail.StateSending:
		e.Attempt = n.live.Attempt
		return n.fill("verdict.sending", e)
	case mail.StateDelayed:
		return n.say("verdict.delayed", "n", n.countAttempts(e.Attempt), "plain", n.plain(e))
	case mail.StateRefused:
		if e.PossibleDuplicate {
			return n.fill("verdict.refused.unknown_end", e)
		}
	case mail.StateExpired:
		if n.happened(mail.StateDelayed) {
			held := n.latest(mail.StateDelayed)
			return n.say("verdict.expired.cause", "time", n.clock(e.At), "ago", n.ago(e.At), "plain", n.plain(held))
		}
	case mail.StateReturned:
		if n.happened(mail.StateAccepted) && e.Evidence == nil {
			e.Evidence = n.latest(mail.StateAccepted).Evidence
		}
	case mail.StateAccepted:
		if n.happened(mail.EventUsed) {
			used := n.latest(mail.EventUsed)
			return n.say("verdict.used", "time", n.clock(used.At), "ago", n.ago(used.At))
		}
	}
	return n.fill("verdict."+string(state), e)
}

func (n *narrator) countAttempts(number int) string {
	if number == 1 {
		return n.say("attempts.one")
	}
	return n.say("attempts.many", "n", strconv.Itoa(number))
}

// advise fills in who acts, what they do and what to answer.
func (n *narrator) advise(m *Message) {
	e := n.deciding()
	m.WhoActs = mail.ActNobody
	switch m.State {
	case mail.StateQueued, mail.StateSending:
		m.NextStep = n.say("step.queued")
	case mail.StateDelayed:
		// A delay is ours to sit out. The catalogue's advice is for one that lasts: it
		// counts once the message is at risk.
		m.NextStep = n.say("step.delayed")
		if m.AtRisk {
			n.adviseByCause(m, e)
		}
	case mail.StateAccepted:
		n.adviseAccepted(m, e)
	case StateUnknown:
		m.WhoActs, m.NextStep = mail.ActSupport, n.say("step.unknown")
	default:
		n.adviseByCause(m, e)
	}
	m.WhoActsText = n.say("who." + string(m.WhoActs))
}

func (n *narrator) adviseAccepted(m *Message, e mail.Event) {
	if n.happened(mail.EventUsed) {
		m.NextStep = n.say("step.used")
		return
	}
	m.WhoActs = mail.ActPerson
	name, id := "step.accepted", ""
	if e.Evidence != nil && e.Evidence.QueueID != "" {
		name, id = "step.accepted.queue_id", e.Evidence.QueueID
	}
	m.NextStep = n.say(name, "server", n.server("server", e), "queue_id", id)
}

func (n *narrator) adviseByCause(m *Message, e mail.Event) {
	if e.State == mail.StateRefused && e.PossibleDuplicate {
		m.WhoActs, m.NextStep = mail.ActPerson, n.say("step.unsure")
		return
	}
	// In the catalogue, "expired" is what a server further on says of a mail that it
	// took; what expires here was not useful in time.
	if e.State == mail.StateExpired {
		e.Cause = mail.CauseNotUsefulInTime
	}
	if e.Cause == "" {
		e.Cause = causeOf(e.State)
	}
	x := n.explain(e)
	m.WhoActs, m.NextStep, m.Reply = x.Who, x.NextStep, x.Reply
}

// causeOf is the cause that a state has by itself.
func causeOf(s mail.State) mail.Cause {
	switch s {
	case mail.StateSuperseded:
		return mail.CauseSuperseded
	case mail.StateCancelled:
		return mail.CauseCancelled
	case mail.StateSuppressed:
		return mail.CauseSuppressed
	}
	return mail.CauseUnknown
}

// ahead is what happens next by itself, and why it ends when it does.
func (n *narrator) ahead(state mail.State, next time.Time) string {
	expires := n.clock(n.facts.ExpiresAt)
	switch {
	case n.live.Held != "":
		return n.say("ahead.held", "selector", n.live.Held)
	case state == mail.StateSending:
		return n.say("ahead.until", "expires", expires)
	case next.IsZero():
		return n.say("ahead.none", "expires", expires)
	}
	when := n.say("ahead.due")
	if next.After(n.now) {
		when = n.say("ahead.next", "time", n.clock(next), "ago", n.ago(next))
	}
	switch more := len(n.live.Schedule) - 1; {
	case more < 0: // the schedule isn't known
		return sentences(when, n.say("ahead.until", "expires", expires))
	case more == 0:
		return sentences(when, n.say("ahead.last", "expires", expires))
	case more == 1:
		return sentences(when, n.say("ahead.more.one", "expires", expires))
	default:
		return sentences(when, n.say("ahead.more.many", "n", strconv.Itoa(more), "expires", expires))
	}
}
