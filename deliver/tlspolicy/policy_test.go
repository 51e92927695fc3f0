package tlspolicy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deliverd/deliverd/dnscheck"
	"github.com/deliverd/deliverd/mail"
)

// The table of the package's doc.
func TestDecide(t *testing.T) {
	t.Parallel()
	policy := func(mode string, mx ...string) *Kept {
		return &Kept{STSPolicy: dnscheck.STSPolicy{Mode: mode, MX: mx}, Domain: "dest.example", ID: "1"}
	}
	usable := dnscheck.TLSA{Usage: 3, Selector: 1, Matching: 1, Data: make([]byte, 32)}
	useless := dnscheck.TLSA{Usage: 0, Selector: 1, Matching: 1, Data: make([]byte, 32)}
	at := func(rs ...dnscheck.TLSA) dnscheck.Associations {
		return dnscheck.Associations{Base: "base.example", Records: rs}
	}
	for _, row := range []struct {
		name    string
		facts   Facts
		level   Level
		by      mail.TLSPolicy
		report  string
		barred  mail.TLSFailure
		testing bool
	}{
		{"nothing", Facts{}, Opportunistic, mail.TLSOpportunistic, NoPolicy, "", false},
		{"associations", Facts{Associations: at(usable)}, DANE, mail.TLSByDANE, TLSA, "", false},
		{"associations beside useless ones", Facts{Associations: at(useless, usable)}, DANE, mail.TLSByDANE, TLSA, "", false},
		{"useless ones alone", Facts{Associations: at(useless)}, Encrypted, mail.TLSByUnusable, TLSA, "", false},
		{"useless ones, enforce", Facts{Associations: at(useless), Policy: policy("enforce", "mx.dest.example")}, Verified, mail.TLSBySTS, STSType, "", false},
		{"useless ones, testing", Facts{Associations: at(useless), Policy: policy("testing", "mx.dest.example")}, Encrypted, mail.TLSByUnusable, TLSA, "", false},
		{"unknown associations", Facts{TLSAErr: errors.New("SERVFAIL")}, Opportunistic, mail.TLSByDANE, TLSA, mail.TLSALookup, false},
		{"unknown associations, enforce", Facts{TLSAErr: errors.New("SERVFAIL"), Policy: policy("enforce", "mx.dest.example")}, Opportunistic, mail.TLSByDANE, TLSA, mail.TLSALookup, false},
		{"enforce", Facts{Policy: policy("enforce", "*.dest.example")}, Verified, mail.TLSBySTS, STSType, "", false},
		{"enforce, not listed", Facts{Policy: policy("enforce", "mx.other.example")}, Verified, mail.TLSBySTS, STSType, mail.TLSMXMismatch, false},
		{"testing", Facts{Policy: policy("testing", "mx.dest.example")}, Opportunistic, mail.TLSTesting, STSType, "", true},
		{"testing, not listed", Facts{Policy: policy("testing", "mx.other.example")}, Opportunistic, mail.TLSTesting, STSType, "", true},
		{"none", Facts{Policy: policy("none")}, Opportunistic, mail.TLSOpportunistic, NoPolicy, "", false},
		{"associations win", Facts{Associations: at(usable), Policy: policy("enforce", "mx.other.example")}, DANE, mail.TLSByDANE, TLSA, "", false},
	} {
		row.facts.Domain, row.facts.Host, row.facts.Port = "dest.example", "mx.dest.example", 25
		d, problem := Decide(row.facts)
		if d.Level != row.level || d.By != row.by || d.Report.Type != row.report || d.Testing != row.testing {
			t.Errorf("%s: %+v", row.name, d)
		}
		if (problem == nil) != (row.barred == "") || problem != nil && problem.Failure != row.barred {
			t.Errorf("%s: barred %v, want %q", row.name, problem, row.barred)
		}
		if d.Level == DANE && (d.Host != "base.example" || !slices.Equal(d.Names, []string{"base.example", "mx.dest.example", "dest.example"})) {
			t.Errorf("%s: names %v", row.name, d.Names)
		}
	}
}

// A floor never asks for less.
func TestRaise(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		from   Level
		secure bool
		floor  mail.TLSFloor
		want   Level
		by     mail.TLSPolicy
		barred bool
	}{
		{Opportunistic, false, mail.TLSFloorNone, Opportunistic, "theirs", false},
		{Opportunistic, false, mail.TLSFloorRequired, Encrypted, mail.TLSByKind, false},
		{None, false, mail.TLSFloorRequired, Encrypted, mail.TLSByKind, false},
		{Verified, false, mail.TLSFloorRequired, Verified, "theirs", false},
		{Encrypted, false, mail.TLSFloorVerified, Verified, mail.TLSByKind, false},
		{DANE, false, mail.TLSFloorVerified, DANE, "theirs", false},
		{Implicit, false, mail.TLSFloorVerified, Implicit, "theirs", false},
		{Opportunistic, true, mail.TLSFloorRequire, Verified, mail.TLSByRequire, false},
		{Opportunistic, false, mail.TLSFloorRequire, Verified, mail.TLSByRequire, true},
		{DANE, true, mail.TLSFloorIgnored, Opportunistic, "theirs", false},
	} {
		d, problem := Demand{Level: row.from, By: "theirs", Secure: row.secure}.Raise(row.floor, "pin")
		if d.Level != row.want || d.By != row.by || (problem != nil) != row.barred {
			t.Errorf("%v under %q: %v by %s, %v", row.from, row.floor, d.Level, d.By, problem)
		}
		if row.by == mail.TLSByKind && d.Source != fmt.Sprintf("kinds.pin.tls = %q", string(row.floor)) {
			t.Errorf("source %q", d.Source)
		}
	}
	relay, _ := Demand{Level: Verified, By: mail.TLSByRelay}.Raise(mail.TLSFloorIgnored, "x")
	if relay.Level != Verified {
		t.Error("a password for the relay would go to anybody")
	}
}

