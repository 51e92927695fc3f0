package console

import (
	"bytes"
	"context"
	"embed"
	"html/template"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/deliverd/deliverd/mail"
)

//go:embed pages/*.html
var pageFiles embed.FS

//go:embed pages/style.css
var styleSheet []byte

// Pages are the HTML pages: search, one message's story, and caught mail. They have
// no script, and whatever a sender or a server said is text in them.
type Pages struct {
	api       *API
	caught    Caught
	hints     []string
	templates map[string]*template.Template
}

// NewPages returns the pages over api. caught is the catching server's mail, nil
// where nothing is caught; hints are lines for a shell that the pages propose while
// there is no mail yet.
func NewPages(api *API, caught Caught, hints ...string) (*Pages, error) {
	p := &Pages{api: api, caught: caught, hints: hints, templates: map[string]*template.Template{}}
	for _, name := range []string{"start", "message", "caught", "mail", "problem"} {
		t, err := template.ParseFS(pageFiles, "pages/layout.html", "pages/"+name+".html")
		if err != nil {
			return nil, err
		}
		p.templates[name] = t
	}
	return p, nil
}

// Routes are the pages' addresses. Caught mail is shown whole, with its codes and
// links, as its recipient would see it.
func (p *Pages) Routes() []Route {
	routes := []Route{
		{"GET", "/{$}", ScopeRead, "", p.page(p.start)},
		{"GET", "/search", ScopeRead, "", p.page(p.search)},
		{"GET", "/messages/{message}", ScopeRead, "", p.page(p.message)},
		{"GET", "/style.css", "", "", http.HandlerFunc(serveStyle)},
	}
	if p.caught != nil {
		routes = append(routes,
			Route{"GET", "/caught", ScopeAdmin, "", p.page(p.caughtList)},
			Route{"GET", "/caught/{mail}", ScopeAdmin, "", p.page(p.caughtMail)},
			Route{"GET", "/caught/{mail}/html", ScopeAdmin, "", p.page(p.caughtHTML)},
			Route{"GET", "/caught/{mail}/raw", ScopeAdmin, "", p.page(p.caughtRaw)})
	}
	return routes
}

// pagePolicy: our own style sheet, and frames of our own; nothing from elsewhere and
// no script at all.
const pagePolicy = "default-src 'none'; style-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// page makes a handler of a function that returns what it could not show.
func (p *Pages) page(f func(http.ResponseWriter, *http.Request, *Principal) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", pagePolicy)
		by, err := PrincipalFrom(r.Context()), error(notSignedIn())
		if by != nil {
			err = f(w, r, by)
		}
		if err == nil {
			return
		}
		problem := asProblem(r.Context(), p.api.logger(), err)
		if err := p.show(w, r, problem.Status, shell{Title: problem.Title, Page: "problem", Content: problem}); err != nil {
			writeProblem(w, problem)
		}
	})
}

// shell is a page: what is different between pages, and what show adds.
type shell struct {
	Title   string
	Page    string // its template
	Refresh int    // seconds; 0 for never
	Content any

	Query     string
	HasCaught bool
	Words     words
}

func (p *Pages) show(w http.ResponseWriter, r *http.Request, status int, s shell) error {
	s.Query = strings.TrimSpace(r.URL.Query().Get("q"))
	s.HasCaught = p.caught != nil
	s.Words = newWords("en", p.api.now(), p.api.Zone)
	var page bytes.Buffer
	if err := p.templates[s.Page].ExecuteTemplate(&page, "layout", s); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	w.Write(page.Bytes())
	return nil
}

func serveStyle(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	w.Header().Set("Cache-Control", "max-age=60")
	w.Write(styleSheet)
}

// results are the content of the start page and of a search.
type results struct {
	Searched bool
	Query    string
	Messages []Summary
	Days     int // how long messages are kept
	Hints    []string
}

const startRows = 30

func (p *Pages) start(w http.ResponseWriter, r *http.Request, by *Principal) error {
	p.api.fresh(r.Context())
	found, err := p.api.View.List(r.Context(), Filter{Tenants: by.visible(""), Limit: startRows})
	if err != nil {
		return err
	}
	return p.show(w, r, http.StatusOK, shell{Title: "deliverd", Page: "start", Content: results{Messages: found, Hints: p.hints}})
}

