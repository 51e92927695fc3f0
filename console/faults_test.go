package console

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// The rows of the fault list's part G that are about who may. G01 to G05 are about
// webhooks, which there are none of.

// Every route that changes something, with a cookie that may do everything: no other
// site's page gets it done, nor anything that does not say where it comes from, nor a
// body of a type that a form could send to a door for JSON. No GET changes anything
// (TestAuthorisationMatrix counts the acts).
func TestG08CrossSiteRequests(t *testing.T) {
	t.Parallel()
	h := newHall(t, nil)
	h.grant(Grant{"ops", RoleAdmin, []string{AllTenants}})
	cookie := h.enter(Session{Name: "ola", Groups: []string{"ops"}})
	pages, err := NewPages(h.api, PageParts{})
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, route := range slices.Concat(h.api.Routes(), pages.Routes(), h.signIn.Routes()) {
		if route.Method == "GET" {
			continue
		}
		tried++
		path := strings.NewReplacer("{message}", string(invite(1).ID), "{token}", "tok_0123456789abcdef").Replace(route.Pattern)
		own, foreign := "application/json", formBody
		if route.Body == formBody {
			own, foreign = formBody, "text/plain"
		}
		for name, c := range map[string]struct {
			header []string
			want   int
		}{
			"cross-site":         {[]string{"Sec-Fetch-Site", "cross-site", "Content-Type", own}, 403},
			"a sister site":      {[]string{"Sec-Fetch-Site", "same-site", "Content-Type", own}, 403},
			"an old browser":     {[]string{"Origin", "https://evil.example", "Content-Type", own}, 403},
			"an opaque origin":   {[]string{"Origin", "null", "Content-Type", own}, 403},
			"no origin":          {[]string{"Content-Type", own}, 403},
			"a body of a form's": {[]string{"Sec-Fetch-Site", "same-origin", "Content-Type", foreign}, 415},
			"a typeless body":    {[]string{"Sec-Fetch-Site", "same-origin", "Content-Type", ""}, 415},
		} {
			resp, body := h.do("", route.Method, path, "x=1", append([]string{"Cookie", cookie}, c.header...)...)
			if resp.StatusCode != c.want {
				t.Errorf("%s %s, %s: %d, want %d: %s", route.Method, route.Pattern, name, resp.StatusCode, c.want, body)
			}
		}
	}
	if acts := h.backend.noted(); len(acts) != 0 || tried < 10 {
		t.Errorf("%d routes, acts %q", tried, acts)
	}
	if resp, _ := h.look("/", cookie); resp.StatusCode != 200 {
		t.Error("signed out by one of them")
	}
}

// Another site's page can't read along, not even with a browser that sends cookies.
func TestG09EventStreamsOfAnotherSite(t *testing.T) {
	t.Parallel()
	h := newHall(t, nil)
	h.grant(Grant{"ops", RoleAdmin, []string{AllTenants}})
	cookie := h.enter(Session{Name: "ola", Groups: []string{"ops"}})
	for _, path := range []string{"/v1/events", "/live", "/", "/v1/log"} {
		for _, mode := range []string{"cors", "no-cors", "websocket"} {
			resp, _ := h.do("", "GET", path, "", "Cookie", cookie, "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", mode, "Sec-Fetch-Dest", "empty")
			if resp.StatusCode != 403 {
				t.Errorf("%s, %s: %d", path, mode, resp.StatusCode)
			}
		}
	}
	if resp, _ := h.do("", "GET", "/v1/events", ""); resp.StatusCode != 401 {
		t.Errorf("without a session: %d", resp.StatusCode)
	}
}

// Every answer but the files of the pages' own looks forbids frames, caches and guesses
// at its type.
func TestG10Headers(t *testing.T) {
	t.Parallel()
	h := newHall(t, nil)
	h.grant(Grant{"ops", RoleAdmin, []string{AllTenants}})
	cookie := h.enter(Session{Name: "ola", Groups: []string{"ops"}})
	for _, path := range []string{"/", "/search?q=x", "/messages/" + string(invite(1).ID), "/messages/x", "/suppressed", "/v1/queue", "/v1/log", "/v1/log?format=csv",
		"/sign-in", "/sign-in/link/x", "/sign-in/callback", "/nothing", "/v1/sessions"} {
		for _, who := range []string{cookie, ""} {
			resp, _ := h.look(path, who)
			csp := resp.Header.Get("Content-Security-Policy")
			for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin"} {
				if got := resp.Header.Get(name); got != want {
					t.Errorf("%s: %s: %q, want %q", path, name, got, want)
				}
			}
			if !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "frame-ancestors 'none'") || strings.Contains(csp, "unsafe") {
				t.Errorf("%s: %s", path, csp)
			}
		}
	}
}