// world is the DNS and the policy hosts.
type world struct {
	mu      sync.Mutex
	ids     map[string]string
	silent  bool
	policy  dnscheck.STSPolicy
	err     error
	takes   time.Duration
	fetches int
}

func (w *world) STSRecord(_ context.Context, domain string) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.silent {
		return "", &dnscheck.Error{Kind: dnscheck.Temporary}
	}
	return w.ids[domain], nil
}

func (w *world) FetchSTS(ctx context.Context, _ string, _ dnscheck.Web) (dnscheck.STSPolicy, error) {
	w.mu.Lock()
	w.fetches++
	policy, err, takes := w.policy, w.err, w.takes
	w.mu.Unlock()
	select {
	case <-time.After(takes):
		return policy, err
	case <-ctx.Done():
		return dnscheck.STSPolicy{}, &dnscheck.STSError{Step: "connect", Detail: ctx.Err().Error()}
	}
}

func (w *world) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

type kvStore struct {
	mu     sync.Mutex
	values map[string][]byte
	puts   int
}

func newStore() *kvStore { return &kvStore{values: map[string][]byte{}} }

func (s *kvStore) Get(_ context.Context, key string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.values[key]; ok {
		return v, nil
	}
	return nil, errors.New("not there")
}

func (s *kvStore) Put(_ context.Context, key string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.puts++
	s.values[key] = value
	return nil
}

func (s *kvStore) Delete(_ context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.values, key)
	return nil
}

func (s *kvStore) All(context.Context) (map[string][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.values), nil
}

var quiet = slog.New(slog.DiscardHandler)

const hour = time.Hour

// B08, B10: a policy through its life, over two nodes that share a store.
func TestPolicyOverTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{ids: map[string]string{"dest.example": "1"}, policy: dnscheck.STSPolicy{Mode: "enforce", MX: []string{"mx.dest.example"}, MaxAge: 72 * hour}}
		store := newStore()
		a, b := NewSTS(w, dnscheck.Web{}, store, quiet), NewSTS(w, dnscheck.Web{}, store, quiet)
		defer a.Close()
		defer b.Close()
		step := func(name string, s *STS, mode string, fetches int) {
			t.Helper()
			kept, _ := s.Policy(t.Context(), "dest.example")
			synctest.Wait()
			got := ""
			if kept != nil {
				got = kept.Mode
			}
			if got != mode || w.fetches != fetches {
				t.Errorf("%s: mode %q after %d fetches, want %q after %d", name, got, w.fetches, mode, fetches)
			}
		}
		step("first", a, "enforce", 1)
		step("again", a, "enforce", 1)
		step("another node", b, "enforce", 1)
		time.Sleep(23 * hour)
		step("young", a, "enforce", 1)
		time.Sleep(2 * hour)
		step("due: fetched behind the mail's back", a, "enforce", 2)
		w.set(func() { w.policy.Mode = "testing" })
		step("the same id: not asked", a, "enforce", 2)
		w.set(func() { w.ids["dest.example"] = "2" })
		step("a new id", a, "testing", 3)
		step("a new id that another node has", b, "testing", 3)
		w.set(func() { w.silent = true })
		step("the DNS is silent", b, "testing", 3)
		w.set(func() { w.silent, w.err = false, &dnscheck.STSError{Step: "status", Detail: "404"} })
		time.Sleep(30 * hour)
		step("due, and it fails: it counts on", a, "testing", 4)
		step("not tried again at once", a, "testing", 4)
		time.Sleep(43 * hour)
		step("lapsed: none, and tried", a, "", 5)
		step("lapsed: not tried again at once", a, "", 5)
		if _, failed := a.Policy(t.Context(), "dest.example"); failed == nil || failed.Failure != FetchFailed {
			t.Errorf("why: %v", failed)
		}
		time.Sleep(fetchPause)
		step("and after five minutes", a, "", 6)
	})
}

