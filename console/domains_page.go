package console

import (
	"bytes"
	_ "embed"
	"html/template"
	"net/http"
	"regexp"
	"strconv"

	"github.com/deliverd/deliverd/dnscheck"
)

//go:embed pages/domain.html
var domainPage string

//go:embed pages/domain.css
var domainStyle []byte

//go:embed pages/report.html
var reportPart string

// domainTemplate is parsed from the program itself; a test shows it.
var domainTemplate = template.Must(template.New("domain").Parse(domainPage + reportPart))

// domainPolicy: our own style sheet and nothing else.
const domainPolicy = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// sharedPage is what the page shows.
type sharedPage struct {
	Lang    string
	Title   string
	Story   *DomainStory // nil: Text is all there is
	Changes []string
	Checked string // when, with how much, and until when the page is there
	Text    string
}

// anybody is in whose name pages have reports made: all of them share what one
// caller may have.
var anybody = &Principal{Name: "a shared page", ID: "page", Tenants: []string{AllTenants}}

// page shows the report that a share link names, as it is now. Whoever has the
// link may see it, so it says nothing but the domain's report, our own values, and,
// if the link allows, numbers about our mail there.
func (d *Domains) page(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", domainPolicy)
	h.Set("X-Robots-Tag", "noindex, nofollow")
	s, ok := d.open(r.PathValue("share"))
	if !ok {
		lang, err := langOf(r)
		if err != nil {
			lang = languages[0]
		}
		d.apologize(w, http.StatusNotFound, lang, "domain.none")
		return
	}
	if !d.now().Before(s.expires) {
		d.apologize(w, http.StatusGone, s.lang, "domain.gone")
		return
	}
	q := domainQuery{domain: s.domain, lang: s.lang, seer: seer{blind: !s.history}}
	report, err := d.report(r.Context(), q, func() error { return d.runs.allow(anybody, d.now()) })
	if err != nil {
		d.logger().WarnContext(r.Context(), "a shared page could not be shown", "domain", s.domain, "error", err)
		d.apologize(w, http.StatusServiceUnavailable, s.lang, "domain.busy")
		return
	}
	d.show(w, http.StatusOK, d.shared(&report, s))
}

// shared tells a report for the page.
func (d *Domains) shared(report *DomainReport, s sharedDomain) sharedPage {
	public := forAnybody(report.Report)
	story := TellDomain(&public, d.Options().Sender, Telling{Lang: s.lang, Now: d.now(), Zone: d.Zone})
	w := story.words
	return sharedPage{
		Lang: s.lang, Title: w.say("domain.page.title", "domain", s.domain), Story: &story, Changes: changesIn(w, report.Changes),
		Checked: w.say("domain.page.checked", "time", report.At.In(w.zone).Format(w.say("domain.date.time")), "zone", w.zone.String(), "n", strconv.Itoa(report.Queries),
			"until", s.expires.In(w.zone).Format(w.say("domain.date"))),
	}
}

// ourServer is where evidence says that an answer came from: our own resolver, whose
// address is nobody's business.
var ourServer = regexp.MustCompile(`,? from \S+:\d+`)

// forAnybody leaves out of a report what is not for whoever has a link: our own
// network, and the words of servers, which may name people.
func forAnybody(r dnscheck.Report) dnscheck.Report {
	if r.History != nil {
		numbers := *r.History
		numbers.LastReplies = nil
		r.History = &numbers
	}
	findings := r.Findings
	r.Findings = nil
	for _, f := range findings {
		evidence := f.Evidence
		f.Evidence = nil
		for _, e := range evidence {
			if f.Code != "history.refused" {
				f.Evidence = append(f.Evidence, ourServer.ReplaceAllString(e, ""))
			}
		}
		if f.Code != "dns.edns_broken" { // about our resolver
			r.Findings = append(r.Findings, f)
		}
	}
	return r
}

// changesIn tells what is new, in words.
func changesIn(w words, changes []dnscheck.Change) []string {
	var told []string
	for _, c := range changes {
		before, now := c.Before, c.Now
		if c.What == "verdict" {
			before, now = w.say("domain.verdict."+before), w.say("domain.verdict."+now)
		}
		if before == "" {
			before = w.say("domain.change.nobody")
		}
		if now == "" {
			now = w.say("domain.change.nobody")
		}
		told = append(told, w.say("domain.change."+c.What, "before", before, "now", now, "code", c.Code, "subject", c.About))
	}
	return told
}

// apologize shows a page that says why there is none.
func (d *Domains) apologize(w http.ResponseWriter, status int, lang, phrase string) {
	words := newWords(lang, d.now(), d.Zone)
	d.show(w, status, sharedPage{Lang: words.lang, Title: words.say(phrase + ".title"), Text: words.say(phrase + ".text")})
}

func (d *Domains) show(w http.ResponseWriter, status int, p sharedPage) {
	var page bytes.Buffer
	if err := domainTemplate.Execute(&page, p); err != nil {
		d.logger().Error("a page could not be made", "error", err)
		writeProblem(w, unavailable("Something on our side failed; the log tells what. Try again."))
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	w.Write(page.Bytes())
}

func serveDomainStyle(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	w.Header().Set("Cache-Control", "max-age=300")
	w.Write(domainStyle)
}
