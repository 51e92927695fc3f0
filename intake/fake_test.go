package intake

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// store is the queue as intake sees it: it keeps messages, knows idempotency keys,
// and remembers what it was told.
type store struct {
	mu         sync.Mutex
	messages   []mail.Message
	keys       map[string]known
	events     []mail.Event
	cancelled  []mail.ID
	suppressed map[mail.Address]*mail.Suppression
	fail       error // what every call returns, where not nil
}

type known struct {
	hash    [32]byte
	receipt mail.Receipt
}

func (s *store) enqueue(_ context.Context, m *mail.Message, hash [32]byte) (mail.Receipt, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return mail.Receipt{}, s.fail
	}
	key := m.Tenant + "\x00" + m.IdempotencyKey
	if k, ok := s.keys[key]; ok && m.IdempotencyKey != "" {
		if k.hash != hash {
			return mail.Receipt{}, &mail.Problem{
				Type: mail.ProblemConflict, Title: "The key was used for another message", Status: 409, Message: k.receipt.ID,
			}
		}
		k.receipt.Replayed = true
		return k.receipt, nil
	}
	r := mail.Receipt{ID: m.ID, Ref: m.Ref, State: mail.StateQueued}
	s.messages = append(s.messages, *m)
	s.keys[key] = known{hash, r}
	return r, nil
}

func (s *store) find(_ context.Context, id mail.ID, ref mail.Ref) (found []mail.Message, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.messages {
		if id != "" && m.ID == id || id == "" && m.Ref == ref {
			found = append(found, m)
		}
	}
	return found, s.fail
}

func (s *store) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.messages)
}

// noon is now in tests, unless a test says otherwise.
var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// prepare is the little of mail.Preparer that the doors can be told apart by.
func prepare(r mail.Request) (mail.Message, []mail.Warning, error) {
	to, warnings, err := mail.CleanAddress(r.To)
	if err != nil {
		return mail.Message{}, nil, &mail.Problem{Type: mail.ProblemAddressInvalid, Title: "No address", Status: 400, Field: "to"}
	}
	if _, ok := mail.DefaultKinds()[r.Kind]; !ok {
		return mail.Message{}, nil, &mail.Problem{Type: mail.ProblemUnknownKind, Title: "No such kind", Status: 400, Field: "kind"}
	}
	id := mail.NewID(noon)
	return mail.Message{
		ID: id, Ref: id.Ref(), Kind: r.Kind, Tenant: r.Tenant, To: to, Data: r.Data, Template: r.Kind, Locale: "en",
		QueuedAt: noon, ExpiresAt: noon.Add(time.Hour),
	}, warnings, nil
}

// everyone may speak for every tenant.
var everyone = Caller{Source: "login", Tenants: []string{AllTenants}}

// build makes an Intake over a store, changed by change.
func build(t testing.TB, change ...func(*Options)) (*Intake, *store) {
	t.Helper()
	s := &store{keys: map[string]known{}, suppressed: map[mail.Address]*mail.Suppression{}}
	opts := Options{
		Prepare: prepare,
		Suppressed: func(_ context.Context, _ string, to mail.Address) (*mail.Suppression, error) {
			return s.suppressed[to], s.fail
		},
		Enqueue: s.enqueue,
		Find:    s.find,
		Cancel: func(_ context.Context, id mail.ID, _, _ string) error {
			s.cancelled = append(s.cancelled, id)
			return s.fail
		},
		Record: func(_ context.Context, e mail.Event) error {
			s.events = append(s.events, e)
			return s.fail
		},
		Caller: func(*http.Request) (Caller, bool) { return everyone, true },
		Key:    []byte("a key for the tests of intake"),
		Now:    func() time.Time { return noon },
	}
	for _, c := range change {
		c(&opts)
	}
	in, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return in, s
}

// as makes HTTP callers be c.
func as(c Caller) func(*Options) {
	return func(o *Options) { o.Caller = func(*http.Request) (Caller, bool) { return c, true } }
}

// mux serves an Intake's routes as the program does.
func mux(in *Intake) http.Handler {
	m := http.NewServeMux()
	for _, r := range in.Routes() {
		m.Handle(r.Method+" "+r.Pattern, r.Handler)
	}
	return m
}

// post makes one request in JSON; headers are name, value, name, value …
func post(h http.Handler, path, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// decodeAs reads an answer, strictly: a field that the type does not have is a
// mistake in one of the two.
func decodeAs[T any](t testing.TB, body []byte) (v T) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("answer %s: %v", body, err)
	}
	return v
}

// good is a request that is taken.
const good = `{"kind":"invite","to":"kari@nordlys.example","tenant":"4711","data":{"link":"https://login.example/i/1"}}`
