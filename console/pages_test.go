package console

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// fakeCaught is caught mail as a list, the oldest first.
type fakeCaught []CaughtMail

func (c fakeCaught) Mails() []CaughtMail {
	all := slices.Clone([]CaughtMail(c))
	slices.Reverse(all)
	return all
}

func (c fakeCaught) Mail(n int) (CaughtMail, bool) {
	if n < 1 || n > len(c) {
		return CaughtMail{}, false
	}
	return c[n-1], true
}

const inviteMail = "Date: Mon, 2 Mar 2026 09:14:05 +0000\r\n" +
	"From: Acme <no-reply@acme.example>\r\n" +
	"To: Kari Nordmann <kari.nordmann@nordlys.example>\r\n" +
	"Subject: =?utf-8?q?Lars_kutsuu_sinut_Acmeen_=E2=80=93_tervetuloa?=\r\n" +
	"X-Deliverd-Ref: %s\r\n" +
	"MIME-Version: 1.0\r\n" +
	"Content-Type: multipart/alternative; boundary=b1\r\n\r\n" +
	"--b1\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" +
	"Hei Kari,\r\n\r\nhttps://login.acme.example/i/3D=C3=A4\r\n" +
	"--b1\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n" +
	"PGgxPkhlaSBLYXJpPC9oMT4=\r\n--b1--\r\n"

func caughtMails() fakeCaught {
	raw := fmt.Sprintf(inviteMail, invite(2).Ref)
	return fakeCaught{
		{Number: 1, At: monday.Add(time.Minute), From: "bounce@acme.example", To: "kari.nordmann@nordlys.example", Hello: "mail.acme.example", TLS: "TLS 1.3", Raw: []byte(raw)},
		{Number: 2, At: monday.Add(2 * time.Minute), To: "empty@nordlys.example", Raw: []byte("no mail at all")},
	}
}

// withPages adds the pages to a site, open to this machine.
func withPages(s *site, caught Caught) *site {
	s.t.Helper()
	pages, err := NewPages(s.api, s.parts(caught))
	if err != nil {
		s.t.Fatal(err)
	}
	s.auth.Open = true
	s.server.Close()
	s.server = httptest.NewServer(Handler(s.auth, s.api.logger(), append(s.api.Routes(), pages.Routes()...)...))
	s.t.Cleanup(s.server.Close)
	return s
}

func TestPages(t *testing.T) {
	t.Parallel()
	s := withPages(newSite(t), caughtMails())
	s.backend.queue = Queue{
		Waiting: 3, Sending: 1, Delayed: 1, Expiring: 1, Oldest: monday,
		Pauses: []Pause{{Selector: "domain:gone.example", By: "Anna", Reason: "their server is being moved", Since: monday}},
	}
	s.backend.stops = []mail.Suppression{{
		Tenant: "04711", Address: "gone@nordlys.example", Cause: mail.CauseBadMailbox, Since: monday, Until: monday.Add(24 * time.Hour),
		By: "deliverd", Message: testID(2), Reply: "550 5.1.1 No such user",
	}}
	s.api.ServiceLog.Append(t.Context(), LogEntry{Act: "lift", By: "Anna", Tenant: "04711", On: "gone@nordlys.example", Reason: "The mailbox is there again"})
	s.api.ServiceLog.Append(t.Context(), LogEntry{Act: "cancel", By: "Anna", Tenant: "04711", On: string(invite(1).ID), Reason: "Invited the wrong person"})
	for !s.api.fresh(t.Context()) { // what the pages show is what the view has come to
		t.Log("the view is behind")
	}
	s.api.Calendar.Add(t.Context(), Window{Kinds: []string{"invite"}, Repeat: "weekdays 13:00–13:30 Europe/Helsinki", Title: "Login is updated", Reason: "weekly", By: "Sanna"})
	message := "/messages/" + string(invite(2).Ref)
	for name, path := range map[string]string{
		"start": "/", "search": "/search?q=kari", "nothing_found": "/search?q=nobody@example.com", "near": "/search?q=kary.nordman@nordlys.example",
		"person":  "/people/" + PersonKey(invite(1).Tenant, invite(1).PersonID, invite(1).To),
		"message": message, "message.fi": message + "?lang=fi", "message_text": message + "?as=text", "open_message": "/messages/" + string(invite(1).ID),
		"resend": message + "/resend", "resend_open": "/messages/" + string(invite(1).ID) + "/resend",
		"delays": "/delays", "delays_plan": "/delays?act=plan", "delays_pause": "/delays?act=pause&selector=domain:nordlys.example",
		"suppressed": "/suppressed", "suppressed_none": "/suppressed?address=nobody", "lift": "/suppressed/lift?tenant=04711&address=gone@nordlys.example",
		"templates": "/templates?template=pin&data=right-to-left", "health": "/health", "log": "/log", "log_none": "/log?by=Nobody",
		"caught": "/caught", "mail": "/caught/1", "not_found": "/messages/nonsense",
	} {
		t.Run(name, func(t *testing.T) {
			resp, body := s.do("", "GET", path, "")
			if got := resp.Header.Get("Content-Type"); got != "text/html; charset=utf-8" {
				t.Errorf("Content-Type %q", got)
			}
			if got := resp.Header.Get("Content-Security-Policy"); got != pagePolicy || strings.Contains(got, "unsafe") {
				t.Errorf("Content-Security-Policy %q", got)
			}
			if want := map[bool]int{true: 404, false: 200}[name == "not_found"]; resp.StatusCode != want {
				t.Errorf("status %d, want %d", resp.StatusCode, want)
			}
			shown := windowID.ReplaceAllString(version.ReplaceAllString(body, "?v=…"), "mnt_…")
			golden(t, "pages/"+name+".html", []byte(shown))
			checkHTML(t, body)
		})
	}
	resp, _ := s.do("", "GET", "/search?q="+string(invite(2).Ref), "")
	if got := resp.Request.URL.Path; got != "/messages/"+string(invite(2).ID) {
		t.Errorf("searching for a reference leads to %s", got)
	}
}

