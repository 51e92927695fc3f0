package console

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// requests are one sensible request for each route, about tenant 04711's things. A
// test compares them with the routes.
var requests = map[string]struct{ path, body string }{
	"GET /v1/messages":                   {"/v1/messages", ""},
	"GET /v1/messages/{message}":         {"/v1/messages/{id}", ""},
	"GET /v1/messages/{message}/events":  {"/v1/messages/{id}/events", ""},
	"POST /v1/messages/{message}/cancel": {"/v1/messages/{id}/cancel", `{"reason":"r"}`},
	"GET /v1/incidents":                  {"/v1/incidents", ""},
	"GET /status.json":                   {"/status.json", ""},
	"GET /status":                        {"/status", ""},
	"POST /v1/messages/{message}/resend": {"/v1/messages/{id}/resend", `{"reason":"r","mode":"new"}`},
	"GET /v1/maintenance":                {"/v1/maintenance", ""},
	"POST /v1/maintenance":               {"/v1/maintenance", `{"repeat":"daily 13:00-13:30 UTC","reason":"r"}`},
	"DELETE /v1/maintenance":             {"/v1/maintenance?id={window}&reason=r", ""},
	"GET /v1/people":                     {"/v1/people?q=usr_123", ""},
	"GET /v1/people/{person}":            {"/v1/people/{person}", ""},
	"GET /v1/people/{person}/reply":      {"/v1/people/{person}/reply", ""},
	"GET /v1/events":                     {"/v1/events?after=0", ""},
	"GET /v1/queue":                      {"/v1/queue", ""},
	"POST /v1/queue/pause":               {"/v1/queue/pause", `{"selector":"tenant:04711","reason":"r"}`},
	"POST /v1/queue/resume":              {"/v1/queue/resume", `{"selector":"tenant:04711","reason":"r"}`},
	"POST /v1/queue/retry":               {"/v1/queue/retry", `{"selector":"tenant:04711","reason":"r"}`},
	"GET /v1/suppressions":               {"/v1/suppressions?tenant=04711", ""},
	"POST /v1/suppressions":              {"/v1/suppressions", `{"tenant":"04711","address":"a@b.example","reason":"r"}`},
	"DELETE /v1/suppressions":            {"/v1/suppressions?tenant=04711&address=a@b.example&reason=r", ""},
	"GET /v1/log":                        {"/v1/log", ""},
	"GET /v1/tokens":                     {"/v1/tokens", ""},
	"POST /v1/tokens":                    {"/v1/tokens", `{"name":"n","scopes":["read"]}`},
	"DELETE /v1/tokens/{token}":          {"/v1/tokens/{token}", ""},
	"GET /openapi.json":                  {"/openapi.json", ""},
}

// fillPath names tenant 04711's things.
func (s *site) fillPath(path string) string {
	tokens, err := s.api.Tokens.List(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	window := ""
	if strings.Contains(path, "{window}") {
		w, err := s.api.Calendar.Add(s.t.Context(), Window{Repeat: "daily 13:00-13:30 UTC"})
		if err != nil {
			s.t.Fatal(err)
		}
		window = w.ID
	}
	return strings.NewReplacer("{window}", window, "{id}", string(invite(1).ID), "{person}", PersonKey("04711", "usr_123", ""), "{token}", tokens[0].ID).Replace(path)
}

// status sends the request and returns the answer's status, without waiting for the
// end of a stream.
func (s *site) status(token, method, path, body string) (int, string) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, s.server.URL+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := s.server.Client().Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	buf := make([]byte, 2000)
	n, _ := resp.Body.Read(buf)
	return resp.StatusCode, string(buf[:n])
}

