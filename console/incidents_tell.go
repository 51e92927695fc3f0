package console

import (
	"context"
	"database/sql"
	"net/http"
	"time"

	"github.com/deliverd/deliverd/bounces"
	"github.com/deliverd/deliverd/mail"
)

// Incidents is the answer to GET /v1/incidents.
type Incidents struct {
	// Incidents are the open ones first, then those that ended within the last 24 hours.
	Incidents []Incident `json:"incidents"`
}

// Wider is the incident that a message's trouble is part of.
type Wider struct {
	ID    string    `json:"id"`
	Open  bool      `json:"open"`
	Since time.Time `json:"since"`
	Text  string    `json:"text"` // a sentence
}

// TellIncident fills in the texts of an incident.
func TellIncident(i Incident, t Telling) Incident {
	w := newWords(t.Lang, t.Now, t.Zone)
	facts := bounces.Facts{Time: i.Last.In(w.zone)}
	switch i.Scope {
	case IncidentProvider:
		facts.Provider = bounces.ProviderName(i.Name)
	case IncidentDomain:
		facts.Domain = i.Name
	}
	x := bounces.Explain(i.Cause, w.lang).Fill(facts)
	i.Title = w.incidentTitle(i)
	i.Text = sentences(w.incidentText(i), x.Plain)
	i.WhoActs = x.Who
	if i.Scope != IncidentDomain && i.WhoActs != mail.ActNobody {
		i.WhoActs = mail.ActUs // no one customer's IT can mend what many have
	}
	if i.Scope == IncidentDomain && i.WhoActs == mail.ActPerson {
		i.WhoActs = mail.ActTheirIT // so many don't misspell it
	}
	i.WhoActsText = w.say("who." + string(i.WhoActs))
	reply := "incident.reply." + i.sort()
	if i.Open && i.Refused && i.WhoActs == mail.ActTheirIT {
		reply += ".their_it"
	}
	i.Reply = w.sayIncident(reply, i)
	return i
}

// sort is which words an incident has.
func (i *Incident) sort() string {
	name := "held"
	if i.Refused {
		name = "refused"
	}
	if !i.Open {
		name += ".over"
	}
	return name
}

func (w words) incidentTitle(i Incident) string {
	switch i.Scope {
	case IncidentProvider:
		return bounces.ProviderName(i.Name)
	case IncidentDomain:
		return i.Name
	}
	return w.say("incident.everywhere")
}

// incidentText says what an incident is, without its cause.
func (w words) incidentText(i Incident) string { return w.sayIncident("incident."+i.sort(), i) }

func (w words) sayIncident(phrase string, i Incident) string {
	to := w.say("incident.to."+string(i.Scope), "name", w.incidentTitle(i))
	return w.say(phrase, "to", to, "since", w.clock(i.Since), "until", w.clock(i.Until))
}

// wider returns the incident that a message's trouble is part of, nil if it is not.
func (n *narrator) wider(state mail.State, all []Incident) *Incident {
	trouble := n.deciding()
	switch state {
	case mail.StateExpired:
		trouble = n.latest(mail.StateDelayed)
	case mail.StateDelayed, mail.StateRefused:
	default:
		return nil
	}
	provider := n.facts.Provider
	if trouble.Evidence != nil {
		provider = trouble.Evidence.Provider
	}
	for i := range all {
		in := &all[i]
		at := in.Scope == IncidentEverywhere || in.Scope == IncidentProvider && in.Name == provider ||
			in.Scope == IncidentDomain && in.Name == n.facts.To.Domain()
		if at && in.Cause == trouble.Cause && !trouble.At.Before(in.Since) && (in.Open || !trouble.At.After(in.Until)) {
			return in
		}
	}
	return nil
}

// tellWider says that a message's trouble is part of a wider one; while that lasts,
// its answer is the one to give.
func (n *narrator) tellWider(m *Message, t Telling) {
	in := n.wider(m.State, t.Incidents)
	if in == nil {
		return
	}
	told := TellIncident(*in, t)
	phrase := "incident.part"
	if !in.Open {
		phrase = "incident.part.over"
	}
	text := n.say(phrase, "name", told.Title, "since", n.clock(in.Since), "until", n.clock(in.Until))
	m.Incident = &Wider{ID: in.ID, Open: in.Open, Since: in.Since, Text: text}
	m.Verdict = sentences(m.Verdict, text)
	if in.Open && m.State != mail.StateExpired {
		m.Reply = told.Reply
	}
}

func (a *API) listIncidents(w http.ResponseWriter, r *http.Request, by *Principal) error {
	t, err := a.telling(r)
	if err != nil {
		return err
	}
	found, err := a.ListIncidents(r.Context(), by, t)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, Incidents{found})
	return nil
}

// ListIncidents tells the incidents that the principal may see: who is bound to
// tenants sees a domain's only where these have mail there, and no numbers, which are
// everybody's.
func (a *API) ListIncidents(ctx context.Context, by *Principal, t Telling) ([]Incident, error) {
	a.fresh(ctx)
	all, err := a.View.Incidents(ctx)
	if err != nil {
		return nil, err
	}
	told := []Incident{}
	for _, i := range all {
		if !by.seesAll() {
			i.Failures, i.Domains = 0, 0
			if i.Scope == IncidentDomain {
				theirs, err := a.View.mailTo(ctx, i.Name, by.visible(""), i.Since)
				if err != nil {
					return nil, err
				}
				if !theirs {
					continue
				}
			}
		}
		told = append(told, TellIncident(i, t))
	}
	return told, nil
}

// mailTo reports whether any of these tenants has mail to a domain that was asked for
// lately, as seen from at: an invite may wait for a week.
func (v *View) mailTo(ctx context.Context, domain string, tenants []string, at time.Time) (bool, error) {
	among, args := amongTenants(tenants)
	found := false
	err := v.query(ctx, func(*sql.Rows) error { found = true; return nil },
		"SELECT 1 FROM messages WHERE "+among+" AND "+domainOfAddress+" = ? AND id >= ? LIMIT 1",
		append(args, domain, string(idBound(at.Add(-8*24*time.Hour))))...)
	return found, err
}
