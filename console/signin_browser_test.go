package console

import (
	"html/template"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// A real browser goes the whole way: sent to the provider, which is another site, and
// back to the page that was asked for; a link of another site's finds it signed in,
// although the cookie is strict; and signing out ends it.
func TestSignInInChromium(t *testing.T) {
	t.Parallel()
	b := browser(t)
	h, p := newOIDCHall(t)
	base := strings.Replace(h.server.URL, "127.0.0.1", "localhost", 1) // another site than the provider's
	h.signIn.OIDC.RedirectURL = base + "/sign-in/callback"
	page := "/messages/" + string(invite(1).ID)
	mux := http.NewServeMux()
	mux.Handle("/", p.server.Config.Handler)
	mux.HandleFunc("GET /authorize", func(w http.ResponseWriter, r *http.Request) {
		back := url.Values{"code": {p.authorize(r.URL.String())}, "state": {r.FormValue("state")}}
		http.Redirect(w, r, r.FormValue("redirect_uri")+"?"+back.Encode(), http.StatusFound)
	})
	mux.HandleFunc("GET /ticket", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		template.Must(template.New("").Parse(`<!doctype html><title>ticket</title><link rel="icon" href="data:,"><a href="{{.}}">the message</a>`)).Execute(w, base+page)
	})
	p.server.Config.Handler = mux

	tab := newTab(t, b, base)
	tab.look(1280, "light")
	tab.open(page)
	tab.until(`location.pathname === "/sign-in"`)
	tab.until(`document.querySelector("main a") !== null`)
	tab.picture("sign-in-1280-light")
	script[bool](tab, `document.querySelector("main a").click() || true`)
	tab.until(`location.pathname === "` + page + `" && document.querySelector("form[action='/sign-out']") !== null`)

	tab.base = p.server.URL
	tab.open("/ticket")
	script[bool](tab, `document.querySelector("a").click() || true`)
	tab.until(`location.pathname === "` + page + `" && document.querySelector("form[action='/sign-out']") !== null`)
	if got := script[string](tab, `document.cookie`); strings.Contains(got, sessionCookie) {
		t.Errorf("a script sees the cookie: %s", got)
	}

	script[bool](tab, `document.querySelector("form[action='/sign-out'] button").click() || true`)
	tab.until(`location.pathname === "/sign-in" && document.body.innerText.includes("signed out")`)
	tab.base = base
	tab.open("/")
	tab.until(`location.pathname === "/sign-in"`)
	tab.look(390, "dark")
	tab.open("/sign-in")
	tab.until(`document.querySelector("main a") !== null`)
	tab.picture("sign-in-390-dark")
	tab.calm("signing in")
}
