package bounces

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/deliverd/deliverd/mail"
)

// testdata/mails holds mails as they come back, and beside each one what it says:
// name.eml and name.want. A newcomer adds a case by adding the two files.
func TestParseFiles(t *testing.T) {
	t.Parallel()
	names, err := filepath.Glob("testdata/mails/*.eml")
	if err != nil || len(names) == 0 {
		t.Fatalf("no test mails: %v", err)
	}
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			raw, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(strings.TrimSuffix(name, ".eml") + ".want")
			if err != nil {
				t.Fatal(err)
			}
			// Both ways in which lines end, since files lose CRs and SMTP has them.
			lf := bytes.ReplaceAll(raw, []byte("\r\n"), []byte("\n"))
			for _, raw := range [][]byte{lf, bytes.ReplaceAll(lf, []byte("\n"), []byte("\r\n"))} {
				if got := describe(Parse(raw)); got != string(want) {
					t.Errorf("got\n%swant\n%s", got, want)
				}
			}
		})
	}
}

// describe writes what a mail says in the form of a .want file.
func describe(r Returned) string {
	var b strings.Builder
	fmt.Fprintf(&b, "kind %s\n", r.Kind)
	if r.EnvelopeID != "" {
		fmt.Fprintf(&b, "envelope %s\n", r.EnvelopeID)
	}
	if r.MessageID != "" {
		fmt.Fprintf(&b, "message %s\n", r.MessageID)
	}
	for _, x := range r.Reports {
		fmt.Fprintf(&b, "report %s\n", x.Recipient)
		for _, f := range [...][2]string{
			{"original", x.Original}, {"action", string(x.Action)}, {"status", x.Status.String()}, {"host", x.Host},
			{"cause", string(x.Verdict.Cause)}, {"provider", x.Verdict.Provider},
		} {
			if f[1] != "" {
				fmt.Fprintf(&b, "  %s %s\n", f[0], f[1])
			}
		}
		if x.Reply.Code != 0 {
			fmt.Fprintf(&b, "  reply %s\n", x.Reply)
		}
		if x.Verdict.Suppress {
			fmt.Fprintf(&b, "  suppress\n")
		}
	}
	return b.String()
}

// corpus is the test mails, and some that are no mail at all.
func corpus(t testing.TB) [][]byte {
	t.Helper()
	names, err := filepath.Glob("testdata/mails/*.eml")
	if err != nil || len(names) == 0 {
		t.Fatalf("no test mails: %v", err)
	}
	all := [][]byte{nil, []byte("\n"), []byte(":"), []byte("From: a"), []byte(dsnText)}
	for _, name := range names {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, raw)
	}
	return all
}

// checkLaws fails the test where what Parse says breaks a law, whatever it read.
func checkLaws(t *testing.T, raw []byte) {
	t.Helper()
	before := bytes.Clone(raw)
	r := Parse(raw)
	if !bytes.Equal(raw, before) {
		t.Fatal("Parse wrote into the mail")
	}
	if got := describe(Parse(raw)); got != describe(r) {
		t.Fatalf("not deterministic:\n%s\n%s", got, describe(r))
	}
	switch r.Kind {
	case KindBounce, KindDelay:
		if len(r.Reports) == 0 {
			t.Fatalf("a %s without a report", r.Kind)
		}
	case KindComplaint, KindReport, KindAutoReply, KindNotABounce:
	default:
		t.Fatalf("kind %q", r.Kind)
	}
	if len(r.Reports) > maxReports {
		t.Fatalf("%d reports", len(r.Reports))
	}
	for _, x := range r.Reports {
		v := x.Verdict
		fine := x.Action != ActionFailed && x.Action != ActionDelayed && x.Action != ActionComplaint
		if (v.Cause == "") != fine || v.Hard && v.Retry {
			t.Fatalf("verdict %+v", v)
		}
		if v.Suppress && (r.Kind != KindBounce || x.Action != ActionFailed || !v.Hard || !aboutAddress(v.Cause) || x.Status[1] == 7 || x.Reply.Enhanced[1] == 7) {
			t.Fatalf("suppressed on %s:\n%s", r.Kind, describe(r))
		}
		if len(x.Reply.Text) > maxText || strings.ContainsAny(x.Reply.Text, "\r\n\x00\x1b") || len(x.Recipient) > 400 || strings.ContainsAny(x.Recipient, "\r\n\x00") {
			t.Fatalf("unbounded or unclean text: %q %q", x.Recipient, x.Reply.Text)
		}
	}
	if e, ok := r.Event(mail.NewID(testNow), testNow); ok && (e.ID == "" || e.State == "" || e.To != "" || e.Tenant != "") {
		t.Fatalf("event %+v", e)
	}
}

func FuzzParse(f *testing.F) {
	for _, raw := range corpus(f) {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) { checkLaws(t, raw) })
}

// Mails that were cut, doubled, shifted and had bytes changed: the laws hold.
func TestParseMutations(t *testing.T) {
	t.Parallel()
	mails := corpus(t)
	rng := rand.New(rand.NewPCG(2026, 11))
	for range 20_000 {
		raw := bytes.Clone(mails[rng.IntN(len(mails))])
		for range 1 + rng.IntN(4) {
			raw = mutate(rng, raw, mails)
		}
		checkLaws(t, raw)
	}
}