// search leads to the one message that a reference or an id names; for anything else
// it lists the messages of the people whom it finds.
func (p *Pages) search(w http.ResponseWriter, r *http.Request, by *Principal) error {
	q := strings.TrimSpace(r.URL.Query().Get("q"))
	if q == "" {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return nil
	}
	if id, ref, ok := nameOf(q); ok {
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
	p.api.fresh(r.Context())
	found, err := p.messagesOf(r.Context(), q, by)
	if err != nil {
		return err
	}
	days := int(p.api.View.keep / (24 * time.Hour))
	return p.show(w, r, http.StatusOK, shell{
		Title: q + " – deliverd", Page: "start", Content: results{Searched: true, Query: q, Messages: found, Days: days},
	})
}

func (p *Pages) messagesOf(ctx context.Context, q string, by *Principal) ([]Summary, error) {
	people, err := p.api.View.FindPeople(ctx, PeopleQuery{Q: q, Tenants: by.visible(""), Limit: 10})
	if err != nil {
		return nil, err
	}
	found := []Summary{}
	for _, person := range people.People {
		messages, err := p.api.View.List(ctx, Filter{Tenants: by.visible(""), Person: person.ID, Limit: startRows})
		if err != nil {
			return nil, err
		}
		found = append(found, messages...)
	}
	return found, nil
}

func (p *Pages) message(w http.ResponseWriter, r *http.Request, by *Principal) error {
	s, others, err := p.api.find(r, by)
	if err != nil {
		return err
	}
	m, err := p.api.tell(r.Context(), s.ID, Telling{Lang: "en", Zone: p.api.Zone, Now: p.api.now()})
	if err != nil {
		return err
	}
	m.SameRef = others
	page := shell{Title: string(m.Ref) + " – deliverd", Page: "message", Content: told{m, p.caughtAs(m.Ref)}}
	if m.State.Open() {
		page.Refresh = 5
	}
	return p.show(w, r, http.StatusOK, page)
}

// told is the content of a message's page.
type told struct {
	Message
	Caught int // its mail's number at the catching server; 0 for none
}

// caughtAs finds the newest caught mail with this reference.
func (p *Pages) caughtAs(ref mail.Ref) int {
	if p.caught == nil {
		return 0
	}
	line := []byte("\r\nX-Deliverd-Ref: " + ref + "\r\n")
	for _, m := range p.caught.Mails() {
		if end := bytes.Index(m.Raw, []byte("\r\n\r\n")); end >= 0 && bytes.Contains(m.Raw[:end+2], line) {
			return m.Number
		}
	}
	return 0
}

// caughtRow is one line of the list of caught mail.
type caughtRow struct {
	CaughtMail
	Subject string
}

func (p *Pages) caughtList(w http.ResponseWriter, r *http.Request, _ *Principal) error {
	mails := p.caught.Mails()
	rows := make([]caughtRow, 0, min(len(mails), MaxLimit))
	for _, m := range mails[:min(len(mails), MaxLimit)] {
		rows = append(rows, caughtRow{m, subject(m)})
	}
	content := struct {
		Rows  []caughtRow
		Kept  int
		Hints []string
	}{rows, len(mails), p.hints}
	return p.show(w, r, http.StatusOK, shell{Title: "Caught mail – deliverd", Page: "caught", Content: content})
}

func (p *Pages) caughtMail(w http.ResponseWriter, r *http.Request, _ *Principal) error {
	m, err := p.caughtOne(r)
	if err != nil {
		return err
	}
	ref, _ := mail.ParseRef(m.Ref)
	m.Ref = string(ref)
	return p.show(w, r, http.StatusOK, shell{Title: m.Subject + " – deliverd", Page: "mail", Content: m})
}

// caughtHTML is a mail's HTML by itself, for a frame: nothing in it runs, loads or
// leads anywhere.
func (p *Pages) caughtHTML(w http.ResponseWriter, r *http.Request, _ *Principal) error {
	m, err := p.caughtOne(r)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'")
	h.Set("Content-Type", "text/html; charset=utf-8")
	w.Write([]byte(m.HTML))
	return nil
}

func (p *Pages) caughtRaw(w http.ResponseWriter, r *http.Request, _ *Principal) error {
	m, err := p.caughtOne(r)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Write(m.Raw)
	return nil
}

func (p *Pages) caughtOne(r *http.Request) (readMail, error) {
	n, err := strconv.Atoi(r.PathValue("mail"))
	if err != nil {
		return readMail{}, ErrNotFound
	}
	m, ok := p.caught.Mail(n)
	if !ok {
		return readMail{}, ErrNotFound
	}
	return read(m), nil
}

// Clock returns a time of day in the page's zone, with the date when it is another
// day.
func (w words) Clock(t time.Time) string { return w.clock(t) }

// Ago returns a time as seen from now.
func (w words) Ago(t time.Time) string { return w.ago(t) }

// Took returns how long something took, with two digits of a short time.
func (w words) Took(d time.Duration) string {
	switch {
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	case d < 10*time.Second:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	}
	return w.span(d)
}

// Kind returns a kind's name in words.
func (w words) Kind(kind string) string { return (&narrator{words: w}).kind(kind) }

// Machine returns a time for the datetime attribute.
func (w words) Machine(t time.Time) string { return t.UTC().Format(time.RFC3339) }
