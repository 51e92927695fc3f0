package mail

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

const token = "Zk3vXw9QpL0sYt7RbN4mHc2Jd"

// secretMessage holds a secret in every way there is.
func secretMessage() *Message {
	return &Message{
		To: "kari@nordlys.fi", Tenant: "04711", PersonID: "user-000123", Secrets: []string{"answer", "link", "pin"},
		Data: map[string]any{
			"pin": "482913", "answer": "the kingfisher",
			"link":   "https://login.acme.example/i/" + token + "?user=user-000123&step=welcome",
			"other":  "https://login.acme.example:8443/verify#abcDEF123456",
			"help":   "https://help.acme.example/",
			"note":   "Your PIN 482913, see https://login.acme.example/n/n0Tes777?x=y too",
			"nested": map[string]any{"Code": []any{"77-31-99", true}, "hint": "bird: The Kingfisher!"},
			"list":   []any{"a 482913 b", 12.5}, "count": "14829137", "inviter": "Lars", "yes": true, "nothing": nil, "token": "",
		},
	}
}

func TestPublicData(t *testing.T) {
	t.Parallel()
	want := map[string]any{
		"pin": "[secret]", "answer": "[secret]",
		"link":   "https://login.acme.example/[secret]",
		"other":  "https://login.acme.example:8443/[secret]",
		"help":   "https://help.acme.example/",
		"note":   "Your PIN [secret], see https://login.acme.example/[secret] too",
		"nested": map[string]any{"Code": []any{"[secret]", true}, "hint": "bird: [secret]!"},
		"list":   []any{"a [secret] b", "[secret]"}, "count": "14829137", "inviter": "Lars", "yes": true, "nothing": nil, "token": "",
	}
	m := secretMessage()
	if got := m.PublicData(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if !reflect.DeepEqual(m, secretMessage()) {
		t.Error("the message itself was changed")
	}
	if got := new(Message).PublicData(); len(got) != 0 {
		t.Errorf("without data: %v", got)
	}
}

func TestScrub(t *testing.T) {
	t.Parallel()
	m := secretMessage()
	link := m.Data["link"].(string)
	for in, want := range map[string]string{
		"":                                  "",
		"550 5.1.1 No such user":            "550 5.1.1 No such user",
		"subject 482913 is your":            "subject [secret] is your",
		"482913":                            "[secret]",
		"482913.482913":                     "[secret].[secret]",
		"id 14829137 or x482913":            "id 14829137 or x482913", // part of another number or word
		"blocked: " + link + " bad":         "blocked: [secret] bad",
		"blocked: " + strings.ToUpper(link): "blocked: [secret]",
		"token " + token + ".":              "token [secret].",
		"path x" + token + "y":              "path x[secret]y", // a long one counts anywhere
		"html " + strings.ReplaceAll(link, "&", "&amp;"):             "html [secret]",
		"json " + strings.ReplaceAll(link, "&", `\u0026`):            "json [secret]",
		"qp " + strings.ReplaceAll(link, "=", "=3D"):                 "qp [secret]",
		"cut off " + link[:len(link)-32]:                             "cut off [secret]",
		"cut off " + token[:12]:                                      "cut off [secret]",
		"The Kingfisher and abcdef123456":                            "[secret] and [secret]",
		"user-000123 of 04711 at kari@nordlys.fi, step welcome":      "user-000123 of 04711 at kari@nordlys.fi, step welcome",
		"see https://help.acme.example/ and https://x.example/a/b/c": "see https://help.acme.example/ and https://x.example/a/b/c",
	} {
		if got := m.Scrub(in); got != want {
			t.Errorf("Scrub(%q) = %q, want %q", in, got, want)
		}
	}
}

// A link whose only token is the person's own id is a secret all the same.
func TestIdentifierThatIsTheOnlyToken(t *testing.T) {
	t.Parallel()
	m := &Message{PersonID: token, Data: map[string]any{"link": "https://a.example/i/" + token}}
	if got := m.Scrub("x " + token); got != "x [secret]" {
		t.Error(got)
	}
}

func TestLooksLikeToken(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]bool{
		"reset-password": false, "invite": false, "i": false, "en": false, "v2": false, "email-verification": false,
		token: true, "0193c0de-7a5b-7c1e-9f00-0123456789ab": true, "482913": true, "a1b2c3": true,
		"AbCdEfGhIjKlMnOp": true, "abcdefghijklmnopqrstuvwxyz": true,
	} {
		if got := looksLikeToken(s); got != want {
			t.Errorf("looksLikeToken(%q) = %v", s, got)
		}
	}
}

// Whatever else the data holds, what may be shown never holds the secret.
func FuzzNoSecretIsShown(f *testing.F) {
	f.Add("482913", "your PIN: 482913.", "inviter")
	f.Add(token, "https://a.example/"+token+"?x="+token, "note")
	f.Add("https://a.example/i/"+token+"?a=b&c=d", "x https://a.example/i/"+token+"?a=b&c=d y", "other_url")
	f.Add("secret", "[secret]", "x")
	f.Add("aaaa", "aaaaaaaa aaaa", "x")
	f.Add("0000000\xe1", "0", "0") // lower case must not move the bytes of bad UTF-8
	f.Fuzz(func(t *testing.T, secret, text, name string) {
		secret = strings.TrimSpace(secret)
		if len(secret) < longSecret || strings.Contains(asciiLower(Blank), asciiLower(secret)) || strings.Contains(asciiLower(name), asciiLower(secret)) {
			return
		}
		m := &Message{Secrets: []string{"hidden"}, Data: map[string]any{
			"hidden": secret, name: text, "deep": map[string]any{"hidden": []any{secret + text}, "shown": text + secret + text},
		}}
		for _, shown := range []string{m.Scrub(text + secret), m.Scrub(secret + text + secret), fmt.Sprint(m.PublicData())} {
			// The texts around a blank may make the secret up anew, where it holds a part
			// of the blank itself.
			if strings.Contains(asciiLower(shown), asciiLower(secret)) && !strings.ContainsAny(secret, "[]") && !strings.Contains(asciiLower(secret), "secret") && !strings.HasPrefix(secret, "http") {
				t.Errorf("%q is shown in %q", secret, shown)
			}
		}
		if raw, err := json.Marshal(m); err != nil || strings.Contains(string(raw), `"hidden":"`) {
			t.Errorf("JSON holds the data: %s, %v", raw, err)
		}
	})
}

func BenchmarkScrub(b *testing.B) {
	m := secretMessage()
	reply := strings.Repeat("550 5.7.1 message refused ", 10)
	b.ReportAllocs()
	for b.Loop() {
		m.Scrub(reply)
	}
}
