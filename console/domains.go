package console

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/deliverd/deliverd/dnscheck"
)

// Domains is what people ask of a domain: the report on it, over the API, and as a
// page behind a link that needs no account. [Domains.Routes] are its doors.
//
//	GET /v1/domains/{domain}      cached? else one run at a time, few at once, few for a caller
//	  run                         DNS and the policy of MTA-STS alone, our history joined
//	  keep                        compared with the run before, and kept in its place
//	POST …/share                  a signed address that expires
//	GET /d/{share}                the page: the same report, in words, to be printed
//
// A report costs others something: the DNS of a domain that the caller chooses. So
// a caller has some runs and then must wait, a result is kept for minutes, and
// nothing that was looked up is connected to, but for the one policy file that
// MTA-STS names (FAULTS C15, G19).
type Domains struct {
	// Check makes a report: dnscheck's Resolver.Check. fresh asks for answers that no
	// cache of ours has held.
	Check func(ctx context.Context, domain string, o dnscheck.Options, fresh bool) dnscheck.Report
	// Options says who we are and how a policy is fetched, as configured at this moment.
	Options func() dnscheck.Options
	// Evidence tells what happened to mail that the tenants, nil for all, sent to a
	// domain: [View.DomainHistory]. Nil: nothing is known.
	Evidence func(ctx context.Context, domain string, tenants []string) (*dnscheck.History, error)
	// Store keeps the last run of each domain.
	Store Store
	// Key signs share links. Whoever has it can make some.
	Key []byte
	// BaseURL is the address that people reach us by, such as "https://mail.acme.example".
	// Links are made from it and never from what a request says of its host (FAULTS G11).
	BaseURL string
	// Zone is that of the times on pages; nil means UTC.
	Zone *time.Location
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Note is told who shared what; nil means nobody.
	Note func(context.Context, LogEntry)
	// Log is told of what failed; nil means silence.
	Log *slog.Logger

	runs domainRuns
}

// DomainReport is the answer to GET /v1/domains/{domain}.
type DomainReport struct {
	dnscheck.Report
	// PreviousAt is when the run before was, which Changes compares this one with.
	PreviousAt time.Time         `json:"previous_at,omitzero"`
	Changes    []dnscheck.Change `json:"changes"`
}

// Routes are the doors of the domain reports.
func (d *Domains) Routes() []Route {
	return []Route{
		{"GET", "/v1/domains/{domain}", ScopeDomains, "", d.answer(d.get)},
		{"POST", "/v1/domains/{domain}/share", ScopeDomains, "", d.answer(d.share)},
		{"GET", "/d/{share}", "", "", http.HandlerFunc(d.page)},
		{"GET", "/domain.css", "", "", http.HandlerFunc(serveDomainStyle)},
	}
}

func (d *Domains) answer(f func(w http.ResponseWriter, r *http.Request, by *Principal) error) http.Handler {
	return (&API{Log: d.Log}).answer(f)
}

func (d *Domains) now() time.Time {
	if d.Now == nil {
		return time.Now()
	}
	return d.Now()
}

func (d *Domains) logger() *slog.Logger {
	if d.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return d.Log
}

func (d *Domains) get(w http.ResponseWriter, r *http.Request, by *Principal) error {
	domain, err := domainOf(r)
	if err != nil {
		return err
	}
	lang, err := langOf(r)
	if err != nil {
		return err
	}
	q := domainQuery{domain: domain, lang: lang, seer: seerOf(by), fresh: r.URL.Query().Get("fresh") == "1"}
	report, err := d.report(r.Context(), q, func() error { return d.runs.allow(by, d.now()) })
	if err != nil {
		return err
	}
	report.Query = r.PathValue("domain")
	writeJSON(w, http.StatusOK, report)
	return nil
}

// domainOf reads the domain that the path names, in any form that people write.
func domainOf(r *http.Request) (string, error) {
	domain, err := dnscheck.NormalDomain(r.PathValue("domain"))
	if err != nil {
		return "", invalid("domain", "Name a domain on the Internet, as in “example.com”.")
	}
	return domain, nil
}

// langOf is the language that a request asks for.
func langOf(r *http.Request) (string, error) {
	asked := r.URL.Query().Get("lang")
	if asked == "" {
		first, _, _ := strings.Cut(r.Header.Get("Accept-Language"), ",")
		return language(first), nil
	}
	if !slices.Contains(languages[:], asked) {
		return "", invalid("lang", "The languages are "+strings.Join(languages[:], " and ")+".")
	}
	return asked, nil
}

// seer is whose history a report tells.
type seer struct {
	blind   bool     // nobody's
	tenants []string // these tenants', sorted; nil: everybody's
}

func seerOf(by *Principal) seer {
	tenants := slices.Clone(by.visible(""))
	slices.Sort(tenants)
	return seer{tenants: tenants}
}

// key tells seers apart.
func (s seer) key() string {
	switch {
	case s.blind:
		return "nobody"
	case s.tenants == nil:
		return "everybody"
	}
	return "tenants\x00" + strings.Join(s.tenants, "\x00")
}
