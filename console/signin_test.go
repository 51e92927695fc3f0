package console

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// PutFor and Create make a LapsingStore of a memoryStore; nothing lapses but by the
// times in the values.
func (s *memoryStore) PutFor(ctx context.Context, key string, value []byte, _ time.Duration) error {
	return s.Put(ctx, key, value)
}

func (s *memoryStore) Create(_ context.Context, key string, value []byte, _ time.Duration) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.m[key]; there || s.fail != nil {
		return false, s.fail
	}
	s.m[key] = value
	return true, nil
}

// hall is a site with a sign-in, pages, and a clock that tests move.
type hall struct {
	*site
	signIn   *SignIn
	sessions *memoryStore
	links    *memoryStore

	mu     sync.Mutex
	time   time.Time
	grants []Grant
	noted  []LogEntry
}

func (h *hall) now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.time
}

func (h *hall) later(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.time = h.time.Add(d)
}

func (h *hall) grant(g ...Grant) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.grants = g
}

var hallLimits = SessionLimits{Idle: time.Hour, Life: 8 * time.Hour}

func newHall(t *testing.T, change func(*SignIn)) *hall {
	t.Helper()
	h := &hall{site: newSite(t), time: monday, sessions: newMemoryStore(), links: newMemoryStore()}
	h.signIn = &SignIn{
		Sessions: NewSessions(h.sessions, hallLimits, h.now), Links: NewLoginLinks(h.links, h.now),
		BaseURL: "https://mail.acme.example", Now: h.now, Log: slog.New(slog.DiscardHandler),
		Grants: func() []Grant {
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.grants
		},
		Note: func(_ context.Context, e LogEntry) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.noted = append(h.noted, e)
		},
	}
	if change != nil {
		change(h.signIn)
	}
	h.auth.SignIn = h.signIn
	h.serve(t)
	return h
}

// serve begins to serve the hall's routes, anew if it did before.
func (h *hall) serve(t *testing.T) {
	t.Helper()
	h.server.Close()
	pages, err := NewPages(h.api, PageParts{})
	if err != nil {
		t.Fatal(err)
	}
	routes := slices.Concat(h.api.Routes(), pages.Routes(), h.signIn.Routes())
	h.server = httptest.NewServer(Handler(h.auth, h.api.logger(), routes...))
	t.Cleanup(h.server.Close)
	h.server.Client().CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
}

// enter signs somebody in, as the sign-in system would, and returns the cookie.
func (h *hall) enter(s Session) (cookie string) {
	h.t.Helper()
	secret, _, err := h.signIn.Sessions.New(h.t.Context(), s)
	if err != nil {
		h.t.Fatal(err)
	}
	return sessionCookie + "=" + secret
}

// look opens a page as a browser does.
func (h *hall) look(path, cookie string, header ...string) (*http.Response, string) {
	h.t.Helper()
	return h.do("", "GET", path, "", append([]string{"Accept", "text/html,*/*;q=0.8", "Cookie", cookie}, header...)...)
}

// submit sends a form as one of our own pages does.
func (h *hall) submit(path, cookie string, form url.Values, header ...string) (*http.Response, string) {
	h.t.Helper()
	return h.do("", "POST", path, form.Encode(), append([]string{
		"Accept", "text/html", "Cookie", cookie, "Content-Type", formBody, "Sec-Fetch-Site", "same-origin"}, header...)...)
}

// cookieOf returns the cookie that an answer sets, and checks its strictness.
func cookieOf(t *testing.T, resp *http.Response, name string, site http.SameSite) string {
	t.Helper()
	for _, c := range resp.Cookies() {
		if c.Name == name {
			if !c.Secure || !c.HttpOnly || c.SameSite != site || c.Path != "/" || c.Domain != "" {
				t.Errorf("the cookie is not strict: %s", c.Raw)
			}
			return c.Name + "=" + c.Value
		}
	}
	t.Fatalf("no cookie %s: %d %v", name, resp.StatusCode, resp.Header)
	return ""
}

