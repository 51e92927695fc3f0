package console

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"html/template"
	"net/http"
	"strconv"
	"strings"

	"github.com/deliverd/deliverd/mail"
)

//go:embed pages/*.html
var pageFiles embed.FS

//go:embed pages/style.css pages/console.js pages/htmx.js pages/favicon.svg
var pageAssets embed.FS

// Pages are the HTML pages. Each works without a script; with one it also updates by
// itself and obeys the keyboard. Whatever a sender or a server said is text in them.
// The address of a page says all of what it shows.
type Pages struct {
	api       *API
	with      PageParts
	templates map[string]map[string]*template.Template // by language, by name
	assets    map[string]asset
}

// PageParts are what the pages show beside what the API knows. What is nil has no
// page, or one that says that it is not available.
type PageParts struct {
	// Caught is the catching server's mail, where mail is caught.
	Caught Caught
	// Hints are lines for a shell, proposed while there is no mail yet.
	Hints []string
	// Sample reports whether the data is made up, so that each page says so.
	Sample func() bool
	// Domains makes the reports on domains.
	Domains *Domains
	// Templates are the texts of mails, as they are at the moment.
	Templates func() *mail.Templates
	// Kinds are the rules of each kind of mail.
	Kinds map[string]mail.Kind
	// From is what mails are sent from where a request does not say it.
	From string
	// Health looks at this installation.
	Health func(ctx context.Context) []HealthPart
}

// pageNames are the templates of whole pages.
var pageNames = [...]string{"start", "people", "person", "message", "resend", "delays", "domains", "suppressed", "lift",
	"templates", "log", "health", "caught", "mail", "problem"}

// NewPages returns the pages over api.
func NewPages(api *API, parts PageParts) (*Pages, error) {
	p := &Pages{api: api, with: parts, templates: map[string]map[string]*template.Template{}, assets: map[string]asset{}}
	for _, name := range [...]string{"style.css", "console.js", "htmx.js", "favicon.svg"} {
		b, err := pageAssets.ReadFile("pages/" + name)
		if err != nil {
			return nil, err
		}
		p.assets[name] = newAsset(name, b)
	}
	for _, lang := range languages {
		p.templates[lang] = map[string]*template.Template{}
		for _, name := range pageNames {
			t, err := template.New(name).Funcs(p.functions(lang)).
				ParseFS(pageFiles, "pages/layout.html", "pages/parts.html", "pages/report.html", "pages/"+name+".html")
			if err != nil {
				return nil, err
			}
			p.templates[lang][name] = t
		}
	}
	return p, nil
}

// Routes are the pages' addresses. Caught mail is shown whole, with its codes and
// links, as its recipient would see it.
func (p *Pages) Routes() []Route {
	routes := []Route{
		{"GET", "/{$}", ScopeRead, "", p.page(p.start)},
		{"GET", "/search", ScopeRead, "", p.page(p.search)},
		{"GET", "/people/{person}", ScopeRead, "", p.page(p.person)},
		{"GET", "/messages/{message}", ScopeRead, "", p.page(p.message)},
		{"GET", "/messages/{message}/preview", ScopeRead, "", p.page(p.messagePreview)},
		{"GET", "/messages/{message}/raw", ScopeRead, "", p.page(p.messageRaw)},
		{"GET", "/messages/{message}/resend", ScopeRead, "", p.page(p.resendForm)},
		{"POST", "/messages/{message}/resend", ScopeAct, formBody, p.page(p.resend)},
		{"GET", "/delays", ScopeRead, "", p.page(p.delays)},
		{"POST", "/delays", ScopeOperate, formBody, p.page(p.actOnDelays)},
		{"POST", "/delays/maintenance", ScopeOperate, formBody, p.page(p.actOnMaintenance)},
		{"GET", "/suppressed", ScopeRead, "", p.page(p.suppressed)},
		{"GET", "/suppressed/lift", ScopeRead, "", p.page(p.liftForm)},
		{"POST", "/suppressed/lift", ScopeAct, formBody, p.page(p.lift)},
		{"GET", "/live", ScopeRead, "", p.page(p.live)},
		{"POST", "/language", "", formBody, http.HandlerFunc(p.setLanguage)},
	}
	if p.with.Domains != nil {
		routes = append(routes, Route{"GET", "/domains", ScopeDomains, "", p.page(p.domains)})
	}
	if p.with.Templates != nil {
		routes = append(routes,
			Route{"GET", "/templates", ScopeRead, "", p.page(p.mailTemplates)},
			Route{"GET", "/templates/{template}/preview", ScopeRead, "", p.page(p.templatePreview)})
	}
	if p.api.ServiceLog != nil {
		routes = append(routes, Route{"GET", "/log", ScopeRead, "", p.page(p.serviceLog)})
	}
	if p.with.Health != nil {
		routes = append(routes, Route{"GET", "/health", ScopeRead, "", p.page(p.health)})
	}
	if p.with.Caught != nil {
		routes = append(routes,
			Route{"GET", "/caught", ScopeAdmin, "", p.page(p.caughtList)},
			Route{"GET", "/caught/{mail}", ScopeAdmin, "", p.page(p.caughtMail)},
			Route{"GET", "/caught/{mail}/html", ScopeAdmin, "", p.page(p.caughtHTML)},
			Route{"GET", "/caught/{mail}/raw", ScopeAdmin, "", p.page(p.caughtRaw)})
	}
	for name, a := range p.assets {
		routes = append(routes, Route{"GET", "/" + name, "", "", a})
	}
	return routes
}

