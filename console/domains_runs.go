package console

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/deliverd/deliverd/dnscheck"
	"github.com/deliverd/deliverd/mail"
)

const (
	// reportFor is how long a report answers; unknownFor one that the DNS left unknown,
	// and freshFloor how young one may be and yet be made anew for ?fresh=1.
	reportFor  = 10 * time.Minute
	unknownFor = time.Minute
	freshFloor = 10 * time.Second
	// runsAtOnce is how many domains are checked at once, and runWait how long a request
	// waits for its turn.
	runsAtOnce = 16
	runWait    = 5 * time.Second
	// runsKnown is how many reports are remembered: some 10 KiB each, 1 MiB where a zone
	// does its worst.
	runsKnown = 500
	// callerBurst runs are free for a caller, then one every callerEvery: a support team
	// looks at some domains an hour, and a scanner at thousands.
	callerBurst = 30
	callerEvery = 4 * time.Second
	callersMax  = 10_000
)

// domainQuery is what a report is asked for.
type domainQuery struct {
	domain, lang string
	seer         seer
	fresh        bool
}

func (q *domainQuery) key() string { return q.domain + " " + q.lang + " " + q.seer.key() }

// domainRuns remembers reports, has each made once however many ask, and bounds how
// many are made. The zero value is ready.
type domainRuns struct {
	mu      sync.Mutex
	known   map[string]*domainRun
	callers map[string]*rate.Limiter
	slots   chan struct{}
	kept    int // since the store was swept
}

// domainRun is a run under way, or its result.
type domainRun struct {
	done   chan struct{} // closed when the rest is set
	report DomainReport
	err    error
	until  time.Time // when it stops answering; zero while under way
}

