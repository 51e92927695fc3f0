package console

import (
	"context"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// SignIn is how people get in, and out again:
//
//	GET  /sign-in               what is configured, and what to do when nothing is
//	GET  /sign-in/oidc          to the sign-in system, and back to
//	GET  /sign-in/callback      … a session
//	GET  /sign-in/link/{code}   what a login link is for; looking at it uses nothing up
//	POST /sign-in/link          … a session, once
//	POST /sign-out              this session's end; with everywhere=yes, of all of the same person
//
// A session's cookie is SameSite=Strict: no other site's page or link ever sends it. So
// whoever follows a link of another site's, and comes back from the sign-in system,
// gets a page first that goes on to the one asked for by itself, and as that is our own
// page's doing, the browser sends the cookie along.
type SignIn struct {
	Sessions *Sessions
	Links    *LoginLinks
	OIDC     *OIDC          // nil: there is none
	Proxy    *Proxy         // nil: there is none
	Grants   func() []Grant // as configured at this moment
	// BaseURL is the address that people reach us by. Links are made from it and never
	// from what a request says of its host (FAULTS G11).
	BaseURL string
	// Zone is that of the times on pages; nil means UTC.
	Zone *time.Location
	Now  func() time.Time
	// Note is told who came and went; nil means nobody.
	Note func(context.Context, LogEntry)
	Log  *slog.Logger

	failed failures
}

const (
	sessionCookie = "__Host-deliverd"
	flowCookie    = "__Host-deliverd-signin"
)

// formBody is the media type of a form; see [Route].
const formBody = "application/x-www-form-urlencoded"

// Routes are the doors of the sign-in, which are for everybody, and those for
// administrators.
func (s *SignIn) Routes() []Route {
	return append(s.apiRoutes(), []Route{
		{"GET", "/sign-in", "", "", http.HandlerFunc(s.offer)},
		{"GET", "/sign-in/oidc", "", "", http.HandlerFunc(s.begin)},
		{"GET", "/sign-in/callback", "", "", http.HandlerFunc(s.callback)},
		{"GET", "/sign-in/link/{code}", "", "", http.HandlerFunc(s.showLink)},
		{"POST", "/sign-in/link", "", formBody, http.HandlerFunc(s.useLink)},
		{"POST", "/sign-out", "", formBody, http.HandlerFunc(s.signOut)},
	}...)
}

// who returns who makes a request by a cookie or by the word of the proxy, nil if
// neither says. The error is a *mail.Problem.
func (s *SignIn) who(r *http.Request) (*Principal, error) {
	if s.Proxy != nil {
		if name, groups, ok := s.Proxy.who(r); ok {
			role, tenants, ok := granted(s.Grants(), groups)
			if !ok {
				return nil, noRole(name)
			}
			return person(name, "", ViaProxy, role, tenants), nil
		}
	}
	session, ok, err := s.session(r)
	if err != nil {
		s.Log.Error("a session could not be checked", "error", err)
		return nil, unavailable("Who you are can't be looked up now. Try again.")
	}
	if !ok {
		return nil, nil
	}
	role, tenants := session.Role, []string{AllTenants}
	if role == "" {
		if role, tenants, ok = granted(s.Grants(), session.Groups); !ok {
			return nil, noRole(session.Name)
		}
	}
	p := person(session.Name, session.ID, ViaSession, role, tenants)
	p.session = &session
	return p, nil
}

func noRole(name string) *mail.Problem {
	return notAllowed("You are " + name + ", and none of your groups has a role here. Whoever runs deliverd gives one under [[signin.grants]] in its configuration.")
}

// session returns the session of a request's cookie.
func (s *SignIn) session(r *http.Request) (Session, bool, error) {
	c, err := r.Cookie(sessionCookie)
	if err != nil {
		return Session{}, false, nil
	}
	return s.Sessions.Check(r.Context(), c.Value)
}

// fromPage refuses a change that is asked for without proof that one of our own pages
// asks: what a browser sends by itself, a cookie or a header of the proxy's, is none.
// Browsers prove it by Origin or Sec-Fetch-Site, which are compared elsewhere.
func fromPage(r *http.Request) error {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return nil
	}
	if r.Header.Get("Origin") == "" && r.Header.Get("Sec-Fetch-Site") == "" {
		return notAllowed("The request does not say which page it comes from. Use a browser of today, or a token.")
	}
	return nil
}