// B08: a policy host that takes its time costs the first mail a minute, once for all
// that wait, and the next ones nothing.
func TestSlowPolicyHost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{ids: map[string]string{"dest.example": "1"}, takes: 24 * hour}
		s := NewSTS(w, dnscheck.Web{}, nil, quiet)
		defer s.Close()
		began := time.Now()
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				kept, failed := s.Policy(t.Context(), "dest.example")
				if kept != nil || failed == nil || time.Since(began) != fetchTime {
					t.Errorf("%v, %v after %v", kept, failed, time.Since(began))
				}
			})
		}
		wg.Wait()
		began = time.Now()
		if s.Policy(t.Context(), "dest.example"); time.Since(began) != 0 || w.fetches != 1 {
			t.Errorf("waited %v, %d fetches", time.Since(began), w.fetches)
		}
	})
}

// Policies that are in use are kept fresh without mail, those that nobody uses lapse
// and are dropped.
func TestTend(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{ids: map[string]string{"dest.example": "1"}, policy: dnscheck.STSPolicy{Mode: "enforce", MX: []string{"mx"}, MaxAge: 48 * hour}}
		store := newStore()
		s := NewSTS(w, dnscheck.Web{}, store, quiet)
		defer s.Close()
		s.Policy(t.Context(), "dest.example")
		for range 30 {
			time.Sleep(25 * hour)
			if err := s.Tend(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if w.fetches < 28 {
			t.Errorf("%d fetches in 30 days", w.fetches)
		}
		used := w.fetches
		w.set(func() { w.err = &dnscheck.STSError{Step: "connect"} })
		for range 3 {
			time.Sleep(25 * hour)
			if err := s.Tend(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if len(store.values) != 0 || w.fetches > used+3 {
			t.Errorf("left %v after %d fetches", store.values, w.fetches-used)
		}
	})
}

// B11: an age of nothing still spares the policy's host, and no more.
func TestShortAge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{ids: map[string]string{"dest.example": "1"}, policy: dnscheck.STSPolicy{Mode: "enforce", MX: []string{"mx"}}}
		s := NewSTS(w, dnscheck.Web{}, nil, quiet)
		defer s.Close()
		for i := range 10 {
			if kept, _ := s.Policy(t.Context(), "dest.example"); kept == nil {
				t.Errorf("no policy at %d", i)
			}
			time.Sleep(time.Minute)
		}
		if w.fetches > 3 {
			t.Errorf("%d fetches in ten minutes", w.fetches)
		}
	})
}

// The memory is bounded, as recipients choose the domains.
func TestSTSIsBounded(t *testing.T) {
	t.Parallel()
	w := &world{ids: map[string]string{}}
	s := NewSTS(w, dnscheck.Web{}, newStore(), quiet)
	defer s.Close()
	for i := range stsMost * 2 {
		s.Policy(t.Context(), fmt.Sprintf("d%d.example", i))
	}
	if len(s.known) > stsMost {
		t.Errorf("%d domains are remembered", len(s.known))
	}
}

// B07: who took TLS is known after a restart and on other nodes, at the price of a
// write a host and week, and for a month.
func TestSeen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newStore()
		s := NewSeen(store, quiet)
		if !s.Last(t.Context(), "mx.dest.example").IsZero() {
			t.Error("seen before it was")
		}
		for range 14 {
			s.Encrypted("mx.dest.example")
			s.Save(t.Context())
			time.Sleep(12 * hour)
		}
		if store.puts != 1 {
			t.Errorf("%d writes in a week", store.puts)
		}
		s.Encrypted("mx.dest.example")
		s.Save(t.Context())
		if store.puts != 2 {
			t.Errorf("%d writes after a week", store.puts)
		}
		other := NewSeen(store, quiet)
		if last := other.Last(t.Context(), "mx.dest.example"); time.Since(last) > time.Second {
			t.Errorf("another node knows %v", last)
		}
		other.Encrypted("mx.dest.example")
		other.Save(t.Context())
		if store.puts != 2 {
			t.Error("written again by another node")
		}
		time.Sleep(seenFor + time.Hour)
		if last := other.Last(t.Context(), "mx.dest.example"); !last.IsZero() {
			t.Errorf("after a month: %v", last)
		}
		if err := other.Forget(t.Context()); err != nil || len(store.values) != 0 {
			t.Errorf("left %v, %v", store.values, err)
		}
	})
}

// A sentence names host, reason and who wants it otherwise.
func TestProblemsSay(t *testing.T) {
	t.Parallel()
	d := Demand{By: mail.TLSBySTS, Source: "policy of dest.example", Host: "mx.dest.example"}
	for _, f := range []mail.TLSFailure{
		mail.TLSNotOffered, mail.TLSNameMismatch, mail.TLSExpired, mail.TLSNotTrusted, mail.TLSInvalid, mail.TLSHandshake,
		mail.TLSAMismatch, mail.TLSALookup, mail.TLSMXMismatch, mail.TLSNoRequire, mail.TLSUnprovenExchange,
	} {
		said := d.problem(f, errors.New("the reason")).Error()
		for _, part := range []string{"mx.dest.example", "the reason", string(f), "mta-sts policy of dest.example"} {
			if !strings.Contains(said, part) {
				t.Errorf("%s: %q is not in %q", f, part, said)
			}
		}
	}
}
