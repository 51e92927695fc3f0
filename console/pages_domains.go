package console

import (
	"net/http"
	"strings"

	"github.com/deliverd/deliverd/dnscheck"
	"github.com/deliverd/deliverd/mail"
)

// domainsPage is the content of the page about a domain, or of the empty form.
type domainsPage struct {
	Query   string
	Story   *DomainStory // nil where none was asked for
	Changes []string
	Ours    []Summary // our latest mail there
	Problem *mail.Problem
}

// oursRows of our own mail to a domain are shown.
const oursRows = 10

func (p *Pages) domains(w http.ResponseWriter, r *http.Request, by *Principal) error {
	content := domainsPage{Query: strings.TrimSpace(r.URL.Query().Get("domain"))}
	title := pageWord(langOfPage(r), "Domains")
	status := http.StatusOK
	if content.Query != "" {
		title = content.Query
		if err := p.fillDomain(r, by, &content); err != nil {
			content.Problem = asProblem(r.Context(), p.api.logger(), err)
			status = content.Problem.Status
		}
	}
	return p.show(w, r, status, shell{Title: title + " – deliverd", Page: "domains", Content: content})
}

func (p *Pages) fillDomain(r *http.Request, by *Principal, content *domainsPage) error {
	asked := content.Query
	if i := strings.LastIndexByte(asked, '@'); i >= 0 { // an address will do
		asked = asked[i+1:]
	}
	domain, err := dnscheck.NormalDomain(asked)
	if err != nil {
		return invalid("domain", "Name a domain on the Internet, as in “example.com”.")
	}
	d := p.with.Domains
	q := domainQuery{domain: domain, lang: langOfPage(r), seer: seerOf(by), fresh: r.URL.Query().Get("fresh") == "1"}
	report, err := d.report(r.Context(), q, func() error { return d.runs.allow(by, d.now()) })
	if err != nil {
		return err
	}
	story := TellDomain(&report.Report, d.Options().Sender, Telling{Lang: q.lang, Now: d.now(), Zone: p.api.Zone})
	content.Story, content.Changes = &story, changesIn(story.words, report.Changes)
	content.Ours, err = p.api.View.ToDomain(r.Context(), domain, by.visible(""), oursRows)
	return err
}
