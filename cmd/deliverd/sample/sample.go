// Package sample is a day of made-up mail, by which `deliverd dev` shows a newcomer
// each page alive. It is real as far as it can be: what happened earlier are facts for
// the event log, told of messages that were made and ended then; what happens now is
// for the doors that all mail comes through, and for a catching server that has been
// told how to treat it.
//
// Each message has the tag [Tag]. The people are made up, and their domains and
// addresses can't exist (RFC 2606, RFC 5737).
package sample

import (
	"cmp"
	"slices"
	"time"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// Tag marks every message of the sample.
const Tag = "sample"

// Act is one thing that is done at the start: one of Send, Suppress and Pause.
type Act struct {
	Send     *mail.Request
	Suppress *mail.Suppression // without the time
	Pause    string            // a selector
	By       string            // who pauses
	Reason   string
}

// Past returns what happened before now, in the order of time. Every message that it
// tells of has ended.
func Past(now time.Time) []mail.Event {
	var facts []mail.Event
	for _, l := range before() {
		facts = append(facts, l.facts(now)...)
	}
	slices.SortStableFunc(facts, func(a, b mail.Event) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Message, b.Message)) })
	return facts
}

// Present returns what is done at the start, in its order.
func Present() []Act { return now() }

// Servers returns how the catching server treats mail to the people of the sample.
func Servers() ([]smtptest.Rule, error) {
	var all []smtptest.Rule
	for _, r := range rules {
		b, err := smtptest.ParseBehaviour(r.behaviour)
		if err != nil {
			return nil, err
		}
		all = append(all, smtptest.Rule{Pattern: r.pattern, Behaviour: b})
	}
	return all, nil
}
