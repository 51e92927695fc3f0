package deliver

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// testKeys makes one RSA key for all tests: making one takes a second.
var testKeys = sync.OnceValues(func() ([]byte, []byte) {
	rsaPEM, err := NewKey(RSA2048)
	if err != nil {
		panic(err)
	}
	edPEM, err := NewKey(Ed25519)
	if err != nil {
		panic(err)
	}
	return rsaPEM, edPEM
})

func parseKey(t testing.TB, domain, selector string, pemBytes []byte) *Key {
	t.Helper()
	k, err := ParseKey(domain, selector, pemBytes)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// testSigner signs for a domain with both algorithms.
func testSigner(t testing.TB, domain string) (*Signer, []*Key) {
	t.Helper()
	rsaPEM, edPEM := testKeys()
	keys := []*Key{parseKey(t, domain, "ed", edPEM), parseKey(t, domain, "rsa", rsaPEM)}
	s, err := NewSigner(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return s, keys
}

// records is the DNS that the keys are published in.
func records(keys []*Key) func(name string) ([]string, error) {
	return func(name string) ([]string, error) {
		for _, k := range keys {
			if strings.TrimSuffix(name, ".") == k.RecordName() {
				return []string{k.Record()}, nil
			}
		}
		return nil, fmt.Errorf("no record at %s", name)
	}
}

func verifyAll(t testing.TB, signed []byte, keys []*Key) {
	t.Helper()
	if problem := verification(signed, keys); problem != "" {
		t.Errorf("%s in\n%s", problem, signed)
	}
}

func verification(signed []byte, keys []*Key) string {
	found, err := dkim.VerifyWithOptions(bytes.NewReader(signed), &dkim.VerifyOptions{LookupTXT: records(keys)})
	if err != nil {
		return err.Error()
	}
	if len(found) != len(keys) {
		return fmt.Sprintf("%d signatures, want %d", len(found), len(keys))
	}
	for _, v := range found {
		if v.Err != nil {
			return "go-msgauth: " + v.Err.Error()
		}
	}
	return ""
}

// shapes are messages that rendering, or an operator's template, may make.
var shapes = map[string]string{
	"plain":                "From: Acme <no-reply@acme.example>\r\nTo: <k@dest.example>\r\nSubject: Hi\r\n\r\nHello\r\n",
	"no body":              "From: a@acme.example\r\nSubject: Hi\r\n\r\n",
	"no empty line":        "From: a@acme.example\r\nSubject: Hi\r\n",
	"empty lines at end":   "From: a@acme.example\r\n\r\nHello\r\n\r\n\r\n",
	"only empty lines":     "From: a@acme.example\r\n\r\n\r\n\r\n",
	"only blanks":          "From: a@acme.example\r\n\r\n \t \r\n  \r\n",
	"blanks":               "From: a@acme.example\r\n\r\n  two  \t spaces \t\r\n\tleading\r\n.\r\n..\r\n. dots\r\n",
	"folded":               "From:\r\n Acme\r\n\t<no-reply@acme.example>\r\nSubject: a\r\n  b\r\n\tc  \r\n\r\nx\r\n",
	"LF alone":             "From: a@acme.example\nSubject: Hi\n\nHello\nthere\n",
	"CR alone":             "From: a@acme.example\r\nSubject: Hi\r\n\r\nHello\rthere\r\n",
	"CR CR LF":             "From: a@acme.example\r\nSubject: Hi\r\n\r\nHello\r\r\nthere\r\n",
	"no final line end":    "From: a@acme.example\r\nSubject: Hi\r\n\r\nHello",
	"repeated fields":      "From: a@acme.example\r\nReferences: <1>\r\nReferences: <2>\r\nList-Id: <x>\r\n\r\nx\r\n",
	"a long line":          "From: a@acme.example\r\nSubject: Hi\r\n\r\n" + strings.Repeat("x", 998) + "\r\n",
	"every field we sign":  "From: a@acme.example\r\nSender: b@acme.example\r\nTo: c@d.example\r\nCc: e@d.example\r\nReply-To: r@acme.example\r\nSubject: s\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\nMessage-ID: <1@acme.example>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain;\r\n charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\nContent-Language: fi\r\nAuto-Submitted: auto-generated\r\n\r\n=C3=A4\r\n",
	"fields in other case": "FROM: a@acme.example\r\nsubject: Hi\r\nmessage-id: <1@acme.example>\r\n\r\nx\r\n",
}

func TestSignaturesVerify(t *testing.T) {
	t.Parallel()
	s, keys := testSigner(t, "acme.example")
	at := time.Unix(1_700_000_000, 0)
	for name, raw := range shapes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			signed, err := s.Sign([]byte(raw), "acme.example", at)
			if err != nil {
				t.Fatal(err)
			}
			verifyAll(t, signed, keys)
			again, err := s.Sign([]byte(raw), "acme.example", at)
			if err != nil || !bytes.Equal(signed, again) {
				t.Error("the same message was signed in two ways")
			}
			for line := range bytes.Lines(signed) {
				if !bytes.HasSuffix(line, []byte("\r\n")) || bytes.Count(line, []byte("\r")) != 1 {
					t.Errorf("a line ends in %q", line)
				}
				if bytes.HasPrefix(line, []byte("DKIM")) && len(line) > 80 {
					t.Errorf("a line of the signature has %d bytes", len(line))
				}
			}
			if !bytes.HasPrefix(signed, []byte("DKIM-Signature: v=1; a=rsa-sha256;")) {
				t.Error("the RSA signature is not the first")
			}
		})
	}
}

