package console

import (
	"context"
	"net/http"
	"slices"

	"github.com/deliverd/deliverd/mail"
)

// PersonStory is the answer to GET /v1/people/{id}: the newest message told, the
// timeline of all, and their list.
type PersonStory struct {
	Person
	NextStep string `json:"next_step,omitempty"` // what whoever acts should do
	Reply    string `json:"reply"`               // to paste to the customer

	// Message is the newest message told, with its attempts and evidence.
	Message Message `json:"message"`
	// Days are what happened, the latest day first, and in a day the latest line first:
	// of the newest 100 messages.
	Days []Day `json:"days"`
	// Messages is the list of all, the newest first, at most MaxLimit.
	Messages []Summary `json:"messages"`
	// SameAddress are other people of the tenant who have an address of this one's too.
	SameAddress []Person `json:"same_address,omitempty"`
}

// Day is one day of a timeline.
type Day struct {
	Date  string    `json:"date"`  // "2026-03-02", in the time zone of the sentences
	Title string    `json:"title"` // "Today", "Monday 2 March"
	Lines []DayLine `json:"lines"`
}

// DayLine is what happened to one message.
type DayLine struct {
	Line
	Time    string       `json:"time"` // of the day: "09:14:07"
	Message mail.ID      `json:"message"`
	Ref     mail.Ref     `json:"ref"`
	Kind    string       `json:"kind"`
	To      mail.Address `json:"to"`

	// Plain is Text without the words of servers, and Attempt the attempt that ended
	// here, nil if none did; Said is what a server said otherwise.
	Plain   string   `json:"-"`
	Attempt *Attempt `json:"-"`
	Said    string   `json:"-"`
}

// ReplyText is the answer to GET /v1/people/{id}/reply.
type ReplyText struct {
	Lang string `json:"lang"`
	Text string `json:"text"`
}

const (
	// daysOf is how many of a person's messages are told line by line.
	daysOf = 100
	// sameAddressMost bounds the others at an address: a shared mailbox has many.
	sameAddressMost = 10
)

func (a *API) getPerson(w http.ResponseWriter, r *http.Request, by *Principal) error {
	t, err := a.telling(r)
	if err != nil {
		return err
	}
	story, err := a.TellPerson(r.Context(), by, r.PathValue("person"), t)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, story)
	return nil
}

func (a *API) getReply(w http.ResponseWriter, r *http.Request, by *Principal) error {
	t, err := a.telling(r)
	if err != nil {
		return err
	}
	story, err := a.TellPerson(r.Context(), by, r.PathValue("person"), t)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, ReplyText{story.Message.Lang, story.Reply})
	return nil
}

// TellPerson tells a person's story, or returns ErrNotFound where there is none or
// the principal may not see it. Any key of the person leads there: by address or by
// person id.
func (a *API) TellPerson(ctx context.Context, by *Principal, key string, t Telling) (PersonStory, error) {
	a.fresh(ctx)
	c, err := a.View.circleOf(ctx, key, by.visible(""))
	if err != nil {
		return PersonStory{}, err
	}
	messages, err := a.View.List(ctx, Filter{People: c.keys})
	if err != nil {
		return PersonStory{}, err
	}
	if len(messages) == 0 {
		return PersonStory{}, ErrNotFound
	}
	s := PersonStory{Person: c.person(messages[0]), Messages: messages}
	if s.Message, err = a.tell(ctx, messages[0].ID, t); err != nil {
		return PersonStory{}, err
	}
	m := &s.Message
	s.Verdict, s.WhoActs, s.WhoActsText, s.NextStep, s.Reply = m.Verdict, m.WhoActs, m.WhoActsText, m.NextStep, m.Reply
	if s.Days, err = a.View.days(ctx, messages[:min(len(messages), daysOf)], t); err != nil {
		return PersonStory{}, err
	}
	s.SameAddress, err = a.View.othersOf(ctx, c)
	return s, err
}

// circleOf returns the circle of the person with this key, as far as these tenants
// may see it.
func (v *View) circleOf(ctx context.Context, key string, tenants []string) (circle, error) {
	found, err := v.List(ctx, Filter{People: []string{key}, Tenants: tenants, Limit: 1})
	if err != nil {
		return circle{}, err
	}
	if len(found) == 0 {
		return circle{}, ErrNotFound
	}
	row := rowsOf(found)[0]
	i := row.somebody()
	circles, err := v.circles(ctx, []somebody{i})
	return circles[i], err
}

// othersOf are the others at a person's addresses.
func (v *View) othersOf(ctx context.Context, c circle) ([]Person, error) {
	var rows []personRow
	for _, o := range c.others[:min(len(c.others), sameAddressMost)] {
		rows = append(rows, personRow{tenant: o.tenant, personID: o.personID})
	}
	if len(rows) == 0 {
		return nil, nil
	}
	return v.peopleOfRows(ctx, rows, sameAddressMost)
}

// days tells messages day by day, the latest first.
func (v *View) days(ctx context.Context, messages []Summary, t Telling) ([]Day, error) {
	facts, err := v.factsOf(ctx, messages)
	if err != nil {
		return nil, err
	}
	var lines []DayLine
	for _, m := range messages {
		n := &narrator{words: newWords(t.Lang, t.Now, t.Zone), facts: &Facts{Summary: m, Events: facts[m.ID]}}
		for _, e := range inOrder(facts[m.ID]) {
			line := DayLine{
				Line:    Line{At: e.At, State: e.State, Text: n.line(e), Ago: n.ago(e.At)},
				Message: m.ID, Ref: m.Ref, Kind: m.Kind, To: m.To, Plain: n.plainLine(e), Said: n.said(e),
			}
			if a, ok := n.attempt(e); ok {
				line.Attempt = &a
			}
			lines = append(lines, line)
		}
	}
	slices.Reverse(lines) // of the same time, what came later first
	slices.SortStableFunc(lines, func(a, b DayLine) int { return b.At.Compare(a.At) })
	return byDay(lines, newWords(t.Lang, t.Now, t.Zone)), nil
}

// byDay parts lines that are in the order of their time.
func byDay(lines []DayLine, w words) []Day {
	days := []Day{}
	for _, l := range lines {
		at := l.At.In(w.zone)
		date := at.Format("2006-01-02")
		if len(days) == 0 || days[len(days)-1].Date != date {
			days = append(days, Day{Date: date, Title: w.day(at), Lines: []DayLine{}})
		}
		l.Time = at.Format(w.say("time.today"))
		last := &days[len(days)-1]
		last.Lines = append(last.Lines, l)
	}
	return days
}