// Every route with every scope, every tenant's token and none: only what the route's
// scope allows is done, and another tenant's things aren't there.
func TestAuthorisationMatrix(t *testing.T) {
	t.Parallel()
	probe := newSite(t)
	for _, route := range probe.api.Routes() {
		name := route.Method + " " + route.Pattern
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			request, ok := requests[name]
			if !ok {
				t.Fatal("no request for this route: add one to the matrix")
			}
			s := newSite(t)
			try := func(who, token string, want int) {
				t.Helper()
				if got, body := s.status(token, route.Method, s.fillPath(request.path), request.body); got != want {
					t.Errorf("%s: %d, want %d: %s", who, got, want, body)
				}
			}
			s.token("*", ScopeRead) // so that there is one to revoke
			if route.Scope == "" {
				try("without a token", "", 200)
				return
			}
			try("without a token", "", 401)
			try("with a wrong token", "dlv_"+strings.Repeat("a", 40), 401)
			for _, scope := range Scopes {
				if scope != route.Scope.issued() && scope != ScopeAdmin {
					try("with the scope "+string(scope), s.token("*", scope), 403)
				}
			}
			if acts := s.backend.noted(); len(acts) != 0 {
				t.Fatalf("refused requests acted: %q", acts)
			}
			s.foreignTenant(t, route, request.path, request.body)
			success := map[string]int{"GET": 200, "POST": 204, "DELETE": 204}[route.Method]
			switch {
			case strings.HasSuffix(name, "/cancel"):
				success = 200
			case strings.HasSuffix(name, "/resend"):
				success = 202
			case name == "POST /v1/suppressions" || name == "POST /v1/tokens" || name == "POST /v1/maintenance":
				success = 201
			}
			try("with its scope", s.token("*", route.Scope.issued()), success)
			if route.Method != "DELETE" || !strings.Contains(route.Pattern, "{token}") { // that one is revoked
				try("as administrator", s.token("*", ScopeAdmin), success)
			}
		})
	}
	if len(requests) != len(probe.api.Routes()) {
		t.Errorf("%d requests for %d routes", len(requests), len(probe.api.Routes()))
	}
}

// foreignTenant tries the request with every right, but bound to another tenant.
func (s *site) foreignTenant(t *testing.T, route Route, path, body string) {
	t.Helper()
	got, answer := s.status(s.token("other", Scopes[:]...), route.Method, s.fillPath(path), body)
	named := strings.Contains(route.Pattern, "{message}") || strings.Contains(route.Pattern, "{person}") ||
		strings.Contains(body, "04711") || route.Method == "DELETE" && strings.Contains(path, "04711")
	switch {
	case strings.Contains(route.Pattern, "/tokens") || route.Pattern == "/v1/queue",
		route.Pattern == "/v1/maintenance" && route.Method != "GET":
		if got != 403 {
			t.Errorf("bound to another tenant: %d, want 403: %s", got, answer)
		}
	case named:
		if got != 404 {
			t.Errorf("bound to another tenant: %d, want 404: %s", got, answer)
		}
	case got != 200 || strings.Contains(answer, "@nordlys") || strings.Contains(answer, "04711"):
		t.Errorf("bound to another tenant: %d: %s", got, answer)
	}
	if acts := s.backend.noted(); len(acts) != 0 {
		t.Errorf("another tenant acted: %q", acts)
	}
}

// What another tenant has and what nobody has are answered alike, to the byte.
func TestNotFoundIsUniform(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	bound := s.token("other", ScopeRead, ScopeAct)
	for _, tail := range []string{"", "/events", "/cancel"} {
		method, body := "GET", ""
		if tail == "/cancel" {
			method, body = "POST", `{"reason":"r"}`
		}
		resp, nobodys := s.do(bound, method, "/v1/messages/"+string(testID(77))+tail, body)
		problem(t, resp, nobodys, mail.ProblemNotFound, 404)
		for _, name := range []string{string(invite(1).ID), string(invite(1).Ref), "nonsense", "msg_x", "%00", strings.Repeat("A", 3000)} {
			resp, others := s.do(bound, method, "/v1/messages/"+name+tail, body)
			problem(t, resp, others, mail.ProblemNotFound, 404)
			if others != nobodys {
				t.Errorf("%s%s is told apart:\n%s\n%s", name[:min(len(name), 40)], tail, others, nobodys)
			}
		}
	}
}

func TestOddRequests(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	all := s.token("*", ScopeAdmin)
	for _, c := range []struct {
		method, path, body string
		header             []string
		typ                string
		status             int
	}{
		{"GET", "/v1/nothing", "", nil, mail.ProblemNotFound, 404},
		{"GET", "/", "", nil, mail.ProblemNotFound, 404},
		{"PUT", "/v1/messages/x", "", nil, mail.ProblemMethodNotAllowed, 405},
		{"DELETE", "/v1/queue", "", nil, mail.ProblemMethodNotAllowed, 405},
		{"POST", "/v1/queue/pause", "selector=kind:pin&reason=r", []string{"Content-Type", "application/x-www-form-urlencoded"}, mail.ProblemInvalid, 415},
		{"POST", "/v1/queue/pause", `{"selector":"kind:pin","reason":"r"}`, []string{"Content-Type", "text/plain"}, mail.ProblemInvalid, 415},
		{"POST", "/v1/queue/pause", `{"selector":"kind:pin","reason":"r"}`, []string{"Origin", "https://evil.example"}, mail.ProblemNotAllowed, 403},
		{"POST", "/v1/queue/pause", `{"selector":"kind:pin","reason":"r"}`, []string{"Sec-Fetch-Site", "cross-site"}, mail.ProblemNotAllowed, 403},
		{"GET", "/v1/events", "", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "cors"}, mail.ProblemNotAllowed, 403},
		{"GET", "/v1/messages", "", []string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "script"}, mail.ProblemNotAllowed, 403},
		{"GET", "/v1/messages?token=" + all, "", []string{"Authorization", ""}, mail.ProblemNotSignedIn, 401},
		{"GET", "/v1/messages", "", []string{"Authorization", "Basic " + all}, mail.ProblemNotSignedIn, 401},
	} {
		resp, body := s.do(all, c.method, c.path, c.body, c.header...)
		problem(t, resp, body, c.typ, c.status)
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'"} {
			if got := resp.Header.Get(name); got != want {
				t.Errorf("%s %s: %s: %q, want %q", c.method, c.path, name, got, want)
			}
		}
		if c.status == 405 && resp.Header.Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", c.method, c.path)
		}
		if c.status == 401 && resp.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s %s: no WWW-Authenticate", c.method, c.path)
		}
	}
	if acts := s.backend.noted(); len(acts) != 0 {
		t.Errorf("refused requests acted: %q", acts)
	}
	if resp, _ := s.do(all, "GET", "/v1/messages", "", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"); resp.StatusCode != 200 {
		t.Errorf("a link from elsewhere: %d", resp.StatusCode)
	}
}