// What is oversigned can't be added, what is signed can't be changed.
func TestSignaturesBreak(t *testing.T) {
	t.Parallel()
	s, keys := testSigner(t, "acme.example")
	raw := shapes["every field we sign"]
	signed, err := s.Sign([]byte(raw), "acme.example", time.Unix(1_700_000_000, 0))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"From", "To", "Cc", "Subject", "Date", "Message-ID", "Reply-To", "MIME-Version", "Content-Type", "Auto-Submitted", "Sender", "Content-Transfer-Encoding"} {
		if verification(append([]byte(name+": another\r\n"), signed...), keys) == "" {
			t.Errorf("a second %s can be added", name)
		}
		changed := bytes.Replace(signed, []byte("\r\n"+name+": "), []byte("\r\n"+name+": x"), 1)
		if bytes.Equal(changed, signed) || verification(changed, keys) == "" {
			t.Errorf("%s can be changed", name)
		}
	}
	few, err := s.Sign([]byte(shapes["plain"]), "acme.example", time.Unix(1_700_000_000, 0))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range oversigned {
		if verification(append([]byte(name+": another\r\n"), few...), keys) == "" {
			t.Errorf("a %s can be added where there is none", name)
		}
	}
	if verification(append([]byte("Sender: list@other.example\r\n"), few...), keys) != "" {
		t.Error("a forwarder's Sender breaks the signature")
	}
	if verification(append(bytes.Clone(signed), "more\r\n"...), keys) == "" {
		t.Error("the body can be added to")
	}
	if verification(append([]byte("Received: from x\r\nX-Spam: no\r\n"), signed...), keys) != "" {
		t.Error("a trace field breaks the signature")
	}
}

func TestSignRefuses(t *testing.T) {
	t.Parallel()
	s, _ := testSigner(t, "acme.example")
	for name, raw := range map[string]string{
		"8-bit":              "From: a@acme.example\r\n\r\né\r\n",
		"NUL":                "From: a@acme.example\r\n\r\n\x00\r\n",
		"a line of 999":      "From: a@acme.example\r\n\r\n" + strings.Repeat("x", 999) + "\r\n",
		"Subject :":          "From: a@acme.example\r\nSubject : x\r\n\r\nx\r\n",
		"no field":           "From: a@acme.example\r\nhello\r\n\r\nx\r\n",
		"begins with a fold": " x\r\nFrom: a@acme.example\r\n\r\nx\r\n",
	} {
		if _, err := s.Sign([]byte(raw), "acme.example", time.Time{}); err == nil {
			t.Errorf("%s was signed", name)
		}
	}
	if _, err := s.Sign([]byte(shapes["plain"]), "other.example", time.Time{}); !errors.Is(err, errNoKey) || !strings.Contains(err.Error(), "dkim new") {
		t.Errorf("another domain: %v", err)
	}
}