// No link is made of what a request says of its host.
func TestG11HostHeader(t *testing.T) {
	t.Parallel()
	h := newHall(t, nil)
	resp, body := h.do(h.token("*", ScopeAdmin), "POST", "/v1/login-links", `{"name":"kari","reason":"r"}`, "Host", "evil.example", "X-Forwarded-Host", "evil.example")
	if link := into[LoginLink](t, body); resp.StatusCode != 201 || !strings.HasPrefix(link.URL, "https://mail.acme.example/sign-in/link/") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	for _, path := range []string{"/", "/sign-in?to=/x", "/sign-in/link/x", "/nothing"} {
		resp, body := h.look(path, "", "Host", "evil.example", "X-Forwarded-Host", "evil.example")
		if strings.Contains(body+resp.Header.Get("Location"), "evil.example") {
			t.Errorf("%s leads to another host: %s %s", path, resp.Header.Get("Location"), body)
		}
	}
}

// gate is a store that lets nobody past a look until as many as it waits for look.
type gate struct {
	*memoryStore
	all sync.WaitGroup
}

func (g *gate) Get(ctx context.Context, key string) ([]byte, bool, error) {
	value, found, err := g.memoryStore.Get(ctx, key)
	if strings.HasPrefix(key, linkUsed) {
		g.all.Done()
		g.all.Wait()
	}
	return value, found, err
}

// Of those who all saw that a login link is unused, one gets in.
func TestG12OneUseOfALink(t *testing.T) {
	t.Parallel()
	const n = 16
	store := &gate{memoryStore: newMemoryStore()}
	links := NewLoginLinks(store, clock)
	code, _, err := links.New(t.Context(), loginLink{Name: "kari", Role: RoleAdmin, By: "b", Reason: "r"})
	if err != nil {
		t.Fatal(err)
	}
	store.all.Add(n)
	var in atomic.Int32
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if _, ok, err := links.Use(t.Context(), code); ok && err == nil {
				in.Add(1)
			}
		})
	}
	wg.Wait()
	if in.Load() != 1 {
		t.Errorf("%d of %d got in", in.Load(), n)
	}
}

// Whether a token, a session or a link was ever good is not told: what is malformed,
// unknown, revoked and too old is answered alike.
func TestG12UniformRefusals(t *testing.T) {
	t.Parallel()
	h := newHall(t, nil)
	_, revoked, err := h.api.Tokens.New(t.Context(), Token{Name: "n", Scopes: []Scope{ScopeRead}, Tenants: []string{"*"}})
	if err != nil {
		t.Fatal(err)
	}
	secret := h.token("*", ScopeRead)
	tokens, _ := h.api.Tokens.List(t.Context())
	for _, k := range tokens {
		if k.ID != revoked.ID {
			h.api.Tokens.Revoke(t.Context(), k.ID)
		}
	}
	_, want := h.do("dlv_x", "GET", "/v1/messages", "")
	if _, body := h.do(secret, "GET", "/v1/messages", ""); body != want {
		t.Errorf("a revoked token is told apart: %s", body)
	}
	code, _, _ := h.signIn.Links.New(t.Context(), loginLink{Name: "kari", Role: RoleAdmin, By: "b", Reason: "r"})
	h.signIn.Links.Use(t.Context(), code)
	_, want = h.look("/sign-in/link/x", "")
	if _, body := h.look("/sign-in/link/"+code, ""); body != want {
		t.Errorf("a used link is told apart: %s", body)
	}
	h.later(loginLinkLife)
	if _, body := h.look("/sign-in/link/"+code, ""); body != want {
		t.Errorf("an old link is told apart: %s", body)
	}
}

