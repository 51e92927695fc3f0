package daemon

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/deliverd/deliverd/console"
	"github.com/deliverd/deliverd/deliver/tlspolicy"
	"github.com/deliverd/deliverd/deliver/tlsrpt"
	"github.com/deliverd/deliverd/mail"
)

// reportEvery is how often reports that are due are looked for.
const reportEvery = 10 * time.Minute

// openTLSReports begins to collect how TLS goes, and to tell the domains.
func (d *Daemon) openTLSReports(ctx context.Context) error {
	if !d.config.TLS.Reports {
		return nil
	}
	store, err := d.queue.Shared(ctx, "tlsrpt")
	if err != nil {
		return err
	}
	node := strings.ToLower(rand.Text()[:12])
	d.sessions = tlsrpt.NewCollector(store, node, func(ctx context.Context, domain string) (bool, error) {
		uris, err := d.resolver.TLSReportURIs(ctx, domain)
		return len(uris) > 0, err
	}, d.log)
	d.start("TLS sessions", d.sessions.Keep)
	d.start("TLS reports", func(ctx context.Context) { d.sendTLSReports(ctx, d.reporter(store, node)) })
	return nil
}

func (d *Daemon) reporter(store tlsrpt.Store, node string) *tlsrpt.Reporter {
	c := d.config
	from := addrSpec(c.Send.From)
	submitter := c.hello()
	if from != "" {
		submitter = from.Domain()
	}
	r := &tlsrpt.Reporter{
		Store: store, Node: node, From: c.Send.From, Submitter: submitter,
		Organization: cmp.Or(c.TLS.Organization, submitter), Contact: cmp.Or(c.TLS.Contact, string(from), "postmaster@"+submitter),
		URIs: d.resolver.TLSReportURIs, Log: d.log,
		Post: func(ctx context.Context, to *url.URL, contentType string, body []byte) error {
			return d.resolver.Post(ctx, to, contentType, body, c.web())
		},
	}
	if signer, err := c.signer(); err == nil && signer != nil && from != "" && len(signer.KeysFor(from.Domain())) > 0 {
		r.Enqueue = d.enqueueReport
	}
	return r
}

// enqueueReport hands a report to the queue as a message of our own. Its idempotency
// key is all that it is known by: whatever came under it first is the report.
func (d *Daemon) enqueueReport(ctx context.Context, m *mail.Message) error {
	_, err := d.queue.Enqueue(ctx, m, sha256.Sum256([]byte(m.IdempotencyKey)))
	return err
}

func (d *Daemon) sendTLSReports(ctx context.Context, r *tlsrpt.Reporter) {
	for sleep(ctx, reportEvery) {
		if err := r.Due(ctx, time.Now()); err != nil && ctx.Err() == nil {
			d.log.Warn("TLS reports could not be looked after; they are tried again", "error", err)
		}
	}
}

// tlsSession counts a connection.
func (d *Daemon) tlsSession(s tlspolicy.Session) {
	d.metrics.tlsSessions.WithLabelValues(s.Type, cmp.Or(string(s.Failure), "ok")).Inc()
	if s.Downgrade {
		d.metrics.downgrades.Inc()
	}
	if d.sessions != nil {
		d.sessions.Add(s, time.Now())
	}
}

// tlsAnswer is the answer to GET /v1/tls.
type tlsAnswer struct {
	// Sessions are what this node counted today and yesterday.
	Sessions []tlsrpt.Tally `json:"sessions"`
	// Policies are the MTA-STS policies that all nodes remember.
	Policies []tlsKept `json:"policies"`
}

type tlsKept struct {
	Domain  string    `json:"domain"`
	Mode    string    `json:"mode"`
	MX      []string  `json:"mx"`
	ID      string    `json:"id"`
	Fetched time.Time `json:"fetched_at"`
	Expires time.Time `json:"expires_at"`
}

// tlsRoutes shows what is known about TLS to operators.
func (d *Daemon) tlsRoutes() []console.Route {
	return []console.Route{{
		Method: "GET", Pattern: "/v1/tls", Scope: console.ScopeAdmin,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			answer, err := d.tlsKnown(r.Context())
			if err != nil {
				d.log.Warn("what is known about TLS could not be read", "error", err)
				writeProblem(w, &mail.Problem{Type: mail.ProblemUnavailable, Title: "Could not be read", Status: http.StatusServiceUnavailable, Detail: "Ask again in a moment.", RetryAfter: 5})
				return
			}
			writeJSON(w, http.StatusOK, answer)
		}),
	}}
}

func (d *Daemon) tlsKnown(ctx context.Context) (*tlsAnswer, error) {
	answer := &tlsAnswer{Sessions: []tlsrpt.Tally{}, Policies: []tlsKept{}}
	if d.sessions != nil {
		answer.Sessions = append(answer.Sessions, d.sessions.Tallies()...)
	}
	if d.policies == nil || d.policies.STS == nil {
		return answer, nil
	}
	kept, err := d.policies.STS.Policies(ctx)
	for _, k := range kept {
		answer.Policies = append(answer.Policies, tlsKept{k.Domain, k.Mode, k.MX, k.ID, k.Fetched, k.Expires()})
	}
	return answer, err
}
