package console

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// provider is an OpenID Connect provider: discovery, keys, codes bound to a PKCE
// challenge, tokens, and who somebody is.
type provider struct {
	t      *testing.T
	server *httptest.Server
	key    *rsa.PrivateKey
	now    func() time.Time

	mu       sync.Mutex
	codes    map[string]url.Values // by code: the request that it was given for
	spoil    func(claims map[string]any)
	header   map[string]any
	sign     *rsa.PrivateKey
	userinfo map[string]any
	asked    map[string]int
}

func newProvider(t *testing.T, now func() time.Time) *provider {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p := &provider{t: t, key: key, sign: key, now: now, codes: map[string]url.Values{}, asked: map[string]int{},
		header: map[string]any{"alg": "RS256", "kid": "k1", "typ": "JWT"}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		u := p.server.URL
		p.answer(w, "discovery", map[string]any{
			"issuer": u, "authorization_endpoint": u + "/authorize", "token_endpoint": u + "/token", "jwks_uri": u + "/keys",
			"userinfo_endpoint": u + "/userinfo", "id_token_signing_alg_values_supported": []string{"RS256"},
		})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		p.answer(w, "keys", map[string]any{"keys": []map[string]string{{
			"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "k1", "n": b64(key.N.Bytes()), "e": b64(big.NewInt(int64(key.E)).Bytes()),
		}}})
	})
	mux.HandleFunc("POST /token", p.token)
	mux.HandleFunc("GET /userinfo", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer access-CANARY" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		p.answer(w, "userinfo", p.userinfo)
	})
	p.server = httptest.NewServer(mux)
	t.Cleanup(p.server.Close)
	return p
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func (p *provider) answer(w http.ResponseWriter, what string, v any) {
	p.mu.Lock()
	p.asked[what]++
	p.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

// authorize is what the provider's own page does when somebody has signed in there:
// it checks the request and returns the code.
func (p *provider) authorize(address string) (code string) {
	p.t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		p.t.Fatal(err)
	}
	q := u.Query()
	if u.Path != "/authorize" || q.Get("response_type") != "code" || q.Get("client_id") != "deliverd" || q.Get("code_challenge_method") != "S256" ||
		len(q.Get("state")) < 20 || len(q.Get("nonce")) < 20 || !strings.Contains(q.Get("scope"), "openid") {
		p.t.Errorf("asked with %v", q)
	}
	code = rand.Text()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.codes[code] = q
	return code
}

// token exchanges a code, once, for whoever has the verifier of its challenge.
func (p *provider) token(w http.ResponseWriter, r *http.Request) {
	user, password, _ := r.BasicAuth()
	p.mu.Lock()
	asked, ok := p.codes[r.FormValue("code")]
	delete(p.codes, r.FormValue("code"))
	p.mu.Unlock()
	challenge := sha256.Sum256([]byte(r.FormValue("code_verifier")))
	if !ok || user != "deliverd" || password != "s3cret" || b64(challenge[:]) != asked.Get("code_challenge") || r.FormValue("redirect_uri") != asked.Get("redirect_uri") {
		w.WriteHeader(http.StatusBadRequest)
		p.answer(w, "refusal", map[string]string{"error": "invalid_grant", "error_description": "CANARY"})
		return
	}
	claims := map[string]any{
		"iss": p.server.URL, "aud": "deliverd", "sub": "248289", "nonce": asked.Get("nonce"), "iat": p.now().Unix(), "exp": p.now().Add(time.Minute).Unix(),
		"email": "liv@acme.example", "email_verified": true, "groups": []string{"desk"},
	}
	p.mu.Lock()
	if p.spoil != nil {
		p.spoil(claims)
	}
	p.mu.Unlock()
	p.answer(w, "token", map[string]any{"access_token": "access-CANARY", "token_type": "Bearer", "id_token": p.jwt(claims)})
}

func (p *provider) jwt(claims map[string]any) string {
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			p.t.Fatal(err)
		}
		return b64(b)
	}
	text := part(p.header) + "." + part(claims)
	sum := sha256.Sum256([]byte(text))
	sig, err := rsa.SignPKCS1v15(nil, p.sign, crypto.SHA256, sum[:])
	if err != nil {
		p.t.Fatal(err)
	}
	return text + "." + b64(sig)
}

// newOIDCHall is a hall whose sign-in system is a provider.
func newOIDCHall(t *testing.T) (*hall, *provider) {
	t.Helper()
	var p *provider
	h := newHall(t, func(s *SignIn) {
		p = newProvider(t, s.Now)
		s.OIDC = &OIDC{
			Issuer: p.server.URL, ClientID: "deliverd", ClientSecret: "s3cret", RedirectURL: "https://mail.acme.example/sign-in/callback",
			Scopes: []string{"email"}, NameClaim: "email", GroupsClaim: "groups", Key: make([]byte, 32), Now: s.Now,
		}
	})
	h.grant(Grant{"desk", RoleSupport, []string{AllTenants}}, Grant{"nordlys", RoleSupport, []string{"04711"}})
	return h, p
}