// version is what the address of a style sheet or script says of its content.
var version = regexp.MustCompile(`\?v=[0-9a-f]{12}`)

// windowID is a maintenance window's, which is drawn by lot.
var windowID = regexp.MustCompile(`mnt_[0-9a-f]{16}`)

func TestAssets(t *testing.T) {
	t.Parallel()
	s := withPages(newSite(t), nil)
	_, body := s.do("", "GET", "/", "")
	for name, kind := range map[string]string{
		"style.css": "text/css; charset=utf-8", "console.js": "text/javascript; charset=utf-8", "htmx.js": "text/javascript; charset=utf-8", "favicon.svg": "image/svg+xml",
	} {
		named := regexp.MustCompile(`"(/` + regexp.QuoteMeta(name) + `\?v=[0-9a-f]{12})"`).FindStringSubmatch(body)
		if named == nil {
			t.Errorf("the page does not load %s", name)
			continue
		}
		for path, cache := range map[string]string{named[1]: "max-age=31536000, immutable", "/" + name: "max-age=60", "/" + name + "?v=old": "max-age=60"} {
			resp, body := s.do("", "GET", path, "")
			if resp.Header.Get("Content-Type") != kind || resp.Header.Get("Cache-Control") != cache || body == "" {
				t.Errorf("%s: %s, %s, %d bytes", path, resp.Header.Get("Content-Type"), resp.Header.Get("Cache-Control"), len(body))
			}
		}
	}
}

var (
	scripting = regexp.MustCompile(`(?i)<script(?: src="/[a-z]+\.js\?v=[0-9a-f]+" defer></script>)?|\s(?:on[a-z]+|hx-on[^=]*|style)=|<style|javascript:|src="http|href="http`)
	unclosed  = regexp.MustCompile(`(?i)ZgotmplZ|<no value>|%!`)
)

// checkHTML: nothing inline, nothing from elsewhere, and no script but ours.
func checkHTML(t *testing.T, body string) {
	t.Helper()
	for _, found := range scripting.FindAllString(body, -1) {
		if !strings.HasSuffix(found, " defer></script>") {
			t.Errorf("the page has %q", found)
		}
	}
	if found := unclosed.FindString(body); found != "" {
		t.Errorf("the page has %q", found)
	}
}

func TestStartPageWithoutMail(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.api.View = openView(t, "")
	s.backend.log = &testLog{}
	withPages(s, fakeCaught{})
	for _, path := range []string{"/", "/caught"} {
		if _, body := s.do("", "GET", path, ""); !strings.Contains(body, "deliverd send invite") {
			t.Errorf("%s doesn't say what to try: %s", path, body)
		}
	}
}

