package console

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// form sends a page's form as a browser does and returns the answer, redirects not
// followed.
func (s *site) form(path string, fields url.Values) (*http.Response, string) {
	s.t.Helper()
	client := s.server.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	defer func() { client.CheckRedirect = nil }()
	return s.do("", "POST", path, fields.Encode(), "Content-Type", "application/x-www-form-urlencoded")
}

// A window is planned and removed with a form: its times are in the page's zone.
func TestMaintenanceForms(t *testing.T) {
	t.Parallel()
	zone, err := time.LoadLocation("Europe/Helsinki")
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t)
	s.api.Zone = zone
	withPages(s, nil)
	for name, test := range map[string]struct {
		fields url.Values
		status int
		want   Window // of which the fields that are set matter
		says   string
	}{
		"once": {fields: url.Values{"when": {"once"}, "from": {"2026-03-03T13:00"}, "until": {"2026-03-03T13:30"}, "kinds": {"pin", "invite"}, "title": {" Login "}, "reason": {"weekly"}, "days": {"daily"}},
			status: 303, want: Window{Title: "Login", From: time.Date(2026, 3, 3, 11, 0, 0, 0, time.UTC), Until: time.Date(2026, 3, 3, 11, 30, 0, 0, time.UTC)}},
		"again": {fields: url.Values{"when": {"repeat"}, "from": {"2026-03-03T13:00"}, "days": {"weekdays"}, "start": {"13:00"}, "stop": {"13:30"}, "zone": {"Europe/Helsinki"}, "reason": {"weekly"}},
			status: 303, want: Window{Repeat: "weekdays 13:00–13:30 Europe/Helsinki"}},
		"no reason":    {fields: url.Values{"when": {"once"}, "from": {"2026-03-03T13:00"}, "until": {"2026-03-03T13:30"}, "title": {"<b>kept</b>"}}, status: 400, says: "&lt;b&gt;kept&lt;/b&gt;"},
		"no time":      {fields: url.Values{"when": {"once"}, "until": {"2026-03-03T13:30"}, "reason": {"x"}}, status: 400, says: "Say from when"},
		"ends before":  {fields: url.Values{"when": {"once"}, "from": {"2026-03-03T13:00"}, "until": {"2026-03-03T12:30"}, "reason": {"x"}}, status: 400, says: "before it begins"},
		"no such zone": {fields: url.Values{"when": {"repeat"}, "days": {"weekdays"}, "start": {"13:00"}, "stop": {"13:30"}, "zone": {"Mars/Base"}, "reason": {"x"}}, status: 400, says: "no time zone"},
		"no such kind": {fields: url.Values{"when": {"once"}, "from": {"2026-03-03T13:00"}, "until": {"2026-03-03T13:30"}, "kinds": {"fax"}, "reason": {"x"}}, status: 400, says: "no such kind"},
	} {
		resp, body := s.form("/delays/maintenance", test.fields)
		if resp.StatusCode != test.status || !strings.Contains(body, test.says) {
			t.Errorf("%s: %d, want %d with %q: %s", name, resp.StatusCode, test.status, test.says, body)
		}
		windows, err := s.api.Calendar.List(t.Context())
		if err != nil || test.status != 303 && len(windows) != 0 || test.status == 303 && len(windows) != 1 {
			t.Fatalf("%s: %d windows, %v", name, len(windows), err)
		}
		if len(windows) == 0 {
			continue
		}
		w := windows[0]
		if w.Title != test.want.Title || w.Repeat != test.want.Repeat || !w.From.Equal(test.want.From) || !w.Until.Equal(test.want.Until) || w.Reason != "weekly" || w.By == "" || len(w.Kinds) != len(test.fields["kinds"]) {
			t.Errorf("%s: %+v", name, w)
		}
		if resp, _ := s.form("/delays/maintenance", url.Values{"window": {w.ID}}); resp.StatusCode != 400 {
			t.Errorf("%s: removed without a reason: %d", name, resp.StatusCode)
		}
		if resp, _ := s.form("/delays/maintenance", url.Values{"window": {w.ID}, "reason": {"over"}}); resp.StatusCode != 303 {
			t.Errorf("%s: not removed: %d", name, resp.StatusCode)
		}
		if resp, _ := s.form("/delays/maintenance", url.Values{"window": {w.ID}, "reason": {"over"}}); resp.StatusCode != 404 {
			t.Errorf("%s: removed twice: %d", name, resp.StatusCode)
		}
	}
}

// Windows hold everybody's mail: whoever acts for some tenants sees no form, and is
// refused.
func TestMaintenanceIsEverybodys(t *testing.T) {
	t.Parallel()
	s := withPages(newSite(t), nil)
	s.auth.Open = false
	bound, all := s.token("04711", ScopeRead, ScopeAct), s.token("*", ScopeRead, ScopeAct)
	for token, sees := range map[string]bool{bound: false, all: true} {
		if _, body := s.do(token, "GET", "/delays?act=plan", ""); strings.Contains(body, `action="/delays/maintenance"`) != sees {
			t.Errorf("sees the form: %v, want %v", !sees, sees)
		}
	}
	fields := url.Values{"when": {"once"}, "from": {"2026-03-03T13:00"}, "until": {"2026-03-03T13:30"}, "reason": {"x"}}
	resp, _ := s.do(bound, "POST", "/delays/maintenance", fields.Encode(), "Content-Type", "application/x-www-form-urlencoded")
	if resp.StatusCode != 403 {
		t.Errorf("planned by one who acts for a tenant: %d", resp.StatusCode)
	}
}