// turnAway answers somebody who is not signed in and looks at a page: with the sign-in
// page, or, where a link of another site's brought them here without their cookie, by
// asking again from a page of our own.
func (s *SignIn) turnAway(w http.ResponseWriter, r *http.Request) {
	if fromElsewhere(r) {
		s.goOn(w, r, r.URL.RequestURI())
		return
	}
	http.Redirect(w, r, "/sign-in?"+url.Values{"to": {ownPath(r.URL.RequestURI())}}.Encode(), http.StatusSeeOther)
}

// fromElsewhere reports whether another site's link brought somebody here.
func fromElsewhere(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	return site == "cross-site" || site == "same-site"
}

// looksAtPage reports whether a request is a browser's that opens a page.
func looksAtPage(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	if dest := r.Header.Get("Sec-Fetch-Dest"); dest != "" {
		return dest == "document"
	}
	return strings.Contains(r.Header.Get("Accept"), "text/html")
}

// ownPathLongest keeps the cookie that remembers it within what browsers take.
const ownPathLongest = 1000

// ownPath returns a path of our own that somebody may be sent to, "/" for anything
// else: "//evil.example" and "/\evil.example" are other sites to a browser.
func ownPath(to string) string {
	u, err := url.Parse(to)
	if err != nil || len(to) > ownPathLongest || u.Scheme != "" || u.Host != "" || u.User != nil ||
		!strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//") || strings.ContainsAny(to, "\\") || strings.ContainsFunc(to, isControl) ||
		strings.HasPrefix(u.Path, "/sign-in") {
		return "/"
	}
	return to
}

// offer shows what ways in there are.
func (s *SignIn) offer(w http.ResponseWriter, r *http.Request) {
	to := ownPath(r.URL.Query().Get("to"))
	p, err := s.who(r)
	if p != nil {
		http.Redirect(w, r, to, http.StatusSeeOther)
		return
	}
	if fromElsewhere(r) {
		s.goOn(w, r, r.URL.RequestURI())
		return
	}
	page := s.page(r, "signin.title")
	if err != nil {
		page.Problem = asProblem(r.Context(), s.Log, err).Detail
		page.CanSignOut = true
	}
	if r.URL.Query().Has("out") {
		page.Text = page.say("signin.out")
	}
	if s.OIDC != nil {
		page.OIDC = "/sign-in/oidc?" + url.Values{"to": {to}}.Encode()
	}
	page.Proxy = s.Proxy != nil && s.Proxy.UserHeader != ""
	page.Nothing = page.OIDC == "" && !page.Proxy
	page.Ways = true
	s.show(w, http.StatusOK, page)
}

// begin sends somebody to the sign-in system.
func (s *SignIn) begin(w http.ResponseWriter, r *http.Request) {
	if s.OIDC == nil {
		writeProblem(w, notFound())
		return
	}
	address, flow, err := s.OIDC.Begin(r.Context(), ownPath(r.URL.Query().Get("to")))
	if err != nil {
		s.Log.Error("the sign-in system does not answer", "error", err)
		s.apologize(w, r, http.StatusServiceUnavailable, "signin.down")
		return
	}
	// Lax: the way back from the sign-in system is another site's redirect.
	setCookie(w, flowCookie, flow, http.SameSiteLaxMode, flowLife)
	http.Redirect(w, r, address, http.StatusSeeOther)
}