// What lets somebody in stands in no log, answer, export or store (a token is in the
// answer that makes it, once).
func TestG13WhatLetsInIsNowhere(t *testing.T) {
	t.Parallel()
	h := newHall(t, nil)
	chain := &memoryChain{}
	h.api.ServiceLog, _ = runLog(t, chain, h.now)
	h.signIn.Note = h.api.ServiceLog.Append
	h.serve(t)
	h.grant(Grant{"ops", RoleAdmin, []string{AllTenants}})
	admin := h.token("*", ScopeAdmin)
	_, body := h.do(admin, "POST", "/v1/tokens", `{"name":"ci","scopes":["read"]}`)
	token := into[NewToken](t, body).Token
	_, body = h.do(admin, "POST", "/v1/login-links", `{"name":"kari","reason":"I got https://login.acme.example/i/CANARY-9731 from her"}`)
	_, code, _ := strings.Cut(into[LoginLink](t, body).URL, "/sign-in/link/")
	resp, _ := h.submit("/sign-in/link", "", url.Values{"code": {code}})
	cookie := cookieOf(t, resp, sessionCookie, http.SameSiteStrictMode)
	secrets := []string{admin, token, code, strings.TrimPrefix(cookie, sessionCookie+"="), "CANARY"}

	texts := map[string]string{"the stored log": strings.Join(chain.lines(), "\n")}
	for _, path := range []string{"/v1/log", "/v1/log?format=jsonl", "/v1/log?format=csv", "/v1/sessions", "/v1/tokens", "/", "/sign-in"} {
		_, texts[path] = h.look(path, cookie)
	}
	for _, store := range []*memoryStore{h.sessions, h.links, h.store} {
		for key, value := range store.m {
			texts["a store"] += key + string(value)
		}
	}
	for where, text := range texts {
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("%s holds %q", where, secret)
			}
		}
	}
	if !strings.Contains(texts["the stored log"], "https://login.acme.example/[secret]") {
		t.Errorf("the reason is not there: %s", texts["the stored log"])
	}
}

// What somebody did for a tenant that they may not see any more is not theirs to read.
func TestG14OnesOwnActsForAnotherTenant(t *testing.T) {
	t.Parallel()
	liv := person("liv", "ses_1", ViaSession, RoleSupport, []string{"a"})
	for _, c := range []struct {
		e    LogEntry
		want bool
	}{
		{LogEntry{By: "liv", Via: ViaSession, Tenant: "a"}, true},
		{LogEntry{By: "liv", Via: ViaSession, ByID: "ses_0"}, true},
		{LogEntry{By: "liv", Via: ViaSession, Tenant: "b"}, false},
		{LogEntry{By: "ola", Via: ViaSession, Tenant: "a"}, false},
		{LogEntry{By: "liv", Via: ViaToken, Tenant: "a"}, false},
		{LogEntry{Act: "start"}, false},
	} {
		if got := liv.reads(&c.e); got != c.want {
			t.Errorf("%+v: %v", c.e, got)
		}
	}
	one := &Principal{Name: "ci", ID: "tok_1", Via: ViaToken, Scopes: []Scope{ScopeRead}, Tenants: []string{AllTenants}}
	if one.reads(&LogEntry{By: "ci", ByID: "tok_2", Via: ViaToken}) {
		t.Error("another token of the same name is the same one")
	}
}

// A million headers, a request line without end and a body on a GET change nothing for
// others; net/http and the guard bound them.
func TestG16OddRequestsAreRefused(t *testing.T) {
	t.Parallel()
	h := newHall(t, nil)
	resp, _ := h.do("", "GET", "/sign-in", "", "X-Long", strings.Repeat("a", 2<<20))
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a header of 2 MiB: %d", resp.StatusCode)
	}
	if resp, _ := h.submit("/sign-in/link", "", url.Values{"code": {strings.Repeat("a", 1<<20)}}); resp.StatusCode != 404 {
		t.Errorf("a form of 1 MiB: %d", resp.StatusCode)
	}
	if resp, _ := h.look("/sign-in?to="+strings.Repeat("a", 20_000), ""); resp.StatusCode != 200 {
		t.Errorf("a long way: %d", resp.StatusCode)
	}
}
