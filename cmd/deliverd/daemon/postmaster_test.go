package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/deliverd/deliverd/deliver/smtptest"
)

func TestPostmasterIsTold(t *testing.T) {
	t.Parallel()
	sink, err := smtptest.Listen(smtptest.SinkOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sink.Close() })
	d := rehearsal(t, sink, func(c *Config) { c.Bounces.Postmaster = "it@acme.example" })
	d.run(t)
	raw := "From: x@evil.example\r\nSubject: hello\x1b[31m\r\n\r\n<script>alert(1)</script>\r\n\u202Ereversed\r\n" + strings.Repeat("long ", 100) + "\r\n"
	if err := d.keepForPostmaster(t.Context(), "x@evil.example\r\nBcc: v@x.example", "postmaster", []byte(raw)); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(d.config.dataFile("postmaster"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	if kept, err := os.ReadFile(filepath.Join(d.config.dataFile("postmaster"), files[0].Name())); err != nil || string(kept) != raw {
		t.Errorf("kept %q, %v", kept, err)
	}
	for {
		var mails []smtptest.Mail
		for m := range sink.Mails() {
			mails = append(mails, m)
		}
		if len(mails) == 1 {
			m := mails[0]
			if m.To != "it@acme.example" || m.From == "" {
				t.Errorf("from %q to %q", m.From, m.To)
			}
			header, _, _ := strings.Cut(string(m.Raw), "\r\n\r\n")
			_, html, ok := strings.Cut(string(m.Raw), "Content-Type: text/html")
			if !ok || strings.Contains(header, "\r\nBcc:") || strings.Contains(html, "<script") || strings.Contains(string(m.Raw), "\x1b") {
				t.Errorf("the note passes on more than text:\n%s", m.Raw)
			}
			return
		}
		if !sleep(t.Context(), 5*time.Millisecond) {
			t.Fatal("no note came")
		}
	}
}
