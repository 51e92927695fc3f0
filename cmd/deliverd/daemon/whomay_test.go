package daemon

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/deliverd/deliverd/console"
	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// acts are requests that would do something to tenant a's things, for the doors where
// an empty request would not get as far as asking whose they are.
var acts = map[string]string{
	"POST /v1/messages/{message}/cancel": `{"reason":"r"}`,
	"POST /v1/messages/{message}/resend": `{"reason":"r","mode":"same"}`,
	"POST /v1/queue/pause":               `{"selector":"tenant:a","reason":"r"}`,
	"POST /v1/queue/resume":              `{"selector":"tenant:a","reason":"r"}`,
	"POST /v1/queue/retry":               `{"selector":"tenant:a","reason":"r"}`,
	"POST /v1/suppressions":              `{"tenant":"a","address":"more@nordlys.example","reason":"r"}`,
	"DELETE /v1/suppressions":            `{"tenant":"a","address":"stopped-mark@nordlys.example","reason":"r"}`,
	"POST /messages/{message}/resend":    "mode=same&reason=r",
	"POST /delays":                       "act=pause&selector=tenant:a&reason=r",
	"POST /suppressed/lift":              "tenant=a&address=stopped-mark@nordlys.example&reason=r",
}

// everybodys are the doors of what is every tenant's at once: those who are bound to
// some may not open them. Without a method, for every method.
var everybodys = []string{"/v1/tokens", "/v1/tokens/{token}", "/v1/sessions", "/v1/login-links", "/v1/queue", "/v1/destinations", "/v1/backup", "/health",
	"POST /v1/maintenance", "DELETE /v1/maintenance"}

// visitor is somebody who tries a door.
type visitor struct {
	name    string
	cookie  string // "" for nobody
	role    console.Role
	foreign bool // bound to a tenant that has nothing
	bound   bool
}

// TestG14WhoMay tries every door that the router has as nobody and in every role, for
// every tenant, for the one whose things are asked for, and for another. The doors are
// the router's own: a new one is tried without being named here.
func TestG14WhoMay(t *testing.T) {
	t.Parallel()
	d, _ := open(t, smtptest.SinkOptions{Rules: smtptest.Newcomers()}, func(c *Config) {
		for _, role := range console.Roles {
			for tenant, tenants := range map[string][]string{"all": nil, "a": {"a"}, "b": {"b"}} {
				c.SignIn.Grants = append(c.SignIn.Grants, GrantConfig{Group: string(role) + tenant, Role: string(role), Tenants: tenants})
			}
		}
	})
	admin := d.admin(t)
	id := d.sent(t, admin, `{"kind": "invite", "to": "greylist-mark@nordlys.example", "to_name": "Mark Marker", "person_id": "usr_mark", "tenant": "a",
		"tenant_name": "Markland", "data": {"link": "https://login.acme.example/i/1", "inviter": "Lars"}}`, mail.StateDelayed)
	if status, body := d.call(t, admin, "POST", "/v1/suppressions", `{"tenant":"a","address":"stopped-mark@nordlys.example","reason":"mark"}`); status != 201 {
		t.Fatalf("%d %s", status, body)
	}
	signIn, err := d.signIn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	routes, err := d.routes(t.Context(), signIn)
	if err != nil {
		t.Fatal(err)
	}
	fill := strings.NewReplacer("{message}", string(id), "{person}", console.PersonKey("a", "usr_mark", ""), "{token}", "tok_0123456789abcdef",
		"{domain}", "nordlys.example", "{share}", "x", "{code}", "x", "{template}", "pin", "{mail}", "1", "{$}", "")

	visitors := []visitor{{name: "nobody"}}
	for _, tenant := range []string{"b", "a", "all"} { // those who can really do something come last
		for _, role := range console.Roles {
			secret, _, err := signIn.Sessions.New(t.Context(), console.Session{Name: string(role) + " of " + tenant, Groups: []string{string(role) + tenant}})
			if err != nil {
				t.Fatal(err)
			}
			visitors = append(visitors, visitor{string(role) + " of " + tenant, "__Host-deliverd=" + secret, role, tenant == "b", tenant != "all"})
		}
	}
	for _, v := range visitors {
		if v.name == "support of a" { // before anybody who may
			d.untouched(t, id)
		}
		for _, route := range routes {
			if route.Scope != "" {
				path := fill.Replace(route.Pattern)
				if strings.Contains(path, "{") {
					t.Fatalf("%s: say what its address is to be filled with", route.Pattern)
				}
				d.try(t, v, route, path)
			}
		}
	}
}

// try makes one request and judges the answer.
func (d *Daemon) try(t *testing.T, v visitor, route console.Route, path string) {
	t.Helper()
	door := route.Method + " " + route.Pattern
	status, body := d.visit(t, v, route, path, acts[door])
	p := console.Principal{Scopes: v.role.Scopes()}
	named := strings.Contains(route.Pattern, "{message}") || strings.Contains(route.Pattern, "{person}")
	ok, want := true, ""
	switch {
	case v.cookie == "":
		// After some tries without any right the answer is to wait.
		ok, want = status == http.StatusUnauthorized || status == http.StatusTooManyRequests, "401 or 429"
	case !p.Can(route.Scope):
		ok, want = status == http.StatusForbidden, "403"
	case v.foreign && (named || acts[door] != ""):
		ok, want = status == http.StatusNotFound, "404"
	case v.bound && (slices.Contains(everybodys, route.Pattern) || slices.Contains(everybodys, door)):
		ok, want = status == http.StatusForbidden, "403, as it is every tenant's"
	case named && status == http.StatusNotFound:
		ok, want = false, "what is asked for"
	default:
		ok = status != http.StatusUnauthorized && status != http.StatusForbidden && (status < 500 || status == http.StatusServiceUnavailable)
		want = "neither 401 nor 403"
	}
	if !ok {
		t.Errorf("%s, %s: %d, want %s: %.300s", door, v.name, status, want, body)
	}
	if (v.foreign || v.cookie == "") && regexp.MustCompile(`(?i)usr_mark|markland|-mark@|mark marker`).MatchString(strings.ReplaceAll(body, path, "")) {
		t.Errorf("%s, %s: tells of another tenant's: %.1000s", door, v.name, body)
	}
}

// visit makes a request as one of our pages does, and reads the answer, of a stream
// nothing.
func (d *Daemon) visit(t *testing.T, v visitor, route console.Route, path, body string) (status int, answer string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, route.Method, "http://"+d.HTTPAddr().String()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Cookie", v.cookie)
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	r.Header.Set("Content-Type", "application/json")
	if route.Body != "" {
		r.Header.Set("Content-Type", route.Body)
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatalf("%s %s, %s: %v", route.Method, path, v.name, err)
	}
	defer resp.Body.Close()
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		return resp.StatusCode, ""
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// untouched checks that nobody so far did anything to tenant a's things.
func (d *Daemon) untouched(t *testing.T, id mail.ID) {
	t.Helper()
	s, err := d.queue.Status(t.Context(), id)
	if err != nil || s.State != mail.StateDelayed || s.Paused != "" {
		t.Errorf("the message: %+v, %v", s, err)
	}
	pauses, err1 := d.queue.Pauses(t.Context())
	stops, err2 := d.queue.Suppressions(t.Context(), "a")
	if err1 != nil || err2 != nil || len(pauses) != 0 || len(stops) != 1 {
		t.Errorf("pauses %v, suppressions %v, %v", pauses, fmt.Sprint(stops), err2)
	}
}