// callback takes somebody back from the sign-in system.
func (s *SignIn) callback(w http.ResponseWriter, r *http.Request) {
	if s.OIDC == nil {
		writeProblem(w, notFound())
		return
	}
	if s.tooMany(w, r, false) {
		return
	}
	setCookie(w, flowCookie, "", http.SameSiteLaxMode, -time.Second)
	q, flow := r.URL.Query(), ""
	if c, err := r.Cookie(flowCookie); err == nil {
		flow = c.Value
	}
	if q.Get("error") != "" {
		s.Log.Warn("the sign-in system refused somebody", "error", q.Get("error"))
		s.apologize(w, r, http.StatusForbidden, "signin.refused")
		return
	}
	who, to, err := s.OIDC.Finish(r.Context(), flow, q.Get("state"), q.Get("code"))
	if err != nil {
		s.Log.Warn("a sign-in failed", "error", err, "remote", s.Proxy.client(r))
		s.tooMany(w, r, true)
		s.apologize(w, r, http.StatusForbidden, "signin.failed")
		return
	}
	if _, _, ok := granted(s.Grants(), who.groups); !ok {
		s.note(r.Context(), LogEntry{Act: "signin.refused", By: who.name, Via: byOIDC, Reason: "none of the person's groups has a role"})
		page := s.page(r, "signin.norole.title")
		page.Problem = noRole(who.name).Detail
		s.show(w, http.StatusForbidden, page)
		return
	}
	s.enter(w, r, Session{Name: who.name, Subject: who.subject, Groups: who.groups, How: byOIDC}, to, "")
}

// enter begins a session and leads on to a page.
func (s *SignIn) enter(w http.ResponseWriter, r *http.Request, spec Session, to, reason string) {
	spec.From = hostOf(s.Proxy.client(r))
	secret, session, err := s.Sessions.New(r.Context(), spec)
	if err != nil {
		s.Log.Error("a session could not be kept", "error", err)
		s.apologize(w, r, http.StatusServiceUnavailable, "signin.store")
		return
	}
	setCookie(w, sessionCookie, secret, http.SameSiteStrictMode, s.Sessions.limits.Life)
	s.note(r.Context(), LogEntry{Act: "signin", By: session.Name, ByID: session.ID, Via: session.How, On: session.ID, Reason: reason})
	s.goOn(w, r, to)
}

// showLink says what a login link is for. A mail program or a chat that opens links
// ahead of people uses nothing up.
func (s *SignIn) showLink(w http.ResponseWriter, r *http.Request) {
	if s.tooMany(w, r, false) {
		return
	}
	code := r.PathValue("code")
	link, ok, err := s.Links.Look(r.Context(), code)
	if err != nil {
		s.Log.Error("a login link could not be looked up", "error", err)
		s.apologize(w, r, http.StatusServiceUnavailable, "signin.store")
		return
	}
	if !ok {
		s.badLink(w, r)
		return
	}
	page := s.page(r, "signin.link.title")
	page.Text = page.say("signin.link.for", "name", link.Name, "role", page.say("role."+string(link.Role)), "by", link.By)
	page.Code = code
	s.show(w, http.StatusOK, page)
}