// What a sender, a server or a recipient said is text, wherever it stands (G06).
func TestNothingForeignIsMarkup(t *testing.T) {
	t.Parallel()
	const attack = `"><script>alert(1)</script><img src=x onerror=alert(2)>'{{.}}`
	m := invite(20)
	m.TenantName, m.ToName, m.PersonID, m.Locale, m.Template, m.Source, m.Kind = attack, attack, attack, attack, attack, attack, attack
	m.Tenant = attack
	m.Tags, m.Metadata = []string{attack}, map[string]string{attack: attack}
	life := greylistedThenHandedOver(m)
	for i := range life {
		life[i].By, life[i].Reason = attack, attack
		if e := life[i].Evidence; e != nil {
			e.Provider, e.Host, e.IP, e.Stage, e.Error, e.QueueID = attack, attack, attack, attack, attack, attack
			e.Reply.Text = attack
			e.TLS.Version, e.TLS.Cipher, e.TLS.Verified, e.TLS.Problem = attack, attack, false, attack
			e.TLS.Names, e.TLS.Issuer, e.TLS.Policy, e.TLS.Source, e.TLS.Failure = []string{attack}, attack, attack, attack, attack
			e.Conversation, e.Capabilities = []mail.Exchange{{Command: attack, Reply: attack}, {Command: attack, Error: attack}}, []string{attack}
			e.Tries = []mail.Try{{Host: attack, IP: attack, Stage: attack, Error: attack}, {Host: attack, Reply: &mail.Reply{Code: 450, Text: attack}}}
		}
	}
	cancelled := mail.NewEvent(m, mail.StateCancelled, 2, monday.Add(time.Minute))
	cancelled.By, cancelled.Reason, cancelled.State = attack, attack, mail.State(attack)
	raw := "Subject: " + attack + "\r\nFrom: " + attack + " <a@b.example>\r\nX-Deliverd-Ref: " + attack + "\r\n\r\n" + attack + "\r\n"

	s := newSite(t)
	s.log.add(append(life, cancelled)...)
	withPages(s, fakeCaught{{Number: 1, At: monday, From: attack, To: attack, Hello: attack, TLS: attack, Raw: []byte(raw)}})
	for _, path := range []string{"/", "/messages/" + string(m.ID), "/search?q=" + strings.ReplaceAll(strings.ReplaceAll(attack, " ", "+"), "{", "%7B"), "/caught", "/caught/1"} {
		resp, body := s.do("", "GET", path, "")
		if resp.StatusCode != 200 {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
		if strings.Contains(body, "<script>") || strings.Contains(body, "<img") {
			t.Errorf("%s: markup got through: %s", path, body)
		}
		if !strings.Contains(body, "&lt;script&gt;") {
			t.Errorf("%s does not show the text at all", path)
		}
	}
	for _, path := range []string{"/v1/messages/" + string(m.ID), "/v1/messages/" + string(m.ID) + "/events"} {
		resp, body := s.do("", "GET", path, "")
		if strings.Contains(body, "<script") || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: a browser could take this for a page: %s", path, body)
		}
	}
}

