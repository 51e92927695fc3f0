package tlsrpt

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"mime"
	"mime/multipart"
	netmail "net/mail"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/deliverd/deliverd/deliver/tlspolicy"
	"github.com/deliverd/deliverd/mail"
)

// memoryStore is a store that several nodes of a test share.
type memoryStore struct {
	mu     sync.Mutex
	values map[string][]byte
	down   bool
}

func (s *memoryStore) Get(_ context.Context, key string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.values[key]; ok && !s.down {
		return v, nil
	}
	return nil, errors.New("not there")
}

func (s *memoryStore) Put(_ context.Context, key string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return errors.New("down")
	}
	s.values[key] = value
	return nil
}

func (s *memoryStore) Delete(_ context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.values, key)
	return nil
}

func (s *memoryStore) All(context.Context) (map[string][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.values), nil
}

var quiet = slog.New(slog.DiscardHandler)

func wanted(_ context.Context, domain string) (bool, error) { return domain != "silent.example", nil }

func session(domain string, failure mail.TLSFailure) tlspolicy.Session {
	return tlspolicy.Session{
		Policy:  tlspolicy.Policy{Type: tlspolicy.STSType, Domain: domain, Strings: []string{"version: STSv1", "mode: testing"}, MX: []string{"*.dest.example"}},
		Failure: failure, Reason: "expired on 2026-11-01", Host: "mx1.dest.example", Address: netip.MustParseAddr("192.0.2.1"),
	}
}

var day = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// lab is two nodes that share a store, and what they send.
type lab struct {
	t     *testing.T
	store *memoryStore
	nodes []*Collector
	mails map[string]*mail.Message // by idempotency key
	posts map[string][]byte
	fail  error // of Post
}

func newLab(t *testing.T) *lab {
	l := &lab{t: t, store: &memoryStore{values: map[string][]byte{}}, mails: map[string]*mail.Message{}, posts: map[string][]byte{}}
	for i := range 2 {
		l.nodes = append(l.nodes, NewCollector(l.store, fmt.Sprint("node", i), wanted, quiet))
	}
	return l
}

func (l *lab) reporter(node string, rua ...string) *Reporter {
	return &Reporter{
		Store: l.store, Organization: "Acme", Contact: "it@acme.example", Submitter: "acme.example", From: "Acme <no-reply@acme.example>", Node: node, Log: quiet,
		URIs: func(context.Context, string) (uris []*url.URL, err error) {
			for _, s := range rua {
				u, err := url.Parse(s)
				if err != nil {
					l.t.Fatal(err)
				}
				uris = append(uris, u)
			}
			return uris, nil
		},
		Enqueue: func(_ context.Context, m *mail.Message) error {
			if l.mails[m.IdempotencyKey] == nil {
				l.mails[m.IdempotencyKey] = m
			}
			return nil
		},
		Post: func(_ context.Context, to *url.URL, kind string, body []byte) error {
			if l.fail == nil {
				l.posts[kind+" "+to.String()] = body
			}
			return l.fail
		},
	}
}

func unpack(t *testing.T, packed []byte) (r Report, raw map[string]any) {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(json.Unmarshal(text, &r), json.Unmarshal(text, &raw)); err != nil {
		t.Fatal(err)
	}
	return r, raw
}