// useLink signs somebody in by a login link, once.
func (s *SignIn) useLink(w http.ResponseWriter, r *http.Request) {
	if s.tooMany(w, r, false) {
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	link, ok, err := s.Links.Use(r.Context(), r.PostFormValue("code"))
	if err != nil {
		s.Log.Error("a login link could not be used", "error", err)
		s.apologize(w, r, http.StatusServiceUnavailable, "signin.store")
		return
	}
	if !ok {
		s.badLink(w, r)
		return
	}
	s.enter(w, r, Session{Name: link.Name, Role: link.Role, How: byLink}, "/", "a login link by "+link.By+": "+link.Reason)
}

func (s *SignIn) badLink(w http.ResponseWriter, r *http.Request) {
	s.Log.Warn("a login link that doesn't work was tried", "remote", s.Proxy.client(r))
	s.tooMany(w, r, true)
	s.apologize(w, r, http.StatusNotFound, "signin.link.bad")
}

// tooMany answers, and says so, when there were too many failures from an address.
// With count it only counts one more.
func (s *SignIn) tooMany(w http.ResponseWriter, r *http.Request, count bool) bool {
	from := s.Proxy.client(r)
	if count {
		s.failed.count(from, s.Now())
		return false
	}
	wait := s.failed.wait(from, s.Now())
	if wait == 0 {
		return false
	}
	w.Header().Set("Retry-After", retryAfter(int(wait.Seconds()+1)))
	s.apologize(w, r, http.StatusTooManyRequests, "signin.many")
	return true
}

// signOut ends the session, and with everywhere=yes all of the same person's.
func (s *SignIn) signOut(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	everywhere := r.PostFormValue("everywhere") == "yes"
	session, ok, err := s.session(r)
	if err == nil && ok {
		var ended []Session
		ended, err = s.Sessions.End(r.Context(), func(other *Session) bool {
			return other.ID == session.ID || everywhere && session.same(other)
		})
		for _, e := range ended {
			s.note(r.Context(), LogEntry{Act: "signout", By: session.Name, ByID: session.ID, Via: ViaSession, On: e.ID})
		}
	}
	if err != nil {
		s.Log.Error("a session could not be ended", "error", err)
		s.apologize(w, r, http.StatusServiceUnavailable, "signin.store")
		return
	}
	setCookie(w, sessionCookie, "", http.SameSiteStrictMode, -time.Second)
	http.Redirect(w, r, "/sign-in?out", http.StatusSeeOther)
}

func (s *SignIn) note(ctx context.Context, e LogEntry) {
	if s.Note != nil {
		s.Note(ctx, e)
	}
}

// setCookie sets a cookie that only our own pages get back, over TLS or on this
// machine, and that no script sees; a negative life removes it.
func setCookie(w http.ResponseWriter, name, value string, site http.SameSite, life time.Duration) {
	http.SetCookie(w, &http.Cookie{
		Name: name, Value: value, Path: "/", Secure: true, HttpOnly: true, SameSite: site, MaxAge: int(life.Seconds()),
	})
}

// signInPage is what the sign-in pages show.
type signInPage struct {
	words
	Title, Text, Problem string
	Ways                 bool   // the ways in are listed
	OIDC                 string // where the sign-in system's is
	Proxy, Nothing       bool
	Code                 string // of a login link that is looked at
	To                   string // the page to go on to by itself
	CanSignOut           bool
}

// Say returns a phrase of the page's language.
func (p *signInPage) Say(name string) string { return p.say(name) }

// Lang is the page's language.
func (p *signInPage) Lang() string { return p.lang }

func (s *SignIn) page(r *http.Request, title string) *signInPage {
	lang, err := langOf(r)
	if err != nil {
		lang = languages[0]
	}
	p := &signInPage{words: newWords(lang, s.Now(), s.Zone)}
	p.Title = p.say(title)
	return p
}

// goOn shows a page that leads on to another of ours by itself.
func (s *SignIn) goOn(w http.ResponseWriter, r *http.Request, to string) {
	page := s.page(r, "signin.on")
	page.To = ownPathOrSignIn(to)
	s.show(w, http.StatusOK, page)
}

// ownPathOrSignIn is ownPath, and lets the sign-in page itself through.
func ownPathOrSignIn(to string) string {
	if to == "/sign-in" || strings.HasPrefix(to, "/sign-in?") {
		return to
	}
	return ownPath(to)
}

func (s *SignIn) apologize(w http.ResponseWriter, r *http.Request, status int, phrase string) {
	page := s.page(r, phrase+".title")
	page.Problem = page.say(phrase + ".text")
	s.show(w, status, page)
}

// tell shows a problem as a page.
func (s *SignIn) tell(w http.ResponseWriter, r *http.Request, p *mail.Problem) {
	page := s.page(r, "signin.cannot")
	page.Problem, page.CanSignOut = p.Detail, true
	if p.RetryAfter > 0 {
		w.Header().Set("Retry-After", retryAfter(p.RetryAfter))
	}
	s.show(w, p.Status, page)
}

// signInTemplate is parsed from the program itself; a test shows it.
var signInTemplate = template.Must(template.New("signin.html").ParseFS(pageFiles, "pages/signin.html"))

func (s *SignIn) show(w http.ResponseWriter, status int, p *signInPage) {
	h := w.Header()
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	if err := signInTemplate.Execute(w, p); err != nil {
		s.Log.Debug("a page was not written to its end", "error", err)
	}
}
