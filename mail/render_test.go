package mail

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

func shippedTemplates(t testing.TB) *Templates {
	t.Helper()
	templates, err := LoadTemplates("")
	if err != nil {
		t.Fatal(err)
	}
	return templates
}

// sample is a message of a kind as Prepare makes it.
func sample(kind, lang string) *Message {
	m := &Message{
		ID: "msg_0193c0de-7a5b-7c1e-9f00-0123456789ab", Kind: kind, Template: kind, Locale: lang,
		Tenant: "04711", TenantName: "Nordlys Oy", PersonID: "usr_123",
		To: "kari.nordmann@nordlys.fi", ToName: "Kari Nordmann", From: "Acme <no-reply@acme.example>",
		QueuedAt: time.Date(2026, 11, 21, 14, 20, 0, 0, time.UTC),
	}
	m.Ref = m.ID.Ref()
	m.ExpiresAt = m.QueuedAt.Add(DefaultKinds()[kind].ValidFor)
	if kind == "pin" {
		m.Data = map[string]any{"pin": "004829", "device": "the front desk"}
	} else {
		m.Data = map[string]any{"link": "https://login.acme.example/i/Zk3vXw9QpL0sYt7RbN4mHc2Jd?t=04711&x=1", "inviter": "Lars Brännström"}
	}
	return m
}

func TestRenderGolden(t *testing.T) {
	t.Parallel()
	templates := shippedTemplates(t)
	for _, kind := range []string{"invite", "reset", "pin"} {
		for _, lang := range []string{"en", "fi"} {
			t.Run(kind+"."+lang, func(t *testing.T) {
				t.Parallel()
				got, err := templates.Render(sample(kind, lang))
				if err != nil {
					t.Fatal(err)
				}
				checkWire(t, got)
				golden := filepath.Join("testdata", kind+"."+lang+".golden")
				if *update {
					if err := os.WriteFile(golden, got, 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(golden)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, want) {
					t.Errorf("the mail is not the one in %s any more; if that is meant, run with -update\n%s", golden, got)
				}
			})
		}
	}
}

// What every mail that ships has to say, whatever else it says.
func TestShippedMails(t *testing.T) {
	t.Parallel()
	templates := shippedTemplates(t)
	until := map[string]string{"invite.en": "28 November 2026 at 14:20 UTC", "invite.fi": "28.11.2026 klo 14.20 UTC",
		"reset.en": "16:20 UTC", "reset.fi": "klo 16.20 UTC", "pin.en": "14:35 UTC", "pin.fi": "klo 14.35 UTC"}
	for name, when := range until {
		kind, lang, _ := strings.Cut(name, ".")
		m := sample(kind, lang)
		raw, err := templates.Render(m)
		if err != nil {
			t.Fatal(err)
		}
		got := readMail(t, raw)
		for _, body := range []string{got.text, got.html} {
			for _, want := range []string{string(m.Ref), string(m.To), m.ToName, when, "no-reply@acme.example"} {
				if !strings.Contains(body, want) {
					t.Errorf("%s does not say %q:\n%s", name, want, body)
				}
			}
		}
		if kind == "pin" {
			if !strings.HasPrefix(got.subject, "004829 ") {
				t.Errorf("%s: the subject %q does not begin with the PIN", name, got.subject)
			}
			if !strings.Contains(got.text, "\n\n004829\n\n") {
				t.Errorf("%s: the PIN has no line of its own:\n%s", name, got.text)
			}
		} else if !strings.Contains(got.text, "\n\n"+m.Data["link"].(string)+"\n\n") {
			t.Errorf("%s: the link has no line of its own:\n%s", name, got.text)
		} else if href := `href="https://login.acme.example/i/Zk3vXw9QpL0sYt7RbN4mHc2Jd?t=04711&amp;x=1"`; strings.Count(got.html, href) != 2 {
			t.Errorf("%s: want the link as button and in full:\n%s", name, got.html)
		}
		for _, never := range []string{"<img", "http://", "@import", "<script", "<no value>", "ZgotmplZ"} {
			if strings.Contains(got.html, never) {
				t.Errorf("%s holds %q", name, never)
			}
		}
		hidden, _, _ := strings.Cut(got.html[strings.Index(got.html, "display:none"):], "</div>")
		if !strings.Contains(hidden, when) {
			t.Errorf("%s: the preheader does not tell the expiry: %s", name, hidden)
		}
	}
}

func TestRenderHeaders(t *testing.T) {
	t.Parallel()
	m := sample("reset", "fi")
	m.ReplyTo = `"Support, Acme" <support@acme.example>`
	m.ToName = "Käyttäjä, \"Kari\" Æøå"
	raw, err := shippedTemplates(t).Render(m)
	if err != nil {
		t.Fatal(err)
	}
	got := readMail(t, raw)
	var names []string
	for line := range strings.SplitSeq(string(raw[:bytes.Index(raw, []byte("\r\n\r\n"))]), "\r\n") {
		if name, _, ok := strings.Cut(line, ":"); ok && line[0] != ' ' {
			names = append(names, name)
		}
	}
	want := []string{"Date", "From", "To", "Reply-To", "Message-ID", "Subject", "Content-Language", "Auto-Submitted",
		"X-Auto-Response-Suppress", "X-Deliverd-Ref", "MIME-Version", "Content-Type"}
	if !slices.Equal(names, want) {
		t.Errorf("headers %q, want %q", names, want)
	}
	for name, want := range map[string]string{
		"Date":             "Sat, 21 Nov 2026 14:20:00 +0000",
		"Message-Id":       "<msg_0193c0de-7a5b-7c1e-9f00-0123456789ab@acme.example>",
		"Content-Language": "fi",
		"Auto-Submitted":   "auto-generated",
		"X-Deliverd-Ref":   string(m.Ref),
		"Reply-To":         `"Support, Acme" <support@acme.example>`,
	} {
		if got := got.header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	to, err := mail.ParseAddress(got.header.Get("To"))
	if err != nil || to.Name != m.ToName || to.Address != string(m.To) {
		t.Errorf("To: %v, %v", to, err)
	}
}

func TestRenderIsDeterministicAndConcurrent(t *testing.T) {
	t.Parallel()
	templates := shippedTemplates(t)
	want, err := shippedTemplates(t).Render(sample("invite", "en"))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			m := sample("invite", "en")
			m.Data["timezone"] = "UTC"
			got, err := templates.Render(m)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("other bytes, or %v", err)
			}
		})
	}
	wg.Wait()
}

