package console

import (
	"bytes"
	_ "embed"
	"html/template"
	"net/http"
	"time"
)

// Status is the answer to GET /status.json, which anybody may read: it names
// providers and nobody else.
type Status struct {
	// Status is "ok", "trouble" while an incident is open, else "maintenance" during one.
	Status      string           `json:"status"`
	Text        string           `json:"text"` // one sentence
	At          time.Time        `json:"at"`
	Incidents   []StatusIncident `json:"incidents"`
	Maintenance []StatusWindow   `json:"maintenance"`
}

// StatusIncident is an incident in public.
type StatusIncident struct {
	ID    string    `json:"id"`
	Title string    `json:"title"`
	Open  bool      `json:"open"`
	Since time.Time `json:"since"`
	Until time.Time `json:"until,omitzero"`
	Text  string    `json:"text"`
}

// StatusWindow is a maintenance window in public: one that is now or comes within the
// next day.
type StatusWindow struct {
	Title string    `json:"title"`
	Now   bool      `json:"now"`
	From  time.Time `json:"from"`
	Until time.Time `json:"until"`
	Text  string    `json:"text"`
}

// PublicStatus tells what goes wrong for many, and what is planned. Incidents at one
// domain are left out: a domain is a customer's.
func (a *API) PublicStatus(r *http.Request, t Telling) (Status, error) {
	all, err := a.View.Incidents(r.Context())
	if err != nil {
		return Status{}, err
	}
	w := newWords(t.Lang, t.Now, t.Zone)
	s := Status{Status: "ok", At: t.Now.UTC().Truncate(time.Second), Incidents: []StatusIncident{}}
	if s.Maintenance, err = a.publicWindows(r.Context(), w); err != nil {
		return Status{}, err
	}
	for _, m := range s.Maintenance {
		if m.Now {
			s.Status = "maintenance"
		}
	}
	for _, i := range all {
		if i.Scope == IncidentDomain {
			continue
		}
		text := w.incidentText(i)
		if i.Open {
			s.Status = "trouble"
			text = sentences(text, w.say("status.safe."+i.sort()))
		}
		s.Incidents = append(s.Incidents, StatusIncident{ID: i.ID, Title: w.incidentTitle(i), Open: i.Open, Since: i.Since, Until: i.Until, Text: text})
	}
	s.Text = w.say("status." + s.Status)
	return s, nil
}

// statusFor is how long a browser or a proxy may keep the public status.
const statusFor = "public, max-age=15"

func (a *API) getStatus(w http.ResponseWriter, r *http.Request) {
	t, err := a.telling(r)
	if err == nil {
		var s Status
		if s, err = a.PublicStatus(r, t); err == nil {
			w.Header().Set("Cache-Control", statusFor)
			// A login page of another site may show it.
			w.Header().Set("Access-Control-Allow-Origin", "*")
			w.Header().Set("Cross-Origin-Resource-Policy", "cross-origin")
			writeJSON(w, http.StatusOK, s)
			return
		}
	}
	writeProblem(w, asProblem(r.Context(), a.logger(), err))
}

//go:embed pages/status.html
var statusPage string

// statusTemplate is parsed from the program itself; a test shows it.
var statusTemplate = template.Must(template.New("status").Parse(statusPage))

// publicStatus is what the page shows.
type publicStatus struct {
	Status
	words words
}

// Lang is the language of the page.
func (p publicStatus) Lang() string { return p.words.lang }

// Say says a phrase.
func (p publicStatus) Say(name string) string { return p.words.say(name) }

// Clock says a time.
func (p publicStatus) Clock(t time.Time) string { return p.words.clock(t) }

// Zone names the time zone of the page's times.
func (p publicStatus) Zone() string { return p.words.zone.String() }

func (a *API) showStatus(w http.ResponseWriter, r *http.Request) {
	t, err := a.telling(r)
	if err != nil {
		writeProblem(w, asProblem(r.Context(), a.logger(), err))
		return
	}
	s, err := a.PublicStatus(r, t)
	if err != nil {
		writeProblem(w, asProblem(r.Context(), a.logger(), err))
		return
	}
	var page bytes.Buffer
	if err := statusTemplate.Execute(&page, publicStatus{s, newWords(t.Lang, t.Now, t.Zone)}); err != nil {
		writeProblem(w, asProblem(r.Context(), a.logger(), err))
		return
	}
	h := w.Header()
	h.Set("Content-Security-Policy", domainPolicy)
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Vary", "Accept-Language")
	h.Set("Cache-Control", statusFor)
	w.Write(page.Bytes())
}