// Without a session, a page leads to the sign-in, and the API says 401. Nothing of it
// depends on whether there is such a page's message.
func TestPagesNeedASignIn(t *testing.T) {
	t.Parallel()
	h := newHall(t, nil)
	for _, path := range []string{"/", "/search?q=kari", "/messages/" + string(invite(1).ID), "/messages/" + string(testID(77))} {
		resp, _ := h.look(path, "")
		if want := "/sign-in?" + (url.Values{"to": {path}}).Encode(); resp.StatusCode != 303 || resp.Header.Get("Location") != want {
			t.Errorf("%s: %d to %s, want %s", path, resp.StatusCode, resp.Header.Get("Location"), want)
		}
	}
	resp, body := h.look("/sign-in", "")
	if resp.StatusCode != 200 || !strings.Contains(body, "No sign-in system is configured") || !strings.Contains(body, "deliverd admin login-link") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if _, body := h.look("/sign-in", "", "Accept-Language", "fi-FI"); !strings.Contains(body, `<html lang="fi">`) || !strings.Contains(body, "Kirjaudu sisään") {
		t.Error("no Finnish: " + body)
	}
	if resp, _ := h.do("", "GET", "/v1/messages", ""); resp.StatusCode != 401 {
		t.Errorf("the API: %d", resp.StatusCode)
	}
}

// A session shows what its role and tenants allow, the moment that the configuration
// takes them away it shows nothing, and it ends when it is idle or old.
func TestSessionsFollowTheGrants(t *testing.T) {
	t.Parallel()
	h := newHall(t, nil)
	h.grant(Grant{"desk", RoleSupport, []string{AllTenants}}, Grant{"nordlys", RoleOperator, []string{"04711"}})
	desk, nordlys := h.enter(Session{Name: "liv", Groups: []string{"x", "desk"}}), h.enter(Session{Name: "ola", Groups: []string{"nordlys"}})
	page := "/messages/" + string(otherTenants().ID)
	for cookie, want := range map[string]int{desk: 200, nordlys: 404, sessionCookie + "=x": 303, sessionCookie + "=": 303} {
		if resp, _ := h.look(page, cookie); resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", cookie, resp.StatusCode, want)
		}
	}
	if resp, _ := h.look("/messages/"+string(invite(1).ID), nordlys); resp.StatusCode != 200 {
		t.Errorf("their own: %d", resp.StatusCode)
	}
	pause := func(cookie string) int {
		resp, _ := h.do("", "POST", "/v1/queue/pause", `{"selector":"tenant:04711","reason":"r"}`, "Cookie", cookie, "Sec-Fetch-Site", "same-origin")
		return resp.StatusCode
	}
	if got := [2]int{pause(desk), pause(nordlys)}; got != [2]int{403, 204} {
		t.Errorf("pausing: support %d, operator %d", got[0], got[1])
	}
	h.grant(Grant{"desk", RoleSupport, []string{"04711"}})
	if resp, _ := h.look(page, desk); resp.StatusCode != 404 {
		t.Errorf("a role for fewer tenants: %d", resp.StatusCode)
	}
	h.grant()
	if resp, body := h.look(page, desk); resp.StatusCode != 403 || !strings.Contains(body, "none of your groups has a role") {
		t.Errorf("without a role: %d %s", resp.StatusCode, body)
	}
	h.grant(Grant{"desk", RoleSupport, []string{AllTenants}})
	for range 7 { // used all the time
		h.later(59 * time.Minute)
		if resp, _ := h.look(page, desk); resp.StatusCode != 200 {
			t.Fatalf("in use: %d", resp.StatusCode)
		}
	}
	if resp, _ := h.look(page, nordlys); resp.StatusCode != 303 {
		t.Errorf("idle: %d", resp.StatusCode)
	}
	h.later(hallLimits.Life - 7*59*time.Minute)
	if resp, _ := h.look(page, desk); resp.StatusCode != 303 {
		t.Errorf("old: %d", resp.StatusCode)
	}
}

