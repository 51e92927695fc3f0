package console

import (
	"slices"
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
	if reported := n.reported(state); reported != "" {
		return n.verdictReported(reported)
	}
	switch state {
	case mail.StateQueued:
		return n.say("verdict.queued", "time", n.clock(n.facts.QueuedAt), "ago", n.ago(n.facts.QueuedAt))
	case mail.StateSending:
		e.Attempt = n.live.Attempt
		return n.fill("verdict.sending", e)
	case mail.StateDelayed:
		return n.say("verdict.delayed", "n", n.countAttempts(e.Attempt), "plain", n.plain(e))
	case mail.StateAccepted:
		if i := slices.IndexFunc(n.facts.Events, delayedThere); i >= 0 {
			return sentences(n.fill("verdict.accepted", e), n.fill("line.delayed_there", n.facts.Events[i]))
		}
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
	}
	return n.fill("verdict."+string(state), e)
}

// reported is what the auth service reported that says more than the message's own
// state, "" if nothing does. What somebody used has arrived, whatever its server
// said of it.
func (n *narrator) reported(state mail.State) mail.State {
	switch {
	case n.happened(mail.EventUsed):
		return mail.EventUsed
	case n.happened(mail.EventWrongPerson):
		return mail.EventWrongPerson
	case n.happened(mail.EventExpiredUnused) && state == mail.StateAccepted:
		return mail.EventExpiredUnused
	}
	return ""
}

func (n *narrator) verdictReported(reported mail.State) string {
	e := n.latest(reported)
	handed := n.latest(mail.StateAccepted)
	return n.say("verdict."+string(reported), "time", n.clock(e.At), "ago", n.ago(e.At),
		"server", n.server("server.to", handed), "handed", n.clock(handed.At), "expires", n.clock(n.facts.ExpiresAt))
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
	reported := n.reported(m.State)
	switch {
	case reported != "":
		n.adviseReported(m, reported)
	case m.State == mail.StateQueued, m.State == mail.StateSending:
		m.NextStep, m.Reply = n.say("step.queued"), n.answer("reply.queued", e)
	case m.State == mail.StateDelayed:
		// A delay is ours to sit out. The catalogue's advice is for one that lasts: it
		// counts once the message is at risk.
		m.NextStep, m.Reply = n.say("step.delayed"), n.answer("reply.delayed", e)
		if m.AtRisk {
			n.adviseByCause(m, e)
		}
	case m.State == mail.StateAccepted:
		n.adviseAccepted(m, e)
	case m.State == StateUnknown:
		m.WhoActs, m.NextStep, m.Reply = mail.ActSupport, n.say("step.unknown"), n.answer("reply.unknown", e)
	default:
		n.adviseByCause(m, e)
	}
	m.WhoActsText = n.say("who." + string(m.WhoActs))
}

// adviseReported: what was used needs nothing; else the person has it, and is the one
// who can use it or ask for a new one.
func (n *narrator) adviseReported(m *Message, reported mail.State) {
	if reported != mail.EventUsed {
		m.WhoActs = mail.ActPerson
	}
	m.NextStep, m.Reply = n.say("step."+string(reported)), n.answer("reply."+string(reported), n.latest(reported))
}

func (n *narrator) adviseAccepted(m *Message, e mail.Event) {
	m.WhoActs = mail.ActPerson
	way, id := "accepted", ""
	switch {
	case !n.facts.ExpiresAt.IsZero() && n.facts.ExpiresAt.Before(n.now):
		way = "accepted.expired"
	case e.Evidence != nil && e.Evidence.QueueID != "":
		way, id = "accepted.queue_id", e.Evidence.QueueID
	}
	m.NextStep = n.say("step."+way, "server", n.server("server", e), "queue_id", id, "expires", n.clock(n.facts.ExpiresAt))
	m.Reply = n.answer("reply."+way, e)
}

// answer is a text to paste about a fact, where the catalogue of causes has none.
func (n *narrator) answer(name string, e mail.Event) string {
	id := ""
	if e.Evidence != nil {
		id = e.Evidence.QueueID
	}
	return n.say(name, "kind", n.kind(n.facts.Kind), "ref", string(n.facts.Ref), "to", string(n.facts.To), "time", n.clock(e.At),
		"queued", n.clock(n.facts.QueuedAt), "expires", n.clock(n.facts.ExpiresAt), "queue_id", id,
		"server", n.server("server", e), "server_to", n.server("server.to", e))
}

func (n *narrator) adviseByCause(m *Message, e mail.Event) {
	if e.State == mail.StateRefused && e.PossibleDuplicate {
		m.WhoActs, m.NextStep, m.Reply = mail.ActPerson, n.say("step.unsure"), n.answer("reply.unsure", e)
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
	if theirTLS(e.Evidence) && n.tlsFailed(e.Evidence) {
		m.WhoActs, m.NextStep = mail.ActTheirIT, n.tls(e.Evidence)
	}
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
	case !n.live.HeldUntil.IsZero():
		return n.say("ahead.maintenance", "time", n.clock(n.live.HeldUntil))
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