func TestRenderLeavesDataAlone(t *testing.T) {
	t.Parallel()
	m := sample("pin", "en")
	delete(m.Data, "device")
	if _, err := shippedTemplates(t).Render(m); err != nil {
		t.Fatal(err)
	}
	if len(m.Data) != 1 {
		t.Errorf("rendering changed the data: %v", m.Data)
	}
}

func TestRenderErrorsHoldNoValue(t *testing.T) {
	t.Parallel()
	templates := shippedTemplates(t)
	const canary = "cAnArY7"
	for name, change := range map[string]func(*Message){
		"unknown template": func(m *Message) { m.Template = "none" },
		"bad id":           func(m *Message) { m.ID = canary },
		"bad sender":       func(m *Message) { m.From = canary },
		"bad reply-to":     func(m *Message) { m.ReplyTo = canary },
		"bad zone":         func(m *Message) { m.Data["timezone"] = canary },
		"unsafe link":      func(m *Message) { m.Data["link"] = "javascript:" + canary },
		"long subject":     func(m *Message) { m.Data["inviter"] = canary + strings.Repeat("x", maxSubject) },
		"long mail": func(m *Message) {
			m.Data["inviter"] = nil
			m.Data["link"] = "https://a.example/" + canary + strings.Repeat("x", maxPart)
		},
	} {
		m := sample("invite", "en")
		change(m)
		got, err := templates.Render(m)
		if err == nil || got != nil {
			t.Errorf("%s: rendered", name)
		} else if strings.Contains(err.Error(), canary) {
			t.Errorf("%s: the error repeats a value: %v", name, err)
		}
	}
}

func TestUntilInThePersonsTimeZone(t *testing.T) {
	t.Parallel()
	templates := shippedTemplates(t)
	for zone, want := range map[string]string{
		"Europe/Helsinki": "16:35 EET", "Asia/Kathmandu": "20:20 UTC+5:45", "America/Sao_Paulo": "11:35 UTC-3",
		"": "14:35 UTC", "America/New_York": "09:35 EST",
	} {
		m := sample("pin", "en")
		m.Data["timezone"] = zone
		_, text, _, err := templates.Preview(m)
		if err != nil || !strings.Contains(text, "valid until "+want+".") {
			t.Errorf("%s: want %q in, %v:\n%s", zone, want, err, text)
		}
	}
}

func TestPreviewHoldsNoSecret(t *testing.T) {
	t.Parallel()
	templates := shippedTemplates(t)
	for kind, secret := range map[string]string{"invite": "Zk3vXw9QpL0sYt7RbN4mHc2Jd", "reset": "Zk3vXw9QpL0sYt7RbN4mHc2Jd", "pin": "004829"} {
		subject, text, html, err := templates.Preview(sample(kind, "en"))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(subject+text+html, secret) {
			t.Errorf("the preview of the %s shows %q", kind, secret)
		}
		if !strings.Contains(text, "Kari Nordmann") {
			t.Errorf("the preview of the %s shows nothing:\n%s", kind, text)
		}
	}
}

// received is a mail as its reader sees it.
type received struct {
	header        mail.Header
	subject       string
	text, html    string
	headerCounter map[string]int
}