// Without tokens, only this machine may call, and only by a name that no DNS decides.
func TestOpenMode(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.auth.Open = true
	for host, want := range map[string]int{
		"127.0.0.1:8025": 200, "localhost": 200, "LOCALHOST:8025": 200, "[::1]:8025": 200, "127.8.9.1": 200,
		"evil.example:8025": 403, "localhost.evil.example": 403, "10.0.0.1": 403, "0.0.0.0:8025": 403, "127.0.0.1.evil.example": 403,
	} {
		resp, body := s.do("", "GET", "/v1/messages", "", "Host", host)
		if resp.StatusCode != want {
			t.Errorf("Host %s: %d, want %d: %s", host, resp.StatusCode, want, body)
		}
	}
	r, _ := http.NewRequest("GET", "http://localhost/v1/messages", nil)
	r.RemoteAddr = "192.0.2.1:4000"
	if _, err := s.auth.Authenticate(r); err == nil {
		t.Error("another machine got in")
	}
	resp, body := s.do("", "POST", "/v1/queue/pause", `{"selector":"kind:pin","reason":"r"}`, "Origin", "https://evil.example")
	problem(t, resp, body, mail.ProblemNotAllowed, 403)
	s.do("", "POST", "/v1/queue/pause", `{"selector":"kind:pin","reason":"r"}`)
	if got, want := s.backend.noted(), []string{"pause kind:pin dev r"}; !slices.Equal(got, want) {
		t.Errorf("acts %q, want %q", got, want)
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	now := monday
	store := newMemoryStore()
	tokens := NewTokens(store, func() time.Time { return now })
	secret, made, err := tokens.New(t.Context(), Token{Name: "ci", Scopes: []Scope{ScopeSend}, Tenants: []string{"04711"}, ExpiresAt: monday.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range store.m {
		if strings.Contains(key+string(value), secret) || strings.Contains(key+string(value), secret[4:]) {
			t.Error("the store holds the token itself")
		}
	}
	check := func(what, secret string, want bool) {
		t.Helper()
		got, ok, err := tokens.Check(t.Context(), secret)
		if err != nil || ok != want || ok && got.ID != made.ID {
			t.Errorf("%s: %v %v %v, want %v", what, got.ID, ok, err, want)
		}
	}
	check("right", secret, true)
	for i := range secret { // any one wrong letter
		wrong := []byte(secret)
		wrong[i] ^= 1
		check("wrong at "+fmt.Sprint(i), string(wrong), false)
	}
	for _, wrong := range []string{"", "dlv_", secret + "a", secret[:len(secret)-1], strings.ToUpper(secret), " " + secret} {
		check(wrong, wrong, false)
	}
	if store.gets != 1 {
		t.Errorf("the store was asked %d times: malformed tokens and repeated ones must not get there", store.gets)
	}
	other, _, _ := NewTokens(newMemoryStore(), nil).New(t.Context(), Token{Name: "x", Scopes: Scopes[:], Tenants: []string{"*"}})
	check("another deliverd's", other, false)

	now = monday.Add(time.Hour)
	check("expired", secret, false)
	now = monday
	if err := tokens.Revoke(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	check("revoked", secret, false)
	for _, id := range []string{made.ID, "", "tok_", "tok_0123456789abcdef"} {
		if err := tokens.Revoke(t.Context(), id); !errors.Is(err, ErrNotFound) {
			t.Errorf("revoke %q: %v, want ErrNotFound", id, err)
		}
	}
}

// A token revoked on another node stops working here within knownFor.
func TestRevokedElsewhere(t *testing.T) {
	t.Parallel()
	now := monday
	store := newMemoryStore()
	here, there := NewTokens(store, func() time.Time { return now }), NewTokens(store, nil)
	secret, made, err := here.New(t.Context(), Token{Name: "ci", Scopes: []Scope{ScopeSend}, Tenants: []string{"*"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok, _ := here.Check(t.Context(), secret); !ok {
		t.Fatal("not known")
	}
	if err := there.Revoke(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	now = now.Add(knownFor)
	if _, ok, _ := here.Check(t.Context(), secret); ok {
		t.Error("still works")
	}
}

func TestBadTokenSpecs(t *testing.T) {
	t.Parallel()
	tokens := NewTokens(newMemoryStore(), clock)
	good := Token{Name: "n", Scopes: []Scope{ScopeRead}, Tenants: []string{"*"}}
	for field, spoil := range map[string]func(*Token){
		"name":       func(t *Token) { t.Name = "a\nb" },
		"scopes":     func(t *Token) { t.Scopes = []Scope{"root"} },
		"tenants":    func(t *Token) { t.Tenants = nil },
		"expires_at": func(t *Token) { t.ExpiresAt = monday },
	} {
		spec := good
		spoil(&spec)
		_, _, err := tokens.New(t.Context(), spec)
		if p, ok := errors.AsType[*mail.Problem](err); !ok || p.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestTokenRoutes(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	admin := s.token("*", ScopeAdmin)
	resp, body := s.do(admin, "POST", "/v1/tokens", `{"name":"support desk","scopes":["read","act"],"tenants":["04711"],"expires_at":"2026-04-01T00:00:00Z"}`)
	made := into[NewToken](t, body)
	if resp.StatusCode != 201 || made.Kept.CreatedBy != "tester" || made.Kept.Name != "support desk" {
		t.Fatalf("new: %d %s", resp.StatusCode, body)
	}
	if resp, _ := s.do(made.Token, "GET", "/v1/messages", ""); resp.StatusCode != 200 {
		t.Errorf("the new token: %d", resp.StatusCode)
	}
	_, body = s.do(admin, "GET", "/v1/tokens", "")
	if got := into[TokenList](t, body).Tokens; len(got) != 2 || strings.Contains(body, made.Token) {
		t.Errorf("list: %s", body)
	}
	if resp, _ := s.do(admin, "DELETE", "/v1/tokens/"+made.Kept.ID, ""); resp.StatusCode != 204 {
		t.Errorf("revoke: %d", resp.StatusCode)
	}
	resp, body = s.do(made.Token, "GET", "/v1/messages", "")
	problem(t, resp, body, mail.ProblemNotSignedIn, 401)
	if strings.Contains(body, made.Token) {
		t.Error("the refusal repeats the token")
	}
}

// Wrong tokens are slowed down; right ones from the same place never are.
func TestWrongTokensAreSlowedDown(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	right := s.token("*", ScopeRead)
	for range failureBurst {
		resp, body := s.do("dlv_guess", "GET", "/v1/messages", "")
		problem(t, resp, body, mail.ProblemNotSignedIn, 401)
	}
	resp, body := s.do("dlv_guess", "GET", "/v1/messages", "")
	problem(t, resp, body, mail.ProblemRateLimited, 429)
	if resp.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	if resp, _ := s.do(right, "GET", "/v1/messages", ""); resp.StatusCode != 200 {
		t.Errorf("the right token: %d", resp.StatusCode)
	}
}

func TestFailuresAreBounded(t *testing.T) {
	t.Parallel()
	var f failures
	for i := range failuresMax + 10 {
		f.count(fmt.Sprintf("[2001:db8:%x:%x::1]:80", i>>16, i&0xffff), monday)
	}
	if len(f.by) > failuresMax {
		t.Errorf("%d networks remembered", len(f.by))
	}
	if networkOf("[2001:db8::1]:80") != networkOf("[2001:db8::2]:81") || networkOf("192.0.2.1:80") == networkOf("192.0.2.2:80") {
		t.Error("networks: want one for each /64 of IPv6 and each address of IPv4")
	}
	if networkOf("[::ffff:192.0.2.1]:80") != networkOf("192.0.2.1:80") {
		t.Error("a mapped address is another network")
	}
}

func TestTokenStoreDown(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	secret := s.token("*", ScopeRead)
	s.store.fail = errSecretDetail
	resp, body := s.do(secret, "GET", "/v1/messages", "")
	problem(t, resp, body, mail.ProblemUnavailable, 503)
	if strings.Contains(body, "CANARY") {
		t.Errorf("told: %s", body)
	}
}
