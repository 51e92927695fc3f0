package daemon

import (
	"bytes"
	"context"
	"errors"
	"mime"
	netmail "net/mail"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/deliverd/deliverd/bounces"
	"github.com/deliverd/deliverd/console"
	"github.com/deliverd/deliverd/intake"
	"github.com/deliverd/deliverd/mail"
	"github.com/deliverd/deliverd/queue"
)

// desk has the mail to postmaster and abuse (RFC 5321 4.5.1, RFC 2142). A mail becomes
// a file before it is accepted, and is passed on to bounces.postmaster from there,
// whole, attached to a mail of ours that goes through the queue as any other; the file
// is removed when that was handed over. It is a new mail and no redirected one: most of
// what comes here is forged, and would break SPF and DMARC under another's name.
//
// The file's name says how far it is, so that a restart goes on where it was:
//
//	20261121T101112.123456789-abuse.eml                waits to be passed on
//	20261121T101112.123456789-abuse.msg_0195….eml      is on its way as that message
//	20261121T101112.123456789-abuse.refused.eml        did not arrive; a person reads it here
//	20261121T101112.123456789-abuse.loop.eml           came from a deliverd, maybe this one
//
// A complaint (RFC 5965) with a message of ours in it, whose return path proves which, joins
// that message's story before it is kept: feedback loops are registered for abuse.
//
// Nothing goes round: what we pass on is recognised when it comes back, a bounce of it
// comes to its return path and becomes an event, and an answer to it has no effect.
type desk struct {
	d    *Daemon
	dir  string
	wake chan struct{}

	mu     sync.Mutex  // one round at a time
	passed []time.Time // the last deskHourly that were passed on
	rest   time.Time   // nothing is passed on before: the last one was not taken
}

const (
	// deskMost bounds the mails that are kept.
	deskMost = 1000
	// deskHourly bounds those that are passed on in an hour: nobody reads more, and a
	// flood must not make our own mail look like one.
	deskHourly = 20
	// deskRound is how often is looked after those on their way.
	deskRound = 5 * time.Second
	// deskRest is the wait after the queue did not take one.
	deskRest = 5 * time.Minute
	// deskShown is how many characters of a mail's header are told.
	deskShown = 80

	postmasterKind = "postmaster"
	// deskTime is how a file's name begins: when its mail came, in UTC.
	deskTime = "20060102T150405.000000000"
)

var errDeskFull = errors.New("too much unread mail to postmaster; read it and move it away")

// openDesk prepares the desk, and the loop that passes on where somebody is named.
func (d *Daemon) openDesk(context.Context) error {
	d.desk = &desk{d: d, dir: d.config.dataFile(postmasterKind), wake: make(chan struct{}, 1)}
	if err := os.MkdirAll(d.desk.dir, 0o700); err != nil {
		return err
	}
	if d.config.Bounces.Postmaster != "" {
		d.start("mail to postmaster", d.desk.loop)
	}
	return nil
}

// take keeps a mail. It is durable when take returns nil.
func (k *desk) take(ctx context.Context, from, to string, raw []byte) error {
	if err := k.complaint(ctx, raw); err != nil {
		return err
	}
	forwarding := k.d.config.Bounces.Postmaster != ""
	// The last server notes the envelope's sender, RFC 5321 4.4.
	raw = append([]byte("Return-Path: <"+envelope(from)+">\r\n"), raw...)
	if forwarding && len(raw) > mail.MaxAttached {
		return bounces.ErrTooLarge
	}
	kept, err := os.ReadDir(k.dir)
	if err != nil {
		return err
	}
	if len(kept) >= deskMost {
		return errDeskFull
	}
	name := time.Now().UTC().Format(deskTime) + "-" + to
	if forwarding && fromDeliverd(raw) {
		name += ".loop"
		k.d.log.Warn("mail to "+to+" is not passed on: a deliverd sent it, so that it may go round", "file", name)
	}
	if err := writeFileSync(filepath.Join(k.dir, name+".eml"), raw); err != nil {
		return err
	}
	k.d.log.Info("mail to "+to+" was kept", "file", name+".eml", "unread", len(kept)+1)
	select {
	case k.wake <- struct{}{}:
	default:
	}
	return nil
}

// complaint records a complaint about a message of ours.
func (k *desk) complaint(ctx context.Context, raw []byte) error {
	if k.d.returns == nil {
		return nil
	}
	id, ok := k.d.returns.Find(raw)
	if !ok {
		return nil
	}
	returned := bounces.Parse(raw)
	if returned.Kind != bounces.KindComplaint {
		return nil // a bounce or what looks like one comes to the return path
	}
	if e, ok := returned.Event(id, time.Now().UTC()); ok {
		_, err := k.d.recordReturned(ctx, e)
		return err
	}
	return nil
}

