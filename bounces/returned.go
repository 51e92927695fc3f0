package bounces

import (
	"time"

	"github.com/deliverd/deliverd/mail"
)

// Event makes the event that a mail which came back is for the message that its
// return path names, and false where it is none: an automatic reply, a receipt, a
// success, mail like any other. The event names the message only; whoever records it
// completes it with the message's tenant, address and kind, which are never taken from
// the mail (law 10).
//
// The same mail makes the same event id, and so does every repetition of it: a
// message is returned once for a cause, delayed by others once, complained of once.
func (r Returned) Event(id mail.ID, now time.Time) (mail.Event, bool) {
	report, ok := r.decisive()
	if !ok {
		return mail.Event{}, false
	}
	e := mail.Event{
		At: now, Message: id, Ref: id.Ref(), By: "dsn",
		Cause: report.Verdict.Cause, Suppress: report.Verdict.Suppress,
		Evidence: &mail.Evidence{Provider: report.Verdict.Provider, Host: clip(report.Host, 255)},
	}
	if report.Reply.Code != 0 {
		// The words of an SMTP reply only: free text may quote the original message, and
		// with it the code or link that nobody may read (law 5).
		e.Evidence.Reply = &report.Reply
	}
	switch report.Action {
	case ActionFailed:
		e.State = mail.StateReturned
	case ActionDelayed:
		e.State = mail.StateDelayed
	case ActionComplaint:
		e.State = mail.StateComplained
	}
	e.ID = string(id) + "." + string(e.State) + ".dsn"
	if e.State == mail.StateReturned {
		e.ID += "." + string(e.Cause)
	}
	return e, true
}

// decisive returns the report that counts: the first failure, else the first delay or
// complaint. Our messages have one recipient; a report with several is about what
// became of it behind a list or a forwarder.
func (r Returned) decisive() (Report, bool) {
	var other *Report
	for i := range r.Reports {
		switch r.Reports[i].Action {
		case ActionFailed:
			return r.Reports[i], true
		case ActionDelayed, ActionComplaint:
			if other == nil {
				other = &r.Reports[i]
			}
		}
	}
	if other == nil {
		return Report{}, false
	}
	return *other, true
}
