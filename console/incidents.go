package console

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// IncidentScope is how wide an incident is.
type IncidentScope string

// The scopes.
const (
	IncidentEverywhere IncidentScope = "everywhere" // at many domains of many providers: most likely ours
	IncidentProvider   IncidentScope = "provider"
	IncidentDomain     IncidentScope = "domain"
)

// Incident is one thing that goes wrong for many: delays or refusals with one cause
// at one provider or domain.
type Incident struct {
	ID    string        `json:"id"` // "inc_…", the same on every node
	Scope IncidentScope `json:"scope"`
	// Name is the provider's id or the domain; "" everywhere.
	Name  string     `json:"name,omitempty"`
	Title string     `json:"title"` // the provider's name, the domain, "every provider"
	Cause mail.Cause `json:"cause"`
	Open  bool       `json:"open"`
	Since time.Time  `json:"since"`          // of its first failure
	Until time.Time  `json:"until,omitzero"` // when mail went through again, or nothing more was tried
	// Last is when it was last seen: the latest failure.
	Last time.Time `json:"last"`
	// Failures are the messages held up or refused in the worst ten minutes, and Domains
	// the recipients' domains concerned then.
	Failures int `json:"failures"`
	Domains  int `json:"domains"`
	// Refused: most of what failed was refused, and is not tried again.
	Refused bool `json:"refused"`

	providers []string `json:"-"` // of the domains, as far as they are known

	// Text says it in a sentence, WhoActs who has to do something, and Reply what to
	// answer whoever asks.
	Text        string     `json:"text"`
	WhoActs     mail.Actor `json:"who_acts"`
	WhoActsText string     `json:"who_acts_text"`
	Reply       string     `json:"reply"`
}

// Incidents are found by counting, so that every node that has the same facts finds
// the same ones, at any time and after any restart. Time is cut into slots of ten
// minutes by the events' own times. In each slot and scope, messages count that an
// attempt took through, and messages that one cause kept back:
//
//	opens     10 messages with one cause in a slot, who are half or more of those tried
//	          there; at a provider they are for 3 domains or more, everywhere for 10
//	goes on   while a slot has 3 such messages that are a fifth or more of those tried,
//	          or while nothing is tried at all, for an hour
//	closes    with the first full slot that is better than that
//
// Ten is what a support desk would call "several people have asked". Half and a fifth
// lie far apart so that an incident does not flicker. Causes that are about one
// person's mailbox or one message never make an incident, nor does greylisting,
// which is how some servers greet everybody. What happened more than a day ago is not
// looked at: an incident that is older than that begins a day ago.
const (
	incidentSlot     = 10 * time.Minute
	incidentLookback = 24 * time.Hour

	openMessages = 10
	openShare    = 2 // one in two
	openDomains  = 3
	openWide     = 10 // domains, everywhere
	holdMessages = 3
	holdShare    = 5 // one in five
	holdSilent   = 6 // slots without any attempt
)

// makesIncident are the causes that several messages have in common.
var makesIncident = [...]mail.Cause{
	mail.CauseBadDomain, mail.CauseRateLimited, mail.CauseBlocklisted, mail.CausePTRMissing, mail.CauseAuthFailed, mail.CauseSpam,
	mail.CauseContentRejected, mail.CausePolicy, mail.CauseSenderRejected, mail.CauseRelayDenied, mail.CauseTLSRequired,
	mail.CauseProtocol, mail.CauseNetwork, mail.CauseRemoteError, mail.CauseUnknown, mail.CauseNullMX, mail.CauseDNSFailure,
	mail.CauseTimeout, mail.CauseLoop,
}

// slotTally is what attempts in one slot came to, at one domain.
type slotTally struct {
	slot             int64 // its number since 1970
	provider, domain string
	state            mail.State // accepted, delayed or refused
	cause            mail.Cause
	messages         int
	first, last      time.Time
}

// place of an incident: scope and name.
type incidentPlace struct {
	scope IncidentScope
	name  string
}

// wrong is one cause at one place.
type wrong struct {
	incidentPlace
	cause mail.Cause
}

// failing is what one cause did at one place in one slot.
type failing struct {
	messages, refused int
	domains           map[string]bool
	providers         []string
	first, last       time.Time
}

// slotCount is one slot.
type slotCount struct {
	tried   map[incidentPlace]int // messages, taken or kept back
	failing map[wrong]*failing
}