// leave goes to the provider: the address there, and the cookie that is kept.
func (h *hall) leave(t *testing.T, to string) (address, flow string) {
	t.Helper()
	resp, body := h.look("/sign-in/oidc?"+url.Values{"to": {to}}.Encode(), "", "Sec-Fetch-Site", "same-origin")
	if resp.StatusCode != 303 {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	return resp.Header.Get("Location"), cookieOf(t, resp, flowCookie, http.SameSiteLaxMode)
}

// back comes back from the provider with a code, as its redirect does.
func (h *hall) back(flow, state, code string) (*http.Response, string) {
	h.t.Helper()
	return h.look("/sign-in/callback?"+url.Values{"state": {state}, "code": {code}}.Encode(), flow,
		"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document")
}

func stateIn(address string) string {
	u, _ := url.Parse(address)
	return u.Query().Get("state")
}

// The whole way: to the provider, back with a code, a strict cookie, and on to the page
// that was asked for, which the browser opens from our own page.
func TestOIDC(t *testing.T) {
	t.Parallel()
	h, p := newOIDCHall(t)
	if resp, body := h.look("/sign-in?to=%2Fsearch%3Fq%3Da", ""); resp.StatusCode != 200 || !strings.Contains(body, `href="/sign-in/oidc?to=%2Fsearch%3Fq%3Da"`) {
		t.Fatalf("not offered: %d %s", resp.StatusCode, body)
	}
	address, flow := h.leave(t, "/search?q=a")
	if strings.Contains(flow, "search") || strings.Contains(flow, stateIn(address)) {
		t.Error("the cookie can be read")
	}
	code := p.authorize(address)
	resp, body := h.back(flow, stateIn(address), code)
	if resp.StatusCode != 200 || !strings.Contains(body, `content="0; url=/search?q=a"`) {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	cookie := cookieOf(t, resp, sessionCookie, http.SameSiteStrictMode)
	if gone := cookieOf(t, resp, flowCookie, http.SameSiteLaxMode); gone != flowCookie+"=" {
		t.Errorf("the first cookie stays: %s", gone)
	}
	if resp, _ := h.look("/messages/"+string(invite(1).ID), cookie); resp.StatusCode != 200 {
		t.Errorf("signed in: %d", resp.StatusCode)
	}
	list, err := h.signIn.Sessions.List(t.Context())
	if err != nil || len(list) != 1 || list[0].Name != "liv@acme.example" || list[0].Subject != p.server.URL+" 248289" || list[0].How != "oidc" {
		t.Errorf("%+v, %v", list, err)
	}
	for key, value := range h.sessions.m {
		if strings.Contains(key+string(value), "CANARY") {
			t.Error("the provider's token is kept")
		}
	}
	// The same answer again, as from a history or a log, lets nobody in.
	if resp, _ := h.back(flow, stateIn(address), code); resp.StatusCode != 403 {
		t.Errorf("a code a second time: %d", resp.StatusCode)
	}
	// Two sign-ins ask for the keys and addresses once.
	address, flow = h.leave(t, "/")
	if resp, body := h.back(flow, stateIn(address), p.authorize(address)); resp.StatusCode != 200 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if p.asked["discovery"] != 1 || p.asked["keys"] != 1 {
		t.Errorf("asked: %v", p.asked)
	}
}

// Nothing but the provider's own, fresh, answer to this very sign-in lets anybody in,
// and what is refused says nothing of why, nor of anybody's tokens.
func TestOIDCRefuses(t *testing.T) {
	t.Parallel()
	h, p := newOIDCHall(t)
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	claim := func(name string, value any) func() {
		return func() { p.spoil = func(c map[string]any) { c[name] = value } }
	}
	for name, change := range map[string]func(){
		"another nonce":       claim("nonce", "x"),
		"no nonce":            func() { p.spoil = func(c map[string]any) { delete(c, "nonce") } },
		"another audience":    claim("aud", "somebody"),
		"another issuer":      claim("iss", "https://evil.example"),
		"expired":             claim("exp", monday.Add(-time.Hour).Unix()),
		"another key":         func() { p.sign = other },
		"no signature at all": func() { p.header = map[string]any{"alg": "none"} },
		"a shared secret":     func() { p.header = map[string]any{"alg": "HS256", "kid": "k1"} },
		"somebody else's userinfo": func() {
			p.spoil = func(c map[string]any) { delete(c, "groups") }
			p.userinfo = map[string]any{"sub": "1", "groups": []string{"desk"}}
		},
	} {
		header := maps.Clone(p.header)
		change()
		address, flow := h.leave(t, "/")
		resp, body := h.back(flow, stateIn(address), p.authorize(address))
		if resp.StatusCode != 403 || strings.Contains(body, "CANARY") || strings.Contains(body, "nonce") {
			t.Errorf("%s: %d %s", name, resp.StatusCode, body)
		}
		for _, c := range resp.Cookies() {
			if c.Name == sessionCookie {
				t.Errorf("%s: signed in", name)
			}
		}
		p.spoil, p.sign, p.header, p.userinfo = nil, p.key, header, nil
		h.later(time.Minute) // the limit on tries is not what is tried here
	}
	address, flow := h.leave(t, "/")
	code := p.authorize(address)
	_, elses := h.leave(t, "/")
	for name, c := range map[string][3]string{
		"another state":              {flow, "x", code},
		"another browser's cookie":   {elses, stateIn(address), code},
		"no cookie":                  {"", stateIn(address), code},
		"a cookie that was changed":  {flow[:len(flow)-2], stateIn(address), code},
		"a code that is none":        {flow, stateIn(address), "x"},
		"a code of nobody's (empty)": {flow, stateIn(address), ""},
	} {
		if resp, body := h.back(c[0], c[1], c[2]); resp.StatusCode != 403 || strings.Contains(body, "CANARY") {
			t.Errorf("%s: %d %s", name, resp.StatusCode, body)
		}
		h.later(10 * time.Second)
	}
	h.later(flowLife)
	if resp, _ := h.back(flow, stateIn(address), code); resp.StatusCode != 403 {
		t.Errorf("too late: %d", resp.StatusCode)
	}
	if resp, _ := h.look("/sign-in/callback?error=access_denied&error_description=%3Cb%3ECANARY", flow); resp.StatusCode != 403 {
		t.Errorf("refused there: %d", resp.StatusCode)
	}
	if list, _ := h.signIn.Sessions.List(t.Context()); len(list) != 0 {
		t.Errorf("signed in: %+v", list)
	}
}

// What providers do differently: groups as one string, or only at the userinfo
// endpoint, or none; and an address that nobody has verified names nobody.
func TestOIDCGroups(t *testing.T) {
	t.Parallel()
	h, p := newOIDCHall(t)
	for name, c := range map[string]struct {
		spoil    func(map[string]any)
		userinfo map[string]any
		status   int
		named    string
	}{
		"one string":  {func(c map[string]any) { c["groups"] = "desk" }, nil, 200, "liv@acme.example"},
		"by userinfo": {func(c map[string]any) { delete(c, "groups") }, map[string]any{"sub": "248289", "groups": []string{"nordlys"}}, 200, "liv@acme.example"},
		"no verified": {func(c map[string]any) { c["email_verified"] = false }, nil, 200, "248289"},
		"no name":     {func(c map[string]any) { c["email"] = "a\nb" }, nil, 200, "248289"},
		"no role":     {func(c map[string]any) { c["groups"] = []any{"x", 3, map[string]any{}} }, nil, 403, ""},
		"no groups":   {func(c map[string]any) { delete(c, "groups") }, map[string]any{"sub": "248289"}, 403, ""},
	} {
		p.spoil, p.userinfo = c.spoil, c.userinfo
		address, flow := h.leave(t, "/")
		resp, body := h.back(flow, stateIn(address), p.authorize(address))
		if resp.StatusCode != c.status {
			t.Errorf("%s: %d, want %d: %s", name, resp.StatusCode, c.status, body)
			continue
		}
		if c.status != 200 {
			continue
		}
		list, _ := h.signIn.Sessions.List(t.Context())
		if len(list) == 0 || list[0].Name != c.named {
			t.Errorf("%s: %+v, want %s", name, list, c.named)
		}
		h.signIn.Sessions.End(t.Context(), func(*Session) bool { return true })
	}
}

// With the provider down, the sign-in page says so, pages stay closed, and a login link
// lets somebody in all the same. When it is back, it is asked again.
func TestOIDCDown(t *testing.T) {
	t.Parallel()
	h, p := newOIDCHall(t)
	live := h.signIn.OIDC.Issuer
	h.signIn.OIDC.Issuer = "http://127.0.0.1:1"
	resp, body := h.look("/sign-in/oidc", "")
	if resp.StatusCode != 503 || !strings.Contains(body, "does not answer") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	code, _, err := h.signIn.Links.New(t.Context(), loginLink{Name: "kari", Role: RoleAdmin, By: "local", Reason: "r"})
	if err != nil {
		t.Fatal(err)
	}
	resp, _ = h.submit("/sign-in/link", "", url.Values{"code": {code}})
	if resp, _ := h.look("/", cookieOf(t, resp, sessionCookie, http.SameSiteStrictMode)); resp.StatusCode != 200 {
		t.Errorf("by a link: %d", resp.StatusCode)
	}
	h.signIn.OIDC.Issuer = live
	address, flow := h.leave(t, "/")
	if resp, body := h.back(flow, stateIn(address), p.authorize(address)); resp.StatusCode != 200 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}
