package console

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/deliverd/deliverd/mail"
)

// startPage is the content of the first page: what is wrong, and what came last.
type startPage struct {
	// Wrong is what goes wrong for many now, and Over what did earlier today.
	Wrong, Over []Incident
	Planned     []StatusWindow
	Trouble     []troubled
	Latest      []Summary
	Queue       *Queue // nil where it can't be told, or is not for whoever looks
	Hints       []string
	Messages    bool
}

// troubled is a message of late that somebody has to look after.
type troubled struct {
	Summary
	Verdict string
	Who     mail.Actor
}

const (
	startRows   = 12
	troubleRows = 6
	// troubleAmong the latest messages are looked through for trouble.
	troubleAmong = 200
)

func (p *Pages) start(w http.ResponseWriter, r *http.Request, by *Principal) error {
	p.api.fresh(r.Context())
	place := p.api.View.Place()
	found, err := p.api.View.List(r.Context(), Filter{Tenants: by.visible(""), Limit: troubleAmong})
	if err != nil {
		return err
	}
	content := startPage{Latest: found[:min(len(found), startRows)], Hints: p.with.Hints, Messages: len(found) > 0}
	if err := p.wrongNow(r, by, &content); err != nil {
		return err
	}
	for _, s := range found {
		if len(content.Trouble) == troubleRows {
			break
		}
		if s.AtRisk || needsSomebody(s.State) {
			verdict, who, err := p.verdict(r, s.ID)
			if err != nil {
				return err
			}
			content.Trouble = append(content.Trouble, troubled{s, verdict, who})
		}
	}
	if by.seesAll() {
		if q, err := p.api.Backend.Queue(r.Context()); err == nil {
			content.Queue = &q
		}
	}
	return p.show(w, r, http.StatusOK, shell{Title: "deliverd", Page: "start", Watch: "all=1", Place: place, Content: content})
}

// wrongNow fills in what goes wrong for many, and what is planned.
func (p *Pages) wrongNow(r *http.Request, by *Principal, content *startPage) error {
	t := p.telling(r)
	incidents, err := p.api.ListIncidents(r.Context(), by, t)
	if err != nil {
		return err
	}
	for _, i := range incidents {
		if i.Open {
			content.Wrong = append(content.Wrong, i)
		} else {
			content.Over = append(content.Over, i)
		}
	}
	content.Planned, err = p.api.publicWindows(r.Context(), newWords(t.Lang, t.Now, t.Zone))
	return err
}

// needsSomebody: the message did not get where it should, and nothing more happens by
// itself.
func needsSomebody(s mail.State) bool {
	switch s {
	case mail.StateRefused, mail.StateExpired, mail.StateReturned, mail.StateComplained, mail.StateSuppressed:
		return true
	}
	return false
}

// verdict is where a message stands, in one sentence, and who acts.
func (p *Pages) verdict(r *http.Request, id mail.ID) (string, mail.Actor, error) {
	t := p.telling(r)
	f, err := p.factsOf(r, id, &t)
	if err != nil {
		return "", "", err
	}
	m := Tell(f, t)
	return m.Verdict, m.WhoActs, nil
}

// peoplePage is the content of a search's page.
type peoplePage struct {
	Query string
	People
	// Answer and More are what to say when nobody matches: the first sentence, and the
	// others.
	Answer, More string
}

const searchMost = 30

// search leads to the one message that a reference or an id names; for anything else
// it lists the people whom it finds.
func (p *Pages) search(w http.ResponseWriter, r *http.Request, by *Principal) error {
	q := strings.TrimSpace(r.URL.Query().Get("q"))
	if len(q) > maxQuery {
		return invalid("q", "At most 320 characters.")
	}
	if q == "" {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return nil
	}
	// Whoever types still may go on: only a search that was sent leads away.
	typing := r.Header.Get("HX-Request") != ""
	if id, ref, ok := nameOf(q); ok && !typing {
		p.api.said(r.Context(), id, ref)
		p.api.fresh(r.Context())
		named, err := p.api.lookup(r.Context(), id, ref)
		if err != nil {
			return err
		}
		if len(named) == 1 && by.Sees(named[0].Tenant) {
			http.Redirect(w, r, "/messages/"+url.PathEscape(string(named[0].ID)), http.StatusSeeOther)
			return nil
		}
	}
	place := p.api.View.Place()
	people, err := p.api.SearchPeople(r.Context(), by, PeopleQuery{Q: q, Tenants: by.visible(""), Limit: searchMost}, p.telling(r))
	if err != nil {
		return err
	}
	answer, more, _ := strings.Cut(people.Answer, ". ")
	if more != "" {
		answer += "."
	}
	return p.show(w, r, http.StatusOK, shell{Title: q + " – deliverd", Page: "people", Section: "start", Place: place, Content: peoplePage{q, people, answer, more}})
}