func (k *desk) loop(ctx context.Context) {
	timer := time.NewTicker(deskRound)
	defer timer.Stop()
	for {
		if err := k.round(ctx); err != nil && ctx.Err() == nil {
			k.d.log.Warn("mail to postmaster waits", "error", err)
		}
		select {
		case <-k.wake:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
	}
}

// round passes on what may go and removes what has arrived.
func (k *desk) round(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	files, err := os.ReadDir(k.dir) // by name, so the oldest first
	if err != nil {
		return err
	}
	var waiting []string
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), ".eml")
		if !ok {
			continue
		}
		stem, state, marked := cutMark(name)
		switch {
		case !marked:
			waiting = append(waiting, name)
		case strings.HasPrefix(state, "msg_"):
			if err := k.follow(ctx, stem, mail.ID(state)); err != nil {
				return err
			}
		}
	}
	for i, name := range waiting {
		if !k.mayPass(time.Now()) {
			return nil
		}
		if err := k.pass(ctx, name, len(waiting)-i-1); err != nil {
			k.rest = time.Now().Add(deskRest)
			return err
		}
	}
	return nil
}

// cutMark cuts a file's name behind the desk's. The time before it has a dot, too.
func cutMark(name string) (stem, mark string, ok bool) {
	at := strings.IndexByte(name, '-') + 1
	to, mark, ok := strings.Cut(name[at:], ".")
	return name[:at] + to, mark, ok
}

func (k *desk) mayPass(now time.Time) bool {
	return !now.Before(k.rest) && (len(k.passed) < deskHourly || now.Sub(k.passed[0]) >= time.Hour)
}

// pass hands one mail to the queue. The file's name is its idempotency key: after a
// crash in between, it becomes the same message.
func (k *desk) pass(ctx context.Context, name string, waiting int) error {
	raw, err := os.ReadFile(filepath.Join(k.dir, name+".eml"))
	if err != nil {
		return err
	}
	_, to, _ := strings.Cut(name, "-")
	data := map[string]any{"desk": to, "directory": postmasterKind, "hourly": deskHourly}
	if waiting > 0 {
		data["waiting"] = waiting
	}
	if m, err := netmail.ReadMessage(bytes.NewReader(raw[:min(len(raw), 64<<10)])); err == nil {
		data["from"], data["subject"] = plainHeader(m.Header.Get("From")), plainHeader(m.Header.Get("Subject"))
	}
	r, err := k.d.intake.Submit(ctx, intake.Caller{Source: "deliverd", Tenants: []string{intake.AllTenants}}, mail.Request{
		Kind: postmasterKind, To: k.d.config.Bounces.Postmaster, IdempotencyKey: name, Data: data, Attached: raw,
	})
	if err != nil {
		return err
	}
	k.passed = append(k.passed, time.Now())
	k.passed = k.passed[max(0, len(k.passed)-deskHourly):]
	return k.mark(name, name, string(r.ID))
}

// follow looks what became of one that is on its way.
func (k *desk) follow(ctx context.Context, stem string, id mail.ID) error {
	if _, err := k.d.queue.Status(ctx, id); err == nil {
		return nil
	} else if !errors.Is(err, queue.ErrNotFound) {
		return err
	}
	summary, err := k.d.view.Summary(ctx, id)
	switch {
	case errors.Is(err, console.ErrNotFound), err == nil && summary.State.Open():
		return nil // the read model is behind
	case err != nil:
		return err
	}
	name := stem + "." + string(id)
	if summary.State == mail.StateAccepted {
		return os.Remove(filepath.Join(k.dir, name+".eml"))
	}
	k.d.log.Warn("mail to postmaster did not arrive; it is kept", "message", id, "state", summary.State, "file", stem+"."+string(summary.State)+".eml")
	return k.mark(name, stem, string(summary.State))
}

// mark renames a file to say how far it is.
func (k *desk) mark(name, stem, state string) error {
	return os.Rename(filepath.Join(k.dir, name+".eml"), filepath.Join(k.dir, stem+"."+state+".eml"))
}

// fromDeliverd reports whether a mail's own header is one of ours: what was attached
// to a bounce does not count.
func fromDeliverd(raw []byte) bool {
	header, _, _ := bytes.Cut(raw, []byte("\r\n\r\n"))
	return bytes.Contains(bytes.ToLower(header), []byte("\r\nx-deliverd-ref:"))
}

// envelope is an address as the listener took it; nothing in it ends a line.
func envelope(from string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return -1
		}
		return r
	}, from)
}

// plainHeader is the beginning of a header's value, decoded where it can be.
func plainHeader(s string) string {
	if decoded, err := new(mime.WordDecoder).DecodeHeader(s); err == nil {
		s = decoded
	}
	return plainLine(s)
}

// plainLine is the beginning of a line without what could be more than text.
func plainLine(s string) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n == deskShown {
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