// findIncidents returns the incidents that tallies show, the open ones first, then
// the latest. A slot that is not over at now can open an incident and not close one.
func findIncidents(tallies []slotTally, now time.Time) []Incident {
	slots := map[int64]*slotCount{}
	for _, t := range tallies {
		s := slots[t.slot]
		if s == nil {
			s = &slotCount{map[incidentPlace]int{}, map[wrong]*failing{}}
			slots[t.slot] = s
		}
		s.count(t)
	}
	current := slotOf(now)
	open := map[wrong]*Incident{}
	quiet := map[wrong]int64{} // the slot in which something was tried last
	var found []Incident
	for _, number := range slices.Sorted(maps.Keys(slots)) {
		for w, i := range open {
			if number-quiet[w] > holdSilent {
				found = append(found, i.ended(i.Last))
				delete(open, w)
			}
		}
		slots[number].turn(number, current, open, quiet, &found)
	}
	for w, i := range open {
		if current-quiet[w] > holdSilent {
			found = append(found, i.ended(i.Last))
			continue
		}
		i.Open = true
		found = append(found, *i)
	}
	found = slices.DeleteFunc(found, func(i Incident) bool { return partOfWider(i, found) })
	slices.SortFunc(found, func(a, b Incident) int {
		if a.Open != b.Open {
			return map[bool]int{true: -1, false: 1}[a.Open]
		}
		return cmp.Or(b.Since.Compare(a.Since), cmp.Compare(a.ID, b.ID))
	})
	return found
}

func slotOf(t time.Time) int64 { return t.Unix() / int64(incidentSlot/time.Second) }

func slotBegin(number int64) time.Time {
	return time.Unix(number*int64(incidentSlot/time.Second), 0).UTC()
}

// count adds a tally to the places that it is part of.
func (s *slotCount) count(t slotTally) {
	places := []incidentPlace{{IncidentEverywhere, ""}}
	if t.domain != "" { // see byProviderOnly
		places = append(places, incidentPlace{IncidentDomain, t.domain})
	}
	if t.provider != "" {
		places = append(places, incidentPlace{IncidentProvider, t.provider})
	}
	for _, p := range places {
		s.tried[p] += t.messages
		if t.state == mail.StateAccepted || !slices.Contains(makesIncident[:], t.cause) {
			continue
		}
		w := wrong{p, t.cause}
		f := s.failing[w]
		if f == nil {
			f = &failing{domains: map[string]bool{}, first: t.first, last: t.last}
			s.failing[w] = f
		}
		f.messages += t.messages
		f.domains[t.domain] = true
		if t.provider != "" && len(f.providers) < openDomains && !slices.Contains(f.providers, t.provider) {
			f.providers = append(f.providers, t.provider)
		}
		if t.state == mail.StateRefused {
			f.refused += t.messages
		}
		if t.first.Before(f.first) {
			f.first = t.first
		}
		f.last = later(f.last, t.last)
	}
}

// turn opens, goes on with and closes incidents by one slot.
func (s *slotCount) turn(number, current int64, open map[wrong]*Incident, quiet map[wrong]int64, found *[]Incident) {
	for w, f := range s.failing {
		if open[w] == nil && s.opens(w, f) {
			open[w] = &Incident{ID: incidentID(w, number), Scope: w.scope, Name: w.name, Cause: w.cause, Since: f.first}
		}
	}
	for w, i := range open {
		tried, f := s.tried[w.incidentPlace], s.failing[w]
		if tried == 0 {
			continue
		}
		quiet[w] = number
		holds := f != nil && f.messages >= holdMessages && f.messages*holdShare >= tried
		switch {
		case holds:
			i.seen(f)
		case number < current:
			*found = append(*found, i.ended(later(i.Last, slotBegin(number))))
			delete(open, w)
		}
	}
}

func (s *slotCount) opens(w wrong, f *failing) bool {
	domains := map[IncidentScope]int{IncidentProvider: openDomains, IncidentEverywhere: openWide}[w.scope]
	return f.messages >= openMessages && f.messages*openShare >= s.tried[w.incidentPlace] && len(f.domains) >= domains
}

func (i *Incident) seen(f *failing) {
	i.Last = later(i.Last, f.last)
	i.providers = f.providers
	if f.messages > i.Failures {
		i.Failures, i.Domains, i.Refused = f.messages, len(f.domains), 2*f.refused > f.messages
	}
}

func (i *Incident) ended(at time.Time) Incident {
	i.Until = at
	return *i
}

// partOfWider reports whether an incident is told by a wider one of the same cause
// and time.
func partOfWider(i Incident, all []Incident) bool {
	return slices.ContainsFunc(all, func(o Incident) bool {
		if o.Cause != i.Cause || !o.overlaps(i) {
			return false
		}
		switch i.Scope {
		case IncidentDomain:
			return o.Scope == IncidentEverywhere || o.Scope == IncidentProvider && slices.Contains(i.providers, o.Name)
		case IncidentProvider:
			return o.Scope == IncidentEverywhere
		}
		return false
	})
}

func (i Incident) overlaps(o Incident) bool {
	return (i.Open || !i.Until.Before(o.Since)) && (o.Open || !o.Until.Before(i.Since))
}

func incidentID(w wrong, slot int64) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%s\x00%d", w.scope, w.name, w.cause, slot))
	return "inc_" + hex.EncodeToString(sum[:8])
}