// A day on two nodes becomes one report, which goes out once, whoever comes to it first.
func TestADay(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for range 3 {
		l.nodes[0].Add(session("dest.example", ""), day)
		l.nodes[1].Add(session("dest.example", mail.TLSExpired), day)
	}
	l.nodes[1].Add(session("dest.example", mail.TLSAMismatch), day)
	fetch := session("dest.example", "")
	fetch.Fetch, fetch.FetchReason = tlspolicy.FetchFailed, "404"
	l.nodes[0].Add(fetch, day)
	l.nodes[0].Add(session("silent.example", ""), day)
	l.nodes[0].Add(session("dest.example", ""), day.AddDate(0, 0, 1)) // the next day's
	for _, n := range l.nodes {
		n.Save(t.Context(), day)
	}
	rua := []string{"mailto:tls%2dreports@dest.example?subject=x", "https://r.dest.example/tls", "mailto:not an address@x"}
	first, second := l.reporter("node0", rua...), l.reporter("node1", rua...)
	midnight := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	if err := first.Due(t.Context(), midnight.Add(settle-time.Second)); err != nil || len(l.mails)+len(l.posts) != 0 {
		t.Fatalf("before it is due: %v, %d sent", err, len(l.mails))
	}
	for _, r := range []*Reporter{first, second, first} {
		if err := r.Due(t.Context(), midnight.Add(settle+spread)); err != nil {
			t.Fatal(err)
		}
	}
	if len(l.mails) != 1 || len(l.posts) != 1 {
		t.Fatalf("%d mails, %d posts", len(l.mails), len(l.posts))
	}
	m := l.mails["tls-report 2026-11-21.dest.example@acme.example tls-reports@dest.example"]
	if m == nil {
		t.Fatalf("mails: %v", l.mails)
	}
	report, raw := unpack(t, l.posts["application/tlsrpt+gzip https://r.dest.example/tls"])
	if report.Organization != "Acme" || report.Contact != "it@acme.example" || report.ID != "2026-11-21.dest.example@acme.example" || len(report.Policies) != 2 {
		t.Errorf("report %+v", report)
	}
	if got := raw["date-range"]; fmt.Sprint(got) != "map[end-datetime:2026-11-21T23:59:59Z start-datetime:2026-11-21T00:00:00Z]" {
		t.Errorf("date-range %v", got)
	}
	p := report.Policies[slices.IndexFunc(report.Policies, func(r Result) bool { return r.Summary.Succeeded > 0 })]
	if p.Summary != (Summary{4, 4}) || p.Policy.Type != "sts" || p.Policy.Domain != "dest.example" || p.Policy.MX[0] != "*.dest.example" || len(p.Failures) != 2 {
		t.Errorf("policy %+v", p)
	}
	if f := p.Failures[0]; f != (Details{Type: "certificate-expired", MXHost: "mx1.dest.example", Address: "192.0.2.1", Count: 3, Additional: "expired on 2026-11-01"}) {
		t.Errorf("failure %+v", f)
	}
	if f := p.Failures[1]; f.Type != "validation-failure" || f.Reason != "tlsa-mismatch" {
		t.Errorf("failure %+v", f)
	}
	// What is left in the store is the next day's, and that this one is done.
	left := slices.Sorted(maps.Keys(l.store.values))
	if len(left) != 2 || left[0] != "claim.2026-11-21.dest.example" || !strings.HasPrefix(left[1], "tally.2026-11-22.node0.") {
		t.Errorf("left: %v", left)
	}
	checkMail(t, m, l.posts["application/tlsrpt+gzip https://r.dest.example/tls"])
}

// checkMail reads a report's mail as its receiver does (RFC 8460 5.3).
func checkMail(t *testing.T, m *mail.Message, packed []byte) {
	t.Helper()
	raw, err := Render(m)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := Render(m); !bytes.Equal(raw, again) {
		t.Error("the same message has other bytes")
	}
	for line := range strings.Lines(string(raw)) {
		if !strings.HasSuffix(line, "\r\n") || len(line) > 200 {
			t.Errorf("line %q", line)
		}
	}
	got, err := netmail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"From": "<no-reply@acme.example>", "To": "<tls-reports@dest.example>", "TLS-Report-Domain": "dest.example", "TLS-Report-Submitter": "acme.example",
		"Subject": "Report Domain: dest.example Submitter: acme.example Report-ID: <2026-11-21.dest.example@acme.example>", "TLS-Required": "No",
	} {
		if got.Header.Get(name) != want {
			t.Errorf("%s: %q, want %q", name, got.Header.Get(name), want)
		}
	}
	kind, params, err := mime.ParseMediaType(got.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/report" || params["report-type"] != "tlsrpt" {
		t.Fatalf("%s %v, %v", kind, params, err)
	}
	parts := multipart.NewReader(got.Body, params["boundary"])
	if text, err := parts.NextPart(); err != nil || !strings.HasPrefix(text.Header.Get("Content-Type"), "text/plain") {
		t.Fatalf("%v", err)
	}
	attached, err := parts.NextRawPart()
	if err != nil || attached.Header.Get("Content-Type") != "application/tlsrpt+gzip" || attached.FileName() != "acme.example!dest.example!1795219200!1795305599.json.gz" {
		t.Fatalf("%v %v, %v", attached.Header, attached.FileName(), err)
	}
	body, err := io.ReadAll(base64.NewDecoder(base64.StdEncoding, attached))
	if err != nil || !bytes.Equal(body, packed) {
		t.Errorf("the attachment is not the report: %v", err)
	}
}

