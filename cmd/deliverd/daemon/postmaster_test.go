package daemon

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	netmail "net/mail"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/deliverd/deliverd/bounces"
	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

const itDesk = "it@acme.example"

// withDesk is a daemon that passes mail to postmaster on, and its sink.
func withDesk(t *testing.T, to string, o smtptest.SinkOptions) (*Daemon, *smtptest.Sink) {
	t.Helper()
	return open(t, o, func(c *Config) { c.Bounces.Postmaster = to })
}

// desked lists what is kept, without the times.
func (d *Daemon) desked(t *testing.T) (names []string) {
	t.Helper()
	files, err := os.ReadDir(d.desk.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		_, name, _ := strings.Cut(f.Name(), "-")
		names = append(names, name)
	}
	return names
}

// arrived waits for n mails and returns them in the order of their arrival.
func arrived(t *testing.T, sink *smtptest.Sink, n int) []smtptest.Mail {
	t.Helper()
	var mails []smtptest.Mail
	waitFor(t, fmt.Sprint(n, " mails came"), func() bool { mails = slices.Collect(sink.Mails()); return len(mails) >= n })
	slices.SortFunc(mails, func(a, b smtptest.Mail) int { return a.Seq - b.Seq })
	return mails
}

// attachment is the last part of a mail that was passed on, decoded, and the first.
func attachment(t *testing.T, raw []byte) (mediaType string, whole []byte, note string) {
	t.Helper()
	m, err := netmail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/mixed" {
		t.Fatalf("%s, %v\n%s", kind, err, raw)
	}
	parts := multipart.NewReader(m.Body, params["boundary"])
	for n := 0; ; n++ {
		p, err := parts.NextRawPart()
		if errors.Is(err, io.EOF) {
			return mediaType, whole, note
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			note = string(body)
			continue
		}
		if n > 1 || p.FileName() != "original.eml" {
			t.Errorf("part %d is %v", n, p.Header)
		}
		if mediaType = p.Header.Get("Content-Type"); p.Header.Get("Content-Transfer-Encoding") == "base64" {
			if body, err = base64.StdEncoding.DecodeString(string(body)); err != nil {
				t.Fatal(err)
			}
		}
		whole = body
	}
}

// Mail to postmaster and abuse is passed on whole, by a signed mail of our own whose
// header nothing of it reaches, and is kept no longer than until it was handed over.
func TestE11PostmasterForwarded(t *testing.T) {
	t.Parallel()
	d, sink := withDesk(t, itDesk, smtptest.SinkOptions{})
	const file, asMail = `application/octet-stream; name="original.eml"`, "message/rfc822"
	for i, tt := range []struct{ name, desk, raw, mediaType string }{
		{"plain", "postmaster", "From: x@evil.example\r\nSubject: hello\r\n\r\nHello.\r\n.dot\r\nFrom here\r\n", asMail},
		{"a multipart that does not end", "abuse", "Subject: s\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n", asMail},
		{"hostile header", "postmaster", "From: \"\x1b[31m\" <x@evil.example>\r\nSubject: =?utf-8?Q?a=0D=0ABcc:_v@x.example?=\u202E <script>\r\n\r\n--=_\r\nSubject: inner\r\n", file},
		{"no header", "abuse", "\r\nonly text\r\n", asMail},
		{"nothing", "abuse", "", asMail},
		{"no line end", "abuse", "Subject: s\r\n\r\nno end", asMail},
		{"8 bit", "abuse", "Subject: s\r\n\r\nHyv\xe4\xe4 p\xe4iv\xe4\xe4\r\n", file},
		{"a long line", "abuse", "Subject: s\r\n\r\n" + strings.Repeat("x", 999) + "\r\n", file},
		{"NUL", "abuse", "Subject: s\r\n\r\n\x00\r\n", file},
		{"as large as can be", "abuse", "Subject: s\r\n\r\n" + strings.Repeat("\xe4\xe4\xe4\xe4\xe4\xe4\r\n", (mail.MaxAttached-100)/8), file},
	} {
		if err := d.desk.take(t.Context(), "x@evil.example\r\nBcc: v@x.example", tt.desk, []byte(tt.raw)); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		m := arrived(t, sink, i+1)[i]
		if m.To != itDesk || !strings.HasPrefix(m.From, "bounce+") {
			t.Errorf("%s: from %q to %q", tt.name, m.From, m.To)
		}
		header, _, _ := strings.Cut(string(m.Raw), "\r\n\r\n")
		for _, want := range []string{"DKIM-Signature:", "Auto-Submitted: auto-generated", "From: Acme <no-reply@acme.example>", "Mail to " + tt.desk} {
			if !strings.Contains(header, want) {
				t.Errorf("%s: no %q in\n%s", tt.name, want, header)
			}
		}
		if strings.Contains(header, "\r\nBcc:") || strings.ContainsAny(header, "\x1b\u202e") || strings.Contains(header, "evil.example") {
			t.Errorf("%s: our header has something of it:\n%s", tt.name, header)
		}
		mediaType, whole, note := attachment(t, m.Raw)
		if want := "Return-Path: <x@evil.exampleBcc:v@x.example>\r\n" + tt.raw; mediaType != tt.mediaType || string(whole) != want {
			t.Errorf("%s: %s\n%.300q\nwant\n%.300q", tt.name, mediaType, whole, want)
		}
		if _, html, ok := strings.Cut(note, "Content-Type: text/html"); !ok || strings.Contains(html, "<script") {
			t.Errorf("%s: the note passes on more than text:\n%s", tt.name, note)
		}
		for line := range strings.SplitSeq(string(m.Raw), "\r\n") {
			if len(line) > 998 {
				t.Errorf("%s: a line of %d octets", tt.name, len(line))
			}
		}
	}
	waitFor(t, "the files were removed", func() bool {
		return d.desk.round(t.Context()) == nil && len(d.desked(t)) == 0
	})
	if err := d.desk.take(t.Context(), "", "abuse", make([]byte, mail.MaxAttached)); !errors.Is(err, bounces.ErrTooLarge) {
		t.Errorf("one that is too large: %v", err)
	}
}