// A caught mail's HTML is shown in a frame in which nothing runs, loads or leads
// anywhere (G06, G07).
func TestCaughtHTMLIsSandboxed(t *testing.T) {
	t.Parallel()
	s := withPages(newSite(t), caughtMails())
	resp, body := s.do("", "GET", "/caught/1/html", "")
	if body != "<h1>Hei Kari</h1>" {
		t.Errorf("body %q", body)
	}
	if got, want := resp.Header.Get("Content-Security-Policy"), previewPolicy; got != want || !strings.HasPrefix(want, "sandbox; default-src 'none';") {
		t.Errorf("Content-Security-Policy %q, want %q", got, want)
	}
	resp, body = s.do("", "GET", "/caught/1/raw", "")
	if body != string(caughtMails()[0].Raw) || resp.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("raw: %s %q", resp.Header.Get("Content-Type"), body)
	}
	for _, path := range []string{"/caught/9", "/caught/x/html", "/caught/-1/raw"} {
		if resp, _ := s.do("", "GET", path, ""); resp.StatusCode != 404 {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
}

func TestPagesNeedARight(t *testing.T) {
	t.Parallel()
	s := withPages(newSite(t), caughtMails())
	s.auth.Open = false
	bound := s.token("other", ScopeRead)
	for _, path := range []string{"/", "/search?q=kari", "/messages/" + string(invite(1).ID), "/caught", "/caught/1"} {
		if resp, _ := s.do("", "GET", path, ""); resp.StatusCode != 401 {
			t.Errorf("%s without a token: %d", path, resp.StatusCode)
		}
		if _, body := s.do(bound, "GET", path, ""); strings.Contains(body, "@nordlys") || strings.Contains(body, "04711") {
			t.Errorf("%s shows another tenant's: %s", path, body)
		}
	}
}

func TestCaughtMailIsReadWithinBounds(t *testing.T) {
	t.Parallel()
	text := "Content-Type: text/plain\r\n\r\nfound\r\n"
	nested := func(depth int) string {
		raw := text
		for i := range depth {
			raw = fmt.Sprintf("Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n%s--b%d--\r\n", i, i, raw, i)
		}
		return raw
	}
	after := func(parts int) string {
		return "Content-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Repeat("--b\r\nContent-Type: image/png\r\n\r\nx\r\n", parts) + "--b\r\n" + text + "--b--\r\n"
	}
	for name, c := range map[string]struct {
		raw  string
		want string
	}{
		"as deep as allowed": {nested(maxMailDepth), "found"}, "too deep": {nested(maxMailDepth + 1), ""},
		"the last part read": {after(maxMailParts - 2), "found"}, "one part later": {after(maxMailParts - 1), ""},
		"header too long": {"X: " + strings.Repeat("x", maxMailHeader) + "\r\n" + text, ""},
		"text too long":   {"Content-Type: text/plain\r\n\r\n" + strings.Repeat("x", maxMailText+9), strings.Repeat("x", maxMailText)},
	} {
		if got := strings.TrimSpace(read(CaughtMail{Raw: []byte(c.raw)}).Text); got != c.want {
			t.Errorf("%s: text %.40q (%d bytes), want %.40q (%d)", name, got, len(got), c.want, len(c.want))
		}
	}
}

func FuzzReadCaughtMail(f *testing.F) {
	f.Add([]byte(fmt.Sprintf(inviteMail, "7K3Q-9DXP")))
	f.Add([]byte("Content-Type: multipart/mixed; boundary=a\r\n\r\n" + strings.Repeat("--a\r\n\r\nx\r\n", 100)))
	f.Add([]byte("Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\nContent-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n\r\n"))
	f.Add([]byte("Subject: \xff\xfe\r\n\r\n\xff"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m := read(CaughtMail{Raw: raw})
		for _, s := range []string{m.Subject, m.Sender, m.Header, m.Text, m.HTML} {
			if strings.ToValidUTF8(s, "") != s && s != m.Subject && s != m.Sender {
				t.Errorf("not UTF-8: %q", s)
			}
		}
		if len(m.Text) > 3*maxMailText || len(m.HTML) > 3*maxMailText || len(m.Header) > 3*maxMailHeader {
			t.Error("unbounded")
		}
	})
}

// parts are what the pages of a test show: real templates, and a caught mail.
func (s *site) parts(caught Caught) PageParts {
	templates, err := mail.LoadTemplates("")
	if err != nil {
		s.t.Fatal(err)
	}
	return PageParts{
		Caught: caught, Hints: []string{"deliverd send invite --to kari@nordlys.example --data link=https://login.acme.example/i/1"},
		Templates: func() *mail.Templates { return templates }, Kinds: mail.DefaultKinds(), From: "Acme <no-reply@acme.example>",
		Health: func(context.Context) []HealthPart {
			return []HealthPart{
				{Name: "Queue", State: HealthOK, Text: "It takes mail, and has 3 waiting."},
				{Name: "Disk", State: HealthWarn, Text: "4 GiB are free.", Cure: "Free some space.", Values: []HealthValue{{"Data", "/var/lib/deliverd"}}},
			}
		},
	}
}

// Whatever the pages say in English is there in the other languages.
func TestPageWordsAreComplete(t *testing.T) {
	t.Parallel()
	said := map[string]bool{}
	files, err := filepath.Glob("pages/*.html")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`[({ ]t "([^"]+)"`).FindAllSubmatch(text, -1) {
			said[string(m[1])] = true
		}
	}
	for _, words := range []map[string]string{acts, logActs} {
		for _, w := range words {
			said[w] = true
		}
	}
	for _, w := range stateWords {
		said[w] = true
	}
	for _, d := range repeatDays {
		said[d.Text] = true
	}
	for _, w := range tlsPolicyWords {
		said[w] = true
	}
	for _, s := range conversationWords {
		said[s.text] = true
	}
	for _, lang := range languages[1:] {
		there := loadPageWords()[lang]
		for english := range said {
			if there[english] == "" {
				t.Errorf("%s lacks %q", lang, english)
			}
			for _, fill := range regexp.MustCompile(`\{[a-z]+\}`).FindAllString(english, -1) {
				if !strings.Contains(there[english], fill) {
					t.Errorf("%s of %q lacks %s", lang, english, fill)
				}
			}
		}
	}
}