func mutate(rng *rand.Rand, raw []byte, mails [][]byte) []byte {
	if len(raw) < 2 {
		return append(raw, byte(rng.IntN(256)))
	}
	i, j := rng.IntN(len(raw)), rng.IntN(len(raw))
	i, j = min(i, j), max(i, j)
	switch rng.IntN(7) {
	case 0:
		raw[i] = byte(rng.IntN(256))
		return raw
	case 1:
		return raw[:j]
	case 2:
		return append(bytes.Clone(raw[:i]), raw[j:]...)
	case 3:
		return append(bytes.Clone(raw[:j]), raw[i:]...)
	case 4:
		other := mails[rng.IntN(len(mails))]
		return append(bytes.Clone(raw[:i]), other[min(len(other), j):]...)
	case 5:
		return bytes.ReplaceAll(raw, raw[i:min(i+1+rng.IntN(3), len(raw))], []byte{byte(rng.IntN(256))})
	}
	return append(bytes.Clone(raw[:i]), append([]byte("\n\n"), raw[i:]...)...)
}

// hostile are mails of 1 MB that are made to cost time.
func hostile() map[string][]byte {
	const size = 1 << 20
	fill := func(head, unit string) []byte {
		return []byte((head + strings.Repeat(unit, size/len(unit)+1))[:size])
	}
	report := "From: MAILER-DAEMON@x.example\nSubject: Undelivered Mail Returned to Sender\nContent-Type: multipart/report; boundary=b\n\n--b\n"
	deep := "From: postmaster@x.example\n"
	for i := range 300 {
		deep += fmt.Sprintf("Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n", i, i)
	}
	return map[string][]byte{
		"header without end":      fill("From: a\n", "X-Field: value of a field that goes on\n"),
		"one long header":         fill("Subject: ", "folded\n "),
		"one line":                fill("From: postmaster@x.example\n\n", "a"),
		"spaces":                  fill("From: postmaster@x.example\n\n", " "),
		"line breaks":             fill("From: postmaster@x.example\n\n", "\n"),
		"boundaries":              fill(report, "--b\n"),
		"almost boundaries":       fill(deep, "--b\n--\n"),
		"empty parts":             fill(report, "\n--b\nContent-Type: text/plain\n\n"),
		"addresses":               fill("From: postmaster@x.example\n\n", "<a@b.example>:\n"),
		"distinct at signs":       fill("From: postmaster@x.example\n\n", "a@"),
		"status fields":           fill(report+"Content-Type: message/delivery-status\n\n", "Final-Recipient: rfc822; a@b.example\nAction: failed\n\n"),
		"status noise":            fill(report+"Content-Type: message/delivery-status\n\n", "no field here\n\n"),
		"diagnostic folds":        fill(report+"Content-Type: message/delivery-status\n\nFinal-Recipient: rfc822; a@b.example\nDiagnostic-Code: smtp; 550", "\n user unknown"),
		"codes":                   fill("From: postmaster@x.example\nSubject: failure notice\n\n<a@b.example>:\n", "550 "),
		"replies":                 fill("From: postmaster@x.example\nSubject: failure notice\n\n<a@b.example>:\n", "<<< 550 no\n"),
		"encoded words":           fill("Subject: ", "=?utf-8?b?w6Q=?="),
		"html tags":               fill("From: postmaster@x.example\nContent-Type: text/html\n\n", "<style></"),
		"html entities":           fill("From: postmaster@x.example\nContent-Type: text/html\n\n", "&amp;&#228;"),
		"quoted-printable":        fill("From: postmaster@x.example\nContent-Transfer-Encoding: quoted-printable\n\n", "=E4=\n"),
		"base64":                  []byte("From: postmaster@x.example\nContent-Transfer-Encoding: base64\n\n" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("user unknown "), size/20))),
		"escape sequences":        fill("From: postmaster@x.example\nContent-Type: text/plain; charset=iso-2022-jp\n\n", "\x1b$B$3\x1b(B"),
		"original marks":          fill("From: postmaster@x.example\n\n", "---- original messag\n"),
		"parameters":              fill("Content-Type: multipart/mixed", "; a=\"b\""),
		"words that nearly match": fill("From: postmaster@x.example\nSubject: failure notice\n\n<a@b.example>: 550 ", "user your ip the message not mailbox is "),
	}
}

func TestParseHostile(t *testing.T) {
	t.Parallel()
	for name, raw := range hostile() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checkLaws(t, raw)
		})
	}
}

// The aim is under 50 ms for any mail of 1 MB.
func BenchmarkParseHostile(b *testing.B) {
	for name, raw := range hostile() {
		b.Run(strings.ReplaceAll(name, " ", "-"), func(b *testing.B) {
			for b.Loop() {
				Parse(raw)
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	mails := corpus(b)
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		Parse(mails[n%len(mails)])
		n++
	}
}