func TestKeysFor(t *testing.T) {
	t.Parallel()
	rsaPEM, edPEM := testKeys()
	s, err := NewSigner(parseKey(t, "acme.example", "a", rsaPEM), parseKey(t, "Login.Acme.Example.", "b", edPEM))
	if err != nil {
		t.Fatal(err)
	}
	for domain, want := range map[string]string{
		"acme.example": "a", "ACME.example.": "a", "login.acme.example": "b", "x.login.acme.example": "b", "mail.acme.example": "a",
		"notacme.example": "", "example": "", "": "",
	} {
		got := ""
		for _, k := range s.KeysFor(domain) {
			got += k.Selector
		}
		if got != want {
			t.Errorf("%q: signed by %q, want %q", domain, got, want)
		}
	}
	if _, err := NewSigner(parseKey(t, "acme.example", "a", rsaPEM), parseKey(t, "acme.example", "a", edPEM)); err == nil {
		t.Error("two keys under one selector")
	}
}

func TestParseKey(t *testing.T) {
	t.Parallel()
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	rsaPEM, _ := testKeys()
	block, _ := pem.Decode(rsaPEM)
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	pkcs1 := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(parsed.(*rsa.PrivateKey))})
	if k := parseKey(t, "acme.example", "old", pkcs1); k.Algorithm() != "rsa-sha256" {
		t.Errorf("PKCS #1: %s", k.Algorithm())
	}
	for name, row := range map[string]struct {
		domain, selector string
		pem              []byte
		want             string
	}{
		"not PEM":        {"acme.example", "s", []byte("hello"), "dkim new"},
		"1024 bits":      {"acme.example", "s", pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(small)}), "2048"},
		"a certificate":  {"acme.example", "s", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), "PRIVATE KEY"},
		"encrypted":      {"acme.example", "s", pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")}), "openssl"},
		"damaged":        {"acme.example", "s", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}), "damaged"},
		"bad selector":   {"acme.example", "s; x=1", rsaPEM, "selector"},
		"bad domain":     {"acme", "s", rsaPEM, "domain"},
		"empty selector": {"acme.example", "", rsaPEM, "selector"},
	} {
		if _, err := ParseKey(row.domain, row.selector, row.pem); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q in it", name, err, row.want)
		}
	}
	if _, err := NewKey("dsa"); err == nil {
		t.Error("made a DSA key")
	}
}

func TestRecord(t *testing.T) {
	t.Parallel()
	rsaPEM, edPEM := testKeys()
	r, e := parseKey(t, "acme.example", "r1", rsaPEM), parseKey(t, "acme.example", "e1", edPEM)
	if !strings.HasPrefix(r.Record(), "v=DKIM1; k=rsa; p=MIIB") || !strings.HasPrefix(e.Record(), "v=DKIM1; k=ed25519; p=") || len(e.public()) != 44 {
		t.Errorf("got %s and %s", r.Record(), e.Record())
	}
	line := r.ZoneLine()
	name, rest, _ := strings.Cut(line, " IN TXT ")
	joined := ""
	for _, s := range strings.Split(rest, `" "`) {
		s = strings.Trim(s, `"`)
		if len(s) > 255 {
			t.Errorf("a string of %d bytes", len(s))
		}
		joined += s
	}
	if name != "r1._domainkey.acme.example." || joined != r.Record() || !strings.Contains(rest, `" "`) {
		t.Errorf("got %s", line)
	}
	for txt, want := range map[string]string{
		r.Record(): "",
		strings.TrimPrefix(r.Record(), "v=DKIM1; k=rsa; "):                             "",
		"v=DKIM1;k=rsa; h=sha1:sha256; p=" + r.public()[:100] + " " + r.public()[100:]: "",
		"v=DKIM1; p=":                      "revoked",
		"v=DKIM1; k=rsa":                   "no p=",
		e.Record():                         "another key",
		"v=DKIM1; h=sha1; p=" + r.public(): "sha256",
		"v=spf1 -all":                      "not a DKIM record",
	} {
		err := r.CheckRecord(txt)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", txt, err, want)
		}
	}
}

// F24: without a key for the From domain a message is held, or sent unsigned where
// the operator said so, and never refused.
func TestFaultF24NoKey(t *testing.T) {
	t.Parallel()
	other, _ := testSigner(t, "other.example")
	held := fault{state: "", stage: mail.StageSign, text: "no DKIM key for its From domain acme.example", unsigned: true,
		change: func(o *Options, _ *Plan, _ *mail.Attempt) { o.Sign, o.RequireDKIM = other, true }}
	held.run(t)
	sent := fault{scripts: only(accepting), state: mail.StateAccepted,
		change: func(o *Options, _ *Plan, _ *mail.Attempt) { o.Sign = other },
		check: func(t *testing.T, _ *smtptest.Network, o mail.Outcome) {
			if bytes.Contains(o.Signed, []byte("DKIM-Signature")) {
				t.Error("signed by another domain's key")
			}
		}}
	sent.run(t)
	if _, err := New(Options{Hello: "x.example", Render: renderTest, ReturnPath: func(mail.ID) string { return "" }, Plan: Fixed("x", testPort, TLSNone), RequireDKIM: true}); err == nil {
		t.Error("DKIM required and no key at all")
	}
}