// What can't be sent is tried again, by another node if need be, not sent twice to those
// that have it, and given up when nobody needs it any more.
func TestTriedAgain(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.nodes[0].Add(session("dest.example", ""), day)
	l.nodes[0].Save(t.Context(), day)
	l.fail = errors.New("connection refused")
	rua := []string{"mailto:t@dest.example", "https://r.dest.example/"}
	first, second := l.reporter("node0", rua...), l.reporter("node1", rua...)
	now := time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)
	due := func(r *Reporter, at time.Time) {
		t.Helper()
		if err := r.Due(t.Context(), at); err != nil {
			t.Fatal(err)
		}
	}
	due(first, now)
	if len(l.mails) != 1 || len(l.posts) != 0 {
		t.Fatalf("%d mails, %d posts", len(l.mails), len(l.posts))
	}
	clear(l.mails)
	l.fail = nil
	due(second, now.Add(time.Minute))
	if len(l.posts) != 0 {
		t.Error("the second node sends while the first has it in hand")
	}
	due(second, now.Add(claimFor))
	if len(l.mails) != 0 || len(l.posts) != 1 {
		t.Errorf("%d mails, %d posts", len(l.mails), len(l.posts))
	}
	l.nodes[0].Add(session("late.example", ""), day)
	l.nodes[0].Save(t.Context(), day)
	l.fail = errors.New("connection refused")
	due(first, now.Add(giveUp))
	for key := range l.store.values {
		if strings.HasPrefix(key, "tally.") {
			t.Errorf("%s is kept for ever", key)
		}
	}
	due(first, now.Add(5*24*time.Hour))
	if len(l.store.values) != 0 {
		t.Errorf("left: %v", l.store.values)
	}
}

// Whatever servers do, what is kept of a day is bounded, and what is dropped in detail
// is in the sums.
func TestBounds(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	c := l.nodes[0]
	for i := range 500 {
		s := session("dest.example", mail.TLSExpired)
		s.Host, s.Strings = fmt.Sprintf("mx%d.dest.example", i), []string{fmt.Sprint("mx: ", i/100)}
		c.Add(s, day)
	}
	for i := range 20 {
		s := session("other.example", "")
		s.Strings = []string{fmt.Sprint(i)}
		c.Add(s, day)
	}
	for i := range maxDomains + 10 {
		c.Add(session(fmt.Sprintf("d%d.example", i), ""), day)
	}
	tallies := c.Tallies()
	if len(tallies) != maxDomains || c.dropped != 12 {
		t.Errorf("%d domains, %d dropped", len(tallies), c.dropped)
	}
	for _, tally := range tallies {
		failed, succeeded := 0, 0
		for _, p := range tally.Policies {
			failed += p.Failed
			succeeded += p.Succeeded
			if len(p.Failures) > maxFailures {
				t.Errorf("%d failures", len(p.Failures))
			}
		}
		switch tally.Domain {
		case "dest.example":
			if failed != 500 || len(tally.Policies) != 5 {
				t.Errorf("%d failed under %d policies", failed, len(tally.Policies))
			}
		case "other.example":
			if succeeded != 20 || len(tally.Policies) != maxPolicies {
				t.Errorf("%d succeeded under %d policies", succeeded, len(tally.Policies))
			}
		}
	}
}

// A store that is down costs nothing but time.
func TestSavedLater(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.store.down = true
	l.nodes[0].Add(session("dest.example", ""), day)
	l.nodes[0].Save(t.Context(), day)
	l.store.down = false
	l.nodes[0].Save(t.Context(), day)
	if len(l.store.values) != 1 {
		t.Errorf("kept: %v", l.store.values)
	}
	l.nodes[0].Save(t.Context(), day.AddDate(0, 0, 2))
	if left := l.nodes[0].Tallies(); len(left) != 0 {
		t.Errorf("of the day before yesterday: %v", left)
	}
}

// No value can end a header or a line.
func TestRenderIsBounded(t *testing.T) {
	t.Parallel()
	report := &Report{ID: "x\r\nBcc: v@x.example", Policies: []Result{{Policy: ReportPolicy{Type: "sts"}, Failures: []Details{{Type: "a\r\n.\r\n", MXHost: "\x1b[2J"}}}}}
	r := &Reporter{From: "no-reply@acme.example", Submitter: "acme\"\r\n.example"}
	m := r.message("t@dest.example", report, "dest\r\nX-Evil: 1\r\n.example", []byte("packed"), day)
	raw, err := Render(m)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"\nBcc:", "\nX-Evil", "\n.\r", "\x1b"} {
		if strings.Contains(string(raw), bad) {
			t.Errorf("%q got through: %s", bad, raw)
		}
	}
	if _, err := Render(&mail.Message{ID: m.ID, From: m.From}); err == nil {
		t.Error("a report without a report")
	}
}