// allow takes one run from what a caller may have made, or says how long to wait.
// Tokens of the same tenants share.
func (m *domainRuns) allow(by *Principal, now time.Time) error {
	who := by.Via + " " + by.ID + " " + by.Name
	if !by.seesAll() {
		who = seerOf(by).key()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.callers == nil || len(m.callers) >= callersMax {
		m.callers = map[string]*rate.Limiter{}
	}
	l := m.callers[who]
	if l == nil {
		l = rate.NewLimiter(rate.Every(callerEvery), callerBurst)
		m.callers[who] = l
	}
	if l.AllowN(now, 1) {
		return nil
	}
	r := l.ReserveN(now, 1)
	defer r.CancelAt(now)
	return &mail.Problem{
		Type: mail.ProblemRateLimited, Title: "Too many domains", Status: http.StatusTooManyRequests,
		Detail: "Each check asks the servers of others. Wait, or use “deliverd check” for a long list.", RetryAfter: int(math.Ceil(r.DelayFrom(now).Seconds())),
	}
}

// begin returns the run that answers q; first says that the caller has to make it,
// and then call end.
func (m *domainRuns) begin(q *domainQuery, now time.Time) (run *domainRun, first bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known == nil {
		m.known = map[string]*domainRun{}
		m.slots = make(chan struct{}, runsAtOnce)
	}
	run = m.known[q.key()]
	if run != nil && (run.until.IsZero() || now.Before(run.until) && (!q.fresh || now.Sub(run.report.At) < freshFloor)) {
		return run, false
	}
	m.forget(now)
	run = &domainRun{done: make(chan struct{})}
	m.known[q.key()] = run
	return run, true
}

// forget drops what has expired, and what expires first if that leaves no room.
func (m *domainRuns) forget(now time.Time) {
	oldest := ""
	for key, run := range m.known {
		switch {
		case run.until.IsZero():
		case !now.Before(run.until):
			delete(m.known, key)
		case oldest == "" || run.until.Before(m.known[oldest].until):
			oldest = key
		}
	}
	if len(m.known) >= runsKnown {
		delete(m.known, oldest)
	}
}

// end gives a run's result to all who wait. A failure answers nobody who comes later.
func (m *domainRuns) end(q *domainQuery, run *domainRun, report DomainReport, err error, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	run.report, run.err = report, err
	switch {
	case err != nil:
		run.until = now
		delete(m.known, q.key())
	case report.Verdict == dnscheck.Unknown:
		run.until = now.Add(unknownFor)
	default:
		run.until = now.Add(reportFor)
	}
	close(run.done)
}

// report returns a remembered report, or has one made, if allow does not object.
func (d *Domains) report(ctx context.Context, q domainQuery, allow func() error) (DomainReport, error) {
	for {
		run, first := d.runs.begin(&q, d.now())
		if first {
			return d.lead(ctx, &q, run, allow)
		}
		select {
		case <-run.done:
		case <-ctx.Done():
			return DomainReport{}, ctx.Err()
		}
		if run.err == nil {
			return run.report, nil
		}
		// What kept another caller from it, such as having asked too much, is no reason
		// for this one.
	}
}

// errCutShort is what those are told who wait for a run that panics.
var errCutShort = errors.New("the check was cut short")

func (d *Domains) lead(ctx context.Context, q *domainQuery, run *domainRun, allow func() error) (report DomainReport, err error) {
	err = errCutShort
	defer func() { d.runs.end(q, run, report, err, d.now()) }()
	report, err = d.make(ctx, q, allow)
	return report, err
}

// make makes a report, when it is its turn.
func (d *Domains) make(ctx context.Context, q *domainQuery, allow func() error) (DomainReport, error) {
	if err := allow(); err != nil {
		return DomainReport{}, err
	}
	turn := time.NewTimer(runWait)
	defer turn.Stop()
	select {
	case d.runs.slots <- struct{}{}:
		defer func() { <-d.runs.slots }()
	case <-turn.C:
		return DomainReport{}, unavailable("Too many domains are being checked. Try again.")
	case <-ctx.Done():
		return DomainReport{}, ctx.Err()
	}
	// Others may wait for it when this caller has gone. It ends within 5 s by itself.
	ctx = context.WithoutCancel(ctx)
	o := d.Options()
	o.Lang, o.Clients = q.lang, true
	// Never by order of a request: it would make us a scanner of ports (FAULTS G19).
	o.Converse = nil
	if d.Evidence != nil && !q.seer.blind {
		o.History = func(ctx context.Context, domain string) *dnscheck.History {
			h, err := d.Evidence(ctx, domain, q.seer.tenants)
			if err != nil {
				d.logger().WarnContext(ctx, "what happened to our mail is left out of a report", "domain", domain, "error", err)
			}
			return h
		}
	}
	report := DomainReport{Report: d.Check(ctx, q.domain, o, q.fresh), Changes: []dnscheck.Change{}}
	d.compare(ctx, q, &report)
	return report, nil
}

const (
	// keptMost runs are kept, and none for longer than keptFor: a sweep every
	// sweepEvery runs sees to that.
	keptMost   = 5000
	keptFor    = 180 * 24 * time.Hour
	sweepEvery = 500
)

// compare tells what is new since the run before, and keeps this one in its place.
// That neither can be done leaves the report as it is.
func (d *Domains) compare(ctx context.Context, q *domainQuery, report *DomainReport) {
	key := keptKey(q)
	value, found, err := d.Store.Get(ctx, key)
	var before dnscheck.Report
	if err == nil && found {
		err = json.Unmarshal(value, &before)
	}
	if err != nil {
		d.logger().WarnContext(ctx, "the domain's last report can't be read", "domain", q.domain, "error", err)
	} else if found {
		report.PreviousAt = before.At
		report.Changes = append(report.Changes, report.Report.Changes(&before)...)
	}
	if report.Verdict == dnscheck.Unknown {
		return // it would compare with nothing
	}
	if value, err = json.Marshal(kept(&report.Report)); err == nil {
		err = d.Store.Put(ctx, key, value)
	}
	if err == nil && d.runs.sweepDue() {
		err = d.sweep(ctx)
	}
	if err != nil {
		d.logger().WarnContext(ctx, "the domain's report is not kept", "domain", q.domain, "error", err)
	}
}

// keptKey is where the last run is kept: one for each that sees another history, as
// that has a say in the verdict.
func keptKey(q *domainQuery) string {
	if q.seer.tenants == nil && !q.seer.blind {
		return q.domain
	}
	sum := sha256.Sum256([]byte(q.seer.key()))
	return q.domain + "." + hex.EncodeToString(sum[:8])
}

// kept is as much of a report as the next one is compared with.
func kept(r *dnscheck.Report) dnscheck.Report {
	k := dnscheck.Report{Version: r.Version, Domain: r.Domain, At: r.At, Verdict: r.Verdict, Provider: r.Provider, Behind: r.Behind}
	for _, f := range r.Findings {
		k.Findings = append(k.Findings, dnscheck.Finding{Code: f.Code, State: f.State, Subject: f.Subject})
	}
	return k
}

// sweepDue counts a run that was kept.
func (m *domainRuns) sweepDue() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kept++
	return m.kept%sweepEvery == 0
}

// sweep deletes what is too old and, of too many, the oldest.
func (d *Domains) sweep(ctx context.Context) error {
	all, err := d.Store.All(ctx)
	if err != nil {
		return err
	}
	type run struct {
		key string
		at  time.Time
	}
	var runs []run
	for key, value := range all {
		var head struct{ At time.Time }
		if json.Unmarshal(value, &head) != nil {
			head.At = time.Time{} // the oldest there can be
		}
		runs = append(runs, run{key, head.At})
	}
	slices.SortFunc(runs, func(a, b run) int { return cmp.Or(b.at.Compare(a.at), strings.Compare(a.key, b.key)) })
	oldest := d.now().Add(-keptFor)
	for i, r := range runs {
		if i < keptMost && r.at.After(oldest) {
			continue
		}
		if err := d.Store.Delete(ctx, r.key); err != nil {
			return err
		}
	}
	return nil
}