// pagePolicy: our own style sheet, script and frames, and nothing from elsewhere;
// nothing inline.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

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
		if err := p.show(w, r, problem.Status, shell{Title: pageSentence(langOfPage(r), problem.Title), Page: "problem", Content: problem}); err != nil {
			writeProblem(w, problem)
		}
	})
}

// shell is a page: what is different between pages, and what show adds.
type shell struct {
	Title   string
	Page    string // its template
	Section string // the part of the navigation that it belongs to; "" is Page
	Watch   string // the query of its feed at /live: "message=…"; "" where it has none
	Content any

	Lang      string
	Query     string
	Here      string // the page's own address
	Place     uint64 // of the event log, which the page shows
	Said      string // what was just done, in words
	HasCaught bool
	HasLog    bool
	With      PageParts
	Words     words
	By        *Principal
	Sample    bool
}

func (p *Pages) show(w http.ResponseWriter, r *http.Request, status int, s shell) error {
	s.Lang = langOfPage(r)
	s.Query = strings.TrimSpace(r.URL.Query().Get("q"))
	s.Here = r.URL.RequestURI()
	s.Said = saidInWords(s.Lang, r.URL.Query().Get("done"))
	s.HasCaught, s.HasLog, s.With = p.with.Caught != nil, p.api.ServiceLog != nil, p.with
	s.Words = newWords(s.Lang, p.api.now(), p.api.Zone)
	s.By = PrincipalFrom(r.Context())
	s.Sample = p.with.Sample != nil && p.with.Sample()
	if s.Section == "" {
		s.Section = s.Page
	}
	var page bytes.Buffer
	if err := p.templates[s.Lang][s.Page].ExecuteTemplate(&page, "layout", s); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Add("Vary", "Accept-Language, Cookie")
	w.WriteHeader(status)
	w.Write(page.Bytes())
	return nil
}

// telling is how a page tells stories.
func (p *Pages) telling(r *http.Request) Telling {
	return Telling{Lang: langOfPage(r), Zone: p.api.Zone, Now: p.api.now()}
}

// asset is a file that pages load. Its address on a page names its content, so that
// a browser asks for it once.
type asset struct {
	kind    string
	content []byte
	hash    string
}

func newAsset(name string, content []byte) asset {
	kinds := map[string]string{"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
	sum := sha256.Sum256(content)
	return asset{kinds[name[strings.LastIndexByte(name, '.')+1:]], content, hex.EncodeToString(sum[:6])}
}

func (a asset) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", a.kind)
	h.Set("Cache-Control", "max-age=60")
	if r.URL.Query().Get("v") == a.hash {
		h.Set("Cache-Control", "max-age=31536000, immutable")
	}
	h.Set("Content-Length", strconv.Itoa(len(a.content)))
	w.Write(a.content)
}
