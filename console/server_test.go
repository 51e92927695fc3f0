package console

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// fakeBackend notes what it is asked to do.
type fakeBackend struct {
	mu      sync.Mutex
	log     *testLog
	acts    []string
	live    Live
	liveErr error
	fail    error
	queue   Queue
	stops   []mail.Suppression
}

func (b *fakeBackend) note(act ...string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil {
		return b.fail
	}
	b.acts = append(b.acts, strings.Join(act, " "))
	return nil
}

func (b *fakeBackend) noted() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	acts := b.acts
	b.acts = nil
	return acts
}

func (b *fakeBackend) LastSeq(ctx context.Context) (uint64, error) {
	_, last, err := b.log.Bounds(ctx)
	return last, err
}
func (b *fakeBackend) Said(context.Context, mail.ID, mail.Ref) error { return nil }
func (b *fakeBackend) Live(context.Context, mail.ID) (Live, error)   { return b.live, b.liveErr }
func (b *fakeBackend) Queue(context.Context) (Queue, error)          { return b.queue, nil }
func (b *fakeBackend) Cancel(_ context.Context, id mail.ID, by, reason string) error {
	if err := b.note("cancel", string(id), by, reason); err != nil {
		return err
	}
	m := invite(1)
	e := mail.NewEvent(m, mail.StateCancelled, 1, monday.Add(9*time.Minute))
	e.Message, e.ID, e.By, e.Reason, e.Cause = id, mail.EventID(id, mail.StateCancelled, 1), by, reason, mail.CauseCancelled
	b.log.add(e)
	return nil
}
func (b *fakeBackend) Pause(_ context.Context, s, by, reason string) error {
	return b.note("pause", s, by, reason)
}
func (b *fakeBackend) Resume(_ context.Context, s, by, reason string) error {
	return b.note("resume", s, by, reason)
}
func (b *fakeBackend) RetryNow(_ context.Context, s, by, reason string) error {
	return b.note("retry", s, by, reason)
}
func (b *fakeBackend) Suppress(_ context.Context, s mail.Suppression) error {
	return b.note("suppress", s.Tenant, string(s.Address), s.By, s.Reason)
}
func (b *fakeBackend) Lift(_ context.Context, tenant string, a mail.Address, by, reason string) error {
	return b.note("lift", tenant, string(a), by, reason)
}
func (b *fakeBackend) Suppressions(_ context.Context, tenant string) ([]mail.Suppression, error) {
	return slices.DeleteFunc(slices.Clone(b.stops), func(s mail.Suppression) bool { return tenant != "" && s.Tenant != tenant }), nil
}

// Kept says that everything may be sent again.
func (b *fakeBackend) Kept(context.Context, mail.ID, string) (kept, allowed bool, err error) {
	return true, true, nil
}
func (b *fakeBackend) Again(_ context.Context, id mail.ID, key string) (mail.Receipt, error) {
	return again(), b.note("again", string(id), key)
}
func (b *fakeBackend) Renew(_ context.Context, r Renewal) (mail.Receipt, error) {
	return again(), b.note("renew", string(r.Message), r.Source, r.By, r.Reason)
}
func (b *fakeBackend) Record(_ context.Context, e mail.Event) error {
	return b.note(string(e.State), string(e.Message), string(e.Other), e.By, e.Reason)
}
func again() mail.Receipt {
	id := invite(9).ID
	return mail.Receipt{ID: id, Ref: id.Ref(), State: mail.StateQueued}
}

// memoryStore is a Store in memory.
type memoryStore struct {
	mu   sync.Mutex
	m    map[string][]byte
	gets int
	fail error
}

func newMemoryStore() *memoryStore { return &memoryStore{m: map[string][]byte{}} }

func (s *memoryStore) Get(_ context.Context, key string) ([]byte, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gets++
	v, ok := s.m[key]
	return v, ok, s.fail
}
func (s *memoryStore) Put(_ context.Context, key string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m[key] = value
	return s.fail
}
func (s *memoryStore) Delete(_ context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, key)
	return s.fail
}
func (s *memoryStore) All(context.Context) (map[string][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.m), s.fail
}

// site is a whole API in a test: its log holds two messages of tenant 04711, the
// first one delayed and the second one handed over, and one of tenant "other".
type site struct {
	t       *testing.T
	log     *testLog
	backend *fakeBackend
	store   *memoryStore
	api     *API
	auth    *Authenticator
	server  *httptest.Server
	tokens  map[string]string // by the names that token gives them
}

func otherTenants() *mail.Message {
	m := invite(3)
	m.Tenant, m.TenantName, m.To, m.PersonID = "other", "Other Oy", "someone@other.example", "usr_9"
	return m
}

func newSite(t *testing.T) *site {
	t.Helper()
	log := &testLog{}
	log.add(greylistedThenHandedOver(invite(1))[:2]...)
	log.add(greylistedThenHandedOver(invite(2))...)
	log.add(greylistedThenHandedOver(otherTenants())...)
	s := &site{t: t, log: log, backend: &fakeBackend{log: log}, store: newMemoryStore(), tokens: map[string]string{}}
	s.api = &API{View: openView(t, ""), Backend: s.backend, Resender: s.backend, Calendar: NewCalendar(newMemoryStore(), func() []string { return []string{"invite", "pin"} }, clock), Tokens: NewTokens(s.store, clock), Now: clock, Heartbeat: time.Hour}
	s.api.ServiceLog, _ = runLog(t, &memoryChain{}, clock)
	follow(t, s.api.View, log)
	s.auth = &Authenticator{Tokens: s.api.Tokens}
	s.server = httptest.NewServer(Handler(s.auth, s.api.logger(), s.api.Routes()...))
	t.Cleanup(s.server.Close)
	return s
}

// token returns a token with the scopes, bound to the tenant, or to none for "*".
func (s *site) token(tenant string, scopes ...Scope) string {
	s.t.Helper()
	secret, _, err := s.api.Tokens.New(s.t.Context(), Token{Name: "tester", Scopes: scopes, Tenants: []string{tenant}})
	if err != nil {
		s.t.Fatal(err)
	}
	return secret
}

// do sends a request and returns the answer with its body.
func (s *site) do(token, method, path, body string, header ...string) (*http.Response, string) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.server.URL+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
	}
	resp, err := s.server.Client().Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp, string(b)
}

// problem checks that the answer is a problem of the type and the status.
func problem(t *testing.T, resp *http.Response, body, typ string, status int) {
	t.Helper()
	var p mail.Problem
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		t.Fatalf("no problem: %v: %s", err, body)
	}
	if p.Type != typ || p.Status != status || resp.StatusCode != status || resp.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("status %d, %s: %s; want %d %s", resp.StatusCode, resp.Header.Get("Content-Type"), body, status, typ)
	}
}

func into[T any](t *testing.T, body string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return v
}

var errSecretDetail = errors.New("nats: store at 10.0.0.7 says CANARY-9731")