func TestGrantedNeverMoreThanOneGives(t *testing.T) {
	t.Parallel()
	all := []string{AllTenants}
	grants := []Grant{
		{"desk", RoleSupport, all}, {"ops", RoleOperator, all},
		{"a-admin", RoleAdmin, []string{"a"}}, {"b-desk", RoleSupport, []string{"b", "a"}}, {"odd", "root", all}, {"none", RoleAdmin, nil},
	}
	for _, c := range []struct {
		groups  []string
		role    Role
		tenants []string
		ok      bool
	}{
		{nil, "", nil, false},
		{[]string{"odd"}, "", nil, false},
		{[]string{"none"}, RoleAdmin, nil, false},
		{[]string{"desk", "ops"}, RoleOperator, all, true},
		{[]string{"a-admin"}, RoleAdmin, []string{"a"}, true},
		{[]string{"a-admin", "b-desk"}, RoleSupport, []string{"a", "b"}, true},
		{[]string{"a-admin", "desk"}, RoleSupport, all, true},
	} {
		role, tenants, ok := granted(grants, c.groups)
		if ok != c.ok || ok && (role != c.role || !slices.Equal(tenants, c.tenants)) {
			t.Errorf("%v: %s of %v, %v", c.groups, role, tenants, ok)
		}
	}
}

// What the browser holds is not in the store, and what is in the store lets nobody in.
func TestSessionsAreKeptHashed(t *testing.T) {
	t.Parallel()
	h := newHall(t, nil)
	secret, made, err := h.signIn.Sessions.New(t.Context(), Session{Name: "liv"})
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range h.sessions.m {
		if strings.Contains(key+string(value), secret) {
			t.Error("the store holds the cookie's value")
		}
		if _, ok, _ := h.signIn.Sessions.Check(t.Context(), key); ok {
			t.Error("a key of the store lets somebody in")
		}
	}
	if _, ok, _ := h.signIn.Sessions.Check(t.Context(), made.ID); ok {
		t.Error("the id lets somebody in")
	}
	// Another node, or the same one after a restart, knows the session too.
	if got, ok, err := NewSessions(h.sessions, hallLimits, h.now).Check(t.Context(), secret); !ok || err != nil || got.ID != made.ID {
		t.Errorf("%v, %v, %v", got, ok, err)
	}
}