// What was passed on and comes back, by whatever way, is not passed on again; what
// somebody else's report has in it is.
func TestE11PostmasterLoop(t *testing.T) {
	t.Parallel()
	d, sink := withDesk(t, itDesk, smtptest.SinkOptions{})
	if err := d.desk.take(t.Context(), "", "postmaster", []byte("Subject: s\r\n\r\nx\r\n")); err != nil {
		t.Fatal(err)
	}
	ours := arrived(t, sink, 1)[0].Raw
	if err := d.desk.take(t.Context(), "", "postmaster", append([]byte("Received: from a.example\r\n"), ours...)); err != nil {
		t.Fatal(err)
	}
	bounce := append([]byte("Subject: Undelivered\r\nContent-Type: multipart/report; boundary=b\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n"), ours...)
	if err := d.desk.take(t.Context(), "", "abuse", bounce); err != nil {
		t.Fatal(err)
	}
	if m := arrived(t, sink, 2)[1]; !bytes.Contains(m.Raw, []byte("Subject: Mail to abuse: Undelivered")) {
		t.Errorf("%s", m.Raw)
	}
	waitFor(t, "the others were removed", func() bool {
		return d.desk.round(t.Context()) == nil && slices.Equal(d.desked(t), []string{"postmaster.loop.eml"})
	})
	if n := len(slices.Collect(sink.Mails())); n != 2 {
		t.Errorf("%d mails", n)
	}
}

// A flood becomes no flood of ours: the rest waits, and is told of as a number.
func TestE11PostmasterFlood(t *testing.T) {
	t.Parallel()
	d, sink := withDesk(t, itDesk, smtptest.SinkOptions{})
	const more = 5
	d.desk.mu.Lock() // no round until all are there
	for i := range deskHourly + more {
		if err := d.desk.take(t.Context(), "", "abuse", fmt.Appendf(nil, "Subject: mail %d\r\n\r\nx\r\n", i)); err != nil {
			t.Fatal(err)
		}
	}
	d.desk.mu.Unlock()
	mails := arrived(t, sink, deskHourly)
	if err := d.desk.round(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the files were removed", func() bool {
		return d.desk.round(t.Context()) == nil && slices.Equal(d.desked(t), slices.Repeat([]string{"abuse.eml"}, more))
	})
	told := slices.IndexFunc(mails, func(m smtptest.Mail) bool { return bytes.Contains(m.Raw, fmt.Appendf(nil, "\n%d more wait", more)) })
	if told < 0 {
		t.Errorf("nobody is told that %d wait", more)
	}
	// An hour later they go.
	d.desk.mu.Lock()
	d.desk.passed = nil
	d.desk.mu.Unlock()
	if err := d.desk.round(t.Context()); err != nil {
		t.Fatal(err)
	}
	arrived(t, sink, deskHourly+more)

	// More than there may be, as those before are being passed on meanwhile.
	for n := range 2 * deskMost {
		if err := os.WriteFile(filepath.Join(d.desk.dir, fmt.Sprintf("1-abuse.%d.eml", n)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.desk.take(t.Context(), "", "abuse", nil); !errors.Is(err, errDeskFull) {
		t.Errorf("with %d kept: %v", len(d.desked(t)), err)
	}
}

// What does not arrive stays, and a crash between the queue and the file's name makes
// no second mail.
func TestE11PostmasterKept(t *testing.T) {
	t.Parallel()
	d, sink := withDesk(t, "refuse@acme.example", smtptest.SinkOptions{Rules: smtptest.Newcomers()})
	if err := d.desk.take(t.Context(), "", "abuse", []byte("Subject: s\r\n\r\nx\r\n")); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "it was refused", func() bool {
		return d.desk.round(t.Context()) == nil && slices.Equal(d.desked(t), []string{"abuse.refused.eml"})
	})

	again, sink := withDesk(t, itDesk, smtptest.SinkOptions{})
	again.desk.mu.Lock()
	if err := again.desk.take(t.Context(), "", "abuse", []byte("Subject: s\r\n\r\nx\r\n")); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(again.desk.dir, "*.eml"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	name := strings.TrimSuffix(filepath.Base(files[0]), ".eml")
	for range 2 {
		if err := again.desk.pass(t.Context(), name, 0); err != nil {
			t.Fatal(err)
		}
		sent, err := filepath.Glob(filepath.Join(again.desk.dir, name+".msg_*.eml"))
		if err == nil {
			err = os.Rename(sent[0], files[0])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	again.desk.mu.Unlock()
	waitFor(t, "it was handed over", func() bool { return again.desk.round(t.Context()) == nil && len(again.desked(t)) == 0 })
	if n := len(slices.Collect(sink.Mails())); n != 1 {
		t.Errorf("%d mails", n)
	}
}

// Where nobody is named, the mail is kept for whoever looks.
func TestE11PostmasterUnnamed(t *testing.T) {
	t.Parallel()
	d, sink := withDesk(t, "", smtptest.SinkOptions{})
	if err := d.desk.take(t.Context(), "", "postmaster", []byte("Subject: s\r\n\r\nx\r\n")); err != nil {
		t.Fatal(err)
	}
	if got := d.desked(t); !slices.Equal(got, []string{"postmaster.eml"}) {
		t.Errorf("kept %v", got)
	}
	if n := len(slices.Collect(sink.Mails())); n != 0 {
		t.Errorf("%d mails", n)
	}
}