// readMail reads with the standard library alone.
func readMail(t testing.TB, raw []byte) received {
	t.Helper()
	m, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		t.Fatalf("net/mail: %v\n%s", err, raw)
	}
	got := received{header: m.Header, headerCounter: map[string]int{}}
	for name, values := range m.Header {
		got.headerCounter[name] = len(values)
	}
	if got.subject, err = new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject")); err != nil {
		t.Fatal(err)
	}
	mediaType, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || mediaType != "multipart/alternative" {
		t.Fatalf("Content-Type: %v, %v", mediaType, err)
	}
	parts := multipart.NewReader(m.Body, params["boundary"])
	for i, want := range []string{"text/plain", "text/html"} {
		part, err := parts.NextRawPart()
		if err != nil {
			t.Fatal(err)
		}
		if got := part.Header.Get("Content-Type"); got != want+"; charset=utf-8" {
			t.Errorf("part %d is %s", i+1, got)
		}
		body, err := io.ReadAll(quotedprintable.NewReader(part))
		if err != nil {
			t.Fatal(err)
		}
		*[]*string{&got.text, &got.html}[i] = strings.ReplaceAll(string(body), "\r\n", "\n")
	}
	if _, err := parts.NextPart(); !errors.Is(err, io.EOF) {
		t.Errorf("after two parts: %v", err)
	}
	return got
}

// checkWire holds a mail against what may travel: CRLF alone ends a line, ASCII, no line
// over 78 outside of one long address.
func checkWire(t testing.TB, raw []byte) {
	t.Helper()
	if !bytes.HasSuffix(raw, []byte("\r\n")) {
		t.Error("the mail does not end with CRLF")
	}
	for i, line := range strings.Split(strings.TrimSuffix(string(raw), "\r\n"), "\r\n") {
		if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r >= 0x7f }) {
			t.Errorf("line %d holds what is not printable ASCII: %q", i+1, line)
		}
		if len(line) > 998 || len(line) > 78 && !strings.HasPrefix(line, " <") && !strings.HasPrefix(line, "Message-ID: ") {
			t.Errorf("line %d has %d characters: %q", i+1, len(line), line)
		}
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "From ") {
			t.Errorf("line %d would be altered on its way: %q", i+1, line)
		}
		if strings.HasSuffix(line, " ") || strings.HasSuffix(line, "\t") {
			t.Errorf("line %d ends with a blank", i+1)
		}
	}
}

// Whatever the values, the mail has the headers that it should and no other, and both
// parts decode to what was put in.
func FuzzRender(f *testing.F) {
	f.Add("Kari", "Nordlys Oy", "Lars", "https://a.example/x?y=1&z=2", "Acme", true)
	f.Add("a\r\nBcc: v@x.example", "\n.\r\n", "From x\n.\n", "javascript:alert(1)", "=?utf-8?q?x?=", false)
	f.Add(strings.Repeat("ä", 90), strings.Repeat("x", 180), "</script>{{.}}", "https://a.example/"+strings.Repeat("b", 300), `a"b\c`, true)
	f.Add("日本語の名前がとても長い場合はどうなるでしょうか", "\u2028\u0085\x00\x1b[31m", "\xff\xfe", "", " ", false)
	templates, err := LoadTemplates("")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, toName, tenantName, inviter, link, sender string, fi bool) {
		lang := "en"
		if fi {
			lang = "fi"
		}
		m := sample("invite", lang)
		m.ToName, m.TenantName = toName, tenantName
		m.From = joinMailbox(sender, "no-reply@acme.example")
		m.Data = map[string]any{"link": link, "inviter": inviter}
		raw, err := templates.Render(m)
		if err != nil {
			return
		}
		checkWire(t, raw)
		got := readMail(t, raw)
		if len(got.headerCounter) != 11 {
			t.Errorf("the mail has %d headers: %v", len(got.headerCounter), got.headerCounter)
		}
		for name, n := range got.headerCounter {
			if n != 1 {
				t.Errorf("%s is there %d times", name, n)
			}
		}
		said, err := templates.say(m)
		if err != nil {
			t.Fatal(err)
		}
		if want := decodable(said.text); got.text != want {
			t.Errorf("the text came out as\n%q\nnot\n%q", got.text, want)
		}
		if want := decodable(said.html); strings.TrimSuffix(got.html, "\n") != strings.TrimSuffix(want, "\n") {
			t.Errorf("the HTML came out as\n%q\nnot\n%q", got.html, want)
		}
		if again, err := templates.Render(m); err != nil || !bytes.Equal(raw, again) {
			t.Errorf("the second rendering differs: %v", err)
		}
	})
}

// decodable is text without what quoted-printable lets not through.
func decodable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f {
			return -1
		}
		return r
	}, s)
}

func BenchmarkRender(b *testing.B) {
	templates := shippedTemplates(b)
	for _, kind := range []string{"invite", "pin"} {
		b.Run(kind, func(b *testing.B) {
			m := sample(kind, "fi")
			b.ReportAllocs()
			for b.Loop() {
				if _, err := templates.Render(m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func ExampleTemplates_Preview() {
	templates, err := LoadTemplates("")
	if err != nil {
		panic(err)
	}
	subject, _, _, err := templates.Preview(sample("pin", "en"))
	fmt.Println(subject, err)
	// Output: [secret] is your Acme PIN <nil>
}