func TestSignOut(t *testing.T) {
	t.Parallel()
	h := newHall(t, nil)
	h.grant(Grant{"desk", RoleSupport, []string{AllTenants}})
	liv := Session{Name: "liv", Subject: "idp 1", Groups: []string{"desk"}}
	one, two, three := h.enter(liv), h.enter(liv), h.enter(liv)
	ola := h.enter(Session{Name: "liv", Subject: "idp 2", Groups: []string{"desk"}}) // of the same name
	status := func(cookie string) int {
		resp, _ := h.look("/", cookie)
		return resp.StatusCode
	}
	resp, _ := h.submit("/sign-out", one, nil)
	if resp.StatusCode != 303 || cookieOf(t, resp, sessionCookie, http.SameSiteStrictMode) != sessionCookie+"=" {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
	if got := [4]int{status(one), status(two), status(three), status(ola)}; got != [4]int{303, 200, 200, 200} {
		t.Errorf("after one sign-out: %v", got)
	}
	// Used on another node within the last two seconds: the end is heard of by then.
	elsewhere := NewSessions(h.sessions, hallLimits, h.now)
	secret := strings.TrimPrefix(three, sessionCookie+"=")
	if _, ok, _ := elsewhere.Check(t.Context(), secret); !ok {
		t.Fatal("not known")
	}
	h.submit("/sign-out", two, url.Values{"everywhere": {"yes"}})
	if got := [4]int{status(one), status(two), status(three), status(ola)}; got != [4]int{303, 303, 303, 200} {
		t.Errorf("after signing out everywhere: %v", got)
	}
	h.later(knownFor)
	if _, ok, _ := elsewhere.Check(t.Context(), secret); ok {
		t.Error("still good on another node")
	}
}

// A session is used up by nobody who only holds the store's slow writes: one that was
// ended does not come back because it was being used.
func TestAnEndedSessionStaysEnded(t *testing.T) {
	t.Parallel()
	store := newMemoryStore()
	now := monday
	s := NewSessions(store, hallLimits, func() time.Time { return now })
	secret, made, err := s.New(t.Context(), Session{Name: "liv"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.End(t.Context(), func(o *Session) bool { return o.ID == made.ID }); err != nil {
		t.Fatal(err)
	}
	if err := s.see(t.Context(), sessionKey(secret), now); err != nil { // by a request that was under way
		t.Fatal(err)
	}
	if _, ok, _ := s.Check(t.Context(), secret); ok {
		t.Error("it came back")
	}
	if list, _ := s.List(t.Context()); len(list) != 0 {
		t.Errorf("listed: %v", list)
	}
}

// A login link works once however many try at the same moment, for ten minutes, and
// looking at it uses nothing up.
func TestLoginLink(t *testing.T) {
	t.Parallel()
	h := newHall(t, nil)
	resp, body := h.do(h.token("*", ScopeAdmin), "POST", "/v1/login-links", `{"name":"kari","reason":"IdP is down"}`)
	link := into[LoginLink](t, body)
	path, ok := strings.CutPrefix(link.URL, h.signIn.BaseURL)
	if resp.StatusCode != 201 || !ok || link.Role != RoleAdmin || !link.ExpiresAt.Equal(monday.Add(10*time.Minute)) {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	code := strings.TrimPrefix(path, "/sign-in/link/")
	for key, value := range h.links.m {
		if strings.Contains(key+string(value), code) {
			t.Error("the store holds the link")
		}
	}
	for range 3 {
		resp, body := h.look(path, "", "Sec-Fetch-Site", "cross-site")
		if resp.StatusCode != 200 || !strings.Contains(body, "made it for kari") || len(resp.Cookies()) != 0 {
			t.Fatalf("%d %s", resp.StatusCode, body)
		}
	}
	if resp, _ := h.submit("/sign-in/link", "", url.Values{"code": {code}}, "Sec-Fetch-Site", "cross-site"); resp.StatusCode != 403 {
		t.Fatalf("from another site's page: %d", resp.StatusCode)
	}

	cookies := make(chan string, 8)
	var wg sync.WaitGroup
	for range cap(cookies) {
		wg.Go(func() {
			r, err := http.NewRequestWithContext(t.Context(), "POST", h.server.URL+"/sign-in/link", strings.NewReader(url.Values{"code": {code}}.Encode()))
			if err != nil {
				t.Error(err)
				return
			}
			r.Header.Set("Content-Type", formBody)
			r.Header.Set("Sec-Fetch-Site", "same-origin")
			resp, err := h.server.Client().Do(r)
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
			for _, c := range resp.Cookies() {
				if c.Name == sessionCookie {
					cookies <- c.Name + "=" + c.Value
				}
			}
		})
	}
	wg.Wait()
	if len(cookies) != 1 {
		t.Fatalf("%d of %d got in, want one", len(cookies), cap(cookies))
	}
	if resp, body := h.look("/", <-cookies); resp.StatusCode != 200 {
		t.Errorf("in: %d %s", resp.StatusCode, body)
	}
	if len(h.noted) != 2 || h.noted[0].Act != "login_link.new" || h.noted[0].Reason != "IdP is down" || h.noted[1].Act != "signin" || h.noted[1].By != "kari" {
		t.Errorf("noted: %+v", h.noted)
	}

	h.failedTries(t)
}

// failedTries makes wrong tries until they are slowed down, and lets a right one
// through afterwards.
func (h *hall) failedTries(t *testing.T) {
	code, _, err := h.signIn.Links.New(t.Context(), loginLink{Name: "kari", Role: RoleSupport, By: "b", Reason: "r"})
	if err != nil {
		t.Fatal(err)
	}
	h.later(loginLinkLife)
	for i := range failureBurst {
		wrong := []string{code, "x", strings.Repeat("a", 32), "%00"}[i%4] // code: too late
		if resp, body := h.submit("/sign-in/link", "", url.Values{"code": {wrong}}); i < 3 && resp.StatusCode != 404 || strings.Contains(body, "kari") {
			t.Errorf("%q: %d %s", wrong, resp.StatusCode, body)
		}
	}
	resp, _ := h.submit("/sign-in/link", "", url.Values{"code": {"x"}})
	if resp.StatusCode != 429 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
	h.later(time.Minute)
	code, _, _ = h.signIn.Links.New(t.Context(), loginLink{Name: "kari", Role: RoleSupport, By: "b", Reason: "r"})
	if resp, _ := h.submit("/sign-in/link", "", url.Values{"code": {code}}); resp.StatusCode != 200 {
		t.Errorf("a right one, a minute later: %d", resp.StatusCode)
	}
}

// A proxy's headers count from its own address alone, and when they name one person.
func TestProxyHeaders(t *testing.T) {
	t.Parallel()
	proxy := &Proxy{Addresses: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, UserHeader: "Remote-User", GroupsHeader: "Remote-Groups"}
	h := newHall(t, func(s *SignIn) { s.Proxy = proxy })
	h.grant(Grant{"desk", RoleSupport, []string{AllTenants}})
	for name, c := range map[string]struct {
		header []string
		want   int
	}{
		"named":             {[]string{"Remote-User", "liv", "Remote-Groups", "x, desk"}, 200},
		"without a role":    {[]string{"Remote-User", "liv", "Remote-Groups", "x"}, 403},
		"nobody":            {[]string{"Remote-Groups", "desk"}, 303},
		"control character": {[]string{"Remote-User", "liv\tx", "Remote-Groups", "desk"}, 303},
	} {
		if resp, body := h.look("/", "", c.header...); resp.StatusCode != c.want {
			t.Errorf("%s: %d, want %d: %s", name, resp.StatusCode, c.want, body)
		}
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = "127.0.0.1:4000"
	r.Header["Remote-User"] = []string{"liv", "admin"}
	if _, _, ok := proxy.who(r); ok {
		t.Error("two names are taken for one")
	}
	r.Header["Remote-User"] = []string{"liv"}
	r.RemoteAddr = "127.0.0.2:4000"
	proxy.strip(r)
	if _, _, ok := proxy.who(r); ok || r.Header.Get("Remote-User") != "" {
		t.Error("somebody else's header counts")
	}
	r.Header.Set("X-Forwarded-For", "203.0.113.9")
	if got := proxy.client(r); got != "127.0.0.2:4000" {
		t.Errorf("anybody may say who they are: %s", got)
	}
	r.RemoteAddr = "[::ffff:127.0.0.1]:4000"
	r.Header.Set("X-Forwarded-For", "10.0.0.1, 203.0.113.9")
	if got := proxy.client(r); got != "203.0.113.9:0" {
		t.Errorf("the client's address: %s", got)
	}
}

// Only paths of our own are gone on to.
func TestOwnPath(t *testing.T) {
	t.Parallel()
	for to, want := range map[string]string{
		"/messages/x?a=b": "/messages/x?a=b", "/": "/", "": "/", "//evil.example": "/", `/\evil.example`: "/", "https://evil.example/": "/",
		"/\t/evil.example": "/", "javascript:alert(1)": "/", "/sign-in?to=%2F": "/", "/" + strings.Repeat("a", ownPathLongest): "/", "evil": "/",
	} {
		if got := ownPath(to); got != want {
			t.Errorf("%q: %q, want %q", to, got, want)
		}
	}
}

// Whoever follows another site's link has not sent the strict cookie: our own page asks
// again.
func TestALinkFromAnotherSite(t *testing.T) {
	t.Parallel()
	h := newHall(t, nil)
	path := "/search?q=a&x=1"
	resp, body := h.look(path, "", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document")
	if resp.StatusCode != 200 || !strings.Contains(body, `<meta http-equiv="refresh" content="0; url=/search?q=a&amp;x=1">`) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	resp, _ = h.look(path, "", "Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document")
	if resp.StatusCode != 303 {
		t.Errorf("asked again: %d", resp.StatusCode)
	}
}
