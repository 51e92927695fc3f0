package daemon

import (
	"context"
	"errors"
	netmail "net/mail"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/deliverd/deliverd/intake"
	"github.com/deliverd/deliverd/mail"
)

// Mail to postmaster and abuse (RFC 5321 4.5.1, RFC 2142) is kept as files, and told to
// whoever bounces.postmaster names by a mail of our own with its beginning. We don't
// pass the mail itself on: most of it is forged, and it would leave under our name.

const (
	// postmasterMost bounds the mails that are kept unread.
	postmasterMost = 1000
	// postmasterLines of at most postmasterWidth characters are told of one.
	postmasterLines = 40
	postmasterWidth = 80
	postmasterKind  = "postmaster"
)

var errPostmasterFull = errors.New("too much unread mail to postmaster; read it and move it away")

// keepForPostmaster is durable when it returns nil.
func (d *Daemon) keepForPostmaster(ctx context.Context, from, to string, raw []byte) error {
	dir := d.config.dataFile(postmasterKind)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	kept, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(kept) >= postmasterMost {
		return errPostmasterFull
	}
	name := time.Now().UTC().Format("20060102T150405.000000000") + "-" + to + ".eml"
	if err := writeFileSync(filepath.Join(dir, name), raw); err != nil {
		return err
	}
	file := filepath.Join(postmasterKind, name)
	d.log.Info("mail to "+to+" was kept", "file", file, "unread", len(kept)+1)
	if d.config.Bounces.Postmaster == "" {
		return nil
	}
	// The mail is safe; a note that can't be sent, or is one too many, is only late.
	if err := d.tellPostmaster(ctx, from, to, file, raw); err != nil {
		d.log.Warn("nobody was told of mail to "+to, "file", file, "error", err)
	}
	return nil
}

func (d *Daemon) tellPostmaster(ctx context.Context, from, to, file string, raw []byte) error {
	subject := ""
	if m, err := netmail.ReadMessage(strings.NewReader(string(raw[:min(len(raw), 64<<10)]))); err == nil {
		subject = m.Header.Get("Subject")
	}
	var lines []any
	for line := range strings.Lines(string(raw)) {
		if len(lines) == postmasterLines {
			break
		}
		lines = append(lines, plainLine(line))
	}
	_, err := d.intake.Submit(ctx, intake.Caller{Source: "deliverd", Tenants: []string{intake.AllTenants}}, mail.Request{
		Kind: postmasterKind, To: d.config.Bounces.Postmaster, IdempotencyKey: file,
		Data: map[string]any{"desk": to, "from": plainLine(from), "subject": plainLine(subject), "file": file, "lines": lines},
	})
	return err
}

// plainLine is the beginning of a line without what could be more than text.
func plainLine(s string) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n == postmasterWidth {
			break
		}
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			continue
		}
		b.WriteRune(r)
		n++
	}
	return strings.TrimSpace(b.String())
}