// TestDKIMInterop asks verifiers that others wrote. They come from Debian: python3-dkim
// with python3-nacl, and libmail-dkim-perl, which knows RSA alone.
func TestDKIMInterop(t *testing.T) {
	t.Parallel()
	s, keys := testSigner(t, "acme.example")
	dir := t.TempDir()
	var files []string
	for name, raw := range shapes {
		signed, err := s.Sign([]byte(raw), "acme.example", time.Unix(1_700_000_000, 0))
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, strings.ReplaceAll(name, " ", "_")+".eml")
		if err := os.WriteFile(file, signed, 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	for _, k := range keys {
		if err := os.WriteFile(filepath.Join(dir, k.RecordName()), []byte(k.Record()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("python3-dkim", func(t *testing.T) {
		need(t, "python3-dkim python3-nacl", debianPython, "-c", "import dkim, nacl")
		verifyWith(t, len(files)*2, debianPython, append([]string{"testdata/verify.py", dir}, files...)...)
	})
	t.Run("libmail-dkim-perl", func(t *testing.T) {
		need(t, "libmail-dkim-perl", "perl", "-MMail::DKIM::Verifier", "-e", "1")
		verifyWith(t, len(files), "perl", append([]string{"testdata/verify.pl", dir}, files...)...)
	})
}

// debianPython is the interpreter that sees Debian's packages; another one may come
// first in the path.
const debianPython = "/usr/bin/python3"

// need skips a test whose Debian packages are missing, but not where everything has
// to run.
func need(t *testing.T, packages string, command string, args ...string) {
	t.Helper()
	if err := exec.CommandContext(t.Context(), command, args...).Run(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("this needs: apt-get install %s", packages)
		}
		t.Skipf("for this, apt-get install %s", packages)
	}
}

// verifyWith runs a verifier that says "pass" for each signature on a line.
func verifyWith(t *testing.T, want int, command string, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), command, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if passed := strings.Count(string(out), "pass\n"); passed != want {
		t.Errorf("%d signatures pass, want %d:\n%s", passed, want, out)
	}
}

// The laws of signing: what is signed verifies, its lines are CRLF, nothing is lost.
func FuzzSign(f *testing.F) {
	for _, raw := range shapes {
		f.Add([]byte(raw))
	}
	_, edPEM := testKeys()
	k, err := ParseKey("acme.example", "ed", edPEM)
	if err != nil {
		f.Fatal(err)
	}
	s, err := NewSigner(k)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		signed, err := s.Sign(raw, "acme.example", time.Unix(1_700_000_000, 0))
		if err != nil {
			return
		}
		if _, err := fromDomain(signed); err == nil {
			if problem := verification(signed, []*Key{k}); problem != "" {
				t.Fatalf("%s in %q", problem, signed)
			}
		}
		strip := func(b []byte) string { return strings.NewReplacer("\r", "", "\n", "").Replace(string(b)) }
		if !strings.HasSuffix(strip(signed), strip(raw)) {
			t.Fatalf("%q became %q", raw, signed)
		}
	})
}

func BenchmarkSign(b *testing.B) {
	rsaPEM, edPEM := testKeys()
	raw := []byte(shapes["every field we sign"] + strings.Repeat("A line of a mail that has the usual length of lines in mails.\r\n", 200))
	for name, keys := range map[string][]*Key{
		"rsa":  {parseKey(b, "acme.example", "r", rsaPEM)},
		"ed":   {parseKey(b, "acme.example", "e", edPEM)},
		"both": {parseKey(b, "acme.example", "r", rsaPEM), parseKey(b, "acme.example", "e", edPEM)},
	} {
		s, err := NewSigner(keys...)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			for b.Loop() {
				if _, err := s.Sign(raw, "acme.example", time.Unix(1_700_000_000, 0)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
